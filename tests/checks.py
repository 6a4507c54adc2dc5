"""What holds for every layer, loss, optimizer and schedule: one function for each property.

Each takes an instance and raises if the property does not hold. ``test_registry.py`` applies all
to whatever is registered; ``test_planted_faults.py`` shows that they find faults.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pytest

import minidl
from minidl import _kernels, nn

Arrays = list[np.ndarray]
CLOSE = {"rtol": 1e-9, "atol": 1e-11}
ISAS = [name for name in _kernels.available() if name != "reference"]


class NoOracleError(Exception):
    """There is nothing in oracles.py to compare with."""


def as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, tuple | list) else [value]


def assert_same(a: Arrays, b: Arrays, what: str) -> None:
    assert [x.tobytes() for x in a] == [x.tobytes() for x in b], what


def assert_close(a: Arrays, b: Arrays, what: str, **tolerance: float) -> None:
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, **(tolerance or CLOSE), err_msg=what)


# --- layers ---------------------------------------------------------------------------------------


def layer_problems(cls: type[nn.Layer], seeds: int = 3) -> Iterator[tuple[nn.Layer, Arrays]]:
    """The examples of a layer in float64, with parameters and state that are not the usual ones.

    Neighbours in inputs are kept apart: what is nearly constant has no accurate differences.
    """
    for seed in range(seeds):
        for layer, shapes in cls.examples():
            rng = np.random.default_rng(seed)
            layer.astype(np.float64)
            for parameter in layer.parameters():
                parameter.data = rng.normal(size=parameter.shape)
            for array in layer.state().values():
                if array.dtype.kind == "f":
                    array += rng.uniform(0.1, 0.5, array.shape)
            yield layer, [_apart(s, rng) if isinstance(s, tuple) else s for s in shapes]


def _apart(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=shape) + 1.5 * (-1.0) ** sum(np.indices(shape))


def scaled(inputs: Arrays, factor: float) -> Arrays:
    """Other inputs of the same dtype; integers stay what they are."""
    return [x * x.dtype.type(factor) if x.dtype.kind == "f" else x for x in inputs]


def as_dtype(inputs: Arrays, dtype: Any) -> Arrays:
    return [x.astype(dtype) if x.dtype.kind == "f" else x for x in inputs]


def call(layer: nn.Layer, inputs: Arrays, seed: int = 7) -> Arrays:
    """Outputs, gradients of the inputs and of the parameters, and the state afterwards."""
    outputs = as_list(layer(*inputs))
    rng = np.random.default_rng(seed)
    dys = [rng.normal(size=y.shape).astype(y.dtype) for y in outputs]
    gradients = as_list(layer.backward(*dys))
    found = [*outputs, *gradients, *(p.grad for p in layer.parameters()), *layer.state().values()]
    return [np.array(array) for array in found if array is not None]


def gradients(layer: nn.Layer, inputs: Arrays) -> None:
    """Finite differences, in float64; gradients of parameters add up."""
    report = minidl.gradcheck(layer, *inputs)
    assert report.worst <= 1e-6
    assert report.checked + report.kinks > 0


def oracle(layer: nn.Layer, inputs: Arrays) -> None:
    """Forward values, and state after them, from the formula."""
    formula = oracles.LAYERS.get(type(layer).__name__)
    if formula is None:
        raise NoOracleError(type(layer).__name__)
    before = copy.deepcopy(layer)
    y = layer(*inputs)
    expected = formula(before, y, *inputs)
    expected, state = expected if isinstance(expected, tuple) else (expected, {})
    assert_close(as_list(y), as_list(expected), "forward")
    for name, array in state.items():
        assert_close([layer.state()[name]], [array], name)


def many(layer: nn.Layer, inputs: Arrays) -> None:
    """The same for a large batch, of which as much is dropped as should be."""
    oracle(layer, [np.resize(x, (1000, *x.shape[1:])) for x in inputs])


def memory(layer: nn.Layer, inputs: Arrays) -> None:
    """A second call, with other inputs and weights, is that of a layer that knows no first."""
    fresh = copy.deepcopy(layer)
    call(layer, scaled(inputs, -0.7))
    layer.zero_grad()
    for subject in (layer, fresh):
        for parameter in subject.parameters():
            parameter.data = 1.1 * parameter.data + 0.1
    for name, array in layer.state().items():
        fresh.state()[name][...] = array
    assert_same(call(layer, inputs), call(fresh, inputs), "the call before is remembered")


def order(layer: nn.Layer, inputs: Arrays) -> None:
    """Every backward pass needs a forward pass of its own, and says so before it does anything."""
    fresh = copy.deepcopy(layer)
    outputs = as_list(layer(*inputs))
    layer.backward(*[np.ones_like(y) for y in outputs])
    before = [parameter.grad.copy() for parameter in layer.parameters()]
    for subject in (layer, fresh):
        with pytest.raises(RuntimeError, match="backward without a forward"):
            subject.backward(*[np.ones_like(y) for y in outputs])
    assert_same([parameter.grad for parameter in layer.parameters()], before, "half a pass")


def modes(layer: nn.Layer, inputs: Arrays) -> None:
    """Evaluation changes no state, and treats every row alone; training differs through state."""
    example_trains = layer.training
    layer.eval()
    assert not any(part.training for _, part in layer.layers())
    before = [array.copy() for array in layer.state().values()]
    y = as_list(layer(*inputs))
    assert_same(as_list(layer(*inputs)), y, "evaluation is not repeatable")
    assert_same(list(layer.state().values()), before, "evaluation changes state")
    alone = [as_list(layer(*[x[i : i + 1] for x in inputs])) for i in range(len(inputs[0]))]
    assert_close([np.concatenate(rows) for rows in zip(*alone, strict=True)], y, "rows mix")
    if not example_trains:
        return
    layer.train()
    assert all(part.training for _, part in layer.layers())
    trained = as_list(layer(*inputs))
    if all(np.array_equal(a, b) for a, b in zip(layer.state().values(), before, strict=True)):
        assert_same(trained, y, "training differs from evaluation, but has no state")
    elif inputs[0].size > 4:
        changed = any(not np.array_equal(a, b) for a, b in zip(trained, y, strict=True))
        assert changed, "state moves, but training does what evaluation does"


def round_trip(layer: nn.Layer, inputs: Arrays) -> None:
    """What ``save`` wrote and ``load`` or ``deepcopy`` read goes on as the original does."""
    other = copy.deepcopy(layer)
    for _, part in other.layers():
        for array in vars(part).values():
            if isinstance(array, np.ndarray) and array.dtype.kind in "fu":
                array += array.dtype.type(1)
    other.reset(99)
    layer(*inputs)  # state moves
    layer.forget()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        minidl.save(layer, path)
        minidl.load(path, into=other)
    copied = copy.deepcopy(layer)
    for twin in (other, copied):
        assert_same(list(twin.state().values()), list(layer.state().values()), "state")
    for training in {layer.training, False}:
        for subject in (layer, copied, other):
            subject.train(training).zero_grad()
        expected = call(layer, inputs)
        assert_same(call(copied, inputs), expected, "a copy goes on otherwise")
        assert_same(call(other, inputs), expected, "what was loaded goes on otherwise")


def twin(layer: nn.Layer, inputs: Arrays) -> None:
    """Every instruction set computes what the NumPy twin does, in both dtypes."""
    before = _kernels.isa
    try:
        for dtype, tolerance in ((np.float64, 1e-10), (np.float32, 2e-4)):
            outcomes = []
            for isa in ["reference", *ISAS]:
                _kernels.select(isa)
                subject = copy.deepcopy(layer).astype(dtype)
                outcomes.append(call(subject, as_dtype(inputs, dtype)))
            for isa, found in zip(ISAS, outcomes[1:], strict=True):
                assert_close(found, outcomes[0], isa, rtol=tolerance, atol=10 * tolerance)
    finally:
        _kernels.select(before)


def recorded(layer: nn.Layer, inputs: Arrays) -> None:
    """Recorded and replayed, forward and backward are what they are eagerly, bit for bit."""
    results = []
    for record in (True, False):
        subject = copy.deepcopy(layer).astype(np.float32)

        def run(*arrays: Any, subject: Any = subject) -> Any:
            outputs = as_list(subject(*arrays[: len(inputs)]))
            return outputs, subject.backward(*arrays[len(inputs) :])

        xs = as_dtype(inputs, np.float32)
        ys = as_list(copy.deepcopy(subject)(*xs))
        step: Any = minidl.record(run) if record else run
        found: Arrays = []
        for i in range(4):
            scale = np.float32(1 - 0.3 * i)
            dys = [np.cos(y) * scale for y in ys]
            outputs, dxs = step(*scaled(xs, scale), *dys)
            found += [np.array(a) for a in (*outputs, *as_list(dxs)) if a is not None]
        found += [parameter.grad for parameter in subject.parameters()]
        results.append([*found, *subject.state().values()])
    assert_same(*results, "recorded is not eager")


def complains(layer: nn.Layer, inputs: Arrays) -> None:
    """Bad inputs raise an error that names a layer, and leave no trace."""
    names = "|".join(type(part).__name__ for _, part in layer.layers())
    before = [a.tobytes() for a in (*_data(layer), *layer.state().values())]

    def rejects(*bad: Any) -> None:
        with pytest.raises((TypeError, ValueError), match=names):
            layer(*bad)
        assert [a.tobytes() for a in (*_data(layer), *layer.state().values())] == before

    rest = inputs[1:]
    x = inputs[0]
    rejects(x.tolist(), *rest)
    rejects(None, *rest)
    rejects(x.astype(np.int64 if x.dtype.kind == "f" else np.float64), *rest)
    rejects(x.astype(np.float16), *rest)
    rejects(x.ravel()[:1] if x.dtype.kind == "f" else x.ravel()[0], *rest)
    rejects(x[:0], *rest)
    if layer.in_features is not None:
        rejects(np.concatenate([x, x], axis=-1), *rest)
    outputs = as_list(layer(*inputs))
    for dy in (outputs[0][:0], outputs[0].astype(np.float16), outputs[0].tolist()):
        with pytest.raises((TypeError, ValueError), match=names):
            layer.backward(dy, *outputs[1:])


def _data(layer: nn.Layer) -> Arrays:
    return [array for p in layer.parameters() for array in (p.data, p.grad)]


def readable(layer: nn.Layer, inputs: Arrays) -> None:
    """repr names the class, or in a table every class in it."""
    text = repr(layer)
    parts = [type(part).__name__ for _, part in layer.children()]
    named = parts and all(name in text for name in parts)
    assert text.startswith(type(layer).__name__) or named
    assert "object at 0x" not in text
    assert text == repr(copy.deepcopy(layer))


LAYER_CHECKS: dict[str, Callable[[nn.Layer, Arrays], None]] = {
    check.__name__: check
    for check in (
        *(gradients, oracle, many, memory, order, modes),
        *(round_trip, twin, recorded, complains, readable),
    )
}

# --- losses ---------------------------------------------------------------------------------------

LossProblem = tuple[nn.Loss, np.ndarray, np.ndarray, np.ndarray | None]


def loss_problems(cls: type[nn.Loss], seeds: int = 3) -> Iterator[LossProblem]:
    """The examples of a loss, with predictions of other sizes, with and without weights of rows."""
    for seed in range(seeds):
        for loss, prediction, target in cls.examples():
            rng = np.random.default_rng(seed)
            prediction = prediction + (seed > 0) * rng.normal(size=prediction.shape)
            rows = target.shape if loss.takes_labels else len(prediction)
            weight = rng.uniform(0.2, 2, rows) if seed % 2 else None
            yield loss, prediction, target, weight


def _arguments(problem: LossProblem) -> tuple[nn.Loss, Arrays]:
    loss, *rest = problem
    return loss, [x for x in rest if x is not None]


def loss_gradients(problem: LossProblem) -> None:
    loss, arguments = _arguments(problem)
    assert minidl.gradcheck(loss, *arguments).worst <= 1e-6


def loss_oracle(problem: LossProblem) -> None:
    loss, prediction, target, weight = problem
    if type(loss).__name__ not in oracles.LOSSES:
        raise NoOracleError(type(loss).__name__)
    value = loss(prediction, target) if weight is None else loss(prediction, target, weight)
    expected = oracles.loss_value(loss, prediction, target, weight)
    np.testing.assert_allclose(value, expected, **CLOSE)


def loss_order(problem: LossProblem) -> None:
    loss, arguments = _arguments(problem)
    for _ in range(2):
        loss(*arguments)
        loss.backward()
        with pytest.raises(RuntimeError, match=type(loss).__name__):
            loss.backward()


def loss_twin(problem: LossProblem) -> None:
    loss, arguments = _arguments(problem)
    before = _kernels.isa
    try:
        for dtype, tolerance in ((np.float64, 1e-12), (np.float32, 1e-5)):
            given = [x.astype(dtype) if x.dtype.kind == "f" else x for x in arguments]
            outcomes = []
            for isa in ["reference", *ISAS]:
                _kernels.select(isa)
                subject = copy.deepcopy(loss)
                outcomes.append([np.array(subject(*given)), subject.backward()])
            for found in outcomes[1:]:
                assert_close(found, outcomes[0], "twin", rtol=tolerance, atol=tolerance)
    finally:
        _kernels.select(before)


def loss_recorded(problem: LossProblem) -> None:
    loss, arguments = _arguments(problem)

    def run(*given: Any) -> Any:
        value = loss(*given)
        return value, loss.backward()

    step = minidl.record(run)
    for i in range(4):
        given = [(1 - 0.2 * i) * arguments[0], *arguments[1:]]
        assert_same([np.array(a) for a in step(*given)], list(run(*given)), "recorded")


def loss_weights(problem: LossProblem) -> None:
    """What counts nothing may hold anything, and NaN that counts is seen."""
    loss, prediction, target, weight = problem
    shape = loss.weighted_shape(prediction)
    weight = np.ones(shape) if weight is None else weight + 0.5
    spoilt = np.zeros(shape, bool)
    spoilt.reshape(-1)[1::2] = True
    for dtype, tolerance in ((np.float64, 1e-12), (np.float32, 1e-5)):
        rows, few = prediction.astype(dtype), weight.astype(dtype)
        few[spoilt] = 0
        given = target if loss.takes_labels else target.astype(dtype)
        expected = [np.array(loss(rows, given, few)), loss.backward()]
        for bad in (np.nan, np.inf, -np.inf, np.finfo(dtype).max):
            rows[spoilt] = bad
            with np.errstate(all="ignore"):
                found = [np.array(loss(rows, given, few)), loss.backward()]
            assert not found[1][spoilt].any(), f"{bad} of weight 0 has a gradient"
            assert_close(found, expected, f"{bad} counts", rtol=tolerance, atol=tolerance)
        rows[~spoilt] = np.nan
        with np.errstate(all="ignore"):
            found = loss(rows, given, few)
            assert np.isnan(found if found.ndim == 0 else found[~spoilt]).all(), "NaN is hidden"


def loss_complains(problem: LossProblem) -> None:
    loss, prediction, target, _ = problem
    for bad_prediction, bad_target in (
        (prediction.tolist(), target),
        (prediction.astype(int), target),
        (prediction[:0], target[:0]),
        (prediction, target.tolist()),
        (prediction, target[:0]),
        (prediction, target.astype(np.float16)),
    ):
        with pytest.raises((TypeError, ValueError), match=type(loss).__name__):
            loss(bad_prediction, bad_target)


def loss_readable(problem: LossProblem) -> None:
    loss, *_ = problem
    assert repr(copy.deepcopy(loss)) == repr(loss)
    assert repr(loss).startswith(type(loss).__name__)
    for reduction in ("sum", "none"):
        assert (reduction in repr(loss)) == (loss.reduction == reduction)


LOSS_CHECKS: dict[str, Callable[[LossProblem], None]] = {
    check.__name__.removeprefix("loss_"): check
    for check in (
        *(loss_gradients, loss_oracle, loss_order, loss_twin, loss_recorded, loss_complains),
        *(loss_weights, loss_readable),
    )
}
