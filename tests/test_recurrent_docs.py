"""docs/recurrent.md tells the truth: its programs run and print what it says, its commands are
understood, and its links lead somewhere.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from minidl.cli import main

DOC = Path(__file__).parents[1] / "docs" / "recurrent.md"
TEXT = DOC.read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


def test_programs_run_one_after_the_other(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    assert len(blocks("python")) == 8
    for block in blocks("python"):
        exec(compile(block, str(DOC), "exec"), names)
    assert capsys.readouterr().out == blocks("text")[0] + "True False\n(4, 7, 2)\n"
    assert names["accuracy"] > 0.85
    assert names["mean_loss"] < 0.5


def test_commands_are_understood(capsys: pytest.CaptureFixture[str]) -> None:
    commands = [shlex.split(line) for block in blocks("sh") for line in block.splitlines()]
    assert len(commands) == 5
    for program, *command in commands:
        assert program == "minidl"
        assert main([*command, "--help"]) == 0
        shown = set(re.findall(r"--[\w-]+", capsys.readouterr().out))
        assert {word for word in command if word.startswith("--")} <= shown


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\[`?([^]`]+)`?\]\(([^)]+)\)", TEXT)
    assert len(links) == 4
    for label, target in links:
        assert (DOC.parent / target).resolve().exists(), target
        assert target.endswith(label)


def test_lines_are_short() -> None:
    assert not [line for line in TEXT.splitlines() if len(line) > 105]
