"""What minidl makes of ONNX files of other programs."""

from __future__ import annotations

import os
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

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx_helpers import check_file, draw, outputs_of, run_elsewhere, write  # noqa: E402

DAMAGED = int(os.environ.get("MINIDL_ONNX_DAMAGED", "100"))


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


def recurrent_node(path: Path, kind: str, gates: int, **attributes: Any) -> None:
    weights = {"w": draw(1, 2 * gates, 3), "r": draw(1, 2 * gates, 2)}
    node = helper.make_node(kind, ["x", "w", "r"], ["y"], hidden_size=2, **attributes)
    write(path, [node], {"x": [4, "n", 3]}, {"y": [4, 1, "n", 2]}, **weights)


REFUSED = {
    "GRU resets before": ("GRU", 3, {}, "resets the state before the product"),
    "clip": ("LSTM", 4, {"clip": 1.0}, "nothing for its clip"),
    "input_forget": ("LSTM", 4, {"input_forget": 1}, "nothing for its input_forget"),
    "activations": ("RNN", 1, {"activations": ["Sigmoid"]}, "its activations are Sigmoid"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_recurrent_operators_that_minidl_lacks_are_refused(case: str, path: Path) -> None:
    kind, gates, attributes, words = REFUSED[case]
    recurrent_node(path, kind, gates, **attributes)
    with pytest.raises(ModelFileError, match=f"the node {kind} cannot be loaded: .*{words}"):
        minidl.onnx.load(path)


def test_an_operator_that_minidl_lacks_is_named(path: Path) -> None:
    node = helper.make_node("Cos", ["x"], ["y"], name="wave")
    write(path, [node], {"x": [1, 3]}, {"y": [1, 3]})
    with pytest.raises(ModelFileError, match="the node Cos 'wave' cannot be loaded: minidl has no"):
        minidl.onnx.load(path)


def test_no_other_file_is_read(path: Path) -> None:
    write(
        path,
        [helper.make_node("Gemm", ["x", "w"], ["y"])],
        {"x": [1, 3]},
        {"y": [1, 3]},
        w=draw(3, 3),
    )
    model = onnx.load(path)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelFileError, match="the weight 'w' is in another file"):
        minidl.onnx.load(path)


def test_damaged_files_are_refused_by_one_line(path: Path) -> None:
    model = nn.Sequential(
        *(nn.Linear(3, 4), nn.GELU(), nn.Residual(nn.LayerNorm(4)), nn.LSTM(4, 2)), rng=0
    )
    minidl.onnx.export(model, path, draw(2, 5, 3))
    data = path.read_bytes()
    for seed in range(DAMAGED):
        message = refusal(path, data, seed)
        assert message.startswith(str(path)), seed
        assert len(message.splitlines()) == 1, seed


def test_damaged_files_of_other_programs_are_read_or_refused_by_one_line(path: Path) -> None:
    """They have no checksum: a changed weight is just another weight."""
    node = helper.make_node
    nodes = [
        node("Gemm", ["x", "w", "b"], ["a"]),
        node("LayerNormalization", ["a", "b", "b"], ["c"], epsilon=0.1),
        node("Reshape", ["c", "shape"], ["d"]),
        node("Softmax", ["d"], ["y"], axis=1),
    ]
    shape = np.array([0, 2, 2])
    write(path, nodes, {"x": ["n", 3]}, {"y": ["n", 2, 2]}, w=draw(3, 4), b=draw(4), shape=shape)
    data, x = path.read_bytes(), draw(2, 3)
    assert minidl.onnx.load(path)(x).shape == (2, 2, 2)
    refused = [message for seed in range(DAMAGED) if (message := refusal(path, data, seed))]
    assert all(len(message.splitlines()) == 1 for message in refused)
    assert len(refused) > DAMAGED / 5


def refusal(path: Path, data: bytes, seed: int) -> str:
    """Damage a file, load it, and return the message of the error; "" if there is none."""
    path.write_bytes(damaged(data, np.random.default_rng(seed)))
    try:
        minidl.onnx.load(path)
    except ModelFileError as error:
        return str(error)
    return ""


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Flip bits, cut the end off, or repeat, remove or zero a part."""
    begin, end = sorted(int(i) for i in rng.integers(len(data), size=2))
    end += end == begin
    kind = rng.integers(5)
    if kind == 0:
        return data[:begin]
    if kind == 1:
        return data[:begin] + data[end:]
    if kind == 2:
        return data[:end] + data[begin:]
    changed = bytearray(data)
    if kind == 3 and any(data[begin:end]):
        changed[begin:end] = bytes(end - begin)
        return bytes(changed)
    for place in rng.integers(len(data), size=rng.integers(1, 4)):
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed) if changed != data else data[:-1]


# --- graphs that are made to be in the way ------------------------------------------------------


def write_graph(path: Path, nodes: list[Any], **constants: np.ndarray) -> None:
    """Write a graph from x (n, 4) to y that ``check_model`` lets pass."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 4]) for name in "xy"]
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "graph", ends[:1], ends[1:], tensors)
    version = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[version], ir_version=8), path)


