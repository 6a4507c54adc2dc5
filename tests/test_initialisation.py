"""docs/initialisation.md and benchmarks/defaults.py: the table, and how it is measured."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from minidl import nn

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = ROOT / "benchmarks" / "defaults.py"
TEXT = (ROOT / "docs" / "initialisation.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def defaults() -> ModuleType:
    """benchmarks/defaults.py, which is not part of the package."""
    spec = importlib.util.spec_from_file_location("defaults", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def lines() -> dict[str, list[str]]:
    """The cells of the page's table by data set."""
    table = [line.strip("|").split("|") for line in TEXT.splitlines() if " ± " in line]
    return {name.strip(): [cell.strip() for cell in cells] for name, *cells in table}


def test_the_table_shows_no_set_where_the_default_is_worse() -> None:
    assert len(lines()) >= 10  # nine sets and their mean
    for name, cells in lines().items():
        for cell, sign in ((cells[3], 1), (cells[6], -1)):  # scores are good, losses bad
            mean, error = map(float, cell.split(" ± "))
            assert sign * mean > -3 * error, name
    assert float(lines()["mean"][3].split()[0]) >= 0


def test_the_command_of_the_page_is_understood() -> None:
    (block,) = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    for option in re.findall(r"--\w+", block):
        assert option in PROGRAM.read_text(encoding="utf-8")


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", TEXT):
        assert (ROOT / "docs" / target).exists()


def test_without_scikit_learn_the_program_says_so() -> None:
    block = "import sys, runpy; sys.modules['sklearn'] = None; runpy.run_path(sys.argv[1], "
    command = [sys.executable, "-c", block + "run_name='__main__')", str(PROGRAM)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip().endswith("pip install scikit-learn")


@pytest.mark.parametrize("classes", [0, 3])
def test_pairs_differ_in_nothing_but_how_they_are_drawn(
    defaults: ModuleType, monkeypatch: pytest.MonkeyPatch, classes: int
) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, (100, 4))
    table = defaults.Table(x, rng.integers(3, size=100) if classes else x.sum(axis=1))
    assert table.classes == classes
    (train, _), *others = parts = table.split(0)
    assert [len(part[0]) for part in parts] == [60, 15, 25]
    np.testing.assert_allclose([train.mean(), train.std()], [0, 1], atol=1e-6)
    every = np.concatenate([train, *(x for x, _ in others)])
    assert len(np.unique(every, axis=0)) == 100
    monkeypatch.setattr(defaults, "EPOCHS", 3)
    monkeypatch.setattr(defaults, "INITS", {"a": {}, "b": {}})
    same = defaults.measured(table, 2, (1, 2))
    assert same.shape == (2, 2, 2, 2, 2)
    assert np.array_equal(same[0], same[1])
    assert not np.array_equal(same[0, 0], same[0, 1])


def test_differences_and_their_errors(defaults: ModuleType) -> None:
    values = np.zeros((2, 4, 1, 1, 2))
    values[1, :, 0, 0, 0] = [1, 2, 3, 6]
    assert defaults.differences(values)[0] == pytest.approx((3, np.std([1, 2, 3, 6], ddof=1) / 2))
    assert defaults.differences(values)[1] == (0, 0)
    assert defaults.overall([values, values])[4] == "+3.0000 ± 0.7638"
    assert list(defaults.by_depth({"x": values}, [1])) == [["1", "+3.0000"]]


def test_the_peer_is_drawn_from_its_default(defaults: ModuleType) -> None:
    model = defaults.network(100, 2, 2, nn.Tanh, defaults.INITS["PyTorch"], 0)
    for layer in (model[0], model[2], model[4]):
        for parameter in (layer.weight, layer.bias):
            limit = layer.in_features**-0.5
            assert 0.3 * limit < np.abs(parameter.data).max() <= limit
