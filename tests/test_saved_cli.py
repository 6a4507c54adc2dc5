"""``minidl info`` and ``minidl predict``."""

from __future__ import annotations

import csv
import errno
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minidl
from minidl import nn, optim
from minidl.cli import main
from minidl.onnx import adapters
from minidl.onnx.network import Network
from minidl.onnx.readers import Step
from minidl.saving.architecture import described
from minidl.saving.tensor_file import write_tensor_file
from minidl.training import Trainer

X = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def table(path: Path, names: list[str], rows: Any) -> Path:
    lines = [",".join(names), *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def read(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_info_of_a_model_and_of_a_training(path: Path, capsys: Any) -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2), rng=0)
    minidl.save(model, path, classes=["no", "yes"], metadata={"made of": "iris"})
    assert main(["info", str(path)]) == 0
    out = capsys.readouterr().out
    assert f"written by: minidl {minidl.__version__}" in out
    assert 'classes: ["no", "yes"]' in out
    assert "made of: iris" in out
    assert repr(model) in out
    trainer = Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters()))
    trainer.save(path)
    assert main(["info", str(path)]) == 0
    out = capsys.readouterr().out
    assert "optimizer: SGD\ntraining: Trainer.load goes on with it" in out
    write_tensor_file(path, {"weight": np.zeros((3, 2))}, {}, {})
    assert main(["info", str(path)]) == 0
    assert "weight (3, 2)" in capsys.readouterr().out
    path.write_bytes(b"x")
    assert main(["info", str(path)]) == 2
    assert "truncated, or not a safetensors file" in capsys.readouterr().err


def test_info_of_a_model_whose_class_is_missing(path: Path, capsys: Any) -> None:
    class Mine(nn.Layer):
        def __init__(self) -> None:
            self.inner, self.factor = nn.Linear(3, 2, rng=0), 0.5

    minidl.save(nn.Sequential(Mine(), nn.ReLU()), path, metadata={"made of": "oak"})
    rewritten(path, lambda words: {k: w.replace("<locals>.Mine", "Gone") for k, w in words.items()})
    assert main(["info", str(path)]) == 1
    out = capsys.readouterr().out
    assert "made of: oak" in out
    assert "layer 2: Linear(in_features=3" in out
    assert "factor=0.5" in out
    assert "0.inner.weight (3, 2)" in out
    assert "is in the model, and is not defined here: define or import it first" in out
    assert "Gone" in out.splitlines()[-1]


def test_predict_from_an_array_to_an_array(path: Path, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm(2), nn.Dropout(0.5), rng=0)
    minidl.save(model, path)
    np.save(tmp_path / "x.npy", X)
    out = tmp_path / "y.npy"
    assert main(["predict", str(path), str(tmp_path / "x.npy"), "--out", str(out)]) == 0
    assert (np.load(out) == model.eval()(X)).all()


