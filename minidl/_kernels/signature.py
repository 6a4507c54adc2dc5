"""Declare a kernel by one line that says what it reads, writes, checks and costs.

A kernel is declared on its NumPy twin: ::

    @kernel("x[rows,columns] gamma[columns] beta[columns] eps -> y[rows,columns]", flops=8)
    def some_norm(x, gamma, beta, eps): ...

All other code reads this declaration: the compiled call (``call.pyx``) checks arguments, allocates
results and fills the argument struct; the recorder finds operands by name; the planner and the
benchmarks count flops and bytes; the tests draw arguments.

**The grammar** is that of NumPy's generalised ufuncs, with names and a few marks.

====================  =====================================================================
``x[rows,columns]``   an array that is read, C-contiguous, float32 or float64 like the others
``~x[n]``             it is updated in place
``+x[n]``             sums are added to it; the struct says in ``accumulate`` whether they are
``!x[n]``             it is overwritten
``$scratch``          scratch memory, of which every thread gets a part
``x[n]?``             it may be None; of a result: the call does not ask for it
``i:index[n]<rows``   of another dtype (``DTYPES``); the kernel checks that 0 ≤ i < rows
``y[n]@x``            a recorded step may let ``y`` lie where ``x`` was
``eps``               a float64 number
``p:[0,1)``           a number in an interval
``training:flag``     a bool; ``updates``: a flag without which ``~`` operands are only read
``c_row:int``         an integer; ``shape:int*8``: eight of them
====================  =====================================================================

**Dimensions** are names of sizes, a number, ``4*hidden``, or ``*`` for one that the signature
leaves open. ``slopes=columns|1`` is a size that equals ``columns`` or 1. The first size of the
first operand stands for all leading dimensions of an array: a kernel on ``x[rows,columns]`` takes
an x of any number of dimensions, and a y like it; ``mean[rows]`` then has one dimension.

**The struct** of a kernel has fields of 8 bytes: the pointers to the operands in the order of the
signature (arguments, then results), the sizes in the order in which they appear, the scalars, and
an ``accumulate`` for every ``+`` operand. ``arguments.pxd`` writes it out for the compiler, and a
test compares the two.
"""

from __future__ import annotations

import inspect
import math
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

EXP = 20  # flops of an exp: 7 multiply-adds of a polynomial, 3 to reduce and scale back
HEAVY = 16  # flops of an element from which on computing takes longer than moving the bytes

READ, WRITTEN, UPDATED, SCRATCH = "r", "w", "u", "s"
ROLES = {"": READ, "~": UPDATED, "+": UPDATED, "!": WRITTEN, "$": SCRATCH}
DTYPES = ("", "index", "double", "uint32", "uint64", "OptimizerState")

WRITE, ADD, ADD_TO_ZERO = 0, 1, 2  # what `accumulate` says; see arguments.pxd

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Size:
    """A dimension: ``factor`` times a named size. Without a name: the factor, or any if it is 0."""

    name: str
    factor: int = 1
    or_one: str = ""  # the size that this one must equal, unless it is 1

    @property
    def is_any(self) -> bool:
        return not self.name and not self.factor


@dataclass(frozen=True)
class Operand:
    """An array that a kernel works on."""

    name: str
    mark: str
    dtype: str  # "" for that of the kernel
    sizes: tuple[Size, ...]
    optional: bool
    limit: str  # the size below which its values must be
    over: str  # the operand that it may be written over
    is_result: bool

    @property
    def role(self) -> str:
        """The role of the mark: read, written, updated, or scratch memory."""
        return WRITTEN if self.is_result and not self.mark else ROLES[self.mark]

    @property
    def singular(self) -> str:
        """The name of one of its values in messages: "label" for labels."""
        return {"labels": "label", "indices": "index", "lengths": "length"}.get(
            self.name, self.name
        )

    def size(self, values: Mapping[str, Any]) -> int:
        """Count its elements, given all sizes of a call."""
        return math.prod(size.factor * values.get(size.name, 1) for size in self.sizes)


@dataclass(frozen=True)
class Scalar:
    """A number that a kernel works with, of ``count`` words of 8 bytes."""

    name: str
    kind: str = "double"  # or "int", "flag", "updates"
    interval: str = ""
    count: int = 1


