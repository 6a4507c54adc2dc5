"""Reading operators that have the features, or channels, on axis 1, where minidl has them last.

``reads_channels`` registers the function that makes the layer of such an operator. Between the
transposes that ``export`` writes around it, that is the layer; alone, transposes sit around it.
"""

from __future__ import annotations

from collections.abc import Callable

from minidl import nn
from minidl.nn.layer import Layer
from minidl.onnx import adapters
from minidl.onnx.graph_file import Graph, Node
from minidl.onnx.layers import channels_first, channels_last
from minidl.onnx.readers import Step, fill, reads, step

# A function that makes the layer of an operator, which takes the features on the last axis.
Make = Callable[[Graph, Node], Layer]

MAKERS: dict[str, Make] = {}


def reads_channels(kind: str) -> Callable[[Make], Make]:
    """Register the function that makes the layer of an operator with the features on axis 1."""

    def register(make: Make) -> Make:
        MAKERS[kind] = make
        reads(kind)(_alone)
        return make

    return register


def _alone(graph: Graph, node: Node) -> Step:
    rank = graph.ranks.get(node.operands[0])
    if rank is None:
        graph.refuse(node, "the number of axes of its input is not known")
    layer = MAKERS[node.kind](graph, node)
    return step(node, layer if rank == 2 else adapters.OnAxis(layer, 1))


@reads("Transpose", first=True)
def _between_transposes(graph: Graph, node: Node) -> Step | None:
    """Read an operator as ``export`` writes it: the features go to axis 1, and back."""
    inside = graph.producers.get(node.operands[0])
    if inside is None or inside.kind not in MAKERS:
        return None
    before, order = graph.producers.get(inside.operands[0]), node.attributes.get("perm", ())
    rank = len(order)
    if before is None or before.kind != "Transpose" or order != channels_last(rank):
        return None
    if before.attributes.get("perm") != channels_first(rank):
        return None
    if graph.only_user(inside.operands[0]) is None or graph.only_user(inside.results[0]) is None:
        return None
    layer = MAKERS[inside.kind](graph, inside)
    return Step(layer, before.operands[:1], node.results, [before, inside, node])


@reads_channels("BatchNormalization")
def _batch_norm(graph: Graph, node: Node) -> Layer:
    if node.attributes.get("training_mode", 0) or any(map(graph.is_used, node.results[1:])):
        graph.refuse(node, "it is in training mode; export the model for inference")
    gamma, beta, mean, variance = (graph.weights(node, index) for index in range(1, 5))
    if not (variance >= 0).all():
        graph.refuse(node, f"its variance must be at least 0, and holds {variance.min():g}")
    momentum = 1 - node.attributes.get("momentum", 0.9)
    eps = node.attributes.get("epsilon", 1e-5)
    norm = nn.BatchNorm(len(gamma), float(f"{momentum:.7g}"), eps, dtype=gamma.dtype)
    filled: nn.BatchNorm = fill(
        norm, gamma=gamma, beta=beta, running_mean=mean, running_var=variance
    )
    return filled
