"""A recorded step computes what the function itself computes, to the last bit."""

from __future__ import annotations

import copy
import functools
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_helpers import as_tuple, inputs_of
from recording_helpers import Training, classes, everything, plain_regression, shared_by

import minidl
from minidl import _kernels, kernels, nn, optim
from minidl.recording import program as recorded_module

EPOCHS, BATCH = 3, 16
LAYERS = [cls for cls in nn.Layer.registry if cls.__module__.startswith("minidl.")]
LOSSES = [cls for cls in nn.Loss.registry if cls.__module__.startswith("minidl.")]
both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


# --- a whole training -----------------------------------------------------------------------


def one_by_one(training: Training, X: np.ndarray, Y: np.ndarray, record: bool) -> list[float]:
    step = minidl.record(training.step) if record else training.step
    return [
        float(step(x, y))
        for epoch in range(EPOCHS)
        for x, y in minidl.batches(X, Y, BATCH, rng=epoch)
    ]


def by_epochs(training: Training, X: np.ndarray, Y: np.ndarray) -> list[float]:
    step = minidl.record(training.step)
    losses = [step.epoch(X, Y, BATCH, rng=epoch, per_step=True) for epoch in range(EPOCHS)]
    return np.concatenate(losses).tolist()


@both_dtypes
def test_all_ways_to_train_give_the_same_bits(backend: str, dtype: Any) -> None:
    X, Y = classes(dtype=dtype)
    eager = everything(dtype)
    losses = one_by_one(eager, X, Y, record=False)
    assert len(losses) == 15
    assert losses[-1] < losses[0]
    for threads in (1, 2, 4, 2):
        with shared_by(threads):
            for run in (lambda *args: one_by_one(*args, record=True), by_epochs):
                training = everything(dtype)
                assert run(training, X, Y) == losses
                assert training.bits() == eager.bits()


def test_twin_records_nothing() -> None:
    before = _kernels.isa
    _kernels.select("reference")
    try:
        training, X, Y = plain_regression()
        step = minidl.record(training.step)
        step(X, Y)
        step.epoch(X, Y, 7)
        assert "nothing recorded" in str(step)
    finally:
        _kernels.select(before)


@pytest.mark.parametrize("clears", ["before", "after", "never"])
def test_gradients_may_be_cleared_when_it_suits(isa: str, clears: str) -> None:
    x, y = classes(40)

    def trained(record: bool) -> tuple[list[float], dict[str, bytes]]:
        training = everything()

        def step(x: np.ndarray, y: np.ndarray) -> Any:
            value = training.loss(training.model(x), y)
            if clears == "before":
                training.optimizer.zero_grad()
            training.model.backward(training.loss.backward())
            training.optimizer.step()
            if clears == "after":
                training.optimizer.zero_grad()
            return value

        step = minidl.record(step) if record else step
        return [float(step(x, y)) for _ in range(4)], training.bits()

    assert trained(record=True) == trained(record=False)


def test_epoch_means_the_losses_over_the_rows(backend: str) -> None:
    X, Y = classes()
    losses = by_epochs(everything(), X, Y)[:5]
    mean = minidl.record(everything().step).epoch(X, Y, BATCH, rng=0)
    assert mean == pytest.approx(np.average(losses, weights=[16, 16, 16, 16, 6]), rel=1e-12)


@pytest.mark.parametrize(("rows", "batch_size"), [(1, 1), (5, 1), (7, 7), (7, 100), (8, 3)])
def test_epochs_of_all_lengths(backend: str, rows: int, batch_size: int) -> None:
    eager, X, Y = plain_regression(rows=rows)
    other = copy.deepcopy(eager)
    losses = [eager.step(x, y) for x, y in minidl.batches(X, Y, batch_size, shuffle=False)]
    step = minidl.record(other.step)
    assert step.epoch(X, Y, batch_size, shuffle=False, per_step=True).tolist() == losses
    assert other.bits() == eager.bits()


