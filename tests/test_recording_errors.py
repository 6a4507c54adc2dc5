"""What cannot be recorded says so, and whatever fails leaves everything as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from recording_helpers import Training, classes, everything, plain_regression

import minidl
from minidl import RecordingError, _kernels, kernels, nn, optim

compiled = pytest.mark.skipif(_kernels.isa == "reference", reason="the twin records nothing")


def unchanged_by(training: Training, call: Callable[[], Any], error: Any, match: str) -> None:
    """The call raises, changes nothing, and the model trains on as if it had not been."""
    before = training.bits()
    with pytest.raises(error, match=match):
        call()
    assert training.bits() == before
    for _, array in training.arrays().items():
        assert type(array) is np.ndarray
    assert _kernels.recorder() is None
    X, Y = np.zeros((4, training.model[0].in_features), np.float32), None
    Y = np.zeros(4, int) if training.loss.takes_labels else np.zeros((4, 1), np.float32)
    X[:] = np.arange(X.size).reshape(X.shape) % 5
    other = copy.deepcopy(training)
    other.optimizer.lr = training.optimizer.lr = 0.01
    assert float(minidl.record(other.step)(X, Y)) == float(training.step(X, Y))
    assert other.bits() == training.bits()


# --- NumPy in a layer -----------------------------------------------------------------------

SINNERS: dict[str, Callable[[np.ndarray], Any]] = {
    "ufunc": lambda a: np.exp(a),
    "operator": lambda a: a * 2,
    "reduction": lambda a: a / a.max(),
    "mean": lambda a: a - a.mean(axis=0),
    "in place": lambda a: a.__imul__(2),
    "out": lambda a: np.add(a, 1, out=a),
    "concatenate": lambda a: np.concatenate([a, a]),
    "where": lambda a: np.where(a, a, 0),
    "copy": lambda a: a.copy(),
    "fancy": lambda a: a[::2][[0, 0]],
    "mask": lambda a: a[a > 0],
    "assignment": lambda a: a.__setitem__(slice(None), 0),
    "assignment to a view": lambda a: a.T.__setitem__((0, slice(None)), 0),
    "copyto": lambda a: np.copyto(a, 0),
    "fill": lambda a: a.fill(0),
    "einsum": lambda a: np.einsum("ij->ij", a),
    "matmul": lambda a: a @ a.T,
    "clip": lambda a: a.clip(0, 1),
    "astype": lambda a: a.astype(np.float32),
    "float": lambda a: float(a),
    "element": lambda a: a[0, 0] > 1,
    "iteration": lambda a: list(a),
    "any": lambda a: a.any(),
    "item": lambda a: a.item(0),
    "tolist": lambda a: a.tolist(),
    "print": lambda a: f"{a}",
    "str": lambda a: str(a),
    "asarray": lambda a: np.asarray(a) * 2,
    "array": lambda a: np.array([a[0], a[1]]),
    "own array": lambda a: np.ones(a.shape, a.dtype),
    "pickle": lambda a: a.__reduce_ex__(4),
}


class Sinner(nn.Layer):
    """A layer that uses NumPy in one of its passes."""

    def __init__(self, sin: Callable[[np.ndarray], Any], phase: str) -> None:
        self.sin, self.phase, self.on = sin, phase, True

    def sinful(self, a: np.ndarray, phase: str) -> np.ndarray:
        if self.on and phase == self.phase:
            result = self.sin(a)
            return result if isinstance(result, np.ndarray) else a
        return kernels.add(a, a)

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.save(None)
        return self.sinful(x, "forward")

    def backward(self, dy: np.ndarray) -> np.ndarray:
        self.saved(dy)
        return self.sinful(dy, "backward")

    def __repr__(self) -> str:
        return "Sinner()"


@compiled
@pytest.mark.parametrize("phase", ["forward", "backward"])
@pytest.mark.parametrize("sin", SINNERS)
def test_numpy_in_a_layer_is_refused_and_the_layer_named(phase: str, sin: str) -> None:
    sinner = Sinner(SINNERS[sin], phase)
    model = nn.Sequential(
        nn.Linear(6, 5), nn.BatchNorm(5), nn.Dropout(0.5), sinner, nn.Linear(5, 4), rng=0
    )
    training = Training(model, nn.CrossEntropyLoss(), optim.Adam(model.parameters()))
    X, Y = classes(8)
    before = training.bits()
    with pytest.raises(RecordingError, match=f"layer 3 Sinner.*{phase}"):
        minidl.record(training.step)(X, Y)
    assert training.bits() == before
    sinner.on = False
    unchanged_by(training, lambda: minidl.record(training.step)(X, Y[:4]), ValueError, "labels")


def test_a_layer_in_plain_numpy_trains_eagerly() -> None:
    sinner = Sinner(SINNERS["operator"], "forward")
    model = nn.Sequential(nn.Linear(6, 5), sinner, nn.Linear(5, 4), rng=0)
    training = Training(model, nn.CrossEntropyLoss(), optim.Adam(model.parameters()))
    X, Y = classes(8)
    first = float(training.step(X, Y))
    assert float(training.step(X, Y)) < first


# --- values read into Python, and other things a function does --------------------------------

Returned = Callable[[Training, np.ndarray], Any]

DEEDS: dict[str, tuple[Returned, str]] = {
    "comparison": (lambda t, loss: 0 if loss > 1 else loss, "np.greater"),
    "float": (lambda t, loss: float(loss), "float"),
    "bool": (lambda t, loss: loss if loss else 0, "bool"),
    "print": (lambda t, loss: print(loss), "str"),
    "format": (lambda t, loss: f"{loss:.3f}", "format"),
    "element": (lambda t, loss: loss[()] and 0, "one element"),
    "numpy result": (
        lambda t, loss: np.asarray(loss) * 2,
        "no kernel has written|the loss, or begin",
    ),
    "numpy scalar": (lambda t, loss: (loss, np.asarray(loss).max()), "no kernel has written"),
    "own array": (lambda t, loss: np.zeros(3), "no kernel has written|the loss, or begin"),
    "rate": (lambda t, loss: setattr(t.optimizer, "lr", 0.5), "setitem"),
    "parameter": (lambda t, loss: setattr(t.model[0].bias, "data", np.ones(8)), "setitem"),
    "gradient": (lambda t, loss: t.model[0].bias.grad.__iadd__(1), "np.add"),
    "attribute": (lambda t, loss: setattr(t.model[0], "scale", 2.0), "sets its attribute"),
    "foreign array": (lambda t, loss: kernels.relu(np.ones((2, 2))), "neither an input"),
    "epoch": (lambda t, loss: t.other.epoch(t.X, t.X, 2), "epochs of another"),
    "exception": (lambda t, loss: 1 // 0, "division"),
}


@compiled
@pytest.mark.parametrize("deed", DEEDS)
def test_deeds_that_cannot_be_recorded(deed: str) -> None:
    act, match = DEEDS[deed]
    training, X, Y = plain_regression()
    training.X, training.other = X, minidl.record(lambda x, y: kernels.add(x, y))

    def step(x: np.ndarray, y: np.ndarray) -> Any:
        value = training.step(x, y)
        result = act(training, value)
        return value if result is None else result

    recorded = minidl.record(step)
    error = ZeroDivisionError if deed == "exception" else RecordingError
    for call in (lambda: recorded(X, Y), lambda: recorded.epoch(X, Y, 8)):
        before = training.bits()
        with pytest.raises(error, match=match):
            call()
        assert training.bits() == before
        assert _kernels.recorder() is None
    unchanged_by(training, lambda: recorded(X, Y), error, match)


@compiled
def test_an_array_of_the_recording_kept_beyond_it_is_refused() -> None:
    kept = []
    step = minidl.record(lambda x: kept.append(kernels.relu(x)) or kept[-1])
    assert step(np.ones((2, 2)))[0, 0] == 1
    with pytest.raises(RecordingError, match="kept beyond it"):
        kept[0] + 1


# --- what is replaced between calls -----------------------------------------------------------


def another_optimizer(training: Training) -> None:
    training.second = optim.SGD(training.model.parameters(), lr=0.1)


def another_layer(training: Training) -> None:
    training.model.stack = (*training.model.stack[:-1], nn.Linear(8, 1, rng=3))


def one_more_layer(training: Training) -> None:
    training.model.stack = (*training.model.stack, nn.Linear(1, 1, rng=3))


REPLACEMENTS: dict[str, Callable[[Training], Any]] = {
    "optimizer": another_optimizer,
    "reset": lambda training: training.model.reset(1),
    "astype": lambda training: training.model.astype(np.float64),
    "layer": another_layer,
    "one more": one_more_layer,
}


@compiled
@pytest.mark.parametrize("what", REPLACEMENTS)
@pytest.mark.parametrize("how", ["call", "epoch"])
def test_replaced_parameters_are_noticed(what: str, how: str) -> None:
    training, X, Y = plain_regression()
    step = minidl.record(training.step)
    run = (lambda: step(X, Y)) if how == "call" else (lambda: step.epoch(X, Y, 8, rng=0))
    run()
    REPLACEMENTS[what](training)
    vars(training).pop("second", None)
    before = training.bits()
    for _ in range(2):
        with pytest.raises(RecordingError, match=r"forget\(\)"):
            run()
    assert training.bits() == before
    # Recorded anew, it does what the function does.
    training.model.astype(np.float32)
    training.optimizer = optim.SGD(training.model.parameters(), lr=0.1)
    other = copy.deepcopy(training)
    step.forget()
    assert float(step(X, Y)) == float(other.step(X, Y))
    assert other.bits() == training.bits()


@compiled
def test_a_layer_without_parameters_in_place_of_another() -> None:
    model = nn.Sequential(nn.ReLU(), nn.Dropout(0.0))
    step = minidl.record(lambda x: model(x))
    x = np.array([[-1.0, 2.0]], np.float32)
    assert step(x).tolist() == [[0, 2]]
    model.stack = (nn.Tanh(), *model.stack[1:])
    model.assign_paths()
    assert step(x).tobytes() == nn.Tanh()(x).tobytes()


# --- inputs that do not fit --------------------------------------------------------------------


@pytest.mark.parametrize("how", ["call", "epoch"])
@pytest.mark.parametrize("recorded_before", [False, True])
def test_inputs_that_do_not_fit(backend: str, how: str, recorded_before: bool) -> None:
    X, Y = classes(16)
    cases: list[tuple[Any, Any, type[Exception], str]] = [
        (X[:, :5].copy(), Y, ValueError, r"layer 0 Linear\(6, 17\).*6\)"),
        (X.astype(np.float64), Y, TypeError, "float64.*astype"),
        (np.ones((16, 6), int), Y, TypeError, "int64.*astype"),
        (X > 0, Y, TypeError, "bool"),
        (X, Y.astype(np.float32), ValueError, "labels must be integers"),
        (X.tolist(), Y, TypeError, "array"),
    ]
    for x, y, error, match in cases:
        training = everything(schedule=False)
        step = minidl.record(training.step)
        if recorded_before:
            step(X, Y)
        call = (lambda s, x, y: s(x, y)) if how == "call" else (lambda s, x, y: s.epoch(x, y, 8))
        if backend != "reference":
            unchanged_by(training, lambda: call(step, x, y), error, match)  # noqa: B023
        else:
            with pytest.raises(error, match=match):
                call(step, x, y)


def test_epoch_checks_its_arguments() -> None:
    training, X, Y = plain_regression()
    step = minidl.record(training.step)
    for args, error, match in [
        ((X, Y[:5], 8), ValueError, "rows"),
        ((X[:0], Y[:0], 8), ValueError, "empty"),
        ((X, Y, 0), ValueError, "batch_size"),
        ((X, Y, 2.5), TypeError, "batch_size"),
        ((X, Y, True), TypeError, "batch_size"),
        ((X, [1, 2], 8), TypeError, "Y must be"),
    ]:
        with pytest.raises(error, match=match):
            step.epoch(*args)
    with pytest.raises(RecordingError, match="begin with"):
        minidl.record(lambda x, y: kernels.relu(x)).epoch(X, Y, 8)
    for bad in (lambda x, p: p[:, :1], lambda x, p: x, lambda x, p: p[:2]):

        def returns(x: np.ndarray, y: np.ndarray, bad=bad) -> Any:
            prediction = kernels.add(x, x)
            return training.step(x, y), bad(x, prediction)

        before = training.bits()
        if _kernels.isa != "reference":
            with pytest.raises(RecordingError, match="per_step needs"):
                minidl.record(returns).epoch(X, Y, 8, per_step=True)
            assert training.bits() == before


# --- labels ------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [-1, 4, 2**40])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("row", [3, 37, 69])  # in the first batch, in the middle, in the last
def test_a_bad_label_names_its_row(backend: str, bad: int, shuffle: bool, row: int) -> None:
    X, Y = classes()
    training = everything(schedule=False)
    other = copy.deepcopy(training)
    step = minidl.record(training.step)
    Y[row] = bad
    with pytest.raises(ValueError, match=f"label {bad} in row {row} of the data set.* 4 classes"):
        step.epoch(X, Y, 16, rng=0, shuffle=shuffle)
    # All steps before that with the bad label were made.
    made = 0
    for x, y in minidl.batches(X, Y, 16, rng=0, shuffle=shuffle):
        if bad in y:
            break
        other.step(x, y)
        made += 1
    assert training.optimizer.steps == made
    if backend != "reference":
        assert training.trained() == other.trained()
    good = np.where(bad == Y, 0, Y)
    step(X[:8], good[:8])
    with pytest.raises(ValueError, match=f"label {bad} in row 2 "):
        step(X[:8], np.where(np.arange(8) == 2, bad, good[:8]))


# --- numbers that are not finite -----------------------------------------------------------------


@pytest.mark.parametrize("where", [0, 2, 4])  # the recording step, one in the middle, the last
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_epoch_stops_at_the_first_number_that_is_not_finite(
    isa: str, where: int, value: float
) -> None:
    X, Y = classes()
    X[16 * where + 3, 1] = value
    training, other = everything(), everything()
    step, same = minidl.record(training.step), minidl.record(other.step)
    with pytest.raises(FloatingPointError, match=rf"step {where} .*layer 0 Linear.*forward"):
        step.epoch(X, Y, 16, shuffle=False)
    if where:
        same.epoch(X[: 16 * where], Y[: 16 * where], 16, shuffle=False)
    without = (".grad", "states")  # in the state is the rate that the schedule has set
    assert training.bits(but=without) == other.bits(but=without)
    assert training.optimizer.steps == where
    clean = np.nan_to_num(X, posinf=0, neginf=0)
    assert step.epoch(clean, Y, 16, rng=1) == same.epoch(clean, Y, 16, rng=1)
    assert training.bits() == other.bits()


@pytest.mark.parametrize("where", [0, 2, 4])
@pytest.mark.parametrize("how", ["epoch", "calls"])
def test_a_gradient_that_is_not_finite(isa: str, where: int, how: str) -> None:
    """The loss is finite; its gradient with respect to a huge weight overflows going back."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 1), rng=0)
    model[1].weight.data = np.full((2, 2), 1e30, np.float32)
    model[0].weight.data = np.full((2, 2), 1e30, np.float32)
    training = Training(model, nn.MSELoss("sum"), optim.Adam(model.parameters(), lr=0.0))
    X, Y = np.zeros((18, 2), np.float32), np.ones((18, 1), np.float32)
    for layer in model.stack[:2]:
        layer.bias.data = np.zeros(2)
    model[2].bias.data = np.ones(1, np.float32)  # no error but in one row
    Y[4 * where + 1] = 1e19
    step = minidl.record(training.step)
    before = training.trained()
    steps = f"step {where} .*" if how == "epoch" else ""

    def run() -> None:
        if how == "epoch":
            step.epoch(X, Y, 4, shuffle=False)
        else:
            for x, y in minidl.batches(X, Y, 4, shuffle=False):
                step(x, y)

    with pytest.raises(FloatingPointError, match=f"{steps}gradient.*not finite.*going backward"):
        run()
    after = training.trained()
    unchanged = [name for name in before if name.endswith(".data")]
    assert all(after[name] == before[name] for name in unchanged)
    assert training.optimizer.steps == where


