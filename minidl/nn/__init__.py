"""Layers, losses and initialisers."""

from minidl.nn import init
from minidl.nn.activations import ReLU, Sigmoid, Tanh
from minidl.nn.containers import Residual, Sequential
from minidl.nn.dropout import Dropout
from minidl.nn.layer import Layer, Parameter
from minidl.nn.linear import Linear
from minidl.nn.losses import BCEWithLogitsLoss, CrossEntropyLoss, Loss, MSELoss
from minidl.nn.normalization import BatchNorm
from minidl.nn.recurrent import RNNCell

__all__ = [
    "BCEWithLogitsLoss",
    "BatchNorm",
    "CrossEntropyLoss",
    "Dropout",
    "Layer",
    "Linear",
    "Loss",
    "MSELoss",
    "Parameter",
    "RNNCell",
    "ReLU",
    "Residual",
    "Sequential",
    "Sigmoid",
    "Tanh",
    "init",
]
