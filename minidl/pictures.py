"""Figures that a notebook shows, files of pictures, and axes that always have numbers."""

from __future__ import annotations

import errno
import math
import os
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO

from minidl.files import as_path, replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The colours of Okabe and Ito 2008, which also eyes that see few colours tell apart.
BLUE, VERMILION, GREEN, PURPLE, ORANGE = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00"
DPI = 120  # of pictures in files
NARROWEST = 1.05  # the least ratio of the ends of a log axis: less is noise
MANY_DECADES = 3  # from which powers of ten are the only numbers on a log axis
MOST_POWERS = 8  # on a log axis
STEPS = 6  # on a log axis of less than a decade
LEAST, MOST = -250.0, 250.0  # powers of ten: beyond them an axis overflows in matplotlib


def new_figure(size: tuple[float, float]) -> Figure:
    """Make an empty figure, which notebooks show without any setting.

    Parameters
    ----------
    size
        Width and height in inches.

    Raises
    ------
    ImportError
        Without matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("a plot needs matplotlib: pip install 'minidl[plot]'") from None
    # Not by pyplot: such a figure needs no display and leaves global settings alone.
    figure = Figure(figsize=size)
    figure.set_layout_engine("constrained", w_pad=0.15)
    # Notebooks know figures of pyplot only; of any other object they call this method.
    vars(figure)["_repr_png_"] = partial(_png, figure)
    return figure


def _png(figure: Figure) -> bytes:
    file = BytesIO()
    save(figure, file)
    return file.getvalue()


def save(figure: Figure, file: str | os.PathLike[str] | BytesIO, dpi: int = DPI) -> None:
    """Write a picture; a character that the font lacks is drawn as a box, without a warning.

    The file appears under its name when it is complete, in the format that its suffix names.
    """
    if isinstance(file, BytesIO):
        _draw(figure, file, dpi)
        return
    path = as_path(file)
    if not path.name:
        raise IsADirectoryError(errno.EISDIR, "cannot be written: it is a folder", str(path))
    kind = path.suffix[1:].lower()
    if not kind:
        kind = figure.canvas.get_default_filetype()
        path = path.with_name(f"{path.name}.{kind}")
    with replacing(path) as partial_file:
        _draw(figure, partial_file, dpi, kind)


def finished(figure: Figure, path: str | os.PathLike[str] | None) -> Figure:
    """Write the picture if there is a path; returns the figure, for a notebook to show."""
    if path is not None:
        save(figure, path)
    return figure


class Plottable:
    """An object with a picture: its class says how to draw it, and ``plot`` draws it."""

    def figure(self) -> Figure:
        """Draw the picture."""
        raise NotImplementedError(f"{type(self).__name__} has no picture")

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Draw the picture, and write it to a file if there is a path.

        Parameters
        ----------
        path
            The file, if any; its suffix (.png, .pdf, .svg) is the format.

        Returns
        -------
        matplotlib.figure.Figure
            A notebook shows it, without ``%matplotlib inline``; it belongs to no window.

        Raises
        ------
        ImportError
            Without matplotlib.
        ValueError
            If there is nothing to draw, or for a suffix that matplotlib does not know.
        """
        return finished(self.figure(), path)


def _draw(figure: Figure, file: BinaryIO, dpi: int, kind: str | None = None) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        figure.savefig(file, dpi=dpi, format=kind)


def shortened(text: str, longest: int) -> str:
    """Return the text, without its middle if it is longer than that.

    Examples
    --------
    >>> shortened("train-images-idx3-ubyte.gz", 14)
    'train-i…yte.gz'
    """
    if len(text) <= longest:
        return text
    end = (longest - 1) // 2
    return f"{text[: longest - 1 - end]}…{text[-end:]}"


# --- axes -------------------------------------------------------------------------------


def light_grid(axes: Any, whole: bool = False) -> None:
    """Draw a light grid, and remove the frame on two sides.

    ``whole`` numbers the x axis by whole numbers only: of layers, steps and epochs.
    """
    if whole:
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


