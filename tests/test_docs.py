"""docs/kernels.md tells the truth: code, names, commands and figures; and its steps are right."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import sys
import sysconfig
import textwrap
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from minidl import _kernels
from minidl.cli import main as cli

ROOT = Path(__file__).parents[1]
DOC = ROOT / "docs" / "kernels.md"
STEPS = ROOT / "benchmarks" / "matmul_steps.pyx"
TEXT = DOC.read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


def links(text: str) -> list[tuple[str, Path]]:
    found = re.findall(r"\[`?([^]`]+)`?\]\((?!http)([^)#]+)\)", text)
    return [(label, (DOC.parent / target).resolve()) for label, target in found]


@pytest.fixture(scope="module")
def program() -> ModuleType:
    """benchmarks/matmul_steps.py, which is not part of the package."""
    spec = importlib.util.spec_from_file_location("matmul_steps", STEPS.with_suffix(".py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def rows(text: str) -> list[list[str]]:
    """The cells of all tables."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


# --- the page -------------------------------------------------------------------------------


def test_code_is_that_of_the_steps() -> None:
    source = STEPS.read_text(encoding="utf-8")
    assert len(blocks("cython")) >= 7
    for block in blocks("cython"):
        shifted = [textwrap.indent(block, " " * (4 * depth)) for depth in range(8)]
        assert any(f"\n{text}" in source for text in shifted), block


def test_python_is_that_of_the_program() -> None:
    source = STEPS.with_suffix(".py").read_text(encoding="utf-8")
    assert blocks("python")
    assert all(block in source for block in blocks("python"))


def test_commands_are_understood(program: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    commands = [shlex.split(line) for block in blocks("sh") for line in block.splitlines()]
    assert len(commands) >= 3
    for command in commands:
        if command[0] == "minidl":
            assert cli([*command[1:], "--help"]) in (0, None)
            assert set(re.findall(r"--\w+", " ".join(command))) <= set(
                re.findall(r"--\w+", capsys.readouterr().out)
            )
        else:
            assert command[:2] == ["python", "benchmarks/matmul_steps.py"]
            assert program.options_of(command[2:]).sizes
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"`make (\w+)`", TEXT)) <= set(targets)


def test_links_lead_somewhere() -> None:
    assert len(links(TEXT)) >= 8
    for label, path in links(TEXT):
        assert path.exists(), path
        assert label == path.name


def test_names_live_in_the_files_that_the_page_says() -> None:
    claims = [(row[1], row[2]) for row in rows(TEXT) if len(row) == 3 and "](" in row[1]]
    assert len(claims) >= 7
    for file, names in claims:
        ((_, path),) = links(file)
        source = path.read_text(encoding="utf-8")
        for name in re.findall(r"`(\w+)`", names):
            assert re.search(rf"\b{name}\b", source), f"{name} is not in {path.name}"


def test_every_name_is_one_of_the_sources() -> None:
    known = STEPS.read_text(encoding="utf-8") + STEPS.with_suffix(".py").read_text(encoding="utf-8")
    known += "".join(path.read_text(encoding="utf-8") for path in {p for _, p in links(TEXT)})
    names = set(re.findall(r"`([A-Za-z]\w*_\w*|[A-Z]{2,})`", TEXT))
    assert len(names) >= 8
    assert all(re.search(rf"\b{name}\b", known) for name in names), names


def test_figures_beside_the_steps_are_those_of_the_table(program: ModuleType) -> None:
    head, *_ = [row for row in rows(TEXT) if row[0] == "step"]
    table = {row[0]: row[1:] for row in rows(TEXT)}
    # Each step has its row in the table, and a line of its own that repeats the speeds.
    for label in program.LABELS.values():
        speeds = [cell.split(" ")[0] for cell in table[label]]
        said = zip(head[1:], speeds, strict=True)
        line = "; ".join(f"{size}: **{speed}**" for size, speed in said if speed)
        assert f"Measured: {line} GFLOP/s" in TEXT, label


# --- the steps ------------------------------------------------------------------------------


def test_steps_are_right_at_any_shape(program: ModuleType, tmp_path: Path) -> None:
    if _kernels.isa == "reference":
        pytest.skip("no compiled kernels, so no compiler flags to compile the steps with")
    pytest.importorskip("Cython")
    pytest.importorskip("setuptools")
    compiler = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    if shutil.which(shlex.split(compiler)[0]) is None:
        pytest.skip(f"no compiler: {compiler}")
    rng = np.random.default_rng(0)
    shapes = [tuple(map(int, rng.integers(1, 160, 3))) for _ in range(12)]
    steps = program.compile_steps(_kernels.isa, np.float32, tmp_path)
    program.check(steps, np.float32, [*program.SHAPES, *shapes])
    if _kernels.isa == "avx512":  # of which the page tells the sizes
        blocks_shown = {row[1] for row in rows(TEXT) if len(row) == 5}
        for pair in (("MR", "NR"), ("KC", "NR"), ("MC", "KC"), ("KC", "NC")):
            assert " × ".join(str(steps.SIZES[name]) for name in pair) in blocks_shown
    # A check that cannot fail shows nothing.
    product = program.Product(steps, np.float32, 9, 8, 7)
    product.run = lambda name, repeats=1: product.out.fill(0)
    assert product.error("edges") > 1


def test_table_says_what_was_measured(program: ModuleType) -> None:
    speeds = {"FMA": 100e9, "numpy": 60e9, "plain_loops": 2e9, "loop_order": 10e9}
    text = program.table({64: speeds}, markdown=True)
    assert text[0] == "| step | 64³ |"
    assert "| 2 plain loops | 2.0 (2%) |" in text
    assert "| 3 loop order | 10 (10%) ×5.0 |" in text
