"""Writing the nodes and the constants of an ONNX graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl.onnx.package import onnx_package
from minidl.onnx.patterns import Pattern
from minidl.typing import Array


@dataclass(frozen=True)
class Value:
    """A value of the graph: its name, and the array that it is for the example."""

    name: str
    array: Array


class Writer:
    """The nodes and constants of a graph that is being written.

    Parameters
    ----------
    opset
        Version of the operators.
    taken
        Names of values that the graph takes and gives.
    """

    def __init__(self, opset: int, taken: Sequence[str] = ()) -> None:
        self.opset, self.taken = opset, frozenset(taken)
        self.lengths: set[str] = set()  # names of inputs that hold lengths of sequences
        self.nested: set[str] = set()  # names of values in a tuple within a tuple
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self.path = ""  # of the layer that is being written
        # Values with the channels last, and what they are called with the channels on axis 1.
        self.turned: dict[str, str] = {}
        self._values = 0

    def node(
        self, kind: str, operands: Sequence[str], results: int = 1, **attributes: Any
    ) -> list[str]:
        """Add a node and return the names of its results."""
        names = [self._new_name(kind) for _ in range(results)]
        operands = list(operands)
        axes_are_input = kind in ("Squeeze", "Unsqueeze") or (
            kind == "ReduceMean" and self.opset >= 18
        )
        if axes_are_input and attributes["axes"] is None:  # all those of size 1
            del attributes["axes"]
        elif axes_are_input:
            operands.append(self.constant("axes", np.array(attributes.pop("axes"), np.int64)))
        if kind == "Split" and self.opset >= 18 and len(operands) == 1:
            attributes["num_outputs"] = results
        make_node = onnx_package().helper.make_node
        self.nodes.append(make_node(kind, operands, names, name=names[0], **attributes))
        return names

    def one(self, kind: str, *operands: str, **attributes: Any) -> str:
        """Add a node with one result and return its name."""
        return self.node(kind, operands, **attributes)[0]

    def constant(self, name: str, array: Any) -> str:
        """Add a constant of the current layer, floats as float32, and return its name."""
        array = np.asarray(array)
        if array.dtype.kind == "f":
            array = array.astype(np.float32)
        name = self._joined(name)
        tensor = onnx_package().numpy_helper.from_array(np.asarray(array, order="C"), name)
        while name in self.taken or self.constants.get(name, tensor) != tensor:
            name = tensor.name = f"{name}_"
        self.constants[name] = tensor
        return name

    def shape(self, *sizes: int) -> str:
        """Add the operand of a Reshape and return its name."""
        return self.constant("shape", np.array(sizes, np.int64))

    def expand(
        self, pattern: Pattern, inputs: Sequence[str], constants: Mapping[str, Any] | None = None
    ) -> list[str]:
        """Add the nodes of a pattern and return the names of its outputs."""
        known = dict(zip(pattern.inputs, inputs, strict=True))
        known |= {name: self.constant(name, array) for name, array in (constants or {}).items()}
        for op in pattern.operators:
            operands = [
                known[word] if isinstance(word, str) else self.constant("number", np.float32(word))
                for word in op.operands
            ]
            names = self.node(op.kind, operands, len(op.results), **op.attributes)
            known |= zip(op.results, names, strict=True)
        return [known[name] for name in pattern.outputs]

    def drop_unused(self, outputs: Sequence[str]) -> None:
        """Drop the nodes that none of the outputs depends on, and their constants."""
        needed, kept = set(outputs), []
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                needed.update(node.input)
                kept.append(node)
        self.nodes = kept[::-1]
        self.constants = {name: self.constants[name] for name in self.constants if name in needed}

    def _new_name(self, kind: str) -> str:
        self._values += 1
        name = self._joined(f"{kind}_{self._values}")
        return self._new_name(kind) if name in self.taken else name

    def _joined(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name
