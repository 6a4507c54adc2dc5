"""List a recorded program: every kernel with its layer, its sizes and its operands."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from minidl._kernels.executor.calls import TEMPORARY, VECTOR, Buffer, KernelCall, Operand
from minidl._kernels.signature import KERNELS, READ, UPDATED
from minidl.profiling.ceilings import FMA
from minidl.typing import Array

WIDTH = 118  # columns of a listing
UNBROKEN = "\xa0"  # a space at which no line is broken
LONGEST_NAME = 26  # characters of the name of a layer or an array


class RecordedProgram(Protocol):
    """What a report reads of a recorded program, and how a profile runs it."""

    calls: list[KernelCall]
    program: Any
    participants: Any
    interface: Any
    workspace: Any

    def run(self, inputs: tuple[Any, ...]) -> None: ...

    def time(self, inputs: tuple[Any, ...], stamps: Array) -> None: ...


# --- one row for every kernel -----------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A kernel of a recorded step.

    Parameters
    ----------
    kernel
        Its name, and those of the kernels that were merged into it.
    layer, phase
        The layer that it belongs to; ``forward``, ``backward`` or ``update``.
    extent
        Its size: (m, k, n) of a product, (rows, columns) or (elements,). Where two products that
        share B are merged, m counts the rows of both.
    threads, waits
        How many threads share it, and whether all wait for each other before it.
    flops, nbytes
        Flops and bytes, counted as ``cases.py`` says.
    footprint
        Bytes of memory that it touches: they decide which level of memory it needs.
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


@dataclass(frozen=True)
class Timed(Row):
    """A kernel of a step, timed.

    Parameters
    ----------
    seconds
        Seconds from the barrier before it to the one after it, less what noting the time takes;
        the median of the rounds.
    bound
        The ceiling that binds: ``FMA``, or a level of memory. Empty for a handful of numbers.
    fraction
        Fraction of what this ceiling allows with as many threads.
    """

    seconds: float
    bound: str
    fraction: float

    @property
    def rate(self) -> float:
        """Flops (bound by FMA) or bytes per second."""
        return (self.flops if self.bound == FMA else self.nbytes) / self.seconds


def rows_of(recorded: RecordedProgram) -> list[Row]:
    """List the kernels of a program, in order."""
    rows: list[Row] = []
    names = {type(optimizer).__name__ for optimizer in recorded.participants.optimizers}
    optimizer = names.pop() if len(names) == 1 else "optimizer"
    for call in recorded.calls:
        after_update = bool(rows) and rows[-1].phase == "update"
        layer, phase = layer_of(call.label), call.phase
        if not phase and (_updates(call) or (call.kernel.stops and after_update)):
            layer, phase = optimizer, "update"
        values = call.values
        moved = [_nbytes(call, operand, values) for operand in call.operands]
        if call.adds_partials:  # one thread alone leaves no partial sums
            moved = [0 for _ in moved]
        pairs = zip(moved, call.operands, strict=True)
        twice = sum(n for n, operand in pairs if operand.role == UPDATED)
        rows.append(
            Row(
                call.title,
                layer,
                phase,
                call.kernel.extent(values),
                call.threads,
                call.wait,
                _flops(call, values),
                sum(moved) + twice,
                sum(moved),
            )
        )
    return rows


def _updates(call: KernelCall) -> bool:
    """Whether a kernel works on the vectors or the state of an optimizer."""
    vectors = any(operand.buffer.kind == VECTOR for operand in call.operands)
    return vectors or call.kernel.updates_parameters


def _flops(call: KernelCall, values: dict[str, Any]) -> int:
    """Count the flops of a kernel, and of what a product applies to its output."""
    each = sum(KERNELS[name].flops for name in call.fused) + (call.operand("bias") is not None)
    return call.kernel.count_flops(values) + values.get("m", 0) * values.get("n", 0) * each


def _nbytes(call: KernelCall, operand: Operand, values: dict[str, Any]) -> int:
    """Count the bytes of an operand: its buffer, or the part of it that the kernel touches."""
    declared = next(o for o in call.kernel.operands if o.name == operand.name)
    size = call.kernel.touched(declared, values) * operand.buffer.dtype.itemsize
    return int(min(operand.buffer.nbytes, size))


def layer_of(label: str) -> str:
    """Extract path and class of a layer from its label: the part that fits into a table.

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
    """Format sizes: 64x784."""
    return "x".join(map(str, sizes))


