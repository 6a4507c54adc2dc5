"""docs/diagnosis.md tells the truth: its program, commands, kinds, rules and figures."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from minidl.cli import main
from minidl.diagnosis import judge, reach
from minidl.diagnosis.rules import closing, first_batches, running, static
from minidl.diagnosis.verdict import KINDS

DOC = Path(__file__).parents[1] / "docs" / "diagnosis.md"
TEXT = DOC.read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


def test_the_program_prints_what_its_comments_say(capsys: Any) -> None:
    (program,) = blocks("python")
    exec(compile(program, str(DOC), "exec"), {})
    printed = capsys.readouterr().out
    assert printed.startswith("Not healthy: unscaled_inputs")
    assert "\nunscaled_inputs\nunscaled_inputs\n" in printed
    assert "nn.Standardize" in printed


def test_commands_are_understood(capsys: Any) -> None:
    commands = [shlex.split(line) for block in blocks("sh") for line in block.splitlines()]
    for name, *command in commands:
        assert name == "minidl"
        assert main([*command, "--help"]) in (0, None)
        known = set(re.findall(r"--[\w-]+", capsys.readouterr().out)) | {"--cure"}
        assert {word for word in command if word.startswith("--")} <= known


def test_each_kind_is_named() -> None:
    assert {kind for kind in KINDS if f"`{kind}`" in TEXT} == KINDS.keys()


def test_files_are_there() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", TEXT)
    assert links
    assert all((DOC.parent / link).exists() for link in links)


@pytest.mark.parametrize(
    ("figure", "value"),
    [
        ("at least 0.15 on the rows held out", reach.FAR),
        ("a gain of 0.25 on the rows", reach.FAR_TRAINED),
        ("75 %", 100 * judge.CURES),
        ("20 times smaller", first_batches.USUAL_GRADIENT),
        ("3 times as large", first_batches.USUAL_WEIGHTS),
        ("60 % of the derivative", 100 * first_batches.USUAL_SATURATION),
        ("30 % of the units", 100 * first_batches.USUAL_DEAD),
        ("5 % of the targets", 100 * static.BEYOND),
        ("below 15 %", 100 * running.BY_HEART),
        ("1.5 times its least", closing.OVERFITTED),
        ("90 % of the units of a ReLU", 100 * closing.DEAD),
        ("90 % of a derivative lost", 100 * closing.SATURATED),
        ("and 70 % of the loss is left", 100 * closing.LITTLE),
        ("less than 30 % of its rows", 100 * closing.NEVER),
        ("and 90 % of the loss is left", 100 * closing.AFTER_FEW),
        ("97 % of the loss is left", 100 * closing.NEXT_TO_NOTHING),
        ("takes 20 % of the loss away", 100 * closing.FALLS),
        ("after at least 5 epochs", closing.LEAST_EPOCHS),
        ("less than 0.001 of their norm", running.STILL),
        ("off by a factor of 1000 explains", 10**judge.ABSURD),
    ],
)
def test_figures_are_those_of_the_rules(figure: str, value: float) -> None:
    assert figure in re.sub(r"\s+", " ", TEXT)
    (number,) = re.findall(r"[\d.]+", figure)
    assert float(number) == pytest.approx(value)


def test_ranges_and_factors_are_those_of_the_rules() -> None:
    low, high = first_batches.USUAL
    assert f"outside {low:g} to {high:g}" in TEXT
    assert "a third, 1/10, 1/100, 1/1000" in TEXT
    assert running.LOWER == (1 / 3, 1 / 10, 1 / 100, 1 / 1000)
    assert "10, 100, 1000 times the rate" in TEXT
    assert running.HIGHER == (10, 100, 1000)
    assert "5, 20 and, if it was very short, 100 times" in TEXT
    assert running.LONGER == (5, 20, 100)
