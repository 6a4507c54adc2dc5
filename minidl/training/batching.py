"""Splits a data set into batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from minidl.nn.checks import check_count
from minidl.nn.data_checks import as_array, check_same_rows
from minidl.seeds import random_order
from minidl.training.inputs import is_ragged, padded
from minidl.typing import Array, Seed


def batches(
    X: Any, y: Any, batch_size: int, rng: Seed = None, shuffle: bool = True
) -> Iterator[tuple[Any, Any]]:
    """Yield the rows of X and y in batches, every row once, the last batch maybe smaller.

    Parameters
    ----------
    X, y
        Arrays of the same length, or tuples of such arrays, such as (sequences, lengths); a batch
        has tuples for tuples. A list of sequences of unequal length becomes such a pair, the
        sequences padded with zeros to the longest; for y, which has the lengths of X, it becomes
        the padded sequences alone.
    batch_size
        Rows of a batch, ≥ 1.
    rng
        Generator or seed of the order; with a generator, the next pass over the data has another
        order.
    shuffle
        Whether the order is random. If not, batches are views of the arrays.

    Shapes
    ------
    X (samples, ...), y (samples, ...); a batch (batch_size, ...), the last one possibly less.

    Raises
    ------
    TypeError
        When called, if batch_size is no whole number.
    ValueError
        When called, if the lengths differ, there is no row, or batch_size is less than one.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl.training import batches
    >>> X, y = np.arange(10.0).reshape(5, 2), np.arange(5)
    >>> [yb.tolist() for xb, yb in batches(X, y, batch_size=2, shuffle=False)]
    [[0, 1], [2, 3], [4]]
    >>> [(xb, lengths)] = [x for x, _ in batches([[1, 2, 3], [4]], [0, 1], 2, shuffle=False)]
    >>> xb.tolist(), lengths.tolist()
    ([[1, 2, 3], [4, 0, 0]], [3, 1])
    """
    x_arrays, y_arrays = _arrays("X", X), _arrays("y", y)
    if is_ragged(y):
        y_arrays = y_arrays[:1]
    check_same_rows([*_named("X", x_arrays), *_named("y", y_arrays)])
    check_count("batches", "batch_size", batch_size)
    rows = len(x_arrays[0])
    order = random_order("batches", rng, rows) if shuffle else None
    parts = _parts((*x_arrays, *y_arrays), rows, batch_size, order)
    several = isinstance(X, tuple) or is_ragged(X), isinstance(y, tuple)
    return _as_given(parts, len(x_arrays), *several)


def _arrays(name: str, data: Any) -> tuple[Array, ...]:
    if isinstance(data, tuple):
        return tuple(as_array(f"{name}[{number}]", part) for number, part in enumerate(data))
    return padded(name, data) if is_ragged(data) else (as_array(name, data),)


def _named(name: str, arrays: tuple[Array, ...]) -> list[tuple[str, Array]]:
    if len(arrays) == 1:
        return [(name, arrays[0])]
    return [(f"{name}[{number}]", array) for number, array in enumerate(arrays)]


def _parts(
    arrays: tuple[Array, ...], rows: int, batch_size: int, order: Array | None
) -> Iterator[tuple[Array, ...]]:
    for start in range(0, rows, batch_size):
        part = slice(start, start + batch_size)
        if order is None:
            yield tuple(array[part] for array in arrays)
        else:
            yield tuple(array.take(order[part], axis=0) for array in arrays)


def _as_given(
    parts: Iterator[tuple[Array, ...]], count: int, several_x: bool, several_y: bool
) -> Iterator[tuple[Any, Any]]:
    """Yield the first ``count`` arrays of each part as x, the others as y; one array alone."""
    for part in parts:
        x, y = part[:count], part[count:]
        yield x if several_x else x[0], y if several_y else y[0]
