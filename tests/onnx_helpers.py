"""Models to be written as ONNX, and the ways to compare them with their files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import minidl.onnx
from minidl import nn

FEATURES = 3
ACTIVATIONS: list[Callable[[], nn.Layer]] = [
    *(nn.ReLU, nn.Sigmoid, nn.Tanh, nn.HardSigmoid, nn.Softsign, nn.SiLU, nn.HardSwish, nn.Mish),
    *(nn.GELU, lambda: nn.GELU("tanh"), nn.Softplus, lambda: nn.Softplus(1.7), nn.LeakyReLU),
    *(nn.PReLU, nn.ELU, lambda: nn.ELU(0.3), nn.CELU, lambda: nn.CELU(0.3), nn.SELU),
    *(nn.Softmax, nn.LogSoftmax, nn.Identity, lambda: nn.Dropout(0.3)),
]
NORMS: list[Callable[[int], nn.Layer]] = [nn.BatchNorm, nn.LayerNorm, nn.RMSNorm, nn.Standardize]
RECURRENT = [nn.RNN, nn.LSTM, nn.GRU]


def as_tuple(outputs: Any) -> tuple[Any, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


def outputs_of(model: nn.Layer, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    with nn.evaluating():
        return as_tuple(model(*inputs))


def disturb(model: nn.Layer, rng: np.random.Generator) -> nn.Layer:
    """Move all weights and statistics, so that none is a 0 or a 1 whose place does not matter."""
    for parameter in model.parameters():
        parameter.data += rng.normal(scale=0.1, size=parameter.shape).astype(np.float32)
    for array in model.state().values():
        if array.dtype.kind == "f":
            array += rng.uniform(0.1, 0.5, array.shape).astype(np.float32)
    return model


def example_inputs(
    shapes: tuple[Any, ...], batch: int, rng: np.random.Generator
) -> tuple[np.ndarray, ...]:
    """Inputs of a registered example with another batch."""
    return tuple(
        rng.normal(size=(batch, *shape[1:])).astype(np.float32)
        if isinstance(shape, tuple)
        else np.resize(shape, (batch, *shape.shape[1:]))
        for shape in shapes
    )


def run_elsewhere(path: Path, inputs: tuple[Any, ...]) -> list[np.ndarray]:
    """Run a file in ONNX Runtime, after the full check of the onnx package."""
    import onnx
    import onnxruntime

    onnx.checker.check_model(str(path), full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    fed = {
        entry.name: array.astype(np.int32) if entry.name == "lengths" else array
        for entry, array in zip(session.get_inputs(), inputs, strict=True)
    }
    results: list[np.ndarray] = session.run(None, fed)
    return results


def check_file(model: nn.Layer, path: Path, batches: list[tuple[Any, ...]]) -> nn.Layer:
    """Compare a model with its file in ONNX Runtime and in minidl; return the loaded one."""
    of_dilated_means = any(
        isinstance(layer, (nn.AvgPool1d, nn.AvgPool2d)) and max(layer.dilation) > 1
        for _, layer in model.layers()
    )
    minidl.onnx.export(model, path, batches[0], opset=19 if of_dilated_means else 17)
    loaded = minidl.onnx.load(path)
    for inputs in batches:
        expected = outputs_of(model, inputs)
        for theirs, ours in zip(run_elsewhere(path, inputs), expected, strict=True):
            np.testing.assert_allclose(theirs, ours, rtol=1e-5, atol=1e-5)
        for again, ours in zip(outputs_of(loaded, inputs), expected, strict=True):
            np.testing.assert_array_equal(again, ours)
    return loaded


def write(
    path: Path, nodes: list[Any], inputs: Any, outputs: Any, opset: int = 17, **constants: Any
) -> None:
    """Write a graph; inputs and outputs are shapes of float32 by name."""
    from onnx import TensorProto, helper, numpy_helper

    described = [
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in of.items()
        ]
        for of in (inputs, outputs)
    ]
    arrays = [numpy_helper.from_array(np.asarray(a), name) for name, a in constants.items()]
    graph = helper.make_graph(nodes, "graph", *described, arrays)
    version = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=version, ir_version=8)
    path.write_bytes(model.SerializeToString())


def write_text(
    path: Path,
    constants: str,
    operators: str,
    outputs: str = "float[n, 4] y",
    inputs: str = "float[n, 4] x",
) -> None:
    """Write a graph in the syntax of ``onnx.parser``."""
    import onnx.parser

    head = f'<ir_version: 8, opset_import: ["": 18]> graph ({inputs}) => ({outputs})'
    model = onnx.parser.parse_model(f"{head} <{constants}> {{{operators}}}")
    path.write_bytes(model.SerializeToString())


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def recurrent_node(path: Path, kind: str, gates: int, **attributes: Any) -> None:
    """Write a graph of one recurrent operator of width 2."""
    from onnx import helper

    weights = {"w": draw(1, 2 * gates, 3), "r": draw(1, 2 * gates, 2)}
    node = helper.make_node(kind, ["x", "w", "r"], ["y"], hidden_size=2, **attributes)
    write(path, [node], {"x": [4, "n", 3]}, {"y": [4, 1, "n", 2]}, **weights)


# --- random stacks ----------------------------------------------------------------------------


def random_stack(
    rng: np.random.Generator,
) -> tuple[nn.Sequential, Callable[[int], tuple[Any, ...]]]:
    """A random model, and a function that draws inputs for it of a given batch."""
    kind = rng.choice(["rows", "grid", "sequences", "lengths", "words"])
    layers: list[nn.Layer] = []
    if kind == "words":
        layers.append(nn.Embedding(5, FEATURES))
    recurrent = kind in ("sequences", "lengths", "words")
    layers += _layers(rng, 2)
    if recurrent:
        layers += _recurrent(rng)
    width = next((w for w in map(_width, layers[::-1]) if w), FEATURES)
    last = layers[-1]
    if kind == "grid":
        layers.append(nn.Flatten())
        width *= 2
    elif recurrent and getattr(last, "return_sequences", False) and rng.random() < 0.3:
        layers += [nn.LayerNorm(width)]
    layers += [nn.Linear(width, 4), *_layers(rng, int(rng.integers(3)), 4)]
    model = nn.Sequential(*layers, rng=int(rng.integers(2**31)))
    disturb(model, rng)
    return model, lambda batch: _inputs(rng, str(kind), batch)


def _inputs(rng: np.random.Generator, kind: str, batch: int) -> tuple[Any, ...]:
    if kind == "words":
        return (rng.integers(5, size=(batch, 6)),)
    shape = {"rows": (batch, FEATURES), "grid": (batch, 2, FEATURES)}
    x = rng.normal(size=shape.get(kind, (batch, 6, FEATURES))).astype(np.float32)
    return (x, rng.integers(1, 7, size=batch)) if kind == "lengths" else (x,)


def _layers(rng: np.random.Generator, count: int, width: int = FEATURES) -> Iterator[nn.Layer]:
    """Layers that keep the width, residual ones among them."""
    for _ in range(count):
        choice = rng.random()
        if choice < 0.25:
            body = nn.Sequential(*_layers(rng, 1 + int(rng.integers(2)), width))
            shortcut = nn.Linear(width, width) if rng.random() < 0.4 else None
            yield nn.Residual(body, shortcut)
        elif choice < 0.45:
            yield NORMS[rng.integers(len(NORMS))](width)
        elif choice < 0.65:
            yield nn.Linear(width, width, bias=bool(rng.random() < 0.7))
        else:
            yield ACTIVATIONS[rng.integers(len(ACTIVATIONS))]()


def _recurrent(rng: np.random.Generator) -> Iterator[nn.Layer]:
    kind = RECURRENT[rng.integers(3)]
    options = {"nonlinearity": str(rng.choice(["tanh", "relu"]))} if kind is nn.RNN else {}
    yield kind(
        FEATURES,
        int(rng.integers(1, 5)),
        int(rng.integers(1, 4)),
        bidirectional=bool(rng.random() < 0.5),
        return_sequences=bool(rng.random() < 0.6),
        **options,
    )


def _width(layer: nn.Layer) -> int | None:
    hidden = getattr(layer, "hidden_size", None)
    return hidden * (1 + layer.bidirectional) if hidden else None
