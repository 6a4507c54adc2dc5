"""What docs/elsewhere.md and the README say of PyTorch and C is true, and in under ten lines."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import minidl.c
from minidl import nn

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "elsewhere.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(section: str, language: str) -> list[str]:
    """The programs of a section."""
    (text,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE)
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def short_programs(section: str) -> list[str]:
    programs = blocks(section, "python")
    assert programs
    assert all(len(program.strip().splitlines()) < 10 for program in programs)
    return programs


def test_programs_of_pytorch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    modules, files, images, flattened = short_programs("PyTorch")
    exec(files, {})
    assert capsys.readouterr().out == "state dict: 4 tensors fit\n"
    pytest.importorskip("torch")
    exec(modules, names := {})
    assert float(capsys.readouterr().out) < 1e-6
    assert repr(names["again"]) == repr(names["model"])
    exec(images, names := {})
    assert float(capsys.readouterr().out) < 1e-5
    assert repr(names["back"]) == repr(names["module"])
    exec(flattened, {})
    fit, difference = capsys.readouterr().out.splitlines()
    assert fit == "state dict: 4 tensors fit"
    assert float(difference) < 1e-5


def test_programs_of_c(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for program in short_programs("C"):
        exec(program, {})
    assert "digits.h: 9,896 bytes of constants, 128 of memory," in capsys.readouterr().out
    for name, text in zip(("digits", "gesture"), blocks("C", "c"), strict=True):
        assert f'#include "{name}.h"' in text
        (tmp_path / "main.c").write_text(text)
        if gcc := shutil.which("gcc"):
            command = [gcc, "-std=c99", "-Wall", "-Werror", "-c", "main.c", f"{name}.c"]
            subprocess.run(command, check=True)


def test_headers_can_be_included_from_c_plus_plus(tmp_path: Path) -> None:
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    minidl.c.export(nn.Sequential(nn.Embedding(5, 2), nn.GRU(2, 2)), tmp_path / "net.c")
    (tmp_path / "main.cpp").write_text('#include "net.h"\nint main() { return NET_STATE - 2; }\n')
    subprocess.run(["g++", "-Wall", "-Werror", "-c", "main.cpp"], cwd=tmp_path, check=True)


def test_the_readme_shows_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = re.findall(r"```python\n([^`]*minidl\.c\.export[^`]*)```", README)
    (program,) = found
    assert len(program.strip().splitlines()) < 10
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2), rng=0)
    lines = [line for line in program.splitlines() if "to_torch" not in line]
    exec("\n".join(lines), {"model": model})
    assert (tmp_path / "net.c").exists()
    if pytest.importorskip("torch"):
        exec(program, {"model": model})
