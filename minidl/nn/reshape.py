"""Layers that compute nothing: they pass an array on, or give it another shape."""

from __future__ import annotations

import math
from typing import Any

from minidl import kernels
from minidl.nn.checks import check_count
from minidl.nn.forms import ANY
from minidl.nn.layer import Examples, Layer
from minidl.typing import Array


class Identity(Layer):
    """Pass the input on, for where a layer is expected but nothing is to be computed.

    y = x,  dx = dy

    Shapes
    ------
    x and y (batch, ...).

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> nn.Identity()(np.array([[-1.0, 2.0]]))
    array([[-1.,  2.]])
    """

    preferred_init = "skip"

    def forward(self, x: Array) -> Array:
        self.save(None)  # nothing is needed, but backward is allowed now, once
        return x

    def backward(self, dy: Array) -> Array:
        self.saved(dy)
        return dy

    @classmethod
    def examples(cls) -> Examples:
        yield cls(), ((3, 5),)
        yield cls(), ((1, 1),)


class Flatten(Layer):
    """Put neighbouring axes of a sample into one, such as the pixels of an image into a row.

    y = x, reshaped,  dx = dy, reshaped back

    Parameters
    ----------
    start_dim, end_dim
        The first and the last axis to put into one, ``start_dim`` ≥ 1; a negative ``end_dim``
        counts from the last axis, -1. Axis 0, the batch, stays as it is.
    channels_first
        Whether the last axis, that of the channels, comes first in the row, as in PyTorch, which
        has it on axis 1. Only where all axes are put into one.

    Shapes
    ------
    x (batch, a, b, ...), y (batch, a · b · ...). Of the axes i to j, x (batch, ..., n_i, ..., n_j,
    ...), y (batch, ..., n_i · ... · n_j, ...).

    Raises
    ------
    ValueError
        If ``start_dim`` is below 1 or comes after ``end_dim``, and for an input without such axes.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> nn.Flatten()(np.zeros((5, 8, 8))).shape
    (5, 64)
    >>> nn.Flatten(start_dim=2)(np.zeros((5, 7, 8, 8))).shape  # sequences of 7 images
    (5, 7, 64)
    """

    preferred_init = "skip"
    keeps_axes = False

    def __init__(self, start_dim: int = 1, end_dim: int = -1, channels_first: bool = False) -> None:
        super().__init__()
        start = check_count("Flatten", "start_dim", start_dim, -(2**63))
        end = check_count("Flatten", "end_dim", end_dim, -(2**63))
        if start < 1:
            raise ValueError(
                f"Flatten: start_dim must be >= 1, got {start}: axis 0 is the batch, which stays"
            )
        if 0 <= end < start:
            raise ValueError(f"Flatten: start_dim {start} comes after end_dim {end}")
        if channels_first and (start, end) != (1, -1):
            raise ValueError(
                f"Flatten: channels_first needs all axes in one, from 1 to -1, got {start} to {end}"
            )
        self.start_dim, self.end_dim = start, end
        self.channels_first = bool(channels_first)

    @property
    def input_ranks(self) -> tuple[int, ...]:  # type: ignore[override]
        """All that have the axes."""
        return tuple(rank for rank in sorted(ANY) if self._flattened((1,) * rank))

    def forward(self, x: Array) -> Array:
        flattened = self._flattened(x.shape)
        if flattened is None:
            raise ValueError(
                f"{self.label}: an input of shape {x.shape} has no axes {self.start_dim} to "
                f"{self.end_dim}"
            )
        self.save(x.shape)
        if self.channels_first:
            x = x.transpose(0, x.ndim - 1, *range(1, x.ndim - 1))
        return _contiguous(x).reshape(flattened)

    def backward(self, dy: Array) -> Array:
        shape = self.saved(dy)
        dy = _contiguous(dy)
        if not self.channels_first:
            return dy.reshape(shape)
        batch, *sizes, channels = shape
        dy = dy.reshape(batch, channels, *sizes)
        return _contiguous(dy.transpose(0, *range(2, dy.ndim), 1))

    def _flattened(self, shape: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Return the shape of the output; None for an input without such axes."""
        start, stop = self.start_dim, self.end_dim + 1
        stop += len(shape) if self.end_dim < 0 else 0
        if not start < stop <= len(shape):
            return None
        together = shape[start:stop]
        size: Any = "features"  # where not all sizes are known
        if all(isinstance(size, int) for size in together):
            size = math.prod(together)
        return *shape[:start], size, *shape[stop:]

    def output_shape(self, input_shape: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        if input_shape is None:
            return None
        return self._flattened(input_shape)

    def __repr__(self) -> str:
        if self.channels_first:
            return "Flatten(channels_first=True)"
        if self.end_dim != -1:
            return f"Flatten({self.start_dim}, {self.end_dim})"
        return "Flatten()" if self.start_dim == 1 else f"Flatten({self.start_dim})"

    @classmethod
    def examples(cls) -> Examples:
        yield cls(), ((3, 2, 4),)
        yield cls(), ((1, 1),)
        yield cls(), ((2, 3, 2, 2),)
        yield cls(2), ((2, 3, 2, 2),)
        yield cls(1, 2), ((3, 2, 2, 3),)
        yield cls(2, -2), ((2, 2, 3, 2, 2),)
        yield cls(channels_first=True), ((2, 3, 2, 4),)


def _contiguous(x: Array) -> Array:
    return x if x.flags.c_contiguous else kernels.copy(x)
