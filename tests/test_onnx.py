"""ONNX files of minidl's models: what other programs make of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minidl
from minidl import nn
from minidl.onnx.network import Network

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx_helpers import (  # noqa: E402
    check_file,
    disturb,
    draw,
    example_inputs,
    outputs_of,
    random_stack,
    run_elsewhere,
)

STACKS = int(os.environ.get("MINIDL_ONNX_STACKS", "40"))
EXAMPLES = [
    pytest.param(cls, index, id=f"{cls.__name__}-{index}")
    for cls in nn.Layer.registry
    if cls.__module__.startswith("minidl.nn")
    for index, _ in enumerate(cls.examples())
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.onnx"


@pytest.mark.parametrize(("cls", "index"), EXAMPLES)
def test_every_layer_is_the_same_elsewhere_and_when_loaded(
    cls: type[nn.Layer], index: int, path: Path
) -> None:
    layer, shapes = list(cls.examples())[index]
    rng = np.random.default_rng(index)
    disturb(layer, rng).eval()
    batches = [example_inputs(shapes, batch, rng) for batch in (7, 1)]
    if layer.takes_lengths and len(shapes) == 1 and len(shapes[0]) == 3:  # sequences
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


def test_a_stateful_layer_starts_with_zeros_and_keeps_what_it_carries(path: Path) -> None:
    model = nn.LSTM(3, 2, stateful=2, rng=0)
    model(draw(2, 4, 3))
    before = model.carried.copy()
    x = draw(2, 5, 3)
    minidl.onnx.export(model, path, x)
    np.testing.assert_array_equal(model.carried, before)
    assert before.any()
    expected = outputs_of(model, (x,))
    np.testing.assert_array_equal(outputs_of(minidl.onnx.load(path), (x,)), expected)
    np.testing.assert_allclose(run_elsewhere(path, (x,)), expected, rtol=1e-5, atol=1e-6)


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


TABLE, SERIES = (4, 3), (4, 6, 3)
TWINS = nn.Linear(3, 2, rng=0)


@pytest.mark.parametrize(
    ("model", "shapes"),
    [
        (nn.Parallel(TWINS, TWINS, join="stack"), (TABLE, TABLE)),
        (nn.Residual(nn.Parallel(nn.Linear(3, 3), nn.Tanh(), join=None)), (TABLE, TABLE)),
        (nn.Residual(nn.Split((1, 2)), nn.Split((1, 2))), (TABLE,)),
        (nn.Sequential(nn.Parallel(nn.Linear(3, 3), nn.Embedding(9, 3)), nn.ReLU()), (TABLE, None)),
        (nn.Sequential(nn.GRU(3, 3), nn.GRU(3, 3)), (SERIES, TABLE, None)),
        (
            nn.Sequential(
                nn.Parallel(nn.GRU(3, 4), nn.Linear(3, 4), join=None),
                nn.Parallel(nn.GlobalAvgPool(), nn.GlobalMaxPool()),
            ),
            (SERIES, None),
        ),
        (nn.ChannelsFirst(nn.Stack()), (TABLE,)),
        (nn.Sequential(nn.Split((3,)), nn.Stack(), nn.ReLU()), (TABLE,)),
    ],
)
def test_several_inputs_go_where_the_model_has_them(model: Any, shapes: Any, path: Path) -> None:
    rng = np.random.default_rng(0)
    numbers = np.array([2, 6, 3, 5])  # lengths, or indices
    inputs = [
        numbers if shape is None else rng.normal(size=shape).astype(np.float32) for shape in shapes
    ]
    example = [inputs[shapes.index(shape)] for shape in shapes]  # one array for those of one shape
    minidl.onnx.export(model, path, tuple(example))
    expected = outputs_of(model, tuple(inputs))
    for theirs, ours in zip(run_elsewhere(path, tuple(inputs)), expected, strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-5, atol=1e-5)
    for again, ours in zip(
        outputs_of(minidl.onnx.load(path), tuple(inputs)), expected, strict=True
    ):
        np.testing.assert_array_equal(again, ours)


def test_a_tuple_within_a_tuple_is_refused(path: Path) -> None:
    inner = nn.Parallel(nn.ReLU(), nn.Tanh(), join=None)
    ends = nn.Parallel(nn.Concat(), nn.Linear(2, 2))
    model = nn.Sequential(nn.Parallel(inner, nn.Linear(3, 2), join=None), ends)
    assert model(np.ones(TABLE, np.float32)).shape == (4, 8)
    with pytest.raises(TypeError, match=r"layer 1 Parallel.* would get a tuple within a tuple"):
        minidl.onnx.export(model, path, np.ones(TABLE, np.float32))


def test_transposes_after_transposes_are_no_rows(path: Path) -> None:
    inner = nn.Sequential(nn.Parallel(nn.Linear(5, 2), nn.Identity()), nn.Linear(7, 2))
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ChannelsFirst(inner))
    rng = np.random.default_rng(0)
    check_file(model, path, [(rng.normal(size=(2, 5, 4, 3)).astype(np.float32),)])
