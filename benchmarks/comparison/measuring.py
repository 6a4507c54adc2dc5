"""Time contenders for the same work, in alternating rounds of one process."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from minidl.profiling.ceilings import repeats_for
from minidl.profiling.measuring import BURSTS, Effort, from_python

TOLERANCE = 1e-4  # relative to the largest number of an answer: float32 errors of a few steps
Answers = Mapping[str, Any]


@dataclass(frozen=True)
class Contender:
    """One way to do the work of a task.

    Parameters
    ----------
    name
        Its column in the table. Of several contenders with one name, the fastest counts.
    call
        Function that does the work, and returns when it is done.
    setting
        What distinguishes it from others with the same name, in words.
    units
        How many times one call does the work.
    check
        Function that returns numbers by name, which must equal those of the other contenders. It
        is called before the first measurement, in the initial state.
    prepare
        Function to call before each burst, not timed.
    """

    name: str
    call: Callable[[], Any]
    setting: str = ""
    units: int = 1
    check: Callable[[], Answers] | None = None
    prepare: Callable[[], Any] = lambda: None


@dataclass(frozen=True)
class Result:
    """The measurements of one task.

    Parameters
    ----------
    task, groups
        Its name, and the groups whose means it counts in.
    threads
        Threads that all contenders could use.
    rounds
        Seconds in each round, by the name of the contender.
    settings
        The fastest setting, by the name of the contender.
    limit
        Seconds that the multiply-adds of its products take at the FMA peak of all threads: no
        contender that does all of them can be faster. None where something else limits it.
    """

    task: str
    groups: list[str]
    threads: int
    rounds: dict[str, list[float]]
    settings: dict[str, str]
    limit: float | None = None

    def seconds(self, name: str) -> float:
        """Return the seconds of the work done once: the median of the rounds."""
        return median(self.rounds[name])

    def ratio(self, name: str, base: str) -> float:
        """Return how many times longer than ``base`` it takes: the median of the rounds' ratios."""
        pairs = zip(self.rounds[name], self.rounds[base], strict=True)
        return median(theirs / ours for theirs, ours in pairs)


def measure(contenders: list[Contender], effort: Effort) -> list[list[float]]:
    """Measure the seconds of the work done once, for each contender and round.

    The bursts of a contender follow each other, and the fastest counts: by then the threads of the
    contender before it, which may wait for more work in a busy loop, have stopped.
    """
    budget = max(effort.seconds, *map(_warm_up, contenders))  # bursts are as long for all
    repeats = [_repeats(contender, budget) for contender in contenders]
    seconds: list[list[float]] = [[] for _ in contenders]
    gc.collect()
    gc.disable()
    try:
        for first in range(effort.rounds):
            for place in range(len(contenders)):
                index = (first + place) % len(contenders)  # none always follows the same one
                seconds[index].append(_burst(contenders[index], repeats[index]))
    finally:
        gc.enable()
    return seconds


def _warm_up(contender: Contender) -> float:
    """Make the first calls, which compile or tune; returns the seconds of one more call."""
    contender.prepare()
    for _ in range(3):
        contender.call()
    return from_python(contender.call, 1)


def _repeats(contender: Contender, budget: float) -> int:
    """Find how many calls make up a burst."""
    contender.prepare()
    return repeats_for(lambda count: from_python(contender.call, count) * count, budget)


def _burst(contender: Contender, count: int) -> float:
    contender.prepare()
    return min(from_python(contender.call, count) for _ in range(BURSTS)) / contender.units


def fastest(contenders: list[Contender], seconds: list[list[float]]) -> dict[str, int]:
    """Find the index of the fastest contender of each name, by the median of its rounds."""
    best: dict[str, int] = {}
    for index, contender in enumerate(contenders):
        rival = best.setdefault(contender.name, index)
        if median(seconds[index]) < median(seconds[rival]):
            best[contender.name] = index
    return best


def agreeing(contenders: Iterable[Contender], leave_out: Callable[[Contender, str], None]) -> Any:
    """Select the contenders with the answers of the first one; calls ``leave_out`` for the others.

    A contender that raises an error, such as for lack of a compiler, is left out as well.
    """
    expected: dict[str, Any] = {}
    agreed = []
    for contender in contenders:
        contender.prepare()
        try:
            answers = contender.check() if contender.check else {}
            contender.call()
        except Exception as error:
            leave_out(contender, in_one_line(error))
            continue
        wrong = [name for name in answers if _differ(answers[name], expected.get(name))]
        if wrong:
            leave_out(contender, _difference(wrong[0], answers, expected))
            continue
        for name, answer in answers.items():
            expected.setdefault(name, answer)
        agreed.append(contender)
    return agreed


def in_one_line(error: Exception) -> str:
    """Format the class of an error and the first line of its message."""
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}"


def _differ(answer: Any, expected: Any) -> bool:
    if expected is None:
        return False
    answer, expected = np.asarray(answer), np.asarray(expected)
    return not np.all(abs(answer - expected) <= TOLERANCE * abs(expected).max())


def _difference(name: str, answers: Answers, expected: Answers) -> str:
    worst = float(abs(np.asarray(answers[name]) - np.asarray(expected[name])).max())
    return f"another {name} than the contenders before it, by up to {worst:.2g}"
