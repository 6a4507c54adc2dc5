"""Pooling: maxima and means over windows of pixels or of steps."""

from __future__ import annotations

from typing import Any, ClassVar

from minidl import kernels
from minidl.nn.layer import Examples, Layer
from minidl.nn.windows import Pairs, Window, shortest, window_of
from minidl.typing import Array

Places = tuple[tuple[int, ...], tuple[int, ...], Pairs]  # kernel, stride and padding of a call

BETWEEN = {1: "steps", 2: "height, width"}  # the dimensions that windows lie along


class Pooling(Layer):
    """Base of the layers that put the pixels of a window into one, channel by channel.

    Subclasses set ``dimensions``: 1 for steps, 2 for height and width.
    """

    preferred_init = "skip"
    dimensions: ClassVar[int]

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0) -> None:
        name = type(self).__name__
        stride = kernel_size if stride is None else stride
        window = Window(name, self.dimensions, kernel_size, stride, padding)
        self.kernel_size: tuple[int, ...] = window.kernel
        self.stride: tuple[int, ...] = window.stride
        self.padding: Pairs | str = window.padding
        if not isinstance(window.padding, str):
            for size, amounts in zip(window.kernel, window.padding, strict=True):
                if 2 * max(amounts) > size:
                    raise ValueError(
                        f"{name}: padding must be at most half the kernel size, "
                        f"got {max(amounts)} for a window of {size}"
                    )

    def check_input(self, x: Array) -> None:
        self.check_array(x)
        check_images(self, x, self.dimensions)
        try:
            self.window.sizes_after(x.shape[1:-1])
        except ValueError:  # now with the layer's place in the model
            self._window(self.label).sizes_after(x.shape[1:-1])

    @property
    def input_ranks(self) -> tuple[int, ...]:  # type: ignore[override]
        """Two more than the windows have dimensions."""
        return (2 + self.dimensions,)

    @property
    def window(self) -> Window:
        """Where the windows lie."""
        return self._window(type(self).__name__)

    def _window(self, owner: str) -> Window:
        return window_of(owner, self.kernel_size, self.stride, self.padding)

    def places(self, x: Array) -> Places:
        """Return kernel, stride and padding for an input, as the kernels take them."""
        sizes = x.shape[1:-1]
        padding = self.padding
        if isinstance(padding, str):
            padding = self.window.padding_for(sizes)
        return self.kernel_size, self.stride, padding

    def output_shape(self, input_shape: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        if input_shape is None:
            return None
        batch, *sizes, channels = input_shape
        if len(sizes) != self.dimensions:
            return None
        known = [size for size in sizes if isinstance(size, int)]
        if len(known) < len(sizes):
            return input_shape  # the names of sizes stand for any
        return batch, *self.window.sizes_after(tuple(known)), channels

    def __repr__(self) -> str:
        options = self.window.options(stride_by_default=self.kernel_size)
        return f"{type(self).__name__}({shortest(self.kernel_size)}{options})"


class MaxPool(Pooling):
    """Base of ``MaxPool1d`` and ``MaxPool2d``."""

    def forward(self, x: Array) -> Array:
        places = self.places(x)
        y = kernels.max_pool(x, *places)
        self.save(x, y, places)
        return y

    def backward(self, dy: Array) -> Array:
        x, y, places = self.saved(dy)
        return kernels.max_pool_grad(dy, x, y, *places)


class MaxPool1d(MaxPool):
    """Take the largest step of every window of a sequence, for each channel.

    y_t = max_i x_(s t + i - p),  i = 0 ... k - 1

    The gradient of y goes to that step, the first one if several are equal. NaN in a window makes
    y NaN; padding is -∞. Source: Zhou and Chellappa 1988; LeCun et al. 1998 for networks.

    Parameters
    ----------
    kernel_size
        Steps k of a window.
    stride
        Steps s from a window to the next; None: k.
    padding
        Steps p that are added on both sides, at most k / 2; a pair ((before, after),); or
        ``"same"``, ``"valid"`` or ``"causal"``.

    Shapes
    ------
    x (batch, steps, channels), y (batch, ⌊(steps + 2 p - k) / s⌋ + 1, channels).

    Raises
    ------
    TypeError, ValueError
        For sizes that are no whole numbers >= 1, more padding than half a window, and an input
        that is shorter than a window.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> x = np.array([1.0, 5, 2, 3, 0, 4]).reshape(1, 6, 1)
    >>> nn.MaxPool1d(2)(x).ravel()
    array([5., 3., 4.])
    >>> nn.MaxPool1d(3, stride=1, padding=1)(x).ravel()
    array([5., 5., 5., 3., 4., 4.])
    """

    dimensions = 1

    @classmethod
    def examples(cls) -> Examples:
        yield cls(2), ((2, 6, 3),)
        yield cls(3, stride=2, padding=1), ((2, 7, 2),)
        yield cls(2, stride=1, padding="causal"), ((1, 4, 1),)


class MaxPool2d(MaxPool):
    """Take the largest pixel of every window of an image, for each channel.

    y_ij = max_ab x_(s i + a - p, s j + b - p),  a, b = 0 ... k - 1

    The gradient of y goes to that pixel, the first one, row by row, if several are equal. NaN in a
    window makes y NaN; padding is -∞. Source: LeCun et al. 1998; Scherer et al. 2010.

    Parameters
    ----------
    kernel_size
        Height and width k of a window: one number, or two.
    stride
        Pixels s from a window to the next, down and to the right: one number, or two; None: k.
    padding
        Pixels p that are added on each side, at most k / 2: one number, two, or pairs ((top,
        bottom), (left, right)); or ``"same"`` or ``"valid"``.

    Shapes
    ------
    x (batch, height, width, channels), y (batch, ⌊(height + 2 p - k) / s⌋ + 1, ..., channels).

    Raises
    ------
    TypeError, ValueError
        For sizes that are no whole numbers >= 1, more padding than half a window, and an input
        that is smaller than a window.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> x = np.arange(16.0).reshape(1, 4, 4, 1)
    >>> nn.MaxPool2d(2)(x)[0, :, :, 0]
    array([[ 5.,  7.],
           [13., 15.]])
    """

    dimensions = 2

    @classmethod
    def examples(cls) -> Examples:
        yield cls(2), ((2, 4, 4, 3),)
        yield cls(3, stride=2, padding=1), ((2, 5, 6, 2),)
        yield cls((1, 2), stride=(2, 1), padding="same"), ((1, 3, 4, 1),)


class AvgPool(Pooling):
    """Base of ``AvgPool1d`` and ``AvgPool2d``."""

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__(kernel_size, stride, padding)
        self.count_include_pad = bool(count_include_pad)

    def forward(self, x: Array) -> Array:
        places = self.places(x)
        self.save(x.shape[1:-1], places)
        return kernels.avg_pool(x, *places, self.count_include_pad)

    def backward(self, dy: Array) -> Array:
        sizes, (kernel, stride, padding) = self.saved(dy)
        counts = self.count_include_pad
        return kernels.avg_pool_grad(dy, sizes, kernel, stride, padding, counts)

    def __repr__(self) -> str:
        text = super().__repr__()
        return text if self.count_include_pad else f"{text[:-1]}, count_include_pad=False)"


class AvgPool1d(AvgPool):
    """Take the mean of every window of a sequence, for each channel.

    y_t = Σ_i x_(s t + i - p) / n,  i = 0 ... k - 1;  dx = Σ dy / n over the windows of a step

    Source: LeCun et al. 1990.

    Parameters
    ----------
    kernel_size
        Steps k of a window.
    stride
        Steps s from a window to the next; None: k.
    padding
        Steps p of zeros that are added on both sides, at most k / 2; a pair ((before, after),); or
        ``"same"``, ``"valid"`` or ``"causal"``.
    count_include_pad
        Whether n = k at the ends, too; else n is the number of steps that are no padding.

    Shapes
    ------
    x (batch, steps, channels), y (batch, ⌊(steps + 2 p - k) / s⌋ + 1, channels).

    Raises
    ------
    TypeError, ValueError
        As for ``MaxPool1d``.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> x = np.array([1.0, 5, 2, 4]).reshape(1, 4, 1)
    >>> nn.AvgPool1d(2)(x).ravel()
    array([3., 3.])
    """

    dimensions = 1

    @classmethod
    def examples(cls) -> Examples:
        yield cls(2), ((2, 6, 3),)
        yield cls(3, stride=2, padding=1, count_include_pad=False), ((2, 7, 2),)
        yield cls(3, stride=1, padding="causal"), ((1, 4, 1),)


class AvgPool2d(AvgPool):
    """Take the mean of every window of an image, for each channel.

    y_ij = Σ_ab x_(s i + a - p, s j + b - p) / n;  dx = Σ dy / n over the windows of a pixel

    Source: LeCun et al. 1990.

    Parameters
    ----------
    kernel_size
        Height and width k of a window: one number, or two.
    stride
        Pixels s from a window to the next, down and to the right: one number, or two; None: k.
    padding
        Pixels p of zeros that are added on each side, at most k / 2: one number, two, or pairs
        ((top, bottom), (left, right)); or ``"same"`` or ``"valid"``.
    count_include_pad
        Whether n = k² at the edges, too; else n is the number of pixels that are no padding.

    Shapes
    ------
    x (batch, height, width, channels), y (batch, ⌊(height + 2 p - k) / s⌋ + 1, ..., channels).

    Raises
    ------
    TypeError, ValueError
        As for ``MaxPool2d``.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> x = np.arange(16.0).reshape(1, 4, 4, 1)
    >>> nn.AvgPool2d(2)(x)[0, :, :, 0]
    array([[ 2.5,  4.5],
           [10.5, 12.5]])
    """

    dimensions = 2

    @classmethod
    def examples(cls) -> Examples:
        yield cls(2), ((2, 4, 4, 3),)
        yield cls(3, stride=2, padding=1), ((2, 5, 6, 2),)
        yield cls((2, 3), stride=1, padding="same", count_include_pad=False), ((1, 3, 4, 1),)


def check_images(layer: Layer, x: Array, dimensions: int) -> None:
    """Raise ValueError unless x has as many dimensions between batch and channels."""
    if x.ndim != dimensions + 2:
        raise ValueError(
            f"{layer.label}: expected input of shape (batch, {BETWEEN[dimensions]}, channels), "
            f"got {x.shape}"
        )
