"""What minidl makes of ONNX files of other programs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minidl
from minidl import ModelFileError, nn
from minidl.onnx import adapters
from minidl.onnx.network import Network
from minidl.onnx.readers import Step
from minidl.onnx.time_first import TimeFirst
from minidl.saving.architecture import described
from minidl.saving.rebuilding import ArchitectureError, rebuild

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import helper  # noqa: E402
from onnx_helpers import check_file, draw, outputs_of, recurrent_node, run_elsewhere, write  # noqa: E402


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.onnx"


def test_a_chain_is_a_sequential_with_residual_blocks(path: Path) -> None:
    model = nn.Sequential(
        nn.Linear(3, 4),
        nn.Residual(nn.Sequential(nn.Linear(4, 4), nn.Residual(nn.GELU()))),
        nn.Residual(nn.Linear(4, 2), nn.Linear(4, 2)),
        nn.Softmax(),
        rng=0,
    )
    minidl.onnx.export(model, path, draw(2, 3))
    assert repr(minidl.onnx.load(path)) == repr(model)


def test_what_only_looks_like_a_pattern_is_computed_as_it_stands(path: Path) -> None:
    node, shape = helper.make_node, ["n", 3]
    nodes = [node("Sigmoid", ["x"], ["s"]), node("Mul", ["z", "s"], ["y"])]  # no SiLU: z is not x
    write(path, nodes, {"x": shape, "z": shape}, {"y": shape})
    inputs = draw(2, 3), draw(3, 3)[1:]
    (theirs,) = run_elsewhere(path, inputs)
    np.testing.assert_allclose(minidl.onnx.load(path)(*inputs), theirs, rtol=1e-5)
    nodes = [node("Mul", ["x", "a"], ["u"]), node("Softplus", ["u"], ["v"])]
    nodes.append(node("Div", ["v", "b"], ["y"]))  # no Softplus of minidl's: b is not a
    write(path, nodes, {"x": shape}, {"y": shape}, a=np.float32(2), b=np.float32(3))
    (theirs,) = run_elsewhere(path, inputs[:1])
    np.testing.assert_allclose(minidl.onnx.load(path)(inputs[0]), theirs, rtol=1e-5)


def test_a_value_inside_a_pattern_that_is_used_elsewhere_is_still_there(path: Path) -> None:
    node = helper.make_node
    nodes = [node("Sigmoid", ["x"], ["s"]), node("Mul", ["x", "s"], ["y"])]
    shape = ["n", 3]
    write(path, nodes, {"x": shape}, {"y": shape, "s": shape})
    model, x = minidl.onnx.load(path), draw(2, 3)
    for theirs, ours in zip(run_elsewhere(path, (x,)), outputs_of(model, (x,)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    assert "s = Sigmoid()(x)" in repr(model)


def test_a_graph_that_is_no_chain_becomes_a_network_that_trains(path: Path) -> None:
    node = helper.make_node
    nodes = [
        node("Gemm", ["x", "w"], ["a"]),
        node("Tanh", ["a"], ["b"]),
        node("Add", ["b", "z"], ["c"]),
        node("Relu", ["c"], ["d"]),
        node("Mul", ["b", "d"], ["y"]),
    ]
    shape = ["n", 3]
    write(path, nodes, {"x": shape, "z": shape}, {"y": shape, "c": shape}, w=draw(3, 3))
    model = minidl.onnx.load(path)
    assert isinstance(model, Network)
    inputs = draw(2, 3), draw(3, 3)[:2]
    for theirs, ours in zip(run_elsewhere(path, inputs), outputs_of(model, inputs), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    minidl.gradcheck(model, *(x.astype(np.float64) for x in inputs))
    minidl.onnx.export(model.astype(np.float32), path, inputs)
    graph = onnx.load(path).graph
    assert [value.name for value in (*graph.input, *graph.output)] == ["x", "z", "y", "c"]
    inputs = draw(7, 3), draw(3, 7).T
    for theirs, ours in zip(run_elsewhere(path, inputs), outputs_of(model, inputs), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    with pytest.raises(TypeError, match="expected 2 arrays, x, z, got 1"):
        model(inputs[0])


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (adapters.Affine(2.0, np.array([1.0, 2.0, 3.0])), (2, 3)),
        (adapters.Transpose((1, 0, 2)), (2, 3, 4)),
        (adapters.Reshape((0, -1, 2)), (2, 3, 4)),
        (adapters.Matrix(2), (2, 3, 4)),
        (adapters.Squeeze((1,)), (2, 1, 4)),
        (adapters.Unsqueeze((0, 2)), (2, 3)),
        (adapters.Take(-1, 1), (2, 3, 4)),
        (
            Network(
                [
                    Step(adapters.Split(1, None, 2), ("x",), ("a", "b"), ()),
                    Step(adapters.Concat(1), ("b", "a", "a"), ("y",), ()),
                ],
                ["x"],
                ["y"],
            ),
            (2, 3),
        ),
        (adapters.AsRows(nn.LayerNorm(12), 1), (2, 3, 4)),
        (adapters.OnAxis(nn.Softmax(), 1), (2, 3, 4)),
        (adapters.OnAxis(nn.BatchNorm(3), 1), (2, 3, 4)),
        (TimeFirst(nn.LSTM(3, 2, rng=0), False, False, (), (0,)), (4, 2, 3)),
        (TimeFirst(nn.LSTM(3, 2, bidirectional=True, rng=0), True, False, (), (0,)), (2, 4, 3)),
        (TimeFirst(nn.GRU(3, 2, rng=0), False, True, (), (0,)), (4, 2, 3)),
        (TimeFirst(nn.RNN(3, 2, bidirectional=True, rng=0), False, False, (), (1,)), (4, 2, 3)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Layer) else "",
)
def test_gradients_of_what_loaded_graphs_are_made_of(layer: nn.Layer, shape: Any) -> None:
    minidl.gradcheck(layer, np.random.default_rng(0).normal(size=shape))


def test_states_of_two_levels_are_those_of_the_higher(path: Path) -> None:
    """The levels become one layer; the graph gives the last h and c of the second alone."""
    node = helper.make_node
    nodes = [
        node("LSTM", ["x", "w0", "r0"], ["y0"], hidden_size=2),
        node("Transpose", ["y0"], ["across"], perm=[0, 2, 1, 3]),
        node("Reshape", ["across", "joined"], ["features"]),
        node("LSTM", ["features", "w1", "r1"], ["y", "h", "c"], hidden_size=2),
    ]
    weights = {"w0": draw(1, 8, 3), "r0": draw(1, 8, 2), "w1": draw(1, 8, 2), "r1": draw(1, 8, 2)}
    outputs = {"y": ["t", 1, "n", 2], "h": [1, "n", 2], "c": [1, "n", 2]}
    joined = np.array([0, 0, -1])
    write(path, nodes, {"x": ["t", "n", 3]}, outputs, joined=joined, **weights)
    model, x = minidl.onnx.load(path), draw(5, 4, 3)
    for theirs, ours in zip(run_elsewhere(path, (x,)), outputs_of(model, (x,)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    minidl.gradcheck(model.train().astype(np.float64), x.astype(np.float64))


@pytest.mark.parametrize("batch_first", [False, True])
def test_gradients_of_states_in_onnx_s_layout(batch_first: bool) -> None:
    inner = nn.LSTM(3, 2, bidirectional=True, rng=0)
    layer = TimeFirst(inner, batch_first, False, ("lengths", "h", "c"), (0, 1, 2))
    shapes = ((3, 4, 3), (3, 2, 2)) if batch_first else ((4, 3, 3), (2, 3, 2))
    x, h, c = (np.random.default_rng(0).normal(size=shapes[i]) for i in (0, 1, 1))
    minidl.gradcheck(layer, x, np.array([4, 2, 3]), h, c)


@pytest.mark.parametrize(
    "model",
    [nn.LSTM(3, 2, bidirectional=True, rng=0), nn.GRU(3, 2, 2, rng=0), nn.LSTM(3, 2, 2, rng=0)],
    ids=repr,
)
def test_states_and_their_gradients_go_through_a_loaded_layer(
    model: nn.LSTM | nn.GRU, path: Path
) -> None:
    model.train()
    x, *state = draw(2, 4, 3), *(draw(2, 2) + i for i in range(model.state_size))
    loaded = check_file(model, path, [(x, *state)])
    y, *end = loaded(x, *state)
    dx, *dstate = loaded.backward(y, *end)
    model.eval()
    y, *end = model(x, *state)
    for got, expected in zip((dx, *dstate), model.backward(y, *end), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)


def test_names_of_a_graph_that_are_also_those_of_minidl_are_kept_apart(path: Path) -> None:
    """Each node is named by its place, such as ``0.Relu_1``: so may be a value of another file."""
    names = ["1.Tanh_2", "0.Relu_1", "0.weight"]
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["a"]),
        helper.make_node("Relu", ["a"], names[:1]),
        helper.make_node("Tanh", ["a"], names[1:2]),
        helper.make_node("Sigmoid", ["a"], names[2:]),
    ]
    write(path, nodes, {"x": ["n", 3]}, {name: ["n", 3] for name in names}, w=draw(3, 3))
    model, x = minidl.onnx.load(path), draw(2, 3)
    minidl.onnx.export(model, path, x)
    assert [value.name for value in onnx.load(path).graph.output] == names
    for theirs, ours in zip(run_elsewhere(path, (x,)), outputs_of(model, (x,)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_loaded_graph_is_saved_as_any_model(path: Path) -> None:
    """A process that opens the file need not have imported minidl.onnx."""
    node = helper.make_node
    nodes = [
        node("Split", ["x"], ["a", "b"], axis=1),
        node("Transpose", ["a"], ["c"], perm=[0, 2, 1]),
        node("MatMul", ["c", "w"], ["d"]),
        node("Softmax", ["d"], ["e"], axis=1),
        node("Gather", ["b", "place"], ["f"], axis=1),
        node("Concat", ["d", "e"], ["y"], axis=-1),
        node("Mul", ["f", "scale"], ["z"]),
    ]
    ends = {"y": ["n", 3, 10], "z": ["n", 3]}
    constants = {"w": draw(2, 5), "place": np.array(1), "scale": draw(3)}
    write(path, nodes, {"x": ["n", 4, 3]}, ends, **constants)
    model, x = minidl.onnx.load(path), draw(2, 4, 3)
    saved, inputs, results = (path.with_suffix(end) for end in (".safetensors", ".npy", ".npz"))
    minidl.save(model, saved)
    np.save(inputs, x)
    program = f"""if True:
        import numpy as np, minidl
        y, z = minidl.load({str(saved)!r})(np.load({str(inputs)!r}))
        np.savez({str(results)!r}, y=y, z=z)
    """
    folder = Path(minidl.__file__).parents[1]
    subprocess.run([sys.executable, "-c", program], check=True, cwd=folder)
    again = minidl.load(saved)
    assert repr(again) == repr(model)
    for name, y in zip("yz", model(x), strict=True):
        np.testing.assert_array_equal(np.load(results)[name], y)


@pytest.mark.parametrize(
    ("layer", "name", "wrong"),
    [
        (adapters.Transpose((1, 0)), "order", {"tuple": ["a"]}),
        (adapters.Split(1, None, 2), "count", "2"),
        (adapters.OnAxis(nn.Tanh(), 1), "inner", 1),
        (adapters.Affine(2.0), "scale", "x"),
        (TimeFirst(nn.GRU(2, 2), False, False, (), (0,)), "results", {"tuple": ["a"]}),
        (Network([Step(nn.Tanh(), ("x",), ("y",), ())], ["x"], ["y"]), "wiring", {"tuple": []}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_model_file_says_of_a_loaded_graph_is_checked(
    layer: nn.Layer, name: str, wrong: Any
) -> None:
    text, arrays = described(layer)
    tensors = arrays | {path: p.data for path, p in layer.named_parameters()} | layer.state()
    content = json.loads(text)
    assert repr(rebuild(content, tensors)) == repr(layer)
    (held,) = (of["holds"] for of in content["layers"] if of["class"] == type(layer).__name__)
    held[name] = wrong
    with pytest.raises(ArchitectureError, match="the architecture in it is damaged"):
        rebuild(content, tensors)


def test_a_value_that_two_outputs_share_is_written_for_both(path: Path) -> None:
    nodes = [helper.make_node("Tanh", ["x"], ["a"]), helper.make_node("Add", ["a", "zero"], ["b"])]
    ends = {"a": ["n", 3], "b": ["n", 3]}
    write(path, nodes, {"x": ["n", 3]}, ends, zero=np.float32(0))
    model, x = minidl.onnx.load(path), draw(2, 3)
    minidl.onnx.export(model, path, x)
    for theirs, ours in zip(run_elsewhere(path, (x,)), outputs_of(model, (x,)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_the_batch_of_a_loaded_recurrent_layer_may_have_any_size(path: Path) -> None:
    recurrent_node(path, "LSTM", 4)
    model = minidl.onnx.load(path)
    minidl.onnx.export(model, path, draw(4, 2, 3))
    x = draw(6, 5, 3)
    np.testing.assert_allclose(run_elsewhere(path, (x,))[0], model(x), rtol=1e-5, atol=1e-6)


def test_an_input_that_nothing_uses_is_still_taken(path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Tanh", ["a"], ["y"])]
    write(path, nodes, {"x": ["n", 3], "z": ["n"]}, {"y": ["n", 3]})
    model, x = minidl.onnx.load(path), draw(2, 3)
    np.testing.assert_allclose(model(x, draw(2)), np.tanh(np.maximum(x, 0)), rtol=1e-5)


def test_what_nothing_computes_is_named(path: Path) -> None:
    write(
        path, [helper.make_node("Relu", ["x"], ["z"])], {"x": [1, 3]}, {"y": [1, 3]}, y=draw(1, 3)
    )
    with pytest.raises(ModelFileError, match="nothing computes 'y'"):
        minidl.onnx.load(path)


@pytest.mark.parametrize("opset", [11, 17])
def test_axes_of_older_opsets_are_attributes(opset: int, path: Path) -> None:
    node = helper.make_node
    axes = {"axes": [1]} if opset < 13 else {}
    names = ["x"] if opset < 13 else ["x", "axes"]
    constants = {} if opset < 13 else {"axes": np.array([1])}
    write(
        path,
        [node("Squeeze", names, ["y"], **axes)],
        {"x": [2, 1, 3]},
        {"y": [2, 3]},
        opset,
        **constants,
    )
    assert minidl.onnx.load(path)(draw(2, 1, 3)).shape == (2, 3)
