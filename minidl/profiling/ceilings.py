"""Measure what this machine can do at most: multiply-adds, and reads from each level of memory.

A kernel that does F flops and moves B bytes takes at least ::

    max(F / peak, B / bandwidth)   seconds

with the bandwidth of the level that its arrays fit in. The larger of the two binds. This is the
roofline of Williams, Waterman and Patterson (2009), written for time instead of speed, so that it
holds for a kernel without flops, too.

The bandwidths are those of reading. A core that can store while it loads may exceed them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from minidl._kernels.memory import LINE, aligned
from minidl.typing import Array

FMA = "FMA"  # the name of the ceiling that is not a level of memory
MEMORY = "memory"
PROBE_SECONDS = 4e-4  # duration of one measurement of a ceiling, of which many are made
READ_UNIT = 512  # bytes: read_peak reads multiples of it

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
USUAL_CACHES = {1: 32 << 10, 2: 1 << 20, 3: 16 << 20}  # where the system does not say
UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
SHARED_LEVEL = 3  # the first level that all cores share, as a rule
SMALLEST_MEMORY, LARGEST_MEMORY = 64 << 20, 512 << 20  # bytes of the array read from memory


@dataclass(frozen=True)
class Level:
    """A level of memory: its name, the bytes it holds, and the bytes read to measure it."""

    name: str
    size: float
    probe: int


@dataclass(frozen=True)
class Ceilings:
    """Flops per second, and bytes per second of each level of memory, the fastest first."""

    flops: float
    bandwidths: dict[str, float]


def least_seconds(flops: float, nbytes: float, peak: float, bandwidth: float) -> float:
    """Return the seconds that a kernel takes at least, by the roofline.

    Examples
    --------
    A loop of 100 flops over 10 bytes, where a second sees 50 flops and 20 bytes:

    >>> least_seconds(100, 10, peak=50, bandwidth=20)
    2.0
    """
    return max(flops / peak, nbytes / bandwidth)


def binding(flops: float, nbytes: float, peak: float, bandwidth: float, level: str) -> str:
    """Return the name of the ceiling that binds: ``FMA``, or the level of memory.

    Examples
    --------
    >>> binding(100, 10, peak=50, bandwidth=20, level="L2")
    'FMA'
    """
    return FMA if flops / peak >= nbytes / bandwidth else level


def cache_sizes(folder: Path = CACHES) -> dict[int, int]:
    """Return the bytes of the data cache of each level, from Linux, or usual ones elsewhere."""
    sizes = {}
    for cache in sorted(folder.glob("index*")):
        try:
            kind, level, size = (
                (cache / name).read_text(encoding="ascii").strip()
                for name in ("type", "level", "size")
            )
            if kind in ("Data", "Unified"):
                unit = UNITS.get(size[-1], 1)
                sizes[int(level)] = int(size.rstrip("KMG")) * unit
        except (OSError, ValueError, IndexError):
            continue  # virtual machines leave files out, or leave them empty
    sizes = {level: size for level, size in sorted(sizes.items()) if size > 2 * READ_UNIT}
    return sizes or USUAL_CACHES


def levels(caches: dict[int, int]) -> list[Level]:
    """List the levels of memory, nearest first, each with an array that fits it but none before.

    One process can count on half a cache. A third level is shared with other processes, so at most
    four times the size of the second is read from it.
    """
    found: list[Level] = []
    for level, size in caches.items():
        probe = size // 2
        if found:
            probe = min(probe, int(4 * found[-1].size))
        found.append(Level(f"L{level}", size, probe // READ_UNIT * READ_UNIT))
    last = int(found[-1].size)
    memory = min(max(2 * last, SMALLEST_MEMORY), LARGEST_MEMORY)
    return [*found, Level(MEMORY, float("inf"), memory)]


def repeats_for(seconds: Callable[[int], float], budget: float) -> int:
    """Find how many repetitions take about ``budget`` seconds; ``seconds(n)`` times n of them.

    The shorter of two measurements counts: an interrupted one would give too few repetitions.
    """

    def shorter() -> float:
        return max(min(seconds(repeats), seconds(repeats)), 1e-9)

    repeats = 1
    while (taken := shorter()) < budget / 4 and repeats < 1 << 30:
        repeats *= 4
    return max(1, round(repeats * budget / taken))


class Probes:
    """Measures the ceilings of one dtype, in the instruction set that is selected at that time.

    Parameters
    ----------
    dtype
        float32 or float64.
    caches
        Bytes of the cache of each level; those of this machine by default.
    threads
        How many work at once: each does its own multiply-adds, and reads its own part of memory.
    """

    def __init__(self, dtype: Any, caches: dict[int, int] | None = None, threads: int = 1) -> None:
        caches = cache_sizes() if caches is None else caches
        own = {level: size * threads for level, size in caches.items() if level < SHARED_LEVEL}
        self.levels = levels({**caches, **own})
        self.threads = threads
        self._dtype = np.dtype(dtype)
        self._register = aligned((max(READ_UNIT, threads * LINE),), dtype)
        self._arrays: dict[str, Array] = {}
        self._work: dict[tuple[str, str], Callable[[], int]] = {}

    def level_of(self, nbytes: int) -> str:
        """Return the nearest level that holds so many bytes."""
        return next(level.name for level in self.levels if nbytes <= level.size)

    def flops(self) -> float:
        """Measure the flops per second of nothing but multiply-adds."""
        from minidl._kernels import dispatch

        self._register.fill(1)
        each = self._rate(FMA, lambda repeats: dispatch.fma_peak(self._register, repeats))
        return self.threads * each

    def bandwidth(self, name: str) -> float:
        """Measure the bytes per second of nothing but reads from a level."""
        from minidl._kernels import dispatch

        array = self._array(name)
        if name != MEMORY:
            dispatch.read_peak(array, 1)  # bring back what other arrays have driven out
        return self._rate(name, lambda repeats: dispatch.read_peak(array, repeats))

    def best(self, rounds: int) -> Ceilings:
        """Return the best of several measurements of each ceiling."""
        return Ceilings(
            max(self.flops() for _ in range(rounds)),
            {
                level.name: max(self.bandwidth(level.name) for _ in range(rounds))
                for level in self.levels
            },
        )

    def _array(self, name: str) -> Array:
        # Made when first needed: hundreds of megabytes, which few kernels need.
        if name not in self._arrays:
            probe = next(level.probe for level in self.levels if level.name == name)
            self._arrays[name] = aligned((probe // self._dtype.itemsize,), self._dtype)
        return self._arrays[name]

    def _rate(self, name: str, work: Callable[[int], int]) -> float:
        """Measure the work per second, repeated for about PROBE_SECONDS."""
        from minidl import _kernels

        key = _kernels.isa, name
        if key not in self._work:
            self._work[key] = self._repeated(work)
        start = perf_counter()
        done = self._work[key]()
        return done / (perf_counter() - start)

    def _repeated(self, work: Callable[[int], int]) -> Callable[[], int]:
        def seconds(repeats: int) -> float:
            start = perf_counter()
            work(repeats)
            return perf_counter() - start

        repeats = repeats_for(seconds, PROBE_SECONDS)
        if self.threads == 1:
            return partial(work, repeats)
        done = work(repeats)
        from minidl.profiling.teamwork import TeamCall  # needs compiled kernels

        team = TeamCall(partial(work, repeats), self.threads)
        return lambda: done * team(1)
