"""The picture of a monitor: gradients of every layer and step, over depth, and over time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl.pictures import light_grid, log_axis, new_figure, shortened
from minidl.typing import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from minidl.diagnosis.seen import Seen

# Blue, orange, green, purple and vermilion of Okabe and Ito, with markers for prints in grey.
LOOKS = (
    *(("#0072B2", "o"), ("#E69F00", "s"), ("#009E73", "^"), ("#CC79A7", "D")),
    ("#D55E00", "v"),
)
COLORS = "cividis"  # which is alike for every eye, and becomes lighter from end to end in grey
PANEL = 5.2, 4.2  # inches
MOST_NAMES = 24  # of layers beside the heat map
LONGEST = 24  # characters of a name
MOST_PANELS = 2  # of recurrent layers


def draw(seen: Seen, epochs: Iterable[int] | None) -> Figure:
    """Draw the gradient over layers and steps; and over depth, and time, at some epochs."""
    chosen = moments(seen, epochs)
    over_time = {p: v for p, v in seen.over_time.items() if p in seen.layers}
    shown = list(over_time.items())[:MOST_PANELS]
    figure = new_figure((PANEL[0] * (2 + len(shown)), PANEL[1]))
    panels = figure.subplots(1, 2 + len(shown))
    heat_map(figure, panels[0], seen)
    over_depth(panels[1], seen, chosen)
    for axes, (path, norms) in zip(panels[2:], shown, strict=True):
        over_steps_of_time(axes, path, norms, chosen)
    return figure


def moments(seen: Seen, epochs: Iterable[int] | None) -> dict[str, Array]:
    """Return the records of each epoch, by what a legend calls it; 0 is the untrained network.

    Without epochs: before training, and up to four evenly spaced; of steps by hand, single records.
    """
    count, of_record = len(seen), seen.epochs
    found: dict[str, Array] = {"before training": np.arange(count) == 0}
    last = int(of_record[-1])
    if epochs is None and last == 1:
        for index in np.unique(np.linspace(0, count - 1, len(LOOKS)).astype(int))[1:]:
            found[f"step {seen.steps[index]}"] = np.arange(count) == index
        return found
    if epochs is None:
        epochs = np.unique(np.linspace(0, last, len(LOOKS)).round().astype(int)).tolist()
    chosen = {int(epoch): of_record == epoch for epoch in epochs}
    if missing := [e for e, records in chosen.items() if e != 0 and not records.any()]:
        raise ValueError(
            f"plot: no step of epoch {missing[0]} was watched; epochs with records are 0, "
            f"{', '.join(map(str, np.unique(of_record)))}"
        )
    named = {f"epoch {epoch}": records for epoch, records in chosen.items() if epoch}
    return {**found, **named} if 0 in chosen else named


def heat_map(figure: Figure, axes: Any, seen: Seen) -> None:
    """Draw log10 ‖∂L/∂y‖, a row for each layer, a column for each record."""
    gradient, steps = seen["gradient"].T, seen.steps.astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        powers = np.ma.masked_invalid(np.log10(gradient))
    middle = (steps[1:] + steps[:-1]) / 2
    ends = (
        (1.5 * steps[[0, -1]] - 0.5 * steps[[1, -2]]) if len(steps) > 1 else steps[0] + [-0.5, 0.5]
    )
    edges = np.concatenate([ends[:1], middle, ends[-1:]])
    rows = np.arange(len(gradient) + 1) - 0.5
    axes.set_facecolor("white")
    axes.patch.set(hatch="///", edgecolor="0.6")  # seen where a gradient is exactly zero
    drawn = axes.pcolormesh(edges, rows, powers, cmap=COLORS, rasterized=True)
    bar = figure.colorbar(drawn, ax=axes, label="log₁₀ ‖∂L/∂y‖")
    bar.outline.set_visible(False)
    every = -(-len(gradient) // MOST_NAMES)
    names = [shortened(name, LONGEST) for name in seen.names]
    axes.set_yticks(range(0, len(names), every), names[::every], fontsize=8, parse_math=False)
    axes.set(xlabel="step", title="gradient of every layer", ylim=(len(gradient) - 0.5, -0.5))
    axes.xaxis.get_major_locator().set_params(integer=True, nbins=6, min_n_ticks=1)
    if (gradient == 0).any():
        axes.set_xlabel("step (hatched: the gradient is exactly zero)")


def over_depth(axes: Any, seen: Seen, chosen: dict[str, Array]) -> None:
    """Draw the gradient norm of each layer, a line for each moment."""
    _lines(axes, seen["gradient"], chosen, np.arange(len(seen.layers)))
    axes.set(title="gradient over depth", xlabel="layer, from the input on", ylabel="‖∂L/∂y‖")
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)


def over_steps_of_time(axes: Any, path: str, norms: Array, chosen: dict[str, Array]) -> None:
    """Draw the gradient norm of a state over time, a line for each moment."""
    _lines(axes, norms, chosen, np.arange(norms.shape[1]))
    axes.set(
        title=f"gradient over time, layer {path}".rstrip(", layer"),
        xlabel="step of time t",
        ylabel=r"$\Vert\partial L/\partial h_t\Vert$",
    )


def _lines(axes: Any, values: Array, chosen: dict[str, Array], places: Array) -> None:
    """Draw the geometric mean over the records of each moment; zeros lie below all others."""
    curves = {label: _typical(values[records]) for label, records in chosen.items()}
    place_of = log_axis(axes.yaxis, np.concatenate(list(curves.values())))
    for (label, curve), (color, marker) in zip(curves.items(), LOOKS * len(curves), strict=False):
        known = np.isfinite(curve)
        heights = [place_of(value) for value in curve[known]]
        marks = {"marker": marker, "markersize": 4, "markevery": max(1, known.sum() // 20)}
        axes.plot(places[known], heights, color=color, linewidth=1.6, label=label, **marks)
    axes.legend(frameon=False, fontsize=8.5)
    light_grid(axes)


def _typical(values: Array) -> Array:
    """The geometric mean over records; zero where one is."""
    with np.errstate(divide="ignore"):
        return np.exp(np.log(values).mean(axis=0))
