"""Reading ONNX's recurrent operators, alone and with the transposes around them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minidl import nn
from minidl.nn.recurrent.sequence import Recurrent
from minidl.onnx import adapters
from minidl.onnx.graph_file import Graph, Node, array_of
from minidl.onnx.readers import Step, reads, step
from minidl.onnx.recurrent_layers import BATCH_FIRST, BETWEEN_LEVELS, GATES, TO_TIME_FIRST
from minidl.onnx.time_first import TimeFirst
from minidl.typing import Array

LAYERS: dict[str, Callable[..., Recurrent]] = {"RNN": nn.RNN, "LSTM": nn.LSTM, "GRU": nn.GRU}
# Operands: x, W, R, B, then the lengths, the initial h and, of an LSTM, the initial c.
LENGTHS, INITIAL_H, INITIAL_C, PEEPHOLES = 4, 5, 6, 7
# What changes the axes around it: kinds of nodes, and what they do to the shape.
TURNED, ACROSS = ("Transpose", str(TO_TIME_FIRST)), ("Transpose", str(BETWEEN_LEVELS))
JOINED, ONE_DIRECTION = ("Reshape", "[0, 0, -1]"), ("Squeeze", "[1]")
# How the outputs with the batch first are made of result 0, all h, or 1, the last h; and whether
# they are sequences. The first and the last are those of ``export``.
ENDINGS: dict[tuple[Any, ...], bool] = {
    (0, ("Transpose", str(BATCH_FIRST)), JOINED): True,
    (0, ONE_DIRECTION, TURNED): True,
    (0, ACROSS, JOINED, TURNED): True,
    (1, TURNED, ("Reshape", "[0, -1]")): False,
}
KEEP_ZERO = ("Expand", "Slice", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Identity")
# What the operators compute unless they say otherwise, and what else minidl has.
ACTIVATIONS = {
    "RNN": (("tanh",), ("relu",)),
    "LSTM": (("sigmoid", "tanh", "tanh"),),
    "GRU": (("sigmoid", "tanh"),),
}


@reads("RNN", "LSTM", "GRU")
def _recurrent(graph: Graph, node: Node) -> Step:
    return _time_first(graph, node)[0]


def _time_first(graph: Graph, node: Node) -> tuple[Step, TimeFirst]:
    """Read a recurrent operator, with the levels below it that are written as one layer."""
    levels = _levels(graph, node)
    results = tuple(i for i in range(3) if graph.is_used(node.result(i)))
    options = {
        name: node.operand(place)
        for name, place in (("lengths", LENGTHS), ("h", INITIAL_H), ("c", INITIAL_C))
        if node.operand(place)
    }
    reverse = node.attributes.get("direction") == "reverse"
    if reverse and "lengths" in options:
        graph.refuse(node, "it goes in reverse only, over sequences of several lengths")
    inner = _layer(graph, levels)
    batch_first = bool(node.attributes.get("layout", 0))
    layer = TimeFirst(inner, batch_first, reverse, tuple(options), results)
    bridges = [between for level in levels[1:] for between in _bridge(graph, level)]
    for name in options.values():
        if name in graph.constants:
            graph.refuse(node, "its lengths and its initial state must be inputs, or left out")
    inputs = (levels[0].operands[0], *options.values())
    return Step(layer, inputs, tuple(node.results[i] for i in results), [*bridges, *levels]), layer


@reads("Reshape", "Transpose", first=True)
def _layer_of_batches(graph: Graph, node: Node) -> Step | None:
    """Read a recurrent layer with the batch first, as ``export`` and PyTorch write it."""
    for (result, *path), sequences in ENDINGS.items():
        after = _path(graph, node, path)
        top = graph.producers.get(after[0].operands[0]) if after else None
        if top is not None and top.kind in LAYERS:
            found, layer = _time_first(graph, top)
            before = _path(graph, graph.producers.get(found.inputs[0]), [TURNED])
            usual = not (layer.batch_first or layer.reverse) and set(layer.options) <= {"lengths"}
            alone = found.outputs == (after[0].operands[0],) and layer.results == (result,)
            if before and usual and alone and graph.only_user(found.inputs[0]):
                layer.inner.return_sequences = sequences
                inputs = (before[0].operands[0], *found.inputs[1:])
                return Step(layer.inner, inputs, node.results, [*before, *found.nodes, *after])
    return None


def _path(graph: Graph, node: Node | None, path: list[tuple[str, str]]) -> list[Node]:
    """Return the nodes of these kinds and shapes that end in this one; none if there are others."""
    nodes: list[Node] = []
    for kind, shape in reversed(path):
        if node is None or node.kind != kind or shape != _shape(graph, node):
            return []
        if nodes and graph.only_user(node.results[0]) is None:
            return []
        nodes.insert(0, node)
        node = graph.producers.get(node.operands[0])
    return nodes if graph.only_user(nodes[0].operands[0]) or path == [TURNED] else []


def _shape(graph: Graph, node: Node) -> str:
    """Return what a node does to a shape: order of axes, axes of size one, or sizes."""
    of = node.attributes
    sizes = graph.constants.get(node.operand(1), np.empty(0)).tolist()
    return str(of.get("perm") or of.get("axes") or sizes)


@reads("Reshape")
def _reshape(graph: Graph, node: Node) -> Step:
    sizes = graph.constant(node, 1)
    if sizes is None:
        graph.refuse(node, "it has no shape")
    if node.attributes.get("allowzero", 0) and (sizes == 0).any():
        graph.refuse(node, "it makes an empty array")
    target = [int(size) for size in sizes]
    rank = graph.ranks.get(node.operands[0], len(target))
    if min(target, default=0) < -1 or target.count(-1) > 1 or 0 in target[rank:]:
        graph.refuse(node, f"its sizes {tuple(target)} are no shape for an input of {rank} axes")
    return step(node, nn.Flatten() if target == [0, -1] else adapters.Reshape(target))


def _levels(graph: Graph, node: Node) -> list[Node]:
    """Return the operators of one layer, from the lowest to this one."""
    levels = [node]
    while (below := _below(graph, levels[0])) is not None:
        levels.insert(0, below)
    return levels


def _below(graph: Graph, node: Node) -> Node | None:
    """Return the operator whose features, of all directions, this one takes in time order."""
    bridge = _bridge(graph, node)
    below = graph.producers.get(bridge[0].operands[0]) if bridge else None
    if below is None or below.kind != node.kind or below.attributes != node.attributes:
        return None
    if below.attributes.get("layout", 0) or below.attributes.get("direction") == "reverse":
        return None
    if any(graph.is_used(name) for name in below.results[1:]):
        return None
    initial = [n.operand(p) for n in (node, below) for p in (INITIAL_H, INITIAL_C) if n.operand(p)]
    same_lengths = below.operand(LENGTHS) == node.operand(LENGTHS)
    return below if same_lengths and not initial else None


def _bridge(graph: Graph, node: Node) -> list[Node]:
    """Return the nodes between two levels of a layer, if they are there."""
    last = graph.producers.get(node.operands[0])
    if graph.only_user(node.operands[0]) is None:
        return []
    return _path(graph, last, [ACROSS, JOINED]) or _path(graph, last, [ONE_DIRECTION])


def forget_zero_states(graph: Graph) -> None:
    """Leave out initial states that are zero, with the nodes that only make them."""
    for node in graph.nodes:
        if node.kind in LAYERS:
            node.operands = tuple(
                "" if place in (INITIAL_H, INITIAL_C) and _is_zero(graph, name) else name
                for place, name in enumerate(node.operands)
            )
    graph.drop_unused()


def _is_zero(graph: Graph, name: str) -> bool:
    """Return whether a value is zero, whatever its shape is made of."""
    while (node := graph.producers.get(name)) is not None and node.kind in KEEP_ZERO:
        name = node.operands[0]
    if node is not None and node.kind == "ConstantOfShape":
        value = node.attributes.get("value")
        return value is None or not array_of(value, graph.path).any()
    return name in graph.constants and not graph.constants[name].any()


def _layer(graph: Graph, levels: list[Node]) -> Recurrent:
    """Return the layer of minidl with the weights of these operators."""
    node = levels[0]
    _check(graph, node)
    weights = [[graph.weights(level, index) for index in (1, 2)] for level in levels]
    directions, _, width = weights[0][0].shape
    hidden, options = weights[0][1].shape[-1], {}
    if node.kind == "RNN":
        options["nonlinearity"] = _activations(node)[0]
    layer = LAYERS[node.kind](
        width, hidden, len(levels), directions == 2, rng=0, dtype=weights[0][0].dtype, **options
    )
    cells = iter(layer.cells)
    for level, (input_weight, recurrent_weight) in zip(levels, weights, strict=True):
        shape = (directions, 2 * recurrent_weight.shape[1])
        bias = graph.weights(level, 3) if level.operand(3) else np.zeros(shape, input_weight.dtype)
        for arrays in zip(input_weight, recurrent_weight, bias, strict=True):
            _fill(next(cells), node.kind, *arrays)
    return layer


def _check(graph: Graph, node: Node) -> None:
    """Refuse what minidl's recurrent layers do not compute."""
    of = node.attributes
    if node.kind == "GRU" and not of.get("linear_before_reset", 0):
        graph.refuse(node, "it resets the state before the product, and minidl's GRU after it")
    if node.operand(PEEPHOLES):
        graph.refuse(node, "it has peepholes, which minidl's LSTM has not")
    for name in ("clip", "input_forget", "activation_alpha", "activation_beta"):
        if of.get(name):
            graph.refuse(node, f"minidl has nothing for its {name}")
    if _activations(node) not in ACTIVATIONS[node.kind]:
        graph.refuse(node, f"its activations are {', '.join(of['activations'])}")


def _activations(node: Node) -> tuple[str, ...]:
    """Return the activations of each direction, in small letters; () if they differ."""
    names = [name.lower() for name in node.attributes.get("activations", ())]
    usual = ACTIVATIONS[node.kind][0]
    half = names[: len(usual)]
    if not names:
        return usual
    return tuple(half) if names in (half, half * 2) else ()


def _fill(cell: Any, kind: str, input_weight: Array, recurrent_weight: Array, bias: Array) -> None:
    """Copy ONNX's weights of one direction into a cell."""
    here = np.argsort(GATES[kind])
    of_input, of_state = np.split(bias, 2)

    def reordered(array: Array) -> Array:
        gates = np.split(array, len(here), axis=-1)
        return np.concatenate([gates[place] for place in here], axis=-1)

    cell.input_weight.data = reordered(input_weight.T)
    cell.recurrent_weight.data = reordered(recurrent_weight.T)
    if kind == "GRU":
        cell.bias.data, cell.recurrent_bias.data = reordered(of_input), reordered(of_state)
    else:
        cell.bias.data = (
            reordered(of_input) if not of_state.any() else reordered(of_input + of_state)
        )
