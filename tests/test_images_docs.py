"""docs/images.md tells the truth: its programs run, its commands are understood."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from minidl import models
from minidl.cli import _parser

DOC = Path(__file__).parents[1] / "docs" / "images.md"
TEXT = DOC.read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


def test_programs_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks("python"):
        exec(compile(block, DOC.name, "exec"), names)
    accuracy, *_ = capsys.readouterr().out.splitlines()
    assert float(accuracy) > 0.965
    assert (tmp_path / "maps.png").stat().st_size > 10_000


def test_commands_are_understood() -> None:
    commands = [shlex.split(line) for block in blocks("sh") for line in block.splitlines()]
    assert len(commands) == 5
    for program, *arguments in commands:
        assert program == "minidl"
        assert callable(_parser().parse_args(arguments).run)


def test_every_network_is_in_the_table() -> None:
    assert re.findall(r"^\| `models\.(\w+)\(", TEXT, re.MULTILINE) == sorted(
        models.__all__, key=TEXT.find
    )
    assert all(f"models.{name}(" in TEXT for name in models.__all__)


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", TEXT)
    assert targets
    assert all((DOC.parent / target).exists() for target in targets)
