"""Callbacks: objects that are notified of the events of a training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from minidl.nn.watching import watches_around
from minidl.optim.schedules import ReduceOnPlateau

Values = Mapping[str, float]


class Callback:
    """Base of callbacks, which does nothing; subclasses override the events they want.

    Every method gets the ``Trainer``, the number of the epoch, counted from 1, and values by name.
    Of the trainer a callback may use ``model``, ``optimizer``, ``history``, ``stop()``, and
    ``plan``: what ``fit`` was asked for, such as ``plan.epochs`` and ``len(plan.data)``. If a
    callback raises, training ends with that exception.

    A callback that overrides ``on_batch_begin`` or ``on_batch_end`` costs speed: steps are then
    made one at a time, and not a whole epoch at once. What they compute is the same.

    Attributes
    ----------
    monitor
        The name of a value that the callback needs, or None; ``fit`` checks that there is one.
    value_names
        Names of values that the callback adds to those of every epoch, and to the history.

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
    value_names: tuple[str, ...] = ()
    is_last = False  # whether it is notified after all others

    # `trainer` is a Trainer, whose module imports this one.

    def on_train_begin(self, trainer: Any, epoch: int, values: Values) -> None:
        """React to the beginning of ``fit``: epoch 0, no values."""

    def on_train_end(self, trainer: Any, epoch: int, values: Values) -> None:
        """React to the end of the last epoch, given its values; not called after an error."""

    def on_epoch_begin(self, trainer: Any, epoch: int, values: Values) -> None:
        """React to the beginning of an epoch; ``values`` are those of the one before, if any."""

    def on_epoch_end(self, trainer: Any, epoch: int, values: Values) -> None:
        """React to the end of an epoch: loss, metrics, and with validation ``val_loss`` etc."""

    def on_batch_begin(self, trainer: Any, epoch: int, values: Values) -> None:
        """React to the beginning of a step; ``values["batch"]`` is its number, from 0."""

    def on_batch_end(self, trainer: Any, epoch: int, values: Values) -> None:
        """React to the end of a step: ``values["batch"]``, and its ``values["loss"]``."""

    def on_rows(self, trainer: Any, epoch: int, rows: int, running: Callable[[], Values]) -> None:
        """React to ``rows`` more rows, trained in one step or several; costs no speed.

        ``running()`` computes the values of the epoch so far, without those of metrics that are
        functions of all rows.
        """

    def between_steps(self, trainer: Any, epoch: int) -> None:
        """React when all callbacks have been told of the latest steps; costs no speed.

        What ``trainer.save`` writes then can be resumed at this very place.
        """

    def resume_state(self) -> dict[str, Any]:
        """Return what the callback needs to go on after ``Trainer.load``: numbers, words, arrays.

        They may be in lists, tuples and dicts. Without any, the callback begins anew.
        """
        return {}

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from what ``resume_state`` has returned; called after ``on_train_begin``."""

    def epoch_values(self, optimizer: Any) -> Values:
        """Return the values of ``value_names`` for the epoch that ends."""
        return {}

    def step_watch(self, model: Any, optimizer: Any, loss: Any) -> Any:
        """Return what is to watch the steps of these parts, or None: as a GradientMonitor does."""
        return None

    def on_fit_end(self, trainer: Any, epoch: int, values: Values) -> None:
        """``fit`` returns or raises: called last, and always if training has begun."""


class LowerRateOnPlateau(Callback):
    """Hands a value of every epoch to a ``ReduceOnPlateau``."""

    def __init__(self, plateau: ReduceOnPlateau) -> None:
        self.plateau, self.monitor = plateau, plateau.monitor

    def on_epoch_end(self, trainer: Any, epoch: int, values: Values) -> None:
        self.plateau.observe(values[self.plateau.monitor])

    def resume_state(self) -> dict[str, Any]:
        """Return what it has observed."""
        plateau = self.plateau
        return {"best": plateau.best, "waited": plateau.waited, "cooling": plateau.cooling}

    def resume(self, state: dict[str, Any]) -> None:
        """Go on with what it had observed."""
        plateau = self.plateau
        plateau.best, plateau.waited = float(state["best"]), int(state["waited"])
        plateau.cooling = int(state["cooling"])


class Callbacks:
    """Notifies all callbacks of a ``fit``.

    Parameters
    ----------
    callbacks
        Those that ``fit`` was given.
    trainer
        The ``Trainer`` that they get.
    names
        Of the values that there will be.
    progress
        A callback that comes before all others.

    Attributes
    ----------
    per_step
        Whether a callback is to be notified of every step.
    error
        The FloatingPointError that a callback has raised, which is none of a step; or None.

    Raises
    ------
    TypeError
        For what is no callback.
    ValueError
        For one that needs a value which there will not be, or of another optimizer.
    """

    def __init__(self, callbacks: Any, trainer: Any, names: list[str], progress: Callback) -> None:
        if isinstance(callbacks, (Callback, ReduceOnPlateau)) or not isinstance(
            callbacks, Iterable
        ):
            raise TypeError(f"callbacks must be a list of callbacks, got {callbacks!r}")
        self._trainer = trainer
        self.error: FloatingPointError | None = None
        self._list = [progress, *(as_callback(callback, trainer) for callback in callbacks)]
        self._list += monitor_around(trainer.optimizer, self._list)
        self._list.sort(key=lambda callback: callback.is_last)  # stable
        self._watcher = the_watcher(self._list)
        self.names = [*names, *(name for each in self._list for name in each.value_names)]
        for callback in self._list:
            check_monitor(callback, self.names)
        self.per_step = any(
            getattr(getattr(callback, name), "__func__", None) is not vars(Callback)[name]
            for callback in self._list
            for name in ("on_batch_begin", "on_batch_end")
        )

    def notify(self, event: str, epoch: int, values: Values) -> None:
        """Call a method of every callback, such as ``on_epoch_end``."""
        try:
            for callback in self._list:
                getattr(callback, event)(self._trainer, epoch, dict(values))
        except FloatingPointError as error:
            self.error = error
            raise

    def epoch_values(self, optimizer: Any) -> dict[str, float]:
        """Return the values that callbacks add to those of the epoch that ends."""
        values: dict[str, float] = {}
        for callback in self._list:
            given = callback.epoch_values(optimizer) if callback.value_names else {}
            values |= {name: given[name] for name in callback.value_names}
        return values

    def step_watch(self, model: Any, optimizer: Any, loss: Any) -> Any:
        """Return what watches the steps of these parts, or None."""
        return self._watcher.step_watch(model, optimizer, loss)

    def between_steps(self, epoch: int) -> None:
        """Call ``between_steps`` of every callback."""
        for callback in self._list:
            callback.between_steps(self._trainer, epoch)

    def resume_states(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the state of every callback that has one, with the name of its class."""
        found = ((type(callback).__name__, callback.resume_state()) for callback in self._list)
        return [(name, state) for name, state in found if state]

    def resume(self, states: Iterable[tuple[str, dict[str, Any]]]) -> None:
        """Hand each state to the callback whose it was: by class, and within it by order.

        Raises
        ------
        ValueError
            If there is no such callback.
        """
        left = list(self._list)
        for name, state in states:
            for callback in left:
                if type(callback).__name__ == name:
                    left.remove(callback)
                    callback.resume(dict(state))
                    break
            else:
                shown = "ReduceOnPlateau" if name == LowerRateOnPlateau.__name__ else name
                raise ValueError(
                    f"fit: the training that was loaded had a {shown}, and there is none now; give "
                    "fit the same callbacks"
                )

    def notify_rows(self, epoch: int, rows: int, running: Callable[[], Values]) -> None:
        """Call ``on_rows`` of every callback."""
        try:
            for callback in self._list:
                callback.on_rows(self._trainer, epoch, rows, running)
        except FloatingPointError as error:
            self.error = error
            raise