def test_per_step_keeps_all_that_is_returned(backend: str) -> None:
    X, Y = classes()
    training = everything()

    def step(x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
        prediction = training.model(x)
        value = training.loss(prediction, y)
        training.optimizer.zero_grad()
        training.model.backward(training.loss.backward())
        return {"loss": value, "rest": (prediction, [training.optimizer.step()])}

    outputs = [copy.deepcopy(step(x, y)) for x, y in minidl.batches(X, Y, BATCH, rng=3)]
    training = everything()
    kept = minidl.record(step).epoch(X, Y, BATCH, rng=3, per_step=True)
    assert kept["loss"].tolist() == [output["loss"] for output in outputs]
    assert kept["rest"][1][0].tolist() == [output["rest"][1][0] for output in outputs]
    predictions = np.concatenate([output["rest"][0] for output in outputs])
    assert kept["rest"][0].tobytes() == predictions.tobytes()


# --- every layer and every loss -------------------------------------------------------------


def results_of(function: Any, calls: list[list[np.ndarray]], arrays: Any) -> list[list[bytes]]:
    """What a function returns and changes, call by call."""
    results = []
    for inputs in calls:
        output = function(*(x.copy() for x in inputs))
        results.append([np.asarray(a).tobytes() for a in [*output, *arrays()]])
    return results


@both_dtypes
@pytest.mark.parametrize("cls", LAYERS, ids=lambda cls: cls.__name__)
def test_every_layer_recorded_is_the_layer_itself(
    isa: str, cls: type[nn.Layer], dtype: Any
) -> None:
    examples = list(cls.examples())
    assert examples
    for seed, (example, shapes) in enumerate(examples):
        rng = np.random.default_rng(seed)
        example.astype(dtype)
        output = copy.deepcopy(example)(*inputs_of(shapes, rng, dtype))
        outputs = as_tuple(output)
        shapes = [*shapes, *(y.shape for y in outputs)]
        calls = [inputs_of(shapes, rng, dtype) for _ in range(4)]

        n = len(shapes) - len(outputs)

        def run(record: bool, example=example, calls=calls, n=n):
            layer = copy.deepcopy(example)

            def function(*inputs: np.ndarray) -> list[np.ndarray]:
                layer.zero_grad()
                y, dx = layer(*inputs[:n]), layer.backward(*inputs[n:])
                return [a for part in (y, dx) for a in as_tuple(part) if a is not None]

            def arrays() -> list[np.ndarray]:
                return [p.grad for p in layer.parameters()] + list(layer.state().values())

            return results_of(minidl.record(function) if record else function, calls, arrays)

        eager = run(record=False)
        # The softmax of one number is one.
        if isinstance(shapes[0], np.ndarray) or shapes[0][-1] > 1:
            assert eager[1] != eager[2]
        for threads in (1, 3):
            with shared_by(threads):
                assert run(record=True) == eager


@both_dtypes
@pytest.mark.parametrize("cls", LOSSES, ids=lambda cls: cls.__name__)
def test_every_loss_recorded_is_the_loss_itself(isa: str, cls: type[nn.Loss], dtype: Any) -> None:
    for loss, prediction, target in cls.examples():
        if target.dtype.kind == "f":
            target = target.astype(dtype)
        prediction = prediction.astype(dtype)
        calls = [[prediction * scale, np.roll(target, i)] for i, scale in enumerate((1, 0.3, -2))]

        def function(p: np.ndarray, t: np.ndarray, loss=loss) -> tuple[np.ndarray, np.ndarray]:
            return loss(p, t), loss.backward()

        eager = results_of(function, calls, list)
        for threads in (1, 3):
            with shared_by(threads):
                assert results_of(minidl.record(function), calls, list) == eager


# --- random networks ------------------------------------------------------------------------

widths = st.sampled_from([1, 2, 3, 5, 16, 17, 33, 70])


@st.composite
def stacks(draw: st.DrawFn, batch: int) -> tuple[nn.Sequential, int, int]:
    first = width = draw(widths)
    layers: list[nn.Layer] = []
    for _ in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(["linear", "linear", "activation", "norm", "drop", "residual"]))
        if kind == "linear":
            new = draw(widths)
            layers.append(nn.Linear(width, new, bias=draw(st.booleans())))
            width = new
        elif kind == "activation":
            layers.append(draw(st.sampled_from([nn.ReLU, nn.Sigmoid, nn.Tanh]))())
        elif kind == "norm" and batch > 1:
            layers.append(nn.BatchNorm(width))
        elif kind == "drop":
            layers.append(nn.Dropout(draw(st.sampled_from([0.0, 0.2, 0.7]))))
        else:
            body = nn.Sequential(nn.Linear(width, width), nn.Tanh())
            layers.append(nn.Residual(body))
    layers.append(nn.Linear(width, width))
    return nn.Sequential(*layers, rng=0), first, width


