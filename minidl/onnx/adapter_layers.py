"""How the layers that only loaded graphs have are written as ONNX operators again."""

from __future__ import annotations

import numpy as np

from minidl.onnx import adapters
from minidl.onnx.layers import WRITERS, operator, writes
from minidl.onnx.layout import channels_first, channels_last, turned, turned_back
from minidl.onnx.writer import Value, Writer

WRITERS |= {
    adapters.Matrix: operator("Flatten", lambda layer: {"axis": layer.axis}),
    adapters.Squeeze: operator("Squeeze", lambda layer: {"axes": layer.axes}),
    adapters.Unsqueeze: operator("Unsqueeze", lambda layer: {"axes": layer.axes}),
}


def _names(values: list[Value]) -> list[str]:
    return [value.name for value in values]


@writes(adapters.Transpose)
def _transpose(writer: Writer, layer: adapters.Transpose, inputs: list[Value]) -> list[str]:
    (x,), order = inputs, list(layer.order)
    if len(order) > 2 and order == channels_first(len(order)):
        return [turned(writer, x)]
    if len(order) > 2 and order == channels_last(len(order)):
        return [turned_back(writer, x.name, len(order))]
    return writer.node("Transpose", [x.name], perm=order)


@writes(adapters.Add)
def _add(writer: Writer, layer: adapters.Add, inputs: list[Value]) -> list[str]:
    return writer.node("Add", _names(inputs))


@writes(adapters.Multiply)
def _multiply(writer: Writer, layer: adapters.Multiply, inputs: list[Value]) -> list[str]:
    return writer.node("Mul", _names(inputs))


@writes(adapters.Affine)
def _affine(writer: Writer, layer: adapters.Affine, inputs: list[Value]) -> list[str]:
    (y,) = _names(inputs)
    if (layer.scale != 1).any():
        y = writer.one("Mul", y, writer.constant("scale", layer.scale))
    if (layer.shift != 0).any():
        y = writer.one("Add", y, writer.constant("shift", layer.shift))
    return [y]


@writes(adapters.Reshape)
def _reshape(writer: Writer, layer: adapters.Reshape, inputs: list[Value]) -> list[str]:
    return writer.node("Reshape", [inputs[0].name, writer.shape(*layer.sizes)])


@writes(adapters.Concat)
def _concat(writer: Writer, layer: adapters.Concat, inputs: list[Value]) -> list[str]:
    return writer.node("Concat", _names(inputs), axis=layer.axis)


@writes(adapters.Split)
def _split(writer: Writer, layer: adapters.Split, inputs: list[Value]) -> list[str]:
    (x,) = inputs
    sizes = layer.sizes_of(x.array.shape[layer.axis])
    operands = [x.name]
    if len(set(sizes)) > 1:  # opset 17 has parts of one size, or sizes
        operands.append(writer.constant("sizes", np.array(sizes, np.int64)))
    return writer.node("Split", operands, layer.count, axis=layer.axis)


@writes(adapters.Take)
def _take(writer: Writer, layer: adapters.Take, inputs: list[Value]) -> list[str]:
    place = writer.constant("place", np.array(layer.place, np.int64))
    return writer.node("Gather", [inputs[0].name, place], axis=layer.axis)


@writes(adapters.Gather)
def _gather(writer: Writer, layer: adapters.Gather, inputs: list[Value]) -> list[str]:
    table = writer.constant("table", layer.table)
    return writer.node("Gather", [table, inputs[0].name], axis=layer.axis)


@writes(adapters.DropoutWithMask)
def _dropout(writer: Writer, layer: adapters.DropoutWithMask, inputs: list[Value]) -> list[str]:
    return writer.node("Dropout", _names(inputs), 2)


@writes(adapters.NormWithStatistics)
def _norm(writer: Writer, layer: adapters.NormWithStatistics, inputs: list[Value]) -> list[str]:
    (x,), norm = inputs, layer.norm
    shape = x.array.shape[layer.axis :]
    constants = [
        writer.constant(name, parameter.data.reshape(shape))
        for name, parameter in norm.named_parameters()
    ]
    return writer.node(
        "LayerNormalization", [x.name, *constants], 3, axis=layer.axis, epsilon=norm.eps
    )
