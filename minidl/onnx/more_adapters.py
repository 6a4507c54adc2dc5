"""Layers that only loaded graphs need: means over any axes, and padding of any."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minidl.onnx.adapter import Adapter
from minidl.onnx.graph_file import Graph, Node
from minidl.onnx.layers import writes
from minidl.onnx.readers import Step, reads, step
from minidl.onnx.writer import Value, Writer
from minidl.typing import Array


class Mean(Adapter):
    """y = the mean of x over some axes, all for None,  dx = dy / n."""

    holds = ("axes", "keepdims")

    def __init__(self, axes: Sequence[int] | None, keepdims: bool) -> None:
        self.axes, self.keepdims = None if axes is None else tuple(axes), keepdims

    def forward(self, x: Array) -> Array:
        self.save(x.shape)
        return np.asarray(x.mean(self.axes, keepdims=self.keepdims, dtype=np.float64), x.dtype)

    def backward(self, dy: Array) -> Array:
        shape = self.saved(dy)
        ones = np.empty(shape, bool).any(self.axes, keepdims=True).shape
        count = math.prod(shape) // max(math.prod(ones), 1)
        return np.broadcast_to(dy.reshape(ones) / count, shape).astype(dy.dtype)


class Pad(Adapter):
    """y = x with a number around it, so many times before and after each axis."""

    holds = ("sizes", "number")

    def __init__(self, sizes: Sequence[int], number: float = 0.0) -> None:
        self.sizes, self.number = tuple(sizes), float(number)

    def pairs(self, rank: int) -> list[tuple[int, int]]:
        """Return (before, after) of each axis; ``sizes`` has all those before first."""
        if len(self.sizes) != 2 * rank:
            raise ValueError(
                f"{self.label}: pads {len(self.sizes) // 2} axes, and the input has {rank}"
            )
        return list(zip(self.sizes[:rank], self.sizes[rank:], strict=True))

    def forward(self, x: Array) -> Array:
        self.save(x.shape)
        return np.pad(x, self.pairs(x.ndim), constant_values=self.number)

    def backward(self, dy: Array) -> Array:
        shape = self.saved(dy)
        inside = tuple(
            slice(before, before + size)
            for size, (before, _) in zip(shape, self.pairs(len(shape)), strict=True)
        )
        return np.ascontiguousarray(dy[inside])


# --- reading ----------------------------------------------------------------------------------


@reads("ReduceMean")
def _read_mean(graph: Graph, node: Node) -> Step | None:
    of = node.attributes
    axes = tuple(of.get("axes", ())) or None
    return step(node, Mean(axes, bool(of.get("keepdims", 1))))


@reads("Pad")
def _read_pad(graph: Graph, node: Node) -> Step | None:
    of = node.attributes
    if of.get("mode", "constant") != "constant":
        graph.refuse(node, f"its mode is {of['mode']}, and minidl pads with a constant")
    if node.operand(3):
        graph.refuse(node, "it names axes")
    pads, number = graph.constant(node, 1), graph.constant(node, 2)
    sizes: Any = of.get("pads") if pads is None else [int(size) for size in pads]
    if sizes is None or min(sizes, default=0) < 0:
        graph.refuse(node, "its pads are negative, or missing")
    return step(node, Pad(sizes, of.get("value", 0.0) if number is None else number.item()))


# --- writing ----------------------------------------------------------------------------------


@writes(Mean)
def _write_mean(writer: Writer, layer: Mean, inputs: list[Value]) -> list[str]:
    rank = inputs[0].array.ndim
    axes = list(layer.axes or range(-rank, 0))
    return writer.node("ReduceMean", [inputs[0].name], axes=axes, keepdims=int(layer.keepdims))


@writes(Pad)
def _write_pad(writer: Writer, layer: Pad, inputs: list[Value]) -> list[str]:
    pads = writer.constant("pads", np.array(layer.sizes, np.int64))
    number = writer.constant("number", np.float32(layer.number))
    return writer.node("Pad", [inputs[0].name, pads, number])
