"""Running rules: what the course of a training makes one suspect.

All are relative to the training itself, and a suspicion becomes a verdict only where the training
is far from what can be reached and the change that it names goes most of the way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl import nn
from minidl.diagnosis.probe import Probe
from minidl.diagnosis.program import Program
from minidl.diagnosis.references import as_numbers
from minidl.diagnosis.remedies.actions import (
    ClassWeights,
    Clip,
    Dropout,
    Epochs,
    Reinitialise,
    ReplaceActivation,
    ReplaceHead,
    SetLearningRate,
    Shuffle,
    WeightDecay,
)
from minidl.diagnosis.remedies.standing import joined
from minidl.diagnosis.rules.first_batches import USUAL_GRADIENT, against_forgetting
from minidl.diagnosis.rules.suspicion import Change, Suspicion
from minidl.diagnosis.task import Task
from minidl.diagnosis.trials import Outcome
from minidl.diagnosis.verdict import Verdict
from minidl.diagnosis.words import counted
from minidl.training.inputs import is_ragged
from minidl.typing import Array

# Factors by which rates are tried, each further from the one that was told.
LOWER = (1 / 3, 0.1, 0.01, 0.001)
LEAST_RATE = 1e-4  # instead of zero
HIGHER = (10.0, 100.0, 1000.0)
# Where the parameters have moved by less than this share of their norm, and the loss by less than
# this share, the training stands still, and ten times the rate moves nothing.
STILL, UNCHANGED = 1e-3, 0.01
HIGHER_IF_STILL = (100.0, 1000.0, 10_000.0)
LONGER = (5, 20, 100)
FEW_EPOCHS = 10  # of which even a hundred times as many are tried
# Recall below which a class counts as never answered, and how much rarer than an equal share of the
# rows a class must be to be called rare.
NEVER, RARE = 0.5, 0.5
MOST_CLASSES = 20  # of more, some are rare as a matter of course
# Share of the training after which a loss that still falls makes one suspect an early end.
END = 0.2
# By how much the error of held-out rows must rise above its least, and by what share of that.
OVERFIT = 0.2
BY_HEART, LEAST_OVERFIT = 0.15, 0.3


@dataclass(frozen=True)
class Course:
    """What running rules look at.

    Attributes
    ----------
    program, task
        The training as told.
    told
        What it came to.
    stopped
        What the ``Trainer`` said when it stopped; "" if it came to its end.
    first_loss
        The loss before the first step.
    last
        A look into the trained model; None if it was stopped.
    unsteady
        Whether the training comes out otherwise with a few rows less.
    """

    program: Program
    task: Task
    told: Outcome
    stopped: str
    first_loss: float
    last: Probe | None
    unsteady: bool = False

    @property
    def rises(self) -> bool:
        """Whether the loss ended higher than it began, or was not finite."""
        if not self.told.finite:
            return True
        return bool(
            len(self.told.losses)
            and self.told.losses[-1] > 1.05 * min(self.first_loss, self.told.losses[0])
        )

    @property
    def stands_still(self) -> bool:
        """Whether neither the parameters nor the loss have moved."""
        losses = self.told.losses
        if not self.told.finite or not len(losses) or not self.told.moved < STILL:
            return False
        return abs(losses[-1] - losses[0]) <= UNCHANGED * abs(losses[0])

    @property
    def falls_at_end(self) -> float:
        """The share of the loss that the last fifth of the epochs has taken away."""
        count = len(self.told.losses)
        if count < 2 or not self.told.finite:
            return float("nan")
        tail = max(1, int(END * count))
        before = float(np.mean(self.told.losses[-2 * tail : -tail] or self.told.losses[:1]))
        return 1 - float(np.mean(self.told.losses[-tail:])) / before if before > 0 else 0.0


def rate_too_high(course: Course) -> Iterator[Suspicion]:
    """A rate at which steps go further than the slope tells.

    Plain gradient descent diverges beyond 2 / λ, λ the largest curvature (LeCun et al. 1998).
    """
    rate = course.program.optimizer.lr
    changes = tuple((SetLearningRate(rate * factor),) for factor in LOWER)
    end = (
        f"ends at {course.told.losses[-1]:.3g}"
        if course.told.finite and len(course.told.losses)
        else "is not finite"
    )
    yield Suspicion(
        "learning_rate_too_high",
        changes,
        f"at a learning rate of {rate:g} the loss begins at {course.first_loss:.3g} and {end}",
        evidence={"rate": rate, "first_loss": course.first_loss},
        strength=2.0 if course.rises or course.unsteady else 0.0,
    )


def rate_too_low(course: Course) -> Iterator[Suspicion]:
    """A rate at which so many steps cannot go the way that is needed."""
    optimizer, still = course.program.optimizer, course.stands_still
    rate = optimizer.lr or LEAST_RATE
    evidence: dict[str, Any] = {"rate": optimizer.lr, "epochs": course.program.epochs}
    statement = f"at a learning rate of {optimizer.lr:g} the training does not get there in time"
    if still:
        evidence["moved"] = course.told.moved
        statement += f": the parameters have moved by {course.told.moved:.1g} of their norm"
    yield Suspicion(
        "learning_rate_too_low",
        tuple((SetLearningRate(rate * f),) for f in (HIGHER_IF_STILL if still else HIGHER)),
        statement,
        evidence=evidence,
        strength=1.0 if still else 0.0,
    )


def ended_early(course: Course) -> Iterator[Suspicion]:
    """A loss that still falls when the epochs are over."""
    epochs, falls = course.program.epochs, course.falls_at_end
    if not course.told.finite:
        return
    few = len(course.told.losses) and epochs <= FEW_EPOCHS
    yield Suspicion(
        "stopped_early",
        tuple((Epochs(epochs * factor),) for factor in (LONGER if few else LONGER[:2])),
        f"the training ended after {counted(epochs, 'epoch')}, before it had learned what it can",
        evidence={"epochs": epochs} | ({"falls": falls} if np.isfinite(falls) else {}),
    )


def rows_in_order(course: Course) -> Iterator[Suspicion]:
    """Rows that come in the same order in every epoch."""
    if course.program.shuffle:
        return
    y = course.program.y
    last = np.stack([np.asarray(row)[-1] for row in y]) if is_ragged(y) else np.asarray(y)
    targets = as_numbers(last, course.task)
    likeness = likeness_of_neighbours(targets)
    yield Suspicion(
        "not_shuffled",
        ((Shuffle(),),),
        "every epoch goes through the rows in the same order, in which the "
        f"targets of two rows in a row have a correlation of {likeness:.2f}",
        evidence={"epochs": course.program.epochs, "correlation": likeness},
        strength=1.0 if likeness > 0.5 else 0.0,
    )


def class_never_answered(course: Course) -> Iterator[Suspicion]:
    """A rare class that the model never answers: always answering another one costs less."""
    rows = sum(count for _, count in course.told.recall.values())
    if not 2 <= len(course.told.recall) <= MOST_CLASSES:
        return
    never = {
        label: count
        for label, (recall, count) in course.told.recall.items()
        if recall <= NEVER and count < RARE * rows / len(course.told.recall)
    }
    if never:
        label = max(never, key=lambda k: never[k])
        yield Suspicion(
            "class_imbalance",
            ((ClassWeights(),),),
            f"class {label:g} has {never[label]} of {rows} rows, and is answered for "
            f"{course.told.recall[label][0]:.0%} of them",
            evidence={"class": label, "rows": never[label], "of": rows,
                      "recall": course.told.recall[label][0]},
            strength=1.0,
        )  # fmt: skip


def likeness_of_neighbours(targets: Array) -> float:
    """Return the correlation of targets with those of the next row."""
    centred = targets - targets.mean(axis=0)
    total = float((centred**2).sum())
    return float((centred[1:] * centred[:-1]).sum()) / total if total > 0 else 0.0


def dead_at_last(course: Course) -> Iterator[Suspicion]:
    """Rectified units that died on the way."""
    for probe in () if course.last is None else course.last.of(nn.ReLU):
        if probe.zero_units > 0.5:
            yield Suspicion(
                "dead_units",
                ((ReplaceActivation("LeakyReLU"), Reinitialise()),),
                f"{probe.zero_units:.0%} of the units of {probe.layer.label} are zero for all rows "
                "at the end",
                layer=probe.path,
                evidence={"dead": probe.zero_units},
                strength=probe.zero_units,
            )
            return


def steps_that_jump(course: Course) -> Iterator[Suspicion]:
    """A loss that left the range of numbers although the rate is not the reason: clipping helps."""
    if not course.told.finite and course.program.optimizer.max_norm is None:
        yield Suspicion(
            "exploding_gradient",
            ((Clip(1.0),),),
            "the gradient left the range of numbers",
            evidence={"max_norm": None},
            strength=0.9,
        )


def forgets_at_last(course: Course) -> Iterator[Suspicion]:
    """A recurrent state through which no gradient reaches the first steps any more."""
    for probe in () if course.last is None else course.last.layers:
        norms = probe.over_time
        if norms is None or len(norms) < 4 or not np.isfinite(norms).all() or not norms[-1] > 0:
            continue
        left = float(norms[0] / norms[-1])
        if left < 1 / USUAL_GRADIENT:
            yield Suspicion(
                "vanishing_gradient",
                against_forgetting(probe.layer, len(norms)),
                f"at the end the gradient of the state at the first of {len(norms)} steps is "
                f"{left:.1g} of that at the last",
                layer=probe.path,
                evidence={"first": float(norms[0]), "last": float(norms[-1]),
                          "per_step": left ** (1 / (len(norms) - 1))},
            )  # fmt: skip


def loss_not_finite(course: Course) -> Iterator[Suspicion]:
    """A loss that is no number although every output is one, such as the logarithm of zero."""
    task, loss = course.task, course.program.loss
    if "every layer's output is finite" not in course.stopped:
        return
    if type(loss).__module__.startswith("minidl."):
        return
    changes: tuple[Change, ...] = ((ReplaceHead("", "MSELoss"),),)
    if task.counts:
        better = "BCEWithLogitsLoss" if task.kind == "bits" else "CrossEntropyLoss"
        changes = ((ReplaceHead("", better),),)
    elif joined(course.program.y).min() >= 0:
        changes = ((ReplaceHead("Softplus", None),), *changes)  # answers as the targets are: ≥ 0
    yield Suspicion(
        "not_finite",
        changes,
        f"every output is finite, and {loss!r} of them is not",
        evidence={"steps": course.program.optimizer.steps},
        strength=2.0,
    )


def learned_by_heart(course: Course) -> Iterator[Suspicion]:
    """Rows that are known by heart, far better than others: the error of these is memory.

    Suspected from an error below ``BY_HEART`` of that of held-out rows on.
    """
    if not course.told.error < BY_HEART * course.told.held or course.told.held < LEAST_OVERFIT:
        return
    optimizer = course.program.optimizer
    decays = (1.0, 3.0) if optimizer.states["decoupled"].any() else (0.03, 0.3)
    yield Suspicion(
        "overfitting",
        (*((WeightDecay(decay),) for decay in decays), (Dropout(0.3),)),
        f"the error of the rows trained on is {course.told.error:.2g}, that of rows held out "
        f"{course.told.held:.2f}, where 1 is that of one answer for all",
        evidence={"trained": course.told.error, "held": course.told.held},
    )


def overfitted(curve: Sequence[tuple[int, float, float]], noise: float) -> Iterator[Verdict]:
    """The error of held-out rows is far above its least, while that of the rows trained on falls.

    ``curve`` has epoch, error and error held out. A least of one epoch alone may be luck: each is
    the mean of three.
    """
    if len(curve) < 6:
        return
    epochs = [epoch for epoch, _, _ in curve]
    trained = np.array([error for _, error, _ in curve])
    held = np.convolve([error for _, _, error in curve], np.ones(3) / 3, "valid")
    best = int(held.argmin())
    rise = float(held[-1] - held[best])
    if (
        trained[-1] < trained[best + 1]
        and rise > max(OVERFIT, noise / 2)
        and rise > OVERFIT * held[best]
    ):
        yield Verdict(
            "overfitting",
            "",
            {"held_least": float(held[best]), "epoch": epochs[best + 1],
             "held_last": float(held[-1]), "trained_last": float(trained[-1])},
            statement=f"the error of rows held out rises from {held[best]:.2f} after "
            f"{counted(epochs[best + 1], 'epoch')} to {held[-1]:.2f}, while that of the rows "
            f"trained on falls to {trained[-1]:.2f}",
            remedy=f"stop after {counted(epochs[best + 1], 'epoch')}, or add a weight decay",
            action=Epochs(epochs[best + 1]),
        )  # fmt: skip


def dead_logits(last: Probe | None, labels: Array, head: nn.Layer | None) -> Iterator[Verdict]:
    """A class whose logit is 0 for all rows: the ReLU behind it has died, and no gradient passes.

    ``last`` is a look into the trained model at rows of these labels.
    """
    if last is None or not isinstance(head, nn.ReLU):
        return
    logits = last.output.reshape(-1, last.output.shape[-1])
    dead = [k for k in np.unique(labels[labels >= 0]).tolist() if not logits[:, k].any()]
    if dead:
        rows = int((labels == dead[0]).sum())
        yield Verdict(
            "output_mismatch",
            head.path,
            {"class": dead[0], "rows": rows, "of": len(labels), "dead": len(dead)},
            statement=f"{head.label} stands before the loss, and the logit of class {dead[0]} is 0 "
            f"for all of {len(labels)} rows: no gradient passes it any more",
            remedy=f"leave {type(head).__name__} out: scores of all {logits.shape[1]} classes may "
            "be negative",
            action=ReplaceHead("", None),
        )


def does_not_learn(error: float) -> Verdict:
    """Say that nothing is learned, and that the reason is not known."""
    return Verdict(
        "not_learning",
        "",
        {"error": error},
        statement="it does not learn, although others learn from the same rows, and nothing that "
        "was tried changes that",
        remedy=f"check layers and losses of your own by gradcheck: the error is {error:.2f} of "
        "that of one answer for all rows",
    )


RULES = (
    learned_by_heart,
    loss_not_finite,
    rows_in_order,
    rate_too_high,
    steps_that_jump,
    class_never_answered,
    dead_at_last,
    forgets_at_last,
    rate_too_low,
    ended_early,
)


def suspicions(course: Course) -> Iterator[Suspicion]:
    """Yield what all running rules suspect."""
    for rule in RULES:
        yield from rule(course)
