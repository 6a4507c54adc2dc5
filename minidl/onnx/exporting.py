"""Writing a model as an ONNX file."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl import nn
from minidl._version import __version__
from minidl.files import AnyPath, replacing
from minidl.nn.array_checks import is_lengths
from minidl.nn.checks import check_count
from minidl.nn.embedding import Embedding
from minidl.nn.hooks import evaluating
from minidl.nn.layer import Layer
from minidl.nn.recurrent.sequence import Recurrent
from minidl.onnx import pooling, recurrent_layers
from minidl.onnx.checksum import sealed
from minidl.onnx.layers import WRITERS, Write
from minidl.onnx.package import onnx_package
from minidl.onnx.writer import Value, Writer

OLDEST_OPSET = 17  # the first with LayerNormalization; IR version 8, of 2022

__all__ = ["export", "pooling", "recurrent_layers"]  # whose import registers what they write


def export(model: Layer, path: AnyPath, example: Any, opset: int = OLDEST_OPSET) -> None:
    """Write a model, as it predicts, to an ONNX file that other programs run.

    The batch may have any size, and sequences any number of steps. Weights and inputs are float32,
    also those of a float64 model: runtimes have few operators for float64. What only trains stays
    behind: dropout passes its input on, and normalization uses its running statistics.

    Parameters
    ----------
    model
        Any layer made of minidl's own.
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
    onnx, opset = onnx_package(), check_count("export", "opset", opset)
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= opset <= newest:
        raise ValueError(
            f"export: opset must be from {OLDEST_OPSET} to {newest}, the newest that the installed "
            f"onnx has, got {opset}"
        )
    writer, inputs = Writer(opset), _inputs(example)
    with evaluating():
        model(*(value.array for value in inputs))  # which says what is wrong with the example
        outputs = write(writer, model, inputs)
    names = _rename_outputs(writer, [value.name for value in outputs])
    graph = onnx.helper.make_graph(
        writer.nodes,
        type(model).__name__,
        [_described(value, model) for value in inputs],
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names],
        list(writer.constants.values()),
    )
    data = _checked_bytes(graph, opset)
    with replacing(path) as file:
        file.write(data)


def write(writer: Writer, layer: Layer, inputs: list[Value]) -> list[Value]:
    """Write a layer, or the layers of a container; return the values that it gives."""
    if (function := _writer_of(layer)) is not None:
        writer.path = layer.path
        names = function(writer, layer, inputs)
        outputs = layer(*(value.array for value in inputs))
        arrays = outputs if isinstance(outputs, tuple) else (outputs,)
        return [Value(name, array) for name, array in zip(names, arrays, strict=True)]
    if isinstance(layer, nn.Sequential) and type(layer).forward is nn.Sequential.forward:
        return _write_sequential(writer, layer, inputs)
    if isinstance(layer, nn.Residual) and type(layer).forward is nn.Residual.forward:
        return _write_residual(writer, layer, inputs)
    raise TypeError(
        f"export: {layer.label} is a layer that ONNX has no operator for; only models made of "
        "minidl's own layers can be written"
    )


def _writer_of(layer: Layer) -> Write | None:
    """Return the function that writes a layer, also of a subclass with the same forward pass."""
    for kind in type(layer).__mro__:
        if kind in WRITERS:
            return WRITERS[kind] if type(layer).forward is kind.forward else None
    return None


def _write_sequential(writer: Writer, model: nn.Sequential, inputs: list[Value]) -> list[Value]:
    lengths = inputs[-1] if is_lengths(inputs[-1].array) and len(inputs) > 1 else None
    values = inputs[:-1] if lengths else inputs
    steps = values[0].array.shape[1:2]
    for layer in model.stack:
        values = write(writer, layer, [*values, lengths] if _uses(layer, lengths) else values)  # type: ignore[list-item]
        if values[0].array.ndim < 3 or values[0].array.shape[1:2] != steps:
            lengths = None  # the time axis is gone
    return values


def _write_residual(writer: Writer, block: nn.Residual, inputs: list[Value]) -> list[Value]:
    x, *more = inputs
    lengths = more[0] if more else None
    branches = []
    for layer in (block.body, block.shortcut):
        if layer is None:
            branches.append(x)
        else:
            branches += write(writer, layer, inputs if _uses(layer, lengths) else [x])
    writer.path = block.path
    body, shortcut = branches
    return [Value(writer.one("Add", body.name, shortcut.name), body.array)]


def _uses(layer: Layer, lengths: Value | None) -> bool:
    return lengths is not None and layer.takes_lengths


def _inputs(example: Any) -> list[Value]:
    """Return the graph's inputs: x, then the arrays of a state, then lengths."""
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
    if len(arrays) > 1 and is_lengths(arrays[-1]):
        names[-1] = "lengths"
    return [Value(name, array) for name, array in zip(names, arrays, strict=True)]


def _described(value: Value, model: Layer) -> Any:
    """Return the description of an input: its type, and its shape with a batch of any size."""
    onnx = onnx_package()
    types, shape = onnx.TensorProto, list(value.array.shape)
    kind = types.FLOAT
    if value.array.dtype.kind in "iu":
        kind = types.INT32 if value.name == "lengths" else types.INT64
    shape[0] = "batch"
    layers = [layer for _, layer in model.layers()]
    ranks = 2 if any(isinstance(layer, Embedding) for layer in layers) else 3
    if len(shape) == ranks and any(isinstance(layer, (Recurrent, Embedding)) for layer in layers):
        shape[1] = "time"
    return onnx.helper.make_tensor_value_info(value.name, kind, shape)


def _rename_outputs(writer: Writer, names: list[str]) -> list[str]:
    """Rename the results that the graph gives to y, state_0_end, ...; return these names."""
    results = ["y", *(f"state_{index}_end" for index in range(len(names) - 1))]
    made = {name for node in writer.nodes for name in node.output}
    for old, new in zip(names, results, strict=True):
        if old not in made:  # an input that nothing is computed from
            writer.nodes.append(onnx_package().helper.make_node("Identity", [old], [new], name=new))
    new_names = {old: new for old, new in zip(names, results, strict=True) if old in made}
    for node in writer.nodes:
        for field in (node.input, node.output):
            field[:] = [new_names.get(name, name) for name in field]
    return results


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
