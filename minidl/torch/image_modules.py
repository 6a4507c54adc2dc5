"""Modules for images and sequences (batch, ..., channels), as minidl has them.

PyTorch has the channels on axis 1. With ``channels_first``, these modules have them there, too, and
do what PyTorch's own cannot, such as a padding that differs from side to side.
"""

from __future__ import annotations

from typing import Any

import torch

from minidl.nn.windows import Window


def padded(x: Any, window: Window, number: float = 0.0) -> Any:
    """Return images (batch, channels, ...) with what a window has around them."""
    pairs = window.padding_for(tuple(x.shape[2:]))
    amounts = [amount for pair in reversed(pairs) for amount in pair]
    return torch.nn.functional.pad(x, amounts, value=number)


class _OfImages:
    """Base of modules for images, wherever these have their channels."""

    channels_first = False

    def forward(self, x: Any) -> Any:
        if self.channels_first:
            return self.of_images(x)
        return self.of_images(x.movedim(-1, 1)).movedim(1, -1)

    def of_images(self, x: Any) -> Any:
        """Return the result for images (batch, channels, ...)."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it computes")


class Conv1d(_OfImages, torch.nn.Conv1d):
    """``torch.nn.Conv1d``, padded as in minidl."""

    def __init__(self, layer: Any, channels_first: bool = False) -> None:
        super().__init__(**convolution_options(layer))
        self.window, self.channels_first = layer.window, channels_first

    def of_images(self, x: Any) -> Any:
        return torch.nn.Conv1d.forward(self, padded(x, self.window))


class Conv2d(_OfImages, torch.nn.Conv2d):
    """``torch.nn.Conv2d``, padded as in minidl."""

    def __init__(self, layer: Any, channels_first: bool = False) -> None:
        super().__init__(**convolution_options(layer))
        self.window, self.channels_first = layer.window, channels_first

    def of_images(self, x: Any) -> Any:
        return torch.nn.Conv2d.forward(self, padded(x, self.window))


def convolution_options(layer: Any) -> dict[str, Any]:
    """Return the arguments of PyTorch's convolution but for the padding."""
    return {
        "in_channels": layer.in_features,
        "out_channels": layer.out_features,
        "kernel_size": layer.kernel_size,
        "stride": layer.stride,
        "dilation": layer.dilation[: len(layer.kernel_size)],
        "groups": layer.groups,
        "bias": layer.bias is not None,
    }


class Pool(_OfImages, torch.nn.Module):
    """Maximum or mean of every window, padded as in minidl."""

    def __init__(
        self,
        kind: str,
        window: Window,
        count_include_pad: bool = True,
        channels_first: bool = False,
    ) -> None:
        super().__init__()
        self.kind, self.window, self.count_include_pad = kind, window, count_include_pad
        self.channels_first = channels_first

    def of_images(self, x: Any) -> Any:
        pool = getattr(torch.nn.functional, f"{self.kind}_pool{x.ndim - 2}d")
        kernel, stride = self.window.kernel, self.window.stride
        if self.kind == "max":
            return pool(padded(x, self.window, -torch.inf), kernel, stride)
        y = pool(padded(x, self.window), kernel, stride)
        if not self.count_include_pad:
            y = y / pool(padded(torch.ones_like(x), self.window), kernel, stride)
        return y


class GlobalPool(_OfImages, torch.nn.Module):
    """Maximum or mean of all pixels."""

    def __init__(self, kind: str, keepdims: bool = False, channels_first: bool = False) -> None:
        super().__init__()
        self.kind, self.keepdims, self.channels_first = kind, keepdims, channels_first

    def of_images(self, x: Any) -> Any:
        axes = tuple(range(2, x.ndim))
        if self.kind == "max":
            return x.amax(dim=axes, keepdim=self.keepdims)
        return x.mean(dim=axes, keepdim=self.keepdims)


class Upsample(_OfImages, torch.nn.Module):
    """Every pixel, repeated along each dimension."""

    def __init__(self, scale_factor: Any) -> None:
        super().__init__()
        self.scale_factor = scale_factor

    def of_images(self, x: Any) -> Any:
        factors = self.scale_factor
        for axis in range(2, x.ndim):
            times = factors[axis - 2] if isinstance(factors, tuple) else factors
            x = x.repeat_interleave(times, dim=axis)
        return x


class ChannelDropout(torch.nn.Dropout):
    """``Dropout`` of whole channels of inputs (batch, ..., channels)."""

    def forward(self, x: Any) -> Any:
        each = x.new_ones(x.shape[0], *(1 for _ in x.shape[1:-1]), x.shape[-1])
        return x * super().forward(each)


class Flatten(torch.nn.Flatten):
    """Pixels in a row, with the order of channels and pixels that minidl has, or PyTorch.

    ``channels_first`` says where the images have their channels, ``rows_first`` where the rows
    have them: first those of one channel, or first those of one pixel. ``reordered`` says that
    minidl's ``Flatten()`` stands here, and that the weights behind it are in PyTorch's order.
    """

    def __init__(self, channels_first: bool, rows_first: bool, reordered: bool = False) -> None:
        super().__init__()
        self.channels_first, self.rows_first = channels_first, rows_first
        self.reordered = reordered

    def forward(self, x: Any) -> Any:
        if self.channels_first == self.rows_first:
            return super().forward(x)
        return super().forward(x.movedim(-1, 1) if self.rows_first else x.movedim(1, -1))
