"""What is measured beside the loss.

A metric is the name of one known here, or a function ``(prediction, target) -> float``. Those known
here keep sums from batch to batch, and are exact over an epoch or a data set all the same: R² is
that of all rows, not a mean over batches. A function sees all predictions at once, which are kept
for it, so that it need not be an average over rows either.

===========  ==================================================================================
name         over the rows i, predictions ŷ and targets y
===========  ==================================================================================
accuracy     share of the rows whose largest logit is that of the label; with
             ``BCEWithLogitsLoss``, share of the logits that are > 0 where the target is > 0.5
top_k        share of the rows whose label is among the k largest logits: ``top_5``, any k
mse          mean of (ŷ - y)²
mae          mean of |ŷ - y|
r2           1 - Σ (ŷ - y)² / Σ (y - mean y)², the mean over the columns of the targets
===========  ==================================================================================

A prediction that is NaN is never right: rows with a NaN among their logits count as wrong, as do
labels whose logit is infinite, and the errors are NaN.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

import numpy as np

from minidl.nn import BCEWithLogitsLoss, Loss
from minidl.typing import Array

Metric = Callable[[Array, Array], float]


def accuracy(prediction: Array, target: Array) -> float:
    """Share of the rows, or of all steps of sequences, whose largest logit is that of the label.

    accuracy = 1/n · Σ_i [argmax_j z_ij = label_i]

    Shapes
    ------
    prediction (samples, ..., classes), target (samples, ...).

    Raises
    ------
    ValueError
        For other shapes.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl.training import accuracy
    >>> accuracy(np.array([[2.0, 1.0], [3.0, 0.0]]), np.array([0, 1]))
    0.5
    """
    metric = TopK(1, "accuracy")
    metric.add(prediction, target)
    return metric.read()


class Running(Protocol):
    """A metric under way: it is shown batch after batch, and can be read at any time."""

    def check(self, prediction: Array, target: Array) -> None:
        """Raise ValueError unless these can be compared; looks at their shapes only."""

    def add(self, prediction: Array, target: Array) -> None:
        """Count these rows."""

    def read(self) -> float:
        """The value over all rows so far."""


class TopK:
    """Share of the rows whose label is among the k largest logits.

    Of equal logits the first counts as the largest, so top_1 is the accuracy.
    """

    def __init__(self, k: int, name: str) -> None:
        self._k, self._name = k, name
        self._rows = self._right = 0

    def check(self, prediction: Array, target: Array) -> None:
        if prediction.ndim < 2 or target.shape != prediction.shape[:-1]:
            raise ValueError(
                f"{self._name} needs prediction (samples, ..., classes) and target (samples, ...), "
                f"got {prediction.shape} and {target.shape}"
            )
        if self._k > prediction.shape[-1]:
            raise ValueError(f"{self._name}: there are only {prediction.shape[-1]} classes")

    def add(self, prediction: Array, target: Array) -> None:
        self.check(prediction, target)
        classes = prediction.shape[-1]
        # Every step of a sequence is a row of its own.
        prediction, target = prediction.reshape(-1, classes), target.reshape(-1)
        self._rows += len(target)
        if self._k == 1:
            right = prediction.argmax(axis=1) == target
        else:
            own = np.take_along_axis(prediction, target[:, None], axis=1)
            before = np.arange(classes) < target[:, None]
            right = ((prediction > own) | ((prediction == own) & before)).sum(axis=1) < self._k
        with np.errstate(over="ignore", invalid="ignore"):
            finite = np.isfinite(prediction.sum())  # cheaper than a look at every logit
        if not finite:
            right &= ~np.isnan(prediction).any(axis=1)
            right[right] = np.isfinite(prediction[right, target[right].astype(np.intp)])
        self._right += int(np.count_nonzero(right))

    def read(self) -> float:
        return self._right / self._rows


class BinaryAccuracy:
    """Share of the logits that say what the target does: positive where that is above one half."""

    def __init__(self) -> None:
        self._logits = self._right = 0

    def check(self, prediction: Array, target: Array) -> None:
        _check_alike("accuracy", prediction, target)

    def add(self, prediction: Array, target: Array) -> None:
        self.check(prediction, target)
        right = ((prediction > 0) == (target > 0.5)) & np.isfinite(prediction)
        self._right += int(np.count_nonzero(right))
        self._logits += target.size

    def read(self) -> float:
        return self._right / self._logits


class MeanError:
    """Mean over all elements of |error|^power: 1 for the absolute, 2 for the squared error."""

    def __init__(self, power: int, name: str) -> None:
        self._power, self._name = power, name
        self._elements, self._total = 0, 0.0

    def check(self, prediction: Array, target: Array) -> None:
        _check_alike(self._name, prediction, target)

    def add(self, prediction: Array, target: Array) -> None:
        self.check(prediction, target)
        error = np.subtract(prediction, target, dtype=np.float64)
        self._total += float((np.abs(error) if self._power == 1 else np.square(error)).sum())
        self._elements += error.size

    def read(self) -> float:
        return self._total / self._elements


class R2:
    """1 - Σ (ŷ - y)² / Σ (y - mean y)² for every column of the targets, and their mean.

    A column that does not vary counts 1 if it is predicted exactly, else 0. The mean of the
    targets and the squares around it are merged from batch to batch, which loses no digits where
    the mean is large. Source: Chan, Golub and LeVeque 1983, equation 2.1.
    """

    def __init__(self) -> None:
        self._rows = 0
        self._first: Array | None = None  # row: of a column that does not vary, exactly the mean
        self._residual: Array = np.zeros(())
        self._mean: Array = np.zeros(())
        self._around: Array = np.zeros(())  # squares around the mean

    def check(self, prediction: Array, target: Array) -> None:
        _check_alike("r2", prediction, target)

    def add(self, prediction: Array, target: Array) -> None:
        self.check(prediction, target)
        rows = len(target)
        y = target.reshape(rows, -1).astype(np.float64)
        self._residual = self._residual + np.square(prediction.reshape(rows, -1) - y).sum(axis=0)
        self._first = y[0] if self._first is None else self._first
        y = y - self._first
        mean = y.mean(axis=0)
        shift, total = mean - self._mean, self._rows + rows
        between = np.square(shift) * self._rows * rows / total
        self._around = self._around + np.square(y - mean).sum(axis=0) + between
        self._mean = self._mean + shift * rows / total
        self._rows = total

    def read(self) -> float:
        constant = self._around == 0
        ratio = self._residual / np.where(constant, 1.0, self._around)
        exact = np.where(np.isnan(self._residual), np.nan, self._residual == 0)
        return float(np.where(constant, exact, 1 - ratio).mean())


class Whole:
    """A function of all predictions and targets: both are kept for it."""

    def __init__(self, function: Metric) -> None:
        self._function = function
        self._predictions: list[Array] = []
        self._targets: list[Array] = []

    def check(self, prediction: Array, target: Array) -> None:
        """Nothing: only the function knows."""

    def add(self, prediction: Array, target: Array) -> None:
        self._predictions.append(prediction)
        self._targets.append(target)

    def read(self) -> float:
        for parts in (self._predictions, self._targets):
            parts[:] = [np.concatenate(parts)]  # what is read again need not be joined again
        return float(self._function(self._predictions[0], self._targets[0]))


Start = Callable[[], Running]  # makes a metric that has seen nothing yet


def by_name(metrics: Iterable[str | Metric], loss: Loss | None = None) -> dict[str, Start]:
    """The metrics with the names under which a history lists them, for predictions of this loss."""
    found: dict[str, Start] = {}
    for metric in [metrics] if isinstance(metrics, str) or callable(metrics) else metrics:
        if metric is accuracy:
            metric = "accuracy"
        if isinstance(metric, str):
            name, start = metric, _known(metric, loss)
        elif callable(metric):
            name = getattr(metric, "__name__", type(metric).__name__)
            start = partial(Whole, metric)
        else:
            raise TypeError(f"a metric is a name or a callable, got {metric!r}")
        if name in ("epoch", "loss", "seconds") or name.startswith("val_"):
            raise ValueError(f"a metric cannot be called {name!r}: the history has its own")
        if name in found:
            raise ValueError(f"two entries of the history would be called {name!r}")
        found[name] = start
    return found


def _known(name: str, loss: Loss | None) -> Start:
    """The metric of this name."""
    if name == "accuracy":
        return BinaryAccuracy if isinstance(loss, BCEWithLogitsLoss) else partial(TopK, 1, name)
    if match := re.fullmatch(r"top_([1-9]\d*)", name):
        return partial(TopK, int(match[1]), name)
    if name in ("mse", "mae"):
        return partial(MeanError, 2 if name == "mse" else 1, name)
    if name == "r2":
        return R2
    raise ValueError(
        f"unknown metric {name!r}; known: accuracy, top_k (such as top_5), mse, mae, r2"
    )


def check_metrics(metrics: dict[str, Start], prediction: Array, target: Array) -> None:
    """Raise ValueError if a metric cannot compare predictions and targets of these shapes."""
    for start in metrics.values():
        start().check(prediction, target)


def try_out(
    metrics: dict[str, Start], prediction: Array, target: Array, counts: Array | None
) -> None:
    """Raise what a metric raises on such predictions and targets.

    A function is shown all of them, as it will be later; for the others the first row will do.
    """
    check_metrics(metrics, prediction, target)
    for start in metrics.values():
        metric = start()
        rows = slice(None) if isinstance(metric, Whole) else slice(1)
        weight = None if counts is None else counts[rows]
        metric.add(*_counting(prediction[rows], target[rows], weight))
        float(metric.read())


def _counting(prediction: Array, target: Array, counts: Array | None) -> tuple[Array, Array]:
    """Both as they are; or if every step of sequences has a weight, those that count, as rows."""
    if counts is None or counts.ndim == 1:  # then rows of weight zero are left out from the start
        return prediction, target
    return prediction[counts > 0], target[counts > 0]


def _check_alike(name: str, prediction: Array, target: Array) -> None:
    if prediction.shape != target.shape:
        raise ValueError(
            f"{name} needs prediction and target of one shape, "
            f"got {prediction.shape} and {target.shape}"
        )


class Tally:
    """Loss and metrics over the batches of an epoch or of a data set.

    A mean over batches weighs each as the loss does: with its rows, or the weights of its rows.
    """

    def __init__(self, loss: Loss, metrics: dict[str, Start]) -> None:
        self._mean = getattr(loss, "reduction", "mean") == "mean"
        self._metrics = {name: start() for name, start in metrics.items()}
        self._weight = 0.0
        self._total = 0.0

    def add(self, values: list[float], batch: int, rows: int, weight: Array | None = None) -> None:
        """Count batches of so many rows each, the last maybe fewer, given one after the other.

        ``weight`` is what each row counts in the loss; None: all the same.
        """
        for number, value in enumerate(values):
            if not self._mean:
                self._total += value
                continue
            begin, end = number * batch, min((number + 1) * batch, rows)
            share = end - begin if weight is None else float(weight[begin:end].sum())
            self._total += value * share
            self._weight += share

    def show(self, prediction: Array, target: Array, counts: Array | None) -> None:
        """Let the metrics count the predictions for these rows, but steps of weight zero."""
        prediction, target = _counting(prediction, target, counts)
        for metric in self._metrics.values():
            metric.add(prediction, target)

    def read(self) -> dict[str, float]:
        """The values over all rows."""
        return self._read(self._metrics)

    def read_running(self) -> dict[str, float]:
        """The values so far, without those that a function makes of all rows at once."""
        kept = {k: m for k, m in self._metrics.items() if not isinstance(m, Whole)}
        return self._read(kept)

    def _read(self, metrics: dict[str, Running]) -> dict[str, float]:
        values = {"loss": self._total / self._weight if self._mean else self._total}
        return values | {name: metric.read() for name, metric in metrics.items()}
