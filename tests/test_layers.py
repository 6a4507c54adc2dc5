"""Layers and losses: their gradients in any shape, and the promises that all of them keep."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from layer_helpers import as_dtype, as_tuple, ones_like, plain_layers
from test_kernels import LAYOUTS

import minidl
from minidl import nn

SIZES = (1, 2, 3, 5, 7)
Rng = np.random.Generator
Problem = tuple[Any, list[np.ndarray]]


class Shapes:
    """Widths and leading dimensions drawn at random; every dimension is often 1."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def width(self) -> int:
        return int(self.rng.choice(SIZES))

    def lead(self) -> tuple[int, ...]:
        return tuple(self.width() for _ in range(self.rng.integers(1, 3)))

    def flag(self) -> bool:
        return bool(self.rng.integers(2))

    def normal(self, *shape: int) -> np.ndarray:
        return self.rng.normal(size=shape)


def linear(s: Shapes) -> Problem:
    layer = nn.Linear(s.width(), s.width(), bias=s.flag(), rng=s.rng)
    return layer, [s.normal(*s.lead(), layer.in_features)]


def activation(cls: type[nn.Layer]) -> Callable[[Shapes], Problem]:
    return lambda s: (cls(), [s.normal(*s.lead(), s.width())])


def with_parameter(cls: type[nn.Layer], low: float, high: float) -> Callable[[Shapes], Problem]:
    return lambda s: (cls(s.rng.uniform(low, high)), [s.normal(*s.lead(), s.width())])


def prelu(s: Shapes) -> Problem:
    width = s.width()
    layer = nn.PReLU(width if s.flag() else None)
    layer.weight.data = s.normal(layer.weight.size)
    return layer, [s.normal(*s.lead(), width)]


def rms_norm(s: Shapes) -> Problem:
    layer = nn.RMSNorm(s.width(), 0.1)
    layer.gamma.data = s.normal(layer.in_features)
    return layer, [s.normal(*s.lead(), layer.in_features)]


def layer_norm(s: Shapes) -> Problem:
    layer = nn.LayerNorm(1 + s.width())
    layer.gamma.data, layer.beta.data = s.normal(layer.in_features), s.normal(layer.in_features)
    x = s.normal(*s.lead(), layer.in_features)
    x[..., ::2] += 4  # a row that is nearly constant has no accurate finite differences
    return layer, [x]


def standardize(s: Shapes) -> Problem:
    layer = nn.Standardize(s.width())
    layer.adapt(5 * s.normal(4, layer.in_features) + 3)
    return layer, [s.normal(*s.lead(), layer.in_features)]


def batch_norm(s: Shapes) -> Problem:
    layer = nn.BatchNorm(s.width()).train(s.flag())
    layer.gamma.data, layer.beta.data = s.normal(layer.in_features), s.normal(layer.in_features)
    x = s.normal(2 * s.width(), *s.lead()[1:], layer.in_features)
    x[::2] += 4  # a batch that is nearly constant has no accurate finite differences
    return layer, [x]


def dropout(s: Shapes) -> Problem:
    layer = nn.Dropout(s.rng.uniform(), rng=s.rng).train(s.flag())
    return layer, [s.normal(*s.lead(), s.width())]


def sequential(s: Shapes) -> Problem:
    a, b, c = s.width(), s.width(), s.width()
    layers = [nn.Linear(a, b), nn.BatchNorm(b), nn.Tanh(), nn.Dropout(0.3), nn.Linear(b, c)]
    x = s.normal(6, a)
    x[::2] += 4
    return nn.Sequential(*layers, rng=s.rng), [x]


def residual(s: Shapes) -> Problem:
    a, b = s.width(), s.width()
    shortcut = nn.Linear(a, b, rng=s.rng) if a != b or s.flag() else None
    body = nn.Sequential(nn.Linear(a, b, rng=s.rng), nn.Sigmoid())
    return nn.Residual(body, shortcut), [s.normal(*s.lead(), a)]


def cell(cls: Any, **options: Any) -> Callable[[Shapes], Problem]:
    def problem(s: Shapes) -> Problem:
        cell = cls(s.width(), s.width(), rng=s.rng, **options)
        batch = s.width()
        state = [s.normal(batch, cell.hidden_size) for _ in cell.state_of]
        return with_biases(cell, s), [s.normal(batch, cell.in_features), *state]

    return problem


