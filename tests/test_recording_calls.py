"""How a recorded step is called: what it takes, what it returns, and what may change in between."""

from __future__ import annotations

import collections
import copy
import functools
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from recording_helpers import Training, classes, everything, plain_regression

import minidl
from minidl import RecordingError, nn, optim
from minidl import _kernels as kernels
from minidl.recording.epoch import run_epoch

compiled = pytest.mark.skipif(kernels.isa == "reference", reason="the twin records nothing")
X = np.arange(12, dtype=np.float32).reshape(4, 3) / 7 - 0.5


# --- outputs ----------------------------------------------------------------------------------

Pair = collections.namedtuple("Pair", "sum rest")

OUTPUTS: dict[str, Callable[[np.ndarray], Any]] = {
    "array": lambda x: kernels.add(x, x),
    "tuple": lambda x: (kernels.relu(x), kernels.tanh(x)),
    "list in a dict": lambda x: {"a": [kernels.relu(x)], "b": (kernels.tanh(x), None, 3)},
    "named tuple": lambda x: Pair(kernels.relu(x), kernels.tanh(x)),
    "view": lambda x: kernels.tanh(x)[1:, :2],
    "transposed": lambda x: kernels.tanh(x).T,
    "backwards": lambda x: kernels.tanh(x)[::-1, ::2],
    "input": lambda x: x,
    "part of the input": lambda x: (x[1:, :2], kernels.relu(x)),
    "the same twice": lambda x: [kernels.relu(x)] * 2,
    "nothing": lambda x: None,
    "empty": lambda x: (),
}


@pytest.mark.parametrize("make_copy", [False, True])
@pytest.mark.parametrize("kind", OUTPUTS)
def test_outputs_of_all_kinds(backend: str, kind: str, make_copy: bool) -> None:
    function = OUTPUTS[kind]
    step = minidl.record(function, copy=make_copy)
    for scale in (1, -2, 3):
        x = np.ascontiguousarray(X * scale)
        given, expected = step(x), function(x)
        assert type(given) is type(expected)
        given, expected = (
            [a.tolist() if isinstance(a, np.ndarray) else a for a in leaves(output)]
            for output in (given, expected)
        )
        assert given == expected
    assert all(type(a) is np.ndarray for a in leaves(step(X)) if hasattr(a, "shape"))


def test_arguments_by_name(backend: str) -> None:
    @minidl.record
    def step(x: Any, y: Any = None, negative: bool = False) -> Any:
        z = kernels.tanh(x) if y is None else kernels.add(x, y)
        return kernels.relu(z) if negative else z

    for _ in range(2):
        assert np.array_equal(step(X, y=X), X + X)
        assert np.array_equal(step(y=X, x=X), X + X)
        assert np.array_equal(step(X, negative=True), np.maximum(kernels.tanh(X), 0))
        assert np.array_equal(step(X), kernels.tanh(X))
    with pytest.raises(TypeError, match="unexpected keyword argument 'z'"):
        step(X, z=X)
    with pytest.raises(TypeError, match="multiple values for argument 'x'"):
        step(X, x=X)

    if kernels.isa != "reference":
        assert step.programs == 3  # (X), (X, X) and (X, None, True)
        step(X, None, True)
        assert step.programs == 3


def test_names_without_a_place(backend: str) -> None:
    @functools.wraps(kernels.add)
    def swapped(b: Any, a: Any) -> Any:
        return kernels.add(a, kernels.add(b, b))

    def scaled(x: Any, sizes: Any = (1, 2), *, double: bool = True) -> Any:
        return kernels.add(x, x) if double else x

    step, minus = minidl.record(swapped), np.ascontiguousarray(-X)
    assert np.array_equal(step(a=X, b=minus), -X)
    assert np.array_equal(step(minus, a=X), -X)
    assert np.array_equal(minidl.record(scaled)(x=X), X + X)
    partial = minidl.record(functools.partial(scaled, double=False))
    assert np.array_equal(partial(x=X), X)
    with pytest.raises(TypeError, match=r"by place, and .*scaled\(x: .* has none for double"):
        minidl.record(scaled)(X, double=False)
    with pytest.raises(TypeError, match=r"has none for x"):
        minidl.record(nn.Linear(3, 2))(x=X)
    for inputs in ((X,), (X, X)):
        with pytest.raises(TypeError, match=r"none for y|'y' .* positional only"):
            minidl.record(lambda x, y=None, /, **options: x)(*inputs, y=X)


