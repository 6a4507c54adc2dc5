"""The lengths of padded sequences, as layers take them."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl._kernels.twins.errors import RowError
from minidl.nn.hooks import is_recording
from minidl.typing import Array


def check_lengths(label: str, x: Array, lengths: Array) -> None:
    """Raise TypeError or ValueError unless these are lengths of the sequences in x.

    Parameters
    ----------
    label
        The layer, as messages name it.
    x
        Sequences (batch, time, ...).
    lengths
        An integer in 1 to time for each of them.
    """
    if not isinstance(lengths, np.ndarray) or lengths.dtype.kind not in "iu":
        got = lengths.dtype if isinstance(lengths, np.ndarray) else type(lengths).__name__
        raise TypeError(f"{label}: expected lengths to be an array of integers, got {got}")
    if lengths.shape != x.shape[:1]:
        raise ValueError(f"{label}: expected lengths of shape {x.shape[:1]}, got {lengths.shape}")
    if is_recording():
        return  # the kernel checks the values, now and in every replay
    bad = np.flatnonzero((lengths < 1) | (lengths > x.shape[1]))
    if len(bad):
        row = int(bad[0])
        raise RowError("length", row, int(lengths[row]), x.shape[1], owner=label)


def steps_in(x: Any) -> set[int]:
    """Return how many steps the sequences in x have, an array or a tuple; none in rows."""
    if type(x) is tuple:
        return set().union(*map(steps_in, x))
    return {x.shape[1]} if getattr(x, "ndim", 0) > 2 else set()


def steps_of_last(inputs: tuple[Any, ...]) -> int | None:
    """Return how many steps the last sequences have, behind which lengths stand; None: no such."""
    for x in reversed(inputs):
        if getattr(x, "ndim", 0) == 2 and x.dtype.kind in "iu":  # indices, such as words
            return int(x.shape[1])
        if steps := steps_in(x):
            return max(steps)
    return None
