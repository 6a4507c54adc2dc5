"""Model files that hold the architecture: ``minidl.load(path)`` builds the model."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layer_helpers import inputs_of
from random_models import random_model

import minidl
from minidl import nn, optim
from minidl.nn.layer import Layer
from minidl.saving.tensor_file import write_tensor_file

COUNT = int(os.environ.get("MINIDL_MODELS", "60"))  # random models; ``make models`` has 1000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def again(model: nn.Layer, path: Path) -> Any:
    minidl.save(model, path)
    return minidl.load(path)


def signs(model: Any, inputs: list[Any]) -> list[Any]:
    """What can be seen of a model: its repr, an output, and what two steps of training make."""
    found: list[Any] = [repr(model), [(n, p.frozen) for n, p in model.named_parameters()]]
    outputs = model(*inputs)
    found += [y.tobytes() for y in (outputs if isinstance(outputs, tuple) else (outputs,))]
    if any(not parameter.frozen for parameter in model.parameters()):
        optimizer = optim.SGD(model.parameters(), lr=0.01)
        for _ in range(2):
            y = model(*inputs)
            ys = y if isinstance(y, tuple) else (y,)
            optimizer.zero_grad()
            model.backward(*(np.ones_like(each) for each in ys))
            optimizer.step()
        found += [parameter.data.tobytes() for parameter in model.parameters()]
    found += [(name, array.tobytes()) for name, array in model.state().items()]
    model.reset(3)  # draws from the same initialisers
    return [*found, *(parameter.data.tobytes() for parameter in model.parameters())]


LOADER = """
import pickle, sys
import minidl
from test_model_files import signs
with open(sys.argv[1] + "/cases", "rb") as file:
    cases = pickle.load(file)
for number, (inputs, expected) in enumerate(cases):
    model = minidl.load(f"{sys.argv[1]}/{number}")
    assert signs(model, inputs) == expected, f"model {number} is another one: {model!r}"
print(len(cases))
"""


def test_models_are_the_same_in_a_process_that_knows_nothing_of_them(tmp_path: Path) -> None:
    """Examples of all layers, and random stacks: output, repr, training and reset, to the bit."""
    examples = [
        (layer, inputs_of(shapes, np.random.default_rng(0), layer.dtype or np.float32))
        for cls in Layer.registry
        if cls.__module__.startswith("minidl.")
        for layer, shapes in cls.examples()
    ]
    drawn = [random_model(np.random.default_rng(number)) for number in range(COUNT)]
    cases = []
    for number, (model, inputs) in enumerate([*examples, *((m, [x]) for m, x in drawn)]):
        minidl.save(model, tmp_path / str(number))
        cases.append((inputs, signs(model, inputs)))
    (tmp_path / "cases").write_bytes(pickle.dumps(cases))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(Path.cwd())])}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOADER, str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(cases) > COUNT


class Scaled(nn.Layer):
    """A layer of a user's, with all that a file can hold."""

    def __init__(self, width: int) -> None:
        self.blocks = {"first": [nn.Linear(width, width, rng=0)], "second": (nn.Tanh(), None)}
        self.again = self.blocks["first"][0]
        self.scale, self.limit, self.words = 0.5, float("inf"), ["a", "ž"]
        self.table = np.arange(width, dtype=np.float32)
        self.rng = np.random.default_rng(4)
        self.weight = nn.Parameter((width,), nn.init.constant(2.0))
        self.tied = self.weight
        self.kind = nn.LayerNorm
        self.number = np.float64(0.25)
        self.assign_paths()

    def forward(self, x: Any) -> Any:
        y = self.again(x * self.scale) + self.table * self.weight.data
        return y + self.rng.normal(size=x.shape).astype(np.float32)


def test_a_layer_of_the_users(path: Path) -> None:
    model = nn.Sequential(Scaled(3), nn.Linear(3, 2), rng=1)
    next(iter(model.stack[0].rng.normal(size=3)))  # type: ignore[union-attr]
    loaded = again(model, path)
    mine, other = model.stack[0], loaded.stack[0]
    assert type(other) is Scaled
    assert other.again is other.blocks["first"][0]
    assert other.tied is other.weight
    assert other.kind is nn.LayerNorm
    assert (other.limit, other.words, other.number) == (float("inf"), ["a", "ž"], 0.25)
    assert vars(other).keys() == vars(mine).keys()
    x = np.ones((2, 3), np.float32)
    assert model(x).tobytes() == loaded(x).tobytes()


