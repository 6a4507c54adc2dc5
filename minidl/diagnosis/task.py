"""What targets ask for, and how far predictions are from them: perfect, useless or between."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minidl.nn import BCEWithLogitsLoss, Loss
from minidl.typing import Array

RAREST = 1e-6  # frequency that one of zero counts as


@dataclass(frozen=True)
class Task:
    """What the targets ask for.

    Attributes
    ----------
    kind
        ``"labels"`` (integers, one answer a row), ``"onehot"`` (rows with a single 1), ``"bits"``
        (zeros and ones, each a question of its own), or ``"numbers"``.
    classes
        How many different answers there are; 0 for numbers.
    """

    kind: str
    classes: int = 0

    @property
    def counts(self) -> bool:
        """Whether answers are right or wrong, and not near or far."""
        return self.kind != "numbers"


def task_of(targets: Array, loss: Loss) -> Task:
    """Find out what the targets ask for.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> task_of(np.array([[0.0], [1.0]]), nn.MSELoss()).kind
    'bits'
    """
    if loss.takes_labels:
        known = targets[targets != loss.ignore_index] if loss.ignore_index is not None else targets
        return Task("labels", len(np.unique(known)))
    if targets.dtype.kind == "f" and len(targets) and np.isin(targets, (0, 1)).all():
        if targets.ndim > 1 and targets.shape[-1] > 1 and (targets.sum(axis=-1) == 1).all():
            return Task("onehot", targets.shape[-1])
        return Task("bits", 2)
    return Task("numbers")


def decided(targets: Array, task: Task) -> Array:
    """Return targets as what is compared with answers: labels, bits or numbers, in one column each.

    Rows of sequences, with a target for every step, become one row a step.
    """
    if task.kind == "labels":
        return targets.reshape(-1)
    if task.kind == "onehot":
        return targets.reshape(-1, targets.shape[-1]).argmax(axis=1)
    return targets.reshape(-1, targets.shape[-1] if targets.ndim > 1 else 1).astype(np.float64)


def answers(prediction: Array, task: Task, loss: Loss) -> Array:
    """Return what a model's output answers, in the form of ``decided``.

    A bit is 1 where a probability exceeds a half, or a logit zero. Outputs of a loss of which
    nothing is known are taken for probabilities if all lie in [0, 1].
    """
    width = prediction.shape[-1] if prediction.ndim > 1 else 1
    rows = prediction.reshape(-1, width).astype(np.float64)
    if task.kind in ("labels", "onehot"):
        return rows.argmax(axis=1)
    if task.kind == "bits":
        return (rows > limit_of_bits(prediction, loss)).astype(np.float64)
    if isinstance(loss, BCEWithLogitsLoss):
        return 1 / (1 + np.exp(-np.clip(rows, -500, 500)))
    return rows


def limit_of_bits(prediction: Array, loss: Loss) -> float:
    """Return the output from which on the answer is 1: of a logit 0, of a probability ½."""
    if isinstance(loss, BCEWithLogitsLoss):
        return 0.0
    ours = type(loss).__module__.startswith("minidl.")
    probabilities = bool((prediction >= 0).all() and (prediction <= 1).all())
    return 0.5 if ours or probabilities else 0.0


def error(answer: Array, target: Array, task: Task) -> float:
    """Return how far answers are from targets: 0 perfect, 1 as good as one answer for all rows.

    For classes that is the share of wrong answers divided by that of always giving the most
    frequent one, for numbers the mean squared error divided by the variance of the targets.

    Examples
    --------
    >>> import numpy as np
    >>> error(np.array([0, 1, 1, 1]), np.array([0, 0, 1, 1]), Task("labels", 2))
    0.5
    """
    if not len(target) or not np.isfinite(answer).all():
        return float("inf")
    if task.kind == "numbers":
        return ratio(((answer - target) ** 2).mean(), target.var(axis=0).mean())
    if task.kind == "bits":
        share = target.mean(axis=0)
        return ratio((answer != target).mean(), np.minimum(share, 1 - share).mean())
    most = np.unique(target, return_counts=True)[1].max() / len(target)
    return ratio((answer != target).mean(), 1 - most)


def balanced_error(answer: Array, target: Array) -> float:
    """Return the mean over classes of wrong answers, divided by that of one answer for all."""
    answer, target = answer.reshape(-1), target.reshape(-1)
    classes = np.unique(target)
    wrong = np.mean([(answer[target == label] != label).mean() for label in classes])
    return ratio(wrong, 1 - 1 / len(classes))


def recalls(answer: Array, target: Array) -> dict[float, tuple[float, int]]:
    """Return for every class the share of its rows that is answered right, and their number."""
    answer, target = answer.reshape(-1), target.reshape(-1)
    return {
        label: (float((answer[target == label] == label).mean()), int((target == label).sum()))
        for label in np.unique(target).tolist()
    }


def loss_of_one_answer(
    loss: Loss, prediction: Array, target: Array, weight: Array | None = None
) -> float:
    """Return the loss of the best answer that is the same for all rows, as far as is known.

    The frequencies of classes, means and medians are tried, in the form that the loss takes. NaN
    for a loss of the user's own, of which that form is not known.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> logits, labels = np.zeros((4, 2), np.float32), np.array([0, 0, 0, 1])
    >>> round(loss_of_one_answer(nn.CrossEntropyLoss(), logits, labels), 3)  # -¾ log ¾ - ¼ log ¼
    0.562
    """
    if not type(loss).__module__.startswith("minidl."):
        return float("nan")
    width = prediction.shape[-1]
    known = target != loss.ignore_index if loss.takes_labels else np.ones(len(target), bool)
    if loss.takes_labels:
        columns = np.eye(width)[target[known].reshape(-1)]
    else:
        columns = target.reshape(-1, width).astype(np.float64)
    rows = loss.row_weights(target) if weight is None else loss.row_weights(target, weight)
    means = [columns.mean(axis=0)]
    if rows is not None and rows.size == known.size == len(columns):
        means.append(np.average(columns, axis=0, weights=rows.reshape(-1)))
    others = () if weight is None else (weight,)
    values = []
    for answer in in_the_form_of(loss, means, np.median(columns, axis=0)):
        constant = np.ascontiguousarray(np.broadcast_to(answer, prediction.shape), prediction.dtype)
        values.append(float(loss(constant, target, *others)))
        loss.forget()
    return min(values)


def in_the_form_of(loss: Loss, means: list[Array], median: Array) -> list[Array]:
    """Return answers as a loss takes them: log-probabilities, logits, or the numbers."""
    if loss.takes_labels:
        return [np.log(np.maximum(mean, RAREST)) for mean in means]
    if isinstance(loss, BCEWithLogitsLoss):
        shares = [np.clip(mean, RAREST, 1 - RAREST) for mean in means]
        return [np.log(share / (1 - share)) for share in shares]
    return [*means, median]


def ratio(value: float, of: float) -> float:
    """Return the quotient; 0 / 0 is 0."""
    return float(value / of) if of > 0 else (0.0 if value == 0 else float("inf"))
