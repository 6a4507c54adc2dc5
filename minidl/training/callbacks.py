"""What a program does between epochs or steps of a training: callbacks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from minidl.nn.checks import check_count, check_number
from minidl.optim.schedules import ReduceOnPlateau, usual_mode
from minidl.training.history import show
from minidl.typing import Array

if TYPE_CHECKING:
    from minidl.training.trainer import Trainer

Values = Mapping[str, float]


class Callback:
    """Does nothing; subclasses override what they want to hear of.

    Every method gets the trainer, whose ``model``, ``optimizer``, ``history`` and ``stop()`` are
    there to be used, the number of the epoch, counted from 1, and values by name. What a callback
    raises ends the training.

    A callback that overrides ``on_batch_begin`` or ``on_batch_end`` costs speed: steps are then
    made one at a time, and not a whole epoch at once. What they compute is the same.

    Attributes
    ----------
    monitor
        The name of a value that the callback needs, or None; ``fit`` checks that there is one.

    Examples
    --------
    >>> from minidl import datasets, nn, optim
    >>> from minidl.training import Callback, Trainer
    >>> class StopWhenGood(Callback):
    ...     def on_epoch_end(self, trainer, epoch, values):
    ...         if values["accuracy"] > 0.9:
    ...             trainer.stop()
    >>> data = datasets.digits()
    >>> model = nn.Linear(64, 10, rng=0)
    >>> trainer = Trainer(model, nn.CrossEntropyLoss(), optim.Adam(model.parameters()), rng=0)
    >>> history = trainer.fit(
    ...     data.x_train, data.y_train, epochs=100, progress=False, callbacks=[StopWhenGood()]
    ... )
    >>> history["accuracy"][-1] > 0.9, history.epochs < 100
    (True, True)
    """

    monitor: str | None = None

    def on_train_begin(self, trainer: Trainer, epoch: int, values: Values) -> None:
        """``fit`` begins: epoch 0, no values."""

    def on_train_end(self, trainer: Trainer, epoch: int, values: Values) -> None:
        """The last epoch is over, and its values; not called if an error ends the training."""

    def on_epoch_begin(self, trainer: Trainer, epoch: int, values: Values) -> None:
        """An epoch begins; values are those of the one before, if there was one."""

    def on_epoch_end(self, trainer: Trainer, epoch: int, values: Values) -> None:
        """An epoch is over: loss, metrics, and with validation ``val_loss`` and so on."""

    def on_batch_begin(self, trainer: Trainer, epoch: int, values: Values) -> None:
        """A step is about to be made; ``values["batch"]`` is its number in the epoch, from 0."""

    def on_batch_end(self, trainer: Trainer, epoch: int, values: Values) -> None:
        """A step was made: ``values["batch"]``, and its ``values["loss"]``."""


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
        if mode not in ("min", "max", None):
            raise ValueError(f'EarlyStopping: mode must be "min" or "max", got {mode!r}')
        self.monitor = monitor
        self.mode = mode or usual_mode("EarlyStopping", monitor)
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


class _ReduceOnPlateau(Callback):
    """A ``ReduceOnPlateau`` that observes a value of every epoch."""

    def __init__(self, plateau: ReduceOnPlateau) -> None:
        self.plateau, self.monitor = plateau, plateau.monitor

    def check(self, trainer: Trainer) -> None:
        if self.plateau.optimizer is not trainer.optimizer:
            raise ValueError(
                "ReduceOnPlateau: its optimizer is not the trainer's: it would lower the rate of "
                f"{self.plateau.optimizer!r}"
            )

    def on_epoch_end(self, trainer: Trainer, epoch: int, values: Values) -> None:
        self.plateau.observe(values[self.plateau.monitor])


class Callbacks:
    """All callbacks of a ``fit``.

    Raises
    ------
    TypeError
        For what is no callback.
    ValueError
        For one that needs a value which there will not be, or of another optimizer.
    """

    def __init__(self, callbacks: Any, trainer: Trainer, names: list[str]) -> None:
        if isinstance(callbacks, (Callback, ReduceOnPlateau)) or not isinstance(
            callbacks, Iterable
        ):
            raise TypeError(f"callbacks must be a list of callbacks, got {callbacks!r}")
        self._trainer = trainer
        self._list = [as_callback(callback) for callback in callbacks]
        for callback in self._list:
            if isinstance(callback, _ReduceOnPlateau):
                callback.check(trainer)
            if callback.monitor is not None and callback.monitor not in names:
                known = callback.monitor.removeprefix("val_") in names
                raise ValueError(
                    f"{type(callback).__name__.lstrip('_')}: there will be no value "
                    f"{callback.monitor!r}, only {', '.join(names)}"
                    + "; give fit a validation set"
                    * known
                )
        # Whether any wants to hear of every step.
        self.per_batch = any(
            getattr(getattr(callback, name), "__func__", None) is not vars(Callback)[name]
            for callback in self._list
            for name in ("on_batch_begin", "on_batch_end")
        )

    def tell(self, event: str, epoch: int, values: Values) -> None:
        """Call a method of every callback, such as ``on_epoch_end``."""
        for callback in self._list:
            getattr(callback, event)(self._trainer, epoch, dict(values))


def as_callback(callback: Any) -> Callback:
    """The callback, or what makes one of a ``ReduceOnPlateau``."""
    if isinstance(callback, ReduceOnPlateau):
        return _ReduceOnPlateau(callback)
    if isinstance(callback, Callback):
        return callback
    got = f"the class {callback.__name__}" if isinstance(callback, type) else repr(callback)
    raise TypeError(f"a callback must be an instance of minidl.training.Callback, got {got}")