def shortened(text: str) -> str:
    """Cut off the beginning of a path that is too long for a table: its end says the most.

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
    """Format a fraction with two digits."""
    return f"{fraction:.0%}" if fraction >= 0.0995 else f"{fraction:.1%}"


# --- the listing ------------------------------------------------------------------------


def listing(recorded: RecordedProgram) -> str:
    """Format a program as a table."""
    rows, operands = rows_of(recorded), _Operands()
    table = [["#", "", "kernel", "layer", "", "by"]]
    rights = ["operands"]
    for index, (row, call) in enumerate(zip(rows, recorded.calls, strict=True)):
        mark = "|" if row.waits else ""
        table.append(
            [str(index), mark, row.kernel, shortened(row.layer), row.phase, str(row.threads)]
        )
        rights.append(operands.of(call))
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


def _header(recorded: RecordedProgram) -> list[str]:
    inputs = [
        f"input {number} {x.dtype} ({times(x.shape)})" if isinstance(x, np.ndarray) else repr(x)
        for number, x in enumerate(recorded.interface.inputs)
    ]
    threads = recorded.program.threads
    team = "1 thread" if threads == 1 else f"up to {threads} threads"
    mode = f", {recorded.participants.mode}" if recorded.participants.mode else ""
    space = recorded.workspace
    own, least, scratch = space.memory.nbytes, space.least_nbytes, space.scratch.nbytes
    return [
        f"program for {', '.join(inputs)}{mode}: {len(recorded.calls)} kernels, {team}",
        f"    {kilobytes(own)} of temporaries (no plan needs less than {kilobytes(least)}), "
        f"{kilobytes(scratch)} of scratch memory",
    ]


def kilobytes(nbytes: int) -> str:
    """Format bytes as kB or MB."""
    return f"{nbytes / 1e3:,.1f} kB" if nbytes < 1e6 else f"{nbytes / 1e6:,.1f} MB"


class _Operands:
    """Names the operands of kernels, one after the other.

    Temporaries are called t0, t1 ... in the order in which they appear. Parameters are named
    without the path of the layer in the kernels of this layer. The first use of a name shows the
    shape.
    """

    def __init__(self) -> None:
        self._names: dict[int, str] = {}
        self._temporaries = 0

    def of(self, call: KernelCall) -> str:
        """Format the operands of a kernel: those it reads -> those it writes."""
        path = f"{layer_of(call.label).split(' ')[0]}."
        reads = [self._named(o.buffer, path) for o in call.operands if o.role == READ]
        writes = [
            self._named(o.buffer, path, "*" if o.role == UPDATED else "")
            for o in call.operands
            if o.writes
        ]
        return f"{', '.join(reads)} -> {', '.join(writes)}".lstrip()

    def _named(self, buffer: Buffer, path: str, mark: str = "") -> str:
        shape = ""
        if id(buffer) not in self._names:
            temporary = buffer.kind == TEMPORARY
            self._names[id(buffer)] = f"t{self._temporaries}" if temporary else buffer.name
            self._temporaries += temporary
            shape = f" ({times(buffer.shape)})" if buffer.shape else ""
        name = shortened(self._names[id(buffer)].removeprefix(path))
        return f"{name}{mark}{shape}".replace(" ", UNBROKEN)


def in_columns(table: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Format the rows of a table as lines; the columns in ``right`` are aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            f"{cell:>{width}}" if column in right else f"{cell:<{width}}"
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            if width
        )
        for row in table
    ]
