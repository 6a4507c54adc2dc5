"""Reading a model from an ONNX file."""

from __future__ import annotations

from minidl.files import AnyPath, as_path
from minidl.nn.layer import Layer
from minidl.onnx import (
    adapters,
    channel_readers,
    images,
    padded_pools,
    pattern_readers,
    recurrent_readers,
)
from minidl.onnx.channels_last import with_channels_last
from minidl.onnx.computed_shapes import fold_shapes
from minidl.onnx.folding import fold_constants
from minidl.onnx.graph_file import Graph, read_graph
from minidl.onnx.network import Network, as_chain
from minidl.onnx.readers import Step, read
from minidl.saving.tensor_file import ModelFileError, shortened

# Their import registers what they read.
__all__ = [
    "channel_readers",
    "images",
    "load",
    "padded_pools",
    "pattern_readers",
    "recurrent_readers",
]


def load(path: AnyPath) -> Layer:
    """Return the model of an ONNX file, made of minidl's layers and ready to predict.

    It takes and returns what the graph does, in its layout and order. A chain becomes a
    ``Sequential``, with ``Residual`` blocks for sums around a part of it; any other graph becomes a
    layer whose ``repr`` lists its steps. The model is in evaluation mode, as ONNX files are:
    ``model.train()`` before it is trained further.

    Parameters
    ----------
    path
        A file that ``export`` or another program has written, in one piece, of opset 9 or later.
        Nothing in it is executed, and no other file is read.

    Raises
    ------
    ImportError
        Without the package onnx.
    ModelFileError
        If the file is damaged, or has a node that minidl's layers cannot express, which it names.
    OSError
        If the file cannot be read.

    Examples
    --------
    >>> import minidl.onnx, pathlib, tempfile
    >>> import numpy as np
    >>> from minidl import nn
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.onnx"
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2), rng=0)
    >>> minidl.onnx.export(model, path, np.ones((1, 3), np.float32))
    >>> minidl.onnx.load(path)
    layer            output       parameters
    ----------------------------------------
    0 Linear(3, 4)   (batch, 4)           16
    1 ReLU()         (batch, 4)            0
    2 Linear(4, 2)   (batch, 2)           10
    ----------------------------------------
    float32                               26
    """
    graph = read_graph(as_path(path))
    try:
        recurrent_readers.forget_zero_states(graph)
        fold_constants(graph)
        fold_shapes(graph)
        steps = with_channels_last(_steps(graph), graph)
        if not graph.inputs or not graph.outputs:
            raise ModelFileError(f"{graph.path}: the graph has no inputs, or no outputs")
        chain = as_chain(steps, graph.inputs, graph.outputs)
        model = Network(steps, graph.inputs, graph.outputs) if chain is None else chain
    except ModelFileError:
        raise
    except (ValueError, TypeError) as error:  # of layers that do not fit together
        raise ModelFileError(f"{graph.path}: {error}") from None
    return model.eval()


def _steps(graph: Graph) -> list[Step]:
    """Return the layers of a graph in order. It is read from its end: patterns end in one node."""
    done: set[int] = set()
    steps = []
    for node in reversed(graph.nodes):
        if id(node) in done:
            continue
        found = read(graph, node)
        done |= {id(inner) for inner in found.nodes}
        steps.append(found)
    _check_shapes(graph, steps)
    return _in_order(graph, steps[::-1])


def _check_shapes(graph: Graph, steps: list[Step]) -> None:
    """Refuse sums and products of two computed values that surely differ in shape."""
    for step in steps:
        if isinstance(step.layer, adapters.Add | adapters.Multiply):
            a, b = (graph.shapes.get(name, ()) for name in step.inputs)
            if a and b and not _may_be_equal(a, b):
                what = f"its operands have the shapes {a} and {b}, and minidl needs one for both"
                graph.refuse(step.nodes[0], what)


def _may_be_equal(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Return whether two shapes may be the same; -1 is a size that is not known."""
    sizes = zip(a, b, strict=False)
    return len(a) == len(b) and all(m == n or -1 in (m, n) for m, n in sizes)


def _in_order(graph: Graph, steps: list[Step]) -> list[Step]:
    """Return the steps such that each comes after those whose values it takes."""
    known: set[str] = set(graph.inputs)
    ordered: list[Step] = []
    while steps or not known.issuperset(graph.outputs):
        waiting = []
        for step in steps:
            if known.issuperset(step.inputs):
                ordered.append(step)
                known.update(step.outputs)
            else:
                waiting.append(step)
        if len(waiting) == len(steps):
            missing = {*graph.outputs, *(name for step in steps for name in step.inputs)} - known
            names = ", ".join(map(shortened, sorted(missing)))
            raise ModelFileError(f"{graph.path}: nothing computes {names}")
        steps = waiting
    return ordered