def test_predict_a_table_by_the_names_of_its_columns(path: Path, tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    model = nn.Linear(3, 2, rng=0)
    labels = [["no", "yes"][k] for k in model(X).argmax(axis=1)]
    minidl.save(model, path, classes=["no", "yes"], columns=["a", "b", "c"])
    rows = [[*row[::-1].tolist(), "x"] for row in X]
    data = table(tmp_path / "x.csv", ["c", "b", "a", "other"], rows)
    out = tmp_path / "y.csv"
    assert main(["predict", str(path), str(data), "--out", str(out)]) == 0
    assert read(out) == [["prediction"], *([label] for label in labels)]
    minidl.save(nn.Linear(3, 1, rng=0), path)
    data = table(tmp_path / "x.csv", ["a", "b", "c"], X.tolist())
    assert main(["predict", str(path), str(data), "--out", str(out)]) == 0
    found = np.array(read(out)[1:], np.float64)
    assert np.allclose(found, nn.Linear(3, 1, rng=0)(X), rtol=1e-6)


def rewritten(path: Path, change: Any) -> None:
    """Change the metadata of a file."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = change(header["__metadata__"])
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


def test_labels_of_one_output_are_those_of_the_sigmoid(path: Path, tmp_path: Path) -> None:
    linear = nn.Linear(3, 1, rng=0)
    linear.bias.data[...] = 0.3
    expected = [["no", "yes"][int(z > 0)] for z in linear(X)[:, 0]]
    assert len(set(expected)) == 2
    np.save(tmp_path / "x.npy", X)
    out = tmp_path / "y.csv"
    for model in (linear, nn.Sequential(linear, nn.Sigmoid())):
        minidl.save(model, path, classes=["no", "yes"])
        assert main(["predict", str(path), str(tmp_path / "x.npy"), "--out", str(out)]) == 0
        assert [row[0] for row in read(out)[1:]] == expected


def test_what_follows_the_sigmoid_leaves_it_one(path: Path, tmp_path: Path) -> None:
    linear = nn.Linear(3, 1, rng=0)
    linear.bias.data[...] = 0.3
    labels = [["no", "yes"][int(z > 0)] for z in linear(X)[:, 0]]
    steps = [("x", "z", linear), ("z", "p", nn.Sigmoid()), ("p", "y", adapters.Squeeze((1,)))]
    graph = Network([Step(layer, [x], [y], []) for x, y, layer in steps], ["x"], ["y"])
    np.save(tmp_path / "x.npy", X)
    out = tmp_path / "y.csv"
    for model, expected in [
        (graph, labels),
        (nn.Sequential(linear, nn.Sequential(nn.Sigmoid(), nn.Dropout(0.5))), labels),
        (nn.Sequential(linear, nn.HardSigmoid(), adapters.Squeeze((1,))), labels),
        (nn.Sequential(linear, nn.Sigmoid(), nn.ReLU()), ["yes"] * len(X)),
    ]:
        minidl.save(model, path, classes=["no", "yes"])
        assert main(["predict", str(path), str(tmp_path / "x.npy"), "--out", str(out)]) == 0
        assert [row[0] for row in read(out)[1:]] == expected


def test_a_model_of_two_outputs_is_refused(path: Path, tmp_path: Path, capsys: Any) -> None:
    steps = [Step(nn.Linear(3, 2, rng=seed), ["x"], [str(seed)], []) for seed in (0, 1)]
    minidl.save(Network(steps, ["x"], ["0", "1"]), path)
    np.save(tmp_path / "x.npy", X)
    out = tmp_path / "y.npy"
    assert main(["predict", str(path), str(tmp_path / "x.npy"), "--out", str(out)]) == 2
    assert "the model gives 2 arrays for each row, and not one" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("outputs", [1, 2, 4])
def test_names_of_classes_that_do_not_fit_are_an_error(
    path: Path, tmp_path: Path, capsys: Any, outputs: int
) -> None:
    minidl.save(nn.Linear(3, outputs, rng=0), path, classes=["a", "b", "c"])
    np.save(tmp_path / "x.npy", X)
    out = tmp_path / "y.csv"
    assert main(["predict", str(path), str(tmp_path / "x.npy"), "--out", str(out)]) == 2
    assert f"names 3 classes, and the model has {outputs} outputs" in capsys.readouterr().err
    assert not out.exists()
    array = tmp_path / "y.npy"
    assert main(["predict", str(path), str(tmp_path / "x.npy"), "--out", str(array)]) == 0
    assert np.load(array).shape == (7, outputs)


def test_nan_is_no_class(path: Path, tmp_path: Path, capsys: Any) -> None:
    x = np.ones_like(X)
    x[2] = 3e38  # the logits are infinite, and their softmax is NaN
    np.save(tmp_path / "x.npy", x)
    model = nn.Sequential(nn.Linear(3, 2, init=nn.init.constant(1.0)), nn.Softmax())
    minidl.save(model, path, classes=["a", "b"])
    out = tmp_path / "y.csv"
    assert main(["predict", str(path), str(tmp_path / "x.npy"), "--out", str(out)]) == 2
    assert "NaN in row 3, which is no class" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("classes", [None, ["a", "b"]])
def test_each_step_of_a_sequence_has_a_line(path: Path, tmp_path: Path, classes: Any) -> None:
    model = nn.Sequential(nn.GRU(3, 2, return_sequences=True), rng=0)
    minidl.save(model, path, classes=classes)
    x = np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    out = tmp_path / "y.csv"
    assert main(["predict", str(path), str(tmp_path / "x.npy"), "--out", str(out)]) == 0
    header, *lines = read(out)
    assert [line[:2] for line in lines] == [
        [str(r), str(s)] for r in range(1, 5) for s in range(1, 6)
    ]
    outputs = model(x).reshape(20, 2)
    if classes is None:
        assert header == ["row", "step", "prediction 0", "prediction 1"]
        assert np.allclose(np.array([line[2:] for line in lines], float), outputs, rtol=1e-6)
    else:
        assert [line[2] for line in lines] == [classes[k] for k in outputs.argmax(axis=1)]
    minidl.save(nn.Identity(), path)
    np.save(tmp_path / "x.npy", np.zeros((2, 3, 4, 5)))
    assert main(["predict", str(path), str(tmp_path / "x.npy"), "--out", str(out)]) == 2


def test_a_table_of_the_users_own_is_none_of_ours(path: Path, tmp_path: Path, capsys: Any) -> None:
    np.save(tmp_path / "x.npy", X)
    for word in ("oak", "5", '{"columns": [{"name": "a"}]}'):
        minidl.save(nn.Linear(3, 2, rng=0), path, metadata={"table": word})
        out = tmp_path / "y.csv"
        assert main(["predict", str(path), str(tmp_path / "x.npy"), "--out", str(out)]) == 0
        assert main(["info", str(path)]) == 0
        assert f"table: {word}" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"the metadata minidl\.mine are its own, rename"):
        minidl.save(nn.Linear(3, 2), path, metadata={"minidl.mine": "x"})
    for words in (3, ["a"], "a"):
        with pytest.raises(TypeError, match="metadata are strings by name in a dict, got"):
            minidl.save(nn.Linear(3, 2), path, metadata=words)  # type: ignore[arg-type]


@pytest.mark.parametrize("target", ["answer", "amount"])
def test_predict_what_train_csv_has_learned(tmp_path: Path, target: str) -> None:
    pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    kinds = rng.choice(["red", "blue"], size=120)
    sizes = rng.normal(50, 9, size=120)
    answer = np.where(kinds == "red", "yes", "no")
    rows = zip(kinds, sizes.round(3), answer, (sizes * 3).round(3), strict=True)
    names = ["kind", "size", "answer", "amount"]
    data, model, out = (tmp_path / name for name in ("x.csv", "model", "y.csv"))
    table(data, names, rows)
    options = ["--epochs", "60", "--quiet", "--save", str(model)]
    assert main(["train", "csv", str(data), "--target", target, *options]) == 0
    assert main(["predict", str(model), str(data), "--out", str(out)]) == 0
    header, *found = read(out)
    assert header == [target]
    rewritten(model, lambda words: words | {"table": words.pop("minidl.table")})  # of version 0.1
    assert main(["predict", str(model), str(data), "--out", str(out)]) == 0
    assert read(out) == [header, *found]
    if target == "answer":
        assert [row[0] for row in found] == answer.tolist()
    else:
        assert np.corrcoef(np.array(found, float)[:, 0], sizes)[0, 1] > 0.95


def test_numbers_that_the_model_cannot_take_are_not_changed(
    path: Path, tmp_path: Path, capsys: Any
) -> None:
    out, data = tmp_path / "y.csv", tmp_path / "x.npy"
    index = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 2), rng=0)
    linear = nn.Linear(2, 2, rng=0)
    for model, inputs, words in (
        (index, [[1, 2], [0, 1.7]], "row 2 holds 1.7, which is not an index"),
        (index, [[1, np.nan]], "row 1 holds nan"),
        (linear, [[0, 1], [np.inf, 0]], "row 2 holds inf, which is not finite"),
        (linear, [[1j, 2]], "got complex128"),
        (linear, 3.0, "got float64 of shape ()"),
    ):
        minidl.save(model, path)
        np.save(data, inputs)
        assert main(["predict", str(path), str(data), "--out", str(out)]) == 2
        assert words in capsys.readouterr().err
    missing = tmp_path / "none" / "y.csv"
    assert main(["predict", str(path), str(data), "--out", str(missing)]) == 2
    assert "cannot write" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["5", "{", "[" * 10**5, "[[1]]", '{"columns": [{"name": "a"}]}'])
@pytest.mark.parametrize("name", ["minidl.classes", "minidl.columns", "minidl.table"])
def test_damaged_words_are_told_in_a_line(
    path: Path, tmp_path: Path, capsys: Any, name: str, text: str
) -> None:
    model = nn.Linear(3, 2, rng=0)
    words, arrays = described(model)
    arrays |= {n: parameter.data for n, parameter in model.named_parameters()}
    write_tensor_file(path, arrays, {}, {"minidl.model": words, name: text})
    np.save(tmp_path / "x.npy", X)
    out = tmp_path / "y.csv"
    assert main(["predict", str(path), str(tmp_path / "x.npy"), "--out", str(out)]) == 2
    err = capsys.readouterr().err
    assert "classes or columns is damaged" in err
    assert len(err.splitlines()) == 1


def test_what_cannot_be_predicted_is_told_in_a_line(
    path: Path, tmp_path: Path, capsys: Any
) -> None:
    pytest.importorskip("pandas")
    minidl.save(nn.Linear(3, 2, rng=0), path, columns=["a", "b", "c"])
    out = tmp_path / "y.csv"
    cases = [
        (table(tmp_path / "1.csv", ["a", "b"], [[1, 2]]), "there is no column 'c'"),
        (table(tmp_path / "2.csv", ["a", "b", "c"], [[1, 2, ""], [3, 4, 5]]), "no number in row 1"),
        (tmp_path / "none.csv", "No such file"),
    ]
    np.save(tmp_path / "wide.npy", X[:, :2])
    cases.append((tmp_path / "wide.npy", "3"))
    for data, words in cases:
        assert main(["predict", str(path), str(data), "--out", str(out)]) == 2
        err = capsys.readouterr().err
        assert words in err
        assert len(err.splitlines()) == 1
        assert not out.exists()


@pytest.mark.parametrize("kind", ["empty", "text", "archive", "objects"])
def test_what_is_no_array_is_told_in_a_line(
    path: Path, tmp_path: Path, capsys: Any, kind: str
) -> None:
    minidl.save(nn.Linear(3, 2, rng=0), path)
    data, out = tmp_path / "x.npy", tmp_path / "y.csv"
    with data.open("wb") as file:
        if kind == "archive":
            np.savez(file, X)
        elif kind == "objects":
            np.save(file, np.array([X, None], object))
        else:
            file.write(b"" if kind == "empty" else b"a,b,c\n1,2,3\n")
    assert main(["predict", str(path), str(data), "--out", str(out)]) == 2
    err = capsys.readouterr().err
    assert f"{data}: no array of numbers as numpy.save writes it" in err
    assert len(err.splitlines()) == 1


def test_a_reader_of_info_that_has_gone_is_no_wrong_argument(
    path: Path, monkeypatch: Any, capsys: Any
) -> None:
    minidl.save(nn.Linear(3, 2, rng=0), path)

    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            if "Linear" in text:
                raise BrokenPipeError(errno.EPIPE, "Broken pipe")
            return len(text)

    monkeypatch.setattr("minidl.cli._discard_output", lambda: None)
    monkeypatch.setattr("sys.stdout", Closed())
    assert main(["info", str(path)]) == 141
    assert capsys.readouterr().err == ""


def test_info_of_damaged_layers_behind_a_missing_class(path: Path, capsys: Any) -> None:
    for damaged in (3, {}, {"class": [], "module": []}):
        content = {"version": 1, "layers": [{"class": "Gone"}, damaged], "parameters": []}
        write_tensor_file(path, {}, {}, {"minidl.model": json.dumps(content)})
        assert main(["info", str(path)]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
