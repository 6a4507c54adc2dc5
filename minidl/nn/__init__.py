"""Layers, losses and initialisers."""

from minidl.nn import init
from minidl.nn.activations import (
    GELU,
    HardSigmoid,
    HardSwish,
    LogSoftmax,
    Mish,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Softsign,
    Tanh,
)
from minidl.nn.branches import Parallel
from minidl.nn.classification_losses import CrossEntropyLoss, NLLLoss
from minidl.nn.containers import Sequential
from minidl.nn.convolution import Conv1d, Conv2d
from minidl.nn.cosine_losses import CosineEmbeddingLoss, CosineSimilarityLoss
from minidl.nn.distribution_losses import GaussianNLLLoss, PoissonNLLLoss, QuantileLoss
from minidl.nn.dropout import Dropout
from minidl.nn.embedding import Embedding
from minidl.nn.global_pooling import GlobalAvgPool, GlobalMaxPool
from minidl.nn.hooks import evaluating
from minidl.nn.joining import Add, Concat, Multiply, Select, Split, Stack
from minidl.nn.layer import Layer
from minidl.nn.layout import ChannelsFirst
from minidl.nn.linear import Linear
from minidl.nn.losses import BCEWithLogitsLoss, HuberLoss, L1Loss, Loss, MSELoss
from minidl.nn.lsuv import lsuv
from minidl.nn.multi_loss import MultiLoss
from minidl.nn.normalization import BatchNorm, LayerNorm, RMSNorm, Standardize
from minidl.nn.parameter import Parameter
from minidl.nn.pooling import AvgPool1d, AvgPool2d, MaxPool1d, MaxPool2d
from minidl.nn.rectifiers import CELU, ELU, SELU, LeakyReLU, PReLU
from minidl.nn.recurrent.cells import GRUCell, LSTMCell, RNNCell
from minidl.nn.recurrent.layers import GRU, LSTM, RNN
from minidl.nn.reshape import Flatten, Identity
from minidl.nn.residual import Residual, pre_activation
from minidl.nn.upsampling import Upsample

__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "GRU",
    "LSTM",
    "RNN",
    "SELU",
    "Add",
    "AvgPool1d",
    "AvgPool2d",
    "BCEWithLogitsLoss",
    "BatchNorm",
    "ChannelsFirst",
    "Concat",
    "Conv1d",
    "Conv2d",
    "CosineEmbeddingLoss",
    "CosineSimilarityLoss",
    "CrossEntropyLoss",
    "Dropout",
    "Embedding",
    "Flatten",
    "GRUCell",
    "GaussianNLLLoss",
    "GlobalAvgPool",
    "GlobalMaxPool",
    "HardSigmoid",
    "HardSwish",
    "HuberLoss",
    "Identity",
    "L1Loss",
    "LSTMCell",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "Loss",
    "MSELoss",
    "MaxPool1d",
    "MaxPool2d",
    "Mish",
    "MultiLoss",
    "Multiply",
    "NLLLoss",
    "PReLU",
    "Parallel",
    "Parameter",
    "PoissonNLLLoss",
    "QuantileLoss",
    "RMSNorm",
    "RNNCell",
    "ReLU",
    "Residual",
    "Select",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Softsign",
    "Split",
    "Stack",
    "Standardize",
    "Tanh",
    "Upsample",
    "evaluating",
    "init",
    "lsuv",
    "pre_activation",
]
