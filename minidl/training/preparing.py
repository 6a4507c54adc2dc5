"""Data into the dtype of the model, and the checks of every row before training begins."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl._kernels.reference import Array
from minidl.nn import BCEWithLogitsLoss, Loss


def as_real(name: str, data: Any, dtype: np.dtype[Any]) -> Array:
    """``data`` as a contiguous array of ``dtype``; the very array, if it is one already.

    Raises
    ------
    TypeError
        For what is not real numbers: strings, objects, complex numbers.
    """
    array = np.asarray(data)
    if array.dtype.kind not in "buif":
        raise TypeError(f"{name}: expected real numbers, got dtype {array.dtype}")
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes inf, and is found as such
        return np.ascontiguousarray(array, dtype=dtype)


def check_finite(name: str, array: Array) -> None:
    """Raise ValueError with the first row that holds NaN or inf."""
    if np.isfinite(array).all():
        return
    where = np.argwhere(~np.isfinite(array))[0].tolist()
    place = f" at {tuple(where[1:])}" if len(where) > 1 else ""
    raise ValueError(
        f"{name}: row {where[0]} holds {array[tuple(where)]}{place}; training needs finite "
        f"numbers within the range of {array.dtype}"
    )


def as_targets(name: str, y: Any, loss: Loss, dtype: np.dtype[Any]) -> Array:
    """Targets as ``loss`` wants them: integer labels for cross entropy, else real numbers."""
    if loss.takes_labels:
        return as_labels(name, np.asarray(y))
    targets = as_real(name, y, dtype)
    check_finite(name, targets)
    if isinstance(loss, BCEWithLogitsLoss):
        _check_rows(name, targets, (targets < 0) | (targets > 1), "outside [0, 1]")
    return targets


def as_labels(name: str, labels: Array) -> Array:
    """``labels``, if they are a vector of integers.

    Raises
    ------
    ValueError
        For floats, naming the first row that is no whole number, or the first row if all are.
    """
    if labels.ndim != 1:
        raise ValueError(f"{name}: expected labels of shape (samples,), got {labels.shape}")
    if labels.dtype.kind == "f":
        row = int(np.argmax(labels != np.floor(labels)))
        raise ValueError(
            f"{name}: labels must be integers, row {row} holds {labels[row]} ({labels.dtype}); "
            "write labels.astype(int) if they are whole numbers"
        )
    if labels.dtype.kind not in "bui":
        raise TypeError(f"{name}: labels must be integers, got dtype {labels.dtype}")
    return labels.astype(np.int64)


def check_labels(name: str, labels: Array, classes: int) -> None:
    """Raise ValueError with the first row whose label is none of the classes."""
    outside = (labels < 0) | (labels >= classes)
    _check_rows(name, labels, outside, f"outside the {classes} classes 0 ... {classes - 1}")


def _check_rows(name: str, values: Array, bad: Array, words: str) -> None:
    if bad.any():
        where = tuple(np.argwhere(bad)[0].tolist())
        raise ValueError(f"{name}: row {where[0]} holds {values[where]}, {words}")
