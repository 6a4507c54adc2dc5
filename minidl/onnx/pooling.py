"""Pooling and upsampling as ONNX operators, and the way back.

ONNX has the channels on axis 1, so a Transpose stands before and behind each of them. Behind a pool
of a whole image, which leaves one pixel, a Flatten takes the place of the second one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minidl import nn
from minidl.nn.layer import Layer
from minidl.onnx.graph_file import Graph, Node
from minidl.onnx.layers import writes
from minidl.onnx.readers import Step, reads
from minidl.onnx.writer import Value, Writer

NEAREST = {
    "mode": "nearest",
    "nearest_mode": "floor",
    "coordinate_transformation_mode": "asymmetric",
}


def _there(rank: int) -> list[int]:
    """Return the order of axes that puts the channels first."""
    return [0, rank - 1, *range(1, rank - 1)]


def _back(rank: int) -> list[int]:
    """Return the order of axes that puts the channels last."""
    return [0, *range(2, rank), 1]


# --- writing ----------------------------------------------------------------------------------


@writes(nn.MaxPool1d)
@writes(nn.MaxPool2d)
@writes(nn.AvgPool1d)
@writes(nn.AvgPool2d)
def _pool(writer: Writer, layer: Any, inputs: list[Value]) -> list[str]:
    sizes, rank = inputs[0].array.shape[1:-1], inputs[0].array.ndim
    pairs = layer.window.padding_for(sizes)
    words: dict[str, Any] = {
        "kernel_shape": list(layer.kernel_size),
        "strides": list(layer.stride),
        "pads": [before for before, _ in pairs] + [after for _, after in pairs],
    }
    kind = "MaxPool"
    if isinstance(layer, nn.AvgPool1d | nn.AvgPool2d):
        kind, words["count_include_pad"] = "AveragePool", int(layer.count_include_pad)
    x = writer.one("Transpose", inputs[0].name, perm=_there(rank))
    return writer.node("Transpose", [writer.one(kind, x, **words)], perm=_back(rank))


@writes(nn.GlobalMaxPool)
@writes(nn.GlobalAvgPool)
def _global_pool(writer: Writer, layer: Layer, inputs: list[Value]) -> list[str]:
    x, *more = inputs
    is_max = isinstance(layer, nn.GlobalMaxPool)
    name = _masked(writer, x, more[0], -np.inf if is_max else 0.0) if more else x.name
    first = writer.one("Transpose", name, perm=_there(x.array.ndim))
    pixel = writer.one("GlobalMaxPool" if is_max else "GlobalAveragePool", first)
    if is_max or not more:
        return writer.node("Flatten", [pixel], axis=1)
    y, steps = writer.one("Flatten", pixel, axis=1), np.float32(x.array.shape[1])
    lengths = writer.one("Unsqueeze", more[0].name, axes=[1])
    share = writer.one("Div", writer.one("Cast", lengths, to=1), writer.constant("steps", steps))
    return writer.node("Div", [y, share])


def _masked(writer: Writer, x: Value, lengths: Value, number: float) -> str:
    """Write x with this number in place of all steps after the end of a sequence."""
    writer.lengths.add(lengths.name)
    steps = writer.constant("times", np.arange(x.array.shape[1], dtype=np.int64)[None])
    each = writer.one("Cast", writer.one("Unsqueeze", lengths.name, axes=[1]), to=7)  # int64
    on = writer.one("Less", steps, each)
    outside = writer.constant("outside", np.float32(number))
    return writer.one("Where", writer.one("Unsqueeze", on, axes=[2]), x.name, outside)


@writes(nn.Upsample)
def _upsample(writer: Writer, layer: nn.Upsample, inputs: list[Value]) -> list[str]:
    rank = inputs[0].array.ndim
    scales = writer.constant("scales", np.array([1, 1, *layer.factors(rank - 2)], np.float32))
    x = writer.one("Transpose", inputs[0].name, perm=_there(rank))
    larger = writer.one("Resize", x, "", scales, **NEAREST)
    return writer.node("Transpose", [larger], perm=_back(rank))


# --- reading ----------------------------------------------------------------------------------


def _before(graph: Graph, node: Node, *kinds: str, place: int = 0) -> Node | None:
    """Return the node that computes an operand, if it is of these kinds and used here alone."""
    name = node.operand(place)
    found = graph.producers.get(name)
    if found is None or found.kind not in kinds or graph.only_user(name) is None:
        return None
    return found


def _between(graph: Graph, node: Node, *kinds: str) -> tuple[Node, Node] | None:
    """Return the Transpose that puts the channels first, and the operator of these kinds after it.

    ``node`` comes after that: None unless it puts the channels last again, or flattens one pixel.
    """
    inside = _before(graph, node, *kinds)
    first = None if inside is None else _before(graph, inside, "Transpose")
    if inside is None or first is None:
        return None
    order = list(first.attributes.get("perm", ()))
    if order != _there(len(order)):
        return None
    if node.kind == "Transpose" and list(node.attributes.get("perm", ())) != _back(len(order)):
        return None
    return first, inside


@reads("Transpose", first=True)
def _read_pool(graph: Graph, node: Node) -> Step | None:
    found = _between(graph, node, "MaxPool", "AveragePool")
    if found is None or len(found[1].results) > 1:
        return None
    first, inside = found
    of = dict(inside.attributes)
    kernel = tuple(of.pop("kernel_shape"))
    d = len(kernel)
    pads, stride = tuple(of.pop("pads", (0,) * 2 * d)), tuple(of.pop("strides", (1,) * d))
    counts = bool(of.pop("count_include_pad", 0))
    if d not in KINDS[inside.kind] or set(of) - {"storage_order", "dilations"} or _unusual(of):
        return None
    padding: Any = tuple(zip(pads[:d], pads[d:], strict=True))
    if padding == ((kernel[0] - 1, 0),) and kernel[0] > 1:
        padding = "causal"
    words = {"count_include_pad": counts} if inside.kind == "AveragePool" else {}
    layer = KINDS[inside.kind][d](kernel, stride, padding, **words)
    return Step(layer, first.operands[:1], node.results, [first, inside, node])


KINDS: dict[str, dict[int, Callable[..., Layer]]] = {
    "MaxPool": {1: nn.MaxPool1d, 2: nn.MaxPool2d},
    "AveragePool": {1: nn.AvgPool1d, 2: nn.AvgPool2d},
}


def _unusual(attributes: dict[str, Any]) -> bool:
    """Whether windows are dilated, which those of minidl's pools are not."""
    return any(distance != 1 for distance in attributes.get("dilations", ()))


