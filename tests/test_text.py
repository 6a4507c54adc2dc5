"""Characters, made sequences, and the commands that train on them."""

from __future__ import annotations

import json
import math
import os
import re
import tempfile
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest

import minidl
from minidl import datasets, nn
from minidl.cli import main, text
from minidl.cli.characters import CharacterModel, Shape
from minidl.datasets import Characters

TEXT = "the cat sat on the mat; the rat sat on the hat. " * 30
SMALL = ["--hidden", "16", "--embedding", "8", "--steps", "12", "--batch-size", "4"]


# --- characters -------------------------------------------------------------------------


def test_encode_and_decode_are_each_other_s_inverse() -> None:
    text = Characters.of("žluťoučký kůň\n")
    numbers = text.encode("kůň\nžluť")
    assert numbers.dtype == np.int64
    assert text.decode(numbers) == "kůň\nžluť"
    assert sorted(text.encode(text.characters)) == list(range(len(text)))
    assert text.encode("").shape == (0,)


@pytest.mark.parametrize("bad", ["", "aba"])
def test_bad_vocabulary(bad: str) -> None:
    with pytest.raises(ValueError, match="each once"):
        Characters(bad)


def test_a_character_that_is_not_known_is_named() -> None:
    with pytest.raises(ValueError, match=r"'z', at 2 of the text, is none of the 3 known"):
        Characters("abc").encode("abz")


@pytest.mark.parametrize(("batch_size", "steps"), [(1, 1), (1, 7), (4, 1), (3, 5), (7, 11)])
def test_batches_continue_the_streams(batch_size: int, steps: int) -> None:
    text = Characters.of(TEXT)
    x, y = text.chunks(TEXT, batch_size, steps)
    assert x.shape == y.shape == (len(x), steps)
    assert len(x) % batch_size == 0
    streams = ["".join(text.decode(row) for row in x[i::batch_size]) for i in range(batch_size)]
    ahead = ["".join(text.decode(row) for row in y[i::batch_size]) for i in range(batch_size)]
    joined = "".join(streams)
    assert TEXT.startswith(joined)
    assert len(TEXT) - len(joined) <= batch_size * steps
    for stream, following in zip(streams, ahead, strict=True):
        assert following[:-1] == stream[1:]
    assert "".join(ahead) == TEXT[1 : len(joined) + 1]


def test_a_text_that_is_too_short() -> None:
    text = Characters("ab")
    assert text.chunks("ab" * 3 + "a", 2, 3)[0].shape == (2, 3)
    with pytest.raises(ValueError, match=r"6 characters does not fill 2 chunks of 3.*takes 7"):
        text.chunks("ab" * 3, 2, 3)
    with pytest.raises(ValueError, match="steps must be >= 1"):
        text.chunks("ab" * 3, 2, 0)


# --- sequences that are made ---------------------------------------------------------------