@dataclass(eq=False)
class Kernel:
    """The declaration of a kernel.

    Parameters
    ----------
    name, signature
        As above.
    twin
        The function that defines it, in NumPy; None for a kernel that only composites use.
    composite
        Whether its Python-facing call is written by hand in ``composites.pyx``.
    flops
        Flops of each element of the widest operand. An addition, multiplication, division,
        comparison or square root is one flop, a multiply-add two, an exp, log or tanh ``EXP``.
    row_flops
        Flops of each row of the widest operand, added to those of its elements.
    idle_flops
        Flops of each element where the flag ``updates`` is off.
    integers
        Integer operations of each element: they count for the time, but are no flops.
    products
        Flops of the matrix products inside, a function of the sizes.
    threads
        The size along which threads share the work; "one" if one thread does it all.
    problem
        The message for arguments that the kernel does not allow.
    stops
        Whether it answers 1 where its result is not finite, which makes a step fail.
    may_be_infinite
        Whether a total of what it has computed may be infinite without making a step fail.
    activation
        The code by which a product applies it to its output, if it can.
    fuses
        Whether it applies activations to its output.
    work
        The extent of a call as a function of the sizes; by default, that of the widest operand.
    """

    name: str
    signature: str
    twin: Callable[..., Any] | None = None
    composite: bool = False
    flops: int = 0
    row_flops: int = 0
    idle_flops: int = 0
    integers: int = 0
    products: Callable[[Mapping[str, Any]], float] | None = None
    threads: str = ""
    problem: str = ""
    stops: bool = False
    may_be_infinite: bool = False
    activation: int = 0
    fuses: bool = False
    work: Callable[[Mapping[str, Any]], tuple[int, ...]] | None = None
    operands: list[Operand] = field(default_factory=list, init=False)
    scalars: list[Scalar] = field(default_factory=list, init=False)
    parameters: list[str] = field(default_factory=list, init=False)  # of a call, in order

    def __post_init__(self) -> None:
        arguments, _, results = self.signature.partition("->")
        for token in arguments.split():
            self.parameters.append(self._declare(token, is_result=False))
        for token in results.split():
            self._declare(token, is_result=True)
        if self.twin is not None and not self.composite:
            names = list(inspect.signature(self.twin).parameters)
            if names != self.parameters:
                raise TypeError(f"{self.name} takes {names}, its signature names {self.parameters}")

    def _declare(self, token: str, is_result: bool) -> str:
        if found := OPERAND.fullmatch(token):
            mark, name, dtype, sizes, optional, limit, over = found.groups(default="")
            if dtype not in DTYPES:
                raise ValueError(f"{self.name}: no operand has dtype {dtype!r}")
            dims = tuple(_size(text) for text in sizes.split(",") if text)
            self.operands.append(
                Operand(name, mark, dtype, dims, bool(optional), limit, over, is_result)
            )
        elif found := SCALAR.fullmatch(token):
            name, kind, count, interval = found.groups(default="")
            self.scalars.append(Scalar(name, kind or "double", interval, int(count or 1)))
        else:
            raise ValueError(f"{self.name}: {token!r} is not in the grammar of signatures")
        return name

    # --- the layout of the struct ---

    @cached_property
    def sizes(self) -> list[Size]:
        """The named sizes, in the order in which they appear."""
        named: dict[str, Size] = {}
        for operand in self.operands:
            for size in operand.sizes:
                if size.name:
                    named.setdefault(size.name, size)
        return list(named.values())

    @cached_property
    def words(self) -> list[tuple[str, str]]:
        """The name of each word of 8 bytes in the struct, and its format for ``struct``."""
        words = [(operand.name, "P") for operand in self.operands]
        words += [(size.name, "n") for size in self.sizes]
        for scalar in self.scalars:
            words += [(scalar.name, "d" if scalar.kind == "double" else "n")] * scalar.count
        return words + [(name, "n") for name in self.accumulates.values()]

    @cached_property
    def fields(self) -> dict[str, tuple[int, str]]:
        """The offset of each field of the struct, in bytes, and the format of its words."""
        fields: dict[str, tuple[int, str]] = {}
        for place, (name, format) in enumerate(self.words):
            fields.setdefault(name, (8 * place, format))
        return fields

    @cached_property
    def accumulates(self) -> dict[str, str]:
        """The operands that sums are added to, with the field that says whether they are."""
        names = [operand.name for operand in self.operands if operand.mark == "+"]
        return {name: f"accumulate_{name}" if len(names) > 1 else "accumulate" for name in names}

    def get(self, args: bytes | bytearray, name: str) -> Any:
        """Read a field of a filled struct."""
        place, format = self.fields[name]
        return struct.unpack_from(format, args, place)[0]

    def set(self, args: bytearray, name: str, value: float) -> None:
        """Write a field of a filled struct."""
        place, format = self.fields[name]
        struct.pack_into(format, args, place, value)

    def values(self, args: bytes | bytearray) -> dict[str, Any]:
        """Read all sizes and scalars of a filled struct; of several words, as a tuple."""
        found = {size.name: self.get(args, size.name) for size in self.sizes}
        for scalar in self.scalars:
            place, format = self.fields[scalar.name]
            words = struct.unpack_from(f"{scalar.count}{format}", args, place)
            found[scalar.name] = words if scalar.count > 1 else words[0]
        return found

    # --- what a call does ---

    def role(self, operand: Operand, args: bytes | bytearray) -> str:
        """Return what a call does with an operand: read, write, update it, or use it as scratch."""
        if operand.name in self.accumulates:
            written = self.get(args, self.accumulates[operand.name]) == WRITE
            return WRITTEN if written else UPDATED
        if operand.mark == "~" and self.update_flag and not self.get(args, self.update_flag):
            return READ
        return operand.role

    @cached_property
    def update_flag(self) -> str:
        """The flag without which ``~`` operands are only read, or ""."""
        return next((scalar.name for scalar in self.scalars if scalar.kind == "updates"), "")

    @cached_property
    def limited(self) -> Operand | None:
        """The operand whose values the kernel checks: labels, indices, lengths."""
        return next((operand for operand in self.operands if operand.limit), None)

    @property
    def is_checking(self) -> bool:
        """Whether it answers 0, or 1 + the first row that is not allowed."""
        return self.limited is not None or bool(self.problem)

    @cached_property
    def updates_parameters(self) -> bool:
        """Whether it takes the state of an optimizer: it is a part of an optimizer's step."""
        return any(operand.dtype == "OptimizerState" for operand in self.operands)

    @cached_property
    def widest(self) -> list[str]:
        """The sizes of the operand that has most of them, with preference to results."""
        ordered = sorted(self.operands, key=lambda operand: not operand.is_result)
        named = [[size.name for size in operand.sizes if size.name] for operand in ordered]
        return max(named, key=len, default=[])

    def extent(self, values: Mapping[str, Any]) -> tuple[int, ...]:
        """Return the extent of a call, given its sizes: (rows, columns) or (elements,)."""
        if self.work is not None:
            return self.work(values)
        return tuple(values[name] for name in self.widest) or (1,)

    def touched(self, operand: Operand, values: Mapping[str, Any]) -> float:
        """Count the elements of an operand that a call touches; infinity where a size is open.

        Of a table with rows chosen by indices, a call touches as many rows as there are indices.
        """
        if any(size.name and size.name == self._rows_to_choose for size in operand.sizes):
            return math.prod(self.extent(values))
        return math.inf if any(size.is_any for size in operand.sizes) else operand.size(values)

    @property
    def _rows_to_choose(self) -> str | None:
        """The size that limits indices of rows; unlike the classes of a loss, not all are read."""
        limit = self.limited.limit if self.limited else None
        return None if limit in self.widest else limit

    def apply(self, x: Any) -> Any:
        """Compute an activation by its twin."""
        assert self.twin is not None
        return self.twin(x)

    @property
    def is_heavy(self) -> bool:
        """Whether computing takes longer than moving the bytes."""
        return self.flops + self.integers >= HEAVY

    def count_flops(self, values: Mapping[str, Any]) -> int:
        """Count the flops of a call, given its sizes and scalars."""
        extent = self.extent(values)
        each = self.flops if values.get(self.update_flag, True) else self.idle_flops
        products = self.products(values) if self.products else 0
        return int(products + each * math.prod(extent) + self.row_flops * extent[0])