@st.composite
def optimizers(draw: st.DrawFn) -> Any:
    options: dict[str, Any] = {
        "lr": draw(st.sampled_from([0.1, lambda step: 0.1 * 0.5**step])),
        "weight_decay": draw(st.sampled_from([0.0, 0.01])),
        "max_norm": draw(st.sampled_from([None, 0.1, 1.0])),
    }
    if draw(st.booleans()):
        return lambda parameters: optim.Adam(parameters, **options)
    momentum = draw(st.sampled_from([0.0, 0.9]))
    nesterov = bool(momentum) and draw(st.booleans())
    return lambda parameters: optim.SGD(parameters, momentum=momentum, nesterov=nesterov, **options)


@given(data=st.data())
@settings(max_examples=50)
def test_random_networks(data: st.DataObject) -> None:
    if _kernels.isa == "reference":
        pytest.skip("nothing is recorded")
    batch = data.draw(st.sampled_from([1, 2, 3, 8, 33]))
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))
    model, features, width = data.draw(stacks(batch))
    optimizer = data.draw(optimizers())
    rng = np.random.default_rng(0)
    sizes = ((batch, features), (batch, width))
    calls = [[rng.normal(size=s).astype(dtype) for s in sizes] for _ in range(4)]
    model.astype(dtype)

    def run(record: bool) -> Any:
        own = copy.deepcopy(model)
        training = Training(own, nn.MSELoss(), optimizer(own.parameters()))
        step = minidl.record(training.step) if record else training.step
        return [float(step(*call)) for call in calls], training.bits()

    eager = run(record=False)
    with shared_by(data.draw(st.sampled_from([1, 2, 4]))):
        assert run(record=True) == eager
        with mock.patch.object(recorded_module, "fuse", lambda entries, returned: entries):
            assert run(record=True) == eager


# --- where merged kernels could differ ------------------------------------------------------


def fused_and_not(function: Any, *inputs: np.ndarray) -> None:
    """The merged program gives the bits of the function."""
    eager = [array.copy() for array in function(*inputs)]
    step = minidl.record(function)
    step(*inputs)
    for a, b in zip(step(*inputs), eager, strict=True):
        assert a.tobytes() == b.tobytes()


# Products that turn their operands, take few rows, or split their sums.
@pytest.mark.parametrize(
    ("batch", "features", "hidden"),
    [(32, 2, 300), (8, 1, 700), (32, 300, 600), (64, 520, 200), (3, 5, 700), (40, 7, 30)],
)
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Sigmoid, nn.Tanh])
def test_merged_activations_at_all_sizes(
    isa: str, batch: int, features: int, hidden: int, activation: type[nn.Layer]
) -> None:
    model = nn.Sequential(
        nn.Linear(4, features), activation(), nn.Linear(features, hidden), activation(), rng=0
    )
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, 4)).astype(np.float32)
    dy = rng.normal(size=(batch, hidden)).astype(np.float32)

    def function(x: np.ndarray, dy: np.ndarray) -> list[np.ndarray]:
        model.zero_grad()
        return [model(x), model.backward(dy), *(p.grad for p in model.parameters())]

    fused_and_not(function, x, dy)
    step = minidl.record(function)
    step(x, dy)
    merged = [name for call in step._latest.calls for name in call.fused]
    name = activation.__name__.lower()
    assert sorted(merged) == [name, name, f"{name}_grad"]


