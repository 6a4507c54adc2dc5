"""The picture of a diagnosis: the loss, and the gradient over depth, under the verdicts."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl.diagnosis.findings import Findings
from minidl.diagnosis.monitor import GradientMonitor
from minidl.diagnosis.report import heading, headline
from minidl.pictures import log_axis, new_figure
from minidl.training import History
from minidl.training.plots import MOST_MARKERS, TRAINING, VALIDATION, tidy
from minidl.typing import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZE = 9.0, 4.6  # inches
LINE = 110  # characters over the panels
MOST_NAMED = 12  # layers on the axis


def draw_diagnosis(findings: Findings, history: History, monitor: GradientMonitor) -> Figure:
    """Draw loss and gradient, and name the verdicts over them.

    The gradient is that over depth, or over time if a verdict is about a recurrent layer.
    """
    figure = new_figure(SIZE)
    left, right = figure.subplots(1, 2)
    draw_losses(left, history)
    recurrent = [v.layer for v in findings.verdicts if v.layer in monitor.over_time]
    if recurrent:
        draw_over_time(right, monitor, recurrent[0])
    else:
        draw_over_depth(right, monitor)
    lines = [headline(findings)]
    for verdict in findings.verdicts[:3]:
        lines += textwrap.wrap(f"{heading(verdict)}: {verdict.statement}", LINE)
    figure.suptitle("\n".join(lines), fontsize=9, x=0.01, ha="left", parse_math=False)
    return figure


def draw_losses(axes: Any, history: History) -> None:
    """Draw the loss of every epoch, on a log axis."""
    drawn = [("training", "loss", "o-", TRAINING), ("validation", "val_loss", "s--", VALIDATION)]
    drawn = [curve for curve in drawn if history.get(curve[1])]
    values = [value for _, name, _, _ in drawn for value in history[name]]
    place = log_axis(axes.yaxis, values) if values and min(values) >= 0 else float
    for label, name, style, color in drawn:
        points = [place(value) for value in history[name]]
        style = style if len(points) <= MOST_MARKERS else style[1:]
        axes.plot(range(1, len(points) + 1), points, style, color=color, label=label, markersize=4)
    if len(drawn) > 1:
        axes.legend(frameon=False)
    axes.set_title("loss" if drawn else "no epoch was completed")
    tidy(axes)


def draw_over_depth(axes: Any, monitor: GradientMonitor) -> None:
    """Draw the gradient of every layer's output, at the first and at the last watched step."""
    axes.set_title("norm of the gradient of each layer's output")
    if not len(monitor):
        axes.set_title("no step was completed")
        tidy(axes)
        return
    layers = monitor.layers
    draw_records(axes, monitor["gradient"], monitor.steps)
    every = -(-len(layers) // MOST_NAMED)
    axes.set_xticks(range(0, len(layers), every), layers[::every])
    axes.set_xlabel("layer")


def draw_over_time(axes: Any, monitor: GradientMonitor, path: str) -> None:
    """Draw the gradient of a recurrent state over the steps of a sequence."""
    axes.set_title(f"norm of the gradient of the state of layer {path}")
    draw_records(axes, monitor.over_time[path], monitor.steps)
    axes.set_xlabel("step of the sequence")


def draw_records(axes: Any, values: Array, steps: Array) -> None:
    """Draw the first and the last record, on a log axis."""
    chosen = [0] if len(steps) == 1 else [0, len(steps) - 1]
    shown = values[chosen]
    place = log_axis(axes.yaxis, shown[np.isfinite(shown)].tolist())
    for record, style, color in zip(chosen, ("o-", "s--"), (TRAINING, VALIDATION), strict=False):
        points = [place(value) if np.isfinite(value) else np.nan for value in values[record]]
        style = style if len(points) <= MOST_MARKERS else style[1:]
        axes.plot(points, style, color=color, label=f"training step {steps[record]}", markersize=4)
    axes.legend(frameon=False)
    tidy(axes)
