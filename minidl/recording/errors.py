"""The error for steps whose loss or gradient is not finite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minidl.nn.nonfinite import first_bad


class NotFiniteError(FloatingPointError):
    """A step that came to nothing.

    Parameters
    ----------
    what
        What is not finite.
    place
        The kernel that has first written such a number, or "".
    inputs
        Of the step: what is wrong with them already is told, too.
    """

    def __init__(self, what: str, place: str, inputs: tuple[Any, ...]) -> None:
        super().__init__(what, place)
        self.what, self.place = what, place
        found = [(number, first_bad(x)) for number, x in enumerate(inputs, 1)]
        self.wrong = [(number, *bad) for number, bad in found if bad]  # argument, value, row
        self.step: int | None = None  # of an epoch; then rows are those of the data set

    def in_epoch(self, step: int, row_of_data: Callable[[int], int]) -> NotFiniteError:
        """The same in a whole data set, of which the inputs were the batch of a step."""
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