def leaves(output: Any) -> list[Any]:
    if isinstance(output, dict):
        output = list(output.values())
    if isinstance(output, (list, tuple)):
        return [leaf for item in output for leaf in leaves(item)]
    return [output]


@compiled
def test_without_copy_the_next_call_overwrites() -> None:
    step, copying = (minidl.record(OUTPUTS["array"], copy=c) for c in (False, True))
    for function, expected in ((step, 4 * X), (copying, 2 * X)):
        first = function(X)
        first = function(X)
        function(2 * X)
        np.testing.assert_array_equal(first, expected)


def test_a_caller_may_change_the_dict_it_got(backend: str) -> None:
    step = minidl.record(lambda x: {"a": [kernels.relu(x)]})
    for scale in (1, 2, 3):
        result = step(scale * X)
        assert result["a"][0].tolist() == np.maximum(scale * X, 0).tolist()
        result["a"][0] = None
        result["b"] = 1
        assert list(step(X)) == ["a"]


# --- inputs -----------------------------------------------------------------------------------


def test_any_layout_of_the_input(backend: str) -> None:
    step = minidl.record(OUTPUTS["array"])
    read_only = X.copy()
    read_only.flags.writeable = False
    wide = np.zeros((4, 6), np.float32)
    wide[:, ::2] = X
    for _ in range(2):
        for x in (X, np.asfortranarray(X), wide[:, ::2], read_only, X[::-1].copy()[::-1]):
            np.testing.assert_array_equal(step(x), 2 * X)


def test_an_input_that_is_changed_must_be_the_callers_own_memory(isa: str) -> None:
    """Before the step was recorded and after: what is read-only or must be copied is refused."""

    @minidl.record
    def step(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        kernels.clear(b)
        return kernels.add(a, b)

    fixed = X.copy()
    fixed.flags.writeable = False
    with pytest.raises(ValueError, match="share no memory"):
        step(fixed, fixed[:])
    for _ in range(2):
        for b in (fixed, np.asfortranarray(X)):
            with pytest.raises(ValueError, match="changed in place"):
                step(X, b)
            np.testing.assert_array_equal(b, X)
        b = X.copy()
        np.testing.assert_array_equal(step(fixed, b), X)
        assert not b.any()
    np.testing.assert_array_equal(fixed, X)


def test_a_name_that_means_another_model_is_not_mixed_with_the_first(isa: str) -> None:
    """A notebook's cell that makes the model runs again, and then the last, smaller batch."""
    model, loss = nn.Linear(3, 2, rng=0), nn.MSELoss()
    step = minidl.record(lambda x, y: loss(model(x), y))
    y = np.zeros((4, 2), np.float32)
    first = step.epoch(X, y, 3, shuffle=False)
    model = nn.Linear(3, 2, rng=1)
    for call in (lambda: step.epoch(X, y, 3, shuffle=False), lambda: step(X[:2], y[:2])):
        with pytest.raises(RecordingError, match="model is not the Linear that it was"):
            call()
    step.forget()
    assert step.epoch(X, y, 3, shuffle=False) != first


def test_an_epoch_leaves_the_data_as_they_are(backend: str) -> None:
    """What a step changes are copies of the batches, in the first of all as well."""
    rows = np.ones((8, 3), np.float32)

    @minidl.record
    def step(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        kernels.scale(x, 2.0)
        return nn.MSELoss()(x, y)

    for _ in range(2):
        assert step.epoch(rows, rows, 4, shuffle=False) == 1
    np.testing.assert_array_equal(rows, 1)


@pytest.mark.parametrize("shuffle", [False, True])
def test_an_epoch_of_a_step_that_reads_parts_of_its_inputs(backend: str, shuffle: bool) -> None:
    X = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    loss = nn.MSELoss()
    step = minidl.record(lambda x, y: loss(kernels.tanh(x[2:]), y[:-2]))
    order = np.random.default_rng(1).permutation(20) if shuffle else np.arange(20)
    rows = X[order].reshape(4, 5, 3)
    expected = [loss(kernels.tanh(x[2:]), y[:-2]) for x, y in zip(rows, -rows, strict=True)]
    assert step.epoch(X, -X, 5, 1, shuffle, per_step=True).tolist() == expected


def test_an_epoch_over_what_the_step_returned(isa: str) -> None:
    """The step writes over it before it has read it for the last time: only a copy will do."""

    def trained(copies: bool) -> tuple[dict[str, bytes], str]:
        training, X, _ = plain_regression()
        model = training.model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 3), rng=0)
        training.optimizer = optim.SGD(model.parameters(), lr=0.5)

        @minidl.record
        def step(x: Any, y: Any) -> Any:
            prediction = model(x)
            value = training.loss(prediction, y)
            training.optimizer.zero_grad()
            model.backward(training.loss.backward())
            training.optimizer.step()
            return value, prediction

        _, again = step(X[:8], X[:8])
        for _ in range(3):
            step.epoch(again.copy() if copies else again, X[:8], 8, shuffle=False)
        again[...] = X[:8]
        again[3] = 2e38
        with pytest.raises(FloatingPointError) as failed:
            step.epoch(again.copy() if copies else again, X[:8], 8, shuffle=False)
        return training.trained(), str(failed.value)

    assert trained(copies=False) == trained(copies=True)


