"""Reading an ONNX file as a graph of nodes, constants and named values. A file is not trusted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from minidl.files import AnyPath, open_regular
from minidl.onnx.checksum import NAME, is_intact
from minidl.onnx.package import onnx_package
from minidl.saving.tensor_file import ModelFileError, shortened
from minidl.typing import Array

OLDEST_OPSET = 9
FLOATS = ("value_float", "value_floats")  # attributes of Constant
# Attributes that change nothing: they repeat how many results there are, or are of empty axes.
IDLE = ("num_outputs", "noop_with_empty_axes")
# Operators whose axes were an attribute once and are the second operand now.
WITH_AXES = ("Squeeze", "Unsqueeze", "ReduceMean", "ReduceMax")


@dataclass(eq=False)
class Node:
    """An operator of the graph with its operands, results and attributes."""

    name: str
    kind: str
    operands: tuple[str, ...]  # "": one that is left out
    results: tuple[str, ...]
    attributes: dict[str, Any]

    def operand(self, index: int) -> str:
        """Return the name of an operand, "" if it is left out."""
        return self.operands[index] if index < len(self.operands) else ""

    def result(self, index: int) -> str:
        """Return the name of a result, "" if it is left out."""
        return self.results[index] if index < len(self.results) else ""


@dataclass
class Graph:
    """The graph of an ONNX file, with its constants and with what produces and uses each value."""

    path: str
    opset: int
    nodes: list[Node] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)  # -1: a size not known
    producers: dict[str, Node] = field(default_factory=dict)
    users: dict[str, list[Node]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ranks = {name: len(shape) for name, shape in self.shapes.items()}

    def connect(self) -> None:
        """Find out anew which node produces each value, and which nodes use it."""
        self.producers = {name: node for node in self.nodes for name in node.results}
        self.users = {}
        for node in self.nodes:
            for name in node.operands:
                self.users.setdefault(name, []).append(node)

    def drop_unused(self) -> None:
        """Drop the nodes that no output of the graph depends on."""
        needed, kept = set(self.outputs), []
        for node in reversed(self.nodes):
            if needed.intersection(node.results):
                needed.update(node.operands)
                kept.append(node)
        self.nodes = kept[::-1]
        self.connect()

    def constant(self, node: Node, index: int) -> Array | None:
        """Return an operand that must be a constant, or None if it is left out."""
        name = node.operand(index)
        if not name:
            return None
        if name not in self.constants:
            self.refuse(node, f"its operand {shortened(name)} must be a constant")
        return self.constants[name]

    def weights(self, node: Node, index: int) -> Array:
        """Return an operand that must be a constant of floats."""
        array = self.constant(node, index)
        if array is None:
            self.refuse(node, f"its operand {index} is missing")
        if array.dtype not in (np.float32, np.float64):
            self.refuse(node, f"its operand {index} is {array.dtype}, not float32 or float64")
        return array

    def only_user(self, name: str) -> Node | None:
        """Return the node that alone uses a value; None if the graph returns it, too."""
        users = self.users.get(name, [])
        return users[0] if len(users) == 1 and name not in self.outputs else None

    def is_used(self, name: str) -> bool:
        """Return whether any node uses a value, or the graph returns it."""
        return bool(name) and (name in self.outputs or bool(self.users.get(name)))

    def refuse(self, node: Node, why: str) -> NoReturn:
        """Raise ModelFileError for a node that minidl cannot express."""
        named = f" {shortened(node.name)}" if node.name else ""
        raise ModelFileError(f"{self.path}: the node {node.kind}{named} cannot be loaded: {why}")


def read_graph(path: AnyPath) -> Graph:
    """Read and check an ONNX file.

    Raises
    ------
    ModelFileError
        If it is damaged, no ONNX file, or keeps its weights in other files.
    OSError
        If it cannot be read.
    """
    model, where = _parsed(path), os.fspath(path)
    versions = {entry.domain: entry.version for entry in model.opset_import}
    opset = versions.get("", versions.get("ai.onnx", 0))
    if opset < OLDEST_OPSET:
        raise ModelFileError(
            f"{where}: its operators are of opset {opset}, and minidl knows those from "
            f"{OLDEST_OPSET} on"
        )
    graph = Graph(str(where), opset, shapes=_shapes(model))
    for tensor in model.graph.initializer:
        graph.constants[tensor.name] = array_of(tensor, graph.path)
    for proto in model.graph.node:
        _add(graph, proto)
    graph.inputs = [i.name for i in model.graph.input if i.name not in graph.constants]
    graph.outputs = [output.name for output in model.graph.output]
    graph.connect()
    return graph


def _parsed(path: AnyPath) -> Any:
    """Return the model of an ONNX file, as the onnx package holds it, after its checks."""
    onnx, where = onnx_package(), os.fspath(path)
    from google.protobuf.message import DecodeError  # onnx depends on it

    with open_regular(path) as file:
        data = file.read()
    if not is_intact(data):
        raise ModelFileError(
            f"{where} is damaged: its checksum is another one. If a program has changed it on "
            f"purpose, have that remove {NAME} from its metadata"
        )
    try:
        model = onnx.ModelProto.FromString(data)
        for tensor in _tensors(model):
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                raise ModelFileError(
                    f"{where}: the weight {shortened(tensor.name)} is in another file, and minidl "
                    "reads one file only"
                )
        if model.ByteSize() < 2**31:
            onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError, UnicodeError) as error:
        reason = shortened((str(error).splitlines() or ["?"])[0])
        raise ModelFileError(f"{where} is damaged, or no ONNX file: {reason}") from None
    return model


def _tensors(model: Any) -> Iterator[Any]:
    """Yield all tensors that the graph holds: its initializers, and values of Constant nodes."""
    yield from model.graph.initializer
    for node in model.graph.node:
        yield from (attribute.t for attribute in node.attribute if attribute.HasField("t"))


def array_of(tensor: Any, path: str) -> Array:
    """Return the array of a tensor."""
    try:
        array = onnx_package().numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError) as error:
        raise ModelFileError(
            f"{path}: the tensor {shortened(tensor.name)} is damaged: {shortened(str(error))}"
        ) from None
    return np.asarray(array)


def _shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """Return the shape of each value where onnx can tell, with -1 for a size that it cannot."""
    onnx = onnx_package()
    try:
        graph = onnx.shape_inference.infer_shapes(model).graph
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        graph = model.graph
    return {
        value.name: tuple(
            dim.dim_value if dim.HasField("dim_value") else -1
            for dim in value.type.tensor_type.shape.dim
        )
        for value in (*graph.input, *graph.value_info, *graph.output)
        if value.type.HasField("tensor_type") and value.type.tensor_type.HasField("shape")
    }


def _add(graph: Graph, proto: Any) -> None:
    """Add a node to the graph, or its constant."""
    attributes = {
        attribute.name: _attribute(attribute)
        for attribute in proto.attribute
        if attribute.name not in IDLE
    }
    kind = proto.op_type if proto.domain in ("", "ai.onnx") else f"{proto.domain}.{proto.op_type}"
    node = Node(proto.name, kind, tuple(proto.input), tuple(proto.output), attributes)
    if kind == "Constant":
        graph.constants[node.results[0]] = _constant(graph, node)
    elif kind == "Identity" and node.operand(0) in graph.constants:
        graph.constants[node.results[0]] = graph.constants[node.operand(0)]
    else:
        if kind in WITH_AXES and node.operand(1):
            axes = graph.constant(node, 1)
            if axes is not None and axes.dtype != np.int64:
                graph.refuse(node, f"its axes are {axes.dtype}, not int64")
            node.attributes["axes"] = [] if axes is None else [int(axis) for axis in axes.flat]
            node.operands = node.operands[:1]
        if kind in ("ReduceMean", "ReduceMax"):  # their axes are counted from the last one
            rank = graph.ranks.get(node.operands[0], 0)
            axes = node.attributes.get("axes", ())
            node.attributes["axes"] = sorted(axis - rank * (axis >= 0) for axis in axes)
        graph.nodes.append(node)


def _attribute(attribute: Any) -> Any:
    """Return the value of an attribute: a number, a text, a list of them, or as onnx holds it."""
    value = onnx_package().helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, float):
        return shortest(value)
    if attribute.type in (attribute.INTS, attribute.FLOATS, attribute.STRINGS):
        return [
            word.decode("utf-8", "replace") if isinstance(word, bytes) else word for word in value
        ]
    return value


def shortest(value: float) -> float:
    """Return the shortest number that is this one in float32: 0.1 for 0.1000000015."""
    return float(str(np.float32(value)))


def _constant(graph: Graph, node: Node) -> Array:
    """Return the array of a Constant node."""
    of = node.attributes
    if "value" in of:
        return array_of(of["value"], graph.path)
    for names, dtype in ((("value_int", "value_ints"), np.int64), (FLOATS, np.float32)):
        for name in names:
            if name in of:
                return np.asarray(of[name], dtype)
    return graph.refuse(node, "its value is neither a tensor nor numbers")
