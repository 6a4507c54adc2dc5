"""ONNX files: what other programs make of minidl's models, and minidl of theirs."""

from __future__ import annotations

import os
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

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from layer_helpers import BRANCHES  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx_helpers import (  # noqa: E402
    check_file,
    disturb,
    example_inputs,
    outputs_of,
    random_stack,
    run_elsewhere,
)

STACKS = int(os.environ.get("MINIDL_ONNX_STACKS", "40"))
DAMAGED = int(os.environ.get("MINIDL_ONNX_DAMAGED", "100"))
EXAMPLES = [
    pytest.param(cls, index, id=f"{cls.__name__}-{index}")
    for cls in nn.Layer.registry
    if cls.__module__.startswith("minidl.nn") and cls not in BRANCHES
    for index, _ in enumerate(cls.examples())
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.onnx"


# --- export -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("cls", "index"), EXAMPLES)
def test_every_layer_is_the_same_elsewhere_and_when_loaded(
    cls: type[nn.Layer], index: int, path: Path
) -> None:
    layer, shapes = list(cls.examples())[index]
    rng = np.random.default_rng(index)
    disturb(layer, rng).eval()
    batches = [example_inputs(shapes, batch, rng) for batch in (7, 1)]
    if layer.takes_lengths and len(shapes) == 1:
        batches += [(x, rng.integers(1, 1 + x.shape[1], len(x))) for (x,) in batches]
        check_file(layer, path, batches[2:])
    check_file(layer, path, batches[:2])


@pytest.mark.parametrize("seed", range(STACKS))
def test_random_stacks_are_the_same_elsewhere_and_when_loaded(seed: int, path: Path) -> None:
    model, draw = random_stack(np.random.default_rng(seed))
    loaded = check_file(model, path, [draw(7), draw(1)])
    assert not isinstance(loaded, Network), "a chain is loaded as a Sequential"


@pytest.mark.parametrize("opset", [18, 21, onnx.defs.onnx_opset_version()])
def test_newer_opsets_compute_the_same(opset: int, path: Path) -> None:
    model = nn.Sequential(
        *(nn.RMSNorm(3), nn.GELU(), nn.LSTM(3, 2, 2, bidirectional=True), nn.Mish()), rng=0
    )
    x = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
    minidl.onnx.export(model, path, x, opset=opset)
    assert onnx.load(path).opset_import[0].version == opset
    np.testing.assert_array_equal(outputs_of(minidl.onnx.load(path), (x,)), outputs_of(model, (x,)))
    cell, state = nn.LSTMCell(3, 2, rng=0), np.ones((2, 2), np.float32)
    minidl.onnx.export(cell, path, (x[:, 0], state, state), opset=opset)
    assert len(outputs_of(minidl.onnx.load(path), (x[:, 0], state, state))) == 2


def test_a_file_is_of_opset_17_and_of_the_format_of_2022(path: Path) -> None:
    minidl.onnx.export(nn.Linear(3, 2, rng=0), path, np.ones((1, 3), np.float32))
    model = onnx.load(path)
    assert (model.ir_version, model.opset_import[0].version) == (8, 17)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    with pytest.raises(ValueError, match=r"opset must be from 17 to .*, got 16"):
        minidl.onnx.export(nn.ReLU(), path, np.ones((1, 3), np.float32), opset=16)


def test_a_float64_model_is_written_as_float32(path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), rng=0).astype(np.float64)
    x = np.random.default_rng(0).normal(size=(5, 3))
    minidl.onnx.export(model, path, x)
    (y,) = run_elsewhere(path, (x.astype(np.float32),))
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, model(x), rtol=1e-5)


def test_what_trains_stays_behind_and_the_model_stays_in_its_mode(path: Path) -> None:
    model = nn.Sequential(nn.BatchNorm(3), nn.Dropout(0.5), rng=0)
    before = {name: array.copy() for name, array in model.state().items()}
    minidl.onnx.export(model, path, np.ones((4, 3), np.float32))
    assert model.training
    for name, array in model.state().items():
        np.testing.assert_array_equal(array, before[name])
    assert not minidl.onnx.load(path).training


