"""Metrics of the scores themselves: the area under the ROC curve, log loss, relative errors."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.nn.checks import check_choice
from minidl.training.confusion import (
    as_labels,
    check_no_nan,
    check_two_classes,
    kind_of_prediction,
)
from minidl.training.running_metrics import (
    Mean,
    check_same_shape,
    check_sample_weight,
    spread,
)
from minidl.typing import Array

SMALLEST = float(np.finfo(np.float64).eps)  # what a target of 0 is divided by in a relative error


def roc_auc(
    prediction: Array, target: Array, sample_weight: Any = None, average: str | None = "macro"
) -> Any:
    """Compute the area under the ROC curve: how often a positive row has the higher score.

    AUC = Σ_ij w_i · w_j · ([s_i > s_j] + ½ · [s_i = s_j]) / Σ_ij w_i · w_j, i positive, j negative

    With several classes, each against all others by its softmax probability.

    Parameters
    ----------
    prediction
        The logit of class 1, or logits of all classes; of two classes, their difference counts.
    target
        Labels.
    sample_weight
        A weight ≥ 0 for each row, or for each step of sequences.
    average
        Of several classes: ``"macro"`` their mean, ``"weighted"`` their mean by the weight of their
        labels, None an array. A class that all rows or none belong to has no AUC: it is NaN.

    Shapes
    ------
    prediction (samples, ..., classes), or as target; target (samples, ...).

    Raises
    ------
    ValueError
        For other shapes, scores that are not finite, labels that are no classes, and weights that
        are negative, not finite or all zero.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl.training import roc_auc
    >>> roc_auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]))
    0.75
    """
    if average is not None:
        check_choice("roc_auc", "average", average, "macro", "weighted")
    logits, labels, weight = _scores("roc_auc", prediction, target, sample_weight)
    if logits.shape[1] <= 2:
        score = logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits[:, 0]
        return _area(score, labels == 1, weight)
    shares = softmax(logits)
    own = [labels == label for label in range(logits.shape[1])]
    areas = np.array([_area(shares[:, k], is_k, weight) for k, is_k in enumerate(own)])
    if average is None:
        return areas
    if average == "macro":
        return float(areas.mean())
    support = np.array([weight[is_k].sum() for is_k in own])
    return float(np.average(np.where(support > 0, areas, 0), weights=support))


def log_loss(prediction: Array, target: Array, sample_weight: Any = None) -> float:
    """Compute the mean negative log likelihood of the labels.

    log loss = -Σ_i w_i · log softmax(z_i)_label / Σ_i w_i; of one logit, with the sigmoid

    Parameters
    ----------
    prediction
        Logits of all classes, or the logit of class 1.
    target
        Labels; for one logit also shares in [0, 1].
    sample_weight
        A weight ≥ 0 for each row, or for each step of sequences.

    Shapes
    ------
    prediction (samples, ..., classes), or as target; target (samples, ...).

    Raises
    ------
    ValueError
        As ``roc_auc``.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl.training import log_loss
    >>> f"{log_loss(np.zeros((3, 2)), np.array([0, 1, 1])):.4f}"  # log 2
    '0.6931'
    """
    prediction, target = np.asarray(prediction), np.asarray(target)
    metric = LogLoss()
    metric.add(prediction, target, check_sample_weight("log_loss", sample_weight, target))
    return metric.read()


def mape(prediction: Array, target: Array, sample_weight: Any = None) -> float:
    """Compute the mean absolute error as a share of the target: 0.1 is ten percent.

    MAPE = Σ w · |ŷ - y| / max(|y|, ε) / Σ w, with ε = 2.2e-16

    Parameters
    ----------
    prediction, target
        Numbers.
    sample_weight
        A weight ≥ 0 for each row.

    Shapes
    ------
    prediction and target of the same shape.

    Raises
    ------
    ValueError
        For other shapes, numbers that are NaN, and weights that are negative, not finite or all
        zero.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl.training import mape
    >>> mape(np.array([1.5, 9.0]), np.array([1.0, 10.0]))
    0.3
    """
    prediction, target = np.asarray(prediction), np.asarray(target)
    metric = RelativeError()
    metric.add(prediction, target, check_sample_weight("mape", sample_weight, target))
    return metric.read()


class LogLoss(Mean):
    """The running mean of the negative log likelihood of labels."""

    def check(self, prediction: Array, target: Array) -> None:
        """Raise ValueError unless these can be compared; looks at their shapes only."""
        _check_scores("log_loss", prediction, target)

    def add(self, prediction: Array, target: Array, weight: Array | None = None) -> None:
        """Add these rows, with their weights if there are any."""
        logits, labels, _ = _scores("log_loss", prediction, target, None, shares=True)
        if logits.shape[1] == 1:
            z = logits[:, 0]
            losses = np.maximum(z, 0) - z * labels + np.log1p(np.exp(-np.abs(z)))
        else:
            shifted = logits - logits.max(axis=1, keepdims=True)
            own = shifted[np.arange(len(labels)), labels]
            losses = np.log(np.exp(shifted).sum(axis=1)) - own
        self.add_values(losses.reshape(target.shape), weight)


class RelativeError(Mean):
    """The running mean of the absolute error as a share of the target."""

    def check(self, prediction: Array, target: Array) -> None:
        """Raise ValueError unless these can be compared; looks at their shapes only."""
        check_same_shape("mape", prediction, target)

    def add(self, prediction: Array, target: Array, weight: Array | None = None) -> None:
        """Add these rows, with their weights if there are any."""
        self.check(prediction, target)
        check_no_nan("mape", "prediction", prediction)
        check_no_nan("mape", "target", target)
        error = np.abs(np.subtract(prediction, target, dtype=np.float64))
        size = np.abs(target.astype(np.float64))
        self.add_values(error / np.maximum(size, SMALLEST), weight)


def _check_scores(name: str, prediction: Array, target: Array) -> str:
    kind = kind_of_prediction(name, prediction, target)
    if kind == "labels":
        raise ValueError(f"{name} needs scores as its prediction, got {prediction.dtype} labels")
    return kind


def _scores(
    name: str, prediction: Array, target: Array, sample_weight: Any, shares: bool = False
) -> tuple[Array, Array, Array]:
    """Return scores (rows, classes) in float64, and for each row its label and its weight.

    A label of one logit may be a share of class 1 if ``shares``.
    """
    prediction, target = np.asarray(prediction), np.asarray(target)
    kind = _check_scores(name, prediction, target)
    if target.size == 0:
        raise ValueError(f"{name}: there is no row")
    if not (finite := np.isfinite(prediction)).all():
        place = tuple(np.argwhere(~finite)[0])
        raise ValueError(f"{name}: prediction holds {prediction[place]} in row {place[0]}")
    check_no_nan(name, "target", target)
    classes = prediction.shape[-1] if kind == "logits" else 1
    logits = prediction.reshape(-1, classes).astype(np.float64)
    weight = check_sample_weight(name, sample_weight, target)
    of_rows = np.ones(target.size) if weight is None else spread(weight, target.shape).ravel()
    if classes == 1:
        check_two_classes(name, target, 0 if shares else -np.inf)
        positive = target.ravel().astype(np.float64)
        return logits, positive if shares else positive > 0.5, of_rows
    return logits, as_labels(name, "target", target, classes), of_rows


def softmax(logits: Array) -> Array:
    """Return exp(z) / Σ exp(z) of each row."""
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def _area(scores: Array, positive: Array, weight: Array) -> float:
    """Return the area under the ROC curve; NaN if rows are all positive, or all negative.

    Rows of equal scores are a group: of a positive and a negative in it, one half counts.
    """
    _, group = np.unique(scores, return_inverse=True)
    ones = np.bincount(group, weight * positive)
    zeros = np.bincount(group, weight * ~positive)
    below = np.cumsum(zeros) - zeros
    pairs = ones.sum() * zeros.sum()
    return float((ones * (below + zeros / 2)).sum() / pairs) if pairs > 0 else float("nan")
