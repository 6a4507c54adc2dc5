"""A data set in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from minidl._kernels.reference import Array
from minidl.nn.checks import check_count
from minidl.nn.init import Seed, random_order


def batches(
    X: Any, y: Any, batch_size: int, rng: Seed = None, shuffle: bool = True
) -> Iterator[tuple[Array, Array]]:
    """Yield the rows of X and y in batches, every row once, the last batch maybe smaller.

    Parameters
    ----------
    X, y
        Arrays of the same length.
    batch_size
        Rows of a batch, ≥ 1.
    rng
        Generator or seed of the order; a generator goes on, so that the next pass over the
        data has another order.
    shuffle
        Whether the order is random. If not, batches are views and nothing is copied.

    Shapes
    ------
    X (samples, ...), y (samples, ...); a batch (batch_size, ...), the last one possibly less.

    Raises
    ------
    TypeError
        At the call, if batch_size is no whole number.
    ValueError
        At the call, if the lengths differ, there is no row, or batch_size is less than one.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl.training import batches
    >>> X, y = np.arange(10.0).reshape(5, 2), np.arange(5)
    >>> [yb.tolist() for xb, yb in batches(X, y, batch_size=2, shuffle=False)]
    [[0, 1], [2, 3], [4]]
    """
    X, y = np.asarray(X), np.asarray(y)
    check_lengths(X, y)
    check_count("batches", "batch_size", batch_size)
    order = random_order("batches", rng, len(X)) if shuffle else None
    return _pieces(X, y, batch_size, order)


def _pieces(
    X: Array, y: Array, batch_size: int, order: Array | None
) -> Iterator[tuple[Array, Array]]:
    for start in range(0, len(X), batch_size):
        piece = slice(start, start + batch_size)
        if order is None:
            yield X[piece], y[piece]
        else:
            rows = order[piece]
            yield X.take(rows, axis=0), y.take(rows, axis=0)


def check_lengths(X: Array, y: Array, what: str = "") -> None:
    """Raise ValueError unless X and y have the same number of rows, at least one."""
    for name, array in (("X", X), ("y", y)):
        if array.ndim == 0 or array.size == 0:
            raise ValueError(f"{what}{name} is empty: shape {array.shape}")
    if len(X) != len(y):
        raise ValueError(f"{what}X has {len(X):,} rows, {what}y has {len(y):,}")
