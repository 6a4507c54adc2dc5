"""Time kernels, and compare them with the ceilings of this machine.

Three times are taken of every case in every round:

- the kernel, repeated inside C, so that the call from Python does not count; several threads share
  it as in a recorded step, if asked for;
- one call of it from Python;
- one call of its NumPy twin from Python.

A round is a few short bursts, each of which measures both ceilings and then the kernel. The
fastest burst of each counts, because a slower one was interrupted. So the fraction of a round
compares measurements that are close in time, and changes of the clock between rounds cancel. The
median over the rounds is reported.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from minidl.profiling.cases import Case, tiny_calls
from minidl.profiling.ceilings import FMA, Probes, binding, least_seconds, repeats_for

BURSTS = 3  # in a round
# A kernel that moves fewer bytes ends before any ceiling could bind it.
FEW_BYTES = 512


@dataclass(frozen=True)
class Effort:
    """How many rounds to measure, and for how many seconds each kernel in a round."""

    rounds: int = 11
    seconds: float = 5e-3


QUICK = Effort(rounds=3, seconds=1e-3)


@dataclass(frozen=True)
class Result:
    """The measurements of one case.

    Parameters
    ----------
    kernel, shape
        The case.
    flops, nbytes
        Flops and bytes of one call, counted as ``cases.py`` says.
    seconds
        Seconds of the kernel, repeated inside C.
    call_seconds, twin_seconds
        Seconds of one call from Python: of the kernel, and of its NumPy twin.
    bound
        The ceiling that binds: ``FMA``, or a level of memory. Empty for a handful of numbers.
    ceiling
        Flops (bound by FMA) or bytes per second that this ceiling allows.
    fraction, best
        Fraction of the ceiling: the median of the rounds, and the best one.
    """

    kernel: str
    shape: str
    flops: int
    nbytes: int
    seconds: float
    call_seconds: float
    twin_seconds: float
    bound: str
    ceiling: float
    fraction: float
    best: float

    @property
    def name(self) -> str:
        """Kernel and shape."""
        return f"{self.kernel} {self.shape}"

    @property
    def speedup(self) -> float:
        """How many times faster a call from Python is than one of the twin."""
        return self.twin_seconds / self.call_seconds

    @property
    def rate(self) -> float:
        """Flops (bound by FMA) or bytes per second."""
        return (self.flops if self.bound == FMA else self.nbytes) / self.seconds


def measure(case: Case, probes: Probes, effort: Effort | None = None) -> Result:
    """Measure a case in the instruction set that is selected now.

    Parameters
    ----------
    case
        The kernel and its size.
    probes
        Ceilings of the dtype of the case, for as many threads as are to share the kernel.
    effort
        How long to measure; ``Effort()`` by default.
    """
    rounds = list(_rounds(case, probes, effort or Effort()))
    peak, bandwidth, seconds, called, twinned, fraction = map(median, zip(*rounds, strict=True))
    level = probes.level_of(case.footprint)
    bound = binding(case.flops, case.nbytes, peak, bandwidth, level)
    return Result(
        case.kernel,
        case.shape,
        case.flops,
        case.nbytes,
        seconds,
        called,
        twinned,
        bound if case.nbytes >= FEW_BYTES else "",
        peak if bound == FMA else bandwidth,
        fraction,
        max(fraction for *_, fraction in rounds),
    )


def _rounds(case: Case, probes: Probes, effort: Effort) -> Iterator[tuple[float, ...]]:
    """Yield peak, bandwidth, seconds of the kernel, of a call and of the twin, and the fraction."""
    kernel, twin, level = case.call(), case.twin(), probes.level_of(case.footprint)
    timed = partial(in_c, kernel) if probes.threads == 1 else by_team(kernel, probes.threads)
    budget = effort.seconds / BURSTS
    repeats = repeats_for(lambda count: timed(count) * count, budget)
    calls = repeats_for(lambda count: from_python(kernel, count) * count, budget)
    twins = repeats_for(lambda count: from_python(twin, count) * count, budget)
    for _ in range(effort.rounds):
        bursts = [
            (probes.flops(), probes.bandwidth(level), 1 / timed(repeats)) for _ in range(BURSTS)
        ]
        peak, bandwidth, speed = map(max, zip(*bursts, strict=True))
        fraction = least_seconds(case.flops, case.nbytes, peak, bandwidth) * speed
        called, twinned = from_python(kernel, calls), from_python(twin, twins)
        yield peak, bandwidth, 1 / speed, called, twinned, fraction


def call_costs(dtype: Any, effort: Effort | None = None) -> dict[str, float]:
    """Measure the seconds that a call from Python costs beyond its kernel, for a few kernels.

    The arguments are so small that the kernel itself takes next to no time.
    """
    effort = effort or Effort()
    costs = {}
    for name, call in tiny_calls(dtype).items():
        costs[name] = median(
            max(0.0, from_python(call, 1000) - in_c(call, 1000)) for _ in range(effort.rounds)
        )
    return costs


def in_c(call: Callable[[], Any], repeats: int) -> float:
    """Measure the seconds of one run of the kernel behind a call, with ``repeats`` in a row."""
    from minidl._kernels import dispatch

    dispatch.set_repeats(repeats)
    try:
        return from_python(call, 1) / repeats
    finally:
        dispatch.set_repeats(1)


def by_team(call: Callable[[], Any], threads: int) -> Callable[[int], float]:
    """Make a function of the number of runs that measures the seconds of one by a team."""
    from minidl.profiling.teamwork import TeamCall

    team = TeamCall(call, threads)

    def seconds(repeats: int) -> float:
        start = perf_counter()
        made = team(repeats)
        return (perf_counter() - start) / made

    return seconds


def from_python(call: Callable[[], Any], count: int) -> float:
    """Measure the seconds of one call, with ``count`` in a row."""
    start = perf_counter()
    for _ in range(count):
        call()
    return (perf_counter() - start) / count


def geometric_mean(ratios: list[float]) -> float:
    """Return the geometric mean: that of 2 and 1/2 is 1."""
    return math.exp(float(np.mean(np.log(ratios))))
