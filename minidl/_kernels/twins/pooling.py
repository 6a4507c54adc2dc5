"""The NumPy twins of pooling: maxima and means over windows of pixels, and larger images.

Images are (batch, height, width, channels), sequences (batch, steps, channels). ``kernel``,
``stride`` and ``dilation`` have a number for each of the dimensions between, ``padding`` a pair
(before, after). Of sequences of unequal ``lengths``, the steps after the end count as padding.
With ``ceil_mode``, a last window may reach out of the padding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from minidl._kernels.signature import kernel
from minidl._kernels.twins.errors import RowError
from minidl._kernels.twins.windows import Padding, Sizes, _beyond, _padded, _windows, _without
from minidl.typing import Array

_X, _Y = "[images,height,width,channels]", "[images,out_height,out_width,channels]"
_WINDOWS = (
    "kernel_height:int kernel_width:int stride_height:int stride_width:int top:int left:int "
    "row_step:int column_step:int"
)
_DIVISOR = "counted_height:int counted_width:int divisor"


def _work(size: Mapping[str, Any]) -> tuple[int, ...]:
    """Count outputs and the pixels of each: every one takes a comparison or an addition."""
    names = ("images", "out_height", "out_width", "channels", "kernel_height", "kernel_width")
    return tuple(size[name] for name in names)


@kernel(
    f"x{_X} lengths:index[images]?<width {_WINDOWS} -> y{_Y}", composite=True, flops=1, work=_work
)
def max_pool(
    x: Array,
    kernel: Sizes,
    stride: Sizes,
    padding: Padding,
    lengths: Array | None = None,
    dilation: Sizes | None = None,
    ceil_mode: bool = False,
) -> Array:
    """y = max of the pixels in each window, for every channel; NaN if one of them is NaN.

    Padding is -∞, and so is the maximum of padding alone.
    """
    at = _Windows(x.shape[1:-1], kernel, stride, padding, dilation, ceil_mode)
    return at.of(at.padded(x, -np.inf, lengths)).max(axis=at.axes)


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
    dilation: Sizes | None = None,
    ceil_mode: bool = False,
) -> Array:
    """dx = dy at the first largest pixel of each window, in the order of rows; 0 elsewhere.

    The first that is not below y, that is; NaN counts as infinity.
    """
    at = _Windows(x.shape[1:-1], kernel, stride, padding, dilation, ceil_mode)
    inside = at.of(at.padded(np.ones(x.shape, bool), 0, lengths))
    pixels, dx = at.of(at.padded(x, 0, lengths)), at.padded(np.zeros_like(x), 0)
    given, most = at.of(dx, writeable=True), np.where(np.isnan(y), y.dtype.type(np.inf), y)
    for place in np.ndindex(*kernel):
        hit = inside[..., *place] & ~(pixels[..., *place] < most)
        given[..., *place] += np.where(hit, dy, 0)
        dy = np.where(hit, dy.dtype.type(0), dy)
    return at.without(dx)


@kernel(
    f"x{_X} lengths:index[images]?<width {_WINDOWS} {_DIVISOR} -> y{_Y}",
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
    dilation: Sizes | None = None,
    ceil_mode: bool = False,
) -> Array:
    """y = Σ x / n over the pixels of each window, for every channel; padding is 0.

    n is the number of pixels of the window, with those in the padding; without
    ``count_include_pad``, only those that are no padding. What reaches out of the padding never
    counts.
    """
    at = _Windows(x.shape[1:-1], kernel, stride, padding, dilation, ceil_mode)
    sums = at.of(at.padded(x, 0, lengths)).sum(axis=at.axes)
    return sums / at.divisor(x, count_include_pad, lengths)


@kernel(
    f"dy{_Y} lengths:index[images]?<width {_WINDOWS} {_DIVISOR} -> dx{_X}",
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
    dilation: Sizes | None = None,
    ceil_mode: bool = False,
) -> Array:
    """dx = Σ dy / n over the windows that hold a pixel; ``sizes`` are those of x, between."""
    at = _Windows(sizes, kernel, stride, padding, dilation, ceil_mode)
    x = np.zeros((len(dy), *sizes, dy.shape[-1]), dy.dtype)
    each = dy / at.divisor(x, count_include_pad, lengths)
    inside, dx = at.of(at.padded(np.ones(x.shape, bool), 0, lengths)), at.padded(x, 0)
    given = at.of(dx, writeable=True)
    for place in np.ndindex(*kernel):
        given[..., *place] += np.where(inside[..., *place], each, 0)
    return at.without(dx)


@kernel("", composite=True)
def upsample(x: Array, scale: Sizes) -> Array:
    """y = x, with every pixel repeated ``scale`` times along each dimension."""
    for axis, times in enumerate(scale, 1):
        x = x.repeat(times, axis)
    return x


@kernel("", composite=True)
def upsample_grad(dy: Array, scale: Sizes) -> Array:
    """dx = Σ dy over the block of every pixel."""
    ones = (1,) * len(scale)
    return _windows(dy, scale, scale, ones).sum(axis=tuple(range(-len(scale), 0)))


# --- windows ------------------------------------------------------------------------------


class _Windows:
    """Where the windows of a call lie, and what is padded."""

    def __init__(
        self,
        sizes: Sizes,
        kernel: Sizes,
        stride: Sizes,
        padding: Padding,
        dilation: Sizes | None,
        ceil_mode: bool,
    ) -> None:
        self.kernel, self.stride, self.padding = kernel, stride, padding
        self.dilation = (1,) * len(kernel) if dilation is None else dilation
        self.axes = tuple(range(-len(kernel), 0))  # of the pixels in arrays of windows
        none = ((0, 0),) * len(kernel)
        places = sizes, kernel, stride, padding, self.dilation
        self.beyond = _beyond(*places) if ceil_mode else none  # what windows reach over besides

    def padded(self, x: Array, value: float, lengths: Array | None = None) -> Array:
        """Return x with a value before and after each dimension, and after each sequence."""
        if lengths is not None:
            _check_lengths(lengths, x.shape[-2])
            on = np.arange(x.shape[-2]) < lengths.reshape(-1, *[1] * (x.ndim - 2))
            x = np.where(on[..., None], x, x.dtype.type(value))
        return _padded(_padded(x, self.padding, value), self.beyond, value)

    def of(self, x: Array, writeable: bool = False) -> Array:
        """View the windows (batch, *outputs, channels, *kernel) of padded images."""
        return _windows(x, self.kernel, self.stride, self.dilation, writeable)

    def without(self, x: Array) -> Array:
        """Return the part of padded images that is no padding."""
        return _without(_without(x, self.beyond), self.padding)

    def divisor(self, x: Array, count_include_pad: bool, lengths: Array | None) -> Array:
        """Count the pixels of every window that count in a mean."""
        ones = np.ones((*x.shape[:-1], 1), x.dtype)
        if count_include_pad:
            counted = _padded(_padded(ones, self.padding, 1), self.beyond)
        else:
            counted = self.padded(ones, 0, lengths)
        return np.maximum(self.of(counted).sum(axis=self.axes), 1)


def _check_lengths(lengths: Array, steps: int) -> None:
    """Raise RowError for the first length that is not in 1 … steps."""
    bad = np.flatnonzero((lengths < 1) | (lengths > steps))
    if len(bad):
        raise RowError("length", int(bad[0]), int(lengths[bad[0]]), steps)