def test_axes_that_are_no_integers_are_refused(path: Path) -> None:
    node = helper.make_node("Squeeze", ["x", "axes"], ["y"])
    for axes in (np.array([np.nan], np.float32), np.array(["1"], object)):
        write_graph(path, [node], axes=axes)
        with pytest.raises(ModelFileError, match=r"Squeeze cannot be loaded: its axes are .*, not"):
            minidl.onnx.load(path)


# Operators of an input (n, 3, 4), with their second operand, and what is wrong.
WRONG_AXES: list[tuple[str, dict[str, Any], Any, str]] = [
    *(
        (kind, {"axis": axis}, None, f"its axis {axis} must be from -3 to 2")
        for kind in ("Softmax", "LogSoftmax", "Concat", "Split")
        for axis in (3, -4)
    ),
    ("Flatten", {"axis": 4}, None, "its axis 4 must be from -3 to 3"),
    ("Squeeze", {}, [3], "its axis 3 must be from -3 to 2"),
    ("Unsqueeze", {}, [0, 5], "its axis 5 must be from -5 to 4"),
    ("Unsqueeze", {}, [0, -5], "it names an axis twice"),
    ("Gather", {"axis": 3}, 0, "its axis 3 must be from -3 to 2"),
    ("Gather", {"axis": 1}, 3, "it takes place 3 of an axis of size 3"),
    ("Transpose", {"perm": [0, 1, 3]}, None, "its order .0, 1, 3. is none of the 3 axes"),
    ("Transpose", {"perm": [0, 1, 1]}, None, "its order .0, 1, 1. is none of the 3 axes"),
    ("Transpose", {"perm": [1, 0]}, None, "its order .1, 0. is none of the 3 axes"),
    ("Reshape", {}, [0, 0, 0, 0], "are no shape for an input of 3 axes"),
    ("Reshape", {}, [-1, -1], "are no shape for an input of 3 axes"),
    ("Reshape", {}, [-2, 6], "are no shape for an input of 3 axes"),
    ("Split", {"axis": 1}, [1, 1, 1], "it has 2 outputs, and 3 sizes for them"),
]


@pytest.mark.parametrize(("kind", "attributes", "operand", "words"), WRONG_AXES)
def test_axes_that_an_input_does_not_have_are_refused(
    kind: str, attributes: dict[str, Any], operand: Any, words: str, path: Path
) -> None:
    names = ["a"] if operand is None else ["a", "operand"]
    constants = {} if operand is None else {"operand": np.array(operand)}
    results = ["y", "z"] if kind == "Split" else ["y"]
    nodes = [helper.make_node("Relu", ["x"], ["a"])]
    nodes.append(helper.make_node(kind, names, results, **attributes))
    ends = {name: ["p", "q", "r"] for name in results}
    write(path, nodes, {"x": ["n", 3, 4]}, ends, **constants)
    with pytest.raises(ModelFileError, match=f"the node {kind} cannot be loaded: .*{words}"):
        minidl.onnx.load(path)


def test_a_negative_variance_is_refused(path: Path) -> None:
    node = helper.make_node("BatchNormalization", ["x", *"gbmv"], ["y"])
    ones = np.ones(4, np.float32)
    write_graph(path, [node], g=ones, b=ones, m=ones, v=-ones)
    with pytest.raises(ModelFileError, match="its variance must be at least 0, and holds -1"):
        minidl.onnx.load(path)


def test_sums_that_share_their_parts_are_a_network(path: Path) -> None:
    """As blocks, the parts of a ladder of sums would double with every rung."""
    names, nodes = ("x", "x"), []
    for rung in range(60):
        a, b = f"a{rung}", f"b{rung}"
        nodes.append(helper.make_node("Tanh", [names[0]], [f"t{rung}"]))
        nodes.append(helper.make_node("Add", names, [a]))
        nodes.append(helper.make_node("Add", [f"t{rung}", names[1]], [b]))
        names = (a, b)
    write_graph(path, [*nodes, helper.make_node("Add", names, ["y"])])
    assert isinstance(minidl.onnx.load(path), Network)


def test_sums_that_are_nested_deeply_are_a_network(path: Path) -> None:
    """As blocks within blocks, they would exhaust Python's stack."""
    depth = 1500
    down = [helper.make_node("Relu", [f"d{i}" if i else "x"], [f"d{i + 1}"]) for i in range(depth)]
    up = [
        helper.make_node(
            "Add",
            [f"u{i + 1}" if i + 1 < depth else f"d{depth}", f"d{i + 1}"],
            [f"u{i}" if i else "y"],
        )
        for i in reversed(range(depth))
    ]
    write_graph(path, down + up)
    model = minidl.onnx.load(path)
    assert isinstance(model, Network)
    x = np.array([[0, 0, 1e-30, -1]], np.float32)  # every sum adds x once more
    np.testing.assert_allclose(model(x), [[0, 0, 1e-30 * (depth + 1), 0]], rtol=1e-4)
