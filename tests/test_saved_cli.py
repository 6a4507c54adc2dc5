"""``minidl info`` and ``minidl predict``."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minidl
from minidl import nn, optim
from minidl.cli import main
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
    if target == "answer":
        assert [row[0] for row in found] == answer.tolist()
    else:
        assert np.corrcoef(np.array(found, float)[:, 0], sizes)[0, 1] > 0.95


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