def test_twin_stops_at_a_step_that_is_not_finite() -> None:
    before = _kernels.isa
    _kernels.select("reference")
    try:
        X, Y = classes()
        X[35] = np.nan
        training = everything()
        with np.errstate(all="ignore"), pytest.raises(FloatingPointError, match="step 2 of"):
            minidl.record(training.step).epoch(X, Y, 16, shuffle=False)
        assert training.optimizer.steps == 2
    finally:
        _kernels.select(before)


@compiled
def test_a_loss_found_bad_after_an_update_takes_the_update_back() -> None:
    one, two = nn.Linear(2, 1, rng=0), nn.Linear(2, 1, rng=1)
    loss = nn.MSELoss()
    first = optim.Adam(one.parameters(), lr=0.1)
    second = optim.SGD(two.parameters(), lr=0.1, momentum=0.9)

    def step(x: np.ndarray, y: np.ndarray) -> Any:
        values = []
        for model, optimizer in ((one, first), (two, second)):
            values.append(loss(model(x), y))
            optimizer.zero_grad()
            model.backward(loss.backward())
            optimizer.step()
        return tuple(values)

    step = minidl.record(step)
    X, Y = np.ones((4, 2), np.float32), np.ones((4, 1), np.float32)
    step(X, Y)
    two.weight.data = np.full((2, 1), 3e38, np.float32)

    def bits() -> list[bytes]:
        arrays = [first.flat.data, first.moment1, first.moment2, first.state]
        return [a.tobytes() for a in [*arrays, second.flat.data, second.velocity, second.state]]

    before = bits()
    for call in (lambda: step(X, Y), lambda: step.epoch(X, Y, 4)):
        with pytest.raises(FloatingPointError):
            call()
        now = bits()
        assert now[:3] == before[:3]
        assert now[4:6] == before[4:6]


