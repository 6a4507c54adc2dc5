"""Ctrl-C at every line of recording and running a step: it is as before or as after, and usable.

``python tests/interrupts.py POINTS`` tries so many lines, ``make interrupts`` 5000. The tests try a
few. Signals are raised by Python's own trace hook, before a line that is counted as it runs.
"""

from __future__ import annotations

import functools
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from recording_helpers import Training, classes, everything

import minidl
from minidl import _kernels

PACKAGE = str(Path(minidl.__file__).parent)
X, Y = classes(12)


class Interrupter:
    """Raises SIGINT before a line of minidl, and maybe again at the next call or return.

    With ``line`` 0 it only counts.
    """

    def __init__(self, line: int, twice: bool) -> None:
        self.line, self.lines = line, 0
        self.left = 2 if twice else 1

    def __call__(self, function: Callable[[], Any]) -> bool:
        """Run it; whether it was interrupted."""
        sys.setprofile(self._profile)
        sys.settrace(self._trace)
        try:
            function()
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(None)
            sys.setprofile(None)
        return False

    def _trace(self, frame: FrameType, event: str, _: object) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line":
            self.lines += 1
            if self.lines == self.line:
                self._raise()
        return self._trace

    def _profile(self, frame: FrameType, *_: object) -> None:
        begun = 0 < self.line <= self.lines
        if begun and self.left and frame.f_code.co_filename.startswith(PACKAGE):
            self._raise()

    def _raise(self) -> None:
        self.left -= 1
        signal.raise_signal(signal.SIGINT)


def first_call(training: Training, step: Any) -> None:
    step(X, Y)


def another_shape(training: Training, step: Any) -> None:
    step(X[:7], Y[:7])


def later_call(training: Training, step: Any) -> None:
    step(X[:5], Y[:5])


def one_step_epoch(training: Training, step: Any) -> None:
    step.epoch(X, Y, 12, shuffle=False)


CASES: dict[str, Callable[[Training, Any], None]] = {
    "first call": first_call,
    "another shape": another_shape,
    "later call": later_call,
    "after a change": later_call,
    "epoch": one_step_epoch,
}


def fresh(case: str) -> tuple[Training, Any]:
    training = everything()
    step = minidl.record(training.step)
    if case != "first call":
        step(X[:5], Y[:5])
    if case == "after a change":
        training.model.eval().train()
    return training, step


def lines_of(case: str) -> int:
    """How many lines of minidl it takes, beyond what is done once in a process."""
    for _ in range(2):
        training, step = fresh(case)
        counting = Interrupter(0, twice=False)
        counting(lambda training=training, step=step: CASES[case](training, step))
    return counting.lines


@functools.cache
def outcomes(case: str) -> dict[tuple[tuple[str, bytes], ...], tuple[float, dict[str, bytes]]]:
    """State of a training before a case and after it: to what another step leads from there."""
    found = {}
    for made in (False, True):
        training, step = fresh(case)
        if made:
            CASES[case](training, step)
        state = tuple(training.bits().items())
        found[state] = float(step(X, Y)), training.bits()
    return found


def check(case: str, line: int, twice: bool) -> bool:
    """Interrupt a case before a line. Returns whether the step was made nevertheless."""
    training, step = fresh(case)
    modes = [layer.training for _, layer in training.model.layers()]
    was_interrupted = Interrupter(line, twice)(lambda: CASES[case](training, step))
    where = f"{case}, line {line}, twice {twice}"
    assert was_interrupted, where
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, where
    assert _kernels.recorder() is None, where
    assert [layer.training for _, layer in training.model.layers()] == modes, where
    assert all(type(array) is np.ndarray for array in training.arrays().values()), where
    state = tuple(training.bits().items())
    assert state in outcomes(case), where
    assert (float(step(X, Y)), training.bits()) == outcomes(case)[state], where
    return state == list(outcomes(case))[1]


def main(points: int) -> None:
    """Try so many lines, as many of each case, half of them with a second Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
    for case in CASES:
        lines = lines_of(case)
        chosen = np.linspace(1, lines, min(lines, points // len(CASES))).astype(int)
        made = [check(case, int(line), bool(index % 2)) for index, line in enumerate(chosen)]
        print(
            f"{case}: {len(made)} of {lines} lines, {sum(made)} times the step was made", flush=True
        )


if __name__ == "__main__":
    main(int(sys.argv[1]))
