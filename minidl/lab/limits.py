"""How large an experiment can be: beyond these sizes it would take hours, or all memory."""

from __future__ import annotations

import math
from typing import Any

from minidl.nn.checks import check_count

MOST = {
    "batch": 10_000,
    "depth": 2_000,
    "draws": 1_000_000,
    "epochs": 10_000,
    "hidden": 1_000,
    "points": 1_001,
    "seeds": 1_000,
    "steps": 100_000,
    "width": 4_096,
}
MOST_DECADES = 250  # of a power: float64 ends at 308
MOST_WEIGHTS = 100_000_000  # of all layers or draws together: 800 MB


def size(experiment: str, name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """Return a size as an int, if it is a whole number within its limits.

    Raises
    ------
    TypeError, ValueError
        Naming the limit.

    Examples
    --------
    >>> size("chain", "depth", 3_000)
    Traceback (most recent call last):
    ValueError: chain: depth must be <= 2,000, got 3,000
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


def check_power(experiment: str, name: str, base: float, times: str, exponent: int) -> None:
    """Raise ValueError if the power of a number is too large, or too small, for float64.

    Examples
    --------
    >>> check_power("rnn-radius", "radius", 1e3, "steps", 100)
    Traceback (most recent call last):
    ValueError: rnn-radius: radius^steps must lie within 1e-250 and 1e250, got 1e+300
    """
    decades = exponent * math.log10(base)
    if abs(decades) > MOST_DECADES:
        raise ValueError(
            f"{experiment}: {name}^{times} must lie within 1e-{MOST_DECADES} and "
            f"1e{MOST_DECADES}, got 1e{decades:+.0f}"
        )
