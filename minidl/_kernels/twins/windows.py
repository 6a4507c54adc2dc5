"""Windows over images (batch, height, width, channels) and sequences (batch, steps, channels)."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from minidl.typing import Array

Sizes = tuple[int, ...]  # a number for each dimension between batch and channels
Padding = tuple[tuple[int, int], ...]  # what is padded before and after each of them


def _padded(x: Array, padding: Padding, value: float = 0) -> Array:
    """Surround images with a value."""
    return np.pad(x, ((0, 0), *padding, (0, 0)), constant_values=value)


def _without(x: Array, padding: Padding) -> Array:
    """Return the part of padded images that is no padding."""
    sizes = zip(x.shape[1:-1], padding, strict=True)
    return x[:, *(slice(before, n - after) for n, (before, after) in sizes)].copy()


def _windows(
    x: Array, kernel: Sizes, stride: Sizes, dilation: Sizes, writeable: bool = False
) -> Array:
    """View every window of padded images: (batch, windows, channels, size of a window)."""
    reach = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
    axes = tuple(range(1, 1 + len(kernel)))
    views = sliding_window_view(x, reach, axes, writeable=writeable)
    steps = (slice(None, None, step) for step in stride)
    inside = (slice(None, None, step) for step in dilation)
    return views[(slice(None), *steps, slice(None), *inside)]


def _beyond(
    sizes: Sizes, kernel: Sizes, stride: Sizes, padding: Padding, dilation: Sizes
) -> Padding:
    """Return how far windows reach out of the padding at the end, with ``ceil_mode``.

    There are ⌈(n + p + q - r) / s⌉ + 1 along a dimension of size n, padded by p and q, for windows
    that reach over r and are s apart; one less if the last would begin behind the n elements.
    """
    more = []
    for n, k, s, (p, q), d in zip(sizes, kernel, stride, padding, dilation, strict=True):
        room = n + p + q - d * (k - 1) - 1
        count = -(-room // s) + 1
        count -= (count - 1) * s >= n + p
        more.append((0, max((count - 1) * s - room, 0)))
    return tuple(more)
