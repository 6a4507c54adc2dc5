"""The first number that is not finite, among arrays in the order in which they came to be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np


def is_finite(values: Any) -> bool:
    """Whether all numbers of an array are finite, or of all arrays in a tuple."""
    if isinstance(values, tuple):
        return all(map(is_finite, values))
    array = np.asarray(values) if isinstance(values, np.ndarray) else None
    return array is None or array.dtype.kind != "f" or bool(np.isfinite(array).all())


def first_not_finite(named: Iterable[tuple[str, Any]]) -> str:
    """The name of the first array, or tuple of arrays, with a number that is not finite, or "".

    What comes after it is not looked at: ``named`` may compute the arrays one by one.

    Examples
    --------
    >>> first_not_finite([("x", np.ones(2)), ("y", np.array([1.0, np.nan]))])
    'y'
    """
    return next((name for name, values in named if not is_finite(values)), "")


def first_bad(x: Any) -> tuple[Any, int | None] | None:
    """The first number of an array that is not finite, and its row; None if all are."""
    if is_finite(x):
        return None
    first = np.argwhere(~np.isfinite(x))[0]
    return x[tuple(first)], int(first[0]) if x.ndim else None


def bad_number(x: Any) -> str:
    """The first number of an array that is not finite and its row, in words, or "".

    Examples
    --------
    >>> bad_number(np.array([[1.0, 2.0], [3.0, np.inf]]))
    'inf in row 1'
    """
    value, row = first_bad(x) or ("", None)
    return f"{value}" + (f" in row {row}" if row is not None else "")


def check_finite(models: Iterable[Any], when: str) -> None:
    """Raise FloatingPointError if a parameter or the state of a layer holds a number that is not
    finite: what no loss may have shown, such as the very last update, or saturated infinities.
    """
    for model in models:
        for name, array in held_by(model):
            if bad := bad_number(array):
                raise FloatingPointError(
                    f"{when}, {name} holds {bad}. If it was finite before, a lower learning rate "
                    "may help; else set it, or reset() the layer"
                )


def held_by(model: Any) -> Iterator[tuple[str, Any]]:
    """Parameters and state of a model with their names, as messages tell them; of what has no
    layers, nothing.
    """
    if not hasattr(model, "layers"):
        return
    # A layer that was never in a container has told its parameters no names.
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for path, layer in model.layers():
        label = f"{type(layer).__name__} {path}".rstrip()
        for parameter in layer.own_parameters():
            yield f"parameter {names[id(parameter)]!r} of {label}", parameter.data
        for name in layer.state_names:
            yield f"the state {name!r} of {label}", getattr(layer, name)
