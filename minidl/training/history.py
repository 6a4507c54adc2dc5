"""The values of every epoch of a training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from minidl.pictures import Plottable
from minidl.training.plots import draw_history

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN_ROWS = 30  # a longer table is cut in the middle


class History(Plottable, Mapping[str, list[float]]):
    """The values of every epoch, by name: a mapping from names to lists of floats.

    ``seconds`` holds the training time of every epoch (validation not counted), and
    ``epochs`` their number. ``print(history)`` prints the table of all epochs.

    Examples
    --------
    >>> from minidl.training import History
    >>> history = History()
    >>> history.append({"loss": 0.75, "accuracy": 0.5}, seconds=1.0)
    >>> history.append({"loss": 0.5, "accuracy": 0.875}, seconds=1.0)
    >>> history["loss"], history.epochs
    ([0.75, 0.5], 2)
    >>> history
    History(epochs=2, loss=0.5000, accuracy=0.8750)
    >>> print(history)
    epoch    loss  accuracy
        1  0.7500    0.5000
        2  0.5000    0.8750
    """

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {}
        self.seconds: list[float] = []

    @property
    def epochs(self) -> int:
        """Epochs so far."""
        return len(self.seconds)

    def append(self, values: Mapping[str, float], seconds: float) -> None:
        """Add an epoch; its names must be those of the epochs before."""
        if self.epochs and (found := difference(self._values, values)):
            raise ValueError(f"unlike the epochs before, this one has {found}")
        for name, value in values.items():
            self._values.setdefault(name, []).append(float(value))
        self.seconds.append(float(seconds))

    def as_dict(self) -> dict[str, list[float]]:
        """Return the columns of a table, one row for each epoch: ``epoch``, values, ``seconds``.

        ``pandas.DataFrame(history.as_dict())`` takes it, and so does ``json.dumps``.

        Examples
        --------
        >>> from minidl.training import History
        >>> history = History()
        >>> history.append({"loss": 0.5}, seconds=0.25)
        >>> history.as_dict()
        {'epoch': [1], 'loss': [0.5], 'seconds': [0.25]}
        """
        values = {name: list(column) for name, column in self.items()}
        epochs: list[float] = [*range(1, self.epochs + 1)]
        return {"epoch": epochs, **values, "seconds": list(self.seconds)}

    def figure(self) -> Figure:
        """Draw a panel for each value, training and validation in one, epoch by epoch."""
        if not self.epochs:
            raise ValueError("there is nothing to draw: the history has no epoch")
        return draw_history(self)

    def __getitem__(self, name: str) -> list[float]:
        if name not in self._values:
            raise KeyError(f"{name}: the history has {', '.join(self._values) or 'no values yet'}")
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        # One line: a notebook shows it below the lines or the bar that `fit` has shown already.
        latest = [f", {name}={show(values[-1])}" for name, values in self.items()]
        return f"History(epochs={self.epochs}{''.join(latest)})"

    def __str__(self) -> str:
        columns = [["epoch", *map(str, range(1, self.epochs + 1))]]
        columns += [[name, *map(show, values)] for name, values in self.items()]
        widths = [max(map(len, column)) for column in columns]
        lines = [
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
            for row in zip(*columns, strict=True)
        ]
        if self.epochs > SHOWN_ROWS:
            half = SHOWN_ROWS // 2
            lines[1 + half : -half] = ["...".rjust(widths[0])]
        return "\n".join(lines)


def difference(before: Iterable[str], now: Iterable[str]) -> str:
    """Say which of the values before are missing now, and which are new; "" if they are the same.

    Examples
    --------
    >>> difference(["loss", "mse"], ["loss", "mae"])
    'no mse, but mae'
    """
    before, now = list(before), list(now)
    missing = ", ".join(name for name in before if name not in now)
    new = ", ".join(name for name in now if name not in before)
    return (f"no {missing}" if missing else "") + ", but " * bool(missing and new) + new


def show(value: float) -> str:
    """Format a number with four decimals, or an exponent if these would say little."""
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.2e}"
