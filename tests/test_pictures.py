"""Pictures: what stands on their axes, in their legends, and beside their points."""

from __future__ import annotations

import itertools
import math
import pickle
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minidl.cli import main
from minidl.profiling import Ceilings, Result, cases
from minidl.training import History

figures = pytest.importorskip("matplotlib.figure")
pictures = pytest.importorskip("minidl.pictures")
DIGITS = ["train", "digits", "--quiet", "--epochs", "1"]
DEEP = ",".join(["16"] * 8)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """All figures that are saved."""
    found: list[Any] = []
    save = figures.Figure.savefig

    def savefig(self: Any, *arguments: Any, **options: Any) -> None:
        save(self, *arguments, **options)
        found.append(self)

    monkeypatch.setattr(figures.Figure, "savefig", savefig)
    return found


def numbers(axis: Any) -> list[tuple[float, str]]:
    """The ticks in sight that have a label, and these."""
    low, high = axis.get_view_interval()
    ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
    return [
        (tick.get_loc(), tick.label1.get_text())
        for tick in ticks
        if tick.label1.get_text() and low <= tick.get_loc() <= high
    ]


def horizontal_lines(axes: Any) -> list[float]:
    lines = [np.asarray(line.get_ydata()) for line in axes.get_lines()]
    return [
        float(y[0])
        for line, y in zip(axes.get_lines(), lines, strict=True)
        if len(y) == 2 and y[0] == y[1] and list(line.get_xdata()) == [0, 1]
    ]


# --- logarithmic axes -------------------------------------------------------------------

RANGES = [
    (0.12, 0.126),
    (1e-9, 1),
    (3e-30, 2e3),
    (0.3, 40),
    (1, 9),
    (2.3026, 2.31),
    (5, 5),
    (1e-45, 1e-40),
]


@pytest.mark.parametrize(("low", "high"), [*RANGES, (1e-240, 1e240)])
@pytest.mark.parametrize("zero", [False, True])
def test_a_log_axis_has_numbers_whatever_its_range(low: float, high: float, zero: bool) -> None:
    axes = pictures.new_figure((4, 4)).subplots()
    values = [low, high, math.nan, math.inf, *[0.0] * zero]
    place = pictures.log_axis(axes.yaxis, values)
    axes.plot([place(value) for value in values])
    axes.figure.draw_without_rendering()
    found = numbers(axes.yaxis)
    assert 2 + zero <= len(found) <= 13
    assert len({label for _, label in found}) == len(found)
    bottom, top = axes.get_ylim()
    assert bottom <= low <= high <= top
    assert (found[0][1] == "0") == zero
    assert not zero or bottom <= found[0][0] == place(0.0) < low


@pytest.mark.parametrize(("low", "high"), [(0.12, 0.126), (2.3026, 2.31), (1, 1), (0.99, 9.5)])
def test_numbers_above_a_zero_are_not_written_over_each_other(low: float, high: float) -> None:
    axes = pictures.new_figure((4, 4)).subplots()
    place = pictures.log_axis(axes.yaxis, [0.0, low, high])
    axes.plot([place(value) for value in (0.0, low, high)])
    axes.figure.draw_without_rendering()
    ticks = [tick for tick in axes.yaxis.get_major_ticks() if tick.label1.get_text()]
    boxes = [tick.label1.get_window_extent() for tick in ticks]
    assert len(boxes) >= 3
    assert all(above.y0 > below.y1 for below, above in itertools.pairwise(boxes))


def test_numbers_on_a_log_axis_are_round() -> None:
    assert pictures.log_ticks(-9, 0) == [1e-8, 1e-6, 1e-4, 1e-2, 1]
    assert pictures.log_ticks(-1, 1) == [0.1, 0.2, 0.5, 1, 2, 5, 10]
    assert pictures.log_ticks(math.log10(2.26), math.log10(2.36)) == pytest.approx(
        [2.26, 2.28, 2.3, 2.32, 2.34, 2.36]
    )


def test_where_nothing_is_above_zero_the_axis_is_linear() -> None:
    axes = pictures.new_figure((4, 4)).subplots()
    place = pictures.log_axis(axes.yaxis, [0.0, math.nan])
    assert (axes.get_yscale(), place(0.0)) == ("linear", 0.0)


# --- minidl train --plot ----------------------------------------------------------------


