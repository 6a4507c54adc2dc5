"""What bad input gets, for layers, losses and their containers: a clear error, nothing changed.

The same for data sets and training is in test_training_input.py and test_training_safety.py, for
`backward` in test_layers.py, for hyper-parameters of optimizers in test_optim.py, for model
files in test_saving.py, for sizes beyond 2³¹ in test_accuracy.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from layer_helpers import plain_layers

import minidl
from minidl import nn, optim

F32 = np.float32


def zeros(*shape: int, dtype: Any = F32) -> np.ndarray:
    return np.zeros(shape, dtype)


def model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm(4), nn.ReLU(), nn.Linear(4, 2), rng=0)


# Each with a good input of batch 5.
LAYERS: dict[str, tuple[Callable[[], nn.Layer], tuple[int, ...]]] = {
    **{repr(cls()): (cls, (5, 3)) for cls in plain_layers().values()},
    "Linear(3, 4)": (lambda: nn.Linear(3, 4), (5, 3)),
    "BatchNorm(3)": (lambda: nn.BatchNorm(3), (5, 3)),
    "layer 0 Linear(3, 4)": (model, (5, 3)),
    "layer body.0 Linear(3, 3)": (lambda: nn.Residual(nn.Sequential(nn.Linear(3, 3))), (5, 3)),
    "Dropout(0.5)": (nn.Dropout, (5, 3)),
    "PReLU()": (nn.PReLU, (5, 3)),
    "PReLU(3)": (lambda: nn.PReLU(3), (5, 3)),
    "GELU('tanh')": (lambda: nn.GELU("tanh"), (5, 3)),
    "Flatten()": (nn.Flatten, (5, 3)),
    "LayerNorm(3)": (lambda: nn.LayerNorm(3), (5, 3)),
    "RMSNorm(3)": (lambda: nn.RMSNorm(3), (5, 3)),
    "Standardize(3)": (lambda: nn.Standardize(3), (5, 3)),
}
WITH_WIDTH = [name for name in LAYERS if "(3" in name]
every_layer = pytest.mark.parametrize("name", LAYERS)


def snapshot(layer: nn.Layer) -> list[bytes]:
    arrays = [a for p in layer.parameters() for a in (p.data, p.grad)]
    return [a.tobytes() for a in (*arrays, *layer.state().values())]


def rejects(layer: nn.Layer, error: type[Exception], *words: str, x: Any) -> None:
    """The call raises, with all these words, and leaves no trace."""
    before = snapshot(layer)
    with pytest.raises(error) as caught:
        layer(*x) if isinstance(x, tuple) else layer(x)
    for word in words:
        assert word in str(caught.value)
    assert snapshot(layer) == before


# --- wrong feature count, rank, or empty batch: ValueError with layer, expected, actual ---


@pytest.mark.parametrize("name", WITH_WIDTH)
@pytest.mark.parametrize("shape", [(5, 4), (5, 2), (3, 5), (5, 3, 1)])
def test_wrong_feature_count(backend: str, name: str, shape: tuple[int, ...]) -> None:
    rejects(LAYERS[name][0](), ValueError, name, "(batch, ..., 3)", str(shape), x=zeros(*shape))


@every_layer
@pytest.mark.parametrize("shape", [(), (3,)])
def test_wrong_rank(backend: str, name: str, shape: tuple[int, ...]) -> None:
    rejects(LAYERS[name][0](), ValueError, name, "(batch, ..., ", str(shape), x=zeros(*shape))


@every_layer
@pytest.mark.parametrize("shape", [(0, 3), (2, 0, 3)])
def test_empty_batch(backend: str, name: str, shape: tuple[int, ...]) -> None:
    rejects(LAYERS[name][0](), ValueError, name, "empty", str(shape), x=zeros(*shape))


WIDTHS_THAT_CANNOT_FIT = [
    (lambda: nn.Sequential(nn.Linear(4, 3), nn.Linear(4, 2)), "Linear(4, 3)", "Linear(4, 2)"),
    (lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(5, 2)), "4 feat", "Linear(5, 2)"),
    (lambda: nn.Sequential(nn.Embedding(9, 5), nn.GRU(4, 2)), "Embedding(9, 5)", "GRU(4, 2)"),
    (
        lambda: nn.Sequential(nn.GRU(3, 4, bidirectional=True), nn.Linear(4, 1)),
        "gives 8",
        "takes 4",
    ),
    (
        lambda: nn.Sequential(nn.Sequential(nn.Linear(3, 4)), nn.Sequential(nn.Linear(3, 2))),
        "Linear(3, 4)",
        "Linear(3, 2)",
    ),
    (
        lambda: nn.Sequential(nn.Residual(nn.Linear(3, 3)), nn.BatchNorm(4)),
        "gives 3",
        "BatchNorm(4)",
    ),
]


@pytest.mark.parametrize(("build", "first", "second"), WIDTHS_THAT_CANNOT_FIT)
def test_widths_that_cannot_fit_are_refused_when_built(build: Any, first: str, second: str) -> None:
    with pytest.raises(ValueError, match="Sequential") as caught:
        build()
    assert first in str(caught.value)
    assert second in str(caught.value)


class Twice(nn.Layer):
    """y = (x, x): a layer that does not say how wide its output is."""

    def forward(self, x: np.ndarray) -> np.ndarray:  # type: ignore[override]
        return np.concatenate([x, x], axis=-1)


class Padded(nn.Linear):
    """A Linear that takes any width and adds what is missing."""

    def check_input(self, x: np.ndarray) -> None:  # type: ignore[override]
        pass

    def forward(self, x: np.ndarray) -> np.ndarray:  # type: ignore[override]
        return super().forward(np.pad(x, [(0, 0), (0, self.in_features - x.shape[-1])]))


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (lambda: nn.Sequential(nn.Linear(3, 4), nn.Flatten(), nn.Linear(8, 2)), (5, 2, 3)),
        (lambda: nn.Sequential(nn.Linear(3, 4), Twice(), nn.Linear(8, 2)), (5, 3)),
        (lambda: nn.Sequential(nn.Linear(3, 4), Padded(8, 2), nn.Linear(2, 2)), (5, 3)),
        (lambda: nn.Sequential(nn.Sequential(Twice()), nn.Linear(6, 2)), (5, 3)),
        (
            lambda: nn.Sequential(nn.Residual(nn.Sequential(Twice()), Twice()), nn.Linear(6, 2)),
            (5, 3),
        ),
        (
            lambda: nn.Sequential(
                nn.PReLU(), nn.GRU(3, 4, return_sequences=False), nn.Linear(4, 2)
            ),
            (5, 2, 3),
        ),
    ],
)
def test_widths_that_fit_or_are_not_known_are_not_refused(model: Any, shape: Any) -> None:
    assert model()(zeros(*shape)).shape[-1] == 2


def test_recurrent_cell_checks_both_inputs() -> None:
    cell = nn.RNNCell(3, 4)
    rejects(cell, ValueError, "RNNCell(3, 4)", "3)", "(5, 4)", x=(zeros(5, 4), zeros(5, 4)))
    rejects(cell, ValueError, "RNNCell(3, 4)", "4)", "(5, 3)", x=(zeros(5, 3), zeros(5, 3)))
    rejects(cell, ValueError, "RNNCell(3, 4)", "(5, 3)", "(6, 4)", x=(zeros(5, 3), zeros(6, 4)))
    with pytest.raises(RuntimeError):
        cell.backward(zeros(5, 4))  # none of these calls was kept


def test_residual_of_two_shapes() -> None:
    layer = nn.Residual(nn.MaxPool1d(1, 2))  # a sequence of one step would fit
    words = "Residual(MaxPool1d)", "(5, 3, 2)", "(5, 6, 2)"
    rejects(layer, ValueError, *words, x=zeros(5, 6, 2))


def test_batch_norm_of_one_row() -> None:
    rejects(nn.BatchNorm(3), ValueError, "BatchNorm(3)", "one row", "eval()", x=zeros(1, 3))
    assert nn.BatchNorm(3).eval()(zeros(1, 3)).shape == (1, 3)


# --- another dtype: TypeError naming both and the cast to write ---------------------------


@every_layer
@pytest.mark.parametrize("dtype", [np.int64, np.uint8, bool, np.float16, complex, object, "U4"])
def test_dtype_that_is_no_float(backend: str, name: str, dtype: Any) -> None:
    make, shape = LAYERS[name]
    words = (name, "float32", str(np.dtype(dtype)), ".astype(np.float32)")
    rejects(make(), TypeError, *words, x=zeros(*shape, dtype=dtype))


@pytest.mark.parametrize("name", WITH_WIDTH)
@pytest.mark.parametrize(("of_layer", "of_input"), [("float32", "float64"), ("float64", "float32")])
def test_the_other_float(backend: str, name: str, of_layer: str, of_input: str) -> None:
    make, shape = LAYERS[name]
    words = (name, f"expected {of_layer}", f"got {of_input}", f".astype(np.{of_layer})")
    rejects(make().astype(of_layer), TypeError, *words, x=zeros(*shape, dtype=of_input))


@every_layer
@pytest.mark.parametrize("thing", [None, 1.0, [[1.0, 2.0, 3.0]], "text"])
def test_input_that_is_no_array(name: str, thing: Any) -> None:
    kind = type(thing).__name__
    rejects(LAYERS[name][0](), TypeError, name, "NumPy array", kind, "np.asarray", x=thing)


# --- losses ------------------------------------------------------------------------------

ELEMENTWISE = [nn.MSELoss, nn.BCEWithLogitsLoss]


def loss_rejects(loss: nn.Loss, error: type[Exception], *words: str, x: Any, y: Any) -> None:
    with pytest.raises(error) as caught:
        loss(x, y)
    for word in words:
        assert word in str(caught.value)
    with pytest.raises(RuntimeError):
        loss.backward()


@pytest.mark.parametrize("cls", ELEMENTWISE)
@pytest.mark.parametrize("shape", [(5,), (5, 1), (1, 3), (3, 5)])
def test_target_of_another_shape(backend: str, cls: type[nn.Loss], shape: Any) -> None:
    words = (cls.__name__, "(5, 3)", str(shape))
    loss_rejects(cls(), ValueError, *words, x=zeros(5, 3), y=zeros(*shape))


@pytest.mark.parametrize("cls", ELEMENTWISE)
@pytest.mark.parametrize("dtype", ["float64", "int64", "bool"])
def test_target_of_another_dtype(backend: str, cls: type[nn.Loss], dtype: str) -> None:
    words = (cls.__name__, "float32", dtype, "target.astype(np.float32)")
    loss_rejects(cls(), TypeError, *words, x=zeros(5, 3), y=zeros(5, 3, dtype=dtype))


@pytest.mark.parametrize("cls", [*ELEMENTWISE, nn.CrossEntropyLoss])
def test_prediction_that_is_no_float_array(backend: str, cls: type[nn.Loss]) -> None:
    name, labels = cls.__name__, np.zeros(5, int)
    loss_rejects(cls(), TypeError, name, "int64", x=zeros(5, 3, dtype=int), y=labels)
    loss_rejects(cls(), TypeError, name, "list", x=[[1.0]], y=labels)
    loss_rejects(cls(), TypeError, name, "list", x=zeros(5, 3), y=[0] * 5)
    loss_rejects(cls(), ValueError, name, "empty batch", "(0, 3)", x=zeros(0, 3), y=zeros(0, 3))


@pytest.mark.parametrize("row", [0, 2, 4])
@pytest.mark.parametrize("label", [-1, 3, 2**40, -(2**63)])
def test_label_out_of_range_names_the_first_row(backend: str, row: int, label: int) -> None:
    labels = np.zeros(5, int)
    labels[row:] = label
    words = (f"label {label}", f"row {row}", "3 classes")
    loss_rejects(nn.CrossEntropyLoss(), ValueError, *words, x=zeros(5, 3), y=labels)


def test_labels_beyond_64_bits_are_named_as_they_are(backend: str) -> None:
    loss = nn.CrossEntropyLoss()
    labels = np.array([0, 2**63 + 5, 2**64 - 1], np.uint64)
    with pytest.raises(ValueError, match=rf"label {2**63 + 5} in row 1"):
        loss(zeros(3, 3), labels)
    with pytest.raises(ValueError, match=r"(label|step: ) ?\d{19,20} in row [12]"):
        minidl.record(lambda x, y: loss(x, y))(zeros(3, 3), labels)


@pytest.mark.parametrize("dtype", [np.float32, bool, object])
def test_labels_that_are_no_integers(backend: str, dtype: Any) -> None:
    words = ("CrossEntropyLoss", str(np.dtype(dtype)), "labels.astype(int)")
    loss_rejects(nn.CrossEntropyLoss(), ValueError, *words, x=zeros(5, 3), y=zeros(5, dtype=dtype))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint64, ">i4"])
def test_labels_of_any_integer_type(backend: str, dtype: Any) -> None:
    logits = np.random.default_rng(0).normal(size=(5, 3))
    labels = np.array([0, 2, 1, 2, 0])
    expected = float(nn.CrossEntropyLoss()(logits, labels))
    assert float(nn.CrossEntropyLoss()(logits, labels.astype(dtype))) == expected


@pytest.mark.parametrize("shape", [(4,), (5, 1), (5, 3), ()])
def test_labels_of_a_wrong_shape(backend: str, shape: tuple[int, ...]) -> None:
    words = ("CrossEntropyLoss", "(5,)", str(shape))
    loss_rejects(
        nn.CrossEntropyLoss(), ValueError, *words, x=zeros(5, 3), y=zeros(*shape, dtype=int)
    )


def test_logits_of_a_wrong_rank(backend: str) -> None:
    words = ("CrossEntropyLoss", "(batch, classes)", "(5,)")
    loss_rejects(nn.CrossEntropyLoss(), ValueError, *words, x=zeros(5), y=np.zeros(5, int))
    words = ("CrossEntropyLoss", "labels", "(5, 3)", "(5,)")
    loss_rejects(nn.CrossEntropyLoss(), ValueError, *words, x=zeros(5, 3, 2), y=np.zeros(5, int))


# --- hyper-parameters of layers -----------------------------------------------------------

NAN = float("nan")
BAD_LAYERS: list[tuple[Callable[[], Any], str]] = [
    *((lambda p=p: nn.Dropout(p), "Dropout: p must be") for p in (-0.1, 1, 1.5, NAN)),
    *((lambda n=n: nn.Linear(n, 2), "Linear: in_features must be >= 1") for n in (0, -1)),
    *((lambda n=n: nn.Linear(2, n), "Linear: out_features must be >= 1") for n in (0, -1)),
    *((lambda n=n: nn.RNNCell(n, 2), "RNNCell: in_features must be >= 1") for n in (0, -1)),
    *((lambda n=n: nn.RNNCell(2, n), "RNNCell: hidden_size must be >= 1") for n in (0, -1)),
    *((lambda n=n: nn.BatchNorm(n), "BatchNorm: features must be >= 1") for n in (0, -1)),
    *((lambda m=m: nn.BatchNorm(2, momentum=m), "momentum") for m in (0, -0.1, 1.1, NAN)),
    *((lambda e=e: nn.BatchNorm(2, eps=e), "eps") for e in (0, -1e-5, NAN)),
    (lambda: nn.CELU(0), "CELU: alpha must be finite and > 0"),
    (
        lambda: nn.CELU(1e-60),
        "CELU: alpha must be finite and >= 1.18e-38, the least normal float32",
    ),
]


@pytest.mark.parametrize(("make", "words"), BAD_LAYERS)
def test_bad_hyper_parameter(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


BAD_KINDS: list[Callable[[], Any]] = [
    lambda: nn.Linear(4.0, 2),
    lambda: nn.Linear(2, "4"),
    lambda: nn.Linear(True, 2),
    lambda: nn.RNNCell(2, None),
    lambda: nn.BatchNorm(2.5),
    lambda: nn.BatchNorm(2, eps="small"),
    lambda: nn.Dropout("half"),
    lambda: optim.Adam(model().parameters(), lr="1e-3"),
    lambda: optim.Adam(model().parameters(), betas=0.9),
    lambda: optim.SGD(model().parameters(), max_norm=[1]),
]


@pytest.mark.parametrize("make", BAD_KINDS)
def test_hyper_parameter_of_a_wrong_kind(make: Callable[[], Any]) -> None:
    with pytest.raises(TypeError, match="must be"):
        make()


# --- a gradient of the wrong shape or dtype ----------------------------------------------


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(
    "dy",
    [zeros(4, 3), zeros(5, 7), zeros(5), zeros(5, 1), zeros(5, 3, dtype=float), [[1.0]]],
    ids=["fewer rows", "more columns", "one dimension", "one column", "float64", "a list"],
)
def test_wrong_gradient_names_the_layer_and_changes_nothing(
    backend: str, name: str, dy: Any
) -> None:
    make, shape = LAYERS[name]
    layer = make()
    layer(zeros(*shape))
    before = [parameter.grad.tobytes() for parameter in layer.parameters()]
    with pytest.raises((ValueError, TypeError), match="layer|" + name.split("(")[0]):
        layer.backward(dy)
    assert [parameter.grad.tobytes() for parameter in layer.parameters()] == before


# --- a step that must not happen ---------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_gradient_that_is_not_finite_changes_no_parameter(backend: str, value: float) -> None:
    net = model()
    optimizer = optim.Adam(net.parameters(), lr=0.1)
    x = np.full((5, 3), value, F32)
    net.eval()
    before = [parameter.data.tobytes() for parameter in net.parameters()]
    with np.errstate(invalid="ignore"):
        net.backward(np.ones_like(net(x)))
    with pytest.raises(FloatingPointError, match="no parameter was changed"):
        optimizer.step()
    assert [parameter.data.tobytes() for parameter in net.parameters()] == before
