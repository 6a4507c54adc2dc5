"""``benchmarks/diagnosis.py``: what counts as right and as cured, and what the tables say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from minidl import nn
from minidl.diagnosis.program import Program
from minidl.diagnosis.verdict import KINDS

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules of the benchmarks can be imported, and leave the environment as it is."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MINIDL_NUM_THREADS"):
        monkeypatch.setenv(name, os.environ.get(name, "1"))


@pytest.fixture
def case() -> ModuleType:
    """The module with cases and figures."""
    return pytest.importorskip("trainings.case")


@pytest.fixture
def report() -> ModuleType:
    """The module that prints."""
    return pytest.importorskip("trainings.report")


@pytest.fixture
def measure() -> ModuleType:
    """The module that measures."""
    return pytest.importorskip("trainings.measure")


# --- figures ----------------------------------------------------------------------------------


def test_threshold_is_that_of_what_the_output_means(case: ModuleType) -> None:
    y = np.array([[0.0], [1.0], [1.0]])
    output = np.array([[0.25], [0.25], [0.75]])
    assert case.accuracy(output, y, nn.MSELoss()) == pytest.approx(2 / 3)
    assert case.accuracy(output, y, nn.BCEWithLogitsLoss()) == pytest.approx(2 / 3)
    assert case.accuracy(output - 0.3, y, nn.BCEWithLogitsLoss()) == pytest.approx(2 / 3)
    assert case.accuracy(output - 0.3, y, nn.MSELoss()) == pytest.approx(1 / 3)


def test_labels_and_one_hot_rows_are_the_largest_output(case: ModuleType) -> None:
    output = np.array([[3.0, 1.0], [2.0, 5.0], [4.0, 0.0]])
    labels = np.array([0, 1, 1])
    assert case.accuracy(output, labels, nn.CrossEntropyLoss()) == pytest.approx(2 / 3)
    assert case.accuracy(output, np.eye(2)[labels], nn.MSELoss()) == pytest.approx(2 / 3)
    assert case.balanced(output, labels, nn.CrossEntropyLoss()) == pytest.approx(3 / 4)


def test_bits_are_counted_one_by_one(case: ModuleType) -> None:
    y = np.array([[0.0, 1.0], [1.0, 1.0]])
    assert case.bits(np.array([[0.1, 0.9], [0.2, 0.6]]), y, nn.MSELoss()) == 0.75


def test_error_is_relative_to_the_mean_and_at_most_one(case: ModuleType) -> None:
    y = np.array([[0.0], [2.0], [4.0]])
    loss = nn.MSELoss()
    assert case.error(y, y, loss) == 0
    assert case.error(np.full((3, 1), 2.0), y, loss) == 1
    assert case.error(100 * y, y, loss) == case.error(np.nan * y, y, loss) == 1
    assert case.error(y + 1, y, loss) == pytest.approx(3 / 8)


@pytest.mark.parametrize(
    ("before", "after", "best", "expected"),
    [(0.5, 1.0, 1.0, 1.0), (1.0, 0.25, 0.0, 0.75), (0.5, 0.5, 1.0, 0.0), (1.0, 1.0, 1.0, 1.0)],
)
def test_gap_closed(
    case: ModuleType, before: float, after: float, best: float, expected: float
) -> None:
    any_case = case.Case("", "", None, frozenset(), None)
    assert any_case.gap_closed(before, after, best) == pytest.approx(expected)


# --- measuring --------------------------------------------------------------------------------


def test_first_verdict_and_predictions_decide(
    case: ModuleType, measure: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(seed: int, lr: float = 1e-6) -> Program:
        from minidl import optim

        x = np.linspace(-1, 1, 40)[:, None]
        model = nn.Sequential(nn.Linear(1, 1), rng=seed)
        sgd = optim.SGD(model.parameters(), lr=lr)
        return Program(model, nn.MSELoss(), sgd, x, 3 * x, 20, 8, rng=seed)

    known = case.Case(
        "line", "", make, frozenset({"learning_rate_too_low"}), case.error, {"lr": 0.3}
    )

    def diagnosed(kinds: list[str], lr: float) -> Any:
        trainer = make(0, lr=lr).train()
        return SimpleNamespace(
            verdicts=[SimpleNamespace(kind=kind) for kind in kinds],
            cure=lambda: SimpleNamespace(trainer=trainer, change="the rate"),
        )

    for kinds, lr, right, cured in (
        (["learning_rate_too_low", "overfitting"], 0.3, True, True),
        (["overfitting", "learning_rate_too_low"], 0.01, False, False),
        ([], 0.3, False, True),
    ):
        monkeypatch.setattr(measure, "diagnose", lambda _, k=kinds, r=lr: diagnosed(k, r))
        result = measure.measure_case(known, 0)
        assert (result.kinds, result.right, result.cured) == (kinds, right, cured)
        assert result.best < 0.01 < result.before
    named = measure.measure_case(case.Case("line", "", make, known.right, case.error), 0)
    assert named.cured is None


# --- tables -----------------------------------------------------------------------------------


def results(measure: ModuleType) -> list[Any]:
    made = measure.Result
    return [
        made("a", 0, ["not_learning"], True, 0.5, 1.0, 1.0, 1.0, plain=0.1, diagnosis=0.5),
        made("a", 1, ["overfitting"], False, 0.5, 0.7, 1.0, 0.4, plain=0.1, diagnosis=1.5),
        made("b", 0, [], False, 0.25, plain=2.0, diagnosis=6.5),
    ]


def test_table_and_summary(measure: ModuleType, report: ModuleType) -> None:
    found = results(measure)
    head, rule, first, second = report.table(found)
    assert head.count("|") == rule.count("|") == first.count("|") == second.count("|")
    assert first == (
        "| a | not_learning, overfitting | 1/2 | 0.500 0.500 | 1.000 0.700 | 1.000 1.000 | "
        "100 % 40 % | 0.10 | 1.00 late |"
    )
    assert second.startswith("| b | none | 0/1 | 0.250 |")
    assert list(report.summary(found)) == [
        "first verdict right: 1 of 3 (33 %)",
        "cured: 1 of 2 (50 %)",
        "within three plain trainings + 1 s: 2 of 3 (67 %)",
    ]


def test_what_is_said_of_healthy_trainings_stands_in_the_table(
    measure: ModuleType, report: ModuleType
) -> None:
    *_, a, b = report.alarms(results(measure))
    assert a.endswith("| not_learning; overfitting |")
    assert a.startswith("| a | 1/2 |")
    assert b.startswith("| b | 0/1 |")


# --- the programs -----------------------------------------------------------------------------


def test_every_program_has_a_name_of_its_own_and_kinds_that_exist() -> None:
    pytest.importorskip("sklearn")
    own, questions, mutants = (
        pytest.importorskip(f"trainings.{name}") for name in ("own", "questions", "mutants")
    )
    kinds = pytest.importorskip("trainings.kinds")
    known = questions.CASES + mutants.CASES
    assert len(known) == 21
    assert len(own.CASES) >= 20
    assert len({case.name for case in known + own.CASES}) == len(known + own.CASES)
    assert set().union(*(case.right for case in known + own.CASES)) == KINDS.keys()
    assert kinds.BUILT.keys() == KINDS.keys()
    for case in kinds.cases():
        assert (case.cure is None) == (case.name in kinds.NAMED_ONLY)
        case.faulty(0)
        case.cured(0)


def test_programs_of_a_seed_are_the_same_and_of_two_seeds_are_not() -> None:
    pytest.importorskip("sklearn")
    for group in ("own", "questions", "mutants"):
        for case in pytest.importorskip(f"trainings.{group}").CASES:
            first, again, other = (
                np.concatenate([p.data.ravel() for p in case.faulty(seed).model.parameters()])
                for seed in (0, 0, 1)
            )
            assert np.array_equal(first, again), case.name
            constant = len(np.unique(first)) <= 2 and "weights" in case.name
            assert constant or not np.array_equal(first, other), case.name


def test_healthy_trainings_are_of_twenty_kinds() -> None:
    pytest.importorskip("sklearn")
    healthy = pytest.importorskip("trainings.healthy")
    programs = list(healthy.programs())
    assert len({program.name for program in programs}) == len(programs) >= 20
    losses = {type(program.program(0).loss) for program in programs}
    optimizers = {type(program.program(0).optimizer) for program in programs}
    assert len(losses) >= 4
    assert len(optimizers) >= 5


def test_command_says_how_it_is_called() -> None:
    pytest.importorskip("sklearn")
    done = subprocess.run(
        [sys.executable, "benchmarks/diagnosis.py", "--help"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    for option in ("--cases", "--healthy", "--kinds", "--seeds", "--jobs", "--out", "--no-cure"):
        assert option in done.stdout