def test_record_refuses_what_is_no_function() -> None:
    with pytest.raises(TypeError, match="takes a function"):
        minidl.record(3)
    step = minidl.record(lambda x: x)
    with pytest.raises(TypeError, match="recorded already"):
        minidl.record(step)


# --- modes ------------------------------------------------------------------------------------


@compiled
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("when", ["before", "between", "after"])
def test_a_failing_recording_puts_modes_back(first: bool, when: str) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Dropout(0.5), nn.Tanh()), rng=0)
    model.train(first)
    model[1][1].train(not first)
    modes = [layer.training for _, layer in model.layers()]

    def function(x: np.ndarray) -> np.ndarray:
        if when == "before":
            model.train(not first)
        y = model[0](x)
        if when == "between":
            model[1].eval()
            model[1].train()
        y = model[1](y)
        if when == "after":
            model.eval().train()
            model[1].eval()
        return y * 2

    for _ in range(2):
        with pytest.raises(RecordingError, match="multiply"):
            minidl.record(function)(np.ones((3, 4), np.float32))
        assert [layer.training for _, layer in model.layers()] == modes


def test_both_runs_of_a_recording_begin_in_the_same_mode() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm(4), rng=0)

    @minidl.record
    def function(x: np.ndarray) -> np.ndarray:
        training = model.training
        model.eval()
        return model(x) if training else model[0](x)

    x = np.ones((3, 4), np.float32)
    expected = model[1].eval()(model[0](x))
    model.train()
    assert np.array_equal(function(x), expected)
    assert not model.training


