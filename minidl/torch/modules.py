"""Modules that PyTorch lacks, or has with the features in another place."""

from __future__ import annotations

from typing import Any

import torch


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
