"""From recorded calls to a program: where its memory lies, and who computes what, when."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from minidl._kernels.memory import LINE
from minidl.recording.calls import TEMPORARY, Buffer, KernelCall
from minidl.typing import Array

# A rough clock for decisions about threads: what one thread does in a nanosecond.
FLOPS = 40.0
BYTES = 16.0
# Nanoseconds: the least work that makes another thread worth its while, and what it costs
# when all wait for each other.
LEAST_WORK = 2500.0
BARRIER = 700.0
# How much longer than moving its bytes a heavy elementwise kernel takes.
HEAVY = 4


# --- memory ---------------------------------------------------------------------------------


def place(entries: list[KernelCall], returned: Iterable[Buffer]) -> int:
    """Give every temporary a place in the program's memory; returns the bytes needed.

    Two temporaries share memory if one is last used before the other is first, or where a kernel
    may write one over the other. The largest are placed first, each at the lowest place that is
    free while it lives.
    """
    lives = sorted(_lives(entries, returned), key=lambda life: -life.nbytes)
    # Of what is placed already: the entries that use it, and the bytes it occupies.
    first, last, begin, end = np.zeros((4, len(lives)), np.int64)
    for i, life in enumerate(lives):
        rivals = (first[:i] <= life.last) & (life.first <= last[:i])
        found = _lowest_gap(life.nbytes, begin[:i][rivals], end[:i][rivals])
        first[i], last[i], begin[i], end[i] = life.first, life.last, found, found + life.nbytes
        for region in life.regions:
            region.place = found
    return int(end.max(initial=0))


def least_memory(entries: list[KernelCall], returned: Iterable[Buffer]) -> int:
    """Bytes of the temporaries that are alive at the same time, at most: no plan needs less."""
    change = np.zeros(len(entries) + 2, np.int64)
    for life in _lives(entries, returned):
        change[life.first] += life.nbytes
        change[life.last + 1] -= life.nbytes
    return int(change.cumsum().max(initial=0))


@dataclass
class _Life:
    """A temporary, or several, each written over the one before, and the entries of their time."""

    regions: list[Buffer]
    first: int
    last: int

    @property
    def nbytes(self) -> int:
        return max(1, -(-self.regions[0].nbytes // LINE)) * LINE


def _lives(entries: list[KernelCall], returned: Iterable[Buffer]) -> list[_Life]:
    lives: dict[int, _Life] = {}
    for index, entry in enumerate(entries):
        for operand in entry.operands:
            region = operand.region
            if region.kind == TEMPORARY:
                lives.setdefault(id(region), _Life([region], index, index)).last = index
    for region in returned:
        if id(region) in lives:
            lives[id(region)].last = len(entries)
    for index, entry in enumerate(entries):
        for declared in entry.kernel.operands:
            over, written = entry.operand(declared.over), entry.operand(declared.name)
            if over is not None and written is not None:
                _join(lives, index, over.region, written.region, entry)
    return list({id(life): life for life in lives.values()}.values())


def _join(
    lives: dict[int, _Life], index: int, over: Buffer, written: Buffer, entry: KernelCall
) -> None:
    """Let an entry write one temporary over another, if nobody else needs that any more."""
    old, new = lives.get(id(over)), lives.get(id(written))
    once = sum(operand.region is over for operand in entry.operands) == 1
    if old and new and once and old.last == index == new.first and over.nbytes == written.nbytes:
        old.regions += new.regions
        old.last = new.last
        lives[id(written)] = old


def _lowest_gap(size: int, begin: Array, end: Array) -> int:
    """The lowest place for so many bytes outside all stretches begin … end."""
    order = begin.argsort()
    free = np.maximum.accumulate(np.concatenate(([0], end[order])))  # from here to the next stretch
    fits = free[:-1] + size <= begin[order]
    return int(free[fits.argmax()] if fits.any() else free[-1])


# --- threads --------------------------------------------------------------------------------


def share(entries: list[KernelCall], memory: int, most: int) -> None:
    """Decide how many threads, up to ``most``, share each kernel, and where all must wait."""
    threads = 1
    for entry in entries:
        if not entry.adds_partials:
            threads = max(1, min(most, parts(entry), int(work(entry) / LEAST_WORK)))
        entry.threads, entry.wait = threads, False
    _set_waits(entries, memory)
    gain = sum(work(entry) * (1 - 1 / entry.threads) for entry in entries)
    if gain < 2 * BARRIER * (sum(entry.wait for entry in entries) + 1):
        for entry in entries:
            entry.threads, entry.wait = 1, False


def parts(entry: KernelCall) -> int:
    """How many threads can share an entry at all: a sequence is not divided."""
    along = entry.kernel.threads
    return 1 if along == "one" else entry.values.get(along, 1 << 30)


def traffic(entry: KernelCall) -> int:
    """Bytes of the arrays that an entry reads and writes."""
    return sum(operand.region.nbytes for operand in entry.operands)


def flops_of_products(entry: KernelCall) -> float:
    """Count the flops of matrix products in an entry; all others are counted by their bytes."""
    return entry.kernel.products(entry.values) if entry.kernel.products else 0.0


def work(entry: KernelCall) -> float:
    """Nanoseconds on one thread, roughly."""
    kernel = entry.kernel
    if kernel.threads == "one":
        return 0.0  # done by one thread, whatever its size, or not at all by one
    return (
        flops_of_products(entry) / FLOPS
        + (HEAVY if kernel.is_heavy else 1) * traffic(entry) / BYTES
    )


def _set_waits(entries: list[KernelCall], memory: int) -> None:
    """A barrier where an entry touches what other threads' shares have written since the last
    one, or writes what they have read.
    """
    if all(entry.threads == 1 for entry in entries):
        return
    since: list[tuple[float, float, bool, bool]] = []  # begin, end, written, by several threads
    # Whether the step may have been stopped since, and by the share of another thread.
    stopping = apart = False
    for entry in entries:
        several = entry.threads > 1
        touched = []
        for operand in entry.operands:
            region = operand.region
            begin = memory + region.place if region.kind == TEMPORARY else region.begin
            touched.append((begin, begin + region.nbytes, operand.writes, several))
        entry.wait = any(
            begin < other_end and other_begin < end and (writes or wrote) and (several or shared)
            for begin, end, writes, _ in touched
            for other_begin, other_end, wrote, shared in since
        ) or (
            stopping
            and (several or apart)
            and any(o.writes and o.region.kind != TEMPORARY for o in entry.operands)
        )
        if entry.wait:
            since, stopping, apart = [], False, False
        since += touched
        if entry.kernel.is_checking or entry.kernel.stops:
            stopping, apart = True, apart or several