def test_hyper_parameters_come_back(path: Path) -> None:
    model = nn.Sequential(
        *(nn.BatchNorm(3, 0.2, 1e-4), nn.Dropout(0.3), nn.LeakyReLU(0.1), nn.ELU(0.7)), rng=0
    )
    minidl.onnx.export(model, path, draw(2, 3))
    (momentum,) = (a.f for a in onnx.load(path).graph.node[0].attribute if a.name == "momentum")
    assert momentum == np.float32(0.8), "ONNX gives the share of what was there before"
    loaded = minidl.onnx.load(path)
    assert repr(loaded) == repr(model)
    assert (loaded[0].momentum, loaded[0].eps) == (0.2, 1e-4)


class Doubled(nn.Layer):
    def forward(self, x: Any) -> Any:
        return x + x


class OtherReLU(nn.ReLU):
    def forward(self, x: Any) -> Any:
        return -super().forward(x)


@pytest.mark.parametrize("layer", [Doubled(), OtherReLU()])
def test_a_layer_of_the_users_is_refused_with_its_place(layer: nn.Layer, path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Residual(nn.Sequential(nn.ReLU(), layer)))
    words = rf"layer 1\.body\.1 {type(layer).__name__}\(\) is a layer that ONNX has no operator for"
    with pytest.raises(TypeError, match=words):
        minidl.onnx.export(model, path, np.ones((1, 3), np.float32))
    assert not path.exists()


