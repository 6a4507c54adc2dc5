"""Optimizers and gradient clipping."""

from minidl.optim.clipping import clip_by_norm
from minidl.optim.optimizers import SGD, Adam, Optimizer

__all__ = ["SGD", "Adam", "Optimizer", "clip_by_norm"]
