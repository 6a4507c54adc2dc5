"""Closing rules: what ``Trainer.fit`` can say at the end without another step.

They see the history and the trained model's answers for some rows, and nothing is tried. So they
speak only where a training has learned next to nothing, has become worse, or has stopped far from
the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from minidl.diagnosis.rules.ending import Ending
from minidl.diagnosis.words import counted

# Nothing is learned from this error on: 1 is that of one answer for all rows.
NOTHING = 0.99
# A loss at the end above this share of that of one answer for all rows is next to nothing, if what
# was gained could be luck; and for a training of a few epochs.
NEXT_TO_NOTHING, AFTER_FEW = 0.97, 0.9
# A loss that ends above this share of its first epoch's has hardly fallen.
UNCHANGED = 0.9
# Share of the units of a layer that are zero for all rows, of a model that learns nothing.
DEAD = 0.9
# Share of the derivative of a layer that is lost, and share of the loss that is left.
SATURATED, LITTLE = 0.9, 0.7
# A loss that ends so many times as high as its first epoch's has diverged.
DIVERGED = 2.0
# Share of the loss that the last fifth of the epochs still takes away, and the error at the end.
FALLS, UNFINISHED = 0.2, 0.6
# How fast a loss falls at the end, as a share of how fast it fell at first, how straight that line
# is, as its correlation with the number of the epoch, and the error at the end.
AS_FAST, STRAIGHT, NOT_THERE = 0.7, 0.99, 0.3
LEAST_EPOCHS = 5
# How many times the least validation loss the last one is, while that of training goes on falling;
# the same where rows are known by heart, whose loss is this share of the validation loss, which is
# at least this share of that of one answer for all.
OVERFITTED = 1.5
OVERFITTED_BY_HEART, BY_HEART, MATTERS = 1.1, 0.01, 0.2
# Recall below which a rare class is as good as never answered, and the rows that are needed.
NEVER, LEAST_ROWS = 0.3, 5
# Share of neighbours with one label from which on rows lie in the order of their classes, how much
# more that is than chance gives, and the error that makes it matter.
IN_ORDER, BEYOND_CHANCE, WRONG = 0.9, 0.2, 0.1


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


def in_order(ending: Ending) -> Iterator[str]:
    """The rows lie in the order of their classes, are not shuffled, and many are answered wrong."""
    alike, chance = ending.neighbours
    if alike > max(IN_ORDER, chance + BEYOND_CHANCE) and ending.error > WRONG:
        yield (
            f"not_shuffled: in {alike:.0%} of the rows the label is that of the row before; train "
            "with shuffle=True"
        )


def saturated(ending: Ending) -> Iterator[str]:
    """A layer of sigmoids or tanh is on its flat ends, and little is learned."""
    share, layer = ending.saturated
    if share > SATURATED and ending.left > LITTLE:
        yield (
            f"saturated_units: {share:.0%} of the derivative of layer {layer} is lost to its flat "
            "ends; scale the inputs, or draw smaller weights"
        )


def rare_class(ending: Ending) -> Iterator[str]:
    """A rare class is hardly ever answered, and the training is not just beginning."""
    label, recall, count = ending.rare
    begins = len(ending.losses) < LEAST_EPOCHS or falls(ending.losses) > FALLS
    if count >= LEAST_ROWS and recall < NEVER and not begins:
        yield (
            f"class_imbalance: class {label:g} has {count} of {ending.rows} rows looked at, and "
            f'is answered for {recall:.0%} of them; train with class_weight="balanced"'
        )


def as_fast_as_ever(ending: Ending) -> Iterator[str]:
    """The loss falls slowly in a straight line, as fast at the end as at the beginning.

    A training that comes near its end slows down.
    """
    losses = np.asarray(ending.losses)
    if len(losses) < LEAST_EPOCHS or ending.error < NOT_THERE or np.ptp(losses) == 0:
        return
    tail = max(1, len(losses) // 5)
    first, last = losses[0] - losses[tail], losses[-tail - 1] - losses[-1]
    straight = np.corrcoef(np.arange(len(losses)), losses)[0, 1]
    slow = losses[-1] > UNCHANGED * losses[0]
    if slow and straight < -STRAIGHT and last > AS_FAST * first > 0:
        yield (
            f"learning_rate_too_low: the loss fell from {losses[0]:.3g} to {losses[-1]:.3g} in a "
            "straight line, as fast at the end as at the beginning; try a rate 10 times higher"
        )


def learned_nothing(ending: Ending) -> Iterator[str]:
    """The answers are no better than one answer for all rows, and nor is the loss.

    Where a class is rare, the loss may fall while the answer is the same for all rows.
    """
    losses = ending.losses
    stands = len(losses) >= LEAST_EPOCHS and losses[-1] > UNCHANGED * losses[0]
    if stands and ending.error >= NOTHING:
        found = "answers are" if ending.counts else "squared error is"
        found += " no better than one answer for all rows would be"
    elif ending.left >= NOTHING:
        found = "loss is no less than that of one answer for all rows"
    elif ending.left >= NEXT_TO_NOTHING and ending.by_luck:
        found = f"loss is {ending.left:.1%} of that of one answer for all rows, which may be luck"
    else:
        return
    epochs = counted(len(losses), "epoch")
    yield f"not_learning: after {epochs} the {found}; minidl.diagnose finds out why"


def hardly_begun(ending: Ending) -> Iterator[str]:
    """A few epochs have taken next to nothing of the loss away.

    One epoch may be all that was wanted, and so may be those before a callback ended the training.
    """
    few = 1 < len(ending.losses) < LEAST_EPOCHS and not ending.stopped
    if few and ending.left > AFTER_FEW:
        epochs = counted(len(ending.losses), "epoch")
        yield (
            f"stopped_early: after {epochs} the loss is still {ending.left:.0%} of that of one "
            "answer for all rows; train longer, or at a higher rate"
        )


def still_falls(ending: Ending) -> Iterator[str]:
    """The loss still falls steeply, and the training is far from its end."""
    losses = ending.losses
    if len(losses) < LEAST_EPOCHS or not UNFINISHED < ending.error < NOTHING or ending.stopped:
        return
    if falls(losses) > FALLS:
        yield (
            f"stopped_early: the last {counted(fifth(losses), 'epoch')} still took "
            f"{falls(losses):.0%} of the loss away; train for {4 * len(losses)} epochs, or at a "
            "higher rate"
        )


def overfits(ending: Ending) -> Iterator[str]:
    """The loss falls in training, and rises in validation: far, or above that of one answer.

    The loss of classes rises with a few answers that are sure and wrong, while the share of right
    ones still grows. So it counts only above that of one answer for all rows.
    """
    held, losses = ending.history.get("val_loss", ()), ending.losses
    if len(held) < LEAST_EPOCHS:
        return
    best, last = int(np.argmin(held)), min(held[-2:])
    by_heart = losses[-1] < BY_HEART * last and last > MATTERS * ending.one_answer
    limit = OVERFITTED_BY_HEART if by_heart and not ending.counts else OVERFITTED
    useless = not ending.counts or last > ending.one_answer
    if losses[-1] < 0.5 * losses[best] and useless and last > limit * held[best] > 0:
        yield (
            f"overfitting: the validation loss was least after epoch {best + 1}, {held[best]:.3g}, "
            f"and is {held[-1]:.3g}; stop there, or add a weight decay"
        )


def fifth(losses: Sequence[float]) -> int:
    """Return how many epochs the last fifth has."""
    return max(1, len(losses) // 5)


def falls(losses: Sequence[float]) -> float:
    """Return the share of the loss that the last fifth of the epochs takes away."""
    tail = fifth(losses)
    before, after = np.mean(losses[-2 * tail : -tail]), np.mean(losses[-tail:])
    return float(1 - after / before) if before > 0 else 0.0


RULES: tuple[Callable[[Ending], Iterator[str]], ...] = (
    diverged,
    died,
    in_order,
    saturated,
    rare_class,
    hardly_begun,
    learned_nothing,
    as_fast_as_ever,
    still_falls,
    overfits,
)


def closing_sentence(ending: Ending | None) -> str:
    """Return what the first closing rule that fires says, in one sentence; "" if none does."""
    if ending is None:
        return ""
    return next((f"{text}." for rule in RULES for text in rule(ending)), "")
