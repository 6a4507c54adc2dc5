"""The experiment with thirty layers: its claim, cheaply, and that docs/depth.md shows its table."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from minidl.cli import main
from minidl.lab import depth
from minidl.nn import Linear, Residual

PAGE = Path(__file__).parents[1] / "docs" / "depth.md"
TEXT = PAGE.read_text(encoding="utf-8")
REMEDIES = ["he", "xavier", "batchnorm", "residual", "relu", "tanh"]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def table_in(text: str) -> dict[str, list[str]]:
    head, _, *rows = [line for line in text.splitlines() if line.startswith("|")]
    assert cells(head) == list(depth.COLUMNS)
    return {cells(row)[0]: cells(row)[1:] for row in rows}


# --- the claim ----------------------------------------------------------------------------------


def test_the_plain_network_stays_at_chance_and_a_remedy_does_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["lab", "depth", "plain", "residual", "--epochs", "5", "--seeds", "1"]) == 0
    rows = table_in(capsys.readouterr().out)
    accuracy = {name: float(row[1].split()[0]) for name, row in rows.items()}
    assert list(rows) == ["plain", "residual"]
    assert accuracy["plain"] <= 0.2
    assert accuracy["residual"] >= 0.9
    first = {name: float(row[2]) for name, row in rows.items()}
    assert first["plain"] < 1e-10
    assert first["residual"] > 0.1


@pytest.mark.parametrize("name", ["relu", "tanh"])
def test_thirty_layers_train_by_default(name: str) -> None:
    (result,) = depth.run([name], epochs=5, seeds=1)
    assert result.accuracy[0] > 0.5
    first, last = result.before[0]
    assert first > 0.02
    assert first / last < 20


@pytest.mark.parametrize("name", depth.NETWORKS)
def test_every_network_trains_and_is_measured(name: str) -> None:
    (result,) = depth.run([name], depth=3, epochs=1, seeds=2)
    assert len(result.accuracy) == len(result.before) == len(result.after) == 2
    assert np.isfinite([*result.before, *result.after]).all()
    assert (np.array(result.before) > 0).all()
    model = depth.NETWORKS[name].build(3, 10, seed=0)
    linears = [layer for _, layer in model.layers() if isinstance(layer, Linear)]
    assert len(linears) == 4
    # Only the weights of he, xavier, critical and the defaults are others than the plain ones.
    others = name in ("he", "xavier", "critical", "relu", "tanh")
    assert all((layer.weight.data.std() > 0.08) == others for layer in linears[1:3])
    assert any(isinstance(layer, Residual) for _, layer in model.layers()) == (name == "residual")


def test_same_seeds_same_figures() -> None:
    once, again = (list(depth.run(["he"], depth=2, epochs=1, seeds=2)) for _ in range(2))
    assert once == again
    assert once[0].accuracy[0] != once[0].accuracy[1]


def test_unknown_network(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "depth", "hee"]) == 2
    assert "no network is called 'hee'; there are plain, he, " in capsys.readouterr().err


# --- the page -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["depth", "epochs", "seeds"])
def test_numbers_below_one_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"depth: {name} must be >= 1, got 0"):
        list(depth.run(["plain"], **{name: 0}))


def test_the_page_shows_the_rows_of_the_command() -> None:
    rows = table_in(TEXT)
    assert list(rows) == list(depth.NETWORKS)
    assert [row[0] for row in rows.values()] == [n.what for n in depth.NETWORKS.values()]
    for name in rows:
        assert f"**{name}" in TEXT
    median = {name: float(row[1].split()[0]) for name, row in rows.items()}
    assert median["plain"] <= 0.2
    assert all(median[name] >= 0.9 for name in REMEDIES)


def test_the_commands_of_the_page_are_understood(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    lines = "".join(blocks).splitlines()
    assert len(lines) >= 2
    for line in lines:
        program, *arguments = shlex.split(line, comments=True)
        assert program == "minidl"
        names = [word for word in arguments[2:] if word.isalpha()]
        assert set(names) <= depth.NETWORKS.keys()
        assert main([*arguments, "--help"]) == 0
        options = set(re.findall(r"--\w+", capsys.readouterr().out))
        assert set(re.findall(r"--\w+", TEXT)) <= options


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", TEXT):
        assert (PAGE.parent / target).exists()
