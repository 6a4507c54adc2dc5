"""Modules that PyTorch lacks, or has with the features in another place."""

from __future__ import annotations

from typing import Any

import torch

from minidl.nn.windows import Window


class Residual(torch.nn.Module):
    """Sum of a body and a shortcut: y = body(x) + shortcut(x); None is the identity."""

    def __init__(self, body: torch.nn.Module, shortcut: torch.nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x: Any) -> Any:
        return self.body(x) + (x if self.shortcut is None else self.shortcut(x))


class Standardize(torch.nn.Module):
    """Features with mean 0 and variance 1: y = (x - mean) / std, both measured before training."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))

    def forward(self, x: Any) -> Any:
        return (x - self.mean) / self.std


class BatchNorm(torch.nn.BatchNorm1d):
    """``BatchNorm1d`` of inputs (batch, ..., features)."""

    def forward(self, x: Any) -> Any:
        return super().forward(x.reshape(-1, x.shape[-1])).reshape(x.shape)


class PReLU(torch.nn.PReLU):
    """``PReLU`` of inputs (batch, ..., features)."""

    def forward(self, x: Any) -> Any:
        return torch.where(x > 0, x, self.weight * x)


class Pool(torch.nn.Module):
    """Maximum or mean of every window of inputs (batch, ..., channels), padded as in minidl."""

    def __init__(self, kind: str, window: Window, count_include_pad: bool = True) -> None:
        super().__init__()
        self.kind, self.window, self.count_include_pad = kind, window, count_include_pad

    def forward(self, x: Any) -> Any:
        pairs = self.window.padding_for(tuple(x.shape[1:-1]))
        amounts = [amount for pair in reversed(pairs) for amount in pair]
        pool = getattr(torch.nn.functional, f"{self.kind}_pool{len(pairs)}d")
        kernel, stride = self.window.kernel, self.window.stride
        x = x.movedim(-1, 1)
        padding = -torch.inf if self.kind == "max" else 0.0
        y = pool(torch.nn.functional.pad(x, amounts, value=padding), kernel, stride)
        if not self.count_include_pad:
            inside = torch.nn.functional.pad(torch.ones_like(x), amounts)
            y = y / pool(inside, kernel, stride)
        return y.movedim(1, -1)


class GlobalPool(torch.nn.Module):
    """Maximum or mean of all pixels of inputs (batch, ..., channels)."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Any) -> Any:
        pixels = x.flatten(1, -2)
        return pixels.amax(dim=1) if self.kind == "max" else pixels.mean(dim=1)


class Upsample(torch.nn.Module):
    """Every pixel of inputs (batch, ..., channels) repeated along each dimension."""

    def __init__(self, scale_factor: Any) -> None:
        super().__init__()
        self.scale_factor = scale_factor

    def forward(self, x: Any) -> Any:
        factors = self.scale_factor
        for axis in range(1, x.ndim - 1):
            times = factors[axis - 1] if isinstance(factors, tuple) else factors
            x = x.repeat_interleave(times, dim=axis)
        return x


class ChannelDropout(torch.nn.Dropout):
    """``Dropout`` of whole channels of inputs (batch, ..., channels)."""

    def forward(self, x: Any) -> Any:
        each = x.new_ones(x.shape[0], *(1 for _ in x.shape[1:-1]), x.shape[-1])
        return x * super().forward(each)


class _OutputOnly:
    """A recurrent module that returns y alone, or (y, state) if it is given a state.

    With ``return_sequences`` False, y is the last state of each direction.
    """

    return_sequences = True

    def forward(self, x: Any, state: Any = None) -> Any:
        y, end = super().forward(x, state)  # type: ignore[misc]
        if not self.return_sequences:
            h = end[0] if isinstance(end, tuple) else end
            directions = y.shape[-1] // h.shape[-1]
            y = torch.cat(tuple(h[-directions:]), dim=-1)
        return y if state is None else (y, end)


class RNN(_OutputOnly, torch.nn.RNN):
    """``torch.nn.RNN`` that returns its output alone."""


class LSTM(_OutputOnly, torch.nn.LSTM):
    """``torch.nn.LSTM`` that returns its output alone."""


class GRU(_OutputOnly, torch.nn.GRU):
    """``torch.nn.GRU`` that returns its output alone."""
