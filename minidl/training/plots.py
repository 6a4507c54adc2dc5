"""Pictures of a history: a panel for each value, with its curves in training and validation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from minidl.pictures import BLUE, VERMILION, light_grid, new_figure, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TRAINING, VALIDATION = BLUE, VERMILION
COLUMNS = 3
PANEL = 4.6, 3.6  # inches
MOST_MARKERS = 40  # epochs; on a longer curve markers would hide the line
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
    axes: Any, values: Mapping[str, Sequence[float]], name: str, validation: str, first: int = 1
) -> None:
    """Draw the curve of a value in training, and the one in validation if there is one.

    ``validation`` is what the legend calls the latter, and ``first`` the number of the first epoch.
    """
    drawn = [
        ("training", name, "o-", TRAINING),
        (validation, f"val_{name}", "s--", VALIDATION),
    ]
    drawn = [curve for curve in drawn if curve[1] in values]
    for label, key, style, color in drawn:
        numbers = values[key]
        style = style if len(numbers) <= MOST_MARKERS else style[1:]
        missing = sum(not math.isfinite(number) for number in numbers)
        if missing:
            label = f"{label} ({missing} of {len(numbers)} not finite)"
        epochs = range(first, first + len(numbers))
        axes.plot(epochs, numbers, style, color=color, label=label, markersize=4, linewidth=1.6)
    if len(drawn) > 1 or any("(" in label for label in axes.get_legend_handles_labels()[1]):
        axes.legend(frameon=False)


def tidy(axes: Any) -> None:
    """Number whole epochs on the x axis, draw a light grid, and remove the frame on two sides."""
    axes.set_xlabel("epoch")
    light_grid(axes, whole=True)
