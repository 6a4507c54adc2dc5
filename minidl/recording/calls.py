"""Kernel calls that were written down, and the memory they use."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from minidl import _kernels
from minidl.typing import Array

# Kinds of memory. The vectors are those of an optimizer: values, gradients, moments.
INPUT, TEMPORARY, STATE = "input", "temporary", "state"
PARAMETER, GRADIENT, VECTOR = "parameter", "gradient", "vector"

# Kernels over whole sequences, and how many gates each has.
SEQUENCES = {"rnn_sequence": 1, "lstm_sequence": 4, "gru_sequence": 3}
# Kernels that may write an output over an input of the same size: the slots of both. Then memory
# that the next step of a sequence writes to is in the cache already: it has just been read.
IN_PLACE = {
    "lstm_sequence": (0, 8),
    "gru_sequence": (0, 8),
    "lstm_sequence_grad": (5, 9),
    "gru_sequence_grad": (5, 9),
}
# Kernels that check what they read: labels, weights, indices, lengths. Their answer is 0, or 1 +
# the first row that cannot be.
CHECKING = {
    *("softmax_cross_entropy", "nll", "weight_total", "embedding", "embedding_grad"),
    *SEQUENCES,
}


# Where among the bytes after the pointers a kernel's numbers are, if it is not all of them: an odd
# number of ints is filled up to whole words, and some structs have pointers of other kernels.
NUMBERS = {
    "column_sum": slice(8, -4),
    **dict.fromkeys(("batch_norm", "batch_norm_grad", "prelu_grad"), slice(-4)),
    **dict.fromkeys(("sgd", "adam", "nadam", "rmsprop", "adagrad"), slice(-8, None)),
}

# Adds what threads have left of the entry before it; as many threads share both.
REDUCTION = "reduce_partials"


@dataclass(eq=False)
class Buffer:
    """An array that kernels of a step may use.

    An input is an argument of the step, a temporary the output of a kernel; all other memory
    lives on between steps. The program gives temporaries memory of its own, and ``place`` is
    where in it.
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
        # Which memory it is, whenever the function runs.
        known = self.kind in (INPUT, TEMPORARY)
        self.key = (self.kind, self.number) if known else ("", self.begin, self.shape)


@dataclass
class Operand:
    """A pointer among the arguments of a kernel: which slot, what for, and into what."""

    slot: int
    role: str  # "r" read, "w" written, "u" read and changed
    region: Buffer
    offset: int = 0

    @property
    def reads(self) -> bool:
        return self.role != "w"

    @property
    def writes(self) -> bool:
        return self.role != "r"

    @property
    def changes_input(self) -> bool:
        return self.writes and self.region.kind == INPUT


@dataclass
class KernelCall:
    """A kernel call."""

    kernel: str
    function: int
    args: bytearray
    operands: list[Operand]
    scratch: int  # bytes for each thread
    label: str
    phase: str
    scratch_slot: int = -1  # of the pointer to it
    pointers: int = 0  # with which the arguments begin
    threads: int = 1
    wait: bool = False
    fused: list[str] = field(default_factory=list)  # kernels whose work it does as well

    @property
    def title(self) -> str:
        """The kernel, and those that were merged into it."""
        return " + ".join([self.kernel, *self.fused])

    @property
    def place(self) -> str:
        """The kernel and the layer that called it: for messages."""
        return f"{self.title} of {self.label}" + (f", going {self.phase}" if self.phase else "")

    @cached_property
    def fingerprint(self) -> tuple[Any, ...]:
        """What must be the same each time the function runs."""
        operands = [(o.slot, o.role, o.region.key, o.offset) for o in self.operands]
        return self.kernel, self.function, self.label, self.phase, operands, self._numbers()

    def _numbers(self) -> bytes:
        """The sizes, numbers and flags among the arguments, which follow the pointers."""
        words = bytes(self.args[8 * self.pointers :])
        if self.kernel == "copy":  # two arrays, of which the dimensions use the first places
            used, half = 8 * int.from_bytes(words[:8], "little"), len(words) // 2 + 4
            return words[: 8 + used] + words[half : half + used]
        return words[NUMBERS.get(self.kernel, slice(None))]

    def operand(self, slot: int) -> Operand | None:
        """What a slot points to; None for NULL."""
        return next((operand for operand in self.operands if operand.slot == slot), None)
