"""docs/saving.md tells the truth: its programs print what it says, its commands are understood."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minidl.cli import main

DOC = Path(__file__).parents[1] / "docs" / "saving.md"
TEXT = DOC.read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


def test_programs_and_commands_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    assert len(blocks("python")) == 2
    for block in blocks("python"):
        exec(compile(block, str(DOC), "exec"), names)
    assert capsys.readouterr().out == "".join(blocks("text"))
    pytest.importorskip("pandas")
    rows = names["data"].x_test[:5]
    header = ",".join(f"pixel {place}" for place in range(64))
    np.savetxt("rows.csv", rows, delimiter=",", header=header, comments="")
    for command in "".join(blocks("sh")).splitlines():
        assert main(shlex.split(command)[1:]) == 0
    labels = names["same"].eval()(rows).argmax(axis=1)
    assert Path("predictions.csv").read_text().split() == ["prediction", *map(str, labels)]


def test_a_training_that_went_on_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    first, second = blocks("python")
    exec(compile(first + second, str(DOC), "exec"), names)
    resumed = names["history"]
    monkeypatch.chdir(Path(tmp_path).joinpath("digits-run"))
    whole = names["train"](10)
    assert dict(whole) == dict(resumed)
