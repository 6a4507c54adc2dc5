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

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZE = 9.0, 4.6  # inches
LINE = 110  # characters over the panels
MOST_NAMED = 12  # layers on the axis


def draw_diagnosis(findings: Findings, history: History, monitor: GradientMonitor) -> Figure:
    """Draw loss and gradient, and name the verdicts over them."""
    figure = new_figure(SIZE)
    left, right = figure.subplots(1, 2)
    draw_losses(left, history)
    draw_gradients(right, monitor)
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


def draw_gradients(axes: Any, monitor: GradientMonitor) -> None:
    """Draw the gradient of every layer's output, at the first and at the last watched step."""
    axes.set_title("gradient of the outputs of each layer")
    if not len(monitor):
        return
    gradients, steps, layers = monitor["gradient"], monitor.steps, monitor.layers
    last = len(steps) - 1
    chosen = [0] if last == 0 else [0, last]
    values = gradients[chosen]
    place = log_axis(axes.yaxis, values[np.isfinite(values)].tolist())
    for record, style, color in zip(chosen, ("o-", "s--"), (TRAINING, VALIDATION), strict=False):
        points = [place(value) if np.isfinite(value) else np.nan for value in gradients[record]]
        axes.plot(points, style, color=color, label=f"step {steps[record]}", markersize=4)
    axes.legend(frameon=False)
    every = -(-len(layers) // MOST_NAMED)
    tidy(axes)
    axes.set_xticks(range(0, len(layers), every), layers[::every])
    axes.set_xlabel("layer")
