"""Static rules: what is certainly wrong before the first step.

Each rule is a function of a ``Setting`` and yields a verdict for every certainty that it finds.
None of them may fire on a program that can train as it is meant to: ``Trainer.fit`` warns of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from minidl.diagnosis.remedies.actions import Reinitialise, ReplaceHead
from minidl.diagnosis.verdict import Verdict
from minidl.nn import (
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    Dropout,
    HuberLoss,
    Identity,
    L1Loss,
    Layer,
    Linear,
    LogSoftmax,
    Loss,
    MSELoss,
    NLLLoss,
    ReLU,
    Sigmoid,
    Softmax,
    Tanh,
)
from minidl.nn.containers import in_order
from minidl.typing import Array

# Layers that make no difference to the range of an output.
TRANSPARENT = (Identity, Dropout)
# Losses that compare an output with a target as two numbers.
OF_DISTANCE = (MSELoss, L1Loss, HuberLoss)
# The least and the largest output of a head.
RANGES: dict[type[Layer], tuple[float, float]] = {
    Sigmoid: (0.0, 1.0),
    Softmax: (0.0, 1.0),
    Tanh: (-1.0, 1.0),
    ReLU: (0.0, np.inf),
    LogSoftmax: (-np.inf, 0.0),
}
# Share of the targets' variance beyond the range of the head from which on it is certain that they
# do not belong together. Targets may leave the range a little: noise around 0 or 1.
BEYOND = 0.05


@dataclass(frozen=True)
class Setting:
    """What static rules look at.

    Attributes
    ----------
    model, loss
        As they are before the first step.
    inputs, targets
        All rows, as the model and the loss take them.
    output
        The model's output for the first row.
    """

    model: Layer
    loss: Loss
    inputs: tuple[Array, ...]
    targets: Array
    output: Array

    @property
    def layers(self) -> list[Layer]:
        """The layers in forward order, without those that make no difference to a range."""
        return [layer for layer in in_order(self.model) if not isinstance(layer, TRANSPARENT)]

    @property
    def head(self) -> Layer | None:
        """The last layer, if it is an activation of a known range."""
        layers = self.layers
        return layers[-1] if layers and type(layers[-1]) in RANGES else None

    @property
    def width(self) -> int:
        """Outputs for a row, or for a step of a sequence."""
        return int(self.output.shape[-1])


Rule = Callable[[Setting], Iterator[Verdict]]


def softmax_over_one_unit(setting: Setting) -> Iterator[Verdict]:
    """A softmax over a single unit is 1 whatever the unit computes: exp z / exp z.

    Its derivative p · (1 - p) is exactly zero, so nothing in front of it can learn.
    """
    head = setting.head
    if setting.width == 1 and isinstance(head, (Softmax, LogSoftmax)):
        yield Verdict(
            "output_mismatch",
            head.path,
            {"outputs": 1, "derivative": 0.0},
            statement=f"{head.label} over a single unit answers 1 for every row, and its gradient "
            "is exactly zero",
            remedy=f"take the softmax over 1 unit away: {fitting_words(setting)}",
            action=fitting(setting),
        )


def activation_applied_twice(setting: Setting) -> Iterator[Verdict]:
    """Losses of scores have the softmax or the sigmoid in them, and need no second one before.

    A sigmoid in front of a softmax leaves no probability of K classes above e / (e + K - 1), and
    multiplies the gradient by a derivative of at most ¼. Log-probabilities pass a softmax
    unchanged.
    """
    head, loss = setting.head, setting.loss
    of_scores = type(loss) in (CrossEntropyLoss, BCEWithLogitsLoss)
    if not of_scores or (setting.width == 1 and isinstance(head, (Softmax, LogSoftmax))):
        return
    squashing: tuple[type[Layer], ...] = (Softmax, Sigmoid)
    if type(loss) is BCEWithLogitsLoss:
        squashing += (LogSoftmax,)
    if isinstance(head, squashing):
        largest = np.e / (np.e + setting.width - 1) if type(loss) is CrossEntropyLoss else 0.731
        yield Verdict(
            "output_mismatch",
            head.path,
            {"largest_probability": float(largest)},
            statement=f"{head.label} stands before {loss!r}, which takes scores and has it in it: "
            f"no answer is surer than {largest:.2f}",
            remedy=f"leave {type(head).__name__} out, and the loss computes on all {setting.width} "
            "scores",
            action=ReplaceHead("", None),
        )


def no_log_probabilities(setting: Setting) -> Iterator[Verdict]:
    """``NLLLoss`` takes logarithms of probabilities, whose exponentials are 1 in sum."""
    if type(setting.loss) is not NLLLoss:
        return
    with np.errstate(over="ignore"):
        total = float(np.exp(setting.output.astype(np.float64)).sum(axis=-1).max())
    last = setting.layers[-1] if setting.layers else None
    if total > 1.01 or isinstance(last, (Linear, Softmax, Sigmoid)):
        yield Verdict(
            "output_mismatch",
            last.path if last else "",
            {"sum_of_exponentials": total},
            statement="NLLLoss takes logarithms of probabilities; the exponentials of the outputs "
            f"of a row come to {total:.3g}, not to 1, and its value falls without end",
            remedy=f"end in LogSoftmax over the {setting.width} outputs, or train with "
            "CrossEntropyLoss",
            action=ReplaceHead("LogSoftmax", None),
        )


def targets_beyond_the_head(setting: Setting) -> Iterator[Verdict]:
    """An output never leaves the range of its last activation; targets outside cannot be reached.

    Certain from a share of ``BEYOND`` of their variance on.
    """
    head, loss = setting.head, setting.loss
    if head is None or not isinstance(loss, OF_DISTANCE) or len(setting.targets) < 2:
        return
    if setting.width == 1 and isinstance(head, (Softmax, LogSoftmax)):
        return  # said already
    low, high = RANGES[type(head)]
    targets = setting.targets.astype(np.float64)
    missed = float(((targets - np.clip(targets, low, high)) ** 2).mean())
    variance = float(targets.var())
    if missed > BEYOND * variance and missed > 0:
        share = float(((targets < low) | (targets > high)).mean())
        yield Verdict(
            "output_mismatch",
            head.path,
            {"low": low, "high": high, "least": float(targets.min()),
             "largest": float(targets.max()), "share_beyond": share},
            statement=f"{head.label} answers from {low:g} to {high:g}, and {share:.0%} of the "
            f"targets, from {targets.min():.3g} to {targets.max():.3g}, lie outside",
            remedy=f"end in the Linear layer before it, which reaches {targets.max():.3g}",
            action=ReplaceHead("", None),
        )  # fmt: skip


def rectified_logits(setting: Setting) -> Iterator[Verdict]:
    """A logit that is never negative answers no probability below a half."""
    head = setting.head
    if isinstance(setting.loss, BCEWithLogitsLoss) and isinstance(head, ReLU):
        low = float((setting.targets < 0.5).mean())
        if low > 0:
            yield Verdict(
                "output_mismatch",
                head.path,
                {"least_probability": 0.5, "share_below": low},
                statement=f"{head.label} before {setting.loss!r} leaves no probability below 0.5, "
                f"and {low:.0%} of the targets lie below",
                remedy="leave the ReLU after the last of the layers out: logits below 0 are needed",
                action=ReplaceHead("", None),
            )


def probabilities_that_compete(setting: Setting) -> Iterator[Verdict]:
    """A softmax shares one unit of probability among its outputs; several ones need sigmoids."""
    head, targets = setting.head, setting.targets
    if not isinstance(head, Softmax) or setting.loss.takes_labels or setting.width == 1:
        return
    if not isinstance(setting.loss, OF_DISTANCE) or not np.isin(targets, (0, 1)).all():
        return
    sums = targets.sum(axis=-1)
    wrong = float((sums != 1).mean())
    if wrong > BEYOND:
        yield Verdict(
            "output_mismatch",
            head.path,
            {"rows": wrong, "ones": float(sums.mean())},
            statement=f"{head.label} answers probabilities that come to 1, and {wrong:.0%} of the "
            f"rows of targets do not: they hold {sums.mean():.2g} ones on average",
            remedy=f"end in a Sigmoid for each of the {setting.width} outputs",
            action=ReplaceHead("Sigmoid", None),
        )


def units_all_alike(setting: Setting) -> Iterator[Verdict]:
    """Units with the same weights on both sides get the same gradient, and stay alike for ever.

    A hidden layer is then as good as one unit. Dropout between the two would tell them apart.
    Source: Goodfellow, Bengio and Courville 2016, section 8.4.
    """
    layers = list(in_order(setting.model))
    places = [index for index, layer in enumerate(layers) if type(layer) is Linear]
    for first, second in pairwise(places):
        between = layers[first + 1 : second]
        before, after = layers[first], layers[second]
        assert isinstance(before, Linear)
        assert isinstance(after, Linear)
        if any(isinstance(layer, Dropout) for layer in between) or before.out_features < 2:
            continue
        if before.weight.frozen or before.out_features != after.in_features:
            continue
        arriving = before.weight.data
        if arriving[0, 0] != arriving[0, 1]:
            continue  # as a rule
        bias = np.zeros(1) if before.bias is None else before.bias.data
        leaving = after.weight.data
        alike = (arriving == arriving[:, :1]).all() and (bias == bias[0]).all()
        if alike and (leaving == leaving[:1]).all():
            yield Verdict(
                "bad_initialization",
                before.path,
                {"units": before.out_features, "weight": float(arriving.flat[0])},
                statement=f"all {before.out_features} units of {before.label} begin with the same "
                "weights on both sides, so that they get the same gradient and stay alike",
                remedy=f"draw the weights of the {before.out_features} units at random: He normal "
                "before ReLU, else Xavier uniform",
                action=Reinitialise(),
            )
            return


def one_answer_for_all(setting: Setting) -> Iterator[Verdict]:
    """Targets that are the same for all rows leave nothing to tell rows apart by."""
    targets = setting.targets
    if setting.loss.ignore_index is not None:
        targets = targets[targets != setting.loss.ignore_index]
    if len(setting.targets) > 1 and len(targets) and (targets == targets[:1]).all():
        value = np.asarray(targets[0]).reshape(-1)[:3].tolist()
        yield Verdict(
            "nothing_to_learn",
            "",
            {"rows": len(setting.targets), "target": value[0]},
            statement=f"the targets of all {len(setting.targets):,} rows are the same, "
            f"{value[0]:g}",
            remedy=f"look at how y was made: it holds 1 value in {len(setting.targets):,} rows",
        )


def rows_all_alike(setting: Setting) -> Iterator[Verdict]:
    """Inputs that are the same for all rows cannot tell them apart."""
    if len(setting.targets) < 2:
        return
    if all((array == array[:1]).all() for array in setting.inputs):
        yield Verdict(
            "data_error",
            "",
            {"rows": len(setting.targets)},
            statement=f"all {len(setting.targets):,} rows of X are the same",
            remedy=f"look at how X was made: it holds 1 row, {len(setting.targets):,} times",
        )


RULES: tuple[Rule, ...] = (
    rows_all_alike,
    one_answer_for_all,
    softmax_over_one_unit,
    activation_applied_twice,
    no_log_probabilities,
    targets_beyond_the_head,
    rectified_logits,
    probabilities_that_compete,
    units_all_alike,
)


# What ``minidl/nn/suspicion.py`` warns of already, from layers and loss alone; and what may be
# meant where somebody tries a program out.
NOT_WARNED_OF = (
    *(activation_applied_twice, no_log_probabilities),
    *(one_answer_for_all, rows_all_alike),
)


def to_warn_of(setting: Setting) -> Iterator[str]:
    """Yield a sentence for what is certain, and neither warned of already nor meant."""
    for rule in RULES:
        if rule not in NOT_WARNED_OF:
            for verdict in rule(setting):
                yield f"{verdict.statement}; {verdict.remedy}"


def certainties(setting: Setting) -> Iterator[Verdict]:
    """Yield the verdicts of all static rules."""
    for rule in RULES:
        yield from rule(setting)


def fitting(setting: Setting) -> ReplaceHead:
    """Return the head and the loss that fit the targets.

    Labels and rows with a single one: no head, cross entropy. Zeros and ones: a logit each. Shares
    from 0 to 1: the same. Other numbers: no head, squared error.
    """
    targets = setting.targets
    if setting.loss.takes_labels:
        return ReplaceHead("", "CrossEntropyLoss")
    if len(targets) and targets.min() >= 0 and targets.max() <= 1:
        ones = np.isin(targets, (0, 1)).all()
        if (
            ones
            and targets.ndim > 1
            and targets.shape[-1] > 1
            and (targets.sum(axis=-1) == 1).all()
        ):
            return ReplaceHead("Softmax", None)
        if isinstance(setting.loss, BCEWithLogitsLoss):
            return ReplaceHead("", None)
        return ReplaceHead("Sigmoid", None)
    return ReplaceHead("", None if isinstance(setting.loss, OF_DISTANCE) else "MSELoss")


def fitting_words(setting: Setting) -> str:
    """Say what ``fitting`` chose."""
    return fitting(setting).sentence()
