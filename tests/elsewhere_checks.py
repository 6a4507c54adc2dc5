"""Checks of what is written for other programs and read from them; faults are planted there.

Functions that read or write a layer are registered in tables, and other modules import them by
name: a changed copy of a module takes the place of the module in both.
"""

from __future__ import annotations

import copy
import ctypes
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import flattening_cases
import numpy as np
import onnx_helpers
import pytest

import minidl.c
import minidl.onnx
import minidl.torch
from minidl import ModelFileError, nn
from minidl.c import convolution as c_convolution
from minidl.c import functions, memory
from minidl.c import layers as c_layers
from minidl.c import recurrent as c_recurrent
from minidl.c.emitters import EMITTERS
from minidl.onnx import (
    axes,
    branch_layers,
    channels_last,
    computed_shapes,
    containers,
    folding,
    images,
    layers,
    layout,
    matching,
    network,
    patterns,
    readers,
    recurrent_layers,
    recurrent_readers,
    time_first,
)
from minidl.torch import feature_order, layouts, names

MODULES = (
    *(axes, branch_layers, channels_last, computed_shapes, containers, folding, images, layers),
    layout,
    *(matching, network, patterns, readers, recurrent_layers, recurrent_readers, time_first),
    *(feature_order, layouts, names),
    import_module("minidl.torch.state_dict"),  # whose name is also a function's
    *(c_convolution, functions, memory, c_layers, c_recurrent),
)
HOMES = {module.__name__.removeprefix("minidl."): module for module in MODULES}
TABLES: tuple[dict[Any, Any], ...] = (layers.WRITERS, containers.CONTAINERS, EMITTERS)


@contextmanager
def in_place_of(home: ModuleType, run: Callable[[], dict[str, Any]]) -> Iterator[None]:
    """Have a changed copy of a module, which ``run`` executes, in the place of the module."""
    tables = [dict(table) for table in TABLES]
    lists = {kind: list(found) for kind, found in readers.READERS.items()}
    try:
        with pytest.MonkeyPatch.context() as patch:
            space = run()
            if home is layers:  # which has the table itself
                layers.WRITERS.update(space["WRITERS"])
            for kind, found in lists.items():
                readers.READERS[kind][:] = [
                    space[reader.__name__] if reader.__module__ == home.__name__ else reader
                    for reader in found
                ]
            if home is readers:
                space["READERS"].update(readers.READERS)
            _replace(home, space, patch)
            yield
    finally:
        for table, before in zip(TABLES, tables, strict=True):
            table.update(before)
        for kind, found in lists.items():
            readers.READERS[kind][:] = found


def _replace(home: ModuleType, space: dict[str, Any], patch: pytest.MonkeyPatch) -> None:
    """Put the classes and functions of a copy where the modules beside it have imported them."""
    family = home.__name__.rpartition(".")[0]
    for name, module in list(sys.modules.items()):
        if name.startswith(family):
            for word, value in vars(module).copy().items():
                if getattr(value, "__module__", "") == home.__name__ and word in space:
                    patch.setattr(module, word, space[word])


# --- ONNX ---------------------------------------------------------------------------------------


def check_exported() -> None:
    """Other programs compute from a file what the model does."""
    pytest.importorskip("onnxruntime")
    rng = np.random.default_rng(0)
    models: list[tuple[nn.Layer, tuple[int, ...]]] = [
        (nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.HardSigmoid()), (2, 3)),
        (nn.Residual(nn.Sequential(nn.Linear(3, 3), nn.ELU(0.3))), (2, 3)),
        (nn.BatchNorm(3, eps=0.1), (2, 4, 3)),
        (nn.LayerNorm(3, eps=0.1), (2, 3)),
        (nn.LSTM(3, 2, 2, bidirectional=True, rng=0), (2, 4, 3)),
        (nn.GRU(3, 2, return_sequences=False, rng=0), (2, 4, 3)),
        (_images(), (2, 5, 4, 2)),
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        for model, shape in models:
            x = 3 * rng.normal(size=shape).astype(np.float32)
            onnx_helpers.disturb(model, rng)
            minidl.onnx.export(model, path, x)
            theirs = onnx_helpers.run_elsewhere(path, (x,))
            ours = onnx_helpers.outputs_of(model, (x,))
            np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-5)


def _images() -> nn.Layer:
    branches = nn.Conv2d(2, 2, 2, padding=((1, 0), (0, 1))), nn.Sequential(nn.PReLU(2))
    pools = nn.MaxPool2d(2, 1), nn.Softmax(), nn.Flatten(channels_first=True)
    return nn.Sequential(nn.Conv2d(2, 2, 1), nn.Parallel(*branches), nn.Tanh(), *pools, rng=0)