def test_gradients_that_underflow_keep_their_sign(isa: str) -> None:
    """0 + -0 is 0: a gradient that need not be cleared must come out the same."""
    tiny = np.full((1, 20), 1e-30, np.float32)
    for rows in (1, 2, 40):
        layer = nn.Linear(20, 20, rng=0)

        def function(x: np.ndarray, dy: np.ndarray, layer=layer) -> list[np.ndarray]:
            layer.zero_grad()
            return [layer(x), layer.backward(dy), layer.weight.grad, layer.bias.grad]

        x = np.repeat(tiny, rows, axis=0)
        dy = np.zeros_like(x)
        dy[0], dy[1:] = -1e-30, -0.0
        fused_and_not(function, x, dy)
        fused_and_not(function, x, -0.0 * np.abs(dy))


def test_gradients_are_zero_where_the_optimizer_looks_before_they_are_written(isa: str) -> None:
    rng = np.random.default_rng(0)
    calls = [[rng.normal(size=(4, 3)).astype(np.float32)] for _ in range(3)]

    def run(record: bool) -> list[list[bytes]]:
        one, two = nn.Linear(3, 3, rng=0), nn.Linear(3, 3, rng=1)
        optimizer = optim.SGD([*one.parameters(), *two.parameters()], lr=0.1)

        def function(x: np.ndarray) -> list[np.ndarray]:
            y = one(x), two(x)
            optimizer.zero_grad()
            one.backward(y[0])
            norm = optimizer.step()  # with nothing of `two` yet
            two.backward(y[1])
            return [*y, norm]

        function = minidl.record(function) if record else function
        return results_of(function, calls, lambda: [optimizer.flat.data, optimizer.flat.grad])

    assert run(record=True) == run(record=False)


def test_gradients_of_two_batches_add_up(isa: str) -> None:
    rng = np.random.default_rng(0)
    calls = [[rng.normal(size=(4, 3)).astype(np.float32) for _ in range(2)] for _ in range(3)]

    def run(record: bool) -> list[list[bytes]]:
        layer = nn.Linear(3, 3, rng=0)
        optimizer = optim.SGD(layer.parameters(), lr=0.1)

        def function(a: np.ndarray, b: np.ndarray) -> list[np.ndarray]:
            optimizer.zero_grad()
            outputs = []
            for x in (a, b):
                outputs.append(layer(x))
                layer.backward(outputs[-1])
            optimizer.step()
            return outputs

        function = minidl.record(function) if record else function
        return results_of(function, calls, lambda: [optimizer.flat.data, optimizer.flat.grad])

    assert run(record=True) == run(record=False)


def test_what_is_returned_is_not_merged_away(isa: str) -> None:
    layer, activation = nn.Linear(3, 5, rng=0), nn.Tanh()
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)

    def function(x: np.ndarray) -> list[np.ndarray]:
        z = layer(x)
        return [z, activation(z)]

    fused_and_not(function, x)


