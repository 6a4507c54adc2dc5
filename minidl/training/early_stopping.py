"""Early stopping: end a training that no longer improves, with its best weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from minidl.monitor import good_mode
from minidl.nn.checks import check_count, check_number
from minidl.training.callbacks import Callback, Values
from minidl.training.history import show
from minidl.typing import Array

if TYPE_CHECKING:
    from minidl.training.trainer import Trainer


class EarlyStopping(Callback):
    """Stop when a value has not improved for some epochs, and go back to the best ones.

    Parameters
    ----------
    monitor
        The name of the value: ``"val_loss"`` needs ``validation``.
    patience
        Training stops after so many epochs in a row without an improvement, ≥ 1.
    min_delta
        How much better than the best so far is an improvement, ≥ 0.
    mode
        ``"min"`` or ``"max"``: which values are good; by default what the name says, which it
        does for the loss and the metrics known by name.
    restore_best
        Whether training ends (also after all its epochs) with the parameters and the layers'
        state (running statistics, generators) of the best epoch, and the averages of the
        trainer's ``ema``; if Ctrl-C ends it, ``restore(trainer)`` does that. The optimizer keeps
        its moments and its count of steps, and the order of the rows goes on: a ``fit`` after
        that begins at the best weights, with the moments of the last.

    Attributes
    ----------
    best, best_epoch
        The best value, and the epoch whose it is; NaN is never the best.

    Raises
    ------
    ValueError
        For values outside these ranges, and for a name that does not say which values are good.

    Examples
    --------
    >>> from minidl import datasets, nn, optim
    >>> from minidl.training import EarlyStopping, Trainer
    >>> data = datasets.digits()
    >>> model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10), rng=0)
    >>> optimizer = optim.Adam(model.parameters(), lr=0.01)
    >>> trainer = Trainer(model, nn.CrossEntropyLoss(), optimizer, rng=0)
    >>> stopping = EarlyStopping("val_loss", patience=3)
    >>> history = trainer.fit(
    ...     data.x_train,
    ...     data.y_train,
    ...     epochs=100,
    ...     validation=(data.x_test, data.y_test),
    ...     progress=False,
    ...     callbacks=[stopping],
    ... )
    >>> history.epochs == stopping.best_epoch + 3 < 100
    True
    >>> trainer.evaluate(data.x_test, data.y_test)["loss"] == min(history["val_loss"])
    True
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 5,
        min_delta: float = 0.0,
        mode: str | None = None,
        restore_best: bool = True,
    ) -> None:
        self.monitor = monitor
        self.mode = good_mode("EarlyStopping", monitor, mode)
        self.patience = check_count("EarlyStopping", "patience", patience)
        self.min_delta = check_number("EarlyStopping", "min_delta", min_delta, 0, math.inf)
        self.restore_best = restore_best
        self._begin()

    def _begin(self) -> None:
        self.best = math.inf if self.mode == "min" else -math.inf
        self.best_epoch = 0
        self._kept: list[Array] = []

    def on_train_begin(self, trainer: Trainer, epoch: int, values: Values) -> None:
        """Forget what was best in an earlier training."""
        self._begin()

    def on_epoch_end(self, trainer: Trainer, epoch: int, values: Values) -> None:
        """Keep the best, or stop."""
        assert self.monitor is not None
        value = values[self.monitor]
        gain = self.best - value if self.mode == "min" else value - self.best
        if gain > self.min_delta:
            self.best, self.best_epoch = value, epoch
            if self.restore_best:
                self._kept = [array.copy() for array in trainer.lasting()]
        elif epoch - self.best_epoch >= self.patience:
            why = f"{self.monitor} was best in epoch {self.best_epoch} ({show(self.best)})"
            why += ", whose weights are restored" if self._kept else ""
            trainer.stop(why if self.best_epoch else f"{self.monitor} was never a number")

    def on_train_end(self, trainer: Trainer, epoch: int, values: Values) -> None:
        """Go back to the best epoch."""
        if self._kept and self.best_epoch != epoch:
            self.restore(trainer)
        self._kept = []

    def resume_state(self) -> dict[str, Any]:
        """Return the best value, its epoch, and what is kept of it."""
        return {"best": self.best, "best_epoch": self.best_epoch, "kept": self._kept}

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from the best so far."""
        self.best, self.best_epoch = float(state["best"]), int(state["best_epoch"])
        self._kept = list(state["kept"])

    def restore(self, trainer: Trainer) -> None:
        """Go back to the best epoch, after Ctrl-C or an error has ended the training.

        Raises
        ------
        RuntimeError
            If there is none, or the training came to its end and has gone back by itself.
        """
        if not self._kept:
            raise RuntimeError("EarlyStopping: there is no best epoch to go back to")
        for array, best in zip(trainer.lasting(), self._kept, strict=True):
            array[...] = best

    def __repr__(self) -> str:
        return f"EarlyStopping({self.monitor!r}, patience={self.patience}, mode={self.mode!r})"
