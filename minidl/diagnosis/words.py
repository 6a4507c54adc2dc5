"""Words of reports."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Write a number of things.

    Examples
    --------
    >>> counted(1, "epoch"), counted(20, "step")
    ('1 epoch', '20 steps')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
