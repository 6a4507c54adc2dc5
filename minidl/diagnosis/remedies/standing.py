"""How well a trained program answers, on a scale that does not depend on its loss."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minidl.diagnosis.task import Task, answers, balanced_error, decided, error, task_of
from minidl.nn import BCEWithLogitsLoss, Loss
from minidl.training import Trainer
from minidl.training.inputs import is_ragged, padded
from minidl.typing import Array

LEAST_PROBABILITY = 1e-4  # smaller ones count as this: one sure mistake is not worth a thousand
WORST = 10.0  # an error that is larger, or is no number, counts as this
MOST_ROWS = 2000  # to judge a probe on
SOFT = 0.05  # the weight of how sure answers are, beside how many of them are right


@dataclass(frozen=True)
class Rows:
    """Rows to judge on: inputs as ``predict`` takes them, targets, and what these ask for.

    Targets of sequences of several lengths are padded to the longest; labels that the loss ignores
    are no questions.
    """

    X: Any
    targets: Array
    task: Task
    balanced: bool = False
    lengths: Array | None = None
    ignored: int | None = None

    @classmethod
    def of(cls, X: Any, y: Any, loss: Loss, balanced: bool = False) -> Rows:
        """Make them from data and the loss that the program was told to use."""
        targets, lengths = padded("y", y) if is_ragged(y) else (np.asarray(y), None)
        if not loss.takes_labels:
            targets = targets.astype(np.float64)
        ignored = loss.ignore_index if loss.takes_labels else None
        return cls(X, targets, task_of(joined(y), loss), balanced, lengths, ignored)

    def some(self) -> Rows:
        """Return some thousand of the rows, chosen at random but always the same."""
        if len(self.targets) <= MOST_ROWS:
            return self
        chosen = np.sort(np.random.default_rng(0).permutation(len(self.targets))[:MOST_ROWS])
        X = self.X
        some = tuple(take(x, chosen) for x in X) if isinstance(X, tuple) else take(X, chosen)
        targets, lengths = self.targets[chosen], self.lengths
        if lengths is not None:  # predictions are padded to the longest of these
            lengths = lengths[chosen]
            targets = targets[:, : lengths.max()]
        return replace(self, X=some, targets=targets, lengths=lengths)

    @property
    def asked(self) -> Array | slice:
        """Which answers are asked for, in the form of ``decided``."""
        asked: Array | slice = slice(None)
        if self.ignored is not None:
            asked = (self.targets != self.ignored).reshape(-1)
        if self.lengths is not None:
            inside = (np.arange(self.targets.shape[1]) < self.lengths[:, None]).reshape(-1)
            asked = inside if isinstance(asked, slice) else inside & asked
        return asked


def joined(y: Any) -> Array:
    """Return targets as one array: those of sequences of several lengths one after another."""
    if is_ragged(y):
        return np.concatenate([np.asarray(row) for row in y])
    return np.asarray(y)


def take(data: Any, rows: Array) -> Any:
    """Return rows of an array, a table or a list."""
    if isinstance(data, (list, tuple)):
        return [data[row] for row in rows]
    return np.asarray(data)[rows]


def standing(trainer: Trainer, rows: Rows) -> float:
    """Return 0 for perfect answers, 1 for those that one answer for all rows would be.

    For numbers, that is the squared error relative to their variance. For classes, the share of
    wrong answers relative to that of the most frequent class, and to a small part the cross entropy
    of the probabilities, relative to that of the frequencies: it tells two programs apart that
    answer the same.
    """
    with np.errstate(all="ignore"):
        prediction = np.asarray(trainer.predict(rows.X), np.float64)
        if not np.isfinite(prediction).all():
            return WORST
        asked, task = rows.asked, rows.task
        target = decided(rows.targets, task)[asked]
        answer = answers(prediction, task, trainer.loss)[asked]
        prediction = prediction.reshape(-1, prediction.shape[-1])[asked]
        if rows.balanced and task.counts:
            return balanced_error(answer, target) + SOFT * _surprise(
                prediction, target, trainer, rows
            )
        found = error(answer, target, task)
        if task.counts:
            found += SOFT * _surprise(prediction, target, trainer, rows)
    return float(min(found, WORST)) if np.isfinite(found) else WORST


def _surprise(prediction: Array, target: Array, trainer: Trainer, rows: Rows) -> float:
    """Return the cross entropy relative to that of the frequencies of the classes, at most 3."""
    width = prediction.shape[-1]
    output = prediction.reshape(-1, width)
    if rows.task.kind == "bits":
        p = _sigmoid(output) if isinstance(trainer.loss, BCEWithLogitsLoss) else output
        hit = np.where(target > 0.5, p, 1 - p)
        share = target.mean(axis=0)
        prior = np.where(target > 0.5, share, 1 - share)
    else:
        p = output if _are_probabilities(output) else _softmax(output)
        labels = target.astype(np.intp)
        hit = p[np.arange(len(p)), labels]
        prior = np.bincount(labels, minlength=width)[labels] / len(labels)
    entropy = -np.log(np.maximum(prior, LEAST_PROBABILITY)).mean()
    surprise = -np.log(np.clip(hit, LEAST_PROBABILITY, 1)).mean()
    return float(min(surprise / max(entropy, 1e-9), 3.0))


def _are_probabilities(output: Array) -> bool:
    return bool((output >= 0).all() and np.allclose(output.sum(axis=-1), 1, atol=1e-3))


def _sigmoid(z: Array) -> Array:
    return 1 / (1 + np.exp(-np.clip(z, -500, 500)))


def _softmax(z: Array) -> Array:
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)
