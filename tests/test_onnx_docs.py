"""What docs/elsewhere.md and the README say of ONNX is true, and in under ten lines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from minidl import nn

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "elsewhere.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")

onnx = pytest.importorskip("onnx")


def programs() -> list[str]:
    (section,) = re.findall(r"^## ONNX\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE)
    found = re.findall(r"^```python\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    assert all(len(program.strip().splitlines()) < 10 for program in found)
    return found


def test_programs_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    both, runtime, sequences, images = programs()
    exec(both, names := {})
    assert capsys.readouterr().out.endswith(" True\n")
    assert repr(names["again"]) == repr(names["model"])
    exec(sequences, {})
    inputs = onnx.load("gesture.onnx").graph.input
    assert [value.name for value in inputs] == ["x", "lengths"]
    exec(images, {})
    transposes = [
        sum(node.op_type == "Transpose" for node in onnx.load(name).graph.node)
        for name in ("images.onnx", "first.onnx")
    ]
    assert transposes == [1, 0]
    pytest.importorskip("onnxruntime")
    exec(runtime, {})
    assert capsys.readouterr().out == "(5, 3)\n"


def test_the_readme_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (program,) = re.findall(r"```python\n([^`]*minidl\.onnx\.export[^`]*)```", README)
    assert len(program.strip().splitlines()) < 10
    model = nn.Sequential(nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 2), rng=0)
    lines = [
        line for line in program.splitlines() if "torch" not in line and "minidl.c" not in line
    ]
    from minidl import datasets

    exec("\n".join(lines), {"model": model, "data": datasets.digits()})
    assert (tmp_path / "net.onnx").exists()
