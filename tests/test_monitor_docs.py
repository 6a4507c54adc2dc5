"""docs/monitor.md tells the truth: its programs run, and its tables are complete."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from minidl.diagnosis.records import QUANTITIES

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "monitor.md").read_text(encoding="utf-8")
NUMBER = r"\d[\d.]*\d(?:e-\d+)?|\d"
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


def test_programs_run_one_after_the_other(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in BLOCKS:
        exec(compile(block, "docs/monitor.md", "exec"), names)
    printed = capsys.readouterr().out.strip().splitlines()[-2:]
    said = re.findall(r"^(?:From the last layer|A step changes).*$", TEXT, re.MULTILINE)
    for line, expected in zip(printed, said, strict=True):
        assert re.sub(NUMBER, "#", line) == re.sub(NUMBER, "#", expected)
        for number, told in zip(
            *(re.findall(NUMBER, text) for text in (line, expected)), strict=True
        ):
            assert abs(float(number) - float(told)) <= 0.1 * float(told)
    assert (tmp_path / "gradients.png").exists()


def test_every_quantity_is_in_the_table() -> None:
    table = " ".join(line.split("|")[1] for line in TEXT.splitlines() if line.startswith("| `"))
    assert re.findall(r"`(\w+)`", table) == [
        "gradient", "gradient_ratio", "weight_gradient", "weight", "update", "update_ratio",
        "mean", "deviation", "zeros", "saturation", "dead",
    ]  # fmt: skip
    assert set(re.findall(r"`(\w+)`", table)) == QUANTITIES.keys()