def test_an_epoch_over_a_parameter(isa: str) -> None:
    """Each step sees rows as they were before it, though it changes them."""

    def losses(order: np.ndarray | None) -> list[bytes]:
        training, _, _ = plain_regression(features=8)
        X, Y = training.model[0].weight.data, np.ones((8, 1), np.float32)

        def function(x: Any, y: Any) -> Any:
            training.step(x, y)
            return nn.MSELoss()(kernels.copy(x), kernels.copy(x[::-1]))

        step = minidl.record(function)
        return [run_epoch(step, (X, Y), 4, order).arrays[0].tobytes() for _ in range(3)]

    assert losses(None) == losses(np.arange(8))


@pytest.mark.parametrize("first", ["same", "overlapping", "apart"])
def test_inputs_that_share_memory(backend: str, first: str) -> None:
    """Recorded or replayed with inputs of the same memory, or not: they are two inputs."""
    series = np.arange(40, dtype=np.float32).reshape(10, 4)
    step = minidl.record(lambda a, b: kernels.matmul(a, b, transpose_b=True))
    calls = {
        "same": (series[:6], series[:6]),
        "overlapping": (series[:6], series[1:7]),
        "apart": (series[:6].copy(), series[4:].copy()),
    }
    for name in (first, "apart", "same", "overlapping", "apart"):
        a, b = calls[name]
        np.testing.assert_array_equal(step(a, b), a @ b.T)


def test_the_next_row_of_a_series_as_target(backend: str) -> None:
    eager, _, _ = plain_regression()
    other = copy.deepcopy(eager)
    series = np.sin(np.arange(50, dtype=np.float32))[:, None]
    rows = np.repeat(series, 3, axis=1)
    expected = [eager.step(rows[i : i + 8], series[i + 1 : i + 9]) for i in range(0, 40, 8)]
    step = minidl.record(other.step)
    assert step.epoch(rows[:40], series[1:41], 8, shuffle=False, per_step=True).tolist() == expected
    shift = minidl.record(lambda x, y: kernels.add(x, y))
    shift(series[:-1], series[1:])
    moved = series[1:].copy()
    np.testing.assert_array_equal(shift(series[:-1], moved), series[:-1] + moved)