# --- not finite, though no loss has shown it ---------------------------------------------------


def batch_norm() -> Training:
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm(8), nn.ReLU(), nn.Linear(8, 1), rng=0)
    return Training(model, nn.MSELoss("sum"), optim.SGD(model.parameters(), lr=0.1))


SPOILED: dict[str, tuple[Callable[[Training], Any], str]] = {
    "the last update": (
        lambda t: setattr(t.optimizer, "lr", 3e38),
        r"parameter '0.weight' of Linear 0 holds (inf|-inf|nan) in row 0",
    ),
    "running statistics": (
        lambda t: t.model[1].running_var.__setitem__(2, np.nan),
        "the state 'running_var' of BatchNorm 1 holds nan in row 2",
    ),
    "saturated": (
        lambda t: t.model[1].beta.data.__setitem__(3, -np.inf),
        "parameter '1.beta' of BatchNorm 1 holds (-inf|nan) in row 3",
    ),
}


@pytest.mark.parametrize("what", SPOILED)
@pytest.mark.parametrize("how", ["epoch", "fit"])
def test_what_is_not_finite_after_the_last_step_is_said(backend: str, what: str, how: str) -> None:
    spoil, match = SPOILED[what]
    training = batch_norm()
    spoil(training)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(32, 4)).astype(np.float32)
    Y = 100 * X[:, :1]
    trainer = minidl.Trainer(training.model, training.loss, training.optimizer, rng=0)
    step = minidl.record(training.step)

    def run() -> None:
        if how == "epoch":
            step.epoch(X, Y, 32)
        else:
            trainer.fit(X, Y, epochs=1, batch_size=32, progress=False)

    with np.errstate(all="ignore"), pytest.raises(FloatingPointError, match=match):
        run()


