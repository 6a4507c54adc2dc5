"""Rules of the first batches: what looks unusual in data, first weights and first gradients.

None of these numbers is wrong by itself: trainings bear raw columns, large weights or a gradient
that shrinks over depth, up to a point that depends on all the rest. So these rules only suspect,
and name the change that would show it (``trials.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from minidl import nn
from minidl.diagnosis.gradients import is_own
from minidl.diagnosis.probe import Probe
from minidl.diagnosis.program import Program
from minidl.diagnosis.remedies.actions import (
    AddResiduals,
    Clip,
    GateBias,
    InsertNormalization,
    Reinitialise,
    ReplaceActivation,
    ReplaceCell,
    ReplaceHead,
    ScaleInputs,
    ScaleTargets,
)
from minidl.diagnosis.rules.static import OF_DISTANCE, Setting, fitting
from minidl.diagnosis.rules.suspicion import Change, Suspicion
from minidl.diagnosis.task import Task
from minidl.diagnosis.trials import Rows, moments
from minidl.nn.recurrent.sequence import Recurrent
from minidl.typing import Array

# A column whose root mean square lies in this range needs no scaling: sums of such columns stay
# within the range where sigmoids and tanh have a slope, with weights as they are drawn by default.
USUAL = (0.1, 4.0)
# Weights within a factor of 3 of what the default initialiser draws are no cause by themselves.
USUAL_WEIGHTS = 3.0
# Recurrent ones, which multiply the gradient at each step, may be a cause from this share on.
SMALL = 0.7
# For how many powers of ten first weights count that are not finite, and those that are all zero:
# these may be meant, in a last layer, or where a residual block ends.
NOT_FINITE, OF_ZEROS = 30.0, -0.9
# A factor of the gradient from the last layer of weights to the first, or from the last step of a
# sequence to the first, that a training surely bears: Adam makes up for more.
USUAL_GRADIENT = 20.0
# Steps from which on gates must be told to keep the state: by default they keep it for about four.
MANY_STEPS = 50
# Share of units that are zero for all rows, and share of the derivative lost, that are unusual.
USUAL_DEAD, USUAL_SATURATION = 0.3, 0.6
BLOCKED = 0.99


@dataclass(frozen=True)
class FirstLook:
    """What the rules of the first batches look at.

    Attributes
    ----------
    program, setting, task, rows
        The training as told, untrained.
    probe
        A look into the model at a first batch.
    drawn
        The weights that minidl would draw, by parameter name, as root mean squares; NaN where
        not known.
    """

    program: Program
    setting: Setting
    task: Task
    rows: Rows
    probe: Probe
    drawn: dict[str, float]

    @property
    def weighted(self) -> list[tuple[str, float]]:
        """Path and gradient of all layers that have weights, in forward order."""
        return [
            (probe.path, probe.weight_gradient)
            for probe in self.probe.layers
            if isinstance(probe.layer, (nn.Linear, Recurrent))
        ]

    def is_small(self, layer: nn.Layer) -> bool:
        """Whether a weight of a layer is smaller than it would be drawn."""
        return any(
            root_mean_square(p.data) < SMALL * self.drawn.get(p.name, 0.0)
            for p in layer.parameters()
            if len(p.shape) > 1
        )

    @property
    def blocked(self) -> bool:
        """Whether a layer passes no gradient on at all: all of its units are dead or saturated."""
        return any(
            probe.zero_units > BLOCKED or probe.saturation > BLOCKED for probe in self.probe.layers
        )


Rule = Callable[[FirstLook], Iterator[Suspicion]]


def columns_out_of_scale(look: FirstLook) -> Iterator[Suspicion]:
    """Columns whose root mean square is far from one, offset included.

    A large column saturates or kills the units behind it, and makes the curvature large in its own
    direction: the largest learning rate falls with its square (LeCun et al. 1998, section 4.3).
    """
    x = look.rows.trained.inputs[0]
    if x.dtype.kind != "f" or any(
        isinstance(layer, nn.Standardize) for layer in look.setting.layers
    ):
        return
    mean, deviation = moments(x)
    size = np.sqrt(
        mean**2 + np.where(deviation == 1, x.reshape(-1, x.shape[-1]).std(axis=0), deviation) ** 2
    )
    low, high = USUAL
    large, small = np.flatnonzero(size > high), np.flatnonzero((size < low) & (size > 0))
    if not len(large) and len(small) < (size > 0).sum():
        return
    off = large if len(large) else small
    worst = int(off[np.abs(np.log(size[off])).argmax()])
    spread = float(size.max() / max(size[size > 0].min(), 1e-300))
    yield Suspicion(
        "unscaled_inputs",
        ((ScaleInputs(tuple(off.tolist())),),),
        f"column {worst} of X has mean {mean[worst]:.4g} and deviation {deviation[worst]:.4g}",
        evidence={"column": worst, "mean": float(mean[worst]), "deviation": float(deviation[worst]),
                  "columns": len(off), "spread": spread},
        strength=float(abs(np.log10(size[worst]))),
    )  # fmt: skip


def targets_out_of_scale(look: FirstLook) -> Iterator[Suspicion]:
    """Targets whose root mean square is far from one: a net answers numbers near one at first.

    The way to their mean and their deviation has to be learned, step by step of the learning rate.
    """
    if look.task.kind != "numbers" or not isinstance(look.program.loss, OF_DISTANCE):
        return
    y = look.rows.trained.targets
    mean, deviation = moments(y)
    size = np.sqrt(mean**2 + deviation**2)
    low, high = USUAL
    worst = int(np.abs(np.log(np.maximum(size, 1e-300))).argmax())
    if low <= size[worst] <= high or size[worst] == 0:
        return
    yield Suspicion(
        "unscaled_targets",
        ((ScaleTargets(),),),
        f"the targets have mean {mean[worst]:.4g} and deviation {deviation[worst]:.4g}",
        evidence={"mean": float(mean[worst]), "deviation": float(deviation[worst]),
                  "initial_loss": look.probe.loss},
        strength=float(abs(np.log10(size[worst]))),
    )  # fmt: skip


def weights_out_of_scale(look: FirstLook) -> Iterator[Suspicion]:
    """First weights or biases that are far from what keeps signals at their size.

    Compared with those that He's or Glorot's rule draws for the same layer.
    """
    worst, name, size = 0.0, "", 0.0
    for parameter in look.program.model.parameters():
        usual = look.drawn.get(parameter.name, float("nan"))
        own = root_mean_square(parameter.data)
        if (own == 0 and usual == 0) or not np.isfinite(usual):
            continue
        if not np.isfinite(own):
            off = NOT_FINITE
        elif len(parameter.shape) == 1 or usual == 0:  # biases: against weights of size one
            off = np.log10(max(own, 1.0))
        else:
            off = np.log10(own / usual) if own else OF_ZEROS
        if abs(off) > abs(worst):
            worst, name, size = float(off), parameter.name, own
    if abs(worst) > np.log10(USUAL_WEIGHTS):
        path, _, _ = name.rpartition(".")
        usual = look.drawn[name]
        word = "large" if worst > 0 else "small"
        yield Suspicion(
            "bad_initialization",
            ((Reinitialise(),),),
            f"the first values of {name} are too {word}: {size:.3g} (root mean square), where "
            f"{usual:.3g} is usual",
            layer=path,
            evidence={"parameter": name, "size": size, "usual": usual,
                      "initial_loss": look.probe.loss},
            strength=abs(worst),
        )  # fmt: skip


def gradient_over_depth(look: FirstLook) -> Iterator[Suspicion]:
    """The gradient of the first layer of weights against that of the last.

    Sigmoids multiply it by at most ¼ a layer, and by their weights. Source: Hochreiter 1991;
    Glorot and Bengio 2010.
    """
    known = [(path, g) for path, g in look.weighted if np.isfinite(g)]
    if len(known) < 3 or not look.probe.finite or look.blocked:
        return
    hidden, last = known[:-1], max(known[-1][1], 1e-300)
    path, least = min(hidden, key=lambda item: item[1])
    slope = float(np.log10(max(known[0][1], 1e-300) / last) / (len(known) - 1))
    evidence = {"first": known[0][1], "last": known[-1][1], "per_layer": 10**slope}
    if least < last / USUAL_GRADIENT:
        yield Suspicion(
            "vanishing_gradient",
            against_vanishing(look.program.model),
            f"the gradient of layer {path} is {last / max(least, 1e-300):.3g} times smaller than "
            f"that of the last layer: a factor of {10**slope:.2g} a layer",
            layer=path,
            evidence=evidence,
            strength=float(np.log10(last / max(least, 1e-300))),
        )
    path, most = max(hidden, key=lambda item: item[1])
    if most > last * USUAL_GRADIENT:
        norm = float(np.sqrt(sum(g * g for _, g in known)))
        yield Suspicion(
            "exploding_gradient",
            ((InsertNormalization(),), (Clip(1.0),)),
            f"the gradient of layer {path} is {most / last:.3g} times as large as that of the last "
            f"layer: a factor of {10**slope:.2g} a layer",
            layer=path,
            evidence={**evidence, "norm": norm},
            strength=float(np.log10(most / last)),
        )


def gradient_over_time(look: FirstLook) -> Iterator[Suspicion]:
    """The gradient of a recurrent state at the first step against that at the last.

    A step back multiplies it by W_hᵀ and the slopes. Source: Bengio, Simard and Frasconi 1994;
    Pascanu, Mikolov and Bengio 2013.
    """
    for probe in look.probe.layers:
        norms = probe.over_time
        if norms is None or len(norms) < 4 or not (norms[-1] > 0 or norms.max() > 0):
            continue
        if not np.isfinite(norms).all():
            far = 99.0
        else:
            far = float(np.log10(max(norms[0], 1e-300) / max(norms[-1], 1e-300)))
        growth = 10 ** (far / (len(norms) - 1))
        evidence = {"first": float(norms[0]), "last": float(norms[-1]), "per_step": growth}
        if far < -np.log10(USUAL_GRADIENT):
            changes = against_forgetting(probe.layer, len(norms))
            if look.is_small(probe.layer):
                changes = ((Reinitialise(),), *changes)
            yield Suspicion(
                "vanishing_gradient",
                changes,
                f"the gradient of the state falls by a factor of {growth:.3g} a step, to "
                f"10^{far:.1f} of its size over {len(norms)} steps",
                layer=probe.path,
                evidence=evidence,
                strength=-far,
            )
        elif far > np.log10(USUAL_GRADIENT):
            yield Suspicion(
                "exploding_gradient",
                ((Clip(1.0),), (Reinitialise(),), (Reinitialise(), Clip(1.0))),
                f"the gradient of the state grows by a factor of {growth:.3g} a step, to "
                f"10^{far:.1f} times its size over {len(norms)} steps",
                layer=probe.path,
                evidence=evidence,
                strength=far,
            )


def dead_at_first(look: FirstLook) -> Iterator[Suspicion]:
    """Rectified units that are zero for all rows of a batch have no gradient, and stay so."""
    for probe in look.probe.of(nn.ReLU):
        if probe.zero_units > USUAL_DEAD:
            yield Suspicion(
                "dead_units",
                (
                    (ReplaceActivation("LeakyReLU"),),
                    (ReplaceActivation("LeakyReLU"), Reinitialise()),
                ),
                f"{probe.zero_units:.0%} of the units of {probe.layer.label} are zero for all rows "
                "before the first step",
                layer=probe.path,
                evidence={"dead": probe.zero_units},
                strength=float(2 * probe.zero_units),
            )
            return


def saturated_at_first(look: FirstLook) -> Iterator[Suspicion]:
    """Sigmoids and tanh on their flat ends pass little gradient on."""
    for probe in look.probe.layers:
        if probe.saturation > USUAL_SATURATION and probe.layer is not look.setting.head:
            yield Suspicion(
                "saturated_units",
                ((Reinitialise(),), (ReplaceActivation("ReLU"), Reinitialise()),
                 (InsertNormalization(),)),
                f"{probe.saturation:.0%} of the derivative of {probe.layer.label} is lost to its "
                "flat ends before the first step",
                layer=probe.path,
                evidence={"saturation": probe.saturation},
                strength=float(-np.log10(max(1 - probe.saturation, 1e-9))),
            )  # fmt: skip
            return


def unusual_head(look: FirstLook) -> Iterator[Suspicion]:
    """A head and a loss that do not belong to targets of this kind, but may learn all the same."""
    setting, task = look.setting, look.task
    head, loss = setting.head, setting.loss
    better = fitting(setting)
    of_classes = (nn.CrossEntropyLoss, nn.BCEWithLogitsLoss, nn.NLLLoss)
    if task.counts and isinstance(loss, OF_DISTANCE) and setting.width >= 1:
        new = "BCEWithLogitsLoss" if task.kind == "bits" else "CrossEntropyLoss"
        yield Suspicion(
            "output_mismatch",
            ((ReplaceHead("", new),),),
            f"{loss!r} is for distances, and the targets are classes",
            layer=head.path if head else "",
            evidence={"classes": task.classes},
        )
    elif isinstance(loss, of_classes) and isinstance(head, (nn.ReLU, nn.Tanh)):
        yield Suspicion(
            "output_mismatch",
            ((ReplaceHead("", None),),),
            f"{head.label} limits the logits that {loss!r} takes",
            layer=head.path,
            evidence={"outputs": setting.width},
        )
    elif is_own(loss) and task.counts and head is None and better.head:
        least, largest = float(look.probe.output.min()), float(look.probe.output.max())
        yield Suspicion(
            "output_mismatch",
            ((ReplaceHead(better.head, None),),),
            f"{loss!r} gets numbers from {least:.3g} to {largest:.3g}, and may want probabilities",
            evidence={"least": least, "largest": largest},
            strength=0.0 if look.probe.finite else 2.0,
        )


RULES: tuple[Rule, ...] = (
    unusual_head,
    columns_out_of_scale,
    targets_out_of_scale,
    weights_out_of_scale,
    gradient_over_time,
    gradient_over_depth,
    saturated_at_first,
    dead_at_first,
)


def suspicions(look: FirstLook) -> Iterator[Suspicion]:
    """Yield what all rules of the first batches suspect."""
    for rule in RULES:
        yield from rule(look)


def against_vanishing(model: nn.Layer) -> tuple[Change, ...]:
    """Return changes that keep a gradient alive over depth, the mildest first."""
    rectified = any(isinstance(layer, nn.ReLU) for _, layer in model.layers())
    activations: tuple[Change, ...] = ()
    if not rectified:
        activations = ((ReplaceActivation("ReLU"), Reinitialise()),)
    return (*activations, (InsertNormalization(),), (AddResiduals(), Reinitialise()))


def against_forgetting(layer: nn.Layer, steps: int) -> tuple[Change, ...]:
    """Return changes that keep a gradient alive over the steps of a sequence."""
    keeping = GateBias(float(np.log(steps - 1)))
    if not isinstance(layer, nn.RNN):
        return ((keeping,),)
    more = (keeping,) if steps > MANY_STEPS else ()
    return (ReplaceCell("LSTM"), *more), (ReplaceCell("GRU"), *more)


def root_mean_square(array: Array) -> float:
    """Return the root of the mean of the squares."""
    return float(np.sqrt(np.square(array, dtype=np.float64).mean()))
