"""The roofline as a picture: speed over intensity, ceilings as lines, kernels as points."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl._kernels import CALLS
from minidl.bench.report import Run, machine

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Families of kernels are told apart by marker and colour (of Okabe and Ito: apart for every eye).
STYLES = {
    "calls_linear": ("products (A@B named)", "o", "#0072B2"),
    "calls_elementwise": ("elementwise", "s", "#E69F00"),
    "calls_normalization": ("normalization", "^", "#009E73"),
    "calls_losses": ("losses and norm", "D", "#CC79A7"),
    "calls_optimizers": ("optimizers", "v", "#D55E00"),
    "calls_activations": ("activations", "P", "#56B4E9"),
    "calls_gates": ("recurrent", "X", "#000000"),
    "calls_recurrent": ("recurrent", "X", "#000000"),
}
FAMILY_OF = {name: STYLES[module] for module, names in CALLS.items() for name in names}
PANEL = 11.0, 7.5  # inches, of one instruction set
FLAT = 0.04  # the least intensity drawn, flops per byte; scalars without flops are left out

# Where a label may stand, in points from its marker: the first free place is taken.
PLACES = [(7, 0), (-7, 0), (0, 11), (0, -11)]
PLACES += [(dx, dy) for dy in (16, -16, 30, -30, 44, -44) for dx in (8, -8, 30, -30)]
NEAR = 12  # points; a label farther off than this is tied to its marker by a line


def draw(path: Path, runs: list[Run]) -> None:
    """Draw one panel for each instruction set.

    Raises
    ------
    ImportError
        Without matplotlib.
    OSError
        If the file cannot be written.
    """
    figure = _new_figure(len(runs))
    panels = figure.subplots(1, len(runs), squeeze=False)[0]
    for axes, run in zip(panels, runs, strict=True):
        _ceilings(axes, run)
        _points(axes, run)
        axes.set(
            title=run.title,
            xlabel="intensity: flops per byte moved",
            ylabel="GFLOP/s",
        )
        axes.grid(color="0.93")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, loc="lower right")
    figure.suptitle(f"Roofline of {machine()['processor']}")
    figure.draw_without_rendering()  # places the axes, so that labels can be placed in them
    figure.set_layout_engine("none")  # or it would move the axes once more, for the labels
    for axes, run in zip(panels, runs, strict=True):
        _label_points(axes, run)
    figure.savefig(path, dpi=130)


def _new_figure(panels: int) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("a plot needs matplotlib: pip install 'minidl[plot]'") from None
    # No pyplot: a figure of one's own needs no display and leaves global settings alone.
    figure = Figure(figsize=(PANEL[0] * panels, PANEL[1]))
    figure.set_layout_engine("constrained")
    return figure


def _coordinates(run: Run) -> dict[str, tuple[float, float]]:
    """Intensity and GFLOP/s of every case that has flops and a ceiling, by name."""
    return {
        result.name: (result.flops / result.nbytes, result.flops / result.seconds / 1e9)
        for result in run.results
        if result.bound and result.flops
    }


def _ceilings(axes: Any, run: Run) -> None:
    """A roof for each level: bandwidth times intensity, up to the peak of multiply-adds."""
    points = list(_coordinates(run).values())
    peak = run.ceilings.flops / 1e9
    low = min([FLAT, *(x / 2 for x, _ in points)])
    high = max([200.0, *(4 * x for x, _ in points)])
    slowest = min(run.ceilings.bandwidths.values()) / 1e9
    axes.set(xscale="log", yscale="log", xlim=(low, high))
    axes.set_ylim(min([low * slowest, *(y / 2 for _, y in points)]), 2.2 * peak)
    for bandwidth in run.ceilings.bandwidths.values():
        speed = bandwidth / 1e9
        axes.plot([low, peak / speed], [low * speed, peak], color="0.55", linewidth=1)
    start = peak / max(run.ceilings.bandwidths.values()) * 1e9
    axes.plot([start, high], [peak, peak], color="0.2", linewidth=1.4)


def _points(axes: Any, run: Run) -> None:
    coordinates = _coordinates(run)
    for family, marker, color in STYLES.values():
        members = [
            coordinates[result.name]
            for result in run.results
            if result.name in coordinates and FAMILY_OF[result.kernel][0] == family
        ]
        if members:
            x, y = np.transpose(members)
            style = {"markersize": 5.5, "markeredgecolor": "white", "markeredgewidth": 0.5}
            axes.plot(x, y, marker, color=color, label=family, **style)


def _label_ceilings(axes: Any, run: Run) -> list[Any]:
    """Write on each ceiling what it is, along its line; returns the texts."""
    peak, (low, high) = run.ceilings.flops / 1e9, axes.get_xlim()
    style = {"color": "0.25", "fontsize": 9, "path_effects": _halo()}
    text = f"multiply-adds {peak:.0f} GFLOP/s"
    texts = [axes.text(high * 0.95, peak * 1.06, text, ha="right", **style)]
    for name, bandwidth in run.ceilings.bandwidths.items():
        speed = bandwidth / 1e9
        (x0, y0), (x1, y1) = axes.transData.transform([(low, low * speed), (1, speed)])
        angle = float(np.degrees(np.arctan2(y1 - y0, x1 - x0)))
        style |= {"rotation": angle, "rotation_mode": "anchor"}
        point, text = (low * 1.08, low * 1.08 * speed), f"{name} {speed:.0f} GB/s"
        up = {"xytext": (-2.5, 3), "textcoords": "offset points"}
        texts.append(axes.annotate(text, point, **up, **style))
    return texts


def _label_points(axes: Any, run: Run) -> None:
    """Name the points as far as there is room: a label that would hide another is left out.

    The first case of every kernel comes before the second of any.
    """
    from matplotlib.transforms import Bbox

    coordinates = _coordinates(run)
    taken = [text.get_window_extent() for text in _label_ceilings(axes, run)]
    legend = axes.get_legend()
    taken += [] if legend is None else [legend.get_window_extent()]
    taken += [
        Bbox.from_bounds(x - 4, y - 4, 8, 8)
        for x, y in axes.transData.transform(list(coordinates.values()) or np.empty((0, 2)))
    ]
    seen: dict[str, int] = {}
    order = []
    for result in run.results:
        # The other forms of a product, and those of a layer, lie close to the plain one.
        plain = ".T" not in result.shape and not result.kernel.startswith("linear")
        if result.name in coordinates and plain:
            seen[result.kernel] = seen.get(result.kernel, 0) + 1
            order.append((seen[result.kernel], result))
    for _, result in sorted(order, key=lambda item: item[0]):
        text = result.name.replace(" A@B", "")
        _label(axes, text, coordinates[result.name], FAMILY_OF[result.kernel][2], taken)


def _label(axes: Any, text: str, point: tuple[float, float], color: str, taken: list[Any]) -> None:
    """Write a label at the first free place around its point, if there is one."""
    from matplotlib.colors import to_rgb

    dark = tuple(0.7 * part for part in to_rgb(color))  # legible in small print on white
    leader = {"arrowstyle": "-", "color": dark, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3}
    for dx, dy in PLACES:
        side = "left" if dx > 0 else "right" if dx < 0 else "center"
        place: dict[str, Any] = {"xytext": (dx, dy), "textcoords": "offset points"}
        style = {"color": dark, "fontsize": 7.5, "path_effects": _halo()}
        label = axes.annotate(text, point, **place, ha=side, va="center", **style)
        box = label.get_window_extent()
        inside = axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 and box.y0 >= axes.bbox.y0
        if inside and not any(box.overlaps(other) for other in taken):
            taken.append(box)
            if abs(dy) > NEAR:
                axes.annotate("", point, **place, arrowprops=leader)
            return
        label.remove()


def _halo() -> list[Any]:
    """White around the letters, where they cross a line."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=2.5, foreground="white")]
