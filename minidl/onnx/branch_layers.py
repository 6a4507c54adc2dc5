"""How layers that join and part arrays are written as ONNX operators."""

from __future__ import annotations

from functools import reduce

import numpy as np

from minidl import nn
from minidl.onnx.layers import writes
from minidl.onnx.layout import all_turned, turned, turned_back
from minidl.onnx.writer import Value, Writer


def joined(writer: Writer, kind: str, inputs: list[Value]) -> list[str]:
    """Write a sum or a product of two or more values of one shape."""
    if all_turned(writer, inputs):
        y = reduce(lambda a, b: writer.one(kind, a, b), [turned(writer, x) for x in inputs])
        return [turned_back(writer, y, inputs[0].array.ndim)]
    return [reduce(lambda a, b: writer.one(kind, a, b), [x.name for x in inputs])]


@writes(nn.Add)
def _add(writer: Writer, layer: nn.Add, inputs: list[Value]) -> list[str]:
    return joined(writer, "Add", inputs)


@writes(nn.Multiply)
def _multiply(writer: Writer, layer: nn.Multiply, inputs: list[Value]) -> list[str]:
    return joined(writer, "Mul", inputs)


@writes(nn.Concat)
def _concat(writer: Writer, layer: nn.Concat, inputs: list[Value]) -> list[str]:
    if all_turned(writer, inputs):
        y = writer.node("Concat", [turned(writer, x) for x in inputs], axis=1)
        return [turned_back(writer, y[0], inputs[0].array.ndim)]
    return writer.node("Concat", [x.name for x in inputs], axis=-1)


@writes(nn.Stack)
def _stack(writer: Writer, layer: nn.Stack, inputs: list[Value]) -> list[str]:
    parts = [writer.one("Unsqueeze", x.name, axes=[-2]) for x in inputs]
    return writer.node("Concat", parts, axis=-2)


@writes(nn.Split)
def _split(writer: Writer, layer: nn.Split, inputs: list[Value]) -> list[str]:
    sizes = writer.constant("sizes", np.array(layer.sizes, np.int64))
    count, (x,) = len(layer.sizes), inputs
    if all_turned(writer, inputs):
        parts = writer.node("Split", [turned(writer, x), sizes], count, axis=1)
        return [turned_back(writer, part, x.array.ndim) for part in parts]
    return writer.node("Split", [x.name, sizes], count, axis=-1)


@writes(nn.Select)
def _select(writer: Writer, layer: nn.Select, inputs: list[Value]) -> list[str]:
    return writer.node("Identity", [inputs[layer.index].name])
