"""What ``fit`` shows while it trains: a bar, or a line for every epoch."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable
from typing import Any

from minidl.training.callbacks import Callback, Values
from minidl.training.history import show

REFRESH = 0.1  # seconds between two readings of the running values, which cost more than a step
BAR = "{percentage:3.0f}% |{bar:10}| {desc}"  # for tqdm; the values are its description
BAR_COLUMNS = 18  # in front of the description
WIDE = 76  # columns from which a terminal has room for a bar

NOTEBOOK_BAR = "{percentage:3.0f}% {bar} {desc}"  # a widget: as wide as the cell
NOTEBOOK_COLUMNS = 100  # of words behind a widget


class Progress(Callback):
    """A callback that shows nothing; subclasses override what they want to show.

    It is written in the words of a display: ``begin``, ``step``, ``epoch``, ``stopped``, ``close``.
    ``unit`` is what one row is called, where speed is shown, and ``remarks`` says whether a closing
    remark is wanted, which costs a forward pass over some rows.
    """

    unit = "samples"
    remarks = False

    def begin(self, epochs: int, samples: int) -> None:
        """Training begins: this many epochs of this many samples."""

    def step(self, rows: int, running: Callable[[], Values]) -> None:
        """React to ``rows`` more rows, trained in one step or several.

        ``running()`` computes the values of the epoch so far, without those of metrics that are
        functions of all rows.
        """

    def epoch(self, number: int, values: Values, seconds: float) -> None:
        """Epoch ``number``, counted from 1, has ended after ``seconds``."""

    def stopped(self, number: int, why: str) -> None:
        """Training ends after epoch ``number``, for the reason that ``Trainer.stop`` was given."""

    def remark(self, text: str) -> None:
        """Training has come to its end, and something about it is worth a sentence."""

    def close(self) -> None:
        """Training has ended, well or not."""

    # --- as a callback ---

    def on_train_begin(self, trainer: Any, epoch: int, values: Values) -> None:
        """Call ``begin``."""
        self.begin(trainer.plan.epochs, len(trainer.plan.data))

    def on_rows(self, trainer: Any, epoch: int, rows: int, running: Callable[[], Values]) -> None:
        """Call ``step``."""
        self.step(rows, running)

    def on_epoch_end(self, trainer: Any, epoch: int, values: Values) -> None:
        """Call ``epoch``."""
        self.epoch(epoch, values, trainer.history.seconds[-1])

    def on_train_end(self, trainer: Any, epoch: int, values: Values) -> None:
        """Call ``stopped`` if epochs are missing and there is a reason to show."""
        why = trainer.plan.stop.why
        if why and epoch < trainer.plan.epochs:
            self.stopped(epoch, why)

    def on_fit_end(self, trainer: Any, epoch: int, values: Values) -> None:
        """Call ``close``."""
        self.close()


class Lines(Progress):
    """Prints a line to standard output after every epoch."""

    remarks = True

    def begin(self, epochs: int, samples: int) -> None:
        self.epochs, self.samples = epochs, samples

    def epoch(self, number: int, values: Values, seconds: float) -> None:
        words = [f"epoch {number:>{len(str(self.epochs))}}/{self.epochs}"]
        words += [f"{name} {show(value)}" for name, value in values.items()]
        words += [f"{self.samples / max(seconds, 1e-9):,.0f} {self.unit}/s"]
        print("  ".join(words), flush=True)

    def stopped(self, number: int, why: str) -> None:
        print(f"stopped after epoch {number}: {why}", flush=True)

    def remark(self, text: str) -> None:
        print(text, flush=True)


class Bar(Progress):
    """Draws a bar with as many running values as fit; needs tqdm.

    The bar is a widget in a notebook that has ipywidgets, and else text on standard error.
    """

    remarks = True

    def __init__(self) -> None:
        try:
            from tqdm import tqdm
        except ImportError:
            raise ImportError(
                "the progress bar needs tqdm: pip install 'minidl[progress]'"
            ) from None
        self._tqdm: Any = tqdm
        self._in_notebook = can_show_widgets()
        if self._in_notebook:
            from tqdm.notebook import tqdm as widget

            self._tqdm = widget
        self._bar: Any = None
        self._started = self._refreshed = 0.0

    def begin(self, epochs: int, samples: int) -> None:
        self.epochs, self.samples = epochs, samples
        self._validation: dict[str, float] = {}
        look: dict[str, Any] = {"bar_format": BAR, "dynamic_ncols": True}
        if self._in_notebook:
            look = {"bar_format": NOTEBOOK_BAR}
        self._bar = self._tqdm(total=epochs * samples, **look)
        self._start_epoch(1)
        self._show({})
        self._bar.refresh()

    def step(self, rows: int, running: Callable[[], Values]) -> None:
        now = time.perf_counter()
        self._rows += rows
        if now - self._refreshed > REFRESH:
            self._refreshed = now
            self._show({**running(), **self._validation}, self._rows / (now - self._started))
        self._bar.update(rows)

    def epoch(self, number: int, values: Values, seconds: float) -> None:
        self._validation = {k: v for k, v in values.items() if k.startswith("val_")}
        self._show(values, self.samples / max(seconds, 1e-9))
        self._start_epoch(number + 1)

    def stopped(self, number: int, why: str) -> None:
        self._bar.total = self._bar.n  # what ends early is complete, not a failure
        self.remark(f"stopped after epoch {number}: {why}")

    def remark(self, text: str) -> None:
        if self._in_notebook:
            print(text, flush=True)
        else:
            self._tqdm.write(text, file=sys.stderr)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def _start_epoch(self, number: int) -> None:
        self._number, self._rows = number, 0
        self._started = self._refreshed = time.perf_counter()

    def _show(self, values: Values, speed: float = 0.0) -> None:
        words = [f"epoch {self._number:>{len(str(self.epochs))}}/{self.epochs}"]
        words += [f"{name} {show(value)}" for name, value in values.items()]
        if speed:
            words.append(f"{self._tqdm.format_sizeof(speed)} {self.unit}/s")
        columns = self._bar.format_dict["ncols"] or 80
        if self._in_notebook:
            line = fitting(words, NOTEBOOK_COLUMNS, "  ")
        elif columns >= WIDE:
            self._bar.bar_format, line = BAR, fitting(words, columns - BAR_COLUMNS, "  ")
        else:
            self._bar.bar_format, line = "{desc}", fitting(words, columns, " ")
        self._bar.set_description_str(line, refresh=False)


def fitting(words: list[str], columns: int, gap: str) -> str:
    """Join words to a line, without those that do not fit in it.

    The words are epoch, loss, other values and speed. Left out first are values, from the last
    one, then the epoch, then the speed.
    """
    words = words.copy()
    while len(words) > 1 and len(gap.join(words)) > columns:
        del words[{2: 1, 3: 0}.get(len(words), -2)]
    return gap.join(words)[:columns]


def choose(progress: str | bool | Progress) -> Progress:
    """Return the ``Progress`` that ``Trainer.fit(progress=...)`` means.

    ``"auto"`` or True is a bar if tqdm is installed and standard error is a terminal, or this is a
    notebook with ipywidgets; else lines. ``"bar"`` and ``"lines"`` are just these; ``"none"`` or
    False shows nothing.
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
        terminal = sys.stderr is not None and sys.stderr.isatty()
        return Bar() if terminal or can_show_widgets() else Lines()
    except ImportError:
        return Lines()


def can_show_widgets() -> bool:
    """Whether this process is the kernel of a notebook that has ipywidgets."""
    ask = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)
    running = ask()
    in_kernel = running is not None and "IPKernelApp" in running.config
    return in_kernel and importlib.util.find_spec("ipywidgets") is not None
