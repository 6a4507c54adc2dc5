"""Layers, losses and initialisers."""

from minidl.nn import init
from minidl.nn.activations import ReLU, Sigmoid, Tanh
from minidl.nn.containers import Residual, Sequential
from minidl.nn.dropout import Dropout
from minidl.nn.label_losses import CrossEntropyLoss, NLLLoss
from minidl.nn.layer import Layer, Parameter
from minidl.nn.linear import Linear
from minidl.nn.losses import BCEWithLogitsLoss, HuberLoss, L1Loss, Loss, MSELoss
from minidl.nn.lsuv import lsuv
from minidl.nn.normalization import BatchNorm
from minidl.nn.recurrent import RNNCell

__all__ = [
    "BCEWithLogitsLoss",
    "BatchNorm",
    "CrossEntropyLoss",
    "Dropout",
    "HuberLoss",
    "L1Loss",
    "Layer",
    "Linear",
    "Loss",
    "MSELoss",
    "NLLLoss",
    "Parameter",
    "RNNCell",
    "ReLU",
    "Residual",
    "Sequential",
    "Sigmoid",
    "Tanh",
    "init",
    "lsuv",
]
