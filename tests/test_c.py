"""Networks in C give what they give here, under every compiler that is installed."""

from __future__ import annotations

import copy
import ctypes
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layer_helpers import BRANCHES
from random_stacks import disturbed, random_images, random_stack

import minidl.c
from minidl import Trainer, datasets, nn, optim
from minidl.c.emitters import EMITTERS, emits
from minidl.c.functions import SOURCES, called, literal
from minidl.c.memory import placed
from minidl.c.program import Program, Value

COMPILERS = [name for name in ("gcc", "clang") if shutil.which(name)]
STRICT = ["-std=c99", "-pedantic", *(f"-W{w}" for w in ("all", "extra", "conversion", "error"))]
STRICT += ["-Wdouble-promotion", "-Wshadow"]
STACKS = int(os.environ.get("MINIDL_STACKS", "20"))
OURS = [cls for cls in nn.Layer.registry if cls.__module__.startswith("minidl.")]
OF_SEVERAL = [cls for cls in BRANCHES if cls is not nn.Parallel]  # arrays

needs_compiler = pytest.mark.skipif(not COMPILERS, reason="needs gcc or clang")


def run(*command: Any) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


class InC:
    """An exported network, compiled by the first compiler, and callable."""

    def __init__(self, model: Any, folder: Path, **options: Any) -> None:
        self.exported = minidl.c.export(model, folder / "net.c", **options)
        for compiler in COMPILERS[1:] if "MINIDL_STACKS" in os.environ else ():
            run(compiler, *STRICT, "-fsyntax-only", folder / "net.c")
        run(COMPILERS[0], *STRICT, "-O1", "-shared", "-fPIC", "-o", folder / "net.so",
            folder / "net.c", "-lm")  # fmt: skip
        self.library = ctypes.CDLL(str(folder / "net.so"))
        text = self.exported.header.read_text()
        self.sizes = {k: int(n) for k, n in re.findall(r"#define NET_(\w+) (\d+)", text)}
        guarded = {key: np.full(size + 2, np.nan, np.float32) for key, size in self.sizes.items()}
        self.arrays = guarded  # a NaN on either side, which nothing may overwrite
        if "STATE" in self.sizes:
            self.library.net_start(self.pointer("STATE"))

    def pointer(self, key: str) -> Any:
        return ctypes.c_void_p(self.arrays[key][1:].ctypes.data)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Put one sample, or one step, through the network."""
        dtype = np.int32 if x.dtype.kind in "iu" else np.float32
        x = np.ascontiguousarray(x, dtype)
        assert x.size == self.sizes["INPUT"]
        steps = ["STATE"] if "STATE" in self.sizes else []
        function = self.library.net_step if steps else self.library.net_predict
        pointers = [self.pointer(key) for key in ("OUTPUT", *steps, "MEMORY")]
        self.result = function(ctypes.c_void_p(x.ctypes.data), *pointers)
        for array in self.arrays.values():
            assert np.isnan(array[[0, -1]]).all(), "written outside of an array"
        return self.arrays["OUTPUT"][1:-1].copy()


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(found, expected.ravel(), rtol=0, atol=1e-6 * scale)


# --- the numbers ----------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.parametrize(
    "cls", [cls for cls in OURS if cls not in OF_SEVERAL], ids=lambda cls: cls.__name__
)
def test_examples_of_every_layer(cls: type[nn.Layer], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for index, (layer, inputs) in enumerate(cls.examples()):
        if isinstance(layer, BRANCHES) and (len(inputs) > 1 or not getattr(layer, "join", "")):
            continue
        layer = disturbed(copy.deepcopy(layer).astype(np.float32), rng).eval()
        xs = [
            x if isinstance(x, np.ndarray) else rng.normal(size=x).astype(np.float32)
            for x in inputs
        ]
        folder = tmp_path / str(index)
        folder.mkdir()
        cell = isinstance(layer, nn.RNNCell | nn.LSTMCell | nn.GRUCell)
        stepwise = cell or len(xs) > 1
        network = InC(layer, folder, **{} if stepwise else {"input_shape": xs[0].shape[1:] or (1,)})
        if not stepwise:
            for row, y in zip(xs[0], layer(xs[0]), strict=True):
                assert_close(network(row), y)
            continue
        y, *end = out if isinstance(out := layer(*xs), tuple) else (out,)
        for row in range(len(xs[0])):  # one step from a given state
            network.arrays["STATE"][1:-1] = np.concatenate([h[row] for h in xs[1:]])
            assert_close(network(xs[0][row]), y[row])
            state = np.concatenate([h[row] for h in ((y, *end) if cell else end)])
            assert_close(network.arrays["STATE"][1:-1], state)


@needs_compiler
@pytest.mark.parametrize("seed", range(STACKS))
def test_random_stacks(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    model, x = random_stack(rng, recurrent=seed % 3 == 0)
    network = InC(model, tmp_path, input_shape=x.shape[1:])
    for row, y in zip(x, model(x), strict=True):
        assert_close(network(row), y)


@needs_compiler
@pytest.mark.parametrize("seed", range(STACKS))
def test_random_networks_of_images(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    model, x = random_images(rng)
    if seed % 2:
        model, x = nn.ChannelsFirst(model), np.moveaxis(x, -1, 1).copy()
    network = InC(model, tmp_path, input_shape=x.shape[1:])
    for row, y in zip(x, model(x), strict=True):
        assert_close(network(row), y)


def test_multiply_adds_of_a_convolution(tmp_path: Path) -> None:
    layer = nn.Conv2d(4, 6, (2, 3), groups=2)
    exported = minidl.c.export(layer, tmp_path / "net.c", input_shape=(5, 6, 4))
    assert exported.multiply_adds == 4 * 4 * 6 * 2 * 2 * 3  # pixels, outputs, inputs, window
    assert exported.flash == 4 * (6 * 2 * 2 * 3 + 6)


@pytest.mark.parametrize("layer", [nn.Concat(), nn.Split((1, 2)), nn.Select(0)], ids=repr)
def test_several_arrays_are_refused_by_name(layer: nn.Layer, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"layer 0 \w+.* takes or gives several arrays"):
        minidl.c.export(nn.Sequential(layer), tmp_path / "net.c", input_shape=(3,))
    several = nn.Sequential(nn.Linear(3, 3), nn.Parallel(nn.Tanh(), nn.ReLU(), join=None))
    with pytest.raises(ValueError, match=r"layer 1 Parallel\(.* has several outputs"):
        minidl.c.export(several, tmp_path / "net.c", input_shape=(3,))


@needs_compiler
@pytest.mark.parametrize("join", ["concat", "add", "multiply", "stack"])
def test_branches_of_one_input(join: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    branches = nn.Linear(3, 3), nn.Identity(), nn.Sequential(nn.Tanh(), nn.Linear(3, 3))
    stack = nn.Sequential(nn.LayerNorm(3), nn.Parallel(*branches, join=join), nn.ReLU(), rng=0)
    model = disturbed(stack, rng).eval()
    x = rng.normal(size=(4, 2, 3)).astype(np.float32)
    network = InC(model, tmp_path, input_shape=(2, 3))
    for row, y in zip(x, model(x), strict=True):
        assert_close(network(row), y)


@needs_compiler
@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
@pytest.mark.parametrize("whole", [True, False])
def test_step_by_step_is_the_whole_sequence(kind: Any, whole: bool, tmp_path: Path) -> None:
    recurrent = kind(3, 5, 2, return_sequences=whole)
    model = nn.Sequential(nn.LayerNorm(3), recurrent, nn.Linear(5, 2), rng=0).eval()
    network = InC(model, tmp_path)
    x = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    for _ in range(2):
        network.library.net_start(network.pointer("STATE"))
        for t in range(len(x)):
            y = model(x[None, : t + 1])[0]
            assert_close(network(x[t]), y[-1] if whole else y)


@needs_compiler
def test_indices_that_are_no_rows_are_refused(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Embedding(5, 3), nn.GRU(3, 4), nn.Linear(4, 2), rng=0)
    network = InC(model, tmp_path)
    for index, result in ((0, 0), (4, 0), (5, -1), (-1, -1), (2**31 - 1, -1)):
        network(np.array([index]))
        assert network.result == result


@needs_compiler
def test_extreme_inputs_of_activations(tmp_path: Path) -> None:
    x = np.array([-np.inf, -1e30, -200, -30, -1e-20, 0, 1e-20, 30, 200, 1e30, np.inf], np.float32)
    for index, cls in enumerate(EMITTERS):
        if cls.__module__.endswith(("activations", "rectifiers")) and "ftmax" not in cls.__name__:
            folder = tmp_path / str(index)
            folder.mkdir()
            layer = cls()
            network = InC(layer, folder, input_shape=x.shape)
            np.testing.assert_allclose(network(x), layer(x[None])[0], 1e-6, 1e-6, err_msg=str(cls))


@needs_compiler
def test_rows_whose_squares_would_overflow_are_normalized(tmp_path: Path) -> None:
    layer = nn.RMSNorm(5)
    layer.gamma.data = np.arange(1, 6) / 3
    network = InC(layer, tmp_path)
    for size in (1e-18, 1e10, 1e15, 1e19, 1e30, 3e37):
        x = (np.array([1, -2, 3, -4, 0.5]) * size).astype(np.float32)
        np.testing.assert_allclose(network(x), layer(x[None])[0], 2e-6, err_msg=str(size))


# --- the text -------------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.parametrize("compiler", COMPILERS)
def test_compilers_have_nothing_to_say(compiler: str, tmp_path: Path) -> None:
    """Of any function; the statements of a network are calls of these."""
    head = ["#include <math.h>", "#include <stddef.h>", "#include <stdint.h>"]
    (tmp_path / "all.c").write_text("\n\n".join([*head, *SOURCES.values()]) + "\n")
    run(compiler, *STRICT, "-O2", "-Wno-unused-function", "-c", tmp_path / "all.c",
        "-o", tmp_path / "all.o")  # fmt: skip
    (tmp_path / "bad.c").write_text("int f(double x) { return x; }\n")
    with pytest.raises(AssertionError, match="conversion"):
        run(compiler, *STRICT, "-fsyntax-only", tmp_path / "bad.c")


@needs_compiler
@pytest.mark.parametrize("compiler", COMPILERS)
def test_only_functions_of_math_h_are_called(compiler: str, tmp_path: Path) -> None:
    """Nothing else is linked, and no double is computed with."""
    known = re.findall(r"\b(\w+f)\(", " ".join(SOURCES.values()))
    for seed in range(3):
        model, x = random_stack(np.random.default_rng(seed), recurrent=seed % 2 == 0)
        exported = minidl.c.export(model, tmp_path / "net.c", input_shape=x.shape[1:])
        run(compiler, *STRICT, "-Os", "-c", "-o", tmp_path / "net.o", exported.source)
        symbols = re.findall(r"U (\w+)", run("nm", "-u", tmp_path / "net.o"))
        assert set(symbols) <= set(known) - SOURCES.keys()
        assert not re.search(r"malloc|stdio|printf|double", exported.source.read_text())


def test_sizes_are_those_of_the_arrays(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(10, 30), nn.ReLU(), nn.Linear(30, 20), nn.Linear(20, 5), rng=0)
    exported = minidl.c.export(model, tmp_path / "net.c")
    parameters = sum(parameter.size for parameter in model.parameters())
    equal = 4 * sum(layer.bias.data.size for layer in model[2:4] if not layer.bias.data.any())
    assert exported.flash in (4 * parameters, 4 * parameters - equal)
    assert exported.memory == 4 * (30 + 20), "ReLU works in place, the last writes into y"
    assert exported.multiply_adds == 10 * 30 + 30 * 20 + 20 * 5
    assert f"{exported.flash:,} bytes of constants" in exported.header.read_text()
    assert "3,400" in str(minidl.c.export(nn.Linear(34, 25, bias=False, rng=0), tmp_path / "net.c"))


def test_deep_networks_need_two_buffers(tmp_path: Path) -> None:
    layers = [layer for _ in range(20) for layer in (nn.Linear(8, 8), nn.Tanh())]
    assert minidl.c.export(nn.Sequential(*layers, rng=0), tmp_path / "net.c").memory == 4 * 2 * 8
    blocks = [nn.Residual(nn.Sequential(nn.Linear(8, 8), nn.Tanh())) for _ in range(20)]
    assert minidl.c.export(nn.Sequential(*blocks, rng=0), tmp_path / "net.c").memory == 4 * 2 * 8


def test_arrays_in_use_at_one_time_do_not_overlap() -> None:
    """Whatever the statements: random ones, each with the arrays that it uses."""
    for seed in range(200):
        rng = np.random.default_rng(seed)
        program = Program(Value(0, (3,)), steps=False)
        values = [program.input]
        for _ in range(rng.integers(1, 12)):
            used = [values[i] for i in rng.integers(len(values), size=rng.integers(1, 3))]
            values.append(program.new(int(rng.integers(1, 9))))
            named = {f"a{i}": value for i, value in enumerate(used)}
            shares = ("a0", "y") if rng.integers(2) else None
            program.run("f();", **named, y=values[-1], shares=shares)
        places, memory = placed(program, values[-1])
        holder: dict[int, int] = {}  # which array the numbers of the memory are of
        for statement in program.statements:
            *reads, y = statement.values.values()
            for value in reads:
                cells = cells_of(places, value)
                assert all(holder[cell] == value.number for cell in cells)
            after = cells_of(places, y)
            others = {cell for value in reads for cell in cells_of(places, value)} & set(after)
            if others:
                assert statement.shares
                assert others == set(cells_of(places, statement.values["a0"])) == set(after)
            holder |= dict.fromkeys(after, y.number)
            assert max(after, default=-1) < memory


def cells_of(places: dict[int, str], value: Value) -> list[int]:
    """Numbers of the memory that an array takes; those of y are negative."""
    place = places[value.number]
    if place == "x":
        return []
    begin = -1000 if place == "y" else int((place + " + 0").split(" + ")[1])
    return list(range(begin, begin + value.size))


def test_functions_call_only_those_before_them() -> None:
    seen: set[str] = set()
    for name, source in SOURCES.items():
        assert called(source) <= {*seen, name}
        seen.add(name)


def test_constants_are_exact() -> None:
    numbers = np.random.default_rng(0).normal(size=1000).astype(np.float32) * np.float32(1e-3)
    for number in (*numbers, np.float32(0), np.float32(3), np.float32(1e30), np.float32(1e-45)):
        text = literal(number)
        assert text.endswith("f")
        assert re.search(r"[.e]", text)
        assert np.float32(text[:-1]) == number


def test_equal_tables_are_kept_once(tmp_path: Path) -> None:
    layer = nn.Linear(4, 4, rng=0)
    model = nn.Sequential(layer, nn.Tanh(), layer)
    assert minidl.c.export(model, tmp_path / "net.c").flash == 4 * 20


def test_every_layer_has_an_emitter() -> None:
    assert {cls for cls in OURS if not any(issubclass(cls, kind) for kind in EMITTERS)} == set()


# --- what is refused ------------------------------------------------------------------------------


class Halved(nn.Layer):
    """y = x / 2."""

    def forward(self, x: Any) -> Any:
        return x / 2


class DoubledReLU(nn.ReLU):
    """y = 2 · relu(x)."""

    def forward(self, x: Any) -> Any:
        return 2 * super().forward(x)


@pytest.mark.parametrize("layer", [Halved(), DoubledReLU()], ids=repr)
def test_layers_of_the_users_are_refused_by_name(layer: nn.Layer, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Residual(nn.Sequential(layer)))
    with pytest.raises(TypeError, match=rf"layer 1\.body\.0 {type(layer).__name__}\(\) cannot"):
        minidl.c.export(model, tmp_path / "net.c")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("cls", [Halved, DoubledReLU])
def test_a_user_can_write_an_emitter(cls: Any, tmp_path: Path) -> None:
    try:

        @emits(cls)
        def written(layer: Any, x: Value, program: Program) -> Value:
            y, half = program.new(*x.shape), program.table("half", np.full(x.size, 0.5))
            program.run(f"prelu(1, {x.size}, {half}, $x, $y);", x=x, y=y)
            return y

        exported = minidl.c.export(nn.Sequential(nn.Linear(3, 3), cls()), tmp_path / "net.c")
        assert "half_2" in exported.source.read_text()
    finally:
        del EMITTERS[cls]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["net.txt", "net", "net.C"], "expected a path that ends in .c, such as 'net.c', got"),
        (["2nd.c", "a-b.c", "é.c", "_net.c", "a.b.c"], "in C is a letter and then letters, dig"),
        (["math.c", "Stdint.c", "stdio.c", "time.c"], ".h is a header of C, choose another name"),
    ],
)
def test_names_that_c_cannot_use(names: list[str], words: str, tmp_path: Path) -> None:
    for name in names:
        with pytest.raises(ValueError, match=re.escape(words)):
            minidl.c.export(nn.Linear(2, 2), tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (nn.Tanh(), {}, "give input_shape"),
        (nn.Linear(3, 2), {"input_shape": (4,)}, "takes 3 features"),
        (nn.Linear(3, 2), {"input_shape": ()}, "one axis at least"),
        (nn.Linear(3, 2), {"input_shape": 3}, "one axis at least, got 3"),
        (nn.Residual(nn.Tanh(), nn.Linear(3, 3)), {"input_shape": (4,)}, "takes 3 features, got 4"),
        (nn.Sequential(nn.Flatten(), nn.Linear(6, 1)), {"input_shape": (2, 2)}, "takes 6 features"),
        (nn.Linear(3, 2), {"input_shape": (0, 3)}, "input_shape must be"),
        (nn.GRU(3, 2), {"input_shape": (3,)}, r"give input_shape=\(steps, 3\)"),
        (nn.GRU(3, 2, bidirectional=True), {}, "in reverse"),
        (nn.Sequential(nn.GRU(3, 2), nn.Flatten(), nn.Linear(8, 1)), {}, "steps of a sequence"),
        (nn.Sequential(nn.Linear(3, 3), nn.Embedding(3, 3)), {}, "must come first"),
        (
            nn.Residual(nn.MaxPool1d(1, 2)),  # fits sequences of one step alone
            {"input_shape": (5, 3)},
            r"the body gives \(3, 3\), the shortcut \(5, 3\)",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_written(model: Any, options: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        minidl.c.export(model, tmp_path / "net.c", **options)
    assert not list(tmp_path.iterdir())


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, dtype=np.float32))
    model[1].weight.data[0, 0] = np.nan
    with pytest.raises(ValueError, match=r"weight of layer 1 Linear\(2, 2\) holds a number"):
        minidl.c.export(model, tmp_path / "net.c")
    with pytest.raises(TypeError, match="takes a model"):
        minidl.c.export("model", tmp_path / "net.c")


# --- an emulated small device ---------------------------------------------------------------------

MAIN = """
#include <stdio.h>
#include "net.h"
static const float inputs[] = {INPUTS};
int main(void)
{
    static float y[NET_OUTPUT], memory[NET_MEMORY], state[STATES];
    (void)state;
    for (unsigned t = 0; t < COUNT; t++) {
        CALL;
        for (unsigned j = 0; j < NET_OUTPUT; j++) {
            printf("%.9g\\n", (double)y[j]);
        }
    }
    return 0;
}
"""


def digits_network() -> tuple[nn.Layer, np.ndarray]:
    data = datasets.digits()
    layers = nn.Linear(64, 128), nn.BatchNorm(128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 10)
    model = nn.Sequential(*layers, rng=0)
    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    Trainer(model, nn.CrossEntropyLoss(), optimizer, rng=0).fit(data.x_train, data.y_train, 2)
    return model.eval(), data.x_test[:20]


def gru_network() -> tuple[nn.Layer, np.ndarray]:
    model = nn.Sequential(nn.GRU(4, 12, 2), nn.Linear(12, 3), rng=0)
    return model.eval(), np.random.default_rng(0).normal(size=(25, 4)).astype(np.float32)


@pytest.mark.skipif(
    not (shutil.which("qemu-arm") and shutil.which("arm-linux-gnueabi-gcc")),
    reason="needs qemu-arm and arm-linux-gnueabi-gcc",
)
@pytest.mark.parametrize("build", [digits_network, gru_network], ids=["digits", "gru"])
def test_on_an_emulated_device(build: Any, tmp_path: Path) -> None:
    model, x = build()
    steps = isinstance(model[0], nn.GRU)
    minidl.c.export(model, tmp_path / "net.c")
    call = "net_step(inputs + t * NET_INPUT, y, state, memory)" if steps else (
        "net_predict(inputs + t * NET_INPUT, y, memory)"
    )  # fmt: skip
    text = MAIN.replace("CALL", call).replace("COUNT", str(len(x)))
    text = text.replace("STATES", "NET_STATE" if steps else "1")
    text = text.replace("INPUTS", ", ".join(literal(number) for number in x.ravel()))
    (tmp_path / "main.c").write_text(text)
    sources = tmp_path / "main.c", tmp_path / "net.c"
    program = tmp_path / "program"
    run("arm-linux-gnueabi-gcc", *STRICT, "-Os", "-static", *sources, "-o", program, "-lm")
    found = np.array(run("qemu-arm", program).split(), np.float64)
    assert_close(found, model(x[None] if steps else x))


def test_an_export_of_images_asks_for_their_shape(tmp_path: Path) -> None:
    for model, wanted in (
        (nn.Sequential(nn.Conv2d(1, 2, 3)), r"input_shape=\(height, width, channels\)"),
        (nn.Sequential(nn.Conv1d(1, 2, 3)), r"input_shape=\(steps, channels\)"),
    ):
        with pytest.raises(ValueError, match=f"takes no samples of shape .1,.; give {wanted}"):
            minidl.c.export(model, tmp_path / "net.c")
