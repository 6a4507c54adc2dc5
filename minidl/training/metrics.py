"""Metrics: what is measured beside the loss.

A metric is the name of one known here, or a function ``(prediction, target) -> float``. Those known
by name keep sums from batch to batch, so that they are exact over an epoch or a data set: R² is
that of all rows, not a mean over batches. A function is called once, with all predictions, which
are kept for it; so it need not be an average over rows either.

===========  ==================================================================================
name         over the rows i, predictions ŷ and targets y, with weights w (all 1 without any)
===========  ==================================================================================
accuracy     Σ w of the rows whose largest logit is that of the label, / Σ w; with
             ``BCEWithLogitsLoss``, of the logits that are > 0 where the target is > 0.5
top_k        Σ w of the rows whose label is among the k largest logits, / Σ w: ``top_5``, any k
mse          Σ w · (ŷ - y)² / Σ w
mae          Σ w · |ŷ - y| / Σ w
r2           1 - Σ w · (ŷ - y)² / Σ w · (y - ȳ)² with ȳ = Σ w · y / Σ w, the mean over the columns
             of the targets
===========  ==================================================================================

The weighted ones are those of scikit-learn's ``sample_weight``.

A prediction that is NaN is never right: rows with a NaN among their logits count as wrong, as do
labels whose logit is infinite, and the errors are NaN.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np

from minidl.nn import BCEWithLogitsLoss, Loss
from minidl.typing import Array

Metric = Callable[..., float]  # (prediction, target), of weighted ones and sample_weight
Metrics = Iterable[str | Metric] | str | Metric


def accuracy(prediction: Array, target: Array, sample_weight: Any = None) -> float:
    """Compute the share of the rows, or steps of sequences, whose largest logit is the label's.

    accuracy = Σ_i w_i · [argmax_j z_ij = label_i] / Σ_i w_i, with w = 1 without weights

    Parameters
    ----------
    prediction, target
        Logits, and labels.
    sample_weight
        A weight ≥ 0 for each row, or for each step of sequences.

    Shapes
    ------
    prediction (samples, ..., classes), target (samples, ...), sample_weight (samples) or
    (samples, ...).

    Raises
    ------
    ValueError
        For other shapes, and for weights that are negative, not finite or all zero.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl.training import accuracy
    >>> logits, labels = np.array([[2.0, 1.0], [3.0, 0.0]]), np.array([0, 1])
    >>> accuracy(logits, labels)
    0.5
    >>> accuracy(logits, labels, sample_weight=[3, 1])
    0.75
    """
    metric = TopK(1, "accuracy")
    metric.check(prediction, target)
    if sample_weight is None:
        metric.add(prediction, target)
        return metric.read()
    weight = np.asarray(sample_weight, np.float64)
    if weight.shape not in (target.shape, target.shape[:1]):
        raise ValueError(
            f"accuracy needs sample_weight {target.shape[:1]} or {target.shape}, got {weight.shape}"
        )
    if not (np.isfinite(weight) & (weight >= 0)).all() or not weight.any():
        raise ValueError("accuracy: sample_weight must be finite, >= 0 and not all zero")
    metric.add(prediction, target, weight)
    return metric.read()


class Running(Protocol):
    """A metric while it is computed: it takes batch after batch, and can be read at any time."""

    def check(self, prediction: Array, target: Array) -> None:
        """Raise ValueError unless these can be compared; looks at their shapes only."""

    def add(self, prediction: Array, target: Array, weight: Array | None = None) -> None:
        """Add these rows, with their weights if there are any."""

    def read(self) -> float:
        """Return the value over all rows so far."""


class Mean:
    """A mean over values, each with the weight of its row, or all with weight 1."""

    def __init__(self) -> None:
        self._total: float = 0
        self._weight: float = 0

    def add_values(self, values: Array, weight: Array | None) -> None:
        """Count values, which are numbers or whether something holds."""
        if weight is None:
            is_bool = values.dtype.kind == "b"
            self._total += int(np.count_nonzero(values)) if is_bool else float(values.sum())
            self._weight += values.size
        else:
            weight = _spread(weight, values.shape)
            self._total += float((values * weight).sum(dtype=np.float64))
            self._weight += float(weight.sum(dtype=np.float64))

    def read(self) -> float:
        """Return the mean over all values so far."""
        return self._total / self._weight


class TopK(Mean):
    """Share of the rows whose label is among the k largest logits.

    Of equal logits the first counts as the largest, so top_1 is the accuracy.
    """

    def __init__(self, k: int, name: str) -> None:
        super().__init__()
        self._k, self._name = k, name

    def check(self, prediction: Array, target: Array) -> None:
        if prediction.ndim < 2 or target.shape != prediction.shape[:-1]:
            raise ValueError(
                f"{self._name} needs prediction (samples, ..., classes) and target (samples, ...), "
                f"got {prediction.shape} and {target.shape}"
            )
        if self._k > prediction.shape[-1]:
            raise ValueError(f"{self._name}: there are only {prediction.shape[-1]} classes")

    def add(self, prediction: Array, target: Array, weight: Array | None = None) -> None:
        self.check(prediction, target)
        shape, classes = target.shape, prediction.shape[-1]
        # Every step of a sequence is a row of its own.
        prediction, target = prediction.reshape(-1, classes), target.reshape(-1)
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
        self.add_values(right if weight is None else right.reshape(shape), weight)


class BinaryAccuracy(Mean):
    """Share of the logits that say what the target does: positive where that is above one half."""

    def check(self, prediction: Array, target: Array) -> None:
        _check_same_shape("accuracy", prediction, target)

    def add(self, prediction: Array, target: Array, weight: Array | None = None) -> None:
        self.check(prediction, target)
        right = ((prediction > 0) == (target > 0.5)) & np.isfinite(prediction)
        self.add_values(right, weight)


class MeanError(Mean):
    """Mean over all elements of |error|^power: 1 for the absolute, 2 for the squared error."""

    def __init__(self, power: int, name: str) -> None:
        super().__init__()
        self._power, self._name = power, name

    def check(self, prediction: Array, target: Array) -> None:
        _check_same_shape(self._name, prediction, target)

    def add(self, prediction: Array, target: Array, weight: Array | None = None) -> None:
        self.check(prediction, target)
        error = np.subtract(prediction, target, dtype=np.float64)
        self.add_values(np.abs(error) if self._power == 1 else np.square(error), weight)


class R2:
    """1 - Σ w (ŷ - y)² / Σ w (y - ȳ)² for every column of the targets, and their mean.

    A column that does not vary counts 1 if it is predicted exactly, else 0. The mean ȳ of the
    targets and the squares around it are merged from batch to batch, which loses no digits where
    the mean is large. Source: Chan, Golub and LeVeque 1983, equation 2.1.
    """

    def __init__(self) -> None:
        self._weight: float = 0  # of all rows so far: their number, without weights
        self._first: Array | None = None  # row: of a column that does not vary, exactly the mean
        self._residual: Array = np.zeros(())
        self._mean: Array = np.zeros(())
        self._around: Array = np.zeros(())  # squares around the mean

    def check(self, prediction: Array, target: Array) -> None:
        _check_same_shape("r2", prediction, target)

    def add(self, prediction: Array, target: Array, weight: Array | None = None) -> None:
        self.check(prediction, target)
        y = target.reshape(len(target), -1).astype(np.float64)
        residual = np.square(prediction.reshape(len(target), -1) - y)
        self._first = y[0] if self._first is None else self._first
        y = y - self._first
        if weight is None:
            count: float = len(y)
            mean, residual = y.mean(axis=0), residual.sum(axis=0)
            around = np.square(y - mean).sum(axis=0)
        else:
            weight = weight.astype(np.float64)
            count = float(weight.sum())
            mean, residual = weight @ y / count, weight @ residual
            around = weight @ np.square(y - mean)
        self._residual = self._residual + residual
        shift, total = mean - self._mean, self._weight + count
        between = np.square(shift) * self._weight * count / total
        self._around = self._around + around + between
        self._mean = self._mean + shift * count / total
        self._weight = total

    def read(self) -> float:
        constant = self._around == 0
        ratio = self._residual / np.where(constant, 1.0, self._around)
        exact = np.where(np.isnan(self._residual), np.nan, self._residual == 0)
        return float(np.where(constant, exact, 1 - ratio).mean())


class Whole:
    """A function of all predictions and targets: both are kept for it, and so are weights."""

    def __init__(self, function: Callable[..., float], weighted: bool = False) -> None:
        self._function, self._weighted = function, weighted
        self._kept: list[list[Array]] = [[], [], []]  # predictions, targets, weights

    def check(self, prediction: Array, target: Array) -> None:
        """Nothing: only the function knows."""

    def add(self, prediction: Array, target: Array, weight: Array | None = None) -> None:
        given = (prediction, target) if weight is None else (prediction, target, weight)
        for kept, array in zip(self._kept, given, strict=False):
            kept.append(array)

    def read(self) -> float:
        for kept in self._kept:
            kept[:] = [np.concatenate(kept)] if kept else []  # joined but once, if read again
        (prediction,), (target,), weights = self._kept
        if not self._weighted:
            return float(self._function(prediction, target))
        weight = weights[0] if weights else None
        return float(self._function(prediction, target, sample_weight=weight))


@dataclass(frozen=True)
class Start:
    """Makes a metric that has counted nothing yet, and says whether it counts weights."""

    make: Callable[[], Running]
    weighted: bool = False

    def __call__(self) -> Running:
        return self.make()


def by_name(
    metrics: Metrics, loss: Loss | None = None, weighted_metrics: Metrics = ()
) -> dict[str, Start]:
    """Return the metrics for predictions of this loss, with their names in a history.

    The name of a weighted metric begins with ``weighted_``.
    """
    found: dict[str, Start] = {}
    for weighted, given in (False, metrics), (True, weighted_metrics):
        for metric in [given] if isinstance(given, str) or callable(given) else given:
            name, make = _named(metric, loss, weighted)
            if name in ("epoch", "loss", "seconds") or name.startswith("val_"):
                raise ValueError(f"a metric cannot be called {name!r}: the history has its own")
            name = "weighted_" * weighted + name
            if name in found:
                raise ValueError(f"two entries of the history would be called {name!r}")
            found[name] = Start(make, weighted)
    return found


def _named(
    metric: str | Metric, loss: Loss | None, weighted: bool
) -> tuple[str, Callable[[], Running]]:
    """Return the name of a metric, and a function that makes it."""
    if metric is accuracy:
        metric = "accuracy"
    if isinstance(metric, str):
        return metric, _known(metric, loss)
    if not callable(metric):
        raise TypeError(f"a metric is a name or a callable, got {metric!r}")
    name = getattr(metric, "__name__", type(metric).__name__)
    if weighted and "sample_weight" not in inspect.signature(metric).parameters:
        raise TypeError(
            f"weighted_metrics: {name} takes no sample_weight; write it as "
            f"{name}(prediction, target, sample_weight), or give it to metrics"
        )
    return name, partial(Whole, metric, weighted)


def _known(name: str, loss: Loss | None) -> Callable[[], Running]:
    """Return a function that makes the metric of this name."""
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
    metrics: dict[str, Start],
    prediction: Array,
    target: Array,
    weight: Array | None,
    loss_weight: Array | None,
) -> None:
    """Raise what a metric raises on such predictions and targets.

    A function gets all of them, as it will later; for the others the first row will do.
    """
    check_metrics(metrics, prediction, target)
    for start in metrics.values():
        metric = start()
        rows = slice(None) if isinstance(metric, Whole) else slice(1)
        weights = (None if each is None else each[rows] for each in (weight, loss_weight))
        some, labels, weight_of_some = _counted(prediction[rows], target[rows], *weights)
        metric.add(some, labels, weight_of_some if start.weighted else None)
        float(metric.read())


def _counted(
    prediction: Array, target: Array, weight: Array | None, loss_weight: Array | None
) -> tuple[Array, Array, Array | None]:
    """All as they are; or if every step of sequences has a weight, those above zero, as rows."""
    if loss_weight is None or loss_weight.ndim == 1:  # then such rows are left out from the start
        return prediction, target, weight
    counted = loss_weight > 0
    if weight is not None:
        weight = _spread(weight, counted.shape)[counted]
    return prediction[counted], target[counted], weight


def is_mean(loss: Loss) -> bool:
    """Return whether the loss of a batch is a mean over its rows, and not their sum."""
    return bool(getattr(loss, "reduction", "mean") == "mean")


def _check_same_shape(name: str, prediction: Array, target: Array) -> None:
    if prediction.shape != target.shape:
        raise ValueError(
            f"{name} needs prediction and target of one shape, "
            f"got {prediction.shape} and {target.shape}"
        )


def _spread(weight: Array, shape: tuple[int, ...]) -> Array:
    """Weights of rows, or of steps, as those of all elements."""
    return np.broadcast_to(weight.reshape(weight.shape + (1,) * (len(shape) - weight.ndim)), shape)


class Tally:
    """Adds up loss and metrics over the batches of an epoch or of a data set.

    A mean over batches weighs each as the loss does: with its rows, or the weights of its rows.
    """

    def __init__(self, loss: Loss, metrics: dict[str, Start]) -> None:
        self._mean = is_mean(loss)
        self._metrics = {name: start() for name, start in metrics.items()}
        self._weighted = [start.weighted for start in metrics.values()]
        self._weight = 0.0
        self._total = 0.0

    @property
    def has_metrics(self) -> bool:
        """Whether predictions are wanted at all."""
        return bool(self._metrics)

    def add(self, values: list[float], batch: int, rows: int, weight: Array | None = None) -> None:
        """Count the losses of batches, in order; each has ``batch`` rows, the last may have fewer.

        ``weight`` is the weight of each row in the loss; None if all are equal.
        """
        for number, value in enumerate(values):
            if not self._mean:
                self._total += value
                continue
            begin, end = number * batch, min((number + 1) * batch, rows)
            share = end - begin if weight is None else float(weight[begin:end].sum())
            self._total += value * share
            self._weight += share

    def add_predictions(
        self,
        prediction: Array,
        target: Array,
        weight: Array | None,
        loss_weight: Array | None,
    ) -> None:
        """Add rows to all metrics.

        ``weight`` is for the weighted metrics. Steps of sequences whose ``loss_weight`` is zero
        are left out here; whole rows of weight zero are not in the data any more.
        """
        prediction, target, weight = _counted(prediction, target, weight, loss_weight)
        for metric, weighted in zip(self._metrics.values(), self._weighted, strict=True):
            metric.add(prediction, target, weight if weighted else None)

    def read(self) -> dict[str, float]:
        """Return the values over all rows."""
        return self._read(self._metrics)

    def read_running(self) -> dict[str, float]:
        """Return the values so far, without those that a function computes of all rows at once."""
        kept = {k: m for k, m in self._metrics.items() if not isinstance(m, Whole)}
        return self._read(kept)

    def _read(self, metrics: dict[str, Running]) -> dict[str, float]:
        values = {"loss": self._total / self._weight if self._mean else self._total}
        return values | {name: metric.read() for name, metric in metrics.items()}
