"""The error for a step whose loss or gradient is not finite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minidl.nn.nonfinite import first_bad


class NotFiniteError(FloatingPointError):
    """A step was not made, because its loss or gradient is not finite.

    Parameters
    ----------
    what
        The loss, or the norm of the gradient, in words.
    place
        The first kernel that has written such a number, or "".
    inputs
        Inputs of the step. The message names those that hold such a number already.
    """

    def __init__(self, what: str, place: str, inputs: tuple[Any, ...]) -> None:
        super().__init__(what, place)
        self.what, self.place = what, place
        found = [(number, first_bad(x)) for number, x in enumerate(inputs, 1)]
        self.wrong = [(number, *bad) for number, bad in found if bad]  # argument, value, row
        self.step: int | None = None  # of an epoch; then rows are those of the data set

    def in_epoch(self, step: int, row_of_data: Callable[[int], int]) -> NotFiniteError:
        """Add the step to the message, and count rows in the data set instead of in the batch."""
        self.step = step
        self.wrong = [
            (number, value, None if row is None else row_of_data(row))
            for number, value, row in self.wrong
        ]
        return self

    def __str__(self) -> str:
        epoch, data = "", ""
        if self.step is not None:
            epoch, data = f"step {self.step} of the epoch (the first is 0): ", " of the data set"
        where = "".join(
            f"; argument {number} holds {value}"
            + (f" in row {row}{data}" if row is not None else "")
            for number, value, row in self.wrong
        )
        if self.place:
            where += f"; the first number that is not finite is in what {self.place} has written"
        return f"{epoch}{self.what}{where}. Parameters and state are as before this step"
