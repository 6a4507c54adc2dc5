"""Models come back from disk bit for bit; a bad file changes nothing and is one kind of error."""

from __future__ import annotations

import json
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
