"""The NumPy twins of what a watched step notes of its arrays: sums in float64, added up.

Sums over an array are computed block by block, so that several threads share an array without
changing a bit; ``collect`` adds the blocks to what was noted before. ``store_record`` makes them
the next row of a journal, and ``count_record`` counts the row.

A clock holds five whole numbers: the steps made, the number of the next step to be watched, after
how many steps the one after it is due, the records in the journals, and for how many there is room.
"""

from __future__ import annotations

import numpy as np

from minidl._kernels.signature import kernel
from minidl._kernels.twins.optimizers import LATEST
from minidl.typing import Array

__all__ = [
    "collect",
    "count_inactive",
    "count_record",
    "moment_parts",
    "norm_parts",
    "note_active",
    "note_lengths",
    "note_rows",
    "note_state",
    "store_record",
]

NOTED_BLOCK = 4096  # elements of a block
STEPS, NEXT, EVERY, RECORDS, ROOM = range(5)  # what stands where in a clock


@kernel("x[n] columns:int groups:int -> +parts:double[*]", composite=True, flops=6)
def moment_parts(x: Array, groups: int = 1, sums: Array | None = None) -> Array | None:
    """Of every block of 4096 elements: how many they are, Σ x, Σ x², and how many are zero.

    Of several groups, into which columns are divided evenly, these numbers of each; a block then
    holds as many rows as fit. If there is a single block and ``sums`` are given, its numbers are
    added to these instead.
    """
    columns = x.shape[-1] if groups > 1 else 1
    rows = x.reshape(-1, columns).astype(np.float64)
    size = max(1, NOTED_BLOCK // columns)
    blocks = [rows[begin : begin + size] for begin in range(0, len(rows), size)]
    parts = [part for block in blocks for part in np.split(block, groups, axis=1)]
    numbers = [(p.size, p.sum(), np.square(p).sum(), p.size - np.count_nonzero(p)) for p in parts]
    return _added(np.array(numbers).reshape(len(blocks), 4 * groups), sums)


@kernel("x[n] before[n]? -> +parts:double[*]", composite=True, flops=5)
def norm_parts(x: Array, before: Array | None = None, sums: Array | None = None) -> Array | None:
    """Of every block of 4096 elements: Σ x², and Σ (x - before)², or 0 without ``before``.

    If there is a single block and ``sums`` are given, they are added to these instead.
    """
    squares = [np.square(block).sum() for block in _blocks(x)]
    changes = [0.0] * len(squares)
    if before is not None:
        changes = [np.square(block).sum() for block in _blocks(x - before)]
    return _added(np.array(list(zip(squares, changes, strict=True))).reshape(-1, 2), sums)


def _blocks(x: Array) -> list[Array]:
    flat = x.reshape(-1).astype(np.float64)
    return [flat[begin : begin + NOTED_BLOCK] for begin in range(0, flat.size, NOTED_BLOCK)]


def _added(parts: Array, sums: Array | None) -> Array | None:
    """The parts of all blocks; or None, if they were those of a single one and are in the sums."""
    if sums is None or len(parts) > 1:
        return parts
    sums += parts.sum(axis=0)
    return None


@kernel("parts:double[blocks,k] ~sums:double[k]", flops=1, threads="one")
def collect(parts: Array, sums: Array) -> None:
    """sums ← sums + Σ parts over all blocks."""
    sums += parts.reshape(-1, parts.shape[-1]).sum(axis=0)


@kernel("parts:double[rows,columns] ~sums:double[rows]", flops=1, threads="one")
def note_rows(parts: Array, sums: Array) -> None:
    """sums ← sums + Σ of every row of parts."""
    sums += parts.sum(axis=-1)


@kernel("lengths:index[rows] ~sums:double[2]", flops=1, threads="one")
def note_lengths(lengths: Array, sums: Array) -> None:
    """sums ← sums + how many lengths there are, and their sum."""
    sums += lengths.size, lengths.sum()


@kernel("x[rows,columns] ~active[columns]", flops=2, threads="columns")
def note_active(x: Array, active: Array) -> None:
    """active ← 1 at every column that is not zero in all rows."""
    active[np.any(x.reshape(-1, x.shape[-1]) != 0, axis=0)] = 1


@kernel("active[n] before[n] ~sums:double[2]", flops=2, threads="one")
def count_inactive(active: Array, before: Array, sums: Array) -> None:
    """sums ← how many are zero in both, and how many there are."""
    sums[...] = np.count_nonzero((active == 0) & (before == 0)), active.size


@kernel("state:OptimizerState[] clock:uint64[5] ~sums:double[4]", threads="one")
def note_state(state: Array, clock: Array, sums: Array) -> None:
    """sums ← the number of the step just made, its norm before clipping, clip factor and rate."""
    sums[...] = float(clock[STEPS]) + 1, *(state[name] for name in LATEST)


@kernel("~sums:double[n] ~journal:double[records,n] clock:uint64[5]", threads="one")
def store_record(sums: Array, journal: Array, clock: Array) -> None:
    """Write the sums into the journal's next row, if there is room, and clear them."""
    if clock[RECORDS] < len(journal):
        journal[int(clock[RECORDS])] = sums
    sums[...] = 0


@kernel("~clock:uint64[5]", threads="one")
def count_record(clock: Array) -> None:
    """Count a step, and a record in the journals; the next is due after ``clock[EVERY]`` steps."""
    clock[STEPS] += np.uint64(1)
    clock[RECORDS] += np.uint64(clock[RECORDS] < clock[ROOM])
    clock[NEXT] = clock[STEPS] + clock[EVERY]
