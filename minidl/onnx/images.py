"""Convolution, pooling and upsampling as ONNX operators, and those operators as layers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minidl import nn
from minidl.nn.layer import Layer
from minidl.onnx import more_adapters
from minidl.onnx.channel_readers import reads_channels
from minidl.onnx.graph_file import Graph, Node
from minidl.onnx.layers import writes
from minidl.onnx.layout import turned, turned_back, with_channels_first
from minidl.onnx.readers import fill
from minidl.onnx.writer import Value, Writer

NEAREST = {
    "mode": "nearest",
    "nearest_mode": "floor",
    "coordinate_transformation_mode": "asymmetric",
}

# --- writing ----------------------------------------------------------------------------------


def _places(layer: Any, x: Value) -> dict[str, Any]:
    """Return the attributes that say where the windows of a layer lie."""
    pairs = layer.window.padding_for(x.array.shape[1:-1])
    return {
        "kernel_shape": list(layer.kernel_size),
        "strides": list(layer.stride),
        "pads": [before for before, _ in pairs] + [after for _, after in pairs],
    }


@writes(nn.Conv1d)
@writes(nn.Conv2d)
def _convolution(writer: Writer, layer: Any, inputs: list[Value]) -> list[str]:
    weight = np.moveaxis(layer.weight.data, (-1, -2), (0, 1))  # outputs, inputs, window
    constants = [writer.constant("weight", weight)]
    constants += [writer.constant("bias", layer.bias.data)] if layer.bias else []
    options = {"dilations": list(layer.window.dilation), "group": layer.groups}
    places = _places(layer, inputs[0])
    return with_channels_first(writer, "Conv", inputs, *constants, **places, **options)


@writes(nn.MaxPool1d)
@writes(nn.MaxPool2d)
def _max_pool(writer: Writer, layer: Any, inputs: list[Value]) -> list[str]:
    return with_channels_first(writer, "MaxPool", inputs, **_places(layer, inputs[0]))


@writes(nn.AvgPool1d)
@writes(nn.AvgPool2d)
def _avg_pool(writer: Writer, layer: Any, inputs: list[Value]) -> list[str]:
    counts = int(layer.count_include_pad)
    places = _places(layer, inputs[0])
    return with_channels_first(writer, "AveragePool", inputs, **places, count_include_pad=counts)


@writes(nn.GlobalMaxPool)
@writes(nn.GlobalAvgPool)
def _global_pool(writer: Writer, layer: Any, inputs: list[Value]) -> list[str]:
    x, *more = inputs
    is_max = isinstance(layer, nn.GlobalMaxPool)
    if more:
        x = Value(_masked(writer, x, more[0], -np.inf if is_max else 0.0), x.array)
    kind, rank = "GlobalMaxPool" if is_max else "GlobalAveragePool", x.array.ndim
    pixel = writer.one(kind, turned(writer, x))
    if more and not is_max:
        pixel = writer.one("Div", pixel, _share(writer, x, more[0]))
    if layer.keepdims:
        return [turned_back(writer, pixel, rank)]
    return writer.node("Flatten", [pixel], axis=1)


def _masked(writer: Writer, x: Value, lengths: Value, number: float) -> str:
    """Write x with this number in place of all steps after the end of a sequence."""
    writer.lengths.add(lengths.name)
    steps = writer.constant("times", np.arange(x.array.shape[1], dtype=np.int32)[None])
    on = writer.one("Less", steps, writer.one("Unsqueeze", lengths.name, axes=[1]))
    outside = writer.constant("outside", np.float32(number))
    return writer.one("Where", writer.one("Unsqueeze", on, axes=[2]), x.name, outside)


def _share(writer: Writer, x: Value, lengths: Value) -> str:
    """Write which share of the steps is no padding, (batch, 1, 1)."""
    steps = writer.constant("steps", np.float32(x.array.shape[1]))
    count = writer.one("Cast", writer.one("Unsqueeze", lengths.name, axes=[1, 2]), to=1)
    return writer.one("Div", count, steps)


@writes(nn.Upsample)
def _upsample(writer: Writer, layer: nn.Upsample, inputs: list[Value]) -> list[str]:
    factors = layer.factors(inputs[0].array.ndim - 2)
    scales = writer.constant("scales", np.array([1, 1, *factors], np.float32))
    return with_channels_first(writer, "Resize", inputs, "", scales, **NEAREST)


# --- reading ----------------------------------------------------------------------------------


def _padding(graph: Graph, node: Node, reach: tuple[int, ...], strides: tuple[int, ...]) -> Any:
    """Return the padding that a node has around its input, as minidl's layers take it."""
    automatic, dimensions = node.attributes.get("auto_pad", "NOTSET"), len(reach)
    pads = node.attributes.get("pads", [0] * 2 * dimensions)
    pairs = tuple(zip(pads[:dimensions], pads[dimensions:], strict=True))
    if automatic == "VALID":
        return "valid"
    if automatic == "SAME_UPPER":
        return "same"
    if automatic == "SAME_LOWER":
        sizes = graph.shapes.get(node.operands[0], ())[2:] or (-1,) * dimensions
        return tuple(
            _odd_before(graph, node, *numbers)
            for numbers in zip(sizes, reach, strides, strict=True)
        )
    is_causal = dimensions == 1 and pairs == ((reach[0] - 1, 0),) and reach[0] > 1
    return "causal" if is_causal else pairs


