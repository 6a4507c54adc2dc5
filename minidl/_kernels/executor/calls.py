"""Recorded kernel calls, and the memory they use."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from minidl import _kernels
from minidl._kernels.signature import KERNELS, READ, WRITTEN, Kernel
from minidl.typing import Array

# Kinds of memory. The vectors are those of an optimizer: values, gradients, moments.
INPUT, TEMPORARY, STATE = "input", "temporary", "state"
PARAMETER, GRADIENT, VECTOR = "parameter", "gradient", "vector"


@dataclass(eq=False)
class Buffer:
    """An array that kernels of a step may use.

    An input is an argument of the step, a temporary is the output of a kernel; all other memory
    lives on between steps. The program gives temporaries memory of its own; ``place`` is the
    offset in it.
    """

    kind: str
    name: str
    array: Array
    number: int = 0  # of an input, or of a temporary
    place: int = -1

    def __post_init__(self) -> None:
        self.begin = _kernels.address_of(self.array)
        self.nbytes = self.array.nbytes
        self.end = self.begin + self.nbytes
        self.shape, self.dtype = self.array.shape, self.array.dtype
        # Identifies this memory whenever the function runs.
        known = self.kind in (INPUT, TEMPORARY)
        self.key = (self.kind, self.number) if known else ("", self.begin, self.shape)


@dataclass
class Operand:
    """A pointer among the arguments of a kernel call: its name, its role, and where it points."""

    name: str
    role: str  # READ, WRITTEN, or UPDATED, which is both
    buffer: Buffer
    offset: int = 0

    @property
    def reads(self) -> bool:
        return self.role != WRITTEN

    @property
    def writes(self) -> bool:
        return self.role != READ


@dataclass
class KernelCall:
    """A kernel, and the filled struct of its arguments."""

    kernel: Kernel
    function: int
    args: bytearray
    operands: list[Operand]
    scratch: int  # bytes for each thread
    label: str
    phase: str
    threads: int = 1
    wait: bool = False
    fused: list[str] = field(default_factory=list)  # names of the kernels merged into it

    @property
    def title(self) -> str:
        """The kernel, and those that were merged into it."""
        return " + ".join([self.kernel.name, *self.fused])

    @property
    def place(self) -> str:
        """The kernel and the layer that called it, for messages."""
        return f"{self.title} of {self.label}" + (f", going {self.phase}" if self.phase else "")

    @property
    def clears(self) -> bool:
        """Whether the kernel only overwrites its operands."""
        return all(operand.mark == "!" for operand in self.kernel.operands)

    @property
    def adds_partials(self) -> bool:
        """Whether it adds the partial sums of the call before it: as many threads share both."""
        return self.kernel is KERNELS["reduce_partials"]

    @property
    def values(self) -> dict[str, Any]:
        """The sizes and scalars among the arguments."""
        return self.kernel.values(self.args)

    @cached_property
    def fingerprint(self) -> tuple[Any, ...]:
        """All that must be the same each time the function runs."""
        operands = [(o.name, o.role, o.buffer.key, o.offset) for o in self.operands]
        numbers = bytes(self.args[8 * len(self.kernel.operands) :])
        return self.kernel.name, self.function, self.label, self.phase, operands, numbers

    def operand(self, name: str) -> Operand | None:
        """Return the operand of this name; None if it is NULL."""
        return next((operand for operand in self.operands if operand.name == name), None)
