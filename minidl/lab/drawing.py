"""How the figures of the experiments look.

Curves differ in colour, line and marker, so that a print in black and white, and eyes that tell
few colours, can tell them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl.pictures import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    VERMILION,
    light_grid,
    log_axis,
    new_figure,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SKY, GREY = "#56B4E9", "0.35"
STYLES: list[tuple[str, Any, str]] = [
    (BLUE, "-", "o"),
    (VERMILION, "--", "s"),
    (GREEN, "-.", "^"),
    (PURPLE, (0, (1, 1)), "D"),
    (ORANGE, (0, (6, 1, 1, 1, 1, 1)), "v"),
    (SKY, (0, (8, 2)), "P"),
    ("0.2", ":", "X"),
]
PANEL = 5.4, 4.2  # inches
MOST_MARKERS = 12  # of a curve

Curves = Mapping[str, tuple[Sequence[float] | Any, Sequence[float] | Any]]


def panels(columns: int, size: tuple[float, float] = PANEL) -> tuple[Figure, list[Any]]:
    """Make a figure with so many panels side by side."""
    figure = new_figure((columns * size[0], size[1]))
    return figure, list(np.atleast_1d(figure.subplots(1, columns)))


def log_curves(
    axes: Any, curves: Curves, others: Sequence[float] = (), theory: Curves | None = None
) -> Callable[[float], float]:
    """Draw curves by name over a logarithmic y axis, which has room for ``others`` too.

    Those of ``theory`` are thin and black; the legend names one, of several it says what they are.
    Returns a function that maps a value to its place on the axis.
    """
    drawn = [*curves.values(), *(theory or {}).values()]
    place = log_axis(axes.yaxis, [*others, *(float(v) for _, y in drawn for v in y)])
    for index, (label, (x, y)) in enumerate(curves.items()):
        curve(axes, x, [place(float(value)) for value in y], label, index)
    black = {"color": "black", "linewidth": 0.9, "linestyle": (0, (2, 2)), "zorder": 4}
    for number, (name, (x, y)) in enumerate((theory or {}).items()):
        label = f"theory: {name}" if len(theory or {}) == 1 else "theory"
        heights = [place(float(value)) for value in y]
        axes.plot(x, heights, **black, label="_" if number else label)
    return place


def curve(axes: Any, x: Any, y: Any, label: str, index: int) -> None:
    """Draw a curve in the style of this number."""
    color, line, marker = STYLES[index % len(STYLES)]
    style = {"color": color, "linestyle": line, "marker": marker, "markersize": 5, "linewidth": 1.7}
    axes.plot(x, y, **style, label=label, markevery=max(1, len(x) // MOST_MARKERS))


def finish(
    axes: Any, title: str, x: str, y: str, legend: str | None = "best", whole: bool = False
) -> None:
    """Name the axes, and draw a light grid and the legend."""
    axes.set(title=title, xlabel=x, ylabel=y)
    light_grid(axes, whole)
    if legend is not None and axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=True, framealpha=0.85, edgecolor="none", loc=legend, fontsize=9)
