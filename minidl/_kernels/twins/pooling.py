"""The NumPy twins of pooling: maxima and means over windows of pixels, and larger images.

Images are (batch, height, width, channels), sequences (batch, steps, channels). ``kernel`` and
``stride`` have a number for each of the dimensions between, ``padding`` a pair (before, after).
Of sequences of unequal ``lengths``, the steps after the end count as padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from minidl._kernels.signature import kernel
from minidl._kernels.twins.errors import RowError
from minidl.typing import Array

Sizes = tuple[int, ...]
Padding = tuple[tuple[int, int], ...]

_X, _Y = "[images,height,width,channels]", "[images,out_height,out_width,channels]"
_WINDOWS = "kernel_height:int kernel_width:int stride_height:int stride_width:int top:int left:int"


def _work(size: Mapping[str, Any]) -> tuple[int, ...]:
    """Count outputs and the pixels of each: every one takes a comparison or an addition."""
    names = ("images", "out_height", "out_width", "channels", "kernel_height", "kernel_width")
    return tuple(size[name] for name in names)


@kernel(
    f"x{_X} lengths:index[images]?<width {_WINDOWS} -> y{_Y}", composite=True, flops=1, work=_work
)
def max_pool(
    x: Array, kernel: Sizes, stride: Sizes, padding: Padding, lengths: Array | None = None
) -> Array:
    """y = max of the pixels in each window, for every channel; NaN if one of them is NaN.

    Padding is -∞. A window of padding alone, after the end of a sequence, gives 0.
    """
    windows = _windows(_padded(x, padding, lengths, -np.inf), kernel, stride)
    y = windows.max(axis=_last(kernel))
    return np.where(_counted(x, kernel, stride, padding, lengths) > 0, y, x.dtype.type(0))


@kernel(
    f"dy{_Y} x{_X} y{_Y} lengths:index[images]?<width {_WINDOWS} after_relu:int -> dx{_X}",
    composite=True,
    flops=2,
    work=_work,
)
def max_pool_grad(
    dy: Array,
    x: Array,
    y: Array,
    kernel: Sizes,
    stride: Sizes,
    padding: Padding,
    lengths: Array | None = None,
) -> Array:
    """dx = dy at the first largest pixel of each window, in the order of rows; 0 elsewhere.

    The first that is not below y, that is; NaN counts as infinity.
    """
    inside = _padded(np.ones(x.shape, bool), padding, lengths, 0)
    padded, dx = _padded(x, padding, lengths, 0), np.zeros(inside.shape, x.dtype)
    most = np.where(np.isnan(y), y.dtype.type(np.inf), y)
    for place in _places(kernel, stride, y.shape):
        hit = inside[place] & ~(padded[place] < most)
        dx[place] += np.where(hit, dy, 0)
        dy = np.where(hit, dy.dtype.type(0), dy)
    return _without(dx, padding)


@kernel(
    f"x{_X} lengths:index[images]?<width {_WINDOWS} divisor -> y{_Y}",
    composite=True,
    flops=1,
    work=_work,
)
def avg_pool(
    x: Array,
    kernel: Sizes,
    stride: Sizes,
    padding: Padding,
    count_include_pad: bool = True,
    lengths: Array | None = None,
) -> Array:
    """y = Σ x / n over the pixels of each window, for every channel; padding is 0.

    n is the size of the window; without ``count_include_pad``, its pixels that are no padding.
    """
    sums = _windows(_padded(x, padding, lengths, 0), kernel, stride).sum(axis=_last(kernel))
    return sums / _divisor(x, kernel, stride, padding, count_include_pad, lengths)


@kernel(
    f"dy{_Y} lengths:index[images]?<width {_WINDOWS} divisor -> dx{_X}",
    composite=True,
    flops=1,
    work=_work,
)
def avg_pool_grad(
    dy: Array,
    sizes: Sizes,
    kernel: Sizes,
    stride: Sizes,
    padding: Padding,
    count_include_pad: bool = True,
    lengths: Array | None = None,
) -> Array:
    """dx = Σ dy / n over the windows that hold a pixel; ``sizes`` are those of x, between."""
    x = np.zeros((len(dy), *sizes, dy.shape[-1]), dy.dtype)
    inside = _padded(np.ones(x.shape, bool), padding, lengths, 0)
    each = dy / _divisor(x, kernel, stride, padding, count_include_pad, lengths)
    dx = np.zeros(inside.shape, dy.dtype)
    for place in _places(kernel, stride, dy.shape):
        dx[place] += np.where(inside[place], each, 0)
    return _without(dx, padding)


@kernel("", composite=True)
def upsample(x: Array, scale: Sizes) -> Array:
    """y = x, with every pixel repeated ``scale`` times along each dimension."""
    for axis, times in enumerate(scale, 1):
        x = x.repeat(times, axis)
    return x


@kernel("", composite=True)
def upsample_grad(dy: Array, scale: Sizes) -> Array:
    """dx = Σ dy over the block of every pixel."""
    return _windows(dy, scale, scale).sum(axis=_last(scale))


# --- windows ------------------------------------------------------------------------------


def _padded(x: Array, padding: Padding, lengths: Array | None, value: float) -> Array:
    """Return x with this value before and after each dimension, and after each sequence."""
    if lengths is not None:
        _check_lengths(lengths, x.shape[-2])
        on = np.arange(x.shape[-2]) < lengths.reshape(-1, *[1] * (x.ndim - 2))
        x = np.where(on[..., None], x, x.dtype.type(value))
    return np.pad(x, ((0, 0), *padding, (0, 0)), constant_values=value)


def _without(padded: Array, padding: Padding) -> Array:
    """Return the part of an array that is no padding."""
    sizes = padded.shape[1:-1]
    inner = [slice(b, n - a) for n, (b, a) in zip(sizes, padding, strict=True)]
    return padded[:, *inner].copy()


def _windows(padded: Array, kernel: Sizes, stride: Sizes) -> Array:
    """Return the windows (batch, *outputs, channels, *kernel) as a view."""
    axes = tuple(range(1, padded.ndim - 1))
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel, axes)
    return windows[:, *(slice(None, None, step) for step in stride)]


def _places(kernel: Sizes, stride: Sizes, shape: Sizes) -> Iterator[tuple[slice, ...]]:
    """Yield where the first pixels of all windows lie, where the second, ..., row by row."""
    for offset in np.ndindex(*kernel):
        steps = zip(offset, stride, shape[1:-1], strict=True)
        yield slice(None), *(slice(o, o + s * (n - 1) + 1, s) for o, s, n in steps)


def _last(kernel: Sizes) -> Sizes:
    """Return the axes of the pixels in arrays of windows."""
    return tuple(range(-len(kernel), 0))


def _counted(
    x: Array, kernel: Sizes, stride: Sizes, padding: Padding, lengths: Array | None
) -> Array:
    """Count the pixels of every window that are no padding."""
    ones = _padded(np.ones((*x.shape[:-1], 1), x.dtype), padding, lengths, 0)
    return _windows(ones, kernel, stride).sum(axis=_last(kernel))


def _divisor(
    x: Array,
    kernel: Sizes,
    stride: Sizes,
    padding: Padding,
    count_include_pad: bool,
    lengths: Array | None,
) -> Any:
    """Return by what the sum of each window is divided."""
    if count_include_pad:
        return x.dtype.type(np.prod(kernel))
    return np.maximum(_counted(x, kernel, stride, padding, lengths), 1)


def _check_lengths(lengths: Array, steps: int) -> None:
    """Raise RowError for the first length that is not in 1 … steps."""
    bad = np.flatnonzero((lengths < 1) | (lengths > steps))
    if len(bad):
        raise RowError("length", int(bad[0]), int(lengths[bad[0]]), steps)
