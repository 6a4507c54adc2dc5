"""Splits a data set into batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
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
        Arrays of the same length, or tuples or dicts of such arrays, such as (sequences, lengths),
        also within one another; a batch has tuples for tuples and dicts for dicts. A list of
        sequences of unequal length becomes such a pair, the sequences padded with zeros to the
        longest; for y, which has the lengths of X, it becomes the padded sequences alone.
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
        y_arrays = dict(list(y_arrays.items())[:1])
    check_same_rows([*x_arrays.items(), *y_arrays.items()])
    check_count("batches", "batch_size", batch_size)
    rows = len(next(iter(x_arrays.values())))
    order = random_order("batches", rng, rows) if shuffle else None
    parts = _parts((*x_arrays.values(), *y_arrays.values()), rows, batch_size, order)
    return _as_given(parts, X, y, len(x_arrays))


def _arrays(name: str, data: Any) -> dict[str, Array]:
    """Return all arrays of X or of y, by their names in messages."""
    if isinstance(data, (tuple, Mapping)):
        items = data.items() if isinstance(data, Mapping) else enumerate(data)
        found: dict[str, Array] = {}
        for label, part in _labelled(name, items):
            nested = isinstance(part, (tuple, Mapping))
            found |= _arrays(label, part) if nested else {label: as_array(label, part)}
        return found
    if not is_ragged(data):
        return {name: as_array(name, data)}
    return dict(_labelled(name, enumerate(padded(name, data))))


def _labelled(name: str, items: Iterable[tuple[Any, Any]]) -> Iterator[tuple[str, Any]]:
    return ((f"{name}[{key!r}]", part) for key, part in items)


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
    parts: Iterator[tuple[Array, ...]], X: Any, y: Any, count: int
) -> Iterator[tuple[Any, Any]]:
    """Yield the first ``count`` arrays of each part as X was given, the others as y was."""
    for part in parts:
        x = part[:count] if is_ragged(X) else _like(X, iter(part[:count]))
        yield x, _like(y, iter(part[count:]))


def _like(given: Any, arrays: Iterator[Array]) -> Any:
    """Return the next arrays in a tuple or a dict like the one that was given, or the next one."""
    if isinstance(given, Mapping):
        return {key: _like(part, arrays) for key, part in given.items()}
    if isinstance(given, tuple):
        return tuple(_like(part, arrays) for part in given)
    return next(arrays)
