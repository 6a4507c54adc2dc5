"""Profile a recorded step: the time of every kernel, and its fraction of the ceiling."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from statistics import median_low
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl import _kernels
from minidl.profiling.ceilings import FMA, Probes, binding, least_seconds
from minidl.profiling.measuring import FEW_BYTES
from minidl.profiling.step_plot import draw
from minidl.profiling.step_report import (
    RecordedProgram,
    Row,
    Timed,
    in_columns,
    percent,
    rows_of,
    shortened,
    times,
)
from minidl.profiling.teamwork import stamp_seconds

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOOKS = 9  # measurements of each ceiling, of which the best counts
LEAST_SHOWN = 0.1  # microseconds: about what reading the clock takes
LONG_WAIT = 5e-6  # seconds: a barrier takes less where every thread has a core
HEADINGS = ["#", "kernel", "layer", "", "shape", "by", "us", "share", "rate", "", "ceiling", ""]
RIGHT = (0, 5, 6, 7, 8, 10)


@dataclass(frozen=True, repr=False)
class Profile:
    """The time of a recorded step, kernel by kernel.

    Parameters
    ----------
    rows
        Its kernels, in order.
    seconds
        Seconds of the whole step as it is replayed, without reading the clock in between.
    stamp_seconds
        Seconds that it takes to read the clock once, with a barrier before and after. They are
        subtracted from the seconds of the rows.
    threads
        Threads that ran it: those of the team, or one where that was faster.
    peak
        Flops per second of nothing but multiply-adds, by all threads.
    inputs, isa, rounds
        Shapes of the inputs, instruction set, and number of measurements.
    """

    rows: list[Timed]
    seconds: float
    stamp_seconds: float
    threads: int
    peak: float
    inputs: list[str]
    isa: str
    rounds: int

    @property
    def telling(self) -> bool:
        """Whether the kernels took longer than noting the time between them.

        If not, their times are differences of nearly equal numbers, and neither the text nor the
        picture gives shares and rates.
        """
        return sum(row.seconds for row in self.rows) > self.stamp_seconds * len(self.rows)

    @property
    def flops(self) -> int:
        """Flops of the step."""
        return sum(row.flops for row in self.rows)

    @property
    def fraction(self) -> float:
        """Fraction of the peak of all threads, over the whole step."""
        return self.flops / self.seconds / self.peak

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as plain lists, dicts and numbers."""
        derived = {"flops": self.flops, "fraction": self.fraction, "telling": self.telling}
        return asdict(self) | derived

    def plot(self, path: str | Path | None = None) -> Figure:
        """Draw the time of every kernel as a bar.

        Parameters
        ----------
        path
            File to save the picture to, in the format of its suffix (.png, .pdf, .svg); None for
            no file.

        Returns
        -------
        matplotlib.figure.Figure
            The figure, which a notebook displays.

        Raises
        ------
        ImportError
            Without matplotlib.
        """
        file = None if path is None else Path(path)
        lines = [self.total(), *([] if self.telling else self.sentences()[:2])]
        return draw(file, self.rows, self.title(), lines, self.telling)

    def title(self) -> str:
        """Name the step, instruction set and threads."""
        return f"step on {', '.join(self.inputs)}; {self.isa}, {_count(self.threads, 'thread')}"

    def total(self) -> str:
        """Give the figures of the whole step."""
        return (
            f"{_us(self.seconds)} us, {_flops(self.flops)}, "
            f"{self.flops / self.seconds / 1e9:.1f} GFLOP/s, "
            f"{percent(self.fraction)} of the FMA peak of {_count(self.threads, 'thread')}"
        )

    def sentences(self) -> list[str]:
        """Explain the figures to their reader."""
        noting = self.stamp_seconds * len(self.rows)
        kernels_seconds = sum(row.seconds for row in self.rows)
        above = "Above 100%: part of the data was found in a nearer level of memory."
        busy = "Other work keeps the threads waiting for each other: look again on an idle machine."
        found = [
            f"kernels, one by one:     {_us(kernels_seconds)} us, and {_us(noting)} us for noting "
            f"the time ({self.stamp_seconds * 1e6:.2f} us each)"
        ]
        if not self.telling:
            cure = "more rows" if self.threads == 1 else "more rows, or after set_num_threads(1)"
            found = [
                f"Noting the time between kernels took {_us(noting)} us, longer than the kernels:",
                f"their own times are too rough to be told apart. Profile with {cure}.",
            ]
        return [
            *found,
            f"whole step, as replayed: {self.total()}",
            *[above] * (self.telling and any(row.bound and row.fraction > 1 for row in self.rows)),
            *[busy] * (self.stamp_seconds > LONG_WAIT),
        ]

    def __str__(self) -> str:
        whole, columns = sum(row.seconds for row in self.rows), len(HEADINGS)
        if not self.telling:
            columns = HEADINGS.index("us")
        table = [
            [str(index), *_cells(row, whole, self.stamp_seconds)][:columns]
            for index, row in enumerate(self.rows)
        ]
        lines = in_columns([HEADINGS[:columns], *table], RIGHT)
        title = f"{self.title()}; median of {_count(self.rounds, 'round')}"
        return "\n".join([title, "", *(line.rstrip() for line in lines), "", *self.sentences()])

    __repr__ = __str__


