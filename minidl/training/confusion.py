"""Metrics that follow from the confusion matrix: precision, recall, F1, balanced accuracy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minidl.nn.checks import check_choice, check_count
from minidl.training.running_metrics import check_sample_weight, spread
from minidl.typing import Array

AVERAGES = ("binary", "macro", "micro", "weighted")


def confusion_matrix(
    prediction: Array,
    target: Array,
    sample_weight: Any = None,
    classes: int | None = None,
    normalize: str | None = None,
) -> Array:
    """Count how often each class (row) was taken for each (column).

    C_jk = Σ_i w_i · [label_i = j] · [predicted_i = k], with w = 1 without weights

    Parameters
    ----------
    prediction
        Logits of the classes, of which the largest counts; or one logit for each target, positive
        for class 1; or predicted labels, integers.
    target
        Labels, 0 to classes - 1.
    sample_weight
        A weight ≥ 0 for each row, or for each step of sequences.
    classes
        The number of classes; None: of the logits, or as many as the labels need.
    normalize
        ``"true"`` divides by the sum of each row, ``"pred"`` of each column, ``"all"`` of all; None
        leaves counts.

    Shapes
    ------
    prediction (samples, ..., classes), or as target; target (samples, ...); result
    (classes, classes), integers without weights and ``normalize``.

    Raises
    ------
    ValueError
        For other shapes, labels that are no classes, predictions that are NaN, and weights that are
        negative, not finite or all zero.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl.training import confusion_matrix
    >>> logits = np.array([[2.0, 1.0], [3.0, 0.0], [0.0, 1.0]])
    >>> confusion_matrix(logits, np.array([0, 1, 1]))
    array([[1, 0],
           [1, 1]])
    """
    name = "confusion_matrix"
    prediction, target = np.asarray(prediction), np.asarray(target)
    predicted, labels, count = _labels(name, prediction, target)
    if classes is not None:
        classes = check_count(name, "classes", classes)
        if count > classes:
            raise ValueError(f"{name}: there are {count} classes, and not {classes}")
        count = classes
    weight = _of_rows(check_sample_weight(name, sample_weight, target), target)
    pairs = np.bincount(labels * count + predicted, weight, minlength=count * count)
    matrix = pairs.reshape(count, count)
    if normalize is None:
        return matrix
    axis = {"true": 1, "pred": 0, "all": None}
    of = axis[check_choice(name, "normalize", normalize, *axis)]
    return _ratio(matrix, matrix.sum(axis=of, keepdims=True), 0.0)


def precision(
    prediction: Array,
    target: Array,
    sample_weight: Any = None,
    average: str | None = "binary",
    zero_division: float = 0.0,
) -> Any:
    """Compute the share of the rows taken for a class that are of it: true of all positives.

    precision = TP / (TP + FP)

    Parameters
    ----------
    prediction, target, sample_weight
        As of ``confusion_matrix``.
    average
        ``"binary"``: of class 1, where there are no others than 0 and 1. ``"macro"``: the mean over
        the classes that occur, as label or prediction. ``"weighted"``: their mean by the number of
        their labels. ``"micro"``: of all rows together. None: an array, of each such class.
    zero_division
        The value of 0 / 0: 0, 1, or NaN, which a mean over classes leaves out.

    Raises
    ------
    ValueError
        As ``confusion_matrix``; and for more than two classes with ``"binary"``.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl.training import precision
    >>> precision(np.array([0, 1, 1, 1]), np.array([0, 0, 1, 1]))
    0.6666666666666666
    """
    counts = _counted("precision", prediction, target, sample_weight)
    return counts.score("precision", average, zero_division)


def recall(
    prediction: Array,
    target: Array,
    sample_weight: Any = None,
    average: str | None = "binary",
    zero_division: float = 0.0,
) -> Any:
    """Compute the share of the rows of a class that are taken for it.

    recall = TP / (TP + FN)

    Parameters and errors are those of ``precision``.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl.training import recall
    >>> recall(np.array([0, 1, 0, 1]), np.array([0, 1, 1, 1]))
    0.6666666666666666
    """
    counts = _counted("recall", prediction, target, sample_weight)
    return counts.score("recall", average, zero_division)


def f1(
    prediction: Array,
    target: Array,
    sample_weight: Any = None,
    average: str | None = "binary",
    zero_division: float = 0.0,
) -> Any:
    """Compute the harmonic mean of precision and recall.

    F₁ = 2 · TP / (2 · TP + FP + FN)

    Parameters and errors are those of ``precision``.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl.training import f1
    >>> f1(np.array([0, 1, 1, 1]), np.array([0, 0, 1, 1]))
    0.8
    >>> f1(np.array([0, 2, 1, 1]), np.array([0, 2, 2, 1]), average=None).round(3)
    array([1.   , 0.667, 0.667])
    """
    return _counted("f1", prediction, target, sample_weight).score("f1", average, zero_division)


def balanced_accuracy(prediction: Array, target: Array, sample_weight: Any = None) -> float:
    """Compute the mean over the classes of the share of their rows that is right.

    Balanced accuracy is the mean recall over the classes that have rows.

    Parameters and errors are those of ``confusion_matrix``.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl.training import balanced_accuracy
    >>> balanced_accuracy(np.array([0, 0, 0, 0]), np.array([0, 0, 0, 1]))
    0.5
    """
    return _counted("balanced_accuracy", prediction, target, sample_weight).balanced_accuracy()


def _counted(name: str, prediction: Array, target: Array, sample_weight: Any) -> Counts:
    prediction, target = np.asarray(prediction), np.asarray(target)
    counts = Counts(name)
    counts.add(prediction, target, check_sample_weight(name, sample_weight, target))
    return counts


class Counts:
    """What the rows of each class weigh: all, those taken for it, and those rightly so.

    Parameters
    ----------
    name
        The metric, for messages.

    Attributes
    ----------
    labelled, predicted, hits
        The weights of the rows of a class, of those taken for it, and of those in both.
    occurs
        Whether a class has been a label or a prediction, be it of weight zero.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.labelled, self.predicted, self.hits = np.zeros(0), np.zeros(0), np.zeros(0)
        self.occurs: Array = np.zeros(0, bool)

    def add(self, prediction: Array, target: Array, weight: Array | None = None) -> None:
        """Count these rows, with their weights if there are any."""
        predicted, labels, classes = _labels(self.name, prediction, target)
        classes = max(classes, len(self.occurs))
        weight = _of_rows(weight, target)
        right = predicted == labels
        of_right = None if weight is None else weight[right]
        self.labelled = _grown(self.labelled, labels, weight, classes)
        self.predicted = _grown(self.predicted, predicted, weight, classes)
        self.hits = _grown(self.hits, labels[right], of_right, classes)
        self.occurs = np.pad(self.occurs, (0, classes - len(self.occurs)))
        self.occurs[predicted] = self.occurs[labels] = True

    def score(self, kind: str, average: str | None, zero_division: float) -> Any:
        """Return precision, recall or F1, averaged over classes."""
        if average is not None:
            check_choice(self.name, "average", average, *AVERAGES)
        is_nan = zero_division != zero_division
        if zero_division not in (0, 1) and not is_nan:
            raise ValueError(f"{self.name}: zero_division must be 0, 1 or NaN, got {zero_division}")
        hits, labelled, predicted = self._totals(average)
        above, below = {
            "precision": (hits, predicted),
            "recall": (hits, labelled),
            "f1": (2 * hits, labelled + predicted),
        }[kind]
        scores = _ratio(above, below, zero_division)
        if average is None:
            return scores
        return _mean(scores, labelled if average == "weighted" else np.ones(len(scores)))

    def _totals(self, average: str | None) -> list[Array]:
        """Return hits, labels and predictions: of each class that occurs, of class 1, or of all."""
        totals = [self.hits, self.labelled, self.predicted]
        if average == "binary":
            if self.occurs[2:].any():
                raise ValueError(
                    f'{self.name}: "binary" is for classes 0 and 1, and there is '
                    f'{np.flatnonzero(self.occurs)[-1]}: choose "macro", "micro" or "weighted"'
                )
            return [np.append(total, [0, 0])[1:2] for total in totals]
        totals = [total[self.occurs] for total in totals]
        return [t.sum(keepdims=True) for t in totals] if average == "micro" else totals

    def balanced_accuracy(self) -> float:
        """Return the mean recall of the classes that have rows."""
        recalls = _ratio(self.hits, self.labelled, np.nan)
        return _mean(recalls, np.ones(len(recalls)))


