"""The experiments as commands: each computes, prints, draws, and says what it does not have."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minidl import lab
from minidl.cli import main
from minidl.cli.lab import ARGUMENTS
from minidl.lab import choices, limits
from minidl.lab.quoted import Quoted, comparison

# Options that make an experiment small; with none it is small enough.
SMALL: dict[str, dict[str, Any]] = {
    "linear-unit": {"depth": 10},
    "by-hand": {},
    "chain": {"depth": 9},
    "sigmoid-table": {},
    "loan": {"epochs": 2},
    "exploding": {"steps": 10},
    "linear-draws": {"depth": 10, "draws": 50},
    "critical-line": {"activation": "relu", "depth": 4, "width": 16},
    "batchnorm": {"activation": "tanh", "depth": 13, "width": 16, "batch": 16},
    "residual": {"depth": 6, "width": 8},
    "rnn-radius": {"steps": 20, "hidden": 8},
    "gates": {"steps": 8, "hidden": 4, "epochs": 1},
    "clipping": {"steps": 20},
    "ravine": {"steps": 20},
    "curvature": {"steps": 20},
    "landscape": {"depth": 3, "epochs": 1, "points": 5},
    "resnet": {"depth": 8, "epochs": 1},
    "depth": {"depth": 2, "epochs": 1, "seeds": 1},
}
QUOTING = sorted(lab.EXPERIMENTS.keys() - {"depth", "landscape"})
found: dict[str, Any] = {}


def result(name: str) -> Any:
    """What a small run of an experiment has found, computed once."""
    if name not in found:
        found[name] = lab.module(name).compute(**SMALL[name])
    return found[name]


def test_every_experiment_is_tested_here() -> None:
    assert SMALL.keys() == lab.EXPERIMENTS.keys()
    files = {path.stem for path in Path(lab.__file__).parent.glob("*.py")}
    others = {"__init__", "choices", "drawing", "findings", "limits", "quoted"}
    assert files - others == {name.replace("-", "_") for name in lab.EXPERIMENTS}


@pytest.mark.parametrize("name", lab.EXPERIMENTS)
def test_an_experiment_prints_and_draws_itself(name: str, tmp_path: Path) -> None:
    lines = list(result(name).lines())
    assert str(result(name)) == repr(result(name)) == "\n".join(lines)
    assert len(lines) > 5
    assert max(map(len, lines)) < 150
    words = ("None", "array(") if name == "exploding" else ("nan", "None", "array(")
    assert not any(word in line for line in lines for word in words)
    figure = result(name).plot(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    for axes in figure.axes:
        assert axes.get_xlabel() or axes.get_ylabel()  # a bar of colours has one of them


@pytest.mark.parametrize("name", QUOTING)
def test_a_quoted_number_agrees_or_is_remarked_upon(name: str) -> None:
    quoted = result(name).quoted()
    assert quoted
    for row in quoted:
        assert row.agrees or row.remark, row
    text = "\n".join(comparison(quoted))
    assert text.count("\n") == len(quoted) + 1


def test_agreement_is_that_of_the_digits_that_are_written() -> None:
    assert Quoted("", "0.76", 0.7613).agrees
    assert not Quoted("", "0.76", 0.7651).agrees
    assert Quoted("", "1e-7", 1.4e-7).agrees
    assert not Quoted("", "1e-7", 9.3e-10).agrees
    assert Quoted("", "1024", 1024.4).agrees
    assert not Quoted("", "1024", 1025).agrees
    assert Quoted("", "-0.212", -0.2121).agrees


@pytest.mark.parametrize("name", lab.EXPERIMENTS)
def test_an_experiment_has_an_option_for_every_argument(name: str) -> None:
    for parameter in inspect.signature(lab.module(name).compute).parameters.values():
        parse, _ = ARGUMENTS[parameter.name]
        assert parse(str(parameter.default)) == parameter.default


@pytest.mark.parametrize("name", lab.EXPERIMENTS)
def test_every_size_has_a_limit(name: str) -> None:
    """What would take hours, or all memory, is refused before any work."""
    compute = lab.module(name).compute
    for parameter in inspect.signature(compute).parameters.keys() & limits.MOST.keys():
        with pytest.raises(ValueError, match=f"{name}: {parameter} must be <= [0-9,]+, got 1,000"):
            compute(**{parameter: 10**12 + 1})


def calls(function: Callable[[], Any]) -> int:
    """How many functions are called, one inside the other, while this one runs."""
    count = 0

    def count_one(*_: Any) -> None:
        nonlocal count
        count += 1

    sys.setprofile(count_one)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("name", ["linear-unit", "chain", "sigmoid-table", "residual"])
def test_the_work_grows_with_the_depth_and_no_faster(name: str) -> None:
    compute = lab.module(name).compute
    compute(depth=10)  # what is done once in a process is not counted
    small, large = (calls(lambda: compute(depth=depth)) for depth in (100, 200))  # noqa: B023
    assert large < 2.3 * small


@pytest.mark.parametrize("name", ["loan", "exploding", "linear-draws", "gates", "residual"])
def test_same_seed_same_numbers(name: str) -> None:
    compute = lab.module(name).compute
    lines = list(result(name).lines())
    assert list(compute(**SMALL[name]).lines()) == lines
    assert list(compute(**SMALL[name], seed=1).lines()) != lines


@pytest.mark.parametrize("name", choices.ACTIVATIONS)
def test_activations_by_name(name: str) -> None:
    layer = choices.activation(name)
    assert list(lab.module("sigmoid-table").compute(activation=name, depth=3).lines())
    assert type(layer).__name__.lower() == {"linear": "identity"}.get(name, name)


@pytest.mark.parametrize("name", choices.OPTIMIZERS)
def test_optimizers_by_name(name: str) -> None:
    trained = lab.module("loan").compute(optimizer=name, epochs=5).trainings
    losses = trained["standardised"].losses
    assert losses[-1] < losses[0] - 0.1
    assert lab.module("ravine").compute(optimizer=name, steps=5).paths.keys() == {name}


# --- the command line -------------------------------------------------------------------------


def test_lab_alone_lists_the_experiments(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab"]) == 0
    text = capsys.readouterr().out
    for name, what in lab.EXPERIMENTS.items():
        assert any(f"lab {name} " in line and what in line for line in text.splitlines())


def test_an_experiment_by_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "table.svg"
    assert main(["lab", "sigmoid-table", "--depth", "3", "--plot", str(path)]) == 0
    text = capsys.readouterr().out
    assert "0.0000001     9.31323e-10" in text
    assert text.endswith(f"plot written to {path}\n")
    assert path.read_text("utf-8").startswith("<?xml")


def test_the_table_of_depth_and_its_picture(tmp_path: Path) -> None:
    path = tmp_path / "depth.png"
    small = "--depth", "2", "--epochs", "1", "--seeds", "1"
    assert main(["lab", "depth", "plain", "he", *small, "--plot", str(path)]) == 0
    assert path.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["chain", "--optimizer", "adam"], "chain has no --optimizer; it has --plot, --depth"),
        (["by-hand", "--seed", "1"], "by-hand has no --seed; it has --plot"),
        (["ravine", "--optimizer", "newton"], "no optimizer 'newton'; there are all, sgd"),
        (["loan", "--optimizer", "newton"], "no optimizer is called 'newton'; there are sgd"),
        (["residual", "--activation", "step"], "no activation is called 'step'; there are linear"),
        (["chain", "--depth", "1"], "chain: depth must be >= 2, got 1"),
        (["chain", "--depth", "2001"], "chain: depth must be <= 2,000, got 2,001"),
        (["loan", "--epochs", "9" * 20], "loan: epochs must be <= 10,000, got 99,999,"),
        (["gates", "--steps", "1001"], "gates: steps must be <= 1,000, got 1,001"),
        (["depth", "--depth", "201"], "depth: depth must be <= 200, got 201"),
        (["residual", "--width", "4096"], "depth · width² must be <= 100,000,000, got 3,355,443,2"),
        (["linear-draws", "--scale", "1e9"], "scale^depth must lie within 1e-250 and 1e250, got 1"),
        (["rnn-radius", "--radius", "1e-9"], "radius^steps must lie within 1e-250 and 1e250, got"),
        (["ravine", "--condition", "1e13"], "condition must be > 1 and <= 1e+12, got 1e+13"),
        (["batchnorm", "--width", "2"], "batchnorm: width must be >= 8, got 2"),
        (["chain", "--depth", "none"], "expected a whole number >= 1, got 'none'"),
        (["gates", "--steps", "2"], "gates: steps must be >= 3, got 2"),
        (["ravine", "--condition", "1"], "expected a number > 1, got '1'"),
        (["landscape", "--points", "4"], "points must be odd, got 4"),
        (["chain", "--plot", "chain.txt"], "cannot draw chain.txt: the name must end in"),
        (["--all", "--out", __file__], "test_lab.py: that is a file, and a folder is needed"),
        (["nothing"], "invalid choice: 'nothing'"),
        (["--all"], "lab --all needs --out DIR"),
        (["--out", "folder"], "is for the figures of --all"),
        (["--all", "--out", "folder", "chain"], "leave out --all and --out, or the name"),
    ],
)
def test_what_an_experiment_does_not_have(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if arguments[:1] == ["landscape"]:
        arguments = [*arguments, "--epochs", "1", "--depth", "2"]
    assert main(["lab", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_all_figures(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    some = {name: lab.EXPERIMENTS[name] for name in ("linear-unit", "by-hand")}
    monkeypatch.setattr(lab, "EXPERIMENTS", some)
    assert main(["lab", "--all", "--out", str(tmp_path / "new" / "figures")]) == 0
    names = {path.name for path in (tmp_path / "new" / "figures").iterdir()}
    assert names == {"linear-unit.png", "by-hand.png"}
    assert capsys.readouterr().out.count(".png: ") == 2


def test_matplotlib_is_asked_for_by_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    assert main(["lab", "by-hand", "--plot", "figure.png"]) == 2
    assert "a plot needs matplotlib: pip install 'minidl[plot]'" in capsys.readouterr().err
    assert main(["lab", "by-hand"]) == 0
