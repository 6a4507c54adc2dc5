"""A faulty training program, how well it does, and what is known to cure it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, cast

import numpy as np

from minidl import nn
from minidl.diagnosis.program import Program
from minidl.nn.parameter import Initializer
from minidl.training import Trainer
from minidl.typing import Array

Make = Callable[..., Program]  # of a seed, and of edits by keyword
Figure = Callable[[Array, Array, nn.Loss], float]  # of predictions, targets and the loss
Kinds = frozenset[str]

HE_FOLLOWERS = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU)


@dataclass(frozen=True)
class Case:
    """A training program that does not work.

    Attributes
    ----------
    name, source
        What it is called, and where it comes from.
    make
        Builds it for a seed; with keywords, an edited one.
    right
        The kinds of verdicts of which one must come first.
    figure
        How well predictions fit targets: 1 is best of an accuracy, 0 of an error.
    cure
        The edits of the best cure that is known; None if nothing cures it, or naming it is all that
        is asked.
    judged
        Other rows to judge on, by seed; None: those it was trained on.
    """

    name: str
    source: str
    make: Make
    right: Kinds
    figure: Figure
    cure: Mapping[str, Any] | None = None
    judged: Callable[[int], tuple[Array, Array]] | None = None

    def faulty(self, seed: int) -> Program:
        """Build the program as it is."""
        return self.make(seed)

    def cured(self, seed: int) -> Program:
        """Build the program with the best cure."""
        return self.make(seed, **(self.cure or {}))

    def score(self, trainer: Trainer, program: Program, seed: int) -> float:
        """Compute the figure of a trained program, from its predictions alone."""
        X, y = (program.X, program.y) if self.judged is None else self.judged(seed)
        with np.errstate(all="ignore"):
            prediction = np.asarray(trainer.predict(X), np.float64)
            return self.figure(prediction, np.asarray(y), trainer.loss)

    def gap_closed(self, before: float, after: float, best: float) -> float:
        """Compute which part of the way from the faulty figure to the best one was made."""
        return 1.0 if best == before else (after - before) / (best - before)


def accuracy(prediction: Array, y: Array, loss: nn.Loss) -> float:
    """Share of right answers: the largest of several outputs, or the side of the threshold.

    One output is a logit for ``BCEWithLogitsLoss``, whose threshold is 0, else a probability.
    """
    if y.ndim == prediction.ndim - 1:  # labels
        return float((prediction.argmax(axis=-1) == y).mean())
    if prediction.shape[-1] > 1 and _one_hot(y):
        return float((prediction.argmax(axis=-1) == y.argmax(axis=-1)).mean())
    return bits(prediction, y, loss)


def bits(prediction: Array, y: Array, loss: nn.Loss) -> float:
    """Share of the elements on the right side of the threshold."""
    threshold = 0.0 if isinstance(loss, nn.BCEWithLogitsLoss) else 0.5
    return float(((prediction > threshold) == (y > 0.5)).mean())


def balanced(prediction: Array, y: Array, loss: nn.Loss) -> float:
    """Mean over the classes of the share of right answers."""
    labels = y if y.ndim == prediction.ndim - 1 else (y[..., 0] > 0.5).astype(int)
    return float(
        np.mean(
            [accuracy(prediction[labels == k], y[labels == k], loss) for k in np.unique(labels)]
        )
    )


def error(prediction: Array, y: Array, loss: nn.Loss) -> float:
    """Squared error relative to that of the mean of the targets, at most 1."""
    value = float(np.square(prediction - y).mean() / np.square(y - y.mean(axis=0)).mean())
    return min(value, 1.0) if np.isfinite(value) else 1.0


def _one_hot(y: Array) -> bool:
    return bool(np.isin(y, (0, 1)).all() and (y.sum(axis=-1) == 1).all())


def stack(
    widths: list[int],
    between: Callable[[], nn.Layer] | list[Callable[[], nn.Layer]] = nn.ReLU,
    head: Callable[[], nn.Layer] | None = None,
    init: Initializer | str | None = None,
    seed: int = 0,
    biases: Initializer | str = "zeros",
    after: Callable[[], nn.Layer] | None = None,
) -> nn.Sequential:
    """Build linear layers of these widths with activations between them.

    Weights are He normal before ReLU and its relatives, else Xavier uniform, unless ``init`` is
    given. ``after`` makes a layer that follows each activation.
    """
    count = len(widths) - 1
    makers = between if isinstance(between, list) else [between] * (count - 1)
    layers: list[nn.Layer] = []
    for index, (n, m) in enumerate(pairwise(widths)):
        activation = makers[index]() if index < count - 1 else head() if head else None
        he = isinstance(activation, HE_FOLLOWERS)
        weights = init or ("he_normal" if he else "xavier_uniform")
        layers.append(nn.Linear(n, m, init=weights, bias_init=biases))
        layers += [] if activation is None else [activation]
        if after is not None and index < count - 1:
            layers.append(after())
    return nn.Sequential(*layers, rng=seed)


def standardised(x: Array) -> Array:
    """Bring columns to mean 0 and deviation 1."""
    return cast(Array, (x - x.mean(axis=0)) / x.std(axis=0))


def kinds(*names: str) -> Kinds:
    """Make the set of kinds that count as right."""
    return frozenset(names)


@dataclass(frozen=True)
class Healthy:
    """A training that is well: no verdict may fall on it."""

    name: str
    make: Make
    options: Mapping[str, Any] = field(default_factory=dict)

    def program(self, seed: int) -> Program:
        """Build it for a seed."""
        return self.make(seed, **self.options)