def _cells(row: Timed, whole: float, stamp: float) -> Iterator[str]:
    yield from (row.kernel, shortened(row.layer), row.phase, row.shape, str(row.threads))
    yield _us(row.seconds)
    yield f"{row.seconds / whole:.1%}"
    if row.bound and row.seconds > stamp:  # a shorter time is too rough for a rate
        yield f"{row.rate / 1e9:.1f}"
        yield "GFLOP/s" if row.bound == FMA else "GB/s"
        yield percent(row.fraction)
        yield row.bound
    else:
        yield from ("", "", "", "")


def _us(seconds: float) -> str:
    time = seconds * 1e6
    return f"<{LEAST_SHOWN}" if time < LEAST_SHOWN else f"{time:,.{1 if time < 1000 else 0}f}"


def _flops(flops: int) -> str:
    return f"{flops / 1e9:.2f} GFLOP" if flops >= 1e9 else f"{flops / 1e6:.2f} MFLOP"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


# --- measuring --------------------------------------------------------------------------


def take_profile(recorded: RecordedProgram, inputs: tuple[Any, ...], rounds: int) -> Profile:
    """Time every kernel of a program, and the program, in alternating rounds."""
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
        raise ValueError(f"profile: rounds must be a whole number >= 1, got {rounds!r}")
    program = recorded.program
    stamps = np.empty((rounds, len(recorded.calls) + 1), np.int64)
    whole, whole_by, used = np.empty(rounds), np.empty(rounds, int), np.empty(rounds, int)
    inputs = tuple(map(recorded.interface.without_own, inputs))
    for index in range(rounds):
        start = perf_counter()
        recorded.run(inputs)
        whole[index], whole_by[index] = perf_counter() - start, program.used
        recorded.time(inputs, stamps[index])
        used[index] = program.used
    threads = int(median_low(used))  # because a program sometimes tries the slower number
    times = np.diff(stamps[used == threads], axis=1)
    whole = whole[whole_by == threads] if (whole_by == threads).any() else whole
    dtype = _dtype(recorded)
    stamp = stamp_seconds(threads)
    timed = [
        _timed(row, min(row.threads, threads), max(time * 1e-9 - stamp, 1e-9), dtype)
        for row, time in zip(rows_of(recorded), np.median(times, axis=0).tolist(), strict=True)
    ]
    return Profile(
        timed,
        float(np.median(whole)),
        stamp,
        threads,
        _peak(_kernels.isa, dtype, threads),
        [_described(x) for x in inputs],
        _kernels.isa,
        rounds,
    )


def _described(x: Any) -> str:
    return f"{x.dtype} ({times(x.shape)})" if isinstance(x, np.ndarray) else repr(x)


def _dtype(recorded: RecordedProgram) -> str:
    """Return the dtype that the step computes in."""
    buffers = (operand.buffer for call in recorded.calls for operand in call.operands)
    return next((str(b.dtype) for b in buffers if b.dtype.kind == "f"), "float32")


def _timed(row: Row, threads: int, seconds: float, dtype: str) -> Timed:
    """Compare the time of a kernel with the ceilings for as many threads."""
    isa = _kernels.isa
    level = _probes(dtype, threads).level_of(row.footprint)
    roof = _peak(isa, dtype, threads), _bandwidth(isa, dtype, threads, level)
    bound = binding(row.flops, row.nbytes, *roof, level) if row.nbytes >= FEW_BYTES else ""
    fraction = least_seconds(row.flops, row.nbytes, *roof) / seconds
    fields = {**vars(row), "threads": threads}
    return Timed(**fields, seconds=seconds, bound=bound, fraction=fraction)


# Ceilings are measured once: those of a machine do not change.
@cache
def _probes(dtype: str, threads: int) -> Probes:
    return Probes(dtype, threads=threads)


@cache
def _peak(isa: str, dtype: str, threads: int) -> float:
    probes = _probes(dtype, threads)
    return max(probes.flops() for _ in range(LOOKS))


@cache
def _bandwidth(isa: str, dtype: str, threads: int, level: str) -> float:
    probes = _probes(dtype, threads)
    return max(probes.bandwidth(level) for _ in range(LOOKS))
