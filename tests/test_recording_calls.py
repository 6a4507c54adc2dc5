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
from minidl import RecordingError, _kernels, kernels, nn, optim
from minidl.recording.epoch import run_epoch

compiled = pytest.mark.skipif(_kernels.isa == "reference", reason="the twin records nothing")
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

    if _kernels.isa != "reference":
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


@pytest.mark.parametrize("how", ["call", "by shape", "epoch"])
def test_a_name_that_means_another_model_is_recorded_anew(isa: str, how: str) -> None:
    """A notebook's cell that makes the model runs again."""
    loss, y = nn.MSELoss(), np.zeros((4, 2), np.float32)

    def made(seed: int) -> tuple[nn.Layer, optim.Optimizer]:
        layer = nn.Linear(3, 2, rng=seed)
        return layer, optim.SGD(layer.parameters(), lr=0.1)

    model, optimizer = made(0)

    def function(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        value = loss(model(x), y)
        optimizer.zero_grad()
        model.backward(loss.backward())
        optimizer.step()
        return value

    step = minidl.record(function)

    def run(step: Any) -> float:
        if how == "epoch":
            return (
                float(minidl.record(step).epoch(X, y, 3, shuffle=False))
                if (step is function)
                else float(step.epoch(X, y, 3, shuffle=False))
            )
        rows = slice(0, 2 if how == "by shape" else 4)
        return float(step(X[rows], y[rows]))

    step(X, y)
    run(step)
    old = model.weight.data.tobytes()
    first = model
    model, optimizer = made(1)
    got = [run(step) for _ in range(2)]
    assert first.weight.data.tobytes() == old
    trained = model.weight.data.tobytes()
    model, optimizer = made(1)
    assert [run(function) for _ in range(2)] == got
    assert model.weight.data.tobytes() == trained


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
        assert len(calls) == 12 + 3 * 4  # to record, the function runs three times
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
    assert len(calls) == 3 * 4  # two modes, two sizes of batches; to record, it runs three times


# --- records within records, methods, copies ------------------------------------------------------


def test_a_recorded_function_may_call_another(backend: str) -> None:
    inner = minidl.record(lambda x: kernels.tanh(x))
    outer = minidl.record(lambda x: kernels.add(inner(x), x))
    for scale in (1, 2, 3):
        np.testing.assert_array_equal(outer(scale * X), kernels.tanh(scale * X) + scale * X)
        np.testing.assert_array_equal(inner(scale * X), kernels.tanh(scale * X))
    assert _kernels.recorder() is None


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
    other.layer.bias.data = np.ones(3)
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


# --- what names mean, and what numbers mean ------------------------------------------------------


class Net:
    """An object whose method is recorded."""

    def __init__(self) -> None:
        self.model, self.loss = nn.Linear(3, 1, rng=0), nn.MSELoss()
        self.optimizer = optim.Adam(self.model.parameters(), lr=0.1)
        self.layers = [nn.Tanh()]

    def eager(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        value = self.loss(self.activated(x), y)
        self.optimizer.zero_grad()
        self.model.backward(self.layers[0].backward(self.loss.backward()))
        self.optimizer.step()
        return value

    def activated(self, x: np.ndarray) -> np.ndarray:
        return self.layers[0](self.model(x))

    step = minidl.record(eager)


def another_model(net: Net) -> None:
    net.model = nn.Linear(3, 1, rng=7)
    net.optimizer.lr = 0.0


SWAPS: dict[str, Callable[[Net], Any]] = {
    "loss": lambda net: setattr(net, "loss", nn.L1Loss()),
    "model": another_model,
    "item of a list": lambda net: net.layers.__setitem__(0, nn.Sigmoid()),
    "list": lambda net: setattr(net, "layers", [nn.Sigmoid()]),
    "optimizer": lambda net: setattr(
        net, "optimizer", optim.SGD(net.model.parameters(), lr=0.1, momentum=0.9)
    ),
}


@pytest.mark.parametrize("what", SWAPS)
@pytest.mark.parametrize("how", ["call", "epoch"])
def test_what_is_swapped_in_the_object_of_a_method_counts(
    backend: str, what: str, how: str
) -> None:
    y = np.full((4, 1), 3, np.float32)

    def run(net: Net, recorded: bool) -> list[float]:
        if how == "call":
            return [float((net.step if recorded else net.eager)(X, y)) for _ in range(2)]
        step = net.step if recorded else minidl.record(net.eager)
        return [step.epoch(X, y, 4, shuffle=False) for _ in range(2)]

    eager, recorded = Net(), Net()
    assert run(recorded, True) == run(eager, False)
    for net in (eager, recorded):
        SWAPS[what](net)
    assert run(recorded, True) == run(eager, False)


def test_a_parameter_that_is_frozen_after_the_optimizer_was_built_is_noticed(isa: str) -> None:
    net, y = Net(), np.zeros((4, 1), np.float32)
    net.step(X, y)
    net.model.weight.frozen = True
    for call in (net.eager, net.step, net.step):
        with pytest.raises(RuntimeError, match="was frozen after"):
            call(X, y)
    net.model.weight.frozen = False
    net.step(X, y)


def test_moments_that_are_replaced_are_noticed(isa: str) -> None:
    net, y = Net(), np.zeros((4, 1), np.float32)
    net.step(X, y)
    net.optimizer.moment1 = net.optimizer.moment1 * 0
    with pytest.raises(RecordingError, match="moment1 was replaced"):
        net.step(X, y)
    net.step.forget()
    net.step(X, y)


factor = nn.Linear(3, 3, rng=0)


def helper(x: np.ndarray) -> np.ndarray:
    return factor(x)


def test_a_helper_that_is_defined_anew_counts(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    step = minidl.record(lambda x: kernels.relu(helper(x)))
    expected = np.maximum(factor(X), 0)
    assert np.array_equal(step(X), expected)
    monkeypatch.setitem(globals(), "factor", nn.Linear(3, 3, rng=1))
    assert np.array_equal(step(X), np.maximum(factor(X), 0))
    monkeypatch.setitem(globals(), "helper", lambda x: kernels.tanh(x))
    assert np.array_equal(step(X), np.maximum(kernels.tanh(X), 0))


class Equal:
    """Equal to all others, though it means another number."""

    def __init__(self, number: float) -> None:
        self.number = number

    def __repr__(self) -> str:
        return f"Equal({self.number})"  # in the names of tests, the same in every process

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Equal)

    def __hash__(self) -> int:
        return 1


@pytest.mark.parametrize(
    "constants",
    [
        (0.0, -0.0),
        (np.float32(0.0), np.float32(-0.0)),
        (1, 1.0, True, np.float64(1), np.float32(1)),
        (float("nan"), 2.0),
        (Equal(2.0), Equal(3.0)),
    ],
    ids=str,
)
def test_constants_that_are_equal_and_mean_something_else(
    backend: str, constants: tuple[Any, ...]
) -> None:
    def function(x: np.ndarray, c: Any) -> np.ndarray:
        w = kernels.copy(x)
        kernels.scale(w, c.number if isinstance(c, Equal) else c)
        return w

    step = minidl.record(function, copy=True)
    for _ in range(3):
        for constant in constants:
            assert step(X, constant).tobytes() == function(X, constant).tobytes()
    if backend != "reference":
        assert step.programs == len(constants)


# --- numbers are copies ---------------------------------------------------------------------------


def test_numbers_that_a_step_returns_stay(backend: str) -> None:
    training, x, y = plain_regression()
    other = copy.deepcopy(training)
    expected = [float(other.step(x, y)) for _ in range(5)]
    step = minidl.record(training.step)
    losses = [step(x, y) for _ in range(5)]
    assert [float(loss) for loss in losses] == expected
    assert all(type(loss) is np.ndarray and loss.ndim == 0 for loss in losses)


@pytest.mark.parametrize("kind", ["tuple", "dict", "named tuple", "nested"])
def test_numbers_in_what_a_step_returns_stay(isa: str, kind: str) -> None:
    loss = nn.MSELoss()
    made: dict[str, Callable[[Any, Any], Any]] = {
        "tuple": lambda value, z: (value, z),
        "dict": lambda value, z: {"loss": value, "z": z},
        "named tuple": lambda value, z: Pair(value, z),
        "nested": lambda value, z: ((value, z), None),
    }

    def function(x: np.ndarray) -> Any:
        z = kernels.tanh(x)
        return made[kind](loss(z, x), z)

    step = minidl.record(function)
    results = [step(scale * X) for scale in (np.float32(1), np.float32(2), np.float32(3))]
    expected = [function(scale * X) for scale in (np.float32(1), np.float32(2), np.float32(3))]
    assert [float(leaves(r)[0]) for r in map(_plain, results)] == [
        float(leaves(r)[0]) for r in map(_plain, expected)
    ]
    first, last = (leaves(_plain(result))[1] for result in (results[0], results[-1]))
    assert np.shares_memory(first, last)  # arrays are those of the program


def _plain(output: Any) -> Any:
    return tuple(output) if isinstance(output, Pair) else output


# --- epochs of any number of inputs ---------------------------------------------------------------


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("inputs", [1, 2, 3, 4])
def test_an_epoch_of_any_number_of_inputs(backend: str, inputs: int, shuffle: bool) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(11, 3)).astype(np.float32) for _ in range(inputs)]
    loss = nn.MSELoss()

    def function(*batch: np.ndarray) -> np.ndarray:
        total = functools.reduce(kernels.add, batch)
        return loss(total, batch[0])

    order = np.random.default_rng(1).permutation(11) if shuffle else np.arange(11)
    batches = [[array[order[i : i + 4]] for array in arrays] for i in (0, 4, 8)]
    expected = [float(function(*batch)) for batch in batches]
    first, *others = arrays
    calls: list[tuple[Any, Any]] = [(tuple(arrays), None), (first, tuple(others))]
    if others:
        calls.append((tuple(arrays[:-1]), arrays[-1]))
    for x, y in calls:
        step = minidl.record(function)
        for _ in range(2):
            got = step.epoch(x, y, 4, rng=1, shuffle=shuffle, per_step=True)
            assert got.tolist() == expected