def test_an_example_that_the_model_refuses_is_refused(path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    with pytest.raises(TypeError, match=r"the example must be a NumPy array, .* got list"):
        minidl.onnx.export(model, path, [[1.0, 2.0, 3.0]])
    with pytest.raises(TypeError, match=r"the example must be a NumPy array, .* got \(\)"):
        minidl.onnx.export(model, path, ())
    with pytest.raises(ValueError, match="expected input of shape"):
        minidl.onnx.export(model, path, draw(2, 4))
    with pytest.raises(TypeError, match="got lengths, and no layer in it takes them"):
        minidl.onnx.export(model, path, (draw(2, 3), np.array([1, 2])))


def test_importing_the_module_does_not_import_onnx() -> None:
    program = "import sys, minidl.onnx; assert not {'onnx', 'google'} & sys.modules.keys()"
    subprocess.run(
        [sys.executable, "-c", program], check=True, cwd=Path(minidl.__file__).parents[1]
    )


def test_without_the_package_one_line_says_how_to_get_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(
        ImportError, match=r"^minidl.onnx needs onnx: pip install 'minidl\[onnx\]'$"
    ):
        minidl.onnx.export(nn.ReLU(), path, np.ones((1, 3), np.float32))
    with pytest.raises(ImportError, match="pip install"):
        minidl.onnx.load(path)


# --- load -------------------------------------------------------------------------------------


def write(
    path: Path, nodes: list[Any], inputs: Any, outputs: Any, opset: int = 17, **constants: Any
) -> None:
    """Write a graph; inputs and outputs are shapes of float32 by name."""
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


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


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


def test_numbers_and_order_of_a_pattern_may_differ(path: Path) -> None:
    """As PyTorch writes GELU: a rounded root of two, and factors in another order."""
    node = helper.make_node
    nodes = [
        node("Div", ["x", "root"], ["a"]),
        node("Erf", ["a"], ["b"]),
        node("Add", ["one", "b"], ["c"]),
        node("Mul", ["c", "x"], ["d"]),
        node("Mul", ["half", "d"], ["y"]),
    ]
    numbers = {"root": np.float32(1.41421354), "one": np.float32(1), "half": np.float32(0.5)}
    write(path, nodes, {"x": ["n", 3]}, {"y": ["n", 3]}, **numbers)
    assert isinstance(minidl.onnx.load(path), nn.GELU)
    write(path, nodes, {"x": ["n", 3]}, {"y": ["n", 3]}, **(numbers | {"one": np.float32(2)}))
    with pytest.raises(ModelFileError, match="the node Erf cannot be loaded: minidl has no such"):
        minidl.onnx.load(path)


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


def lstm_of_pytorch(directions: int) -> tuple[list[Any], dict[str, Any]]:
    """The nodes and the constants of the last step of an LSTM with the batch first.

    The initial state is zero, of a shape that is computed from that of the input.
    """
    node, levels = helper.make_node, range(2)
    nodes = [
        node("Transpose", ["x"], ["first"], perm=[1, 0, 2]),
        node("Shape", ["first"], ["shape"]),
        node("Gather", ["shape", "one"], ["batch"], axis=0),
        node("Concat", ["directions", "batch", "two"], ["sizes"], axis=0),
        node("ConstantOfShape", ["sizes"], ["zero"]),
    ]
    constants = {"directions": np.array([directions]), "one": np.array([1]), "two": np.array([2])}
    constants |= {"joined": np.array([0, 0, -1]), "last": np.array(-1)}
    features = "first"
    for level in levels:
        names = [f"{word}{level}" for word in ("w", "r", "b", "y", "features")]
        width = 2 * directions if level else 3
        shapes = (directions, 8, width), (directions, 8, 2), (directions, 16)
        constants |= {name: draw(*shape) for name, shape in zip(names, shapes, strict=False)}
        options = {"direction": "bidirectional"} if directions == 2 else {}
        operands = [features, *names[:3], "", "zero", "zero"]
        nodes.append(node("LSTM", operands, [names[3]], hidden_size=2, **options))
        nodes += [
            node("Transpose", [names[3]], [f"across{level}"], perm=[0, 2, 1, 3]),
            node("Reshape", [f"across{level}", "joined"], [names[4]]),
        ]
        features = names[4]
    nodes += [
        node("Transpose", [features], ["sequences"], perm=[1, 0, 2]),
        node("Gather", ["sequences", "last"], ["y"], axis=1),
    ]
    return nodes, constants


@pytest.mark.parametrize("directions", [1, 2])
def test_a_recurrent_layer_of_pytorch_is_one_layer(directions: int, path: Path) -> None:
    nodes, constants = lstm_of_pytorch(directions)
    write(path, nodes, {"x": ["n", 5, 3]}, {"y": ["n", 2 * directions]}, **constants)
    model, x = minidl.onnx.load(path), draw(4, 5, 3)
    assert isinstance(model, nn.Sequential)
    both = ", bidirectional=True" if directions == 2 else ""
    assert repr(model[0]) == f"LSTM(3, 2, num_layers=2{both})"
    np.testing.assert_allclose(model(x), run_elsewhere(path, (x,))[0], rtol=1e-5, atol=1e-6)


def test_levels_that_are_given_their_state_are_several_layers(path: Path) -> None:
    nodes, constants = lstm_of_pytorch(1)
    nodes = [nodes[0], *nodes[5:]]  # "zero" is an input
    shapes = {"x": ["n", 5, 3], "zero": [1, "n", 2]}
    write(path, nodes, shapes, {"y": ["n", 2]}, **constants)
    inputs = draw(4, 5, 3), draw(1, 4, 2)
    (theirs,) = run_elsewhere(path, inputs)
    np.testing.assert_allclose(minidl.onnx.load(path)(*inputs), theirs, rtol=1e-5, atol=1e-6)


def test_an_initial_state_that_is_not_zero_is_refused(path: Path) -> None:
    nodes, constants = lstm_of_pytorch(1)
    one = numpy_helper.from_array(np.ones(1, np.float32))
    nodes[4] = helper.make_node("ConstantOfShape", ["sizes"], ["zero"], value=one)
    write(path, nodes, {"x": ["n", 5, 3]}, {"y": ["n", 2]}, **constants)
    with pytest.raises(ModelFileError, match="the node ConstantOfShape cannot be loaded"):
        minidl.onnx.load(path)


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