class Two(nn.Layer):
    """Two layers that are in no container."""

    def __init__(self) -> None:
        self.first, self.second = nn.Linear(4, 4, rng=0), nn.Linear(4, 2, rng=1)

    def forward(self, x: np.ndarray) -> np.ndarray:
        return self.second(self.first(x))

    def backward(self, dy: np.ndarray) -> np.ndarray:
        return self.first.backward(self.second.backward(dy))


@pytest.mark.parametrize("what", ["alone", "of a layer without a container"])
def test_each_parameter_is_looked_at_also_without_a_container(what: str) -> None:
    model: nn.Layer = nn.Linear(4, 2, rng=0) if what == "alone" else Two()
    weight, *others = model.parameters()
    for other in others:
        other.frozen = True
    trainer = minidl.Trainer(model, nn.MSELoss(), optim.SGD([weight], lr=3e38), rng=0)
    X = np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32)
    with pytest.raises(FloatingPointError, match=r"after epoch 1, parameter '\S*weight' of "):
        trainer.fit(X, 100 * X[:, :2], epochs=1, progress=False)
    weight.data[...] = np.nan
    with pytest.raises(FloatingPointError, match=r"parameter '\S*weight' of .+ held nan in row 0"):
        trainer.fit(X, X[:, :2], epochs=1, progress=False)


