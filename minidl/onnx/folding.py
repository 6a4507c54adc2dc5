"""Whole numbers that nodes make of constants, such as the sizes of a ``Pad`` by PyTorch.

Its older exporter writes the four numbers of a padding as eight nodes, which turn their order.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minidl.onnx.graph_file import Graph, Node, array_of
from minidl.typing import Array

MOST = 64  # numbers: more are no sizes
INT64 = 7  # as ONNX counts types


def fold_constants(graph: Graph) -> None:
    """Make constants of the small arrays of whole numbers that nodes make of constants."""
    for node in graph.nodes:
        arrays = [graph.constants.get(name) for name in node.operands]
        known = [array for array in arrays if array is not None and _is_small(array)]
        if len(known) == len(arrays) and node.kind in FOLDED and not _is_output(graph, node):
            try:
                result = FOLDED[node.kind](node, known)
            except (IndexError, KeyError, TypeError, ValueError):
                continue  # whoever needs it refuses it by name
            if result is not None and _is_small(result):
                graph.constants[node.results[0]] = result
    graph.nodes = [node for node in graph.nodes if node.result(0) not in graph.constants]
    graph.drop_unused()


def _is_output(graph: Graph, node: Node) -> bool:
    return any(name in graph.outputs for name in node.results)


def _is_small(array: Array) -> bool:
    return array.dtype == np.int64 and array.size <= MOST


def _filled(node: Node, arrays: list[Array]) -> Array | None:
    """Compute ConstantOfShape."""
    (shape,) = arrays
    value = array_of(node.attributes["value"], "")
    if (shape < 0).any() or np.prod(shape, dtype=float) > MOST:
        return None
    return np.full(tuple(shape), value.item(), value.dtype)


def _part(node: Node, arrays: list[Array]) -> Array:
    """Compute Slice."""
    array, starts, ends, *more = arrays
    axes = more[0] if more else np.arange(len(starts))
    steps = more[1] if len(more) > 1 else np.ones(len(starts), np.int64)
    places = [slice(None)] * array.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        places[axis] = slice(int(start), int(end), int(step))
    return array[tuple(places)]


def _reshaped(node: Node, arrays: list[Array]) -> Array | None:
    """Compute Reshape, but for a size of 0, which may stand for that of the input."""
    array, sizes = arrays
    return array.reshape(tuple(sizes)) if sizes.all() else None


def _cast(node: Node, arrays: list[Array]) -> Array | None:
    return arrays[0] if node.attributes["to"] == INT64 else None


FOLDED: dict[str, Callable[[Node, list[Array]], Array | None]] = {
    "Cast": _cast,
    "Concat": lambda node, arrays: np.concatenate(arrays, axis=node.attributes["axis"]),
    "ConstantOfShape": _filled,
    "Reshape": _reshaped,
    "Slice": _part,
    "Transpose": lambda node, arrays: arrays[0].transpose(node.attributes.get("perm")),
}