def sequences(cls: Any) -> Callable[[Shapes], Problem]:
    def problem(s: Shapes) -> Problem:
        options = {"num_layers": 1 + s.flag(), "bidirectional": s.flag()}
        options["return_sequences"] = s.flag()
        layer = cls(s.width(), s.width(), **options, rng=s.rng)
        batch, steps = s.width(), s.width()
        shape = (batch, layer.hidden_size)
        state = [s.normal(*shape) for _ in range(layer.state_size * s.flag())]
        return with_biases(layer, s), [s.normal(batch, steps, layer.in_features), *state]

    return problem


def with_biases(layer: nn.Layer, s: Shapes) -> nn.Layer:
    for name, parameter in layer.named_parameters():
        if "bias" in name:
            parameter.data = s.normal(*parameter.shape)
    return layer


def embedding(s: Shapes) -> Problem:
    layer = nn.Embedding(s.width(), s.width(), rng=s.rng)
    return layer, [s.rng.integers(layer.num_embeddings, size=s.lead())]


def reduction(s: Shapes) -> str:
    return str(s.rng.choice(["mean", "sum", "none"]))


def cross_entropy(s: Shapes) -> Problem:
    rows, classes = s.width(), s.width()
    labels = s.rng.integers(classes, size=rows)
    weights = 0.5 + s.rng.uniform(size=classes) if s.flag() else None
    loss = nn.CrossEntropyLoss(reduction(s), weights, 0.3 * s.flag())
    return loss, [2 * s.normal(rows, classes), labels]


def mse(s: Shapes) -> Problem:
    shape = (*s.lead(), s.width())
    return nn.MSELoss(reduction(s)), [s.normal(*shape), s.normal(*shape)]


def nll(s: Shapes) -> Problem:
    loss, (logits, labels) = cross_entropy(s)
    classes = 1 + s.rng.uniform(size=logits.shape[1]) if s.flag() else None
    return nn.NLLLoss(loss.reduction, classes), [-np.abs(logits), labels]


def l1(s: Shapes) -> Problem:
    shape = (*s.lead(), s.width())
    return nn.L1Loss(reduction(s)), [s.normal(*shape), s.normal(*shape)]


def huber(s: Shapes) -> Problem:
    shape = (*s.lead(), s.width())
    loss = nn.HuberLoss(s.rng.uniform(0.3, 3), reduction(s))
    return loss, [s.normal(*shape), s.normal(*shape)]


def bce(s: Shapes) -> Problem:
    shape = (*s.lead(), s.width())
    return nn.BCEWithLogitsLoss(reduction(s)), [3 * s.normal(*shape), s.rng.uniform(size=shape)]


class Problems(dict[str, Callable[[Shapes], Problem]]):
    """Random shapes for those that are named; the examples of all others, with random inputs."""

    def __missing__(self, name: str) -> Callable[[Shapes], Problem]:
        def example(s: Shapes) -> Problem:
            cls = next(c for c in [*nn.Layer.registry, *nn.Loss.registry] if c.__name__ == name)
            examples = list(cls.examples())
            subject, *rest = examples[s.rng.integers(len(examples))]
            return subject, [s.normal(*shape) for shape in rest[0]] if len(rest) == 1 else rest

        return example


NAMED: dict[str, Callable[[Shapes], Problem]] = {
    **{name: activation(cls) for name, cls in plain_layers().items()},
    "Linear": linear,
    "LeakyReLU": with_parameter(nn.LeakyReLU, 0, 1),
    "PReLU": prelu,
    "ELU": with_parameter(nn.ELU, 0, 2),
    "CELU": with_parameter(nn.CELU, 0.5, 2),
    "Softplus": with_parameter(nn.Softplus, 0.5, 4),
    "Flatten": activation(nn.Flatten),
    "LayerNorm": layer_norm,
    "RMSNorm": rms_norm,
    "Standardize": standardize,
    "BatchNorm": batch_norm,
    "Dropout": dropout,
    "Sequential": sequential,
    "Residual": residual,
    "RNNCell": cell(nn.RNNCell),
    "LSTMCell": cell(nn.LSTMCell),
    "GRUCell": cell(nn.GRUCell),
    "RNN": sequences(nn.RNN),
    "LSTM": sequences(nn.LSTM),
    "GRU": sequences(nn.GRU),
    "Embedding": embedding,
    "CrossEntropyLoss": cross_entropy,
    "NLLLoss": nll,
    "L1Loss": l1,
    "HuberLoss": huber,
    "MSELoss": mse,
    "BCEWithLogitsLoss": bce,
}
PROBLEMS = Problems(NAMED)
REGISTERED = [cls.__name__ for cls in [*nn.Layer.registry, *nn.Loss.registry]]
LAYERS = [cls.__name__ for cls in nn.Layer.registry]

every_layer = pytest.mark.parametrize("name", LAYERS)
every_layer_and_loss = pytest.mark.parametrize("name", REGISTERED)