def monitor_around(optimizer: Any, callbacks: list[Callback]) -> list[Callback]:
    """List the monitor whose block, around ``fit``, watches the steps; no callback is listed twice.

    Else recorded steps would be watched by callbacks only, and eager ones by the block.
    """
    found = (watch.monitor for watch in watches_around() if watch.optimizer is optimizer)
    return [monitor for monitor in found if not any(monitor is known for known in callbacks)]


def the_watcher(callbacks: list[Callback]) -> Callback:
    """Return the one callback that watches steps, or one that does not."""
    found = [c for c in callbacks if type(c).step_watch is not Callback.step_watch]
    if len(found) > 1:
        raise ValueError(
            f"fit: {len(found)} callbacks watch the steps, and one is enough: give one "
            "GradientMonitor the layers of all (that of a block around fit is one of them)"
        )
    return found[0] if found else callbacks[0]


def as_callback(callback: Any, trainer: Any) -> Callback:
    """Return the callback; of a ``ReduceOnPlateau``, one that hands it values."""
    if isinstance(callback, ReduceOnPlateau):
        if callback.optimizer is not trainer.optimizer:
            raise ValueError(
                "ReduceOnPlateau: its optimizer is not the trainer's: it would lower the rate of "
                f"{callback.optimizer!r}"
            )
        return LowerRateOnPlateau(callback)
    if isinstance(callback, Callback):
        return callback
    got = f"the class {callback.__name__}" if isinstance(callback, type) else repr(callback)
    raise TypeError(f"a callback must be an instance of minidl.training.Callback, got {got}")


def check_monitor(callback: Callback, names: list[str]) -> None:
    """Raise ValueError if the callback needs a value that is none of these."""
    if callback.monitor is None or callback.monitor in names:
        return
    lowers_rate = isinstance(callback, LowerRateOnPlateau)
    owner = "ReduceOnPlateau" if lowers_rate else type(callback).__name__
    cure = "; give fit a validation set" * (callback.monitor.removeprefix("val_") in names)
    raise ValueError(
        f"{owner}: there will be no value {callback.monitor!r}, only {', '.join(names)}{cure}"
    )
