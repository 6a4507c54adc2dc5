"""What was recorded, in words: every kernel with its layer, its sizes and its operands."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl._kernels import arguments
from minidl.profiling.counting import flops_of
from minidl.recording.calls import REDUCTION, TEMPORARY, Buffer, KernelCall
from minidl.recording.fuse import BIAS, LEFT, RIGHT, SECOND_LEFT, SECOND_OUTPUT

WIDTH = 118  # columns of a listing
UNBROKEN = "\xa0"  # a space at which no line ends
LONGEST_NAME = 26  # of a layer, and of an array
# Without a layer of their own: kernels of an optimizer. A `total` after one of them is, too.
UPDATES = {"clear", "squared_norm", "clip", "sgd", "adam", "nadam", "rmsprop", "adagrad", "follow"}


@dataclass(frozen=True)
class Row:
    """A kernel of a recorded step.

    Parameters
    ----------
    kernel
        Its name, and those of the kernels that were merged into it.
    layer, phase
        Whose it is; ``forward``, ``backward`` or ``update``.
    extent
        What it works on: (m, k, n) of a product (m counts the rows of both, where two that share
        B are merged), (rows, columns) or (elements,).
    threads, waits
        How many threads share it, and whether all wait for each other before it.
    flops, nbytes
        Counted as ``minidl.profiling`` counts them.
    footprint
        Bytes it touches: they fit into a level of memory or not.
    """

    kernel: str
    layer: str
    phase: str
    extent: tuple[int, ...]
    threads: int
    waits: bool
    flops: int
    nbytes: int
    footprint: int

    @property
    def shape(self) -> str:
        """The extent in words."""
        return times(self.extent) if len(self.extent) > 1 else f"{self.extent[0]:,}"


def rows_of(recorded: Any) -> list[Row]:
    """All kernels of a program, in order."""
    rows: list[Row] = []
    names = {type(optimizer).__name__ for optimizer in recorded.optimizers}
    optimizer = names.pop() if len(names) == 1 else "optimizer"
    for entry in recorded.entries:
        after_update = bool(rows) and rows[-1].phase == "update"
        layer, phase = layer_of(entry.label), entry.phase
        if not phase and (entry.kernel in UPDATES or (entry.kernel == "total" and after_update)):
            layer, phase = optimizer, "update"
        extent = arguments.extent(entry.kernel, entry.args)
        fused = [*entry.fused, *["add"] * (entry.kernel == "matmul" and _has(entry, BIAS))]
        training = any(operand.role == "u" for operand in entry.operands)
        moved = [_nbytes(entry, index, extent) for index in range(len(entry.operands))]
        if entry.kernel == REDUCTION:  # nothing, if one thread has done it all
            moved = [0 for _ in moved]
        twice = [n for n, operand in zip(moved, entry.operands, strict=True) if operand.role == "u"]
        rows.append(
            Row(
                entry.title,
                layer,
                phase,
                extent,
                entry.threads,
                entry.wait,
                flops_of(entry.kernel, extent, training, fused),
                sum(moved) + sum(twice),
                sum(moved),
            )
        )
    return rows


def _has(entry: KernelCall, slot: int) -> bool:
    return entry.operand(slot) is not None


def _nbytes(entry: KernelCall, index: int, extent: tuple[int, ...]) -> int:
    """Bytes of an operand: of its region, or of the part of it that the kernel looks at."""
    operand = entry.operands[index]
    size = int(np.prod(extent))
    if entry.kernel == "matmul":
        m, k, n = extent
        below = arguments.second_rows(entry.args)
        first = {LEFT: (m - below) * k, RIGHT: k * n, BIAS: n}
        second = {SECOND_LEFT: below * k, SECOND_OUTPUT: below * n}
        size = (first | second).get(operand.slot, (m - below) * n)
    return min(operand.region.nbytes, size * operand.region.dtype.itemsize)


def layer_of(label: str) -> str:
    """The place of a layer and its class: all of its label that fits into a table.

    Examples
    --------
    >>> layer_of("layer encoder.0 Linear(784, 256)")
    'encoder.0 Linear'
    >>> layer_of("CrossEntropyLoss()")
    'CrossEntropyLoss'
    """
    found = re.match(r"(?:layer (\S+) )?([A-Z]\w*)", label)
    if found is None:
        return ""
    return " ".join(part for part in found.groups() if part)


def times(sizes: Sequence[int]) -> str:
    """64x784."""
    return "x".join(map(str, sizes))


def shortened(text: str) -> str:
    """Its end, if it is too long for a table: the last parts of a path tell the most.

    Examples
    --------
    >>> shortened("encoder.blocks.11.attention.key Linear")
    '...11.attention.key Linear'
    """
    if len(text) <= LONGEST_NAME:
        return text
    end = text[2 - LONGEST_NAME :]
    return f"..{end[max(end.find('.'), 0) :]}"


def percent(fraction: float) -> str:
    """Two digits of a fraction."""
    return f"{fraction:.0%}" if fraction >= 0.0995 else f"{fraction:.1%}"


# --- the listing ------------------------------------------------------------------------


def listing(recorded: Any) -> str:
    """The program as a table."""
    rows, operands = rows_of(recorded), _Operands()
    table = [["#", "", "kernel", "layer", "", "by"]]
    rights = ["operands"]
    for index, (row, entry) in enumerate(zip(rows, recorded.entries, strict=True)):
        mark = "|" if row.waits else ""
        table.append(
            [str(index), mark, row.kernel, shortened(row.layer), row.phase, str(row.threads)]
        )
        rights.append(operands.of(entry))
    lines = []
    for left, right in zip(in_columns(table, right=(0, 5)), rights, strict=True):
        room = max(WIDTH - len(left) - 2, LONGEST_NAME)
        first, *more = textwrap.wrap(right, room, break_long_words=False) or [""]
        lines += [f"{left}  {first}".rstrip(), *(" " * (len(left) + 4) + line for line in more)]
    notes = [
        "by: so many threads",
        *["|: all of them wait for each other first"] * any(row.waits for row in rows),
        *["*: changed in place"] * ("*" in "".join(rights)),
    ]
    text = "\n".join([*_header(recorded), "", *lines, f"    {'; '.join(notes)}"])
    return text.replace(UNBROKEN, " ")


def _header(recorded: Any) -> list[str]:
    inputs = [
        f"input {number} {x.dtype} ({times(x.shape)})" if isinstance(x, np.ndarray) else repr(x)
        for number, x in enumerate(recorded.inputs)
    ]
    threads = recorded.program.threads
    team = "1 thread" if threads == 1 else f"up to {threads} threads"
    mode = f", {recorded.mode}" if recorded.mode else ""
    own, least, scratch = recorded.nbytes, recorded.least_nbytes, recorded.scratch.nbytes
    return [
        f"program for {', '.join(inputs)}{mode}: {len(recorded.entries)} kernels, {team}",
        f"    {kilobytes(own)} of temporaries (no plan needs less than {kilobytes(least)}), "
        f"{kilobytes(scratch)} of scratch memory",
    ]


def kilobytes(nbytes: int) -> str:
    """Bytes in words."""
    return f"{nbytes / 1e3:,.1f} kB" if nbytes < 1e6 else f"{nbytes / 1e6:,.1f} MB"


class _Operands:
    """Names the operands of kernels, one after the other.

    Temporaries are called t0, t1 ... in the order they appear; parameters lose the path of a layer
    whose kernel it is; the shape is told where a name first appears.
    """

    def __init__(self) -> None:
        self._names: dict[int, str] = {}
        self._temporaries = 0

    def of(self, entry: KernelCall) -> str:
        """What a kernel reads -> what it writes."""
        path = f"{layer_of(entry.label).split(' ')[0]}."
        reads = [self._named(o.region, path) for o in entry.operands if o.role == "r"]
        writes = [
            self._named(o.region, path, "*" if o.role == "u" else "")
            for o in entry.operands
            if o.writes
        ]
        return f"{', '.join(reads)} -> {', '.join(writes)}".lstrip()

    def _named(self, region: Buffer, path: str, mark: str = "") -> str:
        shape = ""
        if id(region) not in self._names:
            temporary = region.kind == TEMPORARY
            self._names[id(region)] = f"t{self._temporaries}" if temporary else region.name
            self._temporaries += temporary
            shape = f" ({times(region.shape)})" if region.shape else ""
        name = shortened(self._names[id(region)].removeprefix(path))
        return f"{name}{mark}{shape}".replace(" ", UNBROKEN)


def in_columns(table: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """The rows of a table as lines; the columns in ``right`` are aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            f"{cell:>{width}}" if column in right else f"{cell:<{width}}"
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            if width
        )
        for row in table
    ]
