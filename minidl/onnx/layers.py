"""How each layer is written as ONNX operators: one function for each, or one line of a table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minidl import nn
from minidl.nn.layer import Layer
from minidl.onnx import patterns
from minidl.onnx.layout import all_turned, turned, with_channels_first
from minidl.onnx.patterns import Pattern
from minidl.onnx.writer import Value, Writer

# A function that writes a layer: given the writer, the layer and its inputs, the names of outputs.
Write = Callable[[Writer, Any, list[Value]], list[str]]

WRITERS: dict[type[Layer], Write] = {}


def writes(kind: type[Layer]) -> Callable[[Write], Write]:
    """Register the function that writes a class of layers."""

    def register(function: Write) -> Write:
        WRITERS[kind] = function
        return function

    return register


def operator(kind: str, attributes: Callable[[Any], dict[str, Any]]) -> Write:
    """Return a function that writes one operator, with attributes taken from the layer."""

    def write(writer: Writer, layer: Any, inputs: list[Value]) -> list[str]:
        return writer.node(kind, [inputs[0].name], **attributes(layer))

    return write


def _pattern(pattern: Pattern, constants: Callable[[Any], dict[str, Any]]) -> Write:
    """Return a function that writes a pattern, with constants taken from the layer."""

    def write(writer: Writer, layer: Any, inputs: list[Value]) -> list[str]:
        return writer.expand(pattern, [value.name for value in inputs], constants(layer))

    return write


def _none(layer: Any) -> dict[str, Any]:
    return {}


def _of_cell(cell: Any) -> dict[str, Any]:
    """Return the weights of a recurrent cell by name."""
    return {name: parameter.data for name, parameter in cell.named_parameters()}


WRITERS |= {
    nn.ReLU: operator("Relu", _none),
    nn.Sigmoid: operator("Sigmoid", _none),
    nn.Tanh: operator("Tanh", _none),
    nn.Softsign: operator("Softsign", _none),
    nn.HardSwish: operator("HardSwish", _none),
    nn.HardSigmoid: operator("HardSigmoid", lambda layer: {"alpha": 1 / 6, "beta": 0.5}),
    nn.LeakyReLU: operator("LeakyRelu", lambda layer: {"alpha": layer.slope}),
    nn.ELU: operator("Elu", lambda layer: {"alpha": layer.alpha}),
    nn.CELU: operator("Celu", lambda layer: {"alpha": layer.alpha}),
    nn.SELU: operator("Selu", _none),
    nn.Identity: operator("Identity", _none),
    nn.SiLU: _pattern(patterns.SILU, _none),
    nn.Mish: _pattern(patterns.MISH, _none),
    nn.Standardize: _pattern(
        patterns.STANDARDIZE, lambda layer: {"mean": layer.mean, "std": layer.std}
    ),
    nn.LSTMCell: _pattern(patterns.LSTM_CELL, _of_cell),
    nn.GRUCell: _pattern(patterns.GRU_CELL, _of_cell),
}


@writes(nn.Linear)
def _linear(writer: Writer, layer: nn.Linear, inputs: list[Value]) -> list[str]:
    (x,) = inputs
    weight = writer.constant("weight", layer.weight.data)
    bias = [writer.constant("bias", layer.bias.data)] if layer.bias else []
    if x.array.ndim == 2:
        return writer.node("Gemm", [x.name, weight, *bias])
    product = writer.one("MatMul", x.name, weight)
    return writer.node("Add", [product, *bias]) if bias else [product]


@writes(nn.GELU)
def _gelu(writer: Writer, layer: nn.GELU, inputs: list[Value]) -> list[str]:
    pattern = patterns.GELU if layer.approximate == "none" else patterns.GELU_TANH
    return writer.expand(pattern, [inputs[0].name])


@writes(nn.Softplus)
def _softplus(writer: Writer, layer: nn.Softplus, inputs: list[Value]) -> list[str]:
    if layer.beta == 1:
        return writer.node("Softplus", [inputs[0].name])
    return writer.expand(patterns.SOFTPLUS, [inputs[0].name], {"beta": np.float32(layer.beta)})


@writes(nn.Softmax)
@writes(nn.LogSoftmax)
def _softmax(writer: Writer, layer: Layer, inputs: list[Value]) -> list[str]:
    kind = "Softmax" if isinstance(layer, nn.Softmax) else "LogSoftmax"
    if all_turned(writer, inputs):
        return with_channels_first(writer, kind, inputs, axis=1)
    return writer.node(kind, [inputs[0].name], axis=-1)


@writes(nn.PReLU)
def _prelu(writer: Writer, layer: nn.PReLU, inputs: list[Value]) -> list[str]:
    if all_turned(writer, inputs):
        slopes = layer.weight.data.reshape(-1, *(1 for _ in inputs[0].array.shape[2:]))
        return with_channels_first(writer, "PRelu", inputs, writer.constant("weight", slopes))
    return writer.node("PRelu", [inputs[0].name, writer.constant("weight", layer.weight.data)])


@writes(nn.Dropout)
def _dropout(writer: Writer, layer: nn.Dropout, inputs: list[Value]) -> list[str]:
    return writer.node("Dropout", [inputs[0].name, writer.constant("ratio", np.float32(layer.p))])


@writes(nn.BatchNorm)
def _batch_norm(writer: Writer, layer: nn.BatchNorm, inputs: list[Value]) -> list[str]:
    arrays = {
        **{name: parameter.data for name, parameter in layer.named_parameters()},
        **layer.state(),
    }
    constants = [writer.constant(name, array) for name, array in arrays.items()]
    options = {"epsilon": layer.eps, "momentum": 1 - layer.momentum}
    return with_channels_first(writer, "BatchNormalization", inputs, *constants, **options)


@writes(nn.LayerNorm)
def _layer_norm(writer: Writer, layer: nn.LayerNorm, inputs: list[Value]) -> list[str]:
    constants = [writer.constant(name, p.data) for name, p in layer.named_parameters()]
    operands = [inputs[0].name, *constants]
    return writer.node("LayerNormalization", operands, axis=-1, epsilon=layer.eps)


@writes(nn.RMSNorm)
def _rms_norm(writer: Writer, layer: nn.RMSNorm, inputs: list[Value]) -> list[str]:
    eps = np.float32(layer.epsilon(np.dtype(np.float32)))
    constants = {"eps": eps, "gamma": layer.gamma.data}
    return writer.expand(patterns.RMS_NORM, [inputs[0].name], constants)


@writes(nn.Embedding)
def _embedding(writer: Writer, layer: nn.Embedding, inputs: list[Value]) -> list[str]:
    return writer.node("Gather", [writer.constant("weight", layer.weight.data), inputs[0].name])


@writes(nn.Flatten)
def _flatten(writer: Writer, layer: nn.Flatten, inputs: list[Value]) -> list[str]:
    (x,) = inputs
    start, rank = layer.start_dim, x.array.ndim
    stop = 1 + layer.end_dim + (rank if layer.end_dim < 0 else 0)
    if layer.channels_first:
        return writer.node("Flatten", [turned(writer, x)], axis=1)
    if (start, stop) == (1, rank):
        return writer.node("Flatten", [x.name], axis=1)
    sizes = [*[0] * start, -1, *x.array.shape[stop:]]  # 0: as in the input
    return writer.node("Reshape", [x.name, writer.shape(*sizes)])


@writes(nn.RNNCell)
def _rnn_cell(writer: Writer, layer: nn.RNNCell, inputs: list[Value]) -> list[str]:
    pattern = patterns.RNN_CELL[layer.nonlinearity]
    return writer.expand(pattern, [value.name for value in inputs], _of_cell(layer))
