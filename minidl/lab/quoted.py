"""Numbers as they are often quoted, beside those that come out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True)
class Quoted:
    """A number as a lesson quotes it, and as it is computed here.

    Parameters
    ----------
    what
        The number, in words or as a formula.
    quoted
        As it is written elsewhere, with the digits that are written there.
    computed
        As it comes out here.
    remark
        What is to be said where the two differ.
    """

    what: str
    quoted: str
    computed: float
    remark: str = ""

    @property
    def agrees(self) -> bool:
        """Whether the computed number has the digits that are quoted.

        Examples
        --------
        >>> Quoted("0.25^10", "0.00000095", 0.25**10).agrees
        True
        >>> Quoted("0.125^10", "1e-7", 0.125**10, "a hundred times less").agrees
        False
        """
        exponent = Decimal(self.quoted).as_tuple().exponent
        half = 0.5 * 10.0 ** int(exponent)
        return abs(self.computed - float(self.quoted)) <= half * (1 + 1e-9)

    def cells(self) -> tuple[str, ...]:
        """Return the row of the table."""
        return self.what, self.quoted, f"{self.computed:.6g}", self.remark


def comparison(rows: Iterable[Quoted]) -> Iterator[str]:
    """Yield the lines of a table of quoted and computed numbers."""
    yield from table([("", "often quoted", "computed", ""), *(row.cells() for row in rows)])


def table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    r"""Yield the lines of a table; the first row is its head.

    Examples
    --------
    >>> print(*table([("layer", "factor"), ("1", "0.25")]), sep="\n")
    layer  factor
    -------------
    1      0.25
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    yield lines[0]
    yield "-" * max(map(len, lines))
    yield from lines[1:]