class Times(nn.Layer):
    def __init__(self, number: Any) -> None:
        self.number = number

    def forward(self, x: Any) -> Any:
        return x * self.number


@pytest.mark.parametrize(
    "number", [np.sqrt(2), np.float32(0.1), np.float64("inf"), np.int64(3), np.bool_(True), 0.1]
)
def test_scalars_of_a_layer_of_the_users_keep_their_dtype(path: Path, number: Any) -> None:
    model = Times(number)
    loaded = again(model, path)
    assert type(loaded.number) is type(number)
    x = np.ones((2, 3), np.float32)
    assert loaded(x).dtype == model(x).dtype
    assert loaded(x).tobytes() == model(x).tobytes()


def test_hyper_parameters_may_be_scalars(path: Path) -> None:
    dropout = nn.Dropout(0.5, rng=0)
    dropout.p = np.float64(0.25)
    assert repr(again(dropout, path)) == repr(dropout)


@pytest.mark.parametrize("dtype", ["float16", "complex64"])
def test_state_of_a_dtype_that_files_do_not_keep_is_named(path: Path, dtype: str) -> None:
    class Masked(nn.Layer):
        state_names = ("mask",)

        def __init__(self) -> None:
            self.mask = np.ones(3, dtype)

    with pytest.raises(TypeError, match=f"mask is an array of {dtype}"):
        minidl.save(Masked(), path)
    assert not path.exists()


class Counts(nn.Layer):
    """Has state of any dtype, and an array that is none."""

    state_names = ("seen",)

    def __init__(self, dtype: str) -> None:
        self.seen, self.table = np.array([0, 1, 1], dtype), np.array([[1], [0]], dtype)


@pytest.mark.parametrize("dtype", ["?", "i1", "u1", "i2", "u2", ">i4", "u4", "i8", "u8", "f8"])
def test_state_of_booleans_and_whole_numbers(path: Path, dtype: str) -> None:
    model = Counts(dtype)
    loaded = again(model, path)
    for name in ("seen", "table"):
        expected, found = getattr(model, name), getattr(loaded, name)
        assert found.dtype == expected.dtype.newbyteorder("=")
        np.testing.assert_array_equal(found, expected)
    empty = Counts(np.dtype(dtype).newbyteorder("="))  # type: ignore[arg-type]
    empty.seen[...] = 0
    minidl.load(path, into=empty)
    np.testing.assert_array_equal(empty.seen, model.seen)
    if dtype == "?":
        other = Counts("u1")
        with pytest.raises(minidl.ModelFileError, match="bool"):
            minidl.load(path, into=other)


def test_booleans_that_are_neither_true_nor_false(path: Path) -> None:
    minidl.save(Counts("u1"), path)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), bytearray(content[8 + length :])
    for name in ("seen", "array/0"):
        header[name]["dtype"] = "BOOL"
    data[header["seen"]["data_offsets"][0]] = 2
    header["__metadata__"].pop("crc32")
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    with pytest.raises(minidl.ModelFileError, match="seen holds booleans that are neither true"):
        minidl.load(path)