def test_vanishing_gradients_are_drawn_with_numbers(drawn: list[Any], tmp_path: Path) -> None:
    net = ["--hidden", ",".join(["16"] * 12), "--activation", "sigmoid", "--init", "normal:0.05"]
    assert main([*DIGITS, *net, "--plot", str(tmp_path / "a.png")]) == 0
    *_, gradient = drawn[0].axes
    low, high = gradient.get_ylim()
    assert math.log10(high / low) > 9
    assert len(numbers(gradient.yaxis)) >= 4


def test_training_begins_at_epoch_0_beside_chance(drawn: list[Any], tmp_path: Path) -> None:
    assert main([*DIGITS, "--epochs", "2", "--plot", str(tmp_path / "a.png")]) == 0
    loss, accuracy, gradient = drawn[0].axes
    assert horizontal_lines(loss) == [math.log(10)]
    assert horizontal_lines(accuracy) == [0.1]
    for axes in (loss, accuracy, gradient):
        curves = [line for line in axes.get_lines() if len(line.get_xdata()) > 2]
        assert all(list(line.get_xdata()) == [0, 1, 2] for line in curves)
        assert len(curves) >= 2
        assert [number for number, _ in numbers(axes.xaxis)] == [0, 1, 2]
    assert accuracy.get_ylim()[0] <= 0 < 1 <= accuracy.get_ylim()[1]
    assert loss.get_ylim()[0] <= math.log(10) / 2  # noise around chance looks like noise


def test_batch_norm_does_not_vanish_before_training(drawn: list[Any], tmp_path: Path) -> None:
    net = ["--hidden", DEEP, "--activation", "sigmoid", "--init", "normal:0.05", "--norm"]
    assert main([*DIGITS, *net, "--plot", str(tmp_path / "a.png")]) == 0
    first = min(float(line.get_ydata()[0]) for line in drawn[0].axes[2].get_lines())
    assert first > 1e-3


@pytest.mark.parametrize(("depth", "rows"), [(2, 5), (8, 10), (60, 10)])
def test_the_legend_names_ten_layers_at_most(
    drawn: list[Any], tmp_path: Path, depth: int, rows: int
) -> None:
    net = ["--norm", "--hidden", ",".join(["8"] * depth)]
    assert main([*DIGITS, *net, "--plot", str(tmp_path / "a.png")]) == 0
    legend = drawn[0].axes[2].get_legend()
    names = [text.get_text() for text in legend.get_texts()]
    assert len(names) == len(set(names)) == rows
    assert names[0].startswith("0 Linear(64, 8")
    assert names[-1] == f"{3 * depth} Linear(8, 10)"
    title = "layer" if depth == 2 else f"10 of {2 * depth + 1} layers"
    assert legend.get_title().get_text() == title
    styles = {line.get_linestyle() for line in drawn[0].axes[2].get_lines()}
    assert styles == {"-", "--"}  # of Linear, of BatchNorm
    drawn[0].draw_without_rendering()
    below = legend.get_window_extent().y0
    assert below >= 0


def test_long_names_in_the_legend_lose_their_options(drawn: list[Any], tmp_path: Path) -> None:
    assert (
        main(
            [
                *DIGITS[:2],
                "--model",
                "resnet",
                "--epochs",
                "1",
                "--quiet",
                "--plot",
                str(tmp_path / "a.png"),
            ]
        )
        == 0
    )
    legend = drawn[0].subfigs[0].axes[2].get_legend()
    names = [text.get_text() for text in legend.get_texts()]
    assert names[0] == "0 Conv2d(1, 16, 3, …)"
    assert "5.shortcut.0 Conv2d(16, 32, 1, …)" in names
    assert names[-1] == "10 Linear(64, 10)"


def test_pictures_of_cells_share_their_scales(drawn: list[Any], tmp_path: Path) -> None:
    for cell in ("rnn", "lstm", "gru"):
        adding = ["train", "adding", "--steps", "20", "--samples", "200", "--epochs", "1"]
        assert main([*adding, "--cell", cell, "--quiet", "--plot", str(tmp_path / "a.png")]) == 0
    limits = {tuple(axes.get_ylim() for axes in figure.axes) for figure in drawn}
    assert len(limits) == 1
    error = drawn[0].axes[0]
    assert horizontal_lines(error) == [1 / 6]
    assert error.get_yscale() == "log"