# The type and the constants of a graph of x (n, 4), and its operators; the output is y.
RIGHT = [
    ("float[n, 4] y", "float one = {1}", "a = Abs (x) b = Add (one, a) y = Div (x, b)"),
    ("float[n, 4] y, float[n, 4] s", "float one = {1}", "s = Sigmoid (x) y = Mul (s, x)"),
    (
        "float[a, n] y",
        "int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}",
        """sizes = Shape (x)
        n = Slice (sizes, zero, one)
        four = Slice (sizes, one, two)
        turned = Concat <axis = 0> (four, n)
        y = Reshape (x, turned)""",
    ),
    (
        "float[n, 2] y",
        "float[4, 2] w = {1, 2, 3, 4, 5, 6, 7, 8}, float[2] b = {1, -1}",
        "y = Gemm <alpha = 0.5, beta = 3.0> (x, w, b)",
    ),
    (
        "float[1, n, 1] h",
        """float[1, 4, 4] w = {1, 2, 3, 4, 5, 4, 3, 2, 1, 0, -1, -2, -3, -2, -1, 0},
        float[1, 4, 1] r = {1, -2, 3, 1}, float[1, 8] b = {1, 2, 3, 4, -2, -4, -6, 1},
        int64[1] zero = {0}, float small = {0.1}""",
        """little = Mul (x, small)
        sequence = Unsqueeze (little, zero)
        more = Tanh (sequence)
        both = Concat <axis = 0> (sequence, more)
        y, h = LSTM <hidden_size = 1, direction = "reverse"> (both, w, r, b)""",
    ),
    (
        "float[n, 7] y",
        """int64[1] two = {2}, int64[2] pairs = {1, 2}, int64[2] apart = {-1, 2},
        int64[1] last = {-1}, int64[1] start = {-9223372036854775807}, int64[1] zero = {0},
        float half = {0.5}""",
        """none = ConstantOfShape <value = int64[1] {0}> (two)
        all = Concat <axis = 0> (pairs, none)
        rows = Reshape (all, apart)
        turned = Slice (rows, last, start, zero, last)
        columns = Transpose <perm = [1, 0]> (turned)
        row = Reshape (columns, last)
        pads = Cast <to = 7> (row)
        y = Pad (x, pads, half)""",
    ),
    ("float[n, 4] y", "float half = {0.5}", "a = Tanh (x) b = Add (a, x) y = Mul (b, half)"),
    (
        "float[n, 8] y, float[n, 2, 2, 2] z",
        """int64[4] sizes = {-1, 1, 2, 2}, float[2, 1, 1, 1] w = {1, -2},
        float[2, 1, 1] shift = {1, 3}""",
        """images = Reshape (x, sizes)
        both = Conv (images, w)
        shifted = Add (both, shift)
        z = Relu (shifted)
        parts = MaxPool <kernel_shape = [1, 1]> (z)
        y = Flatten (parts)""",
    ),
]
WRONG = [
    ("float[n, 4] y", "float more = {1.5}", "a = Abs (x) b = Add (more, a) y = Div (x, b)"),
    ("float[n, 4] y", "float root = {1.4}", "a = Div (x, root) y = Erf (a)"),
    ("float[n, 4] y", "", "y = Softmax <axis = 2> (x)"),
    ("float[n, 4] y", "", "y = Transpose <perm = [0, 0]> (x)"),
]


def check_loaded() -> None:
    """A graph gives what another program makes of it, or is refused."""
    pytest.importorskip("onnxruntime")
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        for outputs, constants, operators in RIGHT:
            onnx_helpers.write_text(path, constants, operators, outputs)
            try:
                model = minidl.onnx.load(path)
            except ModelFileError as error:
                pytest.fail(str(error))
            ours = onnx_helpers.outputs_of(model, (x,))
            for y, theirs in zip(ours, onnx_helpers.run_elsewhere(path, (x,)), strict=True):
                assert y.shape == theirs.shape
                np.testing.assert_allclose(y, theirs, rtol=1e-4, atol=1e-5)
        for outputs, constants, operators in WRONG:
            onnx_helpers.write_text(path, constants, operators, outputs)
            with pytest.raises(ModelFileError):
                minidl.onnx.load(path)


# --- PyTorch ------------------------------------------------------------------------------------


