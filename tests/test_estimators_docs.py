"""docs/estimators.md tells the truth: its programs run, and are short; what it lists is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sklearn")

from test_sklearn_suite import REASONS

from minidl import datasets
from minidl.sklearn import MLPClassifier, MLPRegressor

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "estimators.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
WORDS = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_programs_run_one_after_the_other() -> None:
    names: dict[str, Any] = {}
    for block in BLOCKS:
        exec(compile(block, "docs/estimators.md", "exec"), names)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_search_of_the_readme(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    (block,) = [block for block in blocks if "GridSearchCV" in block]
    assert len(block.splitlines()) < 10
    exec(block, {"data": datasets.digits()})
    assert float(capsys.readouterr().out.split()[-1]) > 0.93


@pytest.mark.parametrize("block", BLOCKS)
def test_programs_have_under_ten_lines(block: str) -> None:
    assert len([line for line in block.splitlines() if line]) < 10


def test_parameters_of_the_table_are_parameters() -> None:
    table = TEXT.partition("| parameter | |")[2].partition("### ")[0]
    names = [
        name
        for row in re.findall(r"^\| (.*?) \|", table, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", row)
    ]
    assert len(names) > 10
    known = {*MLPClassifier().get_params(), *MLPRegressor().get_params()}
    assert set(names) <= known


def test_it_says_how_many_tests_of_scikit_learn_cannot_pass() -> None:
    assert f"but for {WORDS[len(REASONS)]} that" in TEXT.replace("\n", " ")
