"""What minidl makes of the ONNX files that PyTorch writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minidl
from minidl import ModelFileError, nn

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import helper, numpy_helper  # noqa: E402
from onnx_helpers import draw, run_elsewhere, write, write_text  # noqa: E402


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.onnx"


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


# --- layers that its exporters write as several operators ---------------------------------------

MEAN_SQUARE = """
    square = Pow (x, two)
    mean = ReduceMean <keepdims = 1, noop_with_empty_axes = 0> (square, axes)
    above = Add (mean, eps)
    root = Sqrt (above)
"""
RMS_CONSTANTS = "float two = {2}, float eps = {0.001}, float[4] gamma = {1, -2, 3, 0.5}"
# The constants, the operators, and the layer that they are.
WRITTEN: dict[str, tuple[str, str, str]] = {
    "RMSNorm": (
        f"{RMS_CONSTANTS}, int64[1] axes = {{1}}",
        f"""{MEAN_SQUARE}
            inverse = Reciprocal (root)
            normal = Mul (x, inverse)
            y = Mul (normal, gamma)""",
        "RMSNorm(4)",
    ),
    "RMSNorm by hand": (
        f"{RMS_CONSTANTS}, int64[1] axes = {{-1}}, float one = {{1}}",
        f"""{MEAN_SQUARE}
            inverse = Div (one, root)
            normal = Mul (x, inverse)
            y = Mul (gamma, normal)""",
        "RMSNorm(4)",
    ),
    "Softplus": (
        "float threshold = {20}",
        """smooth = Softplus (x)
            large = Greater (x, threshold)
            y = Where (large, x, smooth)""",
        "Softplus(1.0)",
    ),
    "Softplus with beta": (
        "float beta = {1.7}, float threshold = {20}",
        """scaled = Mul (x, beta)
            smooth = Softplus (scaled)
            quotient = Div (smooth, beta)
            large = Greater (scaled, threshold)
            y = Where (large, x, quotient)""",
        "Softplus(1.7)",
    ),
    "Softsign": (
        "float one = {1}",
        """size = Abs (x)
            more = Add (size, one)
            y = Div (x, more)""",
        "Softsign()",
    ),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_several_operators_of_pytorch_are_one_layer(name: str, path: Path) -> None:
    constants, operators, layer = WRITTEN[name]
    write_text(path, constants, operators)
    model, x = minidl.onnx.load(path), 8 * draw(5, 4)
    assert repr(model) == layer
    np.testing.assert_allclose(model(x), run_elsewhere(path, (x,))[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "before", "after", "node"),
    [
        ("RMSNorm", "{1}", "{0}", "Reciprocal"),  # over the batch
        ("RMSNorm", "two = {2}", "two = {3}", "Reciprocal"),
        ("RMSNorm by hand", "one = {1}", "one = {2}", "Div"),
        ("Softplus", "{20}", "{3}", "Where"),  # where softplus(x) is not x yet
        ("Softplus with beta", "{20}", "{3}", "Where"),
        ("Softplus", "Where (large, x, smooth)", "Where (large, smooth, x)", "Where"),
        ("Softsign", "{1}", "{2}", "Div"),
    ],
)
def test_what_only_looks_like_a_layer_of_pytorch_is_refused(
    name: str, before: str, after: str, node: str, path: Path
) -> None:
    constants, operators, _ = WRITTEN[name]
    assert (constants + operators).count(before) == 1
    write_text(path, constants.replace(before, after), operators.replace(before, after))
    with pytest.raises(ModelFileError, match=f"the node {node} cannot be loaded"):
        minidl.onnx.load(path)


def test_widths_are_not_known_behind_a_change_of_shape(path: Path) -> None:
    """Two vectors of width 3 side by side have width 6."""
    node = helper.make_node
    nodes = [
        node("Reshape", ["x", "apart"], ["a"]),
        node("MatMul", ["a", "v"], ["b"]),
        node("Reshape", ["b", "side_by_side"], ["c"]),
        node("Gemm", ["c", "w"], ["y"]),
    ]
    shapes = {"apart": np.array([-1, 2, 2]), "side_by_side": np.array([-1, 6])}
    write(path, nodes, {"x": ["n", 4]}, {"y": ["n", 5]}, v=draw(2, 3), w=draw(6, 5), **shapes)
    x = draw(3, 4)
    np.testing.assert_allclose(minidl.onnx.load(path)(x), run_elsewhere(path, (x,))[0], rtol=1e-5)


# --- shapes that a graph computes ---------------------------------------------------------------

# The shape (n, 6, 4) of an x (n, 2, 3, m), by operators on that of x.
COMPUTED = {
    "slices": """
        sizes = Shape <start = 0> (x)
        batch = Slice (sizes, zero, one)
        second = Slice (sizes, one, two)
        third = Slice (sizes, two, three, zero, one)
        product = Mul (second, third)
        middle = Reshape (product, rest)
        last = Slice (sizes, three, beyond)
        shape = Concat <axis = 0> (batch, middle, last)""",
    "numbers": """
        sizes = Shape (x)
        number = Gather <axis = 0> (sizes, place)
        row = Unsqueeze (number, zero)
        batch = Cast <to = 7> (row)
        last = Shape <start = -1> (x)
        shape = Concat <axis = 0> (batch, rest, last)""",
}
NUMBERS = """int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, int64[1] three = {3},
    int64[1] rest = {-1}, int64[1] beyond = {9223372036854775807}, int64 place = {0}"""


def write_reshape(path: Path, operators: str, features: str) -> None:
    """Write the graph that brings x (n, 2, 3, features) into a shape that it computes."""
    ends = f"float[n, a, {features}] y", f"float[n, 2, 3, {features}] x"
    write_text(path, NUMBERS, f"{operators}\n y = Reshape (x, shape)", *ends)


@pytest.mark.parametrize("how", COMPUTED)
def test_sizes_that_are_computed_from_the_shape_of_x_are_found(how: str, path: Path) -> None:
    write_reshape(path, COMPUTED[how], "4")
    model = minidl.onnx.load(path)
    for batch in (1, 7):
        x = draw(batch, 2, 3, 4)
        np.testing.assert_array_equal(model(x), run_elsewhere(path, (x,))[0])


def test_sizes_of_which_two_are_not_known_are_refused(path: Path) -> None:
    write_reshape(path, COMPUTED["slices"], "m")  # 2 · 3 and m
    with pytest.raises(ModelFileError, match="Reshape cannot be loaded: its operand 'shape' must"):
        minidl.onnx.load(path)


def test_sizes_in_reverse_are_refused(path: Path) -> None:
    backwards = COMPUTED["slices"].replace("three, zero, one)", "three, zero, rest)")
    write_reshape(path, backwards, "4")
    with pytest.raises(ModelFileError, match="Reshape cannot be loaded"):
        minidl.onnx.load(path)


# --- the exporters themselves -------------------------------------------------------------------


def modules_of_pytorch() -> dict[str, tuple[Any, tuple[int, ...]]]:
    """Modules with the shapes of their inputs."""
    from torch import nn as torch_nn

    layers = [
        torch_nn.Linear(4, 8),
        torch_nn.BatchNorm1d(8),
        torch_nn.GELU(),
        torch_nn.Linear(8, 3),
    ]
    return {
        "MLP": (torch_nn.Sequential(*layers), (5, 4)),
        "RMSNorm": (torch_nn.RMSNorm(4), (5, 6, 4)),
        "Flatten": (
            torch_nn.Sequential(torch_nn.Flatten(1, 2), torch_nn.Linear(4, 2)),
            (5, 2, 3, 4),
        ),
    }


@pytest.mark.parametrize(
    ("name", "new"),
    [("MLP", False), ("MLP", True), ("RMSNorm", True), ("Flatten", False), ("Flatten", True)],
)
@pytest.mark.filterwarnings("ignore")
def test_modules_of_pytorch_are_loaded(name: str, new: bool, path: Path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    module, shape = modules_of_pytorch()[name]
    x = torch.randn(shape)
    axes = {"dynamic_shapes": ({0: torch.export.Dim.DYNAMIC},)}
    if not new:
        axes = {"dynamic_axes": {"x": {0: "n"}}, "input_names": ["x"]}
    torch.onnx.export(module.eval(), (x,), path, dynamo=new, **axes)
    y = minidl.onnx.load(path)(x.numpy())
    np.testing.assert_allclose(y, module(x).detach().numpy(), rtol=1e-5, atol=1e-5)
