"""One module of PyTorch for each layer, wherever the layer is called."""

from __future__ import annotations

from typing import Any

from minidl import nn
from minidl.nn.layer import Layer


class Modules:
    """The modules of layers, which are asked for in the order in which they are called.

    ``reordered`` has the ``id`` of each Flatten that gives features in PyTorch's order there.
    """

    def __init__(self, reordered: frozenset[int]) -> None:
        self.reordered = reordered
        self.done: dict[int, Any] = {}

    def of(self, layer: Layer) -> Any:
        """Return the module of a layer, with its mode; the same one for all places of a layer."""
        if id(layer) not in self.done:
            module = self.done[id(layer)] = self.new(layer)
            batch = isinstance(layer, nn.BatchNorm)
            module.training = layer.uses_batch if batch else layer.training  # type: ignore[attr-defined]
        return self.done[id(layer)]

    def new(self, layer: Layer) -> Any:
        """Return a module of the class and the options of a layer."""
        raise NotImplementedError(f"{type(self).__name__} does not say what a layer becomes")
