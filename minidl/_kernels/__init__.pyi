# The calls have the types of their NumPy twins, whichever build serves them.
from typing import Any

from minidl._kernels.reference import Array
from minidl._kernels.reference import (
    absolute_error as absolute_error,
)
from minidl._kernels.reference import (
    adagrad as adagrad,
)
from minidl._kernels.reference import (
    adam as adam,
)
from minidl._kernels.reference import (
    add as add,
)
from minidl._kernels.reference import (
    batch_norm as batch_norm,
)
from minidl._kernels.reference import (
    batch_norm_grad as batch_norm_grad,
)
from minidl._kernels.reference import (
    bce_with_logits as bce_with_logits,
)
from minidl._kernels.reference import (
    clamp as clamp,
)
from minidl._kernels.reference import (
    clear as clear,
)
from minidl._kernels.reference import (
    clip as clip,
)
from minidl._kernels.reference import (
    column_sum as column_sum,
)
from minidl._kernels.reference import (
    copy as copy,
)
from minidl._kernels.reference import (
    dropout as dropout,
)
from minidl._kernels.reference import (
    dropout_key as dropout_key,
)
from minidl._kernels.reference import (
    exp as exp,
)
from minidl._kernels.reference import (
    follow as follow,
)
from minidl._kernels.reference import (
    huber as huber,
)
from minidl._kernels.reference import (
    layer_norm as layer_norm,
)
from minidl._kernels.reference import (
    layer_norm_grad_input as layer_norm_grad_input,
)
from minidl._kernels.reference import (
    layer_norm_grad_params as layer_norm_grad_params,
)
from minidl._kernels.reference import (
    linear as linear,
)
from minidl._kernels.reference import (
    linear_grad_input as linear_grad_input,
)
from minidl._kernels.reference import (
    linear_grad_params as linear_grad_params,
)
from minidl._kernels.reference import (
    log as log,
)
from minidl._kernels.reference import (
    matmul as matmul,
)
from minidl._kernels.reference import (
    mse as mse,
)
from minidl._kernels.reference import (
    nadam as nadam,
)
from minidl._kernels.reference import (
    nll as nll,
)
from minidl._kernels.reference import (
    rmsprop as rmsprop,
)
from minidl._kernels.reference import (
    scale as scale,
)
from minidl._kernels.reference import (
    sgd as sgd,
)
from minidl._kernels.reference import (
    softmax_cross_entropy as softmax_cross_entropy,
)
from minidl._kernels.reference import (
    squared_norm as squared_norm,
)
from minidl._kernels.reference import (
    standardize as standardize,
)
from minidl._kernels.reference_activations import (
    elu as elu,
)
from minidl._kernels.reference_activations import (
    elu_grad as elu_grad,
)
from minidl._kernels.reference_activations import (
    gelu as gelu,
)
from minidl._kernels.reference_activations import (
    gelu_grad as gelu_grad,
)
from minidl._kernels.reference_activations import (
    leaky_relu as leaky_relu,
)
from minidl._kernels.reference_activations import (
    leaky_relu_grad as leaky_relu_grad,
)
from minidl._kernels.reference_activations import (
    log_softmax as log_softmax,
)
from minidl._kernels.reference_activations import (
    log_softmax_grad as log_softmax_grad,
)
from minidl._kernels.reference_activations import (
    prelu as prelu,
)
from minidl._kernels.reference_activations import (
    prelu_grad as prelu_grad,
)
from minidl._kernels.reference_activations import (
    relu as relu,
)
from minidl._kernels.reference_activations import (
    relu_grad as relu_grad,
)
from minidl._kernels.reference_activations import (
    sigmoid as sigmoid,
)
from minidl._kernels.reference_activations import (
    sigmoid_grad as sigmoid_grad,
)
from minidl._kernels.reference_activations import (
    silu as silu,
)
from minidl._kernels.reference_activations import (
    silu_grad as silu_grad,
)
from minidl._kernels.reference_activations import (
    softmax as softmax,
)
from minidl._kernels.reference_activations import (
    softmax_grad as softmax_grad,
)
from minidl._kernels.reference_activations import (
    softplus as softplus,
)
from minidl._kernels.reference_activations import (
    softplus_grad as softplus_grad,
)
from minidl._kernels.reference_activations import (
    tanh as tanh,
)
from minidl._kernels.reference_activations import (
    tanh_grad as tanh_grad,
)
from minidl._kernels.reference_recurrent import (
    batch_first as batch_first,
)
from minidl._kernels.reference_recurrent import (
    embedding as embedding,
)
from minidl._kernels.reference_recurrent import (
    embedding_grad as embedding_grad,
)
from minidl._kernels.reference_recurrent import (
    gru_gates as gru_gates,
)
from minidl._kernels.reference_recurrent import (
    gru_gates_grad as gru_gates_grad,
)
from minidl._kernels.reference_recurrent import (
    gru_sequence as gru_sequence,
)
from minidl._kernels.reference_recurrent import (
    gru_sequence_grad as gru_sequence_grad,
)
from minidl._kernels.reference_recurrent import (
    lstm_gates as lstm_gates,
)
from minidl._kernels.reference_recurrent import (
    lstm_gates_grad as lstm_gates_grad,
)
from minidl._kernels.reference_recurrent import (
    lstm_sequence as lstm_sequence,
)
from minidl._kernels.reference_recurrent import (
    lstm_sequence_grad as lstm_sequence_grad,
)
from minidl._kernels.reference_recurrent import (
    rnn_sequence as rnn_sequence,
)
from minidl._kernels.reference_recurrent import (
    rnn_sequence_grad as rnn_sequence_grad,
)
from minidl._kernels.reference_recurrent import (
    time_first as time_first,
)

CALLS: dict[str, tuple[str, ...]]
NAMES: tuple[str, ...]
isa: str
why: str

def available() -> list[str]: ...
def select(name: str) -> None: ...
def describe() -> dict[str, str]: ...

class Replayer:
    program: Any
    names: Any
    def __call__(self, *inputs: Any) -> Any: ...

def recorder() -> Any: ...
def set_recorder(recorder: Any) -> None: ...
def is_batch(x: Any, dtype: Any, features: int | None) -> bool: ...
def forward_pass() -> object: ...
def in_forward_pass(function: Any, inputs: tuple[Any, ...], options: dict[str, Any]) -> Any: ...
def changes() -> int: ...
def note_change() -> None: ...
def address_of(x: Array) -> int: ...

class evaluating:  # noqa: N801
    def __enter__(self) -> None: ...
    def __exit__(self, *error: object) -> None: ...

def is_evaluating() -> bool: ...