# Few rows and many, several blocks of C, several pieces of the sum, widths between two panels.
@pytest.mark.parametrize(
    ("first", "second", "rows", "width"),
    [
        (24, 20, 50, 96),
        (2, 3, 2, 64),
        (66, 68, 40, 96),
        (130, 7, 700, 201),
        (7, 300, 33, 1100),
        (256, 64, 1700, 130),
    ],
)
@pytest.mark.parametrize("threads", [1, 2, 4])
@both_dtypes
def test_two_gradients_that_share_dy(
    isa: str, first: int, second: int, rows: int, width: int, threads: int, dtype: Any
) -> None:
    rng = np.random.default_rng(0)
    h, x = (rng.normal(size=(rows, m)).astype(dtype) for m in (first, second))
    dy = rng.normal(size=(rows, width)).astype(dtype)
    weights = [nn.Linear(m, width, bias=False, dtype=dtype).weight for m in (first, second)]
    optimizer = optim.SGD(weights, lr=0.1)

    def function(clear: bool, h: np.ndarray, x: np.ndarray, dy: np.ndarray) -> list[np.ndarray]:
        if clear:
            optimizer.zero_grad()
        dy, *features = map(kernels.copy, (dy, h, x))  # inputs might share memory with anything
        for left, weight in zip(features, weights, strict=True):
            kernels.linear_grad_params(left, dy, weight.grad)
        return [weight.grad for weight in weights]

    for clear in (True, False):
        step = minidl.record(functools.partial(function, clear))
        results = []
        for run in (functools.partial(function, clear), step, step):
            optimizer.zero_grad()
            with shared_by(threads):
                results.append([array.tobytes() for array in run(h, x, dy)])
        assert results[0] == results[1] == results[2]
        products = [call for call in step._latest.calls if call.kernel.name == "matmul"]
        assert len(products) == 1
        outputs = f"-> grad ({first}x{width}), grad ({second}x{width})"
        assert outputs in " ".join(str(step).replace("*", "").split())


def not_for_one_weight(h: Any, x: Any, dy: Any, one: Any, other: Any) -> None:
    kernels.linear_grad_params(h, dy, one)
    kernels.linear_grad_params(x, dy, one)


def not_of_different_dy(h: Any, x: Any, dy: Any, one: Any, other: Any) -> None:
    kernels.linear_grad_params(h, dy, one)
    kernels.linear_grad_params(x, kernels.copy(dy), other)


def not_where_one_reads_the_other(h: Any, x: Any, dy: Any, one: Any, other: Any) -> None:
    kernels.linear_grad_params(h, dy, one)
    kernels.linear_grad_params(one[:9, :30], dy, other)


@pytest.mark.parametrize(
    "products", [not_for_one_weight, not_of_different_dy, not_where_one_reads_the_other]
)
def test_two_gradients_stay_two(isa: str, products: Any) -> None:
    layers = [nn.Linear(30, 70, bias=False, rng=seed) for seed in range(2)]
    optimizer = optim.SGD([layer.weight for layer in layers], lr=0.1)
    rng = np.random.default_rng(0)
    h, x, dy = (rng.normal(size=(9, n)).astype(np.float32) for n in (30, 30, 70))

    def function(h: np.ndarray, x: np.ndarray, dy: np.ndarray) -> list[np.ndarray]:
        optimizer.zero_grad()
        gradients = [layer.weight.grad for layer in layers]
        products(*map(kernels.copy, (h, x, dy)), *gradients)
        return gradients

    fused_and_not(function, h, x, dy)
    step = minidl.record(function)
    step(h, x, dy)
    assert sum(call.kernel.name == "matmul" for call in step._latest.calls) == 2


def test_inputs_that_are_the_same_memory_in_a_later_call(isa: str) -> None:
    rng = np.random.default_rng(0)
    h, x, dy, one, other = (
        rng.normal(size=s).astype(np.float32)
        for s in ((900, 200), (900, 200), (900, 256), (200, 256), (200, 256))
    )

    def function(h: Any, x: Any, dy: Any, one: Any, other: Any) -> np.ndarray:
        kernels.linear_grad_params(h, dy, one)
        kernels.linear_grad_params(x, dy, other)
        return kernels.add(one, other)

    step = minidl.record(function)
    with shared_by(2):
        step(h, x, dy, one, other)
        before = one.copy()
        with pytest.raises(ValueError, match=r"argument 5 .* share no memory with another"):
            step(h, x, dy, one, one)
    assert one.tobytes() == before.tobytes()
