"""Targets as users write them, as a loss takes them, and predictions back again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from minidl.sklearn.scaling import mean_and_deviation
from minidl.typing import Array, DType


@dataclass
class Numbers:
    """The targets of a regression: one column or several, maybe standardised for the training.

    Attributes
    ----------
    one_dimensional
        Whether predictions have the shape (rows) rather than (rows, outputs).
    outputs
        Number of columns.
    mean, deviation
        Of every column: the network learns (y - mean) / deviation.
    """

    one_dimensional: bool
    outputs: int
    mean: Array
    deviation: Array

    @classmethod
    def of(cls, y: Array, weight: Array | None, scale: bool) -> Numbers:
        """Learn what targets look like; ``scale`` asks for mean and deviation, by weight."""
        columns = y.reshape(len(y), -1)
        outputs = columns.shape[1]
        mean, deviation = np.zeros(outputs), np.ones(outputs)
        if scale:
            mean, deviation = mean_and_deviation(columns, weight)
        return cls(y.ndim == 1, outputs, mean, deviation)

    def encoded(self, y: Array, dtype: DType) -> Array:
        """Return what the network is to learn (rows, outputs)."""
        columns = y.reshape(len(y), -1)
        if columns.shape[1] != self.outputs:
            raise ValueError(f"y has {columns.shape[1]} columns, and had {self.outputs} before")
        return ((columns - self.mean) / self.deviation).astype(dtype)

    def decoded(self, outputs: Array) -> Array:
        """Return predictions from what the network says, in its dtype."""
        return self._shaped((outputs * self.deviation + self.mean).astype(outputs.dtype))

    def spread(self, deviations: Array) -> Array:
        """Return deviations in the units of y, from those that the network says."""
        return self._shaped((deviations * self.deviation).astype(deviations.dtype))

    def _shaped(self, values: Array) -> Array:
        return values[:, 0] if self.one_dimensional and values.shape[1] == 1 else values


@dataclass
class Labels:
    """The targets of a classification, and the classes there are.

    Two classes have one logit; three and more have one each; several labels a row, given as
    (rows, labels) of zeros and ones, have one each, and each is a classification of its own.

    Attributes
    ----------
    classes
        Sorted; for several labels a row, their numbers.
    several
        Whether each row has several labels.
    """

    classes: Array
    several: bool

    @classmethod
    def of(cls, y: Array, classes: Any = None) -> Labels:
        """Learn the classes from targets, unless they are given.

        Raises
        ------
        ValueError
            For targets that are no classes.
        """
        check_classification_targets(y)
        kind = type_of_target(y)
        if kind == "multiclass-multioutput":
            raise ValueError(
                "y has several columns of classes: use sklearn.multioutput.MultiOutputClassifier, "
                "or columns of zeros and ones, one for each label"
            )
        several = kind == "multilabel-indicator"
        if classes is not None:
            return cls(np.unique(classes), several)
        return cls(np.arange(y.shape[1]) if several else np.unique(y), several)

    @property
    def outputs(self) -> int:
        """Number of logits of a row."""
        return len(self.classes) if self.takes_labels or self.several else 1

    @property
    def takes_labels(self) -> bool:
        """Whether the loss takes numbers of classes, and not zeros and ones."""
        return len(self.classes) > 2 and not self.several

    @property
    def activation(self) -> str:
        """What turns logits into probabilities: softmax or logistic."""
        return "softmax" if self.takes_labels else "logistic"

    def encoded(self, y: Array, dtype: DType) -> Array:
        """Return numbers of classes (rows), or zeros and ones (rows, outputs).

        Raises
        ------
        ValueError
            For labels that are none of the classes.
        """
        if self.several:
            if y.ndim != 2 or y.shape[1] != len(self.classes):
                raise ValueError(f"y has shape {y.shape}, expected {len(self.classes)} columns")
            return y.astype(dtype)
        if y.ndim != 1:
            raise ValueError(f"y has shape {y.shape}, expected one label for each row")
        found = np.unique(y)
        if unknown := set(found.tolist()) - set(self.classes.tolist()):
            raise ValueError(
                f"`y` has classes not in `self.classes_`: {sorted(unknown, key=str)}. "
                f"`self.classes_` has {self.classes}."
            )
        numbers = np.searchsorted(self.classes, y)
        return numbers if self.takes_labels else numbers.astype(dtype)[:, None]

    def probabilities(self, logits: Array) -> Array:
        """Return the probability of each class; or of each of several labels, below 1."""
        if self.takes_labels:
            powers = np.exp(logits - logits.max(axis=1, keepdims=True))
            return powers / powers.sum(axis=1, keepdims=True)
        if self.several:
            return np.minimum(sigmoid(logits), np.nextafter(logits.dtype.type(1), 0))
        if len(self.classes) == 1:
            return np.ones_like(logits)
        return np.hstack([sigmoid(-logits), sigmoid(logits)])

    def decoded(self, logits: Array) -> Array:
        """Return the likeliest class of each row, or all labels whose probability is above ½."""
        if self.several:
            return (logits > 0).astype(np.int64)
        if self.takes_labels:
            return self.classes[logits.argmax(axis=1)]
        last = len(self.classes) - 1
        return self.classes[np.minimum(logits[:, 0] > 0, last).astype(np.intp)]

    def accuracy(self, logits: Array, encoded: Array, weight: Array | None) -> float:
        """Return the share of the rows whose labels are all right."""
        if self.takes_labels:
            right = logits.argmax(axis=1) == encoded
        else:
            right = ((logits > 0) == (encoded > 0.5)).all(axis=1)
        return float(np.average(right, weights=weight))


def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + exp(-x)), without overflow."""
    small = np.exp(-np.abs(x))
    return np.where(x < 0, small, 1) / (1 + small)
