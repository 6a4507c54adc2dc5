"""Checks of data as they are given: that they are numbers, in rows, and as many as is taken."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from minidl.nn.frames import column_array, is_column, is_table, table_array
from minidl.typing import Array

INDEX = np.dtype(np.intp)
NOT_ROWS = "the parts of a tuple are inputs of the model: write np.array(X) if they are rows"


def as_array(name: str, data: Any) -> Array:
    """Return ``data``, which may be a table or one of its columns, as an array.

    Raises
    ------
    TypeError
        For a column of a table that holds no numbers.
    ValueError
        For values that are masked or missing, and for unequal rows.
    """
    if np.ma.is_masked(data):
        row = int(np.argwhere(np.atleast_1d(np.ma.getmaskarray(data)))[0, 0])
        raise ValueError(
            f"{name}: row {row} is masked; leave such rows out, or fill them with .filled(value)"
        )
    if is_table(data):
        return table_array(name, data)
    if is_column(data):
        return column_array(name, data)
    try:
        return np.asarray(data)
    except ValueError as error:  # rows of different lengths
        cure = ""
        if isinstance(data, list) and len({len(np.atleast_1d(row)) for row in data}) == 1:
            cure = f" If these are several inputs, write a tuple, tuple({name})."
        raise ValueError(f"{name}: its rows differ in shape: {error}{cure}") from None


def check_same_rows(named: Iterable[tuple[str, Array]]) -> None:
    """Raise ValueError unless all arrays have the same number of rows, at least one."""
    first: tuple[str, Array] | None = None
    for name, array in named:
        if array.ndim == 0:
            raise ValueError(f"{name} must be an array or a list of rows, got {array.item()!r:.60}")
        if array.size == 0:
            raise ValueError(f"{name} is empty: shape {array.shape}")
        first = first or (name, array)
        if len(array) != len(first[1]):
            raise ValueError(f"{first[0]} has {len(first[1]):,} rows, {name} has {len(array):,}")


def check_kind(name: str, array: Array, dtype: np.dtype[Any]) -> None:
    """Raise TypeError, with the cure, unless the array holds integers, or real numbers."""
    if dtype == INDEX and array.dtype.kind not in "ui":
        variable = name.split()[-1]
        cure = f"write {variable}.astype(np.int64)"
        if array.dtype.kind not in "bf":
            cure = how_to_number(variable, array)
        raise TypeError(f"{name}: the model takes integers, got dtype {array.dtype}; {cure}")
    if array.dtype.kind not in "buif":
        cure = how_to_cast(name.split()[-1], array)
        raise TypeError(f"{name}: expected real numbers, got dtype {array.dtype}{cure}")


# --- cures for what is not a number -----------------------------------------------------------


def how_to_number(variable: str, array: Array) -> str:
    """Say how words, or other things that are not integers, become integers."""
    if array.dtype.kind in "UST" or any(isinstance(value, str) for value in array.flat):
        return f"number the words: words, {variable} = np.unique({variable}, return_inverse=True)"
    return f"write {variable}.astype(np.int64) if all are whole numbers"


def how_to_cast(variable: str, array: Array) -> str:
    """Say how an array that does not hold real numbers may become one that does."""
    cast = f"{variable}.astype(np.float32)"
    if array.dtype.kind in "UST":
        return f"; write {cast} if these are numbers, else one-hot rows for words"
    if array.dtype != object or not array.ndim:
        return ""
    for place, value in np.ndenumerate(array):
        if value is None or type(value).__name__ == "NAType":
            return f"; row {place[0]} holds {value}: leave such rows out, or fill them"
    return f"; write {cast} if all are numbers"