def test_what_is_not_named_here_is_tested_by_its_examples() -> None:
    for name in REGISTERED:
        subject, inputs = Problems()[name](Shapes(0))
        assert type(subject).__name__ == name
        assert all(isinstance(x, np.ndarray) for x in inputs)


# --- gradients --------------------------------------------------------------------------


@every_layer_and_loss
def test_gradients_of_the_examples(backend: str, name: str) -> None:
    reports = list(minidl.gradcheck_all([name]))
    assert reports
    for report in reports:
        assert report.ok, report.message
        assert report.worst <= 1e-6


@every_layer_and_loss
def test_gradients_in_random_shapes(backend: str, name: str) -> None:
    for seed in range(8):
        subject, inputs = PROBLEMS[name](Shapes(seed))
        report = minidl.gradcheck(subject, *inputs, rtol=1e-6)
        assert report.worst <= 1e-6
        assert report.checked + report.kinks > 0


@every_layer
def test_backward_adds_to_the_gradients(backend: str, name: str) -> None:
    for seed in range(4):
        layer, inputs = PROBLEMS[name](Shapes(seed))
        layer.astype(np.float64)
        once = parameter_gradients(layer, inputs, times=1)
        thrice = parameter_gradients(layer, inputs, times=3)
        for a, b in zip(once, thrice, strict=True):
            np.testing.assert_allclose(b, 3 * a, rtol=1e-12, atol=1e-12)


def parameter_gradients(layer: nn.Layer, inputs: list[np.ndarray], times: int) -> list[np.ndarray]:
    layer = copy.deepcopy(layer)
    start = copy.deepcopy(layer.state())
    for _ in range(times):
        for path, array in layer.state().items():
            array[...] = start[path]
        layer.backward(*ones_like(layer(*inputs)))
    return [parameter.grad for parameter in layer.parameters()]


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_cell_unrolled_in_time(backend: str, steps: int) -> None:
    """Each step's gradient flows through all steps before it; shared weights collect them all."""

    class Unrolled(nn.Layer):
        """Inputs (batch, steps, features) and the first state; all states together out."""

        def __init__(self) -> None:
            self.cell = nn.RNNCell(3, 4, rng=0)

        def check_input(self, *inputs: np.ndarray) -> None:
            """The cell checks."""

        def forward(self, x: np.ndarray, h: np.ndarray) -> np.ndarray:  # type: ignore[override]
            self.cell.clear()
            states = []
            for t in range(steps):
                h = self.cell(x[:, t], h)
                states.append(h)
            return np.stack(states, axis=1)

        def backward(self, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            dx, dh = np.zeros((2, steps, 3)), np.zeros((2, 4))
            for t in reversed(range(steps)):
                dx[:, t], dh = self.cell.backward(dy[:, t] + dh)
            return dx, dh

    rng = np.random.default_rng(1)
    report = minidl.gradcheck(
        Unrolled(), rng.normal(size=(2, steps, 3)), rng.normal(size=(2, 4)), rtol=1e-6
    )
    assert {"cell.recurrent_weight", "cell.input_weight", "cell.bias"} < report.tensors.keys()


# --- inputs -----------------------------------------------------------------------------


@every_layer
@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout != "byte-swapped"])
def test_layout_of_the_input_changes_nothing(backend: str, name: str, layout: str) -> None:
    for seed in range(3):
        layer, inputs = PROBLEMS[name](Shapes(seed))
        plain, other = copy.deepcopy(layer), copy.deepcopy(layer)
        inputs = as_dtype(inputs, np.float32)
        laid_out = [LAYOUTS[layout](x) for x in inputs]
        y, z = as_tuple(plain(*inputs)), as_tuple(other(*laid_out))
        for a, b in zip(y, z, strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-6, atol=1e-6)
        dy = ones_like(y)
        dx, dz = plain.backward(*dy), other.backward(*[LAYOUTS[layout](part) for part in dy])
        for a, b in zip(as_tuple(dx), as_tuple(dz), strict=True):
            if a is not None:
                np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6)


