"""A network as a list of C statements on arrays, which have no places in memory yet."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from minidl.typing import Array

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Value:
    """An array of floats that the statements read and write: its number, and its shape.

    The shape is that of one sample: there is no batch. Two values of one number are the same array
    in two shapes.
    """

    number: int
    shape: Shape

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def columns(self) -> int:
        """Width of the last axis."""
        return self.shape[-1]

    @property
    def rows(self) -> int:
        """Number of rows, over all axes but the last."""
        return math.prod(self.shape[:-1])


@dataclass(frozen=True)
class Statement:
    """Lines of C in which ``$x`` stands for the place of the value named x.

    ``shares`` names two values, such as x and y of an activation, that may have one place if the
    first is not needed any more.
    """

    lines: tuple[str, ...]
    values: Mapping[str, Value]
    shares: tuple[str, str] | None
    comment: str


@dataclass(frozen=True)
class Table:
    """A constant array: its name in C, its numbers in float32, and the layer that it belongs to."""

    name: str
    numbers: Array
    comment: str


@dataclass
class Program:
    """Statements in the order in which they run, and what they refer to.

    ``steps`` says that a call computes one step of a sequence, from a state that the caller keeps.
    Then the first axis of a shape, of size 1, is time.
    """

    input: Value
    steps: bool
    statements: list[Statement] = field(default_factory=list)
    tables: dict[tuple[Shape, bytes], Table] = field(default_factory=dict)
    state: list[Value] = field(default_factory=list)
    values: int = 1  # how many there are; number 0 is the input
    multiply_adds: int = 0
    takes_indices: bool = False  # whether the input holds them: a call fails where one is no row
    comment: str = ""  # the layer that is being written

    def new(self, *shape: int) -> Value:
        """Return a new array."""
        self.values += 1
        return Value(self.values - 1, shape)

    def kept(self, size: int) -> Value:
        """Return an array that the caller keeps from one step to the next."""
        value = self.new(size)
        self.state.append(value)
        return value

    def table(self, name: str, numbers: Array) -> str:
        """Return the name in C of a constant array; equal arrays are kept once.

        Raises
        ------
        ValueError
            For numbers that are not finite in float32.
        """
        with np.errstate(over="ignore"):
            numbers = np.ascontiguousarray(numbers, np.float32)
        if not np.isfinite(numbers).all():
            raise ValueError(
                f"export: {name} of layer {self.comment} holds a number that is not finite in "
                "float32"
            )
        key = (numbers.shape, numbers.tobytes())
        if key not in self.tables:
            self.tables[key] = Table(f"{name}_{len(self.tables)}", numbers, self.comment)
        return self.tables[key].name

    def run(self, *lines: str, shares: tuple[str, str] | None = None, **values: Value) -> None:
        """Append a statement."""
        self.statements.append(Statement(lines, values, shares, self.comment))
