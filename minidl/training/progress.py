"""What is seen of training while it runs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from minidl.training.history import show

REFRESH = 0.1  # seconds between two looks at the running values: they cost more than a step

Values = Mapping[str, float]


class Progress:
    """Shows nothing; subclasses override what they want to hear of."""

    def begin(self, epochs: int, samples: int) -> None:
        """Training begins: this many epochs of this many samples."""

    def step(self, rows: int, running: Callable[[], Values]) -> None:
        """A batch was trained; ``running()`` gives the values of the epoch so far."""

    def epoch(self, number: int, values: Values, seconds: float) -> None:
        """Epoch ``number``, counted from 1, has ended after ``seconds``."""

    def close(self) -> None:
        """Training has ended, well or not."""


class Lines(Progress):
    """A line to standard output after every epoch."""

    def begin(self, epochs: int, samples: int) -> None:
        self.epochs, self.samples = epochs, samples

    def epoch(self, number: int, values: Values, seconds: float) -> None:
        shown = [f"epoch {number:>{len(str(self.epochs))}}/{self.epochs}"]
        shown += [f"{name} {show(value)}" for name, value in values.items()]
        shown += [f"{self.samples / max(seconds, 1e-9):,.0f} samples/s"]
        print("  ".join(shown), flush=True)


class Bar(Progress):
    """A bar on standard error, with the running values; needs tqdm."""

    def __init__(self) -> None:
        try:
            from tqdm import tqdm
        except ImportError:
            raise ImportError(
                "the progress bar needs tqdm: pip install 'minidl[progress]'"
            ) from None
        self._tqdm = tqdm
        self._bar: Any = None

    def begin(self, epochs: int, samples: int) -> None:
        self.epochs = epochs
        self._refreshed = time.perf_counter()
        self._validation: dict[str, float] = {}
        self._bar = self._tqdm(
            total=epochs * samples, unit=" samples", unit_scale=True, dynamic_ncols=True
        )
        self._bar.set_description(f"epoch 1/{epochs}")

    def step(self, rows: int, running: Callable[[], Values]) -> None:
        now = time.perf_counter()
        if now - self._refreshed > REFRESH:
            self._refreshed = now
            self._bar.set_postfix_str(_words({**running(), **self._validation}), refresh=False)
        self._bar.update(rows)

    def epoch(self, number: int, values: Values, seconds: float) -> None:
        self._validation = {k: v for k, v in values.items() if k.startswith("val_")}
        self._bar.set_postfix_str(_words(values), refresh=False)
        self._bar.set_description(f"epoch {min(number + 1, self.epochs)}/{self.epochs}")

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def _words(values: Values) -> str:
    return ", ".join(f"{name} {show(value)}" for name, value in values.items())


def choose(progress: str | bool | Progress) -> Progress:
    """What ``Trainer.fit(progress=...)`` means.

    ``"auto"`` or True is a bar if standard error is a terminal and tqdm is installed, else
    lines; ``"bar"`` and ``"lines"`` insist; ``"none"`` or False is silence.
    """
    if isinstance(progress, Progress):
        return progress
    if progress is False or progress == "none":
        return Progress()
    if progress == "bar":
        return Bar()
    if progress == "lines":
        return Lines()
    if progress is not True and progress != "auto":
        raise ValueError(
            f'progress must be "auto", "bar", "lines", "none" or a Progress, got {progress!r}'
        )
    try:
        return Bar() if sys.stderr is not None and sys.stderr.isatty() else Lines()
    except ImportError:
        return Lines()