@reads("Transpose", first=True)
def _read_upsample(graph: Graph, node: Node) -> Step | None:
    found = _between(graph, node, "Resize")
    if found is None:
        return None
    first, inside = found
    scales = graph.constant(inside, 2)
    if inside.attributes != NEAREST or scales is None or inside.operand(3):
        return None
    batch, channels, *factors = scales.tolist()
    if (batch, channels) != (1, 1) or any(f != int(f) or f < 1 for f in factors):
        return None
    if len(factors) == 1:
        layer = nn.Upsample(int(factors[0]))
    elif len(factors) == 2:
        layer = nn.Upsample(tuple(map(int, factors)))
    else:
        return None
    return Step(layer, first.operands[:1], node.results, [first, inside, node])


GLOBAL: dict[str, Callable[[], Layer]] = {
    "GlobalMaxPool": nn.GlobalMaxPool,
    "GlobalAveragePool": nn.GlobalAvgPool,
}


@reads("Flatten", first=True)
def _read_global_pool(graph: Graph, node: Node) -> Step | None:
    found = _between(graph, node, *GLOBAL)
    if found is None or node.attributes.get("axis", 1) != 1:
        return None
    first, inside = found
    layer, nodes, inputs = GLOBAL[inside.kind](), [first, inside, node], first.operands[:1]
    if inside.kind == "GlobalMaxPool" and (masked := _read_masked(graph, first, -np.inf)):
        inputs, more = masked
        nodes = [*more, *nodes]
    return Step(layer, inputs, node.results, nodes)


@reads("Div", first=True)
def _read_mean_of_lengths(graph: Graph, node: Node) -> Step | None:
    """Read the mean of padded sequences: that of all steps, over the share that is no padding."""
    flat, share = _before(graph, node, "Flatten"), _before(graph, node, "Div", place=1)
    found = None if flat is None else _between(graph, flat, "GlobalAveragePool")
    cast = None if share is None else _before(graph, share, "Cast")
    each = None if cast is None else _before(graph, cast, "Unsqueeze")
    if flat is None or share is None or found is None or cast is None or each is None:
        return None
    masked = _read_masked(graph, found[0], 0.0)
    steps = graph.constant(share, 1)
    if masked is None or steps is None or each.attributes.get("axes") != [1]:
        return None
    inputs, more = masked
    count = graph.constants[more[0].operand(0)].size
    if each.operands[0] != inputs[1] or steps.size != 1 or steps.item() != count:
        return None
    nodes = [*more, *found, flat, each, cast, share, node]
    return Step(nn.GlobalAvgPool(), inputs, node.results, nodes)


def _read_masked(
    graph: Graph, node: Node, number: float
) -> tuple[tuple[str, ...], list[Node]] | None:
    """Read ``_masked`` before a node: x and lengths, and the nodes."""
    where = _before(graph, node, "Where")
    wide = None if where is None else _before(graph, where, "Unsqueeze")
    less = None if wide is None else _before(graph, wide, "Less")
    cast = None if less is None else _before(graph, less, "Cast", place=1)
    each = None if cast is None else _before(graph, cast, "Unsqueeze")
    if where is None or wide is None or less is None or cast is None or each is None:
        return None
    outside, times = graph.constant(where, 2), graph.constant(less, 0)
    if outside is None or outside.size != 1 or outside.item() != number or times is None:
        return None
    if times.ndim != 2 or not np.array_equal(times, np.arange(times.size)[None]):
        return None
    if (wide.attributes.get("axes"), each.attributes.get("axes")) != ([2], [1]):
        return None
    return (where.operands[1], each.operands[0]), [less, cast, each, wide, where]