@every_layer
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_output_keeps_dtype_and_leaves_the_input_alone(backend: str, name: str, dtype: Any) -> None:
    layer, inputs = PROBLEMS[name](Shapes(0))
    layer.astype(dtype)
    inputs = as_dtype(inputs, dtype)
    before = [x.copy() for x in inputs]
    outputs = as_tuple(layer(*inputs))
    kept = [y.copy() for y in outputs]
    for dx, x in zip(as_tuple(layer.backward(*ones_like(outputs))), inputs, strict=True):
        if x.dtype.kind == "f":
            assert dx.dtype == dtype
            assert dx.shape == x.shape
    assert all(y.dtype == dtype for y in outputs)
    assert all(np.array_equal(y, z) for y, z in zip(outputs, kept, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(inputs, before, strict=True))


def test_outputs_of_two_calls_are_two_arrays(backend: str) -> None:
    layer = nn.Linear(3, 2, rng=0)
    a, b = np.zeros((2, 2, 3), np.float32)
    b[...] = 1
    first = layer(a)
    kept = first.copy()
    layer(b)
    assert np.array_equal(first, kept)


# --- the order of calls -----------------------------------------------------------------


@every_layer
def test_backward_needs_a_forward_of_its_own(name: str) -> None:
    layer, inputs = PROBLEMS[name](Shapes(1))
    layer.astype(np.float64)
    dy = ones_like(layer(*inputs))
    layer.backward(*dy)
    before = [parameter.grad.copy() for parameter in layer.parameters()]
    with pytest.raises(RuntimeError, match="backward without a forward"):
        layer.backward(*dy)
    after = [parameter.grad for parameter in layer.parameters()]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    layer(*inputs)
    layer.backward(*dy)


@pytest.mark.parametrize("name", [cls.__name__ for cls in nn.Loss.registry])
def test_loss_backward_needs_a_forward_of_its_own(name: str) -> None:
    loss, inputs = PROBLEMS[name](Shapes(1))
    with pytest.raises(RuntimeError, match=name):
        loss.backward()
    loss(*inputs)
    loss.backward()
    with pytest.raises(RuntimeError, match="backward without a forward"):
        loss.backward()


def test_loss_value_reads_like_a_number() -> None:
    value = nn.MSELoss()(np.ones((2, 2)), np.zeros((2, 2)))
    assert value.shape == ()
    assert value.dtype == np.float64
    assert f"{value:.2f}" == "1.00"
    assert float(value) == 1


@pytest.mark.parametrize("name", ["MSELoss", "BCEWithLogitsLoss", "CrossEntropyLoss"])
def test_sum_is_mean_times_count(backend: str, name: str) -> None:
    for seed in range(3):
        _, inputs = PROBLEMS[name](Shapes(seed))
        mean, total = (getattr(nn, name)(reduction) for reduction in ("mean", "sum"))
        count = len(inputs[0]) if name == "CrossEntropyLoss" else inputs[0].size
        assert float(total(*inputs)) == pytest.approx(count * float(mean(*inputs)))
        np.testing.assert_allclose(total.backward(), count * mean.backward(), rtol=1e-12)
    with pytest.raises(ValueError, match="reduction"):
        getattr(nn, name)("average")


# --- Flatten ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Flatten(), (2, 3 * 4 * 5)),
        (nn.Flatten(2), (2, 3, 4 * 5)),
        (nn.Flatten(1, 2), (2, 3 * 4, 5)),
        (nn.Flatten(end_dim=-2), (2, 3 * 4, 5)),
        (nn.Flatten(3), (2, 3, 4, 5)),
        (nn.Flatten(2, 2), (2, 3, 4, 5)),
    ],
    ids=repr,
)
def test_flatten_puts_these_axes_into_one(backend: str, layer: nn.Flatten, shape: Any) -> None:
    x = np.arange(2.0 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    for given in (x, np.asfortranarray(x), x[:, ::-1]):
        y = layer(given)
        assert y.shape == shape == layer.output_shape(x.shape)
        assert y.ravel().tolist() == given.ravel().tolist()
        assert layer.backward(np.asfortranarray(y)).tolist() == given.tolist()
    assert repr(eval(repr(layer), vars(nn).copy())) == repr(layer)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0,), "Flatten: start_dim must be >= 1, got 0: axis 0 is the batch"),
        ((-1,), "Flatten: start_dim must be >= 1, got -1"),
        ((1, 0), "Flatten: start_dim 1 comes after end_dim 0"),
        ((3, 2), "Flatten: start_dim 3 comes after end_dim 2"),
    ],
)
def test_flatten_leaves_the_batch_alone(arguments: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        nn.Flatten(*arguments)
    with pytest.raises(TypeError, match="Flatten: end_dim must be a whole number"):
        nn.Flatten(1, 2.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("layer", [nn.Flatten(2), nn.Flatten(1, 2), nn.Flatten(1, -3)], ids=repr)
def test_flatten_needs_the_axes_it_names(backend: str, layer: nn.Flatten) -> None:
    with pytest.raises(ValueError, match=r"Flatten\(.*shape \(5, 3\) has no axes"):
        layer(np.zeros((5, 3)))
    assert layer.output_shape(("batch", 3)) is None