DIMENSION = re.compile(r"(?:(\d+)\*)?([a-z]\w*)(?:=([a-z]\w*)\|1)?|(\d+)|\*")
OPERAND = re.compile(
    r"([~+!$]?)([a-z]\w*)(?::(\w+))?\[([^\]]*)\](\?)?(?:<([a-z]\w*))?(?:@([a-z]\w*))?"
)
SCALAR = re.compile(r"([a-z]\w*)(?::(?:(int|flag|updates)(?:\*(\d+))?|([\[(]\S+,\S+[\])])))?")


def _size(text: str) -> Size:
    found = DIMENSION.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no dimension")
    factor, name, other, number = found.groups(default="")
    if other:
        return Size(name, or_one=other)
    if name:
        return Size(name, int(factor or 1))
    return Size("", int(number or 0))


KERNELS: dict[str, Kernel] = {}


def kernel(signature: str, **options: Any) -> Callable[[Function], Function]:
    """Declare a kernel by its twin; ``Kernel`` has the options."""

    def declared(twin: Function) -> Function:
        declare(twin.__name__, signature, twin=twin, **options)
        return twin

    return declared


def declare(name: str, signature: str, **options: Any) -> None:
    """Declare a kernel; one that only composites use has no twin."""
    known = KERNELS.setdefault(name, Kernel(name, signature, **options))
    if known.signature != signature:  # the same file may be executed again
        raise ValueError(f"{name} is declared twice")
