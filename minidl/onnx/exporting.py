"""Writing a model as an ONNX file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minidl._version import __version__
from minidl.files import AnyPath, as_path, replacing
from minidl.nn.array_checks import is_lengths
from minidl.nn.checks import check_count
from minidl.nn.embedding import Embedding
from minidl.nn.hooks import evaluating
from minidl.nn.layer import Layer
from minidl.nn.recurrent.sequence import Recurrent
from minidl.onnx import adapter_layers, branch_layers, images, recurrent_layers
from minidl.onnx.adapter import Adapter
from minidl.onnx.checksum import sealed
from minidl.onnx.containers import write
from minidl.onnx.network import Network
from minidl.onnx.package import onnx_package
from minidl.onnx.writer import Value, Writer
from minidl.typing import Array

OLDEST_OPSET = 17  # the first with LayerNormalization; IR version 8, of 2022

# Their import registers writers.
__all__ = ["adapter_layers", "branch_layers", "export", "images", "recurrent_layers"]


def export(model: Layer, path: AnyPath, example: Any, opset: int = OLDEST_OPSET) -> None:
    """Write a model, as it predicts, to an ONNX file that other programs run.

    The batch may have any size, and sequences any number of steps. Weights and inputs are float32,
    also those of a float64 model: runtimes have few operators for float64. What only trains stays
    behind: dropout passes its input on, normalization uses its running statistics, and a stateful
    recurrent layer starts each call with zeros, unless the example has a state.

    Parameters
    ----------
    model
        Any layer made of minidl's own, or what ``load`` has returned; its inputs and outputs keep
        the names that they have in a graph.
    path
        Where to write. An existing file is replaced when the new one is complete.
    example
        An input of the model, which tells the shapes; for several inputs, such as ``(x, lengths)``
        or ``(x, *state)``, a tuple of them. The numbers do not matter.
    opset
        Version of ONNX's operators, at least 17. The older, the more programs know it.

    Raises
    ------
    ImportError
        Without the package onnx.
    TypeError
        For a layer that is not minidl's, naming it and its place in the model, and for an example
        that is no array.
    ValueError
        For an opset that is too old, or that the installed onnx does not have, and for an example
        that the model refuses.

    Examples
    --------
    >>> import minidl.onnx, pathlib, tempfile
    >>> import numpy as np
    >>> from minidl import nn
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.onnx"
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2), rng=0)
    >>> x = np.ones((5, 3), np.float32)
    >>> minidl.onnx.export(model, path, x)
    >>> bool((minidl.onnx.load(path)(x) == model(x)).all())
    True
    """
    if not isinstance(model, Layer):
        raise TypeError(f"export takes a model, got {model!r}")
    onnx, target = onnx_package(), as_path(path)
    opset = check_count("export", "opset", opset)
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= opset <= newest:
        raise ValueError(
            f"export: opset must be from {OLDEST_OPSET} to {newest}, the newest that the installed "
            f"onnx has, got {opset}"
        )
    inputs = _inputs(model, example)
    writer = Writer(opset, [*(value.name for value in inputs), *_names_of_outputs(model)])
    with evaluating():
        model(*(value.array for value in inputs))  # which says what is wrong with the example
        outputs = write(writer, model, inputs)
    outputs = _renamed(writer, outputs, _names_of_outputs(model))
    writer.drop_unused([y.name for y in outputs])
    graph = onnx.helper.make_graph(
        writer.nodes,
        type(model).__name__,
        [_described(writer, value, model) for value in inputs],
        [onnx.helper.make_tensor_value_info(y.name, _type(y.array), None) for y in outputs],
        list(writer.constants.values()),
    )
    data = _checked_bytes(graph, opset)
    with replacing(target) as file:
        file.write(data)


def _inputs(model: Layer, example: Any) -> list[Value]:
    """Return the graph's inputs: x, then the arrays of a state, then lengths.

    Those of a loaded graph have the names that it gave them.
    """
    arrays = example if isinstance(example, tuple) else (example,)
    if not arrays:
        raise TypeError("export: the example must be a NumPy array, or a tuple of several, got ()")
    for array in arrays:
        if not isinstance(array, np.ndarray):
            raise TypeError(
                "export: the example must be a NumPy array, or a tuple of several, got "
                f"{type(array).__name__}"
            )
    names = ["x", *(f"state_{index}" for index in range(len(arrays) - 1))]
    if len(arrays) > 1 and model.takes_lengths and is_lengths(arrays[-1]):
        names[-1] = "lengths"
    if isinstance(model, Network) and len(model.inputs) == len(arrays):
        names = list(model.inputs)
    # As views, so that an array that is given twice is two inputs.
    return [Value(name, array.view()) for name, array in zip(names, arrays, strict=True)]


def _described(writer: Writer, value: Value, model: Layer) -> Any:
    """Return the description of an input: its type, and its shape with a batch of any size."""
    onnx = onnx_package()
    shape: list[int | str] = [*value.array.shape]
    layers = [layer for _, layer in model.layers()]
    if any(isinstance(layer, Adapter) for layer in layers):  # the batch may be on any axis
        shape[:-1] = [f"{value.name}_{axis}" for axis in range(len(shape) - 1)]
    shape[:1] = ["batch"][: len(shape)]
    ranks = 2 if any(isinstance(layer, Embedding) for layer in layers) else 3
    if len(shape) == ranks and any(isinstance(layer, (Recurrent, Embedding)) for layer in layers):
        shape[1] = "time"
    kind = onnx.TensorProto.INT32 if value.name in writer.lengths else _type(value.array)
    return onnx.helper.make_tensor_value_info(value.name, kind, shape)


def _type(array: Array) -> int:
    """Return ONNX's number for the type of an array, as it is written."""
    types = onnx_package().TensorProto
    kinds = {"b": types.BOOL, "i": types.INT64, "u": types.INT64}
    return int(kinds.get(array.dtype.kind, types.FLOAT))


def _names_of_outputs(model: Layer) -> Sequence[str]:
    """Return the names of a loaded graph's outputs; nothing for any other model."""
    if isinstance(model, Network) and not set(model.outputs) & set(model.inputs):
        return model.outputs
    return ()


def _renamed(writer: Writer, values: list[Value], names: Sequence[str]) -> list[Value]:
    """Give the outputs of the graph their names, or y, state_0_end, ...; return them."""
    names = names or ["y", *(f"state_{index}_end" for index in range(len(values) - 1))]
    made = {name for node in writer.nodes for name in node.output}
    new_names: dict[str, str] = {}
    for value, name in zip(values, names, strict=True):
        if value.name in made and value.name not in new_names:
            new_names[value.name] = name
        else:  # an input that nothing is computed from, or an output that is there twice
            writer.nodes.append(
                onnx_package().helper.make_node("Identity", [value.name], [name], name=name)
            )
    for node in writer.nodes:
        for field in (node.input, node.output):
            field[:] = [new_names.get(name, name) for name in field]
    return [Value(name, value.array) for name, value in zip(names, values, strict=True)]


def _checked_bytes(graph: Any, opset: int) -> bytes:
    """Return the bytes of an ONNX file, after onnx has checked the model."""
    onnx = onnx_package()
    version = onnx.helper.make_opsetid("", opset)
    model = onnx.helper.make_model(
        graph,
        opset_imports=[version],
        ir_version=onnx.helper.find_min_ir_version_for([version]),
        producer_name="minidl",
        producer_version=__version__,
    )
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    for output, known in zip(model.graph.output, inferred.graph.output, strict=True):
        output.CopyFrom(known)
    onnx.checker.check_model(model, full_check=True)
    return sealed(model)