@pytest.mark.parametrize("steps", [2, 3, 50])
def test_adding(steps: int) -> None:
    x, y = datasets.adding(500, steps, rng=0)
    assert (x.shape, y.shape, x.dtype, y.dtype) == ((500, steps, 2), (500, 1), "f4", "f4")
    marks = x[:, :, 1]
    assert set(np.unique(marks)) <= {0, 1}
    assert (marks[:, : steps // 2].sum(axis=1) == 1).all()
    assert (marks[:, steps // 2 :].sum(axis=1) == 1).all()
    for row in range(500):
        assert y[row, 0] == pytest.approx(x[row, marks[row] == 1, 0].sum())
    assert ((x[:, :, 0] >= 0) & (x[:, :, 0] <= 1)).all()
    again = datasets.adding(500, steps, rng=0)
    np.testing.assert_array_equal(again[0], x)
    assert not np.array_equal(datasets.adding(500, steps, rng=1)[0], x)


def test_copy_memory() -> None:
    x, y = datasets.copy_memory(300, delay=20, rng=0, symbols=4, length=3)
    assert x.shape == y.shape == (300, 26)
    assert x.dtype == y.dtype == np.int64
    np.testing.assert_array_equal(x[:, :3], y[:, -3:])
    assert set(np.unique(x[:, :3])) == {2, 3, 4, 5}
    assert not y[:, :-3].any()
    assert (x[:, 22] == 1).all()  # three steps before the end, where the answer begins
    rest = np.delete(x, [0, 1, 2, 22], axis=1)
    assert not rest.any()


@pytest.mark.parametrize("pixels", [1, 8, 64])
def test_sequential_digits_are_the_digits(pixels: int) -> None:
    data, plain = datasets.sequential_digits(pixels), datasets.digits()
    assert data.x_train.shape == (1437, 64 // pixels, pixels)
    assert data.features == pixels
    assert data.classes == 10
    np.testing.assert_array_equal(data.x_train.reshape(1437, 64), plain.x_train)
    np.testing.assert_array_equal(data.y_test, plain.y_test)


def test_bad_sizes() -> None:
    with pytest.raises(ValueError, match="adding: steps must be >= 2"):
        datasets.adding(3, 1)
    with pytest.raises(ValueError, match="adding: samples must be >= 1"):
        datasets.adding(0, 5)
    with pytest.raises(ValueError, match="copy_memory: delay must be >= 1"):
        datasets.copy_memory(3, 0)
    with pytest.raises(ValueError, match="pixels must divide 64, got 5"):
        datasets.sequential_digits(5)


# --- the model of characters ----------------------------------------------------------------


def speaker(cell: str = "gru") -> CharacterModel:
    return CharacterModel(Characters.of(TEXT), Shape(cell, 16, 1, 8, 0.0, 4))


def test_bits_per_character_are_those_of_the_unbroken_streams() -> None:
    ours = speaker()
    data = ours.characters.chunks(TEXT, batch_size=4, steps=10)
    bits = ours.bits_per_character(data, 4)
    whole = [a.reshape(-1, 4, 10).swapaxes(0, 1).reshape(4, -1) for a in data]
    loss = nn.CrossEntropyLoss()(ours.model.eval()(whole[0]), whole[1])
    assert bits == pytest.approx(float(loss) / math.log(2), rel=1e-5)


def test_sampling_at_zero_is_the_likeliest_and_at_much_is_anything() -> None:
    ours = speaker()
    # Whatever came before, b is likeliest.
    bias = ours.model[2].bias
    bias.data = 50.0 * np.eye(len(ours.characters))[5]
    assert ours.sample(6, 0, seed=0) == ours.characters.characters[5] * 6
    assert ours.sample(6, 1.0, seed=0) == ours.characters.characters[5] * 6
    assert len(set(ours.sample(100, 1000.0, seed=0))) > 8
    assert ours.sample(50, 1e3, seed=1) == ours.sample(50, 1e3, seed=1) != ours.sample(50, 1e3, 2)
    assert ours.sample(0, 1.0, 0, prime="the") == "the"


def test_a_sample_goes_on_from_what_it_is_given() -> None:
    """The model is asked for the next character of the whole text so far."""
    ours = speaker("lstm")
    for parameter in ours.model.parameters():
        parameter.data = 4 * parameter.data  # so that much depends on the state
    said = ours.sample(8, 0, seed=0, prime="the c")
    for length in range(5, 13):
        z = ours.model.eval()(ours.characters.encode(said[:length])[None])
        assert ours.characters.encode(said[length])[0] == z[0, -1].argmax()


# --- train text, sample -------------------------------------------------------------------


@pytest.fixture
def book(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text(TEXT, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_train_text(capsys, book, cell):
    command = ["train", "text", "--file", book, "--cell", cell, "--epochs", "4", "--lr", "0.03"]
    assert main([*command, *SMALL, "--length", "30"]) == 0
    output = capsys.readouterr().out
    assert f"{cell.upper()}(8, 16, stateful=4)" in output
    assert "1,296 characters to train on, 144 held out" in output
    assert output.count("\nepoch ") == 4
    assert output.count(" characters/s\n") == 5  # with the one of the whole training
    first, last = (float(re.findall(r"val_bits ([\d.]+)", output)[place]) for place in (0, -1))
    assert last < first < math.log2(len(set(TEXT))) + 0.5
    assert said_bits(output) == pytest.approx(last, rel=1e-3)
    assert len(output[output.index("temperature 0.8:") :].rstrip("\n")) >= 30
    assert main([*command, *SMALL, "--quiet"]) == 0
    quiet = capsys.readouterr().out
    assert said_bits(quiet) == pytest.approx(last, rel=1e-3)
    assert len(quiet.splitlines()) == 1


def said_bits(output: str) -> float:
    return float(re.search(r"^bits per character: ([\d.]+)$", output, re.MULTILINE)[1])


def test_a_saved_model_speaks_as_it_did(capsys, book, tmp_path):
    path = str(tmp_path / "model.safetensors")
    command = [
        "train",
        "text",
        "--file",
        book,
        "--layers",
        "2",
        "--dropout",
        "0.1",
        "--epochs",
        "1",
    ]
    assert main([*command, *SMALL, "--save", path, "--length", "40", "--seed", "3"]) == 0
    trained = capsys.readouterr().out
    sample = ["sample", path, "--length", "40", "--seed", "3"]
    assert main(sample) == 0
    said = capsys.readouterr().out
    assert trained.endswith(said)
    assert len(said) == 41
    main([*sample, "--prime", "the cat", "--temperature", "0"])
    assert capsys.readouterr().out.startswith("the cat")
    words = minidl.saving.metadata(path)
    assert words["characters"] == Characters.of(TEXT).characters
    assert (words["cell"], words["layers"], words["format"]) == ("lstm", "2", "minidl")


def test_ctrl_c_keeps_what_was_learned(capsys, book, tmp_path, monkeypatch):
    train = CharacterModel.train

    def interrupted(*arguments):
        yield next(train(*arguments))
        raise KeyboardInterrupt

    monkeypatch.setattr(CharacterModel, "train", interrupted)
    path = tmp_path / "model.safetensors"
    assert main(["train", "text", "--file", str(book), *SMALL, "--save", str(path)]) == 130
    capsys.readouterr()
    assert main(["sample", str(path), "--length", "5"]) == 0
    assert len(capsys.readouterr().out) == 6


def test_train_text_takes_the_text_that_python_carries(monkeypatch, capsys):
    monkeypatch.setattr(datasets, "python_topics", lambda: TEXT)
    assert main(["train", "text", "--epochs", "1", *SMALL, "--length", "0"]) == 0
    assert "help topics of Python" in capsys.readouterr().out


def test_python_topics_is_a_text_worth_reading() -> None:
    text = datasets.python_topics()
    assert len(text) > 300_000
    assert 80 < len(set(text)) < 200


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["train", "text", "--file", "nowhere.txt"], "cannot read nowhere.txt"),
        (["train", "text", "--file", "BOOK", "--batch-size", "5000"], "does not fill 5000"),
        (["train", "text", "--file", "BOOK", "--save", "no/folder/m"], "no folder"),
        (["train", "text", "--file", "BOOK", "--plot", "x.nope"], "must end in one of"),
        (
            ["train", "text", *SMALL, "--file", "BOOK", "--dropout", "0.5"],
            "dropout is between layers",
        ),
        (["train", "text", "--file", "EMPTY"], "is empty"),
        (["train", "text", "--file", "BYTES"], "cannot read"),
        (["sample", "nowhere.safetensors"], "nowhere.safetensors"),
        (["sample", "BOOK"], "not a safetensors file"),
        (["sample", "OTHER"], "not a character model"),
        (["sample", "MODEL", "--prime", "Ω"], "'Ω', at 0 of the text"),
    ],
)
def test_bad_commands(capsys, book, tmp_path, command, words):
    files = {name: tmp_path / name.lower() for name in ("EMPTY", "BYTES", "OTHER", "MODEL")}
    files["EMPTY"].write_text("")
    files["BYTES"].write_bytes(b"\xff\xfe\x00")
    minidl.save(nn.Linear(2, 2), files["OTHER"])
    speaker().save(files["MODEL"])
    named = {"BOOK": book, **{name: str(path) for name, path in files.items()}}
    if "x.nope" in command:
        pytest.importorskip("matplotlib")
    assert main([named.get(word, word) for word in command]) == 2
    assert words in capsys.readouterr().err


# --- train adding ---------------------------------------------------------------------------

ADDING = ["train", "adding", "--steps", "8", "--samples", "400", "--hidden", "16"]


def test_train_adding(capsys):
    assert main([*ADDING, "--cell", "gru", "--epochs", "12", "--lr", "0.02"]) == 0
    output = capsys.readouterr().out
    assert "GRU(2, 16, return_sequences=False)" in output
    assert "400 sequences of 8 steps" in output
    assert float(re.search(r"test error: ([\d.]+) \(always one: 0.1667\)", output)[1]) < 0.03
    assert main([*ADDING, "--epochs", "1", "--quiet"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.parametrize("command", [ADDING, ["train", "text", *SMALL]])
def test_pictures_of_sequences(capsys, monkeypatch, tmp_path, command):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(datasets, "python_topics", lambda: TEXT)
    path = tmp_path / "picture.svg"
    assert main([*command, "--epochs", "1", "--plot", str(path)]) == 0
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<?xml")
    assert "before training" in text
    assert f"plot written to {path}" in capsys.readouterr().out


# --- what has been learned is not lost --------------------------------------------------------


def test_a_name_as_long_as_names_can_be(capsys, book, tmp_path):
    path = str(tmp_path / ("m" * 245))
    assert main(["train", "text", "--file", book, *SMALL, "--epochs", "1", "--save", path]) == 0
    assert f"saved to {path}\n" in capsys.readouterr().out
    assert main(["sample", path, "--length", "3"]) == 0


@pytest.mark.parametrize("name", ["", "m" * 256, "pipe"])
def test_where_a_model_cannot_be_saved_is_known_before_the_training(
    capsys, book, tmp_path, monkeypatch, name
):
    monkeypatch.setattr(CharacterModel, "train", None)
    if name == "pipe":
        os.mkfifo(tmp_path / name)
    command = ["train", "text", "--file", book, *SMALL, "--save", str(tmp_path / name)]
    assert main(command) == 2
    assert "minidl: error: cannot save " in capsys.readouterr().err


@pytest.mark.parametrize("elsewhere", [True, False])
def test_a_model_that_cannot_be_saved_in_the_end(capsys, book, tmp_path, monkeypatch, elsewhere):
    folder, others = tmp_path / "folder", tmp_path / "others"
    folder.mkdir()
    others.mkdir()
    train = CharacterModel.train

    def removed(*arguments):
        yield from train(*arguments)
        folder.rmdir()

    monkeypatch.setattr(CharacterModel, "train", removed)
    monkeypatch.setattr(tempfile, "tempdir", str(others if elsewhere else others / "none"))
    monkeypatch.chdir(tmp_path)
    path = folder / "model.safetensors"
    command = ["train", "text", "--file", book, *SMALL, "--epochs", "1", "--save", str(path)]
    assert main(command) == 1
    said = capsys.readouterr()
    assert "bits per character: " in said.out
    assert "saved to" not in said.out
    error = said.err.splitlines()[-1]
    assert error.startswith(f"minidl: error: cannot save to {path}: there is no folder")
    rescued = error.split("; the model is in ")[1]
    assert Path(rescued).is_relative_to(others if elsewhere else tmp_path)
    assert main(["sample", rescued, "--length", "3"]) == 0


@pytest.mark.parametrize("epochs", [0, 1])
def test_an_epoch_that_is_not_finite(capsys, book, tmp_path, monkeypatch, epochs):
    """What the epochs before it have learned is kept; the first one leaves an earlier file."""
    train = CharacterModel.train

    def failing(*arguments):
        learning = train(*arguments)
        for _ in range(epochs):
            yield next(learning)
        raise FloatingPointError("the loss is not finite")

    monkeypatch.setattr(CharacterModel, "train", failing)
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"an earlier model")
    assert main(["train", "text", "--file", book, *SMALL, "--save", str(path)]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("minidl: training failed: the loss is not finite")
    assert (f"saved to {path}, as it was before that" in error) == bool(epochs)
    if epochs:
        assert main(["sample", str(path), "--length", "3"]) == 0
    else:
        assert path.read_bytes() == b"an earlier model"


def test_ctrl_c_says_where_the_model_is(capsys, book, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(CharacterModel, "train", interrupted)
    path = tmp_path / "model.safetensors"
    assert main(["train", "text", "--file", book, *SMALL, "--save", str(path)]) == 130
    assert capsys.readouterr().err.splitlines()[-2:] == [f"saved to {path}", "interrupted"]


# --- models that are not to be trusted ---------------------------------------------------------


def draft(tmp_path, cell="gru", layers=1):
    """The header of a small model's file, its numbers, and how to write it anew."""
    path = tmp_path / "crafted.safetensors"
    CharacterModel(Characters("abc"), Shape(cell, 4, layers, 3, 0.0, 2)).save(path)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), bytearray(content[8 + length :])

    def write():
        header["__metadata__"]["crc32"] = f"{zlib.crc32(bytes(data)):08x}"
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + data)
        return str(path)

    return header, data, write


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("hidden", "99999999", "2.weight should have the shape (99999999, 3)"),
        ("hidden", "9" * 20, "is no size"),
        ("hidden", "9" * 10000, "is no size"),
        ("hidden", "-4", "'-4' is no size"),
        ("hidden", "٤", "is no size"),
        ("embedding", "99999999", "0.weight should have the shape (3, 99999999)"),
        ("layers", "20000", "20000 layers, and "),
        ("layers", "2", "not this model; without 1.cells.1."),
        ("layers", "0", "is no size"),
        ("streams", "9" * 19, None),  # of the training: it takes no memory to sample
        ("cell", "transformer", "no cell 'transformer'"),
        ("dropout", "nan", "dropout"),
        ("dropout", "1e400", "dropout"),
        ("characters", "abcd", "0.weight should have the shape (4, 3)"),
        ("characters", "a" * 10**6, "each once, got 'aaaa"),
    ],
)
def test_sizes_are_compared_with_the_tensors_that_are_there(capsys, tmp_path, name, value, words):
    header, _, write = draft(tmp_path)
    header["__metadata__"][name] = value
    path = write()
    tracemalloc.start()
    try:
        status = main(["sample", path, "--length", "3"])
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    said = capsys.readouterr()
    if words is None:
        assert (status, said.err) == (0, "")
        return
    assert (status, said.out) == (2, "")
    assert said.err.startswith(f"minidl: error: {path}: ")
    assert words in said.err
    assert len(said.err.splitlines()) == 1
    assert len(said.err) < 1000


@pytest.mark.parametrize("temperature", ["0.8", "0"])
def test_numbers_that_are_not_finite(capsys, tmp_path, temperature):
    _, data, write = draft(tmp_path)
    data[-4:] = b"\xff" * 4  # NaN, in the last bias
    assert main(["sample", write(), "--temperature", temperature]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("minidl: error: the model's logits are not finite")
    assert len(said.err.splitlines()) == 1


@pytest.mark.parametrize("temperature", ["1e-320", "1e300"])
def test_temperatures_beyond_all_measure(capsys, tmp_path, temperature):
    _, _, write = draft(tmp_path)
    command = ["sample", write(), "--length", "20", "--temperature"]
    assert main([*command, temperature]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert main([*command, "0"]) == 0
    likeliest = capsys.readouterr().out
    assert (said.out == likeliest) == (temperature == "1e-320")


def test_a_text_without_an_end(capsys, monkeypatch):
    monkeypatch.setattr(text, "LARGEST_TEXT", 1000)
    if Path("/dev/zero").exists():
        assert main(["train", "text", "--file", "/dev/zero"]) == 2
        assert "larger than the 1,000 bytes" in capsys.readouterr().err


def test_ends_of_lines_are_those_of_any_system(tmp_path):
    path = tmp_path / "book.txt"
    path.write_bytes(b"one\r\ntwo\rthree\n")
    assert text._read(path) == ("book.txt", "one\ntwo\nthree\n")
