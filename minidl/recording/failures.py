"""What is said of a step that comes to nothing."""

from __future__ import annotations

import numpy as np

from minidl._kernels.reference import Array


def is_finite(array: Array) -> bool:
    """Whether all numbers of an array are finite."""
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def not_finite(what: str, place: str) -> FloatingPointError:
    """The error for a step that comes to nothing, with the place where that began."""
    where = f"; the first number that is not finite is in what {place} has written" if place else ""
    return FloatingPointError(f"{what}{where}. Parameters and state are as before this step")
