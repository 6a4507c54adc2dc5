"""Finding the first number that is NaN or infinite."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np


def is_finite(values: Any) -> bool:
    """Return whether all numbers of an array, or of all arrays in a tuple, are finite."""
    if isinstance(values, tuple):
        return all(map(is_finite, values))
    array = np.asarray(values) if isinstance(values, np.ndarray) else None
    if array is None or array.dtype.kind != "f":
        return True
    with np.errstate(all="ignore"):
        # A finite sum proves that all numbers are finite, and is quicker than a test of each.
        return math.isfinite(np.add.reduce(array, axis=None)) or bool(np.isfinite(array).all())


def first_not_finite(named: Iterable[tuple[str, Any]]) -> str:
    """Return the name of the first array (or tuple of arrays) that is not all finite, or "".

    Later items are not requested, so ``named`` may compute the arrays one by one.

    Examples
    --------
    >>> first_not_finite([("x", np.ones(2)), ("y", np.array([1.0, np.nan]))])
    'y'
    """
    return next((name for name, values in named if not is_finite(values)), "")


def first_bad(x: Any) -> tuple[Any, int | None] | None:
    """Return the first number of an array that is not finite, and its row; None if all are."""
    if is_finite(x):
        return None
    first = np.argwhere(~np.isfinite(x))[0]
    return x[tuple(first)], int(first[0]) if x.ndim else None


def bad_number(x: Any) -> str:
    """Describe the first number of an array that is not finite, with its row; "" if all are.

    Examples
    --------
    >>> bad_number(np.array([[1.0, 2.0], [3.0, np.inf]]))
    'inf in row 1'
    """
    value, row = first_bad(x) or ("", None)
    return f"{value}" + (f" in row {row}" if row is not None else "")


def check_finite(models: Iterable[Any], when: str) -> None:
    """Raise FloatingPointError if a parameter or a layer's state holds a number that is not finite.

    The losses before may all have been finite: the very last update has no loss after it, and a
    saturated activation hides an infinity.
    """
    for model in models:
        if found := first_bad_of(model):
            name, bad = found
            raise FloatingPointError(
                f"{when}, {name} holds {bad}. If it was finite before, a lower learning rate may "
                "help; else set it, or reset() the layer"
            )


def first_bad_of(model: Any) -> tuple[str, str] | None:
    """Return the first parameter or state of a model that is not finite, and the number, in words.

    None if all are finite, or if the model is no layer.
    """
    for path, layer in model.layers() if hasattr(model, "layers") else ():
        parameters = [(parameter, parameter.data) for parameter in layer.own_parameters()]
        changing = [name for name in layer.state_names if name not in layer.constant_names]
        for holder, array in (*parameters, *((name, getattr(layer, name)) for name in changing)):
            if not is_finite(array):
                names = {id(parameter): name for name, parameter in model.named_parameters()}
                what = f"parameter {names[id(holder)]!r}" if id(holder) in names else ""
                of = f"{type(layer).__name__} {path}".rstrip()
                return f"{what or f'the state {holder!r}'} of {of}", bad_number(array)
    return None