def _odd_before(graph: Graph, node: Node, size: int, reach: int, stride: int) -> tuple[int, int]:
    """Return the padding that makes ⌈size / stride⌉ windows, an odd element of it before."""
    if size < 0 and stride > 1:
        graph.refuse(node, "its padding SAME_LOWER depends on the size of its input, not known")
    total = reach - 1 if stride == 1 else (math.ceil(size / stride) - 1) * stride + reach - size
    total = max(total, 0)
    return total - total // 2, total // 2


@reads_channels("Conv")
def _read_convolution(graph: Graph, node: Node) -> Layer:
    of, weight = node.attributes, graph.weights(node, 1)
    kernel, groups = weight.shape[2:], of.get("group", 1)
    if tuple(of.get("kernel_shape", kernel)) != kernel:
        graph.refuse(node, f"its kernel_shape {of['kernel_shape']} is not that of its weights")
    strides, dilations = _numbers(of, "strides", kernel), _numbers(of, "dilations", kernel)
    reach = tuple(d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True))
    kind = _of_dimensions(graph, node, len(kernel), nn.Conv1d, nn.Conv2d)
    bias = graph.weights(node, 2) if node.operand(2) else None
    layer = kind(
        weight.shape[1] * groups,
        len(weight),
        kernel,
        strides,
        _padding(graph, node, reach, strides),
        dilations,
        groups,
        bias is not None,
        rng=0,
        dtype=weight.dtype,
    )
    arrays = {} if bias is None else {"bias": bias}
    fill(layer, weight=np.moveaxis(weight, (0, 1), (-1, -2)), **arrays)
    made: Layer = layer
    return made


def _numbers(attributes: dict[str, Any], name: str, kernel: tuple[int, ...]) -> tuple[int, ...]:
    """Return an attribute that has a number for each dimension, by default 1."""
    return tuple(attributes.get(name, (1,) * len(kernel)))


def _of_dimensions(graph: Graph, node: Node, dimensions: int, *kinds: Any) -> Any:
    """Return the class for sequences, or that for images."""
    if dimensions not in (1, 2):
        graph.refuse(node, f"it has {dimensions} dimensions, and minidl's layers have one or two")
    return kinds[dimensions - 1]


