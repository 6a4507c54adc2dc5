"""Random numbers: generators from seeds, and the order of rows that a generator draws."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.typing import Seed


def as_generator(rng: Seed) -> np.random.Generator:
    """Make a generator from a seed, a generator (itself) or None (seeded by the system)."""
    if isinstance(rng, (bool, np.bool_)) or not isinstance(
        rng, (int, np.integer, np.random.Generator, type(None))
    ):
        raise TypeError(f"rng must be a numpy.random.Generator, an int or None, got {rng!r}")
    if isinstance(rng, (int, np.integer)) and rng < 0:
        raise ValueError(f"rng must be >= 0, got {rng}")
    return np.random.default_rng(rng)


def random_order(owner: str, rng: Seed, rows: int) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Draw the order in which an epoch takes its rows.

    A subclass of ``Generator`` may define its own ``permutation``, which draws rows more than once,
    for example. Its numbers are checked, because C code uses them as indices.
    """
    generator = as_generator(rng)
    order = np.asarray(generator.permutation(rows))
    if type(generator) is np.random.Generator:
        return order.astype(np.intp, copy=False)
    if order.shape != (rows,) or order.dtype.kind not in "iu":
        raise TypeError(
            f"{owner}: rng.permutation({rows}) must give {rows} whole numbers, got "
            f"{order.dtype} of shape {order.shape}"
        )
    wrong = (order < 0) | (order >= rows)
    if wrong.any():
        raise ValueError(
            f"{owner}: the order that rng.permutation({rows}) gave holds {order[wrong.argmax()]} "
            f"at place {wrong.argmax()}; rows are 0 to {rows - 1}"
        )
    return order.astype(np.intp)
