"""Optimizers, schedules of the learning rate, and gradient clipping."""

from minidl.optim import schedules
from minidl.optim.adam import Adam, AdamW, Nadam
from minidl.optim.adaptive import AdaGrad, RMSprop
from minidl.optim.clipping import clip_by_norm, clip_by_value
from minidl.optim.ema import EMA
from minidl.optim.lbfgs import LBFGS
from minidl.optim.optimizer import Group, Optimizer
from minidl.optim.sgd import SGD

__all__ = [
    "EMA",
    "LBFGS",
    "SGD",
    "AdaGrad",
    "Adam",
    "AdamW",
    "Group",
    "Nadam",
    "Optimizer",
    "RMSprop",
    "clip_by_norm",
    "clip_by_value",
    "schedules",
]
