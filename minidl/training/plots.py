"""A picture of a history: a panel for each value, training and validation in one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from minidl.pictures import new_figure, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TRAINING, VALIDATION = "#0072B2", "#D55E00"  # blue and vermilion of Okabe and Ito
COLUMNS = 3
PANEL = 4.6, 3.6  # inches
MOST_MARKERS = 40  # epochs; the points of a longer curve would hide it
LONGEST_TITLE = 40  # characters over a panel


def draw_history(values: Mapping[str, Sequence[float]]) -> Figure:
    """Draw these values, epoch by epoch."""
    names = list(dict.fromkeys(name.removeprefix("val_") for name in values))
    columns = min(COLUMNS, len(names))
    rows = -(-len(names) // columns)
    figure = new_figure((columns * PANEL[0], rows * PANEL[1]))
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for name, axes in zip(names, panels, strict=False):
        curves(axes, values, name, "validation")
        # parse_math: a name may hold dollar signs.
        axes.set_title(shortened(name, LONGEST_TITLE), parse_math=False)
        tidy(axes)
    for axes in panels[len(names) :]:
        axes.remove()
    return figure


def curves(
    axes: Any, values: Mapping[str, Sequence[float]], name: str, held_out: str, first: int = 1
) -> None:
    """Draw a value in training and, if there is one, in validation, from epoch ``first`` on."""
    shown = [
        ("training", name, "o-", TRAINING),
        (held_out, f"val_{name}", "s--", VALIDATION),
    ]
    shown = [curve for curve in shown if curve[1] in values]
    for label, key, style, color in shown:
        numbers = values[key]
        style = style if len(numbers) <= MOST_MARKERS else style[1:]
        missing = sum(not math.isfinite(number) for number in numbers)
        if missing:
            label = f"{label} ({missing} of {len(numbers)} not finite)"
        epochs = range(first, first + len(numbers))
        axes.plot(epochs, numbers, style, color=color, label=label, markersize=4, linewidth=1.6)
    if len(shown) > 1 or any("(" in label for label in axes.get_legend_handles_labels()[1]):
        axes.legend(frameon=False)


def tidy(axes: Any) -> None:
    """Whole epochs below, a light grid, and no frame where nothing is written."""
    axes.set_xlabel("epoch")
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
