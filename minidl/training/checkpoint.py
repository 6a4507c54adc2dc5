"""``Checkpoint``: a training on disk again and again, so that it can go on after a crash."""

from __future__ import annotations

import math
import re
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minidl.files import AnyPath, as_path
from minidl.monitor import good_mode
from minidl.nn.checks import check_count, check_number
from minidl.saving import ModelFileError, metadata
from minidl.training.callbacks import Callback, Values
from minidl.training.resuming import losses_of

if TYPE_CHECKING:
    from minidl.training.trainer import Trainer

NAME = re.compile(r"epoch-(\d{5,})(?:-row-(\d{9,}))?\.safetensors")
BEST = "best.safetensors"


class Checkpoint(Callback):
    """Save the training every few epochs or minutes, so that it can go on after a crash.

    Files are those of ``Trainer.save``. Each is written whole or not at all, and is on the disk
    before an older one is removed. ``Trainer.load(checkpoint.latest)`` and the same ``fit`` go on;
    ``minidl.load`` gives the model of any of them.

    Training may also go on from an older file: those beyond it are then removed before the first
    new one is written; or after that, if they are all that the folder has.

    Parameters
    ----------
    folder
        Where to write ``epoch-00012.safetensors`` and so on; it is made if it is not there.
    every
        Save after so many epochs, ≥ 1; None: only by time.
    minutes
        Save after so many minutes ≥ 0 too, also within an epoch; None: only between epochs.
    keep
        How many of the latest files are kept, ≥ 1.
    best
        The name of a value, such as ``"val_loss"``: the training of the epoch in which it was best
        is kept as ``best.safetensors``. None: no such file.
    mode
        ``"min"`` or ``"max"``: which values are good; by default what the name says.

    Raises
    ------
    TypeError
        For a folder, number or name that is none.
    ValueError
        For values outside these ranges, and a ``mode`` without ``best``; in ``fit``, if the folder
        holds checkpoints of a training that was not loaded.

    Examples
    --------
    >>> import tempfile
    >>> from minidl import datasets, nn, optim
    >>> from minidl.training import Checkpoint, Trainer
    >>> data, folder = datasets.digits(), tempfile.mkdtemp()
    >>> def train(epochs):
    ...     model = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10), rng=0)
    ...     trainer = Trainer(model, nn.CrossEntropyLoss(), optim.Adam(model.parameters()), rng=0)
    ...     checkpoint = Checkpoint(folder)
    ...     if checkpoint.latest:
    ...         trainer.load(checkpoint.latest)
    ...     return trainer.fit(
    ...         data.x_train, data.y_train, epochs, callbacks=[checkpoint], progress=False
    ...     )
    >>> train(2).epochs  # and then the lights go out
    2
    >>> train(3).epochs
    3
    """

    is_last = True

    def __init__(
        self,
        folder: AnyPath,
        every: int | None = 1,
        minutes: float | None = None,
        keep: int = 2,
        best: str | None = None,
        mode: str | None = None,
    ) -> None:
        self.folder = as_path(folder)
        self.every = None if every is None else check_count("Checkpoint", "every", every)
        if minutes is not None:
            minutes = check_number("Checkpoint", "minutes", minutes, 0, math.inf)
        if every is None and minutes is None:
            raise ValueError("Checkpoint: every=None and minutes=None would never save")
        self.minutes = minutes
        self.keep = check_count("Checkpoint", "keep", keep)
        if best is None and mode is not None:
            raise ValueError(
                f"Checkpoint: mode={mode!r} says which values of best are good, and best is None"
            )
        self.monitor = best
        self.mode = None if best is None else good_mode("Checkpoint", best, mode)
        self._best = math.inf if self.mode == "min" else -math.inf
        self._saved: list[Path] = []  # by this training, the oldest first
        self._stale: list[Path] = []  # by an earlier ``fit`` with this very callback
        self._abandoned: list[Path] = []  # beyond the one from which this training went on
        self._name = ""  # that says how far the training was when it was last saved
        self._is_new = True
        self._is_resumed = False  # and no epoch has begun yet
        self._saved_at = time.monotonic()

    @property
    def latest(self) -> Path | None:
        """The file that is farthest in the training; None if there is none yet.

        One that is damaged is passed over, with a warning.
        """
        for path in sorted(self._files(), key=_progress, reverse=True):
            try:
                metadata(path)  # checks the whole file
                return path
            except (OSError, ModelFileError) as error:
                warnings.warn(f"Checkpoint passes over {error}", RuntimeWarning, stacklevel=2)
        return None

    def _files(self) -> list[Path]:
        with suppress(FileNotFoundError):
            return [p for p in self.folder.iterdir() if NAME.fullmatch(p.name) and p.is_file()]
        return []

    def on_train_begin(self, trainer: Trainer, epoch: int, values: Values) -> None:
        """Make the folder, and begin to count."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._stale = [*self._stale, *self._abandoned, *self._saved]
        self._saved, self._abandoned, self._is_new = [], [], True
        self._best = math.inf if self.mode == "min" else -math.inf
        self._saved_at = time.monotonic()

    def resume_state(self) -> dict[str, Any]:
        """Return the best value so far, and the name that says how far the training is."""
        return {"best": self._best, "name": self._name}

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from the files that are there."""
        self._best, self._is_new, self._is_resumed = float(state["best"]), False, True
        self._name = str(state.get("name", ""))
        files = sorted(self._files(), key=_progress)
        here = _progress(self.folder / self._name) if NAME.fullmatch(self._name) else None
        self._saved = [path for path in files if here is None or _progress(path) <= here]
        self._abandoned = files[len(self._saved) :]

    def on_epoch_begin(self, trainer: Trainer, epoch: int, values: Values) -> None:
        """Refuse to mix the files of two trainings."""
        others = set(self._files()).difference(self._stale)
        if (self._is_new and others) or (self._is_resumed and self._are_others(trainer)):
            raise ValueError(
                f"Checkpoint: {self.folder} holds {len(others)} checkpoints of another training: "
                "trainer.load(checkpoint.latest) goes on with it, and a new training needs another "
                "folder"
            )
        self._is_new = self._is_resumed = False

    def _are_others(self, trainer: Trainer) -> bool:
        """Return whether the latest file had other losses in the epochs that both have."""
        for path in sorted(self._files(), key=_progress, reverse=True):
            with suppress(OSError, ModelFileError):
                pairs = zip(losses_of(path), trainer.history.get("loss", []), strict=False)
                return any(there != here for there, here in pairs)
        return False

    def on_epoch_end(self, trainer: Trainer, epoch: int, values: Values) -> None:
        """Save the best, and every few epochs the latest."""
        name = f"epoch-{epoch:05}.safetensors"
        if self.monitor is not None:
            value = values[self.monitor]
            if value < self._best if self.mode == "min" else value > self._best:
                self._best, self._name = value, name  # the best has no number in its own name
                trainer.save(self.folder / BEST)
        if (self.every is not None and epoch % self.every == 0) or self._time_is_up:
            self._save(trainer, name)

    def between_steps(self, trainer: Trainer, epoch: int) -> None:
        """Save within an epoch, if it is time."""
        if self._time_is_up:
            assert trainer.plan is not None
            assert trainer.plan.course.epoch is not None
            done = trainer.plan.course.epoch.done
            self._save(trainer, f"epoch-{epoch - 1:05}-row-{done:09}.safetensors")

    @property
    def _time_is_up(self) -> bool:
        if self.minutes is None:
            return False
        return time.monotonic() - self._saved_at >= 60 * self.minutes

    def _save(self, trainer: Trainer, name: str) -> None:
        """Save the latest, and remove what is older than those that are kept."""
        path, self._name = self.folder / name, name
        if self._saved:  # a kill leaves these; the latest would else be one that is abandoned
            for abandoned in self._abandoned:
                abandoned.unlink(missing_ok=True)
        trainer.save(path)
        self._saved_at = time.monotonic()
        self._saved = [other for other in self._saved if other != path] + [path]
        for old in [*self._stale, *self._abandoned, *self._saved[: -self.keep]]:
            if old != path:
                old.unlink(missing_ok=True)
        self._stale, self._abandoned, self._saved = [], [], self._saved[-self.keep :]

    def __repr__(self) -> str:
        return f"Checkpoint({str(self.folder)!r}, every={self.every}, minutes={self.minutes})"


def _progress(path: Path) -> tuple[int, int]:
    """Return how far the training of a file was: complete epochs, and rows of the next."""
    match = NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1]), int(match[2] or 0)