@reads_channels("MaxPool", "AveragePool")
def _read_pool(graph: Graph, node: Node) -> Layer:
    of = node.attributes
    kernel = tuple(of["kernel_shape"])
    strides = _numbers(of, "strides", kernel)
    if of.get("ceil_mode", 0):
        graph.refuse(node, "it has ceil_mode, windows that reach out of the padding")
    if any(step != 1 for step in _numbers(of, "dilations", kernel)):
        graph.refuse(node, f"its windows have dilations {of['dilations']}, and minidl's have not")
    if graph.is_used(node.result(1)):
        graph.refuse(node, "its second output, the places of the maxima, is used")
    padding = _padding(graph, node, kernel, strides)
    counts = bool(of.get("count_include_pad", 0))
    makers = (
        (nn.MaxPool1d, nn.MaxPool2d) if node.kind == "MaxPool" else (nn.AvgPool1d, nn.AvgPool2d)
    )
    kind = _of_dimensions(graph, node, len(kernel), *makers)
    options = {} if node.kind == "MaxPool" else {"count_include_pad": counts}
    is_wide = not isinstance(padding, str) and any(
        2 * max(pair) > size for pair, size in zip(padding, kernel, strict=True)
    )
    if not is_wide or options == {"count_include_pad": False}:
        pool: Layer = kind(kernel, strides, padding, **options)
        return pool
    around = [(0, 0), *padding, (0, 0)]  # more than the layer takes
    sizes = [before for before, _ in around] + [after for _, after in around]
    pad = more_adapters.Pad(sizes, 0.0 if options else -np.inf)
    return nn.Sequential(pad, kind(kernel, strides, **options))


@reads_channels("GlobalMaxPool", "GlobalAveragePool")
def _read_global_pool(graph: Graph, node: Node) -> Layer:
    return (nn.GlobalMaxPool if node.kind == "GlobalMaxPool" else nn.GlobalAvgPool)(keepdims=True)


@reads_channels("ReduceMean", "ReduceMax", first=True)
def _read_reduction(graph: Graph, node: Node) -> Layer | None:
    rank, axes = graph.ranks.get(node.operands[0], 0), node.attributes.get("axes", ())
    if rank not in (3, 4) or sorted(axis % rank for axis in axes) != list(range(2, rank)):
        if node.kind == "ReduceMax":
            graph.refuse(node, "it is not over all pixels, or all steps, as GlobalMaxPool is")
        return None  # Mean takes any axes
    kind = nn.GlobalAvgPool if node.kind == "ReduceMean" else nn.GlobalMaxPool
    return kind(bool(node.attributes.get("keepdims", 1)))


@reads_channels("Resize", "Upsample")
def _read_upsample(graph: Graph, node: Node) -> Layer:
    of = node.attributes
    if of.get("mode", "nearest") != "nearest":
        graph.refuse(node, f"its mode is {of['mode']}, and minidl's Upsample repeats pixels")
    if node.kind == "Resize" and graph.opset > 10 and not _repeats(of):
        graph.refuse(node, "it does not repeat pixels, but takes others in between")
    if of.get("axes") or of.get("antialias", 0):
        graph.refuse(node, "it has axes, or antialias, which minidl's Upsample has not")
    scales = _scales(graph, node)
    whole = [int(scale) for scale in scales]
    if whole != scales or whole[:2] != [1, 1] or min(whole) < 1 or len(whole) not in (3, 4):
        graph.refuse(node, f"its scales {scales} are not whole numbers for the pixels alone")
    return nn.Upsample(whole[2] if len(whole) == 3 else tuple(whole[2:]))


def _repeats(attributes: dict[str, Any]) -> bool:
    """Return whether the pixel of a larger image is that of the smaller one at ⌊place / scale⌋."""
    how = attributes.get("coordinate_transformation_mode", "half_pixel")
    rounds = attributes.get("nearest_mode", "round_prefer_floor")
    return (how, rounds) in {
        ("asymmetric", "floor"),
        # Whole scales: the middle of a pixel is never half way between two others.
        *((mode, f"round_prefer_{end}") for mode in HALVES for end in ("floor", "ceil")),
    }


HALVES = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel")


def _scales(graph: Graph, node: Node) -> list[float]:
    """Return how much larger each axis becomes."""
    place = 2 if node.kind == "Resize" and graph.opset > 10 else 1
    if node.operand(3):
        sizes, before = graph.constant(node, 3), graph.shapes.get(node.operands[0], ())
        if sizes is None or len(sizes) != len(before) or min(before[2:], default=-1) < 1:
            graph.refuse(node, "its sizes are given, and those of its input are not known")
        return [1.0, 1.0, *(int(n) / old for n, old in zip(sizes[2:], before[2:], strict=True))]
    scales: list[float] = graph.weights(node, place).tolist()
    return scales
