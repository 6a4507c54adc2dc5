"""Convolutions of sequences and images, channels last."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from minidl import kernels
from minidl.nn.affine import Affine
from minidl.nn.checks import check_count
from minidl.nn.layer import Examples
from minidl.nn.parameter import Initializer
from minidl.nn.windows import Pairs, Window, shortest, window_of
from minidl.typing import Array, DType, Seed

Geometry = tuple[tuple[int, ...], Pairs, tuple[int, ...], int]  # as the kernels take it


class Convolution(Affine):
    """What ``Conv1d`` and ``Conv2d`` share."""

    DIMENSIONS: ClassVar[int]
    INPUT: ClassVar[str]  # the shape of the input, in words
    SIZES: ClassVar[tuple[str, ...]]  # those between batch and channels

    in_features: int
    out_features: int
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Pairs | str
    dilation: tuple[int, ...]
    groups: int

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] = 1,
        padding: int | tuple[Any, ...] | str = 0,
        dilation: int | tuple[int, ...] = 1,
        groups: int = 1,
        bias: bool = True,
        init: str | Initializer | None = None,
        rng: Seed = None,
        dtype: DType = np.float32,
        bias_init: str | Initializer | None = None,
    ) -> None:
        owner = type(self).__name__
        self.in_features = in_channels = check_count(owner, "in_channels", in_channels)
        self.out_features = out_channels = check_count(owner, "out_channels", out_channels)
        self.groups = groups = check_count(owner, "groups", groups)
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"{owner}: in_channels={in_channels} and out_channels={out_channels} must be "
                f"multiples of groups={groups}"
            )
        window = Window(owner, self.DIMENSIONS, kernel_size, stride, padding, dilation)
        self.kernel_size, self.stride = window.kernel, window.stride
        self.padding, self.dilation = window.padding, window.dilation
        shape = (*self.kernel_size, in_channels // groups, out_channels)
        self._make_parameters(shape, bias, init, rng, dtype, bias_init)

    @property
    def input_ranks(self) -> tuple[int, ...]:  # type: ignore[override]
        """Two more than the windows have dimensions."""
        return (2 + self.DIMENSIONS,)

    @property
    def window(self) -> Window:
        """Where the windows lie."""
        return window_of(
            type(self).__name__, self.kernel_size, self.stride, self.padding, self.dilation
        )

    def _geometry(self, shape: tuple[int, ...]) -> Geometry:
        """Return where the windows lie in an input of this shape, as the kernels take it."""
        window = self.window
        return window.stride, window.padding_for(shape[1:-1]), window.dilation, self.groups

    def forward(self, x: Array) -> Array:
        if x.ndim != 2 + self.DIMENSIONS:
            raise ValueError(f"{self.label}: input must be {self.INPUT}, got shape {x.shape}")
        self._sizes_after(x.shape)
        self.save(x)
        bias = self.bias.data if self.bias else None
        return kernels.conv(x, self.weight.data, bias, *self._geometry(x.shape))

    def backward(self, dy: Array) -> Array:
        x = self.saved(dy)
        geometry = self._geometry(x.shape)
        dbias = self.bias.grad if self.bias else None
        kernels.conv_grad_params(x, dy, self.weight.grad, dbias, *geometry)
        return kernels.conv_grad_input(dy, self.weight.data, x.shape, *geometry)

    def output_shape(self, input_shape: tuple[Any, ...] | None) -> tuple[Any, ...]:
        shape = input_shape or ("batch", *self.SIZES, 0)
        batch, *sizes, _ = shape
        if len(sizes) != self.DIMENSIONS:
            raise ValueError(f"{self.label}: input must be {self.INPUT}, got {input_shape}")
        if all(isinstance(size, int) for size in sizes):
            sizes = list(self._sizes_after(shape))
        return (batch, *sizes, self.out_features)

    def _sizes_after(self, input_shape: tuple[Any, ...]) -> tuple[int, ...]:
        """Return how many windows an input of this shape has, along each dimension."""
        try:
            return self.window.sizes_after(input_shape[1:-1])
        except ValueError as error:
            raise ValueError(f"{self.label}: input of shape {input_shape}: {error}") from None

    def __repr__(self) -> str:
        text = f"{self.in_features}, {self.out_features}, {shortest(self.kernel_size)}"
        text += self.window.options()
        text += f", groups={self.groups}" if self.groups > 1 else ""
        text += "" if self.bias else ", bias=False"
        return f"{type(self).__name__}({text})"


class Conv2d(Convolution):
    """Convolution of images: the same affine map of every window.

    y_nijo = b_o + Σ_rsc x_n,(i·stride + r·dilation - padding),(j·stride + s·dilation - padding),c
    · W_rsco,  0 for x outside of the image

    As in all libraries it is a cross-correlation: the window is not turned round. Source: LeCun et
    al. 1989; Yu and Koltun 2016 for dilation.

    Parameters
    ----------
    in_channels, out_channels
        Widths of the last dimension of input and output.
    kernel_size
        Height and width of the window; one number for both.
    stride
        How far windows are apart.
    padding
        Rows and columns of zeros around the image: one number for all sides, one for each
        dimension, or pairs ``((top, bottom), (left, right))``; ``"valid"``: none; ``"same"``: as
        many as make ⌈size / stride⌉ windows, an odd one at the bottom and on the right.
    dilation
        How far the elements of a window are apart.
    groups
        Into how many groups the channels are split; each group gives its share of the outputs.
        ``groups=in_channels`` is a depthwise convolution.
    bias
        Whether b is added.
    init, bias_init
        Initialisers of W and b, or their names; by default those of ``Linear``.
    rng
        Generator or seed of weights and biases.
    dtype
        float32 or float64.

    Shapes
    ------
    x (batch, height, width, in_channels), y (batch, height', width', out_channels) with
    height' = ⌊(height + top + bottom - dilation · (kernel - 1) - 1) / stride⌋ + 1,
    weight (height, width, in_channels / groups, out_channels) of the window, bias (out_channels).

    Raises
    ------
    TypeError
        For sizes that are no whole numbers.
    ValueError
        For sizes below one, groups that do not divide the channels, an unknown padding or
        initialiser; in a call, for an image smaller than the window.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> layer = nn.Conv2d(3, 8, 3, padding="same", rng=0)
    >>> layer(np.ones((5, 28, 28, 3), np.float32)).shape
    (5, 28, 28, 8)
    """

    DIMENSIONS = 2
    INPUT = "images (batch, height, width, channels)"
    SIZES = "height", "width"

    @classmethod
    def examples(cls) -> Examples:
        yield cls(2, 3, 3, rng=0), ((2, 5, 4, 2),)
        yield cls(1, 2, (2, 3), stride=(2, 1), padding=1, bias=False, rng=1), ((1, 3, 4, 1),)
        yield cls(4, 2, 2, padding="same", dilation=2, groups=2, rng=2), ((2, 3, 3, 4),)
        yield cls(3, 3, 3, stride=2, padding=((1, 0), (0, 2)), groups=3, rng=3), ((2, 4, 3, 3),)


class Conv1d(Convolution):
    """Convolution of sequences: the same affine map of every window of steps.

    y_nto = b_o + Σ_sc x_n,(t·stride + s·dilation - padding),c · W_sco,  0 for x outside of the
    sequence

    Source: Waibel et al. 1989; van den Oord et al. 2016 for causal padding.

    Parameters
    ----------
    in_channels, out_channels
        Widths of the last dimension of input and output.
    kernel_size
        Steps of the window.
    stride, dilation, groups, bias, init, bias_init, rng, dtype
        As for ``Conv2d``.
    padding
        Zeros on both sides, or a pair ``((before, after),)``; ``"valid"``, ``"same"`` as for
        ``Conv2d``; ``"causal"``: all before, so that no output sees a later step.

    Shapes
    ------
    x (batch, steps, in_channels), y (batch, steps', out_channels), weight (steps of the window,
    in_channels / groups, out_channels), bias (out_channels).

    Of padded sequences, the steps beyond their length are seen as all others: with ``"causal"`` no
    step before them depends on them. Layers behind this one that take ``lengths`` still do, if the
    number of steps stays as it was.

    Raises
    ------
    TypeError, ValueError
        As for ``Conv2d``.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> layer = nn.Conv1d(3, 8, 5, padding="causal", rng=0)
    >>> layer(np.ones((5, 50, 3), np.float32)).shape
    (5, 50, 8)
    """

    DIMENSIONS = 1
    INPUT = "sequences (batch, steps, channels)"
    SIZES = ("time",)

    @classmethod
    def examples(cls) -> Examples:
        yield cls(2, 3, 3, rng=0), ((2, 5, 2),)
        yield cls(3, 2, 2, padding="causal", dilation=2, bias=False, rng=1), ((1, 4, 3),)
        yield cls(4, 4, 3, stride=2, padding=1, groups=4, rng=2), ((2, 5, 4),)
