"""Networks for images and sequences in ONNX: the channels there are on axis 1."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_stacks import disturbed, random_images

import minidl
from minidl import ModelFileError, nn
from minidl.onnx.adapters import Transpose

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import helper  # noqa: E402
from onnx_helpers import (  # noqa: E402
    check_file,
    draw,
    outputs_of,
    run_elsewhere,
    write,
    write_text,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.onnx"


def operators(path: Path) -> Counter[str]:
    """How many nodes of each kind a file has."""
    return Counter(node.op_type for node in onnx.load(str(path)).graph.node)


def lenet(*, channels_first: bool) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.BatchNorm(6), nn.Tanh(), nn.AvgPool2d(2)),
        nn.Residual(nn.Sequential(nn.Conv2d(6, 6, 3, padding="same"), nn.PReLU(6)), nn.Identity()),
        nn.Parallel(nn.Conv2d(6, 16, 5), nn.Conv2d(6, 16, 5), join="add"),
        *(nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(channels_first=channels_first)),
        *(nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 10), nn.Softmax()),
        rng=0,
    )


@pytest.mark.parametrize("seed", range(24))
def test_random_networks_are_the_same_elsewhere_and_when_loaded(seed: int, path: Path) -> None:
    rng = np.random.default_rng(seed)
    model, x = random_images(rng)
    loaded = check_file(model, path, [(x,), (x[:1],)])
    inside = [layer for _, layer in loaded.layers() if isinstance(layer, nn.Conv1d | nn.Conv2d)]
    ours = [layer for _, layer in model.layers() if isinstance(layer, nn.Conv1d | nn.Conv2d)]
    assert [(layer.groups, layer.stride, layer.window.dilation) for layer in inside] == [
        (layer.groups, layer.stride, layer.window.dilation) for layer in ours
    ]
    turned = np.moveaxis(x, -1, 1).copy()
    again = check_file(nn.ChannelsFirst(model), path, [(turned,), (turned[:1],)])
    minidl.onnx.export(again, path, turned)
    np.testing.assert_array_equal(minidl.onnx.load(path)(turned), again(turned))


def test_transposes_are_at_the_border_only(path: Path) -> None:
    x = draw(2, 16, 16, 1)
    model = disturbed(lenet(channels_first=True), np.random.default_rng(0)).eval()
    loaded = check_file(model, path, [(x,)])
    assert operators(path)["Transpose"] == 1
    assert not any(isinstance(layer, Transpose) for _, layer in loaded.layers())
    turned = np.moveaxis(x, -1, 1).copy()
    loaded = check_file(nn.ChannelsFirst(model), path, [(turned,)])
    assert operators(path)["Transpose"] == 0
    assert [type(layer) for _, layer in loaded.layers()].count(Transpose) == 1
    pixels = disturbed(lenet(channels_first=False), np.random.default_rng(0)).eval()
    check_file(pixels, path, [(x,)])
    assert operators(path)["Transpose"] == 2


def test_images_may_leave_as_they_came(path: Path) -> None:
    body = nn.Sequential(nn.Conv2d(2, 3, 1), nn.ReLU(), nn.Upsample((1, 2)), nn.Softmax(), rng=0)
    x = draw(2, 3, 4, 2)
    loaded = check_file(body, path, [(x,)])
    assert operators(path)["Transpose"] == 2
    assert repr(loaded) == repr(body.eval())


def test_a_value_that_is_needed_in_both_layouts(path: Path) -> None:
    branches = nn.Parallel(nn.LayerNorm(3), nn.Sequential(nn.Conv2d(3, 3, 1), nn.Tanh()))
    model = nn.Sequential(nn.Conv2d(2, 3, 2, rng=0), branches, nn.RMSNorm(6), nn.Split((2, 4)))
    check_file(model, path, [(draw(2, 3, 4, 2),)])


def test_branches_with_inputs_of_their_own(path: Path) -> None:
    model = nn.Sequential(
        nn.Parallel(
            table=nn.Linear(3, 4), image=nn.Sequential(nn.Conv2d(1, 4, 2), nn.GlobalAvgPool())
        ),
        nn.ReLU(),
        nn.Parallel(nn.Linear(8, 2), nn.Identity(), join=None),
        rng=0,
    )
    check_file(model, path, [(draw(5, 3), draw(5, 4, 4, 1)), (draw(1, 3), draw(1, 4, 4, 1))])


# --- graphs of others ----------------------------------------------------------------------------


def graph(path: Path, kind: str, x: np.ndarray, *, weight: Any = None, **attributes: Any) -> Any:
    """Write a graph of one operator, and return what ONNX Runtime makes of x."""
    constants = {} if weight is None else {"w": weight}
    node = helper.make_node(kind, ["x", *constants], ["y"], **attributes)
    sizes = [None] * x.ndim
    write(path, [node], {"x": list(x.shape)}, {"y": sizes}, **constants)
    (y,) = run_elsewhere(path, (x,))
    return y


@pytest.mark.parametrize("padding", ["SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"])
@pytest.mark.parametrize("kernel", [(2, 3), (4, 1)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 3)])
def test_automatic_padding(padding: str, kernel: Any, stride: Any, path: Path) -> None:
    x = draw(2, 4, 6, 7)
    options = {"auto_pad": padding, "strides": stride}
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("Conv", {"weight": draw(6, 2, *kernel), "group": 2, **options}),
        ("MaxPool", {"kernel_shape": kernel, **options}),
        ("AveragePool", {"kernel_shape": kernel, **options}),
    ]
    for kind, words in kinds:
        expected = graph(path, kind, x, **words)
        (y,) = outputs_of(minidl.onnx.load(path), (x,))
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5, err_msg=kind)


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("MaxPool", {"kernel_shape": [2, 2], "ceil_mode": 1}, "ceil_mode"),
        ("MaxPool", {"kernel_shape": [2, 2], "dilations": [2, 2]}, "dilations"),
        ("AveragePool", {"kernel_shape": [3, 3], "pads": [2] * 4}, "at most half the kernel"),
        ("ConvTranspose", {"weight": draw(4, 2, 3, 3)}, "minidl has no such layer"),
        ("InstanceNormalization", {"weight": draw(4)}, ""),
        ("LpPool", {"kernel_shape": [2, 2]}, "minidl has no such layer"),
    ],
)
def test_what_minidl_has_not_is_refused_by_name(
    kind: str, options: Any, words: str, path: Path
) -> None:
    x = draw(1, 4, 5, 6)
    if kind == "InstanceNormalization":
        node = helper.make_node(kind, ["x", "s", "b"], ["y"], name="norm")
        write(path, [node], {"x": x.shape}, {"y": x.shape}, s=draw(4), b=draw(4))
    else:
        graph(path, kind, x, **options)
    with pytest.raises(ModelFileError, match=f"the node {kind} .*cannot be loaded: .*{words}"):
        minidl.onnx.load(path)


# Pairs before and after each dimension, the last one first, as ONNX has them.
TURNED = """
    none = ConstantOfShape <value = int64[1] {0}> (four)
    all = Concat <axis = 0> (pairs, none)
    apart = Reshape (all, by_two)
    first = Slice (apart, last, start, zero, last)
    turned = Transpose <perm = [1, 0]> (first)
    row = Reshape (turned, last)
    pads = Cast <to = 7> (row)
    y = Pad (x, pads, number)"""
OF_TURNED = """int64[1] four = {4}, int64[4] pairs = {1, 2, 0, 3}, int64[2] by_two = {-1, 2},
    int64[1] last = {-1}, int64[1] start = {-9223372036854775807}, int64[1] zero = {0},
    float number = {0.5}"""


def test_a_padding_that_is_computed_of_constants(path: Path) -> None:
    write_text(path, OF_TURNED, TURNED, "float[n, 2, a, b] y", "float[n, 2, 3, 4] x")
    x = draw(2, 2, 3, 4)
    (expected,) = run_elsewhere(path, (x,))
    assert expected.shape == (2, 2, 6, 7)
    np.testing.assert_array_equal(minidl.onnx.load(path)(x), expected)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("int64[1] four = {4}", "int64[1] four = {1000000000000}"),
        ("int64[1] four = {4}", "int64[1] four = {-4}"),
        ("{-1, 2}", "{-1, 3}"),
        ("{-1, 2}", "{0, 2}"),
        ("[1, 0]", "[1, 2]"),
        ("<to = 7>", "<to = 6>"),
        ("pairs = {1, 2, 0, 3}", "pairs = {-1, 2, 0, 3}"),
    ],
)
def test_a_padding_that_cannot_be_computed_is_refused(before: str, after: str, path: Path) -> None:
    constants, operators = OF_TURNED.replace(before, after), TURNED.replace(before, after)
    assert (constants, operators) != (OF_TURNED, TURNED)
    write_text(path, constants, operators, "float[n, 2, a, b] y", "float[n, 2, 3, 4] x")
    with pytest.raises(ModelFileError, match="cannot be loaded"):
        minidl.onnx.load(path)


@pytest.mark.parametrize(("axes", "keepdims"), [([2], 0), ([-1], 1), ([2, 3], 0), ([-1, 2], 1)])
def test_the_largest_of_all_pixels(axes: list[int], keepdims: int, path: Path) -> None:
    x = draw(2, 3, 5, 4)[(..., *[0] * (2 - len(axes)))]
    node = helper.make_node("ReduceMax", ["x"], ["y"], axes=axes, keepdims=keepdims)
    shape = [2, 3, *[1] * (keepdims * len(axes))]
    write(path, [node], {"x": list(x.shape)}, {"y": shape})
    model = minidl.onnx.load(path)
    np.testing.assert_array_equal(model(np.ascontiguousarray(x)), x.max(tuple(axes)).reshape(shape))


def test_products_of_two_shapes_are_refused(path: Path) -> None:
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["mean"]),
        helper.make_node("Mul", ["x", "mean"], ["y"], name="scale"),
    ]
    write(path, nodes, {"x": [2, 3, 4, 5]}, {"y": [2, 3, 4, 5]})
    words = r"the node Mul 'scale' cannot be loaded: .* \(2, 3, 4, 5\) and \(2, 3, 1, 1\)"
    with pytest.raises(ModelFileError, match=words):
        minidl.onnx.load(path)


def test_volumes_are_refused(path: Path) -> None:
    graph(path, "Conv", draw(1, 2, 3, 4, 3), weight=draw(2, 2, 1, 2, 1))
    with pytest.raises(ModelFileError, match="it has 3 dimensions"):
        minidl.onnx.load(path)


# --- PyTorch's exporters -------------------------------------------------------------------------


def networks_of_pytorch() -> dict[str, tuple[Any, tuple[int, ...]]]:
    from minidl.torch.branch_modules import Residual

    torch = pytest.importorskip("torch")
    n = torch.nn

    def block(channels: int, out: int, stride: int) -> Any:
        body = n.Sequential(
            *(n.Conv2d(channels, out, 3, stride, 1, bias=False), n.BatchNorm2d(out), n.ReLU()),
            *(n.Conv2d(out, out, 3, padding=1, bias=False), n.BatchNorm2d(out)),
        )
        around = n.Sequential(n.Conv2d(channels, out, 1, stride, bias=False), n.BatchNorm2d(out))
        return n.Sequential(Residual(body, around if stride > 1 else None), n.ReLU())

    lenet = n.Sequential(
        *(n.Conv2d(1, 6, 5, padding=2), n.Tanh(), n.AvgPool2d(2), n.Conv2d(6, 16, 5), n.ReLU()),
        *(n.MaxPool2d(2), n.Flatten(), n.Linear(64, 20), n.SiLU(), n.Linear(20, 10)),
        n.Softmax(dim=1),
    )
    resnet = n.Sequential(
        *(n.Conv2d(3, 4, 3, padding=1, bias=False), n.BatchNorm2d(4), n.ReLU()),
        *(n.MaxPool2d(3, 2, 1), block(4, 4, 1), block(4, 6, 2), n.Upsample(scale_factor=2)),
        *(n.AdaptiveAvgPool2d(1), n.Flatten(), n.Linear(6, 5)),
    )
    sequence = n.Sequential(
        *(n.Conv1d(3, 4, 3, padding="same", dilation=2), n.BatchNorm1d(4), n.GELU()),
        *(n.MaxPool1d(2), n.Conv1d(4, 4, 3, groups=4), n.AdaptiveAvgPool1d(1), n.Flatten()),
    )

    class Largest(n.Module):
        """The largest number of each channel."""

        def forward(self, x: Any) -> Any:
            return x.amax(2)

    causal = n.Sequential(
        *(n.ConstantPad1d((4, 0), 0.0), n.Conv1d(3, 4, 3, dilation=2), n.ReLU()),
        *(n.ZeroPad1d((1, 2)), n.Conv1d(4, 4, 3), Largest(), n.Linear(4, 2)),
    )
    return {
        "causal": (causal, (2, 3, 7)),
        "lenet": (lenet, (2, 1, 16, 16)),
        "resnet": (resnet, (2, 3, 14, 12)),
        "sequence": (sequence, (2, 3, 12)),
    }


@pytest.mark.parametrize("dynamo", [False, True], ids=["tracing", "dynamo"])
@pytest.mark.parametrize("name", ["causal", "lenet", "resnet", "sequence"])
def test_files_of_pytorch(name: str, dynamo: bool, path: Path) -> None:
    torch = pytest.importorskip("torch")
    if dynamo:
        pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    module, shape = networks_of_pytorch()[name]
    for key, buffer in module.named_buffers():
        if "running" in key:
            buffer += torch.rand(buffer.shape)
    x = torch.randn(shape)
    options = {"external_data": False, "verbose": False} if dynamo else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module.eval(), (x,), str(path), dynamo=dynamo, **options)
    model = minidl.onnx.load(path)
    expected = module(x).detach().numpy()
    (y,) = outputs_of(model, (x.numpy(),))
    assert y.shape == expected.shape
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=2e-6)
    assert sum(isinstance(layer, Transpose) for _, layer in model.layers()) <= 1
    assert isinstance(model, nn.Sequential)
    check_file(model, path, [(x.numpy(),)])
