"""docs/tables.md tells the truth: its programs print what it says, its commands are understood."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from minidl.cli import main

DOC = Path(__file__).parents[1] / "docs" / "tables.md"
TEXT = DOC.read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


def lines_of(block: str) -> list[str]:
    """The lines of a program that are no imports, with calls over several lines as one."""
    lines = [line for line in block.splitlines() if line and not line.startswith((" ", ")"))]
    return [line for line in lines if not line.startswith(("import", "from"))]


def test_programs_run_one_after_the_other(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pandas")
    pytest.importorskip("sklearn")
    pytest.importorskip("minidl.sklearn")
    names: dict[str, Any] = {}
    assert len(blocks("python")) == 4
    for block in blocks("python"):
        assert len(lines_of(block)) < 10
        exec(compile(block, str(DOC), "exec"), names)
    assert capsys.readouterr().out == "".join(blocks("text"))


def test_commands_are_understood(capsys: pytest.CaptureFixture[str]) -> None:
    commands = [shlex.split(line) for block in blocks("sh") for line in block.splitlines()]
    assert len(commands) == 3
    for program, *command in commands:
        assert program == "minidl"
        assert main([*command, "--help"]) == 0
        shown = set(re.findall(r"--[\w-]+", capsys.readouterr().out))
        assert {word for word in command if word.startswith("--")} <= shown


def test_figures_are_those_of_the_code() -> None:
    from minidl.cli.tables import PATIENCE
    from minidl.tables.encoders import RARE
    from minidl.tables.features import MOST_CATEGORIES
    from minidl.tables.splitting import TEST, VALIDATION
    from minidl.tables.target import MOST_NUMBERED_CLASSES
    from minidl.tables.words import MOST

    assert (RARE, MOST) == (5, 0.9)
    for words in (
        f"more than {MOST_CATEGORIES} frequent words",
        f"at most {MOST_NUMBERED_CLASSES} whole numbers",
        f"{1 - VALIDATION - TEST:.0%} of the rows".replace("%", " %"),
        f"{VALIDATION:.0%} say".replace("%", " %"),
        f"{TEST:.0%} are tested".replace("%", " %"),
        f"not improved for {PATIENCE}\nepochs",
    ):
        assert words in TEXT, words


def test_lines_are_short() -> None:
    prose = [line for line in TEXT.splitlines() if not line.startswith(("|", "X: "))]
    assert not [line for line in prose if len(line) > 112]
