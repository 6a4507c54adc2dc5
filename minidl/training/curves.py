"""A picture of a history: a panel for each value, training and validation in one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TRAINING, VALIDATION = "#0072B2", "#D55E00"  # blue and vermilion of Okabe and Ito
COLUMNS = 3
PANEL = 4.6, 3.6  # inches


def new_figure(size: tuple[float, float]) -> Figure:
    """An empty figure.

    Raises
    ------
    ImportError
        Without matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("a plot needs matplotlib: pip install 'minidl[plot]'") from None
    # No pyplot: a figure of one's own needs no display and leaves global settings alone.
    figure = Figure(figsize=size)
    figure.set_layout_engine("constrained", w_pad=0.15)
    return figure


def draw_history(values: Mapping[str, Sequence[float]]) -> Figure:
    """The picture of these values, epoch by epoch."""
    names = list(dict.fromkeys(name.removeprefix("val_") for name in values))
    columns = min(COLUMNS, len(names))
    rows = -(-len(names) // columns)
    figure = new_figure((columns * PANEL[0], rows * PANEL[1]))
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for name, axes in zip(names, panels, strict=False):
        curves(axes, values, name, "validation")
        axes.set(title=name)
        tidy(axes)
    for axes in panels[len(names) :]:
        axes.remove()
    return figure


def curves(axes: Any, values: Mapping[str, Sequence[float]], name: str, held_out: str) -> None:
    """A value in training and, if there is one, in validation."""
    shown = [
        ("training", name, "o-", TRAINING),
        (held_out, f"val_{name}", "s--", VALIDATION),
    ]
    shown = [curve for curve in shown if curve[1] in values]
    for label, key, marker, color in shown:
        numbers = values[key]
        epochs = range(1, len(numbers) + 1)
        axes.plot(epochs, numbers, marker, color=color, label=label, markersize=4, linewidth=1.6)
    if len(shown) > 1:
        axes.legend(frameon=False)


def tidy(axes: Any) -> None:
    """Whole epochs below, a light grid, and no frame where nothing is written."""
    axes.set_xlabel("epoch")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