def test_what_a_step_returned_may_be_given_back_to_it(backend: str) -> None:
    """A recurrent state: the memory it lies in is that of the program."""
    cell = nn.RNNCell(3, 5, rng=0)

    def advance(x: np.ndarray, h: np.ndarray) -> np.ndarray:
        state = cell(x, h)
        cell.clear()
        return state

    step = minidl.record(advance)
    h = expected = np.zeros((4, 5), np.float32)
    for t in range(12):
        x = np.sin(X + t).astype(np.float32)
        h, expected = step(x, h), advance(x, expected)
        assert h.tobytes() == expected.tobytes()


@compiled
def test_a_parameter_is_no_input() -> None:
    layer = nn.Linear(3, 3, rng=0)
    step = minidl.record(lambda x: layer(x))
    with pytest.raises(RecordingError, match=r"argument 1 .* shares memory with"):
        step(layer.weight.data)
    assert type(layer.weight.data) is np.ndarray
    assert step(layer.weight.data.copy()).shape == (3, 3)


def test_other_values_are_constants(backend: str) -> None:
    calls = []

    def function(x: np.ndarray, twice: bool, how: str = "") -> np.ndarray:
        calls.append((twice, how))
        y = kernels.tanh(x) if how else x
        return kernels.add(y, y) if twice else kernels.relu(y)

    step = minidl.record(function)
    for _ in range(3):
        for args in ((True,), (False,), (1,), (True, "tanh")):
            np.testing.assert_array_equal(step(X, *args), function(X, *args))
    if backend != "reference":
        assert len(calls) == 12 + 2 * 4  # to record, the function runs twice
        nan = float("nan")
        for _ in range(3):
            np.testing.assert_array_equal(step(X, nan), function(X, nan))
        with pytest.raises(TypeError, match=r"argument 2 .* must be an array or a constant"):
            step(X, [1, 2])
    with pytest.raises(TypeError):
        step()


# --- what may change between calls --------------------------------------------------------------

CHANGES: dict[str, Callable[[Training], Any]] = {
    "nothing": lambda t: None,
    "eval": lambda t: t.model.eval(),
    "eval of one": lambda t: t.model[1].eval(),
    "dropout": lambda t: setattr(t.model[3], "p", 0.6),
    "no dropout": lambda t: setattr(t.model[3], "p", 0.0),
    "momentum of batch norm": lambda t: setattr(t.model[1], "momentum", 0.5),
    "eps": lambda t: setattr(t.model[1], "eps", 0.5),
    "rate": lambda t: setattr(t.optimizer, "lr", 0.3),
    "schedule": lambda t: setattr(t.optimizer, "lr", lambda step: 0.1 * (step % 3)),
    "max_norm": lambda t: setattr(t.optimizer, "max_norm", 0.01),
    "no max_norm": lambda t: setattr(t.optimizer, "max_norm", None),
    "weight decay": lambda t: setattr(t.optimizer, "weight_decay", 0.5),
    "beta1": lambda t: setattr(t.optimizer, "beta1", 0.1),
    "parameter": lambda t: setattr(t.model[0].weight, "data", np.ones((6, 17))),
    "running mean": lambda t: t.model[1].running_mean.fill(1),
    "generator": lambda t: t.model[3].generator.fill(7),
    "reduction": lambda t: setattr(t.loss, "reduction", "sum"),
    "threads": lambda t: minidl.set_num_threads(3 - minidl.get_num_threads() % 2),
}


@pytest.mark.parametrize("what", CHANGES)
def test_changes_between_calls_count(backend: str, what: str) -> None:
    threads = minidl.get_num_threads()
    eager, recorded, by_epoch = everything(), everything(), everything()
    data = classes()
    batches = list(minidl.batches(*data, 16, shuffle=False))
    step, same = minidl.record(recorded.step), minidl.record(by_epoch.step)
    try:
        for change in (CHANGES["nothing"], CHANGES[what], CHANGES["nothing"]):
            change(recorded), change(eager), change(by_epoch)
            expected = [float(eager.step(*batch)) for batch in batches]
            assert [float(step(*batch)) for batch in batches] == expected
            assert same.epoch(*data, 16, shuffle=False, per_step=True).tolist() == expected
            assert recorded.bits() == eager.bits() == by_epoch.bits()
    finally:
        minidl.set_num_threads(threads)


