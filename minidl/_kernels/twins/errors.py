"""The error, and its text, for a label, an index or a length outside its limits."""

from __future__ import annotations

import numpy as np

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
        What it is: ``"label"``, ``"index"`` or ``"length"``.
    row
        Its place in the array as the kernel sees it: flat.
    value
        The number; None where it is not known.
    limit
        How many classes, rows or steps there are.
    shape
        Of the array; of more than one dimension, the place is told by row and step.
    owner
        The layer that refuses it, as messages name it; nothing where a kernel does.
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

    def in_epoch(self, step: int, row: int) -> RowError:
        """The same in a whole data set, of which the array was the batch of a step."""
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