def test_bits_per_character_are_drawn_beside_chance(drawn: list[Any], tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("abcd" * 2000, encoding="utf-8")
    text = ["train", "text", "--file", str(file), "--epochs", "1", "--hidden", "8", "--steps", "8"]
    text += ["--batch-size", "4", "--quiet"]
    assert main([*text, "--plot", str(tmp_path / "a.png")]) == 0
    bits = drawn[0].axes[0]
    assert horizontal_lines(bits) == [2]
    untrained = [float(line.get_ydata()[0]) for line in bits.get_lines()[1:]]
    assert untrained == pytest.approx([2, 2], abs=0.5)


HOSTILE = [0.0, math.nan, math.inf, 5e-324, 1e300, 1.0]


@pytest.mark.parametrize("epochs", [1, 2, 500])
@pytest.mark.parametrize("layers", [1, 200])
@pytest.mark.filterwarnings("error")
def test_hostile_values_and_names_can_be_drawn(tmp_path: Path, epochs: int, layers: int) -> None:
    from minidl.cli import plot

    history = History()
    names = ("loss", "accuracy", "val_loss", "val_accuracy")
    for epoch in range(epochs):
        history.append(dict.fromkeys(names, HOSTILE[(epoch + 1) % 6]), 1.0)
    before = dict.fromkeys(names, math.nan)
    gradients = {
        f"{index} {'Long' * 30}({index})": [HOSTILE[(index + e) % 6] for e in range(epochs + 1)]
        for index in range(layers)
    }
    file, title = tmp_path / "a.png", "$a_b$ \\frac 数字 " * 30
    plot.draw(file, history, before, gradients, 1, title)
    assert file.read_bytes().startswith(b"\x89PNG")
    history.plot(file)


# --- history ----------------------------------------------------------------------------


def test_a_notebook_shows_the_picture_by_itself() -> None:
    history = History()
    history.append({"loss": 0.5, "$odd_{name": 1.0}, 1.0)
    figure = history.plot()
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert pickle.loads(pickle.dumps(figure))._repr_png_().startswith(b"\x89PNG")


def test_values_that_are_not_finite_are_counted_in_the_legend() -> None:
    history = History()
    for value in (1.0, math.nan, math.inf):
        history.append({"loss": value, "val_loss": 1.0}, 1.0)
    figure = history.plot()
    figure.draw_without_rendering()
    (axes,) = figure.axes
    words = [text.get_text() for text in axes.get_legend().get_texts()]
    assert words == ["training (2 of 3 not finite)", "validation"]
    assert [number for number, _ in numbers(axes.xaxis)] == [1, 2, 3]


# --- the roofline -----------------------------------------------------------------------


def roofline(tmp_path: Path) -> Any:
    """A figure of all cases, at speeds as they are measured."""
    from minidl.profiling import kernel_plot as plot
    from minidl.profiling.kernel_report import Run

    roof = Ceilings(1.2e11, {"L1": 2e11, "L2": 1.1e11, "L3": 1e11, "memory": 2.5e10})
    rng = np.random.default_rng(0)
    results = []
    for case in cases():
        limit = min(roof.flops, roof.bandwidths["L2"] * case.flops / case.nbytes)
        seconds = max(case.flops, 1) / max(limit, 1.0) / rng.uniform(0.3, 1)
        results.append(
            Result(case.kernel, case.shape, case.flops, case.nbytes, seconds, 1, 1, "L1", 1, 1, 1)
        )
    plot.draw(tmp_path / "roof.png", [Run("avx512", "float32", roof, {}, results)])


def test_a_roofline_names_each_family_once(drawn: list[Any], tmp_path: Path) -> None:
    roofline(tmp_path)
    (axes,) = drawn[0].axes
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert "recurrent" in names
    assert len(names) == len(set(names))


def test_nothing_on_a_roofline_is_written_over_something_else(
    drawn: list[Any], tmp_path: Path
) -> None:
    roofline(tmp_path)
    (axes,) = drawn[0].axes
    drawn[0].set_dpi(pictures.DPI if drawn[0].dpi == 100 else drawn[0].dpi)
    level = [text for text in axes.texts if text.get_text() and text.get_rotation() == 0]
    boxes = {text.get_text(): text.get_window_extent() for text in level}
    assert len(boxes) > 30
    overlapping = [
        (one, other) for one, other in combinations(boxes, 2) if boxes[one].overlaps(boxes[other])
    ]
    assert overlapping == []
    legend = axes.get_legend().get_window_extent()
    assert not any(box.overlaps(legend) for box in boxes.values())
    markers = [line for line in axes.get_lines() if line.get_marker() not in ("None", "", None)]
    points = np.vstack([axes.transData.transform(line.get_xydata()) for line in markers])
    for name, box in boxes.items():
        assert not any(box.contains(x, y) for x, y in points), name
    turned = [text.get_text() for text in axes.texts if text.get_rotation()]
    assert turned == ["L1 200 GB/s", "L2 110, L3 100 GB/s", "memory 25 GB/s"]
