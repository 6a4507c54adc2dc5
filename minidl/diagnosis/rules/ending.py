"""The end of a training: its history, and the trained model's answers for some of its rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl.diagnosis.task import (
    Task,
    answers,
    decided,
    error,
    loss_of_one_answer,
    recalls,
    task_of,
)
from minidl.nn import Layer, Loss, ReLU, Sigmoid, Tanh
from minidl.nn.containers import in_order
from minidl.nn.hooks import evaluating
from minidl.nn.tuples import of_each
from minidl.nn.watching import watching
from minidl.typing import Array

ROWS = 512  # whose answers are looked at
RARE, MOST_CLASSES = 0.5, 20  # share of an equal part of the rows that is rare, among so many
NOT_KNOWN = float("nan")


@dataclass(frozen=True)
class Ending:
    """What closing rules look at.

    Attributes
    ----------
    history
        The values of all epochs, by name.
    error
        Of some of the rows trained on: 0 is perfect, 1 as good as one answer for all.
    dead, saturated
        The largest share of rectified units of a layer that are zero for all of these rows, and of
        the derivative of sigmoids or tanh that is lost to their flat ends; and the layer.
    own_loss
        Whether the loss is one of the user's own.
    counts
        Whether answers are right or wrong.
    rows
        How many rows were looked at.
    loss, one_answer
        The loss of these rows, and that of the best single answer for all of them; NaN where that
        is not known.
    by_luck
        Whether so little was learned of all rows that each parameter explains less than a unit of
        their log-likelihood: what one parameter gains of noise is half of that on average.
    rare
        The label of the worst answered rare class, the share of its rows that is answered right,
        and their number.
    neighbours
        The share of rows of the class of the row before, and the share that chance gives; zeros
        where the rows were shuffled.
    stopped
        Whether the training was ended before its last epoch, as a callback does.
    """

    history: Mapping[str, Sequence[float]]
    error: float
    dead: tuple[float, str]
    own_loss: bool
    counts: bool
    saturated: tuple[float, str] = (0.0, "")
    rows: int = 0
    loss: float = NOT_KNOWN
    one_answer: float = NOT_KNOWN
    by_luck: bool = False
    rare: tuple[float, float, int] = (0.0, 1.0, 0)
    neighbours: tuple[float, float] = (0.0, 0.0)
    stopped: bool = False

    @property
    def losses(self) -> Sequence[float]:
        """Of all epochs."""
        return self.history["loss"]

    @property
    def left(self) -> float:
        """The loss as a share of that of one answer for all rows; NaN where that is not known."""
        return self.loss / self.one_answer if self.one_answer > 0 else NOT_KNOWN


def ending_of(
    model: Layer,
    loss: Loss,
    inputs: tuple[Any, ...],
    targets: Array,
    history: Mapping[str, Sequence[float]],
    weights: Array | None = None,
    shuffle: bool = True,
    stopped: bool = False,
) -> Ending | None:
    """Compute the model's answers for some rows, and look at its units.

    None where nothing can be said: without an epoch, or a finite loss.
    """
    if not history.get("loss") or not np.isfinite(history["loss"][-1]):
        return None
    rows = np.linspace(0, len(targets) - 1, min(ROWS, len(targets))).astype(np.intp)
    units = Units(model)
    with evaluating(), np.errstate(all="ignore"), watching(units.layers, "forward", units.note):
        prediction = model(*of_each(inputs, lambda array: array[rows]))
    some, task = targets[rows], task_of(targets, loss)
    target, answer = decided(some, task), answers(prediction, task, loss)
    if len(answer) != len(target):  # one target a row, and several outputs
        return Ending(history, 0.0, units.dead, is_own(loss), task.counts)
    counts = loss.row_weights(some)  # labels to ignore count nothing
    chosen = slice(None) if counts is None else np.asarray(counts).reshape(-1) != 0
    target, answer = target[chosen], answer[chosen]
    some_weights = None if weights is None else weights[rows]
    value, one = compared(loss, prediction, some, some_weights)
    parameters = sum(p.size for p in model.parameters() if not p.frozen)
    return Ending(
        history, error(answer, target, task), units.dead, is_own(loss), task.counts,
        units.saturated, len(rows), value, one,
        gained(value, one, task) * targets.size < parameters,
        rarest(answer, target, task) if weights is None else Ending.rare,
        Ending.neighbours if shuffle else alike(targets, task), stopped,
    )  # fmt: skip


class Units:
    """The layers whose units may die or saturate, and how far they have."""

    def __init__(self, model: Layer) -> None:
        known = (ReLU, Sigmoid, Tanh)
        self.layers: list[Layer] = [x for _, x in model.layers() if type(x) in known]
        self.head = next(reversed(list(in_order(model))), None)
        self.dead = self.saturated = (0.0, "")

    def note(self, layer: Layer, output: Array) -> None:
        """Look at the output of a layer."""
        y = output.reshape(-1, output.shape[-1]).astype(np.float64)
        if type(layer) is ReLU:
            self.dead = max(self.dead, (float((y == 0).all(axis=0).mean()), layer.path))
        elif layer is not self.head:
            lost = 1 - 4 * y * (1 - y) if type(layer) is Sigmoid else y * y
            self.saturated = max(self.saturated, (float(lost.mean()), layer.path))


def compared(
    loss: Loss, prediction: Array, target: Array, weight: Array | None
) -> tuple[float, float]:
    """Return the loss of predictions, and that of the best answer that is one for all rows."""
    others = () if weight is None else (weight,)
    with evaluating(), np.errstate(all="ignore"):
        one = loss_of_one_answer(loss, prediction, target, weight)
        if one != one:
            return NOT_KNOWN, NOT_KNOWN
        value = float(loss(prediction, target, *others))
        loss.forget()
    return value, one


def gained(value: float, one: float, task: Task) -> float:
    """Return the gain in log-likelihood of each target, that of errors as if they were normal."""
    if not 0 < value < one:
        return 0.0
    return one - value if task.counts else math.log(one / value) / 2


def rarest(answer: Array, target: Array, task: Task) -> tuple[float, float, int]:
    """Return label, recall and number of rows of the rare class that is answered worst."""
    if not task.counts or not 2 <= task.classes <= MOST_CLASSES or answer.size != len(target):
        return Ending.rare
    found = recalls(answer, target)
    most = RARE * len(target) / task.classes
    rare = [(recall, label, n) for label, (recall, n) in found.items() if n < most]
    recall, label, count = min(rare, default=(1.0, 0.0, 0))
    return label, recall, count


def alike(targets: Array, task: Task) -> tuple[float, float]:
    """Return how often a row has the class of the row before, and how often by chance."""
    labels = decided(targets, task).reshape(-1)
    if not task.counts or len(labels) != len(targets) or len(labels) < 2:
        return Ending.neighbours
    shares = np.unique(labels, return_counts=True)[1] / len(labels)
    return float((labels[1:] == labels[:-1]).mean()), float((shares**2).sum())


def is_own(loss: Loss) -> bool:
    """Return whether a loss was written by the user."""
    return not type(loss).__module__.startswith("minidl.")
