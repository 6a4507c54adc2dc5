"""ONNX files that cannot be loaded, which name what is wrong, and graphs made to be in the way."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minidl
from minidl import ModelFileError, nn
from minidl.onnx.network import Network

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx_helpers import draw, recurrent_node, write  # noqa: E402

DAMAGED = int(os.environ.get("MINIDL_ONNX_DAMAGED", "100"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.onnx"


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
    ("Mul", {}, np.ones((1, 1, 1, 4), np.float32), "its constant has 4 axes, and its input 3"),
    ("Sub", {}, np.zeros((2, 1, 1, 1), np.float32), "its constant has 4 axes, and its input 3"),
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


@pytest.mark.parametrize("constant", [0.0, 1.0, 2.0])
def test_a_constant_that_makes_more_of_an_input_is_refused(constant: float, path: Path) -> None:
    for kind in ("Add", "Mul"):
        node = helper.make_node(kind, ["x", "c"], ["y"])
        c = np.full((2, 3), constant, np.float32)
        write(path, [node], {"x": ["n", 3]}, {"y": ["m", 3]}, c=c)
        model = minidl.onnx.load(path)
        assert model(np.ones((2, 3), np.float32)).shape == (2, 3)
        with pytest.raises(ValueError, match=r"a constant makes \(2, 3\) of an input \(1, 3\)"):
            model(np.ones((1, 3), np.float32))


@pytest.mark.parametrize(
    ("last", "words"),
    [
        ("Add", "Mul cannot be loaded: its operands are constants"),
        ("MatMul", "operand 'd' must be"),
    ],
)
def test_an_operator_of_constants_only_is_refused(last: str, words: str, path: Path) -> None:
    nodes = [helper.make_node("Mul", ["c", "c"], ["d"]), helper.make_node(last, ["x", "d"], ["y"])]
    write(path, nodes, {"x": ["n", 3]}, {"y": ["n", 3]}, c=np.ones((3, 3), np.float32))
    with pytest.raises(ModelFileError, match=words):
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
