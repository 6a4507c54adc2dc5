"""What an experiment returns: numbers that print and draw themselves."""

from __future__ import annotations

from collections.abc import Iterator

from minidl.pictures import Plottable


class Findings(Plottable):
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

    def __repr__(self) -> str:
        return "\n".join(self.lines())
