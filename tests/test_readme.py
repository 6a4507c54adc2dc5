"""The README tells the truth: its programs run, and the code it shows is the code there is."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_architecture import FLOOR_OF

from minidl import _kernels, nn
from minidl._kernels import twins as reference
from minidl.cli import _parser, main

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def block_with(words: str) -> str:
    (block,) = [block for block in BLOCKS if words in block]
    return block


def without_docstrings(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
            node.body = node.body[1:]
    return ast.dump(tree)


def test_first_program_is_short_and_learns(capsys: pytest.CaptureFixture[str]) -> None:
    program = block_with("datasets.digits()")
    assert len(program.strip().splitlines()) < 20
    exec(program, {})
    accuracy = re.search(r"'accuracy': (0\.\d+)", capsys.readouterr().out)
    assert accuracy is not None
    assert float(accuracy[1]) > 0.95


def test_the_demo_is_as_accurate_as_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    """Of 360 images: rounding, which differs between machines, may change the class of some."""
    told = re.search(r"^test accuracy: (0\.\d+)$", README.read_text("utf-8"), re.MULTILINE)
    assert main(["train", "digits", "--quiet"]) == 0
    found = re.search(r"^test accuracy: (0\.\d+)$", capsys.readouterr().out, re.MULTILINE)
    assert told is not None
    assert found is not None
    assert abs(float(found[1]) - float(told[1])) < 0.005


def test_early_stopping_and_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(block_with("datasets.digits()"), names)
    exec(textwrap.dedent(block_with("EarlyStopping")), names)
    assert names["history"].epochs < 100
    scores = names["trainer"].evaluate(names["data"].x_test, names["data"].y_test)
    assert scores["loss"] == min(names["history"]["val_loss"])
    assert (tmp_path / "history.png").exists()


def test_step_by_hand_runs() -> None:
    model, loss = nn.Linear(3, 2, rng=0), nn.CrossEntropyLoss()
    from minidl import optim

    names = {
        "model": model,
        "loss": loss,
        "optimizer": optim.SGD(model.parameters()),
        "x": np.ones((4, 3), np.float32),
        "y": np.array([0, 1, 0, 1]),
    }
    exec(block_with("norm = optimizer.step()"), names)
    assert names["norm"] > 0
    names |= {"X": np.ones((64, 3), np.float32), "Y": np.arange(64) % 2}
    if _kernels.isa == "reference":
        return  # it records nothing that could be profiled
    exec(block_with("@minidl.record"), names)
    assert float(names["step"](names["x"], names["y"])) < 1


def test_layer_and_kernels_shown_are_the_real_ones() -> None:
    shown = without_docstrings(block_with("class Tanh"))
    assert shown == without_docstrings(inspect.getsource(nn.Tanh))
    for function in (reference.tanh, reference.tanh_grad):
        assert inspect.getsource(function).strip() in block_with("def tanh_grad")


def test_files_that_it_points_to_are_there() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README.read_text(encoding="utf-8"))
    assert links
    assert all((README.parent / link).exists() for link in links)


READING = re.compile(r"^\| (.*) \| ([\d,]+) \| (\d+) \|$", re.MULTILINE)
LINES_A_MINUTE = 25


def test_readings_take_as_long_as_they_say() -> None:
    text = README.read_text(encoding="utf-8").partition("## Three readings")[2]
    lines = minutes = readings = 0
    for what, told, time in READING.findall(text):
        told, time = int(told.replace(",", "")), int(time)
        if what == "together":
            assert (told, time) == (lines, minutes)
            assert 120 < time < 300, "an afternoon"
            lines, minutes, readings = 0, 0, readings + 1
            continue
        files = [ROOT / link for link in re.findall(r"\]\(([^)]+)\)", what)]
        count = sum(len(path.read_text("utf-8").splitlines()) for path in files)
        assert abs(count - told) <= 0.1 * count, f"{what}: {count} lines"
        assert time == round(told / LINES_A_MINUTE), what
        lines, minutes = lines + told, minutes + time
    assert readings == 3


def test_rooms_are_drawn_as_imports_run() -> None:
    text = README.read_text(encoding="utf-8").partition("The rooms, each")[2]
    drawn = [line[:38].split() for line in text.split("```")[1].strip().splitlines()]
    floors = [FLOOR_OF[room] for rooms in drawn for room in rooms]
    assert floors == sorted(floors)
    hidden = {"__main__", "_version", "_kernels.twins", "_kernels.signature"}
    assert {room for rooms in drawn for room in rooms} == FLOOR_OF.keys() - hidden


PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_are_there(page: Path) -> None:
    names = re.findall(r"`([\w/.]+\.(?:pyx|pxi|pxd|pyi|py|txt|md|h))`", page.read_text("utf-8"))
    places = [ROOT / "minidl", ROOT / "tests", ROOT / "benchmarks", ROOT / "docs"]
    known = {path for place in places for path in place.rglob("*")} | set(ROOT.iterdir())
    paths = [f"/{path.relative_to(ROOT).as_posix()}" for path in known]
    missing = [name for name in names if not any(path.endswith(f"/{name}") for path in paths)]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_a_page_are_understood(page: Path) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    for line in "".join(blocks).splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["minidl"]:
            assert callable(_parser().parse_args(words[1:]).run), line


def test_all_files_of_the_twin_are_to_be_read() -> None:
    text = README.read_text(encoding="utf-8")
    for path in (ROOT / "minidl" / "_kernels" / "twins").glob("*.py"):
        if path.stem not in ("__init__", "matrix"):
            assert f"(minidl/_kernels/twins/{path.name})" in text
