"""Reading pools of padded sequences, as ``images`` writes them."""

from __future__ import annotations

import numpy as np

from minidl import nn
from minidl.nn.layer import Layer
from minidl.onnx.graph_file import Graph, Node
from minidl.onnx.layout import channels_first, channels_last
from minidl.onnx.readers import Step, reads

INPUTS = tuple[str, ...]


def _before(graph: Graph, node: Node | None, kind: str, place: int = 0) -> Node | None:
    """Return the node that computes an operand, if it is of this kind and used here alone."""
    if node is None:
        return None
    name = node.operand(place)
    found = graph.producers.get(name)
    if found is None or found.kind != kind or graph.only_user(name) is None:
        return None
    return found


@reads("Flatten", "Transpose", first=True)
def _pool_of_lengths(graph: Graph, node: Node) -> Step | None:
    """Read a pool of whole sequences with their lengths: rows, or with ``keepdims`` one step."""
    if node.kind == "Flatten" and node.attributes.get("axis", 1) != 1:
        return None
    if node.kind == "Transpose" and list(node.attributes.get("perm", ())) != channels_last(3):
        return None
    keepdims = node.kind == "Transpose"
    over = _before(graph, node, "Div")
    if over is not None:
        found = _masked(graph, _before(graph, over, "GlobalAveragePool"), 0.0)
        share = None if found is None else _share(graph, over, *found)
        if found is None or share is None:
            return None
        return _step(nn.GlobalAvgPool(keepdims), found, [*share, over, node], node)
    found = _masked(graph, _before(graph, node, "GlobalMaxPool"), -np.inf)
    return None if found is None else _step(nn.GlobalMaxPool(keepdims), found, [node], node)


def _step(layer: Layer, found: tuple[INPUTS, list[Node]], more: list[Node], node: Node) -> Step:
    inputs, nodes = found
    return Step(layer, inputs, node.results, [*nodes, *more])


def _share(graph: Graph, over: Node, inputs: INPUTS, nodes: list[Node]) -> list[Node] | None:
    """Return the nodes that compute which share of the steps is no padding."""
    share = _before(graph, over, "Div", place=1)
    cast = _before(graph, share, "Cast")
    each = _before(graph, cast, "Unsqueeze")
    if share is None or cast is None or each is None:
        return None
    count = graph.constants[nodes[0].operand(0)].size
    steps = graph.constant(share, 1)
    if each.operands[0] != inputs[1] or each.attributes.get("axes") != [1, 2]:
        return None
    if steps is None or steps.size != 1 or steps.item() != count:
        return None
    return [each, cast, share]


def _masked(graph: Graph, pool: Node | None, number: float) -> tuple[INPUTS, list[Node]] | None:
    """Return x and lengths, and the nodes, of a pool of x with a number in place of padding."""
    first = _before(graph, pool, "Transpose")
    where = _before(graph, first, "Where")
    wide = _before(graph, where, "Unsqueeze")
    less = _before(graph, wide, "Less")
    each = _before(graph, less, "Unsqueeze", place=1)
    if pool is None or first is None or where is None or wide is None or less is None:
        return None
    if each is None or list(first.attributes.get("perm", ())) != channels_first(3):
        return None
    outside, times = graph.constant(where, 2), graph.constant(less, 0)
    if outside is None or outside.size != 1 or outside.item() != number or times is None:
        return None
    if times.ndim != 2 or not np.array_equal(times, np.arange(times.size)[None]):
        return None
    if (wide.attributes.get("axes"), each.attributes.get("axes")) != ([2], [1]):
        return None
    return (where.operands[1], each.operands[0]), [less, each, wide, where, first, pool]
