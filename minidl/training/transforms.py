"""Change batches at random, the same way whenever they are asked for: ``fit(transform=)``.

Every batch has a generator of its own, made of a seed that is drawn for the epoch and of the number
of the batch. So it matters neither how many batches are changed at a time, nor whether one is
changed again, nor where a training that was saved goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minidl.optim import Optimizer
from minidl.seeds import as_generator
from minidl.training.data import Data, part_of
from minidl.typing import Array, Seed

Transform = Callable[[Any, np.random.Generator], Any]
SEEDS = 2**63  # an epoch draws one of so many


def check_transform(transform: Any, optimizer: Optimizer) -> None:
    """Raise TypeError for what cannot be called, ValueError where rows must stay as they are."""
    if transform is None:
        return
    if not callable(transform) or isinstance(transform, type):
        raise TypeError(
            "fit: transform must be a function of a batch and a generator, such as "
            f"augment.Shift(2); got {transform!r}"
        )
    if optimizer.takes_closure:
        raise ValueError(
            f"fit: {optimizer!r} compares losses of the same rows, which a transform changes in "
            "every epoch; train without it, or with Adam"
        )


def draw_seed(rng: Seed) -> int:
    """Draw the seed of an epoch."""
    return int(as_generator(rng).integers(SEEDS))


def transformed(
    transform: Transform, seed: int, data: Data, rows: Array, batch_size: int, first: int
) -> Data:
    """Return copies of these rows, of which each batch is changed; ``first`` is its number.

    Raises
    ------
    TypeError, ValueError
        If the transform gives something else than a batch of the same shape, all finite.
    """
    copies = data.take(rows)
    for number, begin in enumerate(range(0, len(rows), batch_size), first):
        batch = part_of(copies.inputs, slice(begin, begin + batch_size))
        given = batch[0] if len(batch) == 1 else batch
        _take_over(given, transform(given, np.random.default_rng([seed, number])))
    return copies


def _take_over(batch: Any, changed: Any) -> None:
    """Write what a transform has given into the arrays of its batch: one, or those of a tuple."""
    if isinstance(batch, tuple):
        if not isinstance(changed, tuple) or len(changed) != len(batch):
            raise TypeError(
                f"fit: transform must give a tuple of {len(batch)} inputs, got "
                + (f"{len(changed)}" if isinstance(changed, tuple) else type(changed).__name__)
            )
        for part, new in zip(batch, changed, strict=True):
            _take_over(part, new)
        return
    _check_batch(batch, changed)
    batch[...] = changed
    _check_finite(batch)


def _check_batch(batch: Array, changed: Any) -> None:
    """Raise an error unless a changed batch can take the place of the one that it was made of."""
    if not isinstance(changed, np.ndarray):
        raise TypeError(f"fit: transform must give an array, got {type(changed).__name__}")
    if changed.shape != batch.shape:
        raise ValueError(
            f"fit: transform must keep the shape of a batch, {batch.shape}; it gave {changed.shape}"
        )
    if not np.can_cast(changed.dtype, batch.dtype, "same_kind"):
        raise TypeError(
            f"fit: transform must keep the dtype of a batch, {batch.dtype}; it gave {changed.dtype}"
        )


def _check_finite(batch: Array) -> None:
    """Raise ValueError unless a changed batch is finite in the dtype of the data."""
    finite = np.isfinite(batch).reshape(len(batch), -1).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        raise ValueError(f"fit: transform gave NaN or infinity in row {row} of a batch")
