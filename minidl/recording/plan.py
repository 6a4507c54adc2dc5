"""Plan a program: where each temporary lies, and how many threads share each kernel."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from minidl._kernels.executor.calls import TEMPORARY, Buffer, KernelCall
from minidl._kernels.memory import LINE
from minidl.typing import Array

# A rough model of time, for decisions about threads: flops or bytes of one thread per nanosecond.
FLOPS = 40.0
BYTES = 16.0
# Nanoseconds: the least work for which another thread pays, and the cost of a barrier.
LEAST_WORK = 2500.0
BARRIER = 700.0
# How many times longer than moving its bytes a heavy elementwise kernel takes.
HEAVY = 4


# --- memory ---------------------------------------------------------------------------------


def place(calls: list[KernelCall], returned: Iterable[Buffer]) -> int:
    """Give every temporary a place in the program's memory; returns the bytes needed.

    Two temporaries share memory if the last use of one comes before the first use of the other, or
    if a kernel may write one over the other. The largest are placed first, each at the lowest
    place that is free while it lives.
    """
    lives = sorted(_lives(calls, returned), key=lambda life: -life.nbytes)
    # For temporaries that are placed: first and last call that uses them, and their bytes.
    first, last, begin, end = np.zeros((4, len(lives)), np.int64)
    for i, life in enumerate(lives):
        rivals = (first[:i] <= life.last) & (life.first <= last[:i])
        found = _lowest_gap(life.nbytes, begin[:i][rivals], end[:i][rivals])
        first[i], last[i], begin[i], end[i] = life.first, life.last, found, found + life.nbytes
        for buffer in life.buffers:
            buffer.place = found
    return int(end.max(initial=0))


def least_memory(calls: list[KernelCall], returned: Iterable[Buffer]) -> int:
    """Return the most bytes of temporaries alive at the same time: no plan needs less."""
    change = np.zeros(len(calls) + 2, np.int64)
    for life in _lives(calls, returned):
        change[life.first] += life.nbytes
        change[life.last + 1] -= life.nbytes
    return int(change.cumsum().max(initial=0))


@dataclass
class _Life:
    """A temporary, or several written one over the other; the first and last call that use them."""

    buffers: list[Buffer]
    first: int
    last: int

    @property
    def nbytes(self) -> int:
        return max(1, -(-self.buffers[0].nbytes // LINE)) * LINE


def _lives(calls: list[KernelCall], returned: Iterable[Buffer]) -> list[_Life]:
    lives: dict[int, _Life] = {}
    for index, call in enumerate(calls):
        for operand in call.operands:
            buffer = operand.buffer
            if buffer.kind == TEMPORARY:
                lives.setdefault(id(buffer), _Life([buffer], index, index)).last = index
    for buffer in returned:
        if id(buffer) in lives:
            lives[id(buffer)].last = len(calls)
    for index, call in enumerate(calls):
        for declared in call.kernel.operands:
            over, written = call.operand(declared.over), call.operand(declared.name)
            if over is not None and written is not None:
                _join(lives, index, over.buffer, written.buffer, call)
    return list({id(life): life for life in lives.values()}.values())


def _join(
    lives: dict[int, _Life], index: int, over: Buffer, written: Buffer, call: KernelCall
) -> None:
    """Let a call write one temporary over another, if this is the last use of the other."""
    old, new = lives.get(id(over)), lives.get(id(written))
    once = sum(operand.buffer is over for operand in call.operands) == 1
    if old and new and once and old.last == index == new.first and over.nbytes == written.nbytes:
        old.buffers += new.buffers
        old.last = new.last
        lives[id(written)] = old


def _lowest_gap(size: int, begin: Array, end: Array) -> int:
    """Find the lowest place for ``size`` bytes outside all spans begin … end."""
    order = begin.argsort()
    free = np.maximum.accumulate(np.concatenate(([0], end[order])))  # from here to the next span
    fits = free[:-1] + size <= begin[order]
    return int(free[fits.argmax()] if fits.any() else free[-1])


# --- threads --------------------------------------------------------------------------------


def assign_threads(calls: list[KernelCall], memory: int, most: int) -> None:
    """Decide how many threads, up to ``most``, share each kernel, and where all must wait."""
    threads = 1
    for call in calls:
        if not call.adds_partials:
            threads = max(1, min(most, most_threads(call), int(work(call) / LEAST_WORK)))
        call.threads, call.wait = threads, False
    _set_waits(calls, memory)
    gain = sum(work(call) * (1 - 1 / call.threads) for call in calls)
    if gain < 2 * BARRIER * (sum(call.wait for call in calls) + 1):
        for call in calls:
            call.threads, call.wait = 1, False


def most_threads(call: KernelCall) -> int:
    """Return how many threads can share a call at all: a sequence is not divided."""
    along = call.kernel.threads
    return 1 if along == "one" else call.values.get(along, 1 << 30)


def flops_of_products(call: KernelCall) -> float:
    """Count the flops of the matrix products in a call: 0 for a kernel without any."""
    return call.kernel.products(call.values) if call.kernel.products else 0.0


def work(call: KernelCall) -> float:
    """Estimate the nanoseconds that one thread takes for a call."""
    if call.kernel.threads == "one":
        return 0.0  # more threads save nothing
    nbytes = sum(operand.buffer.nbytes for operand in call.operands)
    return flops_of_products(call) / FLOPS + (HEAVY if call.kernel.is_heavy else 1) * nbytes / BYTES


def _set_waits(calls: list[KernelCall], memory: int) -> None:
    """Set a barrier before a call that touches what other threads have written since the last
    barrier, or that writes what they have read.
    """
    if all(call.threads == 1 for call in calls):
        return
    since: list[tuple[float, float, bool, bool]] = []  # begin, end, written, by several threads
    # Whether a kernel since then may have stopped the step, and whether several threads ran it.
    stopping = by_several = False
    for call in calls:
        several = call.threads > 1
        touched = []
        for operand in call.operands:
            buffer = operand.buffer
            begin = memory + buffer.place if buffer.kind == TEMPORARY else buffer.begin
            touched.append((begin, begin + buffer.nbytes, operand.writes, several))
        call.wait = any(
            begin < other_end and other_begin < end and (writes or wrote) and (several or shared)
            for begin, end, writes, _ in touched
            for other_begin, other_end, wrote, shared in since
        ) or (
            stopping
            and (several or by_several)
            and any(o.writes and o.buffer.kind != TEMPORARY for o in call.operands)
        )
        if call.wait:
            since, stopping, by_several = [], False, False
        since += touched
        if call.kernel.is_checking or call.kernel.stops:
            stopping, by_several = True, by_several or several