class Noisy(nn.Layer):
    """Draws from a generator that it may share."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rngs = {"noise": rng}

    def forward(self, x: Any) -> Any:
        return x + self.rngs["noise"].normal(size=x.shape)


def test_generators_that_are_shared_stay_shared(path: Path) -> None:
    one, other = np.random.default_rng(1), np.random.default_rng(2)
    model = nn.Sequential(Noisy(one), Noisy(other), Noisy(one), Noisy(other), Noisy(one))
    loaded = again(model, path)
    found = [layer.rngs["noise"] for layer in loaded.stack]
    assert found[0] is found[2] is found[4]
    assert found[1] is found[3] is not found[0]
    x = np.zeros((3, 2))
    np.testing.assert_array_equal(loaded(x), model(x))
    assert len(set(map(id, (layer.rngs["noise"] for layer in again(loaded, path).stack)))) == 2


class Chooses(nn.Layer):
    """Has class attributes that its instances replace."""

    kind: type[nn.Layer] = nn.Linear
    body: nn.Layer = nn.Tanh()

    def forward(self, x: Any) -> Any:
        return self.body(x)


def test_a_class_attribute_that_is_a_class_or_a_layer_can_be_replaced(path: Path) -> None:
    model = Chooses()
    model.kind, model.body = nn.ReLU, nn.Sigmoid()
    loaded = again(model, path)
    assert loaded.kind is nn.ReLU
    assert isinstance(loaded.body, nn.Sigmoid)
    tensors, words = {}, json.loads(minidl.saving.metadata(path)["minidl.model"])
    for name in ("forward", "parameters", "label"):
        words["layers"][0]["holds"] = {name: {"type": {"class": "ReLU"}}}
        write_tensor_file(path, tensors, {}, {"minidl.model": json.dumps(words)})
        with pytest.raises(minidl.ModelFileError, match=f"Chooses cannot hold '{name}'"):
            minidl.load(path)


@pytest.mark.parametrize("name", [None, 10**6, b"x"])
def test_what_is_no_name_of_a_file(name: Any) -> None:
    with pytest.raises(TypeError, match="must be a string or a path"):
        minidl.load(name)
    with pytest.raises(TypeError, match="must be a string or a path"):
        minidl.save(nn.Linear(2, 2), name)


def test_a_class_that_is_not_defined_is_named(path: Path) -> None:
    program = (
        "from minidl import nn, save; import sys\n"
        "class Elsewhere(nn.Layer):\n    pass\n"
        "save(nn.Sequential(Elsewhere(), nn.Linear(2, 2)), sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", program, str(path)], check=True)
    with pytest.raises(minidl.ModelFileError, match="class Elsewhere of '__main__' is in the mode"):
        minidl.load(path)

    class Elsewhere(nn.Layer):
        pass

    Elsewhere.__qualname__ = "Elsewhere"  # as at the top of a module
    assert type(minidl.load(path).stack[0]) is Elsewhere


def test_what_no_file_can_hold_is_named_and_its_values_are_kept(path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 2, rng=0))
    model.stack[0].function = np.tanh  # type: ignore[attr-defined]
    minidl.save(model, path)
    with pytest.raises(minidl.ModelFileError, match=r"model.stack.0.function is of type ufunc"):
        minidl.load(path)
    other = nn.Sequential(nn.Linear(2, 2))
    minidl.load(path, into=other)
    assert (other.parameters()[0].data == model.parameters()[0].data).all()


def test_files_without_an_architecture_still_fill_a_model(path: Path) -> None:
    """As version 0.1 wrote them."""
    model = nn.Linear(3, 2, rng=0)
    arrays = {name: parameter.data for name, parameter in model.named_parameters()}
    write_tensor_file(path, arrays, {"mine": "1"}, {})
    with pytest.raises(minidl.ModelFileError, match=r"not the architecture.*into=model"):
        minidl.load(path)
    other = nn.Linear(3, 2)
    minidl.load(path, into=other)
    assert (other.weight.data == model.weight.data).all()


def test_a_custom_initialiser_is_missed_only_where_it_is_needed(path: Path) -> None:
    init = nn.init.Initializer("mine", lambda shape, rng: np.full(shape, 3.0))
    loaded = again(nn.Linear(2, 2, init=init), path)
    assert (loaded.weight.data == 3).all()
    loaded.reset(0)
    with pytest.raises(ValueError, match="the function that draws its weights is not in it"):
        loaded.weight.data  # noqa: B018


def test_what_was_changed_after_the_model_was_built_comes_back(path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5), nn.BatchNorm(3), rng=0)
    model.stack[1].p = 0.125  # type: ignore[attr-defined]
    model.stack = (*model.stack, nn.Tanh())
    model.stack[2].eval()
    loaded = again(model.astype(np.float64), path)
    assert (loaded.stack[1].p, len(loaded), loaded.dtype) == (0.125, 4, np.float64)
    assert [layer.training for layer in loaded.stack] == [True, True, False, True]


def test_labels_travel_along(path: Path) -> None:
    minidl.save(nn.Linear(2, 2), path, classes=["no", "yes"], columns=["a", "b"])
    words = minidl.saving.metadata(path)
    assert json.loads(words["minidl.classes"]) == ["no", "yes"]
    assert json.loads(words["minidl.columns"]) == ["a", "b"]
    assert words["minidl.version"] == minidl.__version__
    with pytest.raises(TypeError, match=r"classes are words or whole numbers, got 0\.5"):
        minidl.save(nn.Linear(2, 2), path, classes=[0.5])  # type: ignore[list-item]
    for labels in (5, {"a": 1}, {"a"}, "ab"):
        with pytest.raises(TypeError, match="classes are words or whole numbers in a list, got"):
            minidl.save(nn.Linear(2, 2), path, classes=labels)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="give it, as into="):
        minidl.load(path, optimizer=optim.SGD(nn.Linear(2, 2).parameters()))  # type: ignore[call-overload]


# --- hostile ones -----------------------------------------------------------------------------


def changed(path: Path, change: Any) -> None:
    """Save a model, and change its architecture in the file."""
    convolution = nn.Conv2d(2, 2, 3, groups=2)
    minidl.save(nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5), convolution, rng=0), path)
    words = minidl.saving.metadata(path)
    architecture = json.loads(words["minidl.model"])
    change(architecture)
    tensors = {}
    model = minidl.load(path)
    for name, parameter in model.named_parameters():
        tensors[name] = parameter.data
    tensors |= model.state()
    write_tensor_file(path, tensors, {}, {"minidl.model": json.dumps(architecture)})


HOSTILE = {
    "a module": lambda a: a["layers"][1].update({"class": "Popen", "module": "subprocess"}),
    "no such layer": lambda a: a["layers"][1].update({"class": "Popen"}),
    "itself": lambda a: a["layers"][0]["holds"].update(stack={"tuple": [{"layer": 0}]}),
    "a method": lambda a: a["layers"][1]["holds"].update(forward="x"),
    "a dunder": lambda a: a["layers"][1]["holds"].update(__class__="x"),
    "a width": lambda a: a["layers"][1]["holds"].update(in_features=10**12),
    "a probability": lambda a: a["layers"][2]["holds"].update(p=1.5),
    "a word": lambda a: a["layers"][1]["holds"].update(out_features="2"),
    "zeros": lambda a: a["layers"][2]["holds"].update(z={"zeros": [2**40], "dtype": "float32"}),
    "a stack": lambda a: a["layers"][0]["holds"].update(stack={"tuple": [5]}),
    "missing": lambda a: a["layers"][1]["holds"].pop("weight"),
    "a seed": lambda a: a["parameters"][0].update(seed=-1),
    "an initialiser": lambda a: a["parameters"][0].update(init={"name": "x", "arguments": []}),
    "a version": lambda a: a.update(version=2),
    **{
        f"{name}={value}": lambda a, name=name, value=value: a["layers"][3]["holds"].update(
            {name: value}
        )
        for name, value in [
            *(("groups", 0), ("groups", "x"), ("groups", 1), ("in_features", 4), ("weight", None)),
            *(("padding", "full"), ("padding", {"tuple": [1, -1]}), ("kernel_size", 3)),
            *(("kernel_size", {"tuple": [2**40, 3]}), ("kernel_size", {"tuple": [3, 3, 3]})),
            ("kernel_size", {"tuple": [4096, 4096]}),
            *(("stride", {"tuple": [2**40, 1]}), ("dilation", {"tuple": [0, 1]})),
        ]
    },
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_no_model_can_be_is_refused(path: Path, name: str) -> None:
    changed(path, HOSTILE[name])
    tracemalloc.start()
    try:
        with pytest.raises(minidl.ModelFileError) as caught:
            minidl.load(path)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    assert len(str(caught.value).splitlines()) == 1


def test_nothing_is_imported_for_a_file(path: Path) -> None:
    changed(path, lambda a: a["layers"][1].update({"class": "Layer", "module": "this"}))
    with pytest.raises(minidl.ModelFileError, match="not defined here"):
        minidl.load(path)
    assert "this" not in sys.modules


def test_an_option_that_is_newer_than_a_file_has_its_default(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model = nn.Sequential(nn.GRU(3, 2, num_layers=2, dropout=0.5, rng=0), nn.Dropout(0.5), rng=0)
    for _, layer in model.layers():
        vars(layer).pop("whole_channels", None)
    minidl.save(model, path)
    loaded = minidl.load(path)
    x = np.ones((2, 4, 3), np.float32)
    assert repr(loaded) == repr(nn.Sequential(nn.GRU(3, 2, 2, dropout=0.5), nn.Dropout(0.5)))
    assert loaded(x).shape == (2, 4, 2)
