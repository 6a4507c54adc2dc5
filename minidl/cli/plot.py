"""A picture of a training run."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl.analysis import FeatureMaps
from minidl.cli.options import check_writable
from minidl.pictures import log_axis, new_figure, save, shortened
from minidl.training.history import History
from minidl.training.plots import MOST_MARKERS, TRAINING, VALIDATION, curves, tidy
from minidl.typing import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZE = 16.0, 4.4  # inches; the legend of the layers stands beside the last panel
DARKEST, LIGHTEST = 0.0, 0.85  # part of the viridis scale that shows on white
STYLES = [("-", "o"), ("--", "s"), (":", "^"), ("-.", "D")]  # of kinds of layers
MOST_ROWS = 10  # of the legend; of more layers some are named
LONGEST_NAME, LONGEST_TITLE = 34, 90  # characters

Values = Mapping[str, float]


def check(path: Path) -> None:
    """Raise before the training, not after it, if the picture could not be written.

    Raises
    ------
    ImportError
        Without matplotlib.
    ValueError
        For a type of file that matplotlib does not write.
    OSError
        If the folder is missing or the file cannot be written.
    """
    kinds = new_figure(SIZE).canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in kinds:
        raise ValueError(f"cannot draw {path}: the name must end in one of .{', .'.join(kinds)}")
    check_writable(path, "draw")


# --- classifiers ------------------------------------------------------------------------


def draw(
    path: Path,
    history: History,
    before: Values,
    gradients: Mapping[str, Sequence[float]],
    classes: int,
    title: str,
    maps: FeatureMaps | None = None,
) -> None:
    """Draw loss, accuracy and the gradient norm of every layer, epoch by epoch.

    Parameters
    ----------
    path
        The file.
    history, before
        What was measured, after every epoch and before the first.
    gradients
        Norms by layer, from epoch 0 on.
    classes
        How many: a guess has a loss of log(classes) and an accuracy of 1 / classes.
    title
        Over all panels.
    maps
        Of a convolutional network: its filters and maps, drawn below.
    """
    figure, above = _with_maps(maps)
    loss, accuracy, gradient = above.subplots(1, 3)
    values = with_epoch_0(history, before)
    # Half of chance is always in sight, so that noise around chance does not look like progress.
    log_axis(loss.yaxis, [*values["loss"], *values["val_loss"], math.log(classes) / 2])
    _reference(loss, math.log(classes), f"chance: log {classes}")
    curves(loss, values, "loss", "test", first=0)
    loss.set(title="Loss", ylabel="mean cross entropy (nats)")
    _reference(accuracy, 1 / classes, f"chance: 1/{classes}")
    curves(accuracy, values, "accuracy", "test", first=0)
    accuracy.set(
        title="Accuracy", ylabel="share of images classified correctly", ylim=(-0.02, 1.02)
    )
    _layers(gradient, gradients)
    gradient.set(
        title="Gradient norm by layer", ylabel="norm of the gradient over all training images"
    )
    for axes in (loss, accuracy, gradient):
        tidy(axes)
    for axes in (loss, accuracy):
        axes.legend(frameon=False)
    above.suptitle(shortened(title, LONGEST_TITLE), parse_math=False)
    save(figure, path)


def _with_maps(maps: FeatureMaps | None) -> tuple[Figure, Any]:
    """Make a figure with the maps, if any, at its bottom; return it, and the part above them."""
    if maps is None:
        return (figure := new_figure(SIZE)), figure
    width, height = SIZE
    figure = new_figure((width, height + maps.height))
    parts: Any = figure.subfigures(2, 1, height_ratios=[height, maps.height])
    maps.draw(parts[1])
    return figure, parts[0]


def with_epoch_0(history: History, before: Values) -> dict[str, list[float]]:
    """Put what was measured before training in front of the values of the epochs."""
    return {name: [before[name], *history[name]] for name in history}


def _reference(axes: Any, value: float, words: str) -> None:
    """Draw the line of the value that a guess has."""
    axes.axhline(value, color="0.35", linestyle=":", linewidth=1.4, label=words)


def _layers(axes: Any, gradients: Mapping[str, Sequence[float]]) -> None:
    """Draw a curve for each layer: its colour shows its place, its line style its class."""
    from matplotlib import colormaps

    place = log_axis(axes.yaxis, chain.from_iterable(gradients.values()))
    kinds = list(dict.fromkeys(map(_kind, gradients)))
    # Layers have an order, so their colours have one: dark near the input, light near the loss.
    step = (LIGHTEST - DARKEST) / max(1, len(gradients) - 1)
    lines = []
    for index, (name, norms) in enumerate(gradients.items()):
        line, marker = STYLES[kinds.index(_kind(name)) % len(STYLES)]
        style = {"linestyle": line, "marker": marker if len(norms) <= MOST_MARKERS else ""}
        color = colormaps["viridis"](DARKEST + index * step)
        label = _in_brief(name)
        lines += axes.plot([place(norm) for norm in norms], **style, color=color, label=label)
    for line in lines:
        line.set(markersize=4, linewidth=1.3)
    # First and last, and some between at equal distances.
    some = np.linspace(0, len(lines) - 1, min(MOST_ROWS, len(lines))).round().astype(int)
    title = "layer" if len(some) == len(lines) else f"{len(some)} of {len(lines)} layers"
    axes.legend(
        handles=[lines[index] for index in some],
        **{"frameon": False, "loc": "upper left", "bbox_to_anchor": (1.02, 1), "title": title},
    )


def _in_brief(name: str) -> str:
    """Leave out the options of a layer where all would be too long: ``Conv2d(1, 16, 3, …)``."""
    if len(name) > LONGEST_NAME:
        without = re.sub(r", \w+=.*", ", …)", name)
        name = shortened(without, LONGEST_NAME)
    return name


def _kind(name: str) -> str:
    """The class of a layer, from its path and repr."""
    return name.split("(")[0].split(" ")[-1]


# --- sequences --------------------------------------------------------------------------


@dataclass(frozen=True)
class Scale:
    """Axes that pictures of different cells share, so that they can be laid side by side.

    Parameters
    ----------
    measured, words
        The name of a value of the history, and its label on the axis, with the unit.
    chance, chance_words
        The value that a guess has.
    values, gradients
        The ends of both logarithmic axes; values beyond them widen the axis.
    """

    measured: str
    words: str
    chance: float
    chance_words: str
    values: tuple[float, float]
    gradients: tuple[float, float]


def draw_sequences(
    path: Path,
    history: History,
    before: Values,
    norms: Mapping[str, Array],
    scale: Scale,
    title: str,
) -> None:
    """Draw what was measured, epoch by epoch, and ‖∂L/∂h_t‖ before and after training."""
    figure = new_figure(SIZE)
    left, right = figure.subplots(1, 2)
    values = with_epoch_0(history, before)
    log_axis(left.yaxis, [*chain.from_iterable(values.values()), scale.chance, *scale.values])
    _reference(left, scale.chance, scale.chance_words)
    curves(left, values, scale.measured, "test", first=0)
    left.set(title="Loss", ylabel=scale.words)
    tidy(left)
    left.legend(frameon=False)
    place = log_axis(right.yaxis, [*np.concatenate([*norms.values()]), *scale.gradients])
    for (name, found), color, line in zip(
        norms.items(), (TRAINING, VALIDATION), ("-", "--"), strict=True
    ):
        steps = range(1, len(found) + 1)
        right.plot(steps, [place(norm) for norm in found], line, color=color, label=name)
    right.set(
        title="How far back the loss is felt",
        ylabel="norm of the gradient of the state after step t",
    )
    right.legend(frameon=False)
    tidy(right)
    right.set(xlabel="step t")
    figure.suptitle(shortened(title, LONGEST_TITLE), parse_math=False)
    save(figure, path)