def check_state_dict() -> None:
    """Tensors are those of PyTorch, by name, layout and meaning."""
    linear, lstm, gru = nn.Linear(2, 2, rng=0), nn.LSTM(2, 2, rng=0), nn.GRU(2, 2, rng=0)
    onnx_helpers.disturb(nn.Sequential(linear, lstm, gru), np.random.default_rng(0))
    cell, gated = lstm.cells[0], gru.cells[0]
    expected = {
        (linear, "weight"): linear.weight.data.T,
        (lstm, "weight_ih_l0"): cell.input_weight.data.T,
        (lstm, "weight_hh_l0"): cell.recurrent_weight.data.T,
        (lstm, "bias_ih_l0"): cell.bias.data,
        (lstm, "bias_hh_l0"): np.zeros(8),
        (gru, "bias_ih_l0"): gated.bias.data,
        (gru, "bias_hh_l0"): gated.recurrent_bias.data,
    }
    convolution = nn.Conv2d(2, 2, 2, rng=0)
    expected[convolution, "weight"] = np.moveaxis(convolution.weight.data, (-1, -2), (0, 1))
    for (layer, name), array in expected.items():
        np.testing.assert_array_equal(minidl.torch.state_dict(layer)[name], array)
    half = {name: np.full(a.shape, 0.5) for name, a in minidl.torch.state_dict(lstm).items()}
    minidl.torch.load_state_dict(half, lstm)
    np.testing.assert_array_equal(cell.bias.data, np.ones(8))
    tensors = {**minidl.torch.state_dict(linear), "more": np.ones(2)}
    with pytest.raises(minidl.torch.StateDictError):
        minidl.torch.load_state_dict(tensors, linear)
    variance = minidl.torch.state_dict(nn.BatchNorm(2)) | {"running_var": -np.ones(2)}
    with pytest.raises(minidl.torch.StateDictError):
        minidl.torch.load_state_dict(variance, nn.BatchNorm(2))
    _check_flattened()


def _check_flattened() -> None:
    """Features of flattened images are in PyTorch's order, or it is not known."""
    for name in ("features", "image and table", "added", "words", "channels first"):
        model, xs = flattening_cases.build(name)
        other = copy.deepcopy(model)
        for _, layer in other.layers():
            if isinstance(layer, nn.Flatten):
                layer.channels_first = True
        minidl.torch.load_state_dict(minidl.torch.state_dict(model), other)
        np.testing.assert_allclose(other(*xs), model(*xs), rtol=1e-4, atol=1e-5)
        again = copy.deepcopy(model)
        minidl.torch.load_state_dict(minidl.torch.state_dict(other), again)
        np.testing.assert_array_equal(again(*xs), model(*xs))
    for made, words, _ in flattening_cases.UNKNOWN.values():
        with pytest.raises(minidl.torch.UnknownOrderError, match=words):
            minidl.torch.state_dict(made())


# --- C ------------------------------------------------------------------------------------------


def check_c() -> None:
    """The compiled network computes what the model does."""
    compiler = shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("needs gcc or clang")
    rng = np.random.default_rng(0)
    body = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 3))
    parts = [nn.Residual(body), nn.LayerNorm(3), nn.GRU(3, 3, bidirectional=True), nn.LSTM(6, 3)]
    stack = nn.Sequential(*parts, nn.Softmax(), rng=0)
    onnx_helpers.disturb(stack, rng)
    models: list[tuple[nn.Layer, float]] = [
        (stack, 1.0), (nn.RMSNorm(3), 1e25), (nn.Softmax(), 1e3),
        (nn.Conv1d(3, 3, 2, padding="causal", dilation=2, groups=3, rng=0), 1.0),
        (nn.ChannelsFirst(nn.Parallel(nn.Conv1d(4, 1, 1, rng=0), nn.Conv1d(4, 3, 1, rng=1))), 1.0),
    ]  # fmt: skip
    for model, size in models:
        x = (size * rng.normal(size=(4, 3))).astype(np.float32)
        with tempfile.TemporaryDirectory() as folder:
            exported = minidl.c.export(model, Path(folder) / "net.c", input_shape=x.shape)
            library = Path(folder) / "net.so"
            command = [compiler, "-shared", "-fPIC", "-o", library, exported.source, "-lm"]
            subprocess.run(command, check=True)
            arrays = [x, np.zeros((4, 3), np.float32), np.zeros(999, np.float32)]
            pointers = [ctypes.c_void_p(array.ctypes.data) for array in arrays]
            ctypes.CDLL(str(library)).net_predict(*pointers)
        with nn.evaluating():
            np.testing.assert_allclose(arrays[1], model(x[None])[0], rtol=1e-5, atol=1e-6)


ELSEWHERE_CHECKS = {
    "exported": check_exported,
    "loaded": check_loaded,
    "state_dict": check_state_dict,
    "c": check_c,
}
