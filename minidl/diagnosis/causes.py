"""Causes: suspicions that trials have confirmed, and which of several comes first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from minidl.diagnosis.rules.suspicion import Change, Suspicion

HELPS = 0.3  # share of the way to the best known that a change must go to be needed beside others
NEARLY_ALL = 0.9  # the same, from which on nothing else need be tried
FURTHER = 0.2  # what a change must go further, to stand before one of better reason
OF_SCALE = ("unscaled_inputs", "unscaled_targets")
TOO_SHORT = ("learning_rate_too_low", "stopped_early")
# Where several changes cure alone, the one for which there is the best reason comes first: what
# numbers of the data or the first weights tell, then gradients, then what any training might gain
# by.
ORDER = (
    "output_mismatch", "not_shuffled", "unscaled_targets", "unscaled_inputs", "bad_initialization",
    "vanishing_gradient", "exploding_gradient", "learning_rate_too_high", "not_finite",
    "saturated_units", "dead_units", "learning_rate_too_low", "stopped_early", "class_imbalance",
    "overfitting",
)  # fmt: skip


@dataclass(frozen=True)
class Cause:
    """A suspicion that a trial has confirmed.

    Attributes
    ----------
    suspicion
        What was suspected.
    change
        What cures it, alone or as a part.
    share
        Which share of the way to the best that is known it goes; NaN where no trial told.
    """

    suspicion: Suspicion
    change: Change
    share: float = float("nan")

    @property
    def kind(self) -> str:
        """What is suspected."""
        return self.suspicion.kind


def believed(suspicion: Suspicion) -> float:
    """Return a number by which suspicions are sorted, the most believed first.

    A head that is only unusual comes last: most losses learn behind most heads. Clipping where no
    gradient was seen to grow comes after the learning rate.
    """
    if suspicion.strength < 1 and suspicion.kind == "output_mismatch":
        return len(ORDER)
    if suspicion.strength < 1 and suspicion.kind == "exploding_gradient":
        return ORDER.index("learning_rate_too_high") + 0.5
    return ORDER.index(suspicion.kind)


def credited(causes: Sequence[Cause]) -> list[Cause]:
    """Credit a change that helps alone with all that it does together with another change.

    If new weights go half of the way, leaky rectifiers none, and both together all of it, then the
    weights are the cause.
    """
    found = list(causes)
    for index, cause in enumerate(causes):
        for other in causes[index + 1 :]:
            part = set(cause.change) < set(other.change)
            if part and cause.share >= HELPS and other.share > cause.share:
                found[index] = replace(cause, change=other.change, share=other.share)
    return found


def foremost(alone: Sequence[Cause]) -> Cause:
    """Return the first of causes, in their order, but none before one that goes far further.

    A higher rate and more epochs go all of the way that is long because of the scale of the data,
    and do not stand before it.
    """
    first = alone[0]
    furthest = max(alone, key=lambda cause: cause.share)
    if is_of_scale(first.suspicion) and furthest.kind in TOO_SHORT:
        return first
    behind = furthest.share >= NEARLY_ALL and furthest.share - first.share > FURTHER
    return furthest if behind else first


def is_of_scale(suspicion: Suspicion, powers: float = 1.0) -> bool:
    """Return whether data are suspected whose scale is off by so many powers of ten, or more."""
    return suspicion.kind in OF_SCALE and suspicion.strength >= powers


def one_of_each(causes: Sequence[Cause]) -> list[Cause]:
    """Return causes that do not contradict one another: one learning rate, one of each kind."""
    rates = [c for c in causes if c.kind.startswith("learning_rate")]
    best_rate = max(rates, key=lambda c: c.share, default=None)
    found: list[Cause] = []
    for cause in causes:
        if cause in rates and cause is not best_rate:
            continue
        if all(cause.kind != other.kind for other in found):
            found.append(cause)
    return found