class FromCounts:
    """A running metric that is computed from the confusion matrix.

    Parameters
    ----------
    name
        The metric.
    compute
        Its value, from the ``Counts``.
    most
        The largest number of classes.
    """

    def __init__(
        self, name: str, compute: Callable[[Counts], float], most: int | None = None
    ) -> None:
        self._counts, self._compute, self._most = Counts(name), compute, most

    def check(self, prediction: Array, target: Array) -> None:
        """Raise ValueError unless these can be compared; looks at their shapes only."""
        name, shape = self._counts.name, prediction.shape
        logits = kind_of_prediction(name, prediction, target) == "logits"
        if self._most is not None and logits and shape[-1] > self._most:
            raise ValueError(
                f"{name} is for {self._most} classes, and there are {shape[-1]}: choose "
                f"{name}_macro, {name}_micro or {name}_weighted"
            )

    def add(self, prediction: Array, target: Array, weight: Array | None = None) -> None:
        """Count these rows, with their weights if there are any."""
        self._counts.add(prediction, target, weight)

    def read(self) -> float:
        """Return the value over all rows so far."""
        return float(self._compute(self._counts))


# --- what a prediction says ----------------------------------------------------------------------


def kind_of_prediction(name: str, prediction: Array, target: Array) -> str:
    """Return what a prediction is: ``"labels"``, one ``"logit"`` each, or ``"logits"``.

    Raises
    ------
    ValueError
        If it does not fit the target.
    """
    if prediction.shape == target.shape:
        return "labels" if prediction.dtype.kind in "iub" else "logit"
    if prediction.ndim > 1 and prediction.shape[:-1] == target.shape:
        return "logits" if prediction.shape[-1] > 1 else "logit"
    raise ValueError(
        f"{name} needs prediction (samples, ..., classes) and target (samples, ...), or both of "
        f"one shape, got {prediction.shape} and {target.shape}"
    )