def test_momentum_that_comes_later(backend: str) -> None:
    def run(record: bool) -> list[dict[str, bytes]]:
        training, features, target = plain_regression()
        training.optimizer = optim.SGD(training.model.parameters(), lr=0.1)
        step = minidl.record(training.step) if record else training.step
        found = []
        for momentum in (0.0, 0.9, 0.0):
            training.optimizer.momentum = momentum
            for _ in range(3):
                step(features, target)
            found.append(training.bits())
        return found

    assert run(record=True) == run(record=False)


def test_going_back_to_a_mode_records_nothing_new(isa: str) -> None:
    training, (features, labels) = everything(), classes(16)
    calls = []
    step = minidl.record(lambda x, y: calls.append(1) or training.step(x, y))
    for mode in (True, False, True, False, True):
        training.model.train(mode)
        step(features, labels)
        step.epoch(features, labels, 8)
    assert len(calls) == 2 * 4  # two modes, two sizes of batches; to record, it runs twice


# --- records within records, methods, copies ------------------------------------------------------


def test_a_recorded_function_may_call_another(backend: str) -> None:
    inner = minidl.record(lambda x: kernels.tanh(x))
    outer = minidl.record(lambda x: kernels.add(inner(x), x))
    for scale in (1, 2, 3):
        np.testing.assert_array_equal(outer(scale * X), kernels.tanh(scale * X) + scale * X)
        np.testing.assert_array_equal(inner(scale * X), kernels.tanh(scale * X))
    assert kernels.recorder() is None


def test_record_decorates_methods(backend: str) -> None:
    class Doubler:
        def __init__(self, seed: int) -> None:
            self.layer = nn.Linear(3, 3, rng=seed)

        @minidl.record
        def double(self, x: np.ndarray) -> np.ndarray:
            """Twice."""
            y = self.layer(x)
            return kernels.add(y, y)

        @minidl.record(copy=True)
        def once(self, x: np.ndarray) -> np.ndarray:
            return self.layer(x)

    objects = [Doubler(0), Doubler(1)]
    for _ in range(3):
        for each in objects:
            np.testing.assert_array_equal(each.double(X), 2 * each.once(X))
    assert objects[0].double is objects[0].double
    assert objects[0].double is not objects[1].double
    assert Doubler.double.__doc__ == "Twice."
    other = copy.deepcopy(objects[0])
    other.layer.weight.data *= 0
    other.layer.bias.data += 1
    assert (other.double(X) == 2).all()
    assert not (objects[0].double(X) == 2).any()


def test_a_copied_step_records_its_own(backend: str) -> None:
    step = minidl.record(kernels.relu if backend == "reference" else np_free)
    step(X)
    for other in (copy.copy(step), copy.deepcopy(step), pickle.loads(pickle.dumps(step))):
        np.testing.assert_array_equal(other(X), step(X))
        assert not np.may_share_memory(other(X), step(X)) or backend == "reference"


def np_free(x: np.ndarray) -> np.ndarray:
    """At the top of a module, so that it can be pickled."""
    return kernels.relu(x)


def test_zero_grad_of_the_model_may_come_first(backend: str) -> None:
    def run(record: bool) -> dict[str, bytes]:
        training, features, target = plain_regression()

        def step(x: np.ndarray, y: np.ndarray) -> Any:
            training.model.zero_grad()
            value = training.loss(training.model(x), y)
            training.model.backward(training.loss.backward())
            training.optimizer.step()
            return value

        step = minidl.record(step) if record else step
        for _ in range(3):
            step(features, target)
        return training.bits()

    assert run(record=True) == run(record=False)


def test_a_schedule_and_two_steps_in_one_function(isa: str) -> None:
    training, features, target = plain_regression()

    def step(x: np.ndarray, y: np.ndarray) -> Any:
        training.step(x, y)
        return training.step(x, y)

    minidl.record(step)(features, target)
    training.optimizer.lr = lambda step: 0.1
    before = training.bits()
    with pytest.raises(RecordingError, match="makes two steps"):
        minidl.record(step)(features, target)
    assert training.bits() == before
