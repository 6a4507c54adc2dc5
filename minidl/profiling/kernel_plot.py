"""Draw the roofline: speed over intensity, ceilings as lines, kernels as points."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minidl._kernels.signature import KERNELS
from minidl.pictures import log_axis, new_figure, save
from minidl.profiling.kernel_report import Run, machine

# Each family of kernels, by the file of their twins, has a marker and a colour. The colours are
# those of Okabe and Ito, which colour-blind readers can distinguish.
STYLES = {
    "products": ("products (A@B named)", "o", "#0072B2"),
    "convolution": ("convolutions", "p", "#882255"),
    "elementwise": ("elementwise", "s", "#E69F00"),
    "normalization": ("normalization", "^", "#009E73"),
    "losses": ("losses", "D", "#CC79A7"),
    "optimizers": ("optimizers", "v", "#D55E00"),
    "activations": ("activations", "P", "#56B4E9"),
    "sequences": ("recurrent", "X", "#000000"),
    "pooling": ("pooling", "h", "#999999"),
    "watching": ("of watched steps", "*", "#F0E442"),
}
FAMILY_OF = {
    name: STYLES[kernel.twin.__module__.split(".")[-1]]
    for name, kernel in KERNELS.items()
    if kernel.twin is not None
}
PANEL = 11.0, 7.5  # inches, of one instruction set
FLAT = 0.04  # the least intensity drawn, flops per byte; scalars without flops are left out

NEAR, FAR = 12, 260  # points; a label farther off than the first has a line to its marker
GAP = 1.5  # points around every label
STEP = 3.0  # points between the boxes that cover a rotated text
# Directions from a marker to its label, in degrees, those along the text first.
DIRECTIONS = [side - angle for angle in (0, 30, 60, 15, 45, 75) for side in (0, 180)]
DIRECTIONS = [sign * angle for angle in DIRECTIONS for sign in (1, -1)]
SAME_LINE = 1.25  # bandwidths closer than this ratio share a label, because two would overlap
DPI = 130


def draw(path: Path, runs: list[Run]) -> None:
    """Draw one panel for each instruction set.

    Raises
    ------
    ImportError
        Without matplotlib.
    OSError
        If the file cannot be written.
    """
    figure = new_figure((PANEL[0] * len(runs), PANEL[1]))
    figure.set_dpi(DPI)  # so that labels have their final size when they are placed
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
        log_axis(axes.xaxis, axes.get_xlim(), margin=0)
        log_axis(axes.yaxis, axes.get_ylim(), margin=0)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, loc="lower right")
    figure.suptitle(f"Roofline of {machine()['processor']}", parse_math=False)
    figure.draw_without_rendering()  # places the axes, so that labels can be placed in them
    figure.set_layout_engine("none")  # or it would move the axes once more, for the labels
    for axes, run in zip(panels, runs, strict=True):
        _label_points(axes, run)
    save(figure, path, DPI)


def _coordinates(run: Run) -> dict[str, tuple[float, float]]:
    """Return intensity and GFLOP/s of every case that has flops and a ceiling, by name."""
    return {
        result.name: (result.flops / result.nbytes, result.flops / result.seconds / 1e9)
        for result in run.results
        if result.bound and result.flops
    }


def _ceilings(axes: Any, run: Run) -> None:
    """Draw a roof for each level: bandwidth times intensity, up to the peak of multiply-adds."""
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
    for family, marker, color in dict.fromkeys(STYLES.values()):
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
    """Label each ceiling along its line; returns the texts."""
    peak, (low, high) = run.ceilings.flops / 1e9, axes.get_xlim()
    style = {"color": "0.25", "fontsize": 9, "path_effects": _halo()}
    text = f"multiply-adds {peak:.0f} GFLOP/s"
    texts = [axes.text(high * 0.95, peak * 1.06, text, ha="right", **style)]
    for speed, text in _merged(run.ceilings.bandwidths):
        (x0, y0), (x1, y1) = axes.transData.transform([(low, low * speed), (1, speed)])
        angle = float(np.degrees(np.arctan2(y1 - y0, x1 - x0)))
        style |= {"rotation": angle, "rotation_mode": "anchor"}
        point = (low * 1.08, low * 1.08 * speed)
        up = {"xytext": (-2.5, 3), "textcoords": "offset points"}
        texts.append(axes.annotate(text, point, **up, **style))
    return texts


def _merged(bandwidths: Mapping[str, float]) -> list[tuple[float, str]]:
    """Return speed and label of each bandwidth, one for several that lie close together."""
    groups: list[list[tuple[float, str]]] = []
    for name, bandwidth in sorted(bandwidths.items(), key=lambda item: -item[1]):
        speed = bandwidth / 1e9
        if not groups or groups[-1][-1][0] > SAME_LINE * speed:
            groups.append([])
        groups[-1].append((speed, f"{name} {speed:.0f}"))
    return [(group[0][0], ", ".join(text for _, text in group) + " GB/s") for group in groups]


# --- labels of points -------------------------------------------------------------------


def _label_points(axes: Any, run: Run) -> None:
    """Label the points as far as there is room; a label that would hide another is left out.

    The first case of every kernel is labelled before the second of any.
    """
    coordinates = _coordinates(run)
    room = _Room(axes, list(coordinates.values()), _label_ceilings(axes, run))
    seen: dict[str, int] = {}
    order = []
    for result in run.results:
        # Transposed products, and those of layers, lie close to the plain ones.
        plain = ".T" not in result.shape and not result.kernel.startswith("linear")
        if result.name in coordinates and plain:
            seen[result.kernel] = seen.get(result.kernel, 0) + 1
            order.append((seen[result.kernel], result))
    for _, result in sorted(order, key=lambda item: item[0]):
        text = result.name.replace(" A@B", "")
        room.label(text, coordinates[result.name], FAMILY_OF[result.kernel][2])


class _Room:
    """The free room of a panel, in pixels.

    Parameters
    ----------
    axes
        The panel, placed in its figure.
    points
        Coordinates of the markers.
    texts
        Texts that are drawn already, rotated or not.
    """

    def __init__(self, axes: Any, points: list[tuple[float, float]], texts: list[Any]) -> None:
        self._axes, self._pixels = axes, axes.figure.dpi / 72
        self._markers = axes.transData.transform(points or np.empty((0, 2)))
        half = 4 * self._pixels
        self._boxes = np.hstack([self._markers - half, self._markers + half])
        for text in texts:
            self._occupy(_boxes_along(text, STEP * self._pixels))
        if (legend := axes.get_legend()) is not None:
            self._occupy([legend.get_window_extent().extents])
        self._lines = np.empty((0, 4))  # from markers to labels: both ends of each

    def _occupy(self, boxes: Any) -> None:
        self._boxes = np.vstack([self._boxes, boxes])

    def label(self, text: str, point: tuple[float, float], color: str) -> None:
        """Draw a label at the nearest free place around its marker, if there is one."""
        from matplotlib.colors import to_rgb

        dark = tuple(0.7 * part for part in to_rgb(color))  # legible in small print on white
        style = {"color": dark, "fontsize": 7.5, "path_effects": _halo()}
        place = {"xytext": (0, 0), "textcoords": "offset points", "va": "center"}
        label = self._axes.annotate(text, point, **place, **style)
        size = label.get_window_extent().size
        marker = self._axes.transData.transform(point)
        for dx, dy in _places():
            side = "left" if dx > 0 else "right" if dx < 0 else "center"
            anchor = marker + np.multiply((dx, dy), self._pixels)
            left = anchor[0] - size[0] * {"left": 0, "center": 0.5, "right": 1}[side]
            box = np.array([left, anchor[1] - size[1] / 2, left + size[0], anchor[1] + size[1] / 2])
            far = math.hypot(dx, dy) > NEAR
            line = _shortened(marker, anchor, 4 * self._pixels) if far else None
            if self._is_free(box, marker, line):
                label.set(position=(dx, dy), horizontalalignment=side)
                self._occupy([box])
                if line is not None:
                    self._tie(line, dark)
                return
        label.remove()

    def _is_free(self, box: Any, marker: Any, line: Any) -> bool:
        gap = GAP * self._pixels
        x0, y0, x1, y1 = box + np.array([-gap, -gap, gap, gap])
        panel = self._axes.bbox
        inside = panel.x0 < x0 and x1 < panel.x1 and panel.y0 < y0 and y1 < panel.y1
        others = self._boxes
        apart = (
            (x1 < others[:, 0]) | (others[:, 2] < x0) | (y1 < others[:, 1]) | (others[:, 3] < y0)
        )
        if not inside or not apart.all() or _meet(self._lines, np.array([x0, y0, x1, y1])).any():
            return False
        if line is None:
            return True
        own = (np.abs(others[:, :2] + others[:, 2:] - 2 * marker) < 1).all(axis=1)
        return not (_cross(line, self._lines).any() or _meet(line[None], others[~own]).any())

    def _tie(self, line: Any, color: Any) -> None:
        """Draw a line from a label to its marker."""
        x, y = self._axes.transData.inverted().transform(line.reshape(2, 2)).T
        self._axes.plot(x, y, color=color, linewidth=0.5, zorder=1.5)
        self._lines = np.vstack([self._lines, line])


def _places() -> Iterator[tuple[float, float]]:
    """Yield the offsets of a label from its marker, in points, the nearest first."""
    yield from ((7, 0), (-7, 0), (0, 11), (0, -11))
    for distance in range(16, FAR, 10):
        for degrees in DIRECTIONS:
            angle = math.radians(degrees)
            yield distance * math.cos(angle), distance * math.sin(angle)


def _shortened(marker: Any, label: Any, left_out: float) -> Any:
    """Return both ends of a line to a label; it begins ``left_out`` from the marker."""
    share = left_out / math.dist(marker, label)
    return np.concatenate([marker + share * (label - marker), label])


def _meet(lines: Any, boxes: Any) -> Any:
    """Find which lines (n, 4) meet a box (4), or each its own of n boxes, by the slab method.

    The parameter t runs from 0 to 1 along a line. In x and in y, the line is between the sides of
    the box for an interval of t; it meets the box if both intervals and [0, 1] overlap.
    """
    start, extent = lines[:, :2], lines[:, 2:] - lines[:, :2]
    extent = np.where(extent == 0, 1e-9, extent)
    t = np.stack([(boxes[..., :2] - start) / extent, (boxes[..., 2:] - start) / extent])
    enters, leaves = t.min(axis=0).max(axis=-1), t.max(axis=0).min(axis=-1)
    return (enters <= leaves) & (leaves >= 0) & (enters <= 1)


def _cross(line: Any, others: Any) -> Any:
    """Find which of the other lines (n, 4) a line crosses.

    Two lines cross if the ends of each lie on both sides of the other.
    """

    def side(lines: Any, points: Any) -> Any:
        along, to = lines[..., 2:] - lines[..., :2], points - lines[..., :2]
        return np.sign(along[..., 0] * to[..., 1] - along[..., 1] * to[..., 0])

    return (side(line, others[:, :2]) != side(line, others[:, 2:])) & (
        side(others, line[:2]) != side(others, line[2:])
    )


def _boxes_along(text: Any, step: float) -> Any:
    """Return boxes that cover a text, which may be rotated."""
    angle = math.radians(text.get_rotation())
    box = text.get_window_extent()
    if angle == 0:
        return [box.extents]
    x, y = np.linspace((box.x0, box.y0), (box.x1, box.y1), max(2, int(box.width / step))).T
    half = 8 * text.figure.dpi / 72
    return np.stack([x - half, y - half, x + half, y + half], axis=1)


def _halo() -> list[Any]:
    """Return the effect that draws white around letters, so that lines do not hide them."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=2.5, foreground="white")]
