"""Reading operators that have the features, or channels, on axis 1, where minidl has them last.

``reads_channels`` registers the function that makes the layer of such an operator. It is read with
transposes around it; ``channels_last`` takes those out that stand between two such layers.
"""

from __future__ import annotations

from collections.abc import Callable

from minidl import nn
from minidl.nn.layer import Layer
from minidl.onnx import adapters
from minidl.onnx.graph_file import Graph, Node
from minidl.onnx.readers import Step, fill, reads, step

# A function that makes the layer of an operator, which takes the channels on the last axis; None
# where the node is something else.
Make = Callable[[Graph, Node], Layer | None]


def reads_channels(*kinds: str, first: bool = False) -> Callable[[Make], Make]:
    """Register the function that makes the layer of operators with the channels on axis 1."""

    def register(make: Make) -> Make:
        def read(graph: Graph, node: Node) -> Step | None:
            layer = make(graph, node)
            return None if layer is None else _on_axis_1(graph, node, layer)

        reads(*kinds, first=first)(read)
        return make

    return register


def _on_axis_1(graph: Graph, node: Node, layer: Layer) -> Step:
    dimensions = getattr(layer, "DIMENSIONS", getattr(layer, "dimensions", None))
    if dimensions is not None:
        graph.ranks.setdefault(node.operands[0], dimensions + 2)
    rank = graph.ranks.get(node.operands[0])
    if rank is None:
        graph.refuse(node, "the number of axes of its input is not known")
    return step(node, layer if rank == 2 else adapters.OnAxis(layer, 1))


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