@pytest.mark.parametrize("shuffle", [False, True])
def test_an_epoch_of_sequences_and_their_lengths(backend: str, shuffle: bool) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(10, 6, 3)).astype(np.float32)
    lengths, y = rng.integers(1, 7, 10), rng.normal(size=(10, 4)).astype(np.float32)

    def made() -> Any:
        model = nn.GRU(3, 4, return_sequences=False, rng=0)
        loss, optimizer = nn.MSELoss(), optim.Adam(model.parameters())

        def function(x: Any, lengths: Any, y: Any) -> Any:
            value = loss(model(x, lengths=lengths), y)
            optimizer.zero_grad()
            model.backward(loss.backward())
            optimizer.step()
            return value

        return function, model

    (eager, model), (recorded, other) = made(), made()
    order = np.random.default_rng(5).permutation(10) if shuffle else np.arange(10)
    rows = [order[i : i + 4] for i in range(0, 10, 4)]
    expected = [float(eager(x[r], lengths[r], y[r])) for r in rows]
    step = minidl.record(recorded)
    got = step.epoch((x, lengths), y, 4, rng=5, shuffle=shuffle, per_step=True)
    assert got.tolist() == expected
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert a.data.tobytes() == b.data.tobytes()
    lengths[order[5]] = 9
    with pytest.raises(ValueError, match=f"{order[5]}"):
        step.epoch((x, lengths), y, 4, rng=5, shuffle=shuffle)


def test_an_epoch_checks_each_of_its_inputs() -> None:
    step = minidl.record(lambda *batch: batch[0])
    for args, error, match in [
        (((X, X[:2]), X), ValueError, r"X\[0\] has 4 rows, X\[1\] has 2"),
        (((X, X), X[:2]), ValueError, r"X\[0\] has 4 rows, Y has 2"),
        (((X, [1, 2]), X), TypeError, r"X\[1\] must be a NumPy array, got list"),
        (([X, X], X), TypeError, "X must be a NumPy array, got list; several inputs are a tuple"),
        (((), None), ValueError, "no input"),
        ((X, (X, X[:0])), ValueError, r"Y\[1\] is empty"),
    ]:
        with pytest.raises(error, match=match):
            step.epoch(*args, 2)
