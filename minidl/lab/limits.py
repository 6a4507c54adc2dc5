"""How large an experiment can be: beyond these sizes it would take hours, or all memory."""

from __future__ import annotations

from typing import Any

from minidl.nn.checks import check_count

MOST = {
    "batch": 10_000,
    "depth": 10_000,
    "draws": 1_000_000,
    "epochs": 10_000,
    "hidden": 1_000,
    "points": 1_001,
    "seeds": 1_000,
    "steps": 100_000,
    "width": 4_096,
}
MOST_WEIGHTS = 100_000_000  # of all layers or draws together: 800 MB


def size(experiment: str, name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """Return a size as an int, if it is a whole number within its limits.

    Raises
    ------
    TypeError, ValueError
        Naming the limit.

    Examples
    --------
    >>> size("chain", "depth", 20_000)
    Traceback (most recent call last):
    ValueError: chain: depth must be <= 10,000, got 20,000
    """
    count, most = check_count(experiment, name, value, least), most or MOST[name]
    if count > most:
        raise ValueError(f"{experiment}: {name} must be <= {most:,}, got {count:,}")
    return count


def check_weights(experiment: str, what: str, count: int, width: int) -> None:
    """Raise ValueError if so many square matrices have too many weights.

    Examples
    --------
    >>> check_weights("residual", "depth", 10_000, 1_000)
    Traceback (most recent call last):
    ValueError: residual: depth · width² must be <= 100,000,000, got 10,000,000,000
    """
    weights = count * width**2
    if weights > MOST_WEIGHTS:
        raise ValueError(
            f"{experiment}: {what} · width² must be <= {MOST_WEIGHTS:,}, got {weights:,}"
        )