def _labels(name: str, prediction: Array, target: Array) -> tuple[Array, Array, int]:
    """Return predicted and true labels in one dimension, and the number of classes."""
    kind = kind_of_prediction(name, prediction, target)
    if target.size == 0:
        raise ValueError(f"{name}: there is no row")
    check_no_nan(name, "prediction", prediction)
    check_no_nan(name, "target", target)
    if kind == "logit":
        check_two_classes(name, target)
        true = target > 0.5 if target.dtype.kind != "b" else target
        return (prediction > 0).ravel().astype(np.intp), true.ravel().astype(np.intp), 2
    if kind == "labels":
        labels = as_labels(name, "target", target)
        predicted = as_labels(name, "prediction", prediction)
        return predicted, labels, 1 + int(max(predicted.max(), labels.max()))
    classes = prediction.shape[-1]
    labels = as_labels(name, "target", target, classes)
    return prediction.reshape(-1, classes).argmax(axis=1), labels, classes


def as_labels(name: str, what: str, array: Array, classes: int | None = None) -> Array:
    """Return labels in one dimension; raise ValueError unless they are integers ≥ 0, of classes."""
    if array.dtype.kind not in "iub":
        raise ValueError(f"{name}: {what} must be integer labels, got {array.dtype}")
    labels = array.ravel().astype(np.intp)
    if labels.min() < 0:
        raise ValueError(f"{name}: {what} holds {labels.min()}; labels are >= 0")
    if classes is not None and labels.max() >= classes:
        raise ValueError(f"{name}: {what} holds {labels.max()}, and there are {classes} classes")
    return labels


def check_two_classes(name: str, target: Array, least: float = -np.inf) -> None:
    """Raise ValueError if a target of one logit is beyond class 1, or below ``least``."""
    outside = (target > 1) | (target < least)
    if outside.any():
        place = tuple(np.argwhere(outside)[0])
        raise ValueError(
            f"{name}: target holds {target[place]} in row {place[0]}, and one logit is for classes "
            "0 and 1; for more, give logits of all classes, or integers where labels are predicted"
        )


def check_no_nan(name: str, what: str, array: Array) -> None:
    """Raise ValueError if a number is NaN, naming the first such row."""
    if array.dtype.kind == "f" and (bad := np.isnan(array)).any():
        raise ValueError(f"{name}: {what} holds NaN in row {np.argwhere(bad)[0][0]}")


def _of_rows(weight: Array | None, target: Array) -> Array | None:
    """Return the weights of all labels in one dimension, in float64; None if there are none."""
    return None if weight is None else spread(weight, target.shape).ravel().astype(np.float64)


# --- arithmetic ----------------------------------------------------------------------------------


def _grown(sums: Array, classes: Array, weight: Array | None, count: int) -> Array:
    """Return the sums of so many classes, with the weights of these rows added, one by one."""
    grown = np.pad(sums, (0, count - len(sums)))
    if weight is None:
        return grown + np.bincount(classes, minlength=count)
    np.add.at(grown, classes, weight)  # the same bits in whatever parts the rows come
    return grown


def _ratio(above: Array, below: Array, of_zeros: float) -> Array:
    """Divide; 0 / 0 is ``of_zeros``."""
    above, below = np.broadcast_arrays(above, below)
    zero = below == 0
    return np.where(zero, of_zeros, above / np.where(zero, 1, below))


def _mean(scores: Array, weights: Array) -> float:
    """Return the weighted mean of the scores that are not NaN; NaN if there are none."""
    known = ~np.isnan(scores)
    if not known.any():
        return float("nan")
    scores, weights = scores[known], weights[known]
    return float(np.average(scores, weights=weights if weights.sum() > 0 else None))
