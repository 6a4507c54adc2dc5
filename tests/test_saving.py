"""Models come back from disk bit for bit; a bad file changes nothing and is one kind of error."""

from __future__ import annotations

import importlib
import json
import os
import signal
import stat
import sys
import threading
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_helpers import assert_same, inputs_of

import minidl
from minidl import nn, optim


def model(rng: int = 0, width: int = 4) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(3, width),
        nn.BatchNorm(width),
        nn.Dropout(0.5),
        nn.Residual(nn.Sequential(nn.Linear(width, width), nn.Tanh())),
        rng=rng,
    )


def used(rng: int = 0) -> nn.Sequential:
    """A model whose running statistics and generator have moved."""
    net = model(rng)
    net(np.random.default_rng(rng).normal(size=(8, 3)).astype(np.float32))
    return net


def bits(net: nn.Layer) -> dict[str, bytes]:
    arrays = {name: parameter.data for name, parameter in net.named_parameters()}
    return {name: array.tobytes() for name, array in (arrays | net.state()).items()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_model_comes_back_bit_for_bit(path: Path, dtype: Any) -> None:
    net, other = used(0).astype(dtype), used(1).astype(dtype)
    minidl.save(net, str(path))
    minidl.load(str(path), into=other)
    assert bits(other) == bits(net)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("cls", nn.Layer.registry, ids=lambda cls: cls.__name__)
def test_every_layer_comes_back(cls: type[nn.Layer], path: Path) -> None:
    for (layer, shapes), (other, _) in zip(cls.examples(), cls.examples(), strict=True):
        inputs = inputs_of(shapes, np.random.default_rng(0))
        minidl.save(layer, path)
        other.reset(99)
        minidl.load(path, into=other)
        assert_same(other(*inputs), layer(*inputs))


def test_load_into_a_model_that_an_optimizer_holds(path: Path) -> None:
    net, other = used(0), used(1)
    optimizer = optim.SGD(other.parameters(), lr=0.1)
    minidl.save(net, path)
    minidl.load(path, into=other)
    assert bits(other) == bits(net)
    optimizer.zero_grad()
    optimizer.step()  # raises, had a parameter left the optimizer's vectors


# --- optimizers ---


def trained(optimizer: optim.Optimizer, net: nn.Layer, steps: int, rng: int) -> None:
    """So many steps, over data that depends on nothing else."""
    loss, draws = nn.MSELoss(), np.random.default_rng(rng)
    for _ in range(steps):
        x = draws.normal(size=(8, 3)).astype(np.float32)
        loss(net(x), x[:, :1] * np.ones((1, 4), np.float32))
        optimizer.zero_grad()
        net.backward(loss.backward())
        optimizer.step()


@pytest.mark.parametrize("cls", optim.Optimizer.registry, ids=lambda cls: cls.__name__)
def test_training_goes_on_as_if_it_had_never_stopped(
    cls: type[optim.Optimizer], path: Path
) -> None:
    for settings_ in cls.examples():
        net, whole = model(), model()
        optimizer = cls(net.parameters(), **settings_)
        other = cls(whole.parameters(), **settings_)
        trained(other, whole, 3, 0)
        trained(other, whole, 3, 1)
        trained(optimizer, net, 3, 0)
        minidl.save(net, path, optimizer=optimizer)
        net = model(rng=5)
        # Momenta, betas and which form of the formula come from the file.
        optimizer = cls(net.parameters(), lr=settings_.get("lr", 1e-3))
        minidl.load(path, into=net, optimizer=optimizer)
        trained(optimizer, net, 3, 1)
        assert bits(net) == bits(whole)
        assert optimizer.steps == 6
        assert repr(optimizer) == repr(other)


def test_groups_come_back_with_what_they_were_set_to(path: Path) -> None:
    def grouped(net: nn.Sequential, lr: float) -> optim.Adam:
        first, *rest = net
        return optim.Adam(
            [
                {"params": first.parameters(), "lr": lr},
                {"params": [p for layer in rest for p in layer.parameters()]},
            ]
        )

    net = model()
    optimizer = grouped(net, 0.5)
    trained(optimizer, net, 2, 0)
    optimizer.groups[1]["weight_decay"] = 0.25
    minidl.save(net, path, optimizer=optimizer)
    net = model(1)
    other = grouped(net, 0.125)
    minidl.load(path, into=net, optimizer=other)
    assert [group["lr"] for group in other.groups] == [0.5, 1e-3]
    assert [group["weight_decay"] for group in other.groups] == [0.0, 0.25]
    with pytest.raises(minidl.ModelFileError, match=r"and optimizer; .*optimizer/1/"):
        minidl.load(path, into=net, optimizer=optim.Adam(net.parameters()))
    first, *rest = net
    swapped = optim.Adam(
        [
            {"params": [p for layer in rest for p in layer.parameters()]},
            {"params": first.parameters()},
        ]
    )
    with pytest.raises(minidl.ModelFileError, match="without optimizer/0/moment1/1"):
        minidl.load(path, into=net, optimizer=swapped)


def test_optimizer_that_is_not_the_one_saved(path: Path) -> None:
    net, stranger = model(), model()
    adam = optim.Adam(net.parameters(), lr=0.5)
    minidl.save(net, path)
    with pytest.raises(minidl.ModelFileError, match="holds no optimizer, not Adam"):
        minidl.load(path, into=net, optimizer=adam)
    minidl.save(net, path, optimizer=adam)
    net = model(1)
    minidl.load(path, into=net)  # the model alone
    sgd = optim.SGD(net.parameters(), lr=0.25)
    before = bits(net)
    with pytest.raises(minidl.ModelFileError, match="holds Adam, not SGD"):
        minidl.load(path, into=net, optimizer=sgd)
    assert sgd.lr == 0.25
    assert bits(net) == before
    with pytest.raises(ValueError, match="not of this model"):
        minidl.save(stranger, path, optimizer=adam)

    class Adam(optim.Adam):
        """Of the user."""

    with pytest.raises(minidl.ModelFileError, match=r"holds Adam, not .*test_saving\..*Adam"):
        minidl.load(path, into=net, optimizer=Adam(net.parameters()))
    with pytest.raises(RuntimeError, match="has left this optimizer"):
        minidl.save(net, path, optimizer=sgd)
    with pytest.raises(ValueError, match="metadata crc32, optimizer are its own"):
        minidl.save(net, path, metadata={"optimizer": "Adam", "crc32": "0", "mine": "1"})


def test_what_is_no_model(path: Path) -> None:
    net = model()
    adam: Any = optim.Adam(net.parameters())
    with pytest.raises(TypeError, match=r"save takes a model, got Adam\(.*optimizer=optimizer"):
        minidl.save(adam, path)
    with pytest.raises(TypeError, match="load takes a model, got 3"):
        minidl.load(path, 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="optimizer must be one"):
        minidl.save(net, path, optimizer=net)  # type: ignore[arg-type]
    assert not path.exists()


def test_the_file_is_safetensors(path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    net = used()
    minidl.save(net, path)
    arrays = safetensors.load_file(path)
    assert {name: array.tobytes() for name, array in arrays.items()} == bits(net)
    safetensors.save_file(arrays, path, metadata={"format": "minidl"})  # without our checksum
    other = used(1)
    minidl.load(path, into=other)
    assert bits(other) == bits(net)


def rejected(content: bytes, path: Path, words: str) -> None:
    """load raises, says the file's name and these words, and leaves the model alone."""
    path.write_bytes(content)
    net = used(1)
    before = bits(net)
    with pytest.raises(minidl.ModelFileError, match=words) as caught:
        minidl.load(path, into=net)
    assert isinstance(caught.value, ValueError)
    assert path.name in str(caught.value)
    assert bits(net) == before


def saved(path: Path) -> bytes:
    minidl.save(used(), path)
    return path.read_bytes()


def with_header(content: bytes, change: Any) -> bytes:
    """The file with its header changed by a function, or replaced by a value."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header = change(header) or header if callable(change) else change
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def entry(field: str, value: Any) -> Any:
    def change(header: dict[str, Any]) -> None:
        header["0.weight"][field] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ([], "does not describe"),
        (7, "does not describe"),
        ({"__metadata__": 3}, "does not describe"),
        ({}, "not a file of minidl: its metadata do not say whose it is"),
        ({"__metadata__": {"format": "minidl"}}, "without"),
        (lambda header: {**header, "extra": header["0.bias"]}, "unknown extra"),
        (lambda header: {**header, "0.weight": 5}, "0.weight is not described"),
        (entry("dtype", "F16"), "0.weight is not described"),
        (entry("dtype", []), "0.weight is not described"),
        (entry("dtype", "F64"), "0.weight is float64"),
        (entry("shape", [4, 3]), r"0.weight is float32 \(4, 3\), here it is float32 \(3, 4\)"),
        (entry("shape", "ab"), "0.weight is not described"),
        (entry("data_offsets", [0]), "0.weight is not described"),
        (entry("data_offsets", [0, 10**30]), "outside the file"),
        (entry("data_offsets", [-48, 0]), "outside the file"),
        (entry("data_offsets", [0.0, 48.0]), "0.0 is no whole number"),
        (entry("data_offsets", [False, 48]), "False is no whole number"),
        (entry("data_offsets", [0, 44]), "has 44 bytes, not as many as it takes"),
    ],
)
def test_wrong_header(path: Path, change: Any, words: str) -> None:
    rejected(with_header(saved(path), change), path, words)


def test_wrong_files(path: Path) -> None:
    content = saved(path)
    rejected(b"", path, "truncated")
    rejected(b"\xff" * 8, path, "truncated")
    rejected((10**12).to_bytes(8, "little") + content[8:], path, "truncated")
    rejected((200_000).to_bytes(8, "little") + b"[" * 200_000, path, "not JSON")
    rejected((4).to_bytes(8, "little") + b"\xff\xfe{}", path, "not JSON")
    rejected(content[:-1], path, "damaged|outside")


def test_model_of_other_widths(path: Path) -> None:
    minidl.save(model(width=5), path)
    rejected(path.read_bytes(), path, r"0.weight is float32 \(3, 5\)")


def test_weights_for_pixels_in_another_order(path: Path) -> None:
    first, last = (
        nn.Sequential(nn.Conv1d(2, 3, 1), nn.Flatten(channels_first=order), nn.Linear(12, 2))
        for order in (True, False)
    )
    for saved, into, word in ((first, last, "True"), (last, first, "False")):
        minidl.save(saved, path)
        before = into[2].weight.data.copy()
        with pytest.raises(
            minidl.ModelFileError, match=rf"Flatten\(channels_first={word}\), layer 1 Fl"
        ):
            minidl.load(path, into=into)
        np.testing.assert_array_equal(into[2].weight.data, before)
        minidl.load(path, into=saved)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        minidl.load(tmp_path / "none", into=used())


@settings(max_examples=300)
@given(data=st.data())
def test_any_damage_is_noticed(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    path = tmp_path_factory.mktemp("damage") / "model"
    content = bytearray(saved(path))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] ^= data.draw(st.integers(1, 255))
    content = content[: data.draw(st.integers(len(content) // 2, len(content)))]
    path.write_bytes(content)
    net = used(1)
    before, whole = bits(net), bits(used())
    try:
        minidl.load(path, into=net)
    except minidl.ModelFileError:
        assert bits(net) == before
    else:  # only blanks of the header changed, or the name of the checksum
        assert bits(net) == whole or b'"crc32"' not in bytes(content)


# --- the format, as strictly as its own reader ----------------------------------------------


def rebuilt(header: Any, data: bytes, encoding: str = "utf-8") -> bytes:
    text = header if isinstance(header, str) else json.dumps(header)
    encoded = text.encode(encoding)
    return len(encoded).to_bytes(8, "little") + encoded + data


NUMBERS = np.arange(8, dtype="<f4").tobytes()
WEIGHT = '"weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": [%d, %d]}'
BIAS = '"bias": {"dtype": "F32", "shape": [2], "data_offsets": [%d, %d]}'
WORDS = '"__metadata__": {"format": "minidl"}'


@pytest.mark.parametrize(
    ("parts", "size", "encoding", "words"),
    [
        ((WEIGHT % (0, 16), BIAS % (8, 16), WORDS), 16, "utf-8", "bias begin at 8, not at 16"),
        ((WEIGHT % (0, 16), BIAS % (20, 28), WORDS), 28, "utf-8", "bias begin at 20, not at 16"),
        ((WEIGHT % (4, 20), BIAS % (20, 28), WORDS), 28, "utf-8", "weight begin at 4, not at 0"),
        ((WEIGHT % (0, 16), BIAS % (16, 24), WORDS), 28, "utf-8", "4 bytes follow the last tensor"),
        ((WEIGHT % (0, 16), BIAS % (16, 24), WORDS), 20, "utf-8", "bias lie outside the file"),
        ((WEIGHT % (0, 16), BIAS % (16, 24), BIAS % (16, 24), WORDS), 24, "utf-8", "there twice"),
        ((WEIGHT % (0, 16), BIAS % (16, 24), WORDS, WORDS), 24, "utf-8", "there twice"),
        ((WEIGHT % (0, 16), BIAS % (16, 24), WORDS), 24, "utf-16", "not JSON"),
        ((WEIGHT % (0, 16), BIAS % (16, 24), WORDS), 24, "utf-8-sig", "not JSON"),
        ((WEIGHT % (0, 16), BIAS % (16, 24), WORDS[:-1] + ', "e": 3}'), 24, "utf-8", "'e'.*3"),
        ((WEIGHT % (0, 16), BIAS % (16, 24), WORDS[:-1] + ', "e": NaN}'), 24, "utf-8", "NaN"),
        (
            (WEIGHT % (0, 16), BIAS % (16, 24), WORDS[:-1] + r', "e": "\ud800"}'),
            24,
            "utf-8",
            "JSON",
        ),
        ((WEIGHT.replace("[2, 2]", "[2.0, 2]") % (0, 16), WORDS), 16, "utf-8", "2.0 is no whole"),
        ((WEIGHT.replace("[2, 2]", "[true, 4]") % (0, 16), WORDS), 16, "utf-8", "True is no whole"),
        ((WEIGHT.replace("[2, 2]", "[-2, -2]") % (0, 16), WORDS), 16, "utf-8", "outside"),
    ],
)
def test_what_the_format_s_own_reader_refuses(
    path: Path, parts: Any, size: int, encoding: str, words: str
) -> None:
    path.write_bytes(rebuilt("{" + ", ".join(parts) + "}", NUMBERS[:size], encoding))
    net = nn.Linear(2, 2, rng=0)
    before = bits(net)
    with pytest.raises(minidl.ModelFileError, match=words):
        minidl.load(path, into=net)
    assert bits(net) == before
    if words == "there twice":
        return  # of two tensors of one name, some of its versions take the last
    safetensors = pytest.importorskip("safetensors.numpy")
    with pytest.raises(importlib.import_module("safetensors").SafetensorError):
        safetensors.load_file(path)


def test_the_same_file_without_a_fault(path: Path) -> None:
    parts = (BIAS % (16, 24), WORDS, WEIGHT % (0, 16))
    path.write_bytes(rebuilt("{" + ", ".join(parts) + "}  ", NUMBERS[:24]))
    net = nn.Linear(2, 2, rng=0)
    minidl.load(path, into=net)
    np.testing.assert_array_equal(net.weight.data, [[0, 1], [2, 3]])
    np.testing.assert_array_equal(net.bias.data, [4, 5])


@pytest.mark.parametrize("words", [None, {}, {"format": "pt"}])
def test_weights_of_which_it_is_not_known_which_way_round_they_are(path: Path, words: Any) -> None:
    """A square weight of PyTorch has the shape of minidl's, and is its transpose."""
    entries = [json.loads("{" + WEIGHT % (0, 16) + ", " + BIAS % (16, 24) + "}")]
    header = entries[0] | ({} if words is None else {"__metadata__": words})
    path.write_bytes(rebuilt(header, NUMBERS[:24]))
    net = nn.Linear(2, 2, rng=0)
    before = bits(net)
    advice = r"minidl\.torch\.load_state_dict\(path, into=model\)"
    with pytest.raises(minidl.ModelFileError, match=rf"not a file of minidl.*{advice}.*minidl"):
        minidl.load(path, into=net)
    assert bits(net) == before
    assert minidl.saving.metadata(path) == (words or {})
    minidl.torch.load_state_dict(path, into=net)
    np.testing.assert_array_equal(net.weight.data, [[0, 2], [1, 3]])
    header["__metadata__"] = {"format": "minidl"}
    path.write_bytes(rebuilt(header, NUMBERS[:24]))
    minidl.load(path, into=net)
    np.testing.assert_array_equal(net.weight.data, [[0, 1], [2, 3]])


def test_a_file_of_minidl_0_1(path: Path) -> None:
    """What the first version wrote, byte by byte: its fields of an optimizer are never fewer."""
    fields = "learning_rate weight_decay max_norm norm scale step momentum nesterov beta1 beta2 eps"
    fields += " l1 max_value alpha centered decoupled momentum_decay mu_product"
    values = [0.25, 0, 0, 1.5, 1, 7, 0, 0, 0.5, 0.75, 1e-3, 0, 0, 0, 0, 0, 0, 0]
    tensors = [("weight", "F32", [[1.0], [2.0]]), ("bias", "F32", [3.0])]
    pairs = zip(fields.split(), values, strict=True)
    tensors += [(f"optimizer/0/{name}", "F64", value) for name, value in pairs]
    for moment in ("moment1", "moment2"):
        tensors.append((f"optimizer/0/{moment}/weight", "F32", [[0.5], [0.125]]))
        tensors.append((f"optimizer/0/{moment}/bias", "F32", [0.75]))
    header: dict[str, Any] = {}
    data = b""
    for name, dtype, numbers in tensors:
        array = np.array(numbers, {"F32": "<f4", "F64": "<f8"}[dtype])
        end = len(data) + array.nbytes
        offsets = [len(data), end]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": offsets}
        data += array.tobytes()
    words = {"format": "minidl", "crc32": f"{zlib.crc32(data):08x}", "optimizer": "Adam"}
    path.write_bytes(rebuilt({**header, "__metadata__": words}, data))
    net = nn.Linear(2, 1, rng=0)
    optimizer = optim.Adam(net.parameters())
    minidl.load(path, into=net, optimizer=optimizer)
    np.testing.assert_array_equal(net.weight.data, [[1], [2]])
    assert (optimizer.lr, optimizer.beta2, optimizer.steps) == (0.25, 0.75, 7)
    assert sorted(optimizer.moment2[optimizer.moment2 > 0]) == [0.125, 0.5, 0.75]


def test_words_that_other_readers_would_refuse(path: Path) -> None:
    net = nn.Linear(2, 2, rng=0)
    bad: list[Any] = [{"epoch": 3}, {"a": None}, {"a": float("nan")}, {3: "a"}, {"a": ["b"]}]
    for words in bad:
        with pytest.raises(TypeError, match=r"metadata are strings by name.*write str"):
            minidl.save(net, path, metadata=words)
    for words in ({"name": "\ud800"}, {"\udfff": "name"}):
        with pytest.raises(ValueError, match="surrogate"):
            minidl.save(net, path, metadata=words)
    with pytest.raises(ValueError, match="keep long words in a file of their own"):
        minidl.save(net, path, metadata={"long": "x" * minidl.saving.tensor_file.LARGEST_HEADER})
    assert not path.exists()
    minidl.save(net, path, metadata={"ž": "€\n\x00"})
    assert minidl.saving.metadata(path)["ž"] == "€\n\x00"


def test_messages_are_one_line_of_some_length(path: Path) -> None:
    names = ["a\nb", "x" * 10**6, "\x1b[2J"]
    for name in names:
        change = entry("dtype", name)
        for header in (change, lambda header, name=name: {**header, name: header["0.bias"]}):
            path.write_bytes(with_header(saved(path), header))
            with pytest.raises(minidl.ModelFileError) as caught:
                minidl.load(path, into=used(1))
            message = str(caught.value).replace(str(path), "")
            assert len(message) < 400
            assert message.isprintable()


# --- what is read before it is checked --------------------------------------------------------


def test_nothing_is_read_of_what_cannot_be_it(path: Path) -> None:
    net = used()
    if Path("/dev/zero").exists():
        with pytest.raises(minidl.ModelFileError, match="is not a file but a device"):
            minidl.load("/dev/zero", into=net)
    if hasattr(os, "mkfifo"):
        os.mkfifo(path)
        with pytest.raises(minidl.ModelFileError, match="is not a file but a pipe"):
            minidl.load(path, into=net)
        path.unlink()
    with pytest.raises(OSError, match=path.parent.name):
        minidl.load(path.parent, into=net)
    with path.open("wb") as file:  # of which nothing is on the disk
        file.write((2**40 - 8).to_bytes(8, "little"))
        file.truncate(2**40)
    with pytest.raises(minidl.ModelFileError, match="more than the 16,777,216"):
        minidl.load(path, into=net)


def test_numbers_that_the_model_does_not_have_are_not_kept(path: Path) -> None:
    """Sizes are compared before a number is read: with those of the file, and of the model."""
    shape = [2**20, 2**8]
    tensor = {"dtype": "F32", "shape": shape, "data_offsets": [0, 2**30]}
    words = {"format": "minidl"}
    path.write_bytes(rebuilt({"weight": tensor, "__metadata__": words}, b""))
    length = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(length + 2**30)
    net = nn.Linear(2, 2, rng=0)
    tracemalloc.start()
    try:
        with pytest.raises(minidl.ModelFileError, match="without bias"):
            minidl.load(path, into=net)
        assert minidl.saving.metadata(path) == words
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert not net.weight.drawn  # a model that is refused is not even looked at


# --- what no constructor takes ----------------------------------------------------------------


def with_numbers(content: bytes, name: str, numbers: Any) -> bytes:
    """The file with other numbers in a tensor, and with their checksum."""
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), bytearray(content[8 + length :])
    begin, end = header[name]["data_offsets"]
    data[begin:end] = np.resize(np.float64(numbers), (end - begin) // 8).tobytes()
    if header[name]["dtype"] == "F32":
        data[begin:end] = np.resize(np.float32(numbers), (end - begin) // 4).tobytes()
    header["__metadata__"]["crc32"] = f"{zlib.crc32(bytes(data)):08x}"
    return rebuilt(header, bytes(data))


FIELDS: list[tuple[type[optim.Optimizer], str, list[float]]] = [
    (optim.Adam, "learning_rate", [-0.01, np.nan, np.inf]),
    (optim.Adam, "weight_decay", [-1, np.nan]),
    (optim.Adam, "l1", [-1, np.inf]),
    (optim.Adam, "max_norm", [-1, np.nan, np.inf, 1e-50]),
    (optim.Adam, "max_value", [-1, np.nan]),
    (optim.Adam, "beta1", [-0.1, 1, np.nan]),
    (optim.Adam, "beta2", [1, 2]),
    (optim.Adam, "eps", [0, -1, np.nan]),
    (optim.Adam, "step", [-1, 0.5, np.nan, 1e300, np.inf]),
    (optim.Adam, "scale", [-1, np.nan, 2]),
    (optim.Adam, "norm", [-1]),
    (optim.Adam, "decoupled", [1]),
    (optim.AdamW, "decoupled", [0, 0.5]),
    (optim.Adam, "momentum", [1, -1, np.nan]),  # of which it makes no use
    (optim.SGD, "momentum", [1, -1, np.nan]),
    (optim.SGD, "nesterov", [0.5, np.nan, -1]),
    (optim.RMSprop, "alpha", [1, -1]),
    (optim.RMSprop, "centered", [2, np.nan]),
    (optim.Nadam, "momentum_decay", [-1, np.inf]),
    (optim.Nadam, "mu_product", [-1, 2, np.nan]),
    (optim.Adam, "moment1/weight", [np.nan, np.inf]),
    (optim.Adam, "moment2/weight", [-1e-3, np.nan, np.inf]),
    (optim.RMSprop, "square/bias", [-1]),
    (optim.AdaGrad, "square/bias", [-1, np.nan, np.inf]),
    (optim.SGD, "velocity/bias", [np.nan, -np.inf]),
]


@pytest.mark.parametrize(("cls", "field", "values"), FIELDS)
def test_what_no_optimizer_can_have(path: Path, cls: Any, field: str, values: Any) -> None:
    net = nn.Linear(3, 2, rng=0)
    optimizer = cls(net.parameters(), lr=0.5)
    minidl.save(net, path, optimizer=optimizer)
    content = path.read_bytes()
    net.weight.data = net.weight.data + 1
    optimizer.lr = 0.125
    before = bits(net), optimizer.states.tobytes()
    for value in values:
        path.write_bytes(with_numbers(content, f"optimizer/0/{field}", value))
        with pytest.raises(minidl.ModelFileError, match=field):
            minidl.load(path, into=net, optimizer=optimizer)
        assert (bits(net), optimizer.states.tobytes()) == before


def test_groups_have_one_norm_and_one_count(path: Path) -> None:
    net = nn.Linear(3, 2, rng=0)
    optimizer = optim.Adam([{"params": [net.weight]}, {"params": [net.bias]}], max_norm=1.0)
    minidl.save(net, path, optimizer=optimizer)
    content = path.read_bytes()
    for field in ("max_norm", "step"):
        path.write_bytes(with_numbers(content, f"optimizer/1/{field}", 3.0))
        with pytest.raises(minidl.ModelFileError, match=f"{field} must be the same for all groups"):
            minidl.load(path, into=net, optimizer=optimizer)


def test_what_an_optimizer_can_come_to_is_read(path: Path) -> None:
    """A norm that was not finite, a gradient beyond float32, a momentum set to nothing."""
    net = nn.Linear(3, 2, rng=0)
    optimizer = optim.SGD(net.parameters(), lr=0.5, momentum=0.9, nesterov=True)
    optimizer.momentum = 0.0
    net.weight.grad += np.float32(np.inf)
    with pytest.raises(FloatingPointError):
        optimizer.step()
    minidl.save(net, path, optimizer=optimizer)
    minidl.load(path, into=net, optimizer=optimizer)


@pytest.mark.parametrize(
    ("layer", "name", "values"),
    [
        (nn.BatchNorm(3), "running_var", [-1e-3, np.nan]),
        (nn.Standardize(3), "std", [0, -1, np.nan]),
    ],
)
def test_what_no_layer_can_come_to(path: Path, layer: nn.Layer, name: str, values: Any) -> None:
    net = nn.Sequential(layer, nn.Linear(3, 2))
    minidl.save(net, path)
    content, before = path.read_bytes(), bits(net)
    for value in values:
        path.write_bytes(with_numbers(content, f"0.{name}", value))
        with pytest.raises(minidl.ModelFileError, match=rf"0\.{name} must be at least"):
            minidl.load(path, into=net)
        assert bits(net) == before


# --- files that are there, threads, signals -----------------------------------------------------


@pytest.mark.skipif(os.name != "posix", reason="of POSIX systems")
def test_what_is_there_is_respected(path: Path) -> None:
    """Links stay, modes are kept, a pipe is no place for a model: see ``test_files``."""
    net, target = used(), path.parent / "target"
    minidl.save(net, target)
    target.chmod(0o600)
    path.symlink_to(target)
    minidl.save(used(1), path)
    assert path.is_symlink()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    minidl.load(target, into=net)
    assert bits(net) == bits(used(1))
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(OSError, match="it is a pipe, not a regular file"):
        minidl.save(net, path)
    assert stat.S_ISFIFO(path.stat().st_mode)
    minidl.save(net, path.parent / ("m" * 255))


def test_threads_that_save_to_one_path_beside_readers(path: Path) -> None:
    nets = [nn.Linear(100, 100, init=nn.init.constant(float(place))) for place in range(4)]
    minidl.save(nets[0], path)
    errors: list[BaseException] = []
    running = threading.Event()

    def saver(net: nn.Layer) -> None:
        try:
            for _ in range(25):
                minidl.save(net, path)
        except BaseException as error:
            errors.append(error)

    def reader() -> None:
        net = nn.Linear(100, 100)
        try:
            while not running.is_set():
                minidl.load(path, into=net)
                assert len(np.unique(net.weight.data)) == 1
        except BaseException as error:
            errors.append(error)

    savers = [threading.Thread(target=saver, args=(net,)) for net in nets]
    readers = [threading.Thread(target=reader) for _ in range(2)]
    for thread in (*savers, *readers):
        thread.start()
    for thread in savers:
        thread.join()
    running.set()
    for thread in readers:
        thread.join()
    assert not errors
    assert [file.name for file in path.parent.iterdir()] == [path.name]


class Interrupting:
    """``with Interrupting(n, m):`` Ctrl-C at the n-th line that runs, again at the m-th call."""

    def __init__(self, line: int, call: int) -> None:
        self.left, self.calls, self.heard = line, call, 0

    def trace(self, frame: Any, event: str, _: Any) -> Any:
        if (
            "minidl" not in frame.f_code.co_filename
            and "contextlib" not in frame.f_code.co_filename
        ):
            return None
        if event == "line":
            self.left -= 1
            if not self.left:
                sys.setprofile(self.profile)
                self.heard += 1
                signal.raise_signal(signal.SIGINT)
        return self.trace

    @staticmethod
    def ours(frame: Any) -> bool:
        name = frame.f_code.co_filename
        return name.startswith(str(Path(minidl.__file__).parent)) or "contextlib" in name

    def profile(self, frame: Any, *_: Any) -> None:
        self.calls -= self.ours(frame)
        if not self.calls:
            sys.setprofile(None)
            self.heard += 1
            signal.raise_signal(signal.SIGINT)

    def __enter__(self) -> Interrupting:
        sys.settrace(self.trace)
        return self

    def __exit__(self, kind: Any, *_: Any) -> bool:
        sys.settrace(None)
        sys.setprofile(None)
        return kind is KeyboardInterrupt


POINTS = int(os.environ.get("MINIDL_SIGNALS", "60"))  # of loading, and of saving


def points(function: Any) -> Iterator[tuple[int, int]]:
    """Lines of a function at equal distances, or all of them several times; calls at random."""
    whole = Interrupting(10**9, 0)
    with whole:
        function()
    lines = 10**9 - whole.left
    draws, step = np.random.default_rng(0), max(1.0, lines / POINTS)
    for place in range(POINTS):
        yield 1 + int(place * step) % lines, int(draws.integers(1, 40))


def interrupted(function: Any, line: int, call: int) -> int:
    """The number of signals that came, of two, before a function was done."""
    interrupting = Interrupting(line, call)
    with interrupting:
        function()
    return interrupting.heard


@pytest.mark.skipif(not hasattr(signal, "raise_signal"), reason="no signals")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # in generators
def test_ctrl_c_in_a_load_leaves_all_as_it_was_or_as_it_will_be(path: Path) -> None:
    net, other = used(0), used(1)
    optimizer, second = optim.Adam(net.parameters(), lr=0.5), optim.Adam(other.parameters())
    trained(optimizer, net, 2, 0)
    minidl.save(net, path, optimizer=optimizer)
    trained(second, other, 1, 0)

    def state() -> list[bytes]:
        vectors = [second.states, second.moment1, second.moment2]
        return [*bits(other).values(), *(vector.tobytes() for vector in vectors)]

    before, start = state(), path.parent / "start"
    minidl.save(other, start, optimizer=second)
    minidl.load(path, into=other, optimizer=second)
    after, heard = state(), 0
    for line, call in points(lambda: minidl.load(path, into=other, optimizer=second)):
        minidl.load(start, into=other, optimizer=second)
        count = interrupted(lambda: minidl.load(path, into=other, optimizer=second), line, call)
        assert state() == after if not count else state() in (before, after)
        heard += count
    assert heard > POINTS


@pytest.mark.skipif(not hasattr(signal, "raise_signal"), reason="no signals")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # in generators
def test_ctrl_c_in_a_save_leaves_the_old_file_or_the_new_one(path: Path) -> None:
    net, other = used(0), used(1)
    minidl.save(other, path)
    new = path.read_bytes()
    minidl.save(net, path)
    old, heard = path.read_bytes(), 0
    for line, call in points(lambda: minidl.save(other, path)):
        path.write_bytes(old)
        count = interrupted(lambda: minidl.save(other, path), line, call)
        assert path.read_bytes() == new if not count else path.read_bytes() in (old, new)
        heard += count
    assert heard > POINTS
    minidl.save(net, path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
