"""While a step is recorded the model stays as it is: for other threads, forks and signals."""

from __future__ import annotations

import copy
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import interrupts
import numpy as np
import pytest
from recording_helpers import Training, classes, everything, plain_regression

import minidl
from minidl import RecordingError, _kernels, nn

pytestmark = pytest.mark.skipif(_kernels.isa == "reference", reason="the twin records nothing")
X, Y = classes(16)


class Pause:
    """Stops a function that is being recorded, in its first run, until the test lets it go on."""

    def __init__(self) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.reached.set()
        assert self.go_on.wait(30)


@contextmanager
def recording_elsewhere(training: Training) -> Iterator[list[Any]]:
    """Another thread is recording a training step, near its end; what it returns comes last."""
    pause, results = Pause(), []

    def function(x: np.ndarray, y: np.ndarray) -> Any:
        value = training.step(x, y)
        pause()
        return value

    step = minidl.record(function)

    def run() -> None:
        try:
            results.append(step(X, Y))
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert pause.reached.wait(30)
    try:
        yield results
    finally:
        pause.go_on.set()
        thread.join(30)


def test_other_threads_read_and_save_the_model_as_it_was(tmp_path: Path) -> None:
    training = everything()
    before = training.bits()
    other = copy.deepcopy(training)
    with recording_elsewhere(training) as results:
        assert training.bits() == before
        assert all(type(array) is np.ndarray for array in training.arrays().values())
        minidl.save(training.model, tmp_path / "model.safetensors")
        assert copy.deepcopy(training).bits() == before
    assert float(results[0]) == float(other.step(X, Y))
    assert training.bits() == other.bits()
    minidl.load(tmp_path / "model.safetensors", training.model)
    saved = [parameter.data.tobytes() for parameter in training.model.parameters()]
    assert saved == [parameter.data.tobytes() for parameter in everything().model.parameters()]


def test_other_threads_predict_and_record_meanwhile() -> None:
    training = everything()
    training.model.eval()
    expected = training.model(X)
    training.model.train()
    evaluate = minidl.record(lambda x: training.model(x), copy=True)
    training.model.eval()
    evaluate(X)
    with recording_elsewhere(training):
        assert np.array_equal(training.model(X), expected)
        assert np.array_equal(evaluate(X), expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_forked_meanwhile_can_use_the_model() -> None:
    training = everything()
    before = training.bits()
    with recording_elsewhere(training):
        child = os.fork()
        if child == 0:
            good = training.bits() == before
            step = minidl.record(training.step)
            good = good and bool(np.isfinite(step(X, Y)))
            os._exit(0 if good else 1)
        assert os.waitpid(child, 0)[1] == 0


def test_a_failing_recording_leaves_no_trace() -> None:
    training = everything()

    def attributes() -> list[dict[str, Any]]:
        held = [vars(layer) for _, layer in training.model.layers()]
        return [{n: x for n, x in own.items() if n != "_first_parameter"} for own in held]

    before, attributes_before = training.bits(), attributes()

    def function(x: np.ndarray, y: np.ndarray) -> Any:
        return float(training.step(x, y))

    with pytest.raises(RecordingError, match="float"):
        minidl.record(function)(X, Y)
    assert training.bits() == before
    assert attributes() == attributes_before


# --- signals ------------------------------------------------------------------------------


@contextmanager
def on_alarm(handler: Any) -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("shape", ["the same", "another"])
def test_a_handler_may_call_the_step_that_is_being_recorded(shape: str) -> None:
    training, other = everything(), everything()
    model = training.model.eval()
    other.model.eval()
    heard, expected = [], other.model(X[:3])
    inside = [True]

    def function(x: np.ndarray) -> np.ndarray:
        y = model[0](x)
        if inside:
            inside.pop()
            signal.raise_signal(signal.SIGTERM)
        for layer in model.stack[1:]:
            y = layer(y)
        return y

    step = minidl.record(function, copy=True)
    rows = 3 if shape == "another" else 16
    with on_alarm(lambda *_: heard.append(step(X[:rows]))):
        result = step(X)
    assert np.array_equal(result, other.model(X))
    assert len(heard) == 1
    assert np.array_equal(heard[0][:3], expected)
    assert _kernels.recorder() is None


def test_ctrl_c_is_heard_while_a_function_is_recorded() -> None:
    """Though it would never return."""
    training, X, Y = plain_regression()
    before = training.bits()

    def function(x: np.ndarray, y: np.ndarray) -> Any:
        value = training.step(x, y)
        while not endless.wait(0.001):
            pass
        return value

    endless = threading.Event()
    timer = threading.Timer(0.1, lambda: signal.raise_signal(signal.SIGINT))
    stop = threading.Timer(20, endless.set)
    step = minidl.record(function)
    timer.start()
    stop.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            step(X, Y)
    finally:
        stop.cancel()
    assert training.bits() == before
    endless.set()
    assert float(step(X, Y)) == float(plain_regression()[0].step(X, Y))


# The second of two interrupts may fall into a generator that the first has ended: Python reports it
# then, as it cannot raise it. Which of the lines tried are such depends on every line before them.
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <generator:pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("case", interrupts.CASES)
def test_an_interrupt_at_any_line_leaves_the_step_undone_or_done(case: str, twice: bool) -> None:
    """A few of the lines; ``make interrupts`` tries thousands."""
    lines = interrupts.lines_of(case)
    for line in np.unique(np.geomspace(1, lines, 8).astype(int)):
        interrupts.check(case, int(line), twice)
    for line in range(lines - 3, lines):
        interrupts.check(case, line, twice)


def test_a_model_in_its_own_mode_after_an_interrupt() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.5), rng=0)

    def function(x: np.ndarray) -> np.ndarray:
        model.eval()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        minidl.record(function)(X)
    assert all(layer.training for _, layer in model.layers())
