"""docs/recording.md tells the truth: its programs run, and its names exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import minidl
from minidl import _kernels
from minidl.recording import Step

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "recording.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


@pytest.mark.skipif(_kernels.isa == "reference", reason="the twin records nothing")
def test_programs_run_one_after_the_other() -> None:
    assert len(BLOCKS) >= 10
    threads, names = minidl.get_num_threads(), {}
    try:
        for block in BLOCKS:
            exec(compile(block, "docs/recording.md", "exec"), names)
    finally:
        minidl.set_num_threads(threads)
    assert names["later"] != names["first"]


def test_layers_are_as_short_as_they_can_be() -> None:
    (layer,) = [block for block in BLOCKS if "class LowRank" in block]
    methods = layer[layer.index("    def __init__") : layer.index("\n\n\nminidl.gradcheck")]
    assert len([line for line in methods.splitlines() if line.strip()]) <= 16


def test_names_exist() -> None:
    for name in re.findall(r"`minidl\.(\w+)", TEXT):
        assert hasattr(minidl, name), name
    for name in re.findall(r"`step\.(\w+)\(", TEXT):
        assert hasattr(Step, name), name


def test_lines_are_short() -> None:
    long = [line for line in TEXT.splitlines() if len(line) > 105 and not line.startswith("|")]
    assert not long
