"""Sizes that a graph computes from the shapes of its values, such as those of a ``Reshape``.

PyTorch writes "the first two axes as they are, the others in one" as a dozen nodes on the shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from minidl.onnx.graph_file import Graph, Node

MOST = 64  # axes: that is what NumPy has


@dataclass(frozen=True)
class Size:
    """The size of an axis of a value, or where ``value`` is empty, a product that is not known."""

    value: str = ""
    axis: int = 0


Sizes = list[int | Size]


def fold_shapes(graph: Graph) -> None:
    """Give each ``Reshape`` constant sizes, where at most one of them is not known."""
    known: dict[str, Sizes] = {}
    for node in graph.nodes:
        if node.kind == "Reshape" and node.operand(1) in known:
            target = _target(graph, node, known[node.operand(1)])
            if target is not None:
                name = f"{node.results[0]}, its shape"
                graph.constants[name] = np.array(target, np.int64)
                node.operands = (node.operands[0], name)
                node.attributes["allowzero"] = 0
        sizes = _sizes(graph, node, known)
        if sizes is not None and len(sizes) <= MOST:
            known[node.results[0]] = sizes
    graph.drop_unused()


def _target(graph: Graph, node: Node, sizes: Sizes) -> list[int] | None:
    """Return the sizes as ONNX has them: 0 as in the input, -1 what is left; None if unknown."""
    if 0 in sizes and node.attributes.get("allowzero", 0):
        return None
    known = []
    for place, size in enumerate(sizes):
        if isinstance(size, int):
            known.append(size)
        elif size == Size(node.operands[0], place):
            known.append(0)
        else:
            known.append(graph.shapes[size.value][size.axis] if size.value else -1)
    return known if known.count(-1) < 2 else None


def _sizes(graph: Graph, node: Node, known: Mapping[str, Sizes]) -> Sizes | None:
    """Return the sizes that a node computes, a number alone as one; None if it does not."""
    if node.kind == "Shape" and node.operands[0] in graph.ranks:
        value, of = node.operands[0], node.attributes
        sizes: Sizes = [Size(value, axis) for axis in range(graph.ranks[value])]
        return sizes[of.get("start", 0) : of.get("end")]
    read = READERS.get(node.kind)
    parts = [known.get(name, _constant(graph, name)) for name in node.operands]
    if read is None or any(part is None for part in parts):
        return None
    return read(node, [part for part in parts if part is not None])


def _constant(graph: Graph, name: str) -> Sizes | None:
    """Return the integers of a small constant."""
    array = graph.constants.get(name)
    if array is None or array.dtype.kind != "i" or array.size > MOST:
        return None
    return [int(size) for size in array.flat]


def _same(node: Node, parts: list[Sizes]) -> Sizes:
    """Read an operator that changes the shape alone: of sizes, one row or one number."""
    return parts[0]


def _joined(node: Node, parts: list[Sizes]) -> Sizes:
    return [size for part in parts for size in part]


def _product(node: Node, parts: list[Sizes]) -> Sizes | None:
    first, second = parts
    if len(first) != len(second):
        return None
    pairs = zip(first, second, strict=True)
    return [a * b if isinstance(a, int) and isinstance(b, int) else Size() for a, b in pairs]


def _part(node: Node, parts: list[Sizes]) -> Sizes | None:
    """Read a Slice, whose operands are the sizes, the start, the end, axis 0 and the step."""
    sizes, *more = parts
    numbers = [number for part in more for number in _numbers(part)]
    if not 2 <= len(numbers) == len(more) or numbers[3:] not in ([], [1]):
        return None
    return sizes[numbers[0] : numbers[1]]


def _chosen(node: Node, parts: list[Sizes]) -> Sizes | None:
    """Read a Gather, whose operands are the sizes and the places of those that it takes."""
    sizes, places = parts
    numbers = _numbers(places)
    if len(numbers) != len(places) or not all(-len(sizes) <= n < len(sizes) for n in numbers):
        return None
    return [sizes[number] for number in numbers]


def _numbers(sizes: Sizes) -> list[int]:
    """Return those sizes that are known."""
    return [size for size in sizes if isinstance(size, int)]


READERS: dict[str, Callable[[Node, list[Sizes]], Sizes | None]] = {
    **dict.fromkeys(("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze"), _same),
    "Concat": _joined,
    "Gather": _chosen,
    "Mul": _product,
    "Slice": _part,
}