class Masked(nn.Identity):
    """Holds a mask, which is to be infinite."""

    state_names = constant_names = ("mask",)

    def __init__(self) -> None:
        self.mask = np.full(2, -np.inf, np.float32)


def test_what_a_layer_keeps_as_it_is_may_be_infinite() -> None:
    model = nn.Sequential(nn.Linear(4, 2, rng=0), Masked())
    trainer = minidl.Trainer(model, nn.MSELoss(), optim.SGD(model.parameters()), rng=0)
    x = np.ones((8, 4), np.float32)
    assert trainer.fit(x, x[:, :2], epochs=1, progress=False).epochs == 1


@compiled
def test_an_array_of_a_layer_is_deleted_once() -> None:
    layer = nn.BatchNorm(3)
    minidl.record(layer.__call__)(np.ones((4, 3), np.float32))
    del layer.running_mean
    with pytest.raises(AttributeError, match="running_mean"):
        del layer.running_mean


@compiled
def test_times_are_noted_in_an_array_of_one_dimension() -> None:
    step = minidl.record(lambda x: kernels.relu(x))
    x = np.ones((2, 3), np.float32)
    step(x)
    program = step.program
    for stamps in (np.array(0), np.zeros((2, 2), int), np.zeros(4, int)[::2], np.zeros(2)):
        with pytest.raises(ValueError, match="stamps must be 2 int64"):
            program.time((x,), stamps)
    with pytest.raises(TypeError):
        program.time((x,), None)