# --- log axes ---------------------------------------------------------------------------


def log_axis(axis: Any, values: Iterable[float], margin: float = 0.04) -> Callable[[float], float]:
    """Make an axis logarithmic and number it, whatever the range of the values.

    Parameters
    ----------
    axis
        ``axes.xaxis`` or ``axes.yaxis``.
    values
        All that will be drawn along the axis. Zeros have a place of their own, below all others and
        marked as 0; if no value is above zero, the axis stays linear.
    margin
        Left free at both ends, as a fraction of the range; 0 for none whatever the range.

    Returns
    -------
    callable
        Maps a value to its place on the axis.
    """
    finite = [value for value in map(float, values) if math.isfinite(value)]
    positive = [value for value in finite if value > 0]
    if not positive:
        return float
    low, high = math.log10(min(positive)), math.log10(max(positive))
    margin = margin and max(margin * (high - low), math.log10(NARROWEST) / 2)
    low, high = max(low - margin, LEAST), min(high + margin, MOST)
    ticks = log_ticks(low, high)
    if len(positive) == len(finite):
        _set_log(axis, low, high, ticks, [_in_words(tick, low, high) for tick in ticks])
        return float
    zero = max(math.floor(low) - 1.0, LEAST)
    if high - low < 1:
        ticks = _ticks_above_zero(zero, low, high)
    labels = ["0", *(_in_words(tick, low, high) for tick in ticks)]
    _set_log(axis, max(zero - margin, LEAST), high, [10**zero, *ticks], labels)
    return lambda value: float(value) or 10**zero


def log_ticks(low: float, high: float) -> list[float]:
    """Choose two to a dozen numbers for a log axis from 10**low to 10**high.

    Powers of ten over many decades, 1, 2 and 5 times these over a few, equal steps over less.

    Examples
    --------
    >>> log_ticks(-0.4, 1.1)
    [0.5, 1.0, 2.0, 5.0, 10.0]
    >>> log_ticks(-20.5, -2.5)
    [1e-18, 1e-15, 1e-12, 1e-09, 1e-06, 0.001]
    """
    decades = high - low
    if decades > MANY_DECADES:
        every = math.ceil(decades / MOST_POWERS)
        powers = range(math.ceil(low), math.floor(high) + 1)
        return [float(f"1e{power}") for power in powers if power % every == 0]
    least, most = 10**low, 10**high
    if decades > 1:
        powers = range(math.floor(low), math.ceil(high) + 1)
        numbers = [float(f"{digit}e{power}") for power in powers for digit in (1, 2, 5)]
    else:
        step = _round_step((most - least) / STEPS)
        numbers = [count * step for count in range(int(least / step), int(most / step) + 2)]
    return [number for number in numbers if least <= number <= most]


def _ticks_above_zero(zero: float, low: float, high: float) -> list[float]:
    """Choose numbers for less than a decade, on an axis that goes on down to zero.

    Steps within the decade would be written over each other.
    """
    ticks = [tick for tick in log_ticks(zero, high) if tick > 1.01 * 10**zero]
    near = [tick for tick in ticks if tick > 0.99 * 10 ** math.floor(low)]
    return near if len(near) > 1 else ticks


def _round_step(least: float) -> float:
    """Return the smallest of 1, 2 and 5 times a power of ten that is not less."""
    power = math.floor(math.log10(least))
    return next(
        step for digit in (1, 2, 5, 10) if (step := float(f"{digit}e{power}")) >= least * 0.999
    )


def _in_words(tick: float, low: float, high: float) -> str:
    if high - low > MANY_DECADES:
        return f"$10^{{{round(math.log10(tick))}}}$"
    return f"{tick:.4g}"


def _set_log(axis: Any, low: float, high: float, ticks: list[float], labels: list[str]) -> None:
    from matplotlib.ticker import NullFormatter, NullLocator

    side = axis.axis_name
    axis.axes.set(**{f"{side}scale": "log", f"{side}lim": (10**low, 10**high)})
    axis.set_ticks(ticks, labels)
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
