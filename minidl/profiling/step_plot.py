"""Draw the profile of a step: one bar for every kernel, in the order they run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from minidl.pictures import finished, new_figure
from minidl.profiling.step_report import Timed, percent, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Colours of Okabe and Ito, which colour-blind readers can distinguish.
COLORS = {"forward": "#0072B2", "backward": "#D55E00", "update": "#009E73", "": "0.5"}
WIDTH, MARGIN, BAR = 10.5, 1.6, 0.27  # inches: the width, above and below the bars, each bar
MOST_BARS = 80  # only the slowest kernels of longer programs are drawn


def draw(
    path: Path | None, timed: list[Timed], title: str, lines: list[str], telling: bool
) -> Figure:
    """Draw the time of every kernel of a step as a bar; save the picture if there is a path.

    Parameters
    ----------
    path
        Path of the file, or None.
    timed
        The kernels, in order.
    title, lines
        Text above the bars.
    telling
        Whether the times are exact enough to give shares and rates.

    Raises
    ------
    ImportError
        Without matplotlib.
    """
    slowest = sorted(range(len(timed)), key=lambda i: -timed[i].seconds)
    rows = [timed[index] for index in sorted(slowest[:MOST_BARS])]
    figure = new_figure((WIDTH, MARGIN + BAR * len(rows)))
    axes = figure.subplots()
    times = [row.seconds * 1e6 for row in rows]
    longest, whole = max(times), sum(row.seconds for row in timed)
    axes.barh(
        range(len(rows)), times, height=0.72, color=[COLORS.get(r.phase, "0.5") for r in rows]
    )
    for place, (row, time) in enumerate(zip(rows, times, strict=True)):
        note = _note(row, whole) if telling else ""
        axes.text(time + 0.008 * longest, place, note, va="center", fontsize=8, color="0.25")
    names = [_name(row) for row in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=8.5, parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.set(xlim=(0, 1.28 * longest), ylim=(len(rows) - 0.4, -0.6), xlabel="microseconds")
    axes.grid(axis="x", color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.legend(
        handles=_phases(timed, telling), frameon=False, loc="outside lower right", ncols=4
    )
    left_out = len(timed) - len(rows)
    note = f" ({left_out} quicker kernels are not drawn)" if left_out else ""
    figure.suptitle("\n".join([f"{title}{note}", *lines]), fontsize=10)
    return finished(figure, path)


def _name(row: Timed) -> str:
    layer = f"{shortened(row.layer)}:  " if row.layer else ""
    return f"{layer}{row.kernel}  {row.shape}"


def _note(row: Timed, whole: float) -> str:
    """Write the note beside a bar: its share, and the fraction of the ceiling if that matters."""
    share = row.seconds / whole
    if share < 0.02 or not row.bound:
        return percent(share) if share >= 0.001 else ""
    team = "" if row.threads == 1 else f" of {row.threads} threads"
    return f"{percent(share)}:  {percent(row.fraction)} of {row.bound}{team}"


def _phases(timed: list[Timed], telling: bool) -> list[Any]:
    """Make the legend of the phases, with their shares."""
    from matplotlib.patches import Patch

    whole = sum(row.seconds for row in timed)
    shares = {
        phase: sum(row.seconds for row in timed if row.phase == phase) / whole for phase in COLORS
    }
    return [
        Patch(
            color=COLORS[phase],
            label=f"{phase or 'other'} {percent(share)}" if telling else phase or "other",
        )
        for phase, share in shares.items()
        if share
    ]
