"""The errors for a label, an index or a length outside its limits, and for unusable weights."""

from __future__ import annotations

from contextvars import ContextVar

import numpy as np

# Whether a mean over rows none of which counts is 0, and so is its gradient, or a WeightError: a
# loss that stands alone has nothing to learn from such a batch, one of several leaves it to the
# others.
MEAN_MAY_BE_EMPTY = ContextVar("MEAN_MAY_BE_EMPTY", default=False)

_TEXTS = {
    "label": "{number} in row {place} is outside the {limit} classes 0 to {last}",
    "index": "{number} in row {place} is not in 0 to {last}",
    "length": "{number} in row {place} is not in 1 to {limit}",
}


class RowError(ValueError):
    """An integer that a kernel cannot use.

    Parameters
    ----------
    operand
        What the integer is: ``"label"``, ``"index"`` or ``"length"``.
    row
        Its place in the flat array that the kernel sees.
    value
        The integer; None if it is not known.
    limit
        The number of classes, rows or steps.
    shape
        The shape of the array; if it has several dimensions, messages name row and step.
    owner
        The layer that refuses the integer, as messages name it; empty if a kernel refuses it.
    """

    def __init__(
        self,
        operand: str,
        row: int,
        value: int | None,
        limit: int,
        shape: tuple[int, ...] = (),
        owner: str = "",
    ) -> None:
        super().__init__(operand, row, value, limit, shape, owner)
        self.operand, self.value, self.limit, self.owner = operand, value, limit, owner
        place = np.unravel_index(row, shape) if len(shape) > 1 else (row,)
        self.row, *self.steps = map(int, place)
        self.step: int | None = None  # of an epoch; then the row is one of the data set

    def at(self, shape: tuple[int, ...]) -> RowError:
        """Return the same error for an array of this shape, which the kernel has seen flat."""
        return RowError(self.operand, self.row, self.value, self.limit, shape, self.owner)

    def in_epoch(self, step: int, row: int) -> RowError:
        """Return the same error for a row of a data set, of which the array was one batch."""
        self.step, self.row = step, row
        return self

    def __str__(self) -> str:
        number = self.operand + (f" {self.value}" if self.value is not None else "")
        where = "" if self.step is None else f"step {self.step} of the epoch (the first is 0): "
        place = f"{self.row}{' of the data set' * bool(where)}"
        place += "".join(f", step {step}" for step in self.steps)
        text = _TEXTS[self.operand]
        text = text.format(number=number, place=place, limit=self.limit, last=self.limit - 1)
        return where + f"{self.owner}: " * bool(self.owner) + text


class WeightError(ValueError):
    """Weights of rows with which a loss cannot be computed."""

    @classmethod
    def all_ignored(cls, label: int, loss: str) -> WeightError:
        """Make the error for a mean over no row, because every label is the ignored one."""
        text = f"every label is {label}, which is ignored: no row is left"
        return cls(f"{loss}: {text}" if loss else text)

    def in_epoch(self, step: int) -> WeightError:
        """Return the same error for a step of an epoch."""
        return WeightError(f"step {step} of the epoch (the first is 0): {self}")
