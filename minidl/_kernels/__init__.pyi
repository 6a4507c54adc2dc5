# The calls have the types of their NumPy twins, whichever build serves them.
from minidl._kernels.reference import (
    adam as adam,
    add as add,
    batch_norm as batch_norm,
    batch_norm_grad as batch_norm_grad,
    bce_with_logits as bce_with_logits,
    clip as clip,
    column_sum as column_sum,
    dropout as dropout,
    dropout_key as dropout_key,
    linear as linear,
    linear_grad_input as linear_grad_input,
    linear_grad_params as linear_grad_params,
    matmul as matmul,
    mse as mse,
    relu as relu,
    relu_grad as relu_grad,
    scale as scale,
    sgd as sgd,
    sigmoid as sigmoid,
    sigmoid_grad as sigmoid_grad,
    softmax_cross_entropy as softmax_cross_entropy,
    squared_norm as squared_norm,
    tanh as tanh,
    tanh_grad as tanh_grad,
)

CALLS: dict[str, tuple[str, ...]]
NAMES: tuple[str, ...]
isa: str
why: str

def available() -> list[str]: ...
def select(name: str) -> None: ...
def describe() -> dict[str, str]: ...
