"""Checking the axes that a node names: a file is not trusted, and not all writers check theirs."""

from __future__ import annotations

from minidl.onnx.graph_file import Graph, Node

WITH_AXIS = (
    *("Concat", "Softmax", "LogSoftmax", "Split", "Gather"),
    *("LayerNormalization", "RMSNormalization"),
)


def check_axes(graph: Graph, node: Node) -> None:
    """Refuse a node for an axis that its input does not have, where the number of axes is known."""
    of, name = node.attributes, node.operand(0)
    rank = graph.constants[name].ndim if name in graph.constants else graph.ranks.get(name)
    if rank is None:
        return
    if node.kind == "Transpose":
        order = of.get("perm", range(rank))
        if sorted(order) != list(range(rank)):
            graph.refuse(node, f"its order {tuple(order)} is none of the {rank} axes of its input")
    elif node.kind == "Flatten":
        _check(graph, node, [of.get("axis", 1)], rank, last=rank)
    elif node.kind == "Squeeze":
        _check(graph, node, of.get("axes", ()), rank)
    elif node.kind == "Unsqueeze":
        axes = of.get("axes", ())
        _check(graph, node, axes, rank + len(axes))
    elif node.kind in WITH_AXIS and "axis" in of:
        _check(graph, node, [of["axis"]], rank)


def _check(graph: Graph, node: Node, axes: list[int], rank: int, last: int | None = None) -> None:
    """Refuse axes that are not from -rank to ``last``, rank - 1 by default, or are there twice."""
    last = rank - 1 if last is None else last
    for axis in axes:
        if not -rank <= axis <= last:
            graph.refuse(node, f"its axis {axis} must be from {-rank} to {last}")
    if len({axis % max(rank, 1) for axis in axes}) < len(axes):
        graph.refuse(node, f"it names an axis twice, {axes}")
