"""Which layer each ONNX operator becomes: functions that read a node, by kind of operator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl import nn
from minidl.nn.layer import Layer
from minidl.onnx import adapters
from minidl.onnx.axes import check_axes
from minidl.onnx.graph_file import Graph, Node, shortest
from minidl.saving.tensor_file import ModelFileError
from minidl.typing import Array


@dataclass(frozen=True)
class Step:
    """A layer of a loaded graph, the values that it takes and gives, and the nodes that it is."""

    layer: Layer
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: Sequence[Node]


# A function that reads a node: None where the node is something else, for the next function.
Reader = Callable[[Graph, Node], Step | None]

READERS: dict[str, list[Reader]] = {}


def reads(*kinds: str, first: bool = False) -> Callable[[Reader], Reader]:
    """Register a function that reads operators of these kinds, before or after the others."""

    def register(function: Reader) -> Reader:
        for kind in kinds:
            functions = READERS.setdefault(kind, [])
            functions.insert(0 if first else len(functions), function)
        return function

    return register


def read(graph: Graph, node: Node) -> Step:
    """Return the layer that a node becomes, with the nodes before it that belong to it.

    Raises
    ------
    ModelFileError
        If minidl has no such layer.
    """
    if node.operands and graph.constants.keys() >= set(filter(None, node.operands)):
        graph.refuse(node, "its operands are constants only; compute it before the export")
    why = "minidl has no such layer"
    try:
        check_axes(graph, node)
        for reader in READERS.get(node.kind, ()):
            if (step := reader(graph, node)) is not None:
                return step
    except ModelFileError:
        raise
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        why = str(error)
    return graph.refuse(node, why)


def step(node: Node, layer: Layer, *, outputs: int = 1) -> Step:
    """Return the step of a layer that is one node with one input."""
    return Step(layer, node.operands[:1], node.results[:outputs], [node])


def on_rows(graph: Graph, node: Node, layer: Layer) -> Step:
    """Return the step of a layer on all but one axis, also of a vector, which is one row."""
    vector = graph.ranks.get(node.operands[0], 2) < 2
    return step(node, adapters.AsRows(layer, 0) if vector else layer)


def fill(layer: Any, **arrays: Array) -> Any:
    """Copy arrays into the parameters and the state of a layer; return it."""
    for name, array in arrays.items():
        place = getattr(layer, name)
        if isinstance(place, nn.Parameter):
            place.data = array
        else:
            place[...] = array
    return layer


def make_linear(weight: Array, bias: Array | None = None) -> nn.Linear:
    """Return a Linear with this weight (in_features, out_features) and this bias."""
    width, features = weight.shape
    layer = nn.Linear(width, features, bias=bias is not None, rng=0, dtype=weight.dtype)
    arrays = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
    filled: nn.Linear = fill(layer, **arrays)
    return filled


# --- activations ------------------------------------------------------------------------------

SELU = (1.6732632, 1.050701)  # α and λ of nn.SELU in float32

ACTIVATIONS: dict[str, Callable[[dict[str, Any]], Layer]] = {
    "Relu": lambda of: nn.ReLU(),
    "Sigmoid": lambda of: nn.Sigmoid(),
    "Tanh": lambda of: nn.Tanh(),
    "Softsign": lambda of: nn.Softsign(),
    "Softplus": lambda of: nn.Softplus(),
    "HardSwish": lambda of: nn.HardSwish(),
    "Mish": lambda of: nn.Mish(),
    "Identity": lambda of: nn.Identity(),
    "LeakyRelu": lambda of: nn.LeakyReLU(of.get("alpha", 0.01)),
    "Elu": lambda of: nn.ELU(of.get("alpha", 1.0)),
    "Celu": lambda of: nn.CELU(of.get("alpha", 1.0)),
    "Selu": lambda of: _selu(of.get("alpha", SELU[0]), of.get("gamma", SELU[1])),
    "HardSigmoid": lambda of: _hard_sigmoid(of.get("alpha", 0.2), of.get("beta", 0.5)),
    "Gelu": lambda of: nn.GELU(of.get("approximate", "none")),
}


def _selu(alpha: float, gamma: float) -> Layer:
    if np.allclose((alpha, gamma), SELU, rtol=1e-6):
        return nn.SELU()
    return nn.Sequential(nn.ELU(alpha), adapters.Affine(gamma))


def _hard_sigmoid(alpha: float, beta: float) -> Layer:
    """min(max(α · x + β, 0), 1): that of minidl, with α = 1/6 and β = 1/2, behind an affine map."""
    if np.isclose(alpha, 1 / 6, rtol=1e-6) and beta == 0.5:
        return nn.HardSigmoid()
    return nn.Sequential(adapters.Affine(6 * alpha, 6 * beta - 3), nn.HardSigmoid())


@reads(*ACTIVATIONS)
def _activation(graph: Graph, node: Node) -> Step:
    return on_rows(graph, node, ACTIVATIONS[node.kind](node.attributes))


@reads("Swish")
def _swish(graph: Graph, node: Node) -> Step:
    if node.attributes.get("alpha", 1.0) != 1:
        graph.refuse(node, f"its alpha is {node.attributes['alpha']:g}, and that of SiLU is 1")
    return on_rows(graph, node, nn.SiLU())


@reads("PRelu")
def _prelu(graph: Graph, node: Node) -> Step:
    slope = graph.weights(node, 1)
    if slope.size == 1:
        layer, array, axis = nn.PReLU(dtype=slope.dtype), slope.reshape(1), -1
    elif slope.size == max(slope.shape):
        places = [place - slope.ndim for place, size in enumerate(slope.shape) if size > 1]
        layer, array = nn.PReLU(slope.size, dtype=slope.dtype), slope.reshape(-1)
        (axis,) = places
    else:
        graph.refuse(node, f"its slopes {slope.shape} are on more than one axis")
    layer = fill(layer, weight=array)
    return step(node, layer if axis == -1 else adapters.OnAxis(layer, axis))


@reads("Softmax", "LogSoftmax")
def _softmax(graph: Graph, node: Node) -> Step:
    layer = nn.Softmax() if node.kind == "Softmax" else nn.LogSoftmax()
    rank = graph.ranks.get(node.operands[0])
    axis = node.attributes.get("axis", -1 if graph.opset >= 13 else 1)
    if axis == -1 or (rank is not None and axis in (rank - 1, -1)):
        return on_rows(graph, node, layer)
    if graph.opset < 13:
        graph.refuse(node, "before opset 13 it sums over several axes")
    return step(node, adapters.OnAxis(layer, axis))


@reads("Dropout")
def _dropout(graph: Graph, node: Node) -> Step:
    ratio, trains = graph.constant(node, 1), graph.constant(node, 2)
    p = shortest(ratio.item()) if ratio is not None else node.attributes.get("ratio", 0.5)
    if trains is not None and trains.any():
        if p > 0:
            graph.refuse(node, "it is in training mode, and its mask cannot be repeated")
        p = 0.0
    if graph.is_used(node.result(1)):
        return step(node, adapters.DropoutWithMask(), outputs=2)
    return on_rows(graph, node, nn.Dropout(p))


# --- products ---------------------------------------------------------------------------------


@reads("Gemm")
def _gemm(graph: Graph, node: Node) -> Step:
    of, weight = node.attributes, graph.weights(node, 1)
    weight = weight.T if of.get("transB", 0) else weight
    weight = weight * np.asarray(of.get("alpha", 1.0), weight.dtype)
    layers: list[Layer] = [adapters.Transpose((1, 0))] if of.get("transA", 0) else []
    bias = graph.weights(node, 2) if node.operand(2) else None
    if bias is not None:
        bias = bias * np.asarray(of.get("beta", 1.0), weight.dtype)
    if bias is None or bias.ndim < 2 or len(bias) == 1:  # the same for every row
        row = None if bias is None else np.broadcast_to(bias, (1, weight.shape[1]))[0]
        layers.append(make_linear(weight, row))
    else:
        layers += [make_linear(weight), adapters.Affine(1.0, bias)]
    return step(node, layers[0] if len(layers) == 1 else nn.Sequential(*layers))


@reads("MatMul")
def _matmul(graph: Graph, node: Node) -> Step:
    weight = graph.weights(node, 1)
    if weight.ndim > 2:
        graph.refuse(node, f"its second operand {weight.shape} holds several matrices")
    vector = graph.ranks.get(node.operands[0], 2) < 2
    layers: list[Layer] = [make_linear(weight.reshape(len(weight), -1))]
    if vector:
        layers.insert(0, adapters.Unsqueeze([0]))
    axes = [0] * vector + [-1] * (weight.ndim == 1)
    if axes:
        layers.append(adapters.Squeeze(axes))
    return step(node, layers[0] if len(layers) == 1 else nn.Sequential(*layers))


@reads("Gather")
def _gather(graph: Graph, node: Node) -> Step:
    axis, place = node.attributes.get("axis", 0), graph.constants.get(node.operand(1))
    if node.operands[0] not in graph.constants and place is not None and place.ndim == 0:
        shape = graph.shapes.get(node.operands[0])
        size = -1 if shape is None else shape[axis]
        if size >= 0 and not -size <= place < size:
            graph.refuse(node, f"it takes place {place} of an axis of size {size}")
        return step(node, adapters.Take(int(place), axis))
    table = graph.weights(node, 0)
    layer: Layer
    if table.ndim == 2 and axis in (0, -2):
        count, width = table.shape
        layer = fill(nn.Embedding(count, width, rng=0, dtype=table.dtype), weight=table)
    else:
        layer = adapters.Gather(table, axis)
    return Step(layer, node.operands[1:2], node.results[:1], [node])


# --- normalization ----------------------------------------------------------------------------


@reads("LayerNormalization", "RMSNormalization")
def _layer_norm(graph: Graph, node: Node) -> Step:
    axis, eps = node.attributes.get("axis", -1), node.attributes.get("epsilon", 1e-5)
    rank, gamma = graph.ranks.get(node.operands[0]), graph.weights(node, 1)
    if axis >= 0:
        if rank is None:
            graph.refuse(node, "the number of axes of its input is not known")
        axis -= rank
    if gamma.ndim != -axis:
        graph.refuse(node, f"its scale {gamma.shape} is not that of its last {-axis} axes")
    width, arrays = gamma.size, {"gamma": gamma.reshape(-1)}
    norm: Layer
    if node.kind == "RMSNormalization":
        norm = nn.RMSNorm(width, eps, dtype=gamma.dtype)
    else:
        norm = nn.LayerNorm(width, eps, dtype=gamma.dtype)
        bias = graph.weights(node, 2) if node.operand(2) else np.zeros_like(gamma)
        arrays["beta"] = np.broadcast_to(bias, gamma.shape).reshape(-1)
    fill(norm, **arrays)
    if any(map(graph.is_used, node.results[1:])):
        return step(node, adapters.NormWithStatistics(norm, axis), outputs=3)  # type: ignore[arg-type]
    if axis == -1 and (rank is None or rank > 1):
        return step(node, norm)
    return step(node, adapters.AsRows(norm, axis if rank is None else axis + rank))


# --- shapes and sums --------------------------------------------------------------------------


@reads("Flatten")
def _flatten(graph: Graph, node: Node) -> Step:
    axis = node.attributes.get("axis", 1)
    whole = axis == 1 and graph.ranks.get(node.operands[0], 2) > 1
    return step(node, nn.Flatten() if whole else adapters.Matrix(axis))


@reads("Squeeze")
def _squeeze(graph: Graph, node: Node) -> Step:
    return step(node, adapters.Squeeze(node.attributes.get("axes")))


@reads("Unsqueeze")
def _unsqueeze(graph: Graph, node: Node) -> Step:
    return step(node, adapters.Unsqueeze(node.attributes.get("axes", ())))


@reads("Transpose")
def _transpose(graph: Graph, node: Node) -> Step:
    order = node.attributes.get("perm")
    if order is None:
        if node.operands[0] not in graph.ranks:
            graph.refuse(node, "the number of axes of its input is not known")
        order = range(graph.ranks[node.operands[0]])[::-1]
    return step(node, adapters.Transpose(order))


@reads("Concat")
def _concat(graph: Graph, node: Node) -> Step:
    if any(name in graph.constants for name in node.operands):
        graph.refuse(node, "one of its parts is a constant")
    return Step(adapters.Concat(node.attributes["axis"]), node.operands, node.results, [node])


@reads("Split")
def _split(graph: Graph, node: Node) -> Step:
    sizes = graph.constant(node, 1)
    parts = node.attributes.get("split") if sizes is None else [int(size) for size in sizes]
    count = len(node.results)
    if parts is not None and len(parts) != count:
        graph.refuse(node, f"it has {count} outputs, and {len(parts)} sizes for them")
    layer = adapters.Split(node.attributes.get("axis", 0), parts, count)
    return step(node, layer, outputs=count)


@reads("Add", "Sub", "Mul", "Div")
def _arithmetic(graph: Graph, node: Node) -> Step:
    names = [name for name in node.operands if name not in graph.constants]
    if len(names) == 2:
        if node.kind not in ("Add", "Mul"):
            graph.refuse(node, "of two computed values minidl has the sum and the product only")
        both = adapters.Add() if node.kind == "Add" else adapters.Multiply()
        return Step(both, node.operands, node.results, [node])
    first = node.operands[0] not in graph.constants
    constant = graph.weights(node, 1 if first else 0)
    rank = graph.ranks.get(names[0], constant.ndim)
    if constant.ndim > rank:
        graph.refuse(node, f"its constant has {constant.ndim} axes, and its input {rank}")
    layer = {
        ("Add", True): adapters.Affine(1.0, constant),
        ("Add", False): adapters.Affine(1.0, constant),
        ("Sub", True): adapters.Affine(1.0, -constant),
        ("Sub", False): adapters.Affine(-1.0, constant),
        ("Mul", True): adapters.Affine(constant),
        ("Mul", False): adapters.Affine(constant),
        ("Div", True): adapters.Affine(1 / constant) if (constant != 0).all() else None,
    }.get((node.kind, first))
    if layer is None:
        graph.refuse(node, "its divisor is zero or no constant")
    return Step(layer, tuple(names), node.results, [node])
