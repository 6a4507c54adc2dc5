"""What an experiment returns: numbers that print and draw themselves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Findings:
    r"""The numbers of an experiment; a dataclass of each experiment has them as attributes.

    ``print`` and the prompt show the lines, a notebook the figure of ``plot()``.

    Examples
    --------
    >>> from minidl.lab import by_hand
    >>> print(*str(by_hand.compute()).splitlines()[2:5], sep="\n")
    layer           shape   forward    backward: dL/d...
    ----------------------------------------------------
    input           (1, 1)  3          -0.049698
    """

    def lines(self) -> Iterator[str]:
        """Yield the text."""
        raise NotImplementedError(f"{type(self).__name__} has no text")

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Draw the figure; write it to a file, in the format of its suffix, if there is a path."""
        raise NotImplementedError(f"{type(self).__name__} has no figure")

    def __repr__(self) -> str:
        return "\n".join(self.lines())
