"""What is said of a step that comes to nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl._kernels.reference import Array


def is_finite(array: Array) -> bool:
    """Whether all numbers of an array are finite."""
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def not_finite(what: str, place: str, inputs: tuple[Any, ...]) -> FloatingPointError:
    """The error for a step that comes to nothing, with the place where that began, and what was
    wrong with its inputs already.
    """
    where = f"; the first number that is not finite is in what {place} has written" if place else ""
    where = "".join(map(_wrong, range(1, len(inputs) + 1), inputs)) + where
    return FloatingPointError(f"{what}{where}. Parameters and state are as before this step")


def _wrong(number: int, x: Any) -> str:
    """What is said of an argument that holds a number that is not finite."""
    if not isinstance(x, np.ndarray) or is_finite(x):
        return ""
    first = np.argwhere(~np.isfinite(x))[0]
    return f"; argument {number} holds {x[tuple(first)]}" + (
        f" in row {first[0]}" if x.ndim else ""
    )
