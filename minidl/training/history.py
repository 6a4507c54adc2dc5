"""What happened, epoch by epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

SHOWN_ROWS = 30  # a longer table is cut in the middle


class History(Mapping[str, list[float]]):
    """The values of every epoch, by name: a mapping from names to lists of floats.

    ``seconds`` holds the training time of every epoch (validation not counted), and
    ``epochs`` their number.

    Examples
    --------
    >>> from minidl.training import History
    >>> history = History()
    >>> history.append({"loss": 0.75, "accuracy": 0.5}, seconds=1.0)
    >>> history.append({"loss": 0.5, "accuracy": 0.875}, seconds=1.0)
    >>> history["loss"], history.epochs
    ([0.75, 0.5], 2)
    >>> history
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
        if self.epochs and values.keys() != self._values.keys():
            raise ValueError(f"expected values of {list(self._values)}, got {list(values)}")
        for name, value in values.items():
            self._values.setdefault(name, []).append(float(value))
        self.seconds.append(float(seconds))

    def __getitem__(self, name: str) -> list[float]:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
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


def show(value: float) -> str:
    """A number in few characters: four decimals, or an exponent where they would say little."""
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.2e}"
