"""Closing rules: what ``Trainer.fit`` can say at the end without another step.

They see the history and the trained model's answers for some rows, and nothing is tried. So they
speak only where a training has learned nothing at all, has become worse, or has stopped far from
the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from minidl.diagnosis.task import answers, decided, error, task_of
from minidl.nn import Layer, Loss, ReLU
from minidl.nn.hooks import evaluating
from minidl.nn.watching import watching
from minidl.typing import Array

ROWS = 512  # whose answers are looked at
# Nothing is learned from this error on: 1 is that of one answer for all rows.
NOTHING = 0.99
# A loss that ends above this share of its first epoch's has hardly fallen.
UNCHANGED = 0.9
# Share of the units of a layer that are zero for all rows, of a model that learns nothing.
DEAD = 0.9
# A loss that ends so many times as high as its first epoch's has diverged.
DIVERGED = 2.0
# Share of the loss that the last fifth of the epochs still takes away, and the error at the end.
FALLS, UNFINISHED = 0.2, 0.6
LEAST_EPOCHS = 5
# How many times the least validation loss the last one is, while that of training goes on falling.
OVERFITTED = 1.5


@dataclass(frozen=True)
class Ending:
    """What closing rules look at.

    Attributes
    ----------
    history
        The values of all epochs, by name.
    error
        Of some of the rows trained on: 0 is perfect, 1 as good as one answer for all.
    own_loss
        Whether the loss is one of the user's own.
    dead
        The largest share of rectified units of a layer that are zero for all of these rows, and
        the layer.
    counts
        Whether answers are right or wrong.
    """

    history: Mapping[str, Sequence[float]]
    error: float
    dead: tuple[float, str]
    own_loss: bool
    counts: bool

    @property
    def losses(self) -> Sequence[float]:
        """Of all epochs."""
        return self.history["loss"]


def diverged(ending: Ending) -> Iterator[str]:
    """The loss ended far above that of its first epoch, and nothing is learned."""
    first, last = ending.losses[0], ending.losses[-1]
    if len(ending.losses) > 1 and 0 < DIVERGED * first < last and ending.error >= NOTHING:
        kind, cure = "learning_rate_too_high", "try a rate 10 times lower"
        if ending.own_loss:
            kind, cure = "not_learning", "check the gradient of your loss, or " + cure
        yield f"{kind}: the loss has risen from {first:.3g} to {last:.3g}; {cure}"


def died(ending: Ending) -> Iterator[str]:
    """Nearly all units of a layer are zero for all rows, and nothing is learned."""
    share, layer = ending.dead
    if share >= DEAD and ending.error >= NOTHING:
        yield (
            f"dead_units: {share:.0%} of the units of layer {layer} are zero for all rows; try a "
            "rate 10 times lower, scaled inputs, or LeakyReLU"
        )


def learned_nothing(ending: Ending) -> Iterator[str]:
    """The answers are no better than one answer for all rows, and nor is the loss.

    Where a class is rare, the loss may fall while the answer is the same for all rows.
    """
    losses = ending.losses
    stands = len(losses) >= LEAST_EPOCHS and losses[-1] > UNCHANGED * losses[0]
    if stands and ending.error >= NOTHING:
        what = "answers are" if ending.counts else "squared error is"
        yield (
            f"not_learning: after {len(losses)} epochs the {what} no better than one answer for "
            "all rows would be; minidl.diagnose finds out why"
        )


def still_falls(ending: Ending) -> Iterator[str]:
    """The loss still falls steeply, and the training is far from its end."""
    losses = ending.losses
    if len(losses) < LEAST_EPOCHS or not UNFINISHED < ending.error < NOTHING:
        return
    tail = max(1, len(losses) // 5)
    before, after = np.mean(losses[-2 * tail : -tail]), np.mean(losses[-tail:])
    if before > 0 and 1 - after / before > FALLS:
        yield (
            f"stopped_early: the last {tail} epochs still took {1 - after / before:.0%} of the "
            f"loss away; train for {4 * len(losses)} epochs, or at a higher rate"
        )


def overfits(ending: Ending) -> Iterator[str]:
    """Numbers are predicted ever better in training, and ever worse in validation."""
    held = ending.history.get("val_loss", ())
    if ending.counts or len(held) < LEAST_EPOCHS:
        return
    best = int(np.argmin(held))
    falls = ending.losses[-1] < 0.5 * ending.losses[best]
    if falls and min(held[-2:]) > OVERFITTED * held[best] > 0:
        yield (
            f"overfitting: the validation loss was least after epoch {best + 1}, {held[best]:.3g}, "
            f"and is {held[-1]:.3g}; stop there, or add a weight decay"
        )


RULES: tuple[Callable[[Ending], Iterator[str]], ...] = (
    diverged,
    died,
    learned_nothing,
    still_falls,
    overfits,
)


def closing_sentence(
    model: Layer,
    loss: Loss,
    inputs: tuple[Array, ...],
    targets: Array,
    history: Mapping[str, Sequence[float]],
) -> str:
    """Return what the first closing rule that fires says, in one sentence; "" if none does."""
    if not history.get("loss") or not np.isfinite(history["loss"][-1]):
        return ""
    ending = ending_of(model, loss, inputs, targets, history)
    return next((f"{text}." for rule in RULES for text in rule(ending)), "")


def ending_of(
    model: Layer,
    loss: Loss,
    inputs: tuple[Array, ...],
    targets: Array,
    history: Mapping[str, Sequence[float]],
) -> Ending:
    """Compute the model's answers for some rows, and look at its rectifiers."""
    rows = np.linspace(0, len(targets) - 1, min(ROWS, len(targets))).astype(np.intp)
    dead = (0.0, "")

    def watch(layer: Layer, output: Array) -> None:
        nonlocal dead
        units = output.reshape(-1, output.shape[-1])
        dead = max(dead, (float((units == 0).all(axis=0).mean()), layer.path))

    rectifiers: list[Layer] = [layer for _, layer in model.layers() if type(layer) is ReLU]
    with evaluating(), np.errstate(all="ignore"), watching(rectifiers, "forward", watch):
        prediction = model(*(array[rows] for array in inputs))
    some, task = targets[rows], task_of(targets, loss)
    counts = loss.row_weights(some)  # labels to ignore count nothing
    chosen = slice(None) if counts is None else np.asarray(counts).reshape(-1) != 0
    target = decided(some, task)
    answer = answers(prediction, task, loss)
    if len(answer) != len(target):  # one target a row, and several outputs
        return Ending(history, 0.0, dead, is_own(loss), task.counts)
    found = error(answer[chosen], target[chosen], task)
    return Ending(history, found, dead, is_own(loss), task.counts)


def is_own(loss: Loss) -> bool:
    """Return whether a loss was written by the user."""
    return not type(loss).__module__.startswith("minidl.")
