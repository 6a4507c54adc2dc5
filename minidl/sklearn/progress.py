"""What the epochs of an estimator measure, when they end, and what they show."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from minidl import optim
from minidl.sklearn.parameters import TrainingParameters
from minidl.training import Callback
from minidl.training.callbacks import Values
from minidl.training.history import show
from minidl.training.progress import Lines
from minidl.typing import Array

SMALLEST_RATE = 1e-6  # "adaptive" does not go below it
ADAPTIVE_FACTOR = 5.0


@dataclass
class Curves:
    """What all epochs since the network was made have measured.

    ``best`` is the least loss, or of early stopping the highest score. ``unimproved`` counts the
    epochs in a row that were no better by ``tol``; ``rows`` those that were trained on, each as
    often as it was. ``kept`` are the weights of the best epoch. ``ended`` says whether the latest
    training has ended by itself; ``criterion`` is the ``early_stopping`` that has judged epochs.
    """

    loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    best: float = -math.inf
    unimproved: int = 0
    epochs: int = 0
    rows: int = 0
    ended: bool = False
    criterion: bool | str = False
    kept: list[Array] = field(default_factory=list)

    def start_again(self) -> None:
        """Forget what was best, and how often nothing has improved."""
        self.best, self.unimproved, self.kept = -math.inf, 0, []


class Convergence(Callback):
    """Notes loss and score of every epoch, and ends a training that no longer improves.

    An epoch is no improvement if its loss is above the least so far - ``tol``; with early stopping,
    if its score is below the highest so far + ``tol``. More than ``n_iter_no_change`` of them in a
    row end the training; with the rate ``"adaptive"`` they divide it by 5 instead, until it is
    1e-6.

    Parameters
    ----------
    parameters
        Of the estimator.
    curves
        To which values are added.
    score
        Computes the score on validation data; None: there are none.
    final
        Whether the training ends with the weights of the best epoch, if they were kept, even if
        it was still improving.
    """

    def __init__(
        self,
        parameters: TrainingParameters,
        curves: Curves,
        score: Callable[[], float] | None,
        final: bool,
    ) -> None:
        self.parameters, self.curves = parameters, curves
        self.score, self.final = score, final
        self.noted = 0  # epochs, in this training

    def on_train_begin(self, trainer: Any, epoch: int, values: Values) -> None:
        """Begin to count epochs; forget what was best by another criterion."""
        self.curves.epochs, self.curves.ended = 0, False
        if self.curves.criterion != self.parameters.early_stopping:
            self.curves.start_again()
            self.curves.criterion = self.parameters.early_stopping

    def on_epoch_end(self, trainer: Any, epoch: int, values: Values) -> None:
        """Note the values; stop, or lower the rate, if they have not improved for long."""
        parameters, curves = self.parameters, self.curves
        curves.epochs = epoch
        self.note(values, len(trainer.plan.data))
        self._compare(trainer)
        if parameters.learning_rate == "invscaling" and parameters.solver == "sgd":
            rate = parameters.learning_rate_init / (curves.rows + 1) ** parameters.power_t
            change_rate(trainer.optimizer, rate)
        if curves.unimproved > parameters.n_iter_no_change:
            self._stop_or_slow_down(trainer)

    def note(self, values: Values, rows: int) -> None:
        """Note losses and score of an epoch, on so many rows."""
        curves, score = self.curves, None if self.score is None else self.score()
        self.noted += 1
        curves.rows += rows
        curves.loss.append(values["loss"])
        if score is not None:
            curves.validation_loss.append(values["val_loss"])
            curves.scores.append(score)

    def note_iterations(self, trainer: Any, rows: int) -> None:
        """Note what an optimizer did that makes all its iterations in one step, on so many rows."""
        optimizer, curves = trainer.optimizer, self.curves
        curves.epochs = optimizer.iterations
        curves.rows += max(0, optimizer.evaluations - 1) * rows  # one is counted as an epoch
        curves.ended = not optimizer.reason.startswith("limit")

    def _compare(self, trainer: Any) -> None:
        """Count this epoch as an improvement or not; keep its weights if it is the best."""
        parameters, curves = self.parameters, self.curves
        value = -curves.loss[-1]
        if parameters.early_stopping:
            by_loss = parameters.early_stopping == "loss"
            value = -curves.validation_loss[-1] if by_loss else curves.scores[-1]
        improved = value >= curves.best + parameters.tol
        curves.unimproved = 0 if improved else curves.unimproved + 1
        if value > curves.best:
            curves.best = value
            keep = parameters.early_stopping and parameters.restore_best
            curves.kept = [array.copy() for array in trainer.lasting()] if keep else []

    def _stop_or_slow_down(self, trainer: Any) -> None:
        parameters, rate = self.parameters, trainer.optimizer.lr
        adaptive = parameters.solver == "sgd" and parameters.learning_rate == "adaptive"
        if adaptive and rate > SMALLEST_RATE:
            change_rate(trainer.optimizer, rate / ADAPTIVE_FACTOR)
            self.curves.unimproved = 0
            return
        self.curves.ended = True
        what = "validation score" if parameters.early_stopping is True else "loss"
        patience = parameters.n_iter_no_change
        trainer.stop(
            f"the {what} has not improved by {parameters.tol:g} for more than {patience} epochs"
        )

    def on_train_end(self, trainer: Any, epoch: int, values: Values) -> None:
        """Go back to the weights of the best epoch, if no more are to follow."""
        if self.final or self.curves.ended:
            self.restore(trainer)

    def restore(self, trainer: Any) -> None:
        """Give the network the weights of the best epoch, if they were kept."""
        kept = self.curves.kept if self.parameters.restore_best else []
        for array, best in zip(trainer.lasting(), kept, strict=False):
            array[...] = best


def change_rate(optimizer: optim.SGD, rate: float) -> None:
    """Set the rate of the gradients to come; steps already under way go on, as in scikit-learn.

    ``SGD`` multiplies the whole velocity by the rate: what is in it is scaled to make up for that.
    """
    optimizer.velocity *= optimizer.lr / rate
    optimizer.lr = rate


class IterationLines(Lines):
    """Prints a line for every epoch, in scikit-learn's words."""

    def epoch(self, number: int, values: Values, seconds: float) -> None:
        words = [f"Iteration {number}", f"loss = {values['loss']:.8f}"]
        words += [f"{name} = {show(v)}" for name, v in values.items() if name != "loss"]
        print(", ".join(words), flush=True)


def shown(verbose: bool | int | str) -> Any:
    """Return what ``Trainer.fit(progress=...)`` is to show for ``verbose``."""
    if verbose == "bar":
        return "bar"
    return IterationLines() if verbose else False
