"""Networks for images at the command line: kept in a file, they predict from images."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_helpers import ROOT, accuracy_in, write_idx

import minidl
from minidl import datasets, models, nn, saving
from minidl.cli import main
from minidl.cli.pixels import Pixels

DIGITS = datasets.digits()
WHOLE = np.round(DIGITS.x_test * 16).astype(np.uint8).reshape(-1, 8, 8)  # as the source has them


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tmp_path / "net.safetensors"


def predicted(model: Path, data: Path) -> list[int]:
    out = data.with_name("predictions.csv")
    assert main(["predict", str(model), str(data), "--out", str(out)]) == 0
    with out.open(newline="") as file:
        (header, *rows) = csv.reader(file)
    assert header == ["prediction"]
    return [int(label) for (label,) in rows]


def stored(path: Path, images: Any) -> Path:
    np.save(path, images)
    return path


# --- train --save, info, predict --------------------------------------------------------------


@pytest.mark.parametrize("options", [["--hidden", "32"], ["--model", "cnn"]])
def test_a_kept_network_predicts_what_it_did_in_training(
    options: list[str], model: Path, tmp_path: Path, capsys: Any
) -> None:
    assert main(["train", "digits", *options, "--epochs", "2", "--save", str(model)]) == 0
    output = capsys.readouterr().out
    assert f"network saved to {model}" in output
    labels = predicted(model, Path(write_idx(tmp_path / "images.gz", WHOLE)))
    assert np.mean(labels == DIGITS.y_test) == pytest.approx(accuracy_in(output), abs=1e-4)
    for number, images in enumerate(
        (WHOLE, WHOLE[..., None], WHOLE.astype(int), DIGITS.x_test, WHOLE / 16.0)
    ):
        assert predicted(model, stored(tmp_path / f"{number}.npy", images)) == labels
    assert predicted(model, stored(tmp_path / "one.npy", WHOLE[0])) == labels[:1]
    capsys.readouterr()
    assert main(["info", str(model)]) == 0
    output = capsys.readouterr().out
    assert "classes: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]" in output
    assert "images: minidl predict makes inputs of them as minidl train did" in output


def test_what_is_kept_is_a_model_file_as_any_other(model: Path) -> None:
    options = ["--epochs", "1", "--quiet", "--seed", "3"]
    assert main(["train", "digits", "--model", "cnn", *options, "--save", str(model)]) == 0
    again = minidl.load(model)
    assert repr(again) == repr(models.small_cnn())
    with nn.evaluating():
        logits = again(DIGITS.x_test.reshape(-1, 8, 8, 1))
    assert np.mean(logits.argmax(axis=1) == DIGITS.y_test) > 0.8


def test_idx_files_of_bytes_are_scaled_and_others_are_not(model: Path, tmp_path: Path) -> None:
    y = np.arange(60) % 3
    x = np.zeros((60, 4, 5), np.uint8)
    x[np.arange(60), y] = 200
    labels = write_idx(tmp_path / "labels", y)
    options = ["--labels", labels, "--epochs", "40", "--quiet", "--save", str(model)]
    assert main(["train", "idx", "--images", write_idx(tmp_path / "x", x), *options]) == 0
    assert predicted(model, tmp_path / "x") == y.tolist()
    assert json.loads(saving.metadata(model)["minidl.images"])["most"] == 255
    reals = bytes([0, 0, 0x0E, 3, 0, 0, 0, 60, 0, 0, 0, 4, 0, 0, 0, 5])
    (tmp_path / "reals").write_bytes(reals + (x * -1.5).astype(">f8").tobytes())
    assert main(["train", "idx", "--images", str(tmp_path / "reals"), *options]) == 0
    assert predicted(model, tmp_path / "reals") == y.tolist()


@pytest.fixture
def digits_model(model: Path) -> Path:
    net = nn.Sequential(nn.Linear(64, 10), rng=0)
    words = {"minidl.images": Pixels((8, 8), (64,), 16).as_text()}
    tensors, own = saving.model_file.contents(net, None)
    saving.tensor_file.write_tensor_file(model, tensors, {}, {**own, **words})
    return model


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((3, 28, 28)), "takes images of 8 x 8 pixels, an array (count, 8, 8); got shape"),
        (np.zeros(3), "got shape (3,)"),
        (np.array(3.0), "expected an array of numbers, a row for each prediction"),
        (np.zeros((3, 8, 8), complex), "got complex128 of shape (3, 8, 8)"),
        (np.full((3, 8, 8), 17), "image 1 has a pixel of 17; pixels are whole numbers from 0 to "),
        (WHOLE.astype(float), "or real ones from 0 to 1"),
        (WHOLE / -16.0, "image 1 has a pixel of -0"),
        (np.full((3, 8, 8), np.nan), "row 1 holds nan, which is not finite"),
        (np.full((3, 8, 8), np.inf), "image 1 has a pixel of inf"),
        (np.zeros((0, 8, 8)), "there is no row"),
    ],
)
def test_other_images_are_refused_in_a_line(
    digits_model: Path, tmp_path: Path, capsys: Any, images: Any, message: str
) -> None:
    data = stored(tmp_path / "x.npy", images)
    arguments = ["predict", str(digits_model), str(data), "--out", str(tmp_path / "y.csv")]
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"minidl: error: {data}: ")
    assert message in err
    assert len(err.splitlines()) == 1


def test_files_that_hold_no_images_are_refused_in_a_line(
    digits_model: Path, tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "text").write_text("a,b\n1,2\n")
    labels = write_idx(tmp_path / "labels", np.arange(9))
    for data, words in (
        (tmp_path / "text", "expected images, as an IDX file or an array (.npy); not an IDX file"),
        (tmp_path / "none", "none: No such file or directory\n"),
        (tmp_path, "directory"),
        (labels, "takes images of 8 x 8 pixels"),
    ):
        arguments = ["predict", str(digits_model), str(data), "--out", str(tmp_path / "y.csv")]
        assert main(arguments) == 2
        err = capsys.readouterr().err
        assert words in err
        assert err.count(str(data)) == 1


@pytest.mark.parametrize("packed", [True, False])
def test_idx_for_a_model_that_says_nothing_of_pixels(
    model: Path, tmp_path: Path, capsys: Any, packed: bool
) -> None:
    pytest.importorskip("pandas")
    minidl.save(nn.Linear(64, 2, rng=0), model)
    data = Path(write_idx(tmp_path / "images", WHOLE))
    if not packed:
        data.write_bytes(bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 8, *WHOLE[0].flat]))
    assert main(["predict", str(model), str(data), "--out", str(tmp_path / "y.csv")]) == 2
    assert "does not say how pixels become inputs" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        {"image": [8, 8], "inputs": [63], "most": 16},
        {"image": [8, -8], "inputs": [-64], "most": 16},
        {"image": [8, 8.0], "inputs": [64], "most": 16},
        {"image": 64, "inputs": [64], "most": 16},
        {"image": [8, 8], "inputs": [64], "most": 0},
        {"image": [8, 8], "inputs": [64], "most": True},
        {"image": [8, 8], "inputs": [64]},
        [],
    ],
)
def test_damaged_words_of_images_are_no_words(words: Any) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        Pixels.from_text(json.dumps(words))


def test_a_file_that_cannot_be_written_is_told_before_the_training(
    tmp_path: Path, capsys: Any
) -> None:
    assert main(["train", "digits", "--save", str(tmp_path / "none" / "net")]) == 2
    captured = capsys.readouterr()
    assert "cannot save" in captured.err
    assert not captured.out


def test_no_output_is_written_over_another_file(tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip("matplotlib")
    images = write_idx(tmp_path / "images.png", WHOLE)
    labels = write_idx(tmp_path / "labels", DIGITS.y_test)
    before = Path(images).read_bytes()
    files = ["--images", images, "--labels", labels]
    out = str(tmp_path / "out.png")
    for arguments in (
        ["train", "idx", *files, "--save", images],
        ["train", "idx", *files, "--plot", str(tmp_path / "." / "images.png")],
        ["train", "digits", "--save", out, "--plot", out],
        ["predict", labels, images, "--out", images],
    ):
        assert main(arguments) == 2
        assert "is given elsewhere, and would be overwritten" in capsys.readouterr().err
    assert Path(images).read_bytes() == before


@pytest.mark.parametrize("data", ["digits", "csv"])
def test_results_are_printed_although_the_disk_is_full(
    data: str, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("minidl.cli.keeping.write_tensor_file", full)
    arguments = ["train", "digits"]
    if data == "csv":
        pytest.importorskip("pandas")
        table = tmp_path / "table.csv"
        table.write_text("a,b\n" + "\n".join(f"{row},{row % 2}" for row in range(100)))
        arguments = ["train", "csv", str(table), "--target", "b"]
    save = ["--epochs", "1", "--quiet", "--save", str(tmp_path / "net")]
    assert main([*arguments, *save]) == 1
    captured = capsys.readouterr()
    assert "test accuracy: " in captured.out
    assert (
        captured.err == f"minidl: error: cannot write {tmp_path / 'net'}: No space left on device\n"
    )


# --- Ctrl-C -----------------------------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_ctrl_c_keeps_the_network(model: Path) -> None:
    options = ["--model", "cnn", "--epochs", "10000", "--save", str(model)]
    command = [sys.executable, "-u", "-m", "minidl", "train", "digits", *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as process:
        assert process.stdout is not None
        assert any(line.startswith("epoch") for line in process.stdout)  # reads up to the first one
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == f"network saved to {model}, as it was when interrupted\ninterrupted\n"
    with nn.evaluating():
        logits = minidl.load(model)(DIGITS.x_test.reshape(-1, 8, 8, 1))
    assert np.mean(logits.argmax(axis=1) == DIGITS.y_test) > 0.7


def test_ctrl_c_without_a_file_keeps_nothing(monkeypatch: Any, tmp_path: Path) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("minidl.training.Trainer.fit", interrupted)
    monkeypatch.chdir(tmp_path)
    assert main(["train", "digits", "--quiet"]) == 130
    assert not list(tmp_path.iterdir())
