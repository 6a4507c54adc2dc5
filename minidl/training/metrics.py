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
mape         Σ w · |ŷ - y| / max(|y|, ε) / Σ w
f1           also ``precision`` and ``recall``: of class 1, for two classes or one logit;
             ``f1_macro``, ``f1_micro``, ``f1_weighted`` for any number of classes
balanced_    the mean over classes of the share of their rows that is right:
accuracy     ``balanced_accuracy``
roc_auc      area under the ROC curve, of several classes the mean of each against the others;
             ``roc_auc_weighted`` by the weight of their labels
log_loss     -Σ w · log softmax(z)_label / Σ w
===========  ==================================================================================

The weighted ones are those of scikit-learn's ``sample_weight``.

A prediction that is NaN is never right: rows with a NaN among their logits count as wrong, as do
labels whose logit is infinite, and the errors are NaN. Those from ``mape`` on refuse it, as
scikit-learn does. Each of them is a function of this name as well, in ``minidl.training``.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from minidl.nn import BCEWithLogitsLoss, Loss
from minidl.training.confusion import Counts, FromCounts
from minidl.training.running_metrics import (
    R2,
    BinaryAccuracy,
    MeanError,
    Running,
    TopK,
    Whole,
    check_sample_weight,
    spread,
)
from minidl.training.score_metrics import LogLoss, RelativeError, roc_auc
from minidl.typing import Array

Metric = Callable[..., float]  # (prediction, target), of weighted ones and sample_weight
Metrics = Iterable[str | Metric] | str | Metric | None


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
    metric.add(prediction, target, check_sample_weight("accuracy", sample_weight, target))
    return metric.read()


# Those whose name says everything.
PLAIN: dict[str, Callable[[], Running]] = {
    "r2": R2,
    "mape": RelativeError,
    "log_loss": LogLoss,
    "balanced_accuracy": partial(FromCounts, "balanced_accuracy", Counts.balanced_accuracy),
}


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
        for metric in [given] if isinstance(given, str) or callable(given) else given or ():
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
    if weighted and not _takes_sample_weight(metric):
        raise TypeError(
            f"weighted_metrics: {name} takes no sample_weight; write it as "
            f"{name}(prediction, target, sample_weight), or give it to metrics"
        )
    return name, partial(Whole, metric, weighted)


def _takes_sample_weight(metric: Metric) -> bool:
    """Whether the function has a parameter ``sample_weight`` that can be given by name."""
    try:
        parameters = inspect.signature(metric).parameters
    except ValueError:  # a built-in function without a signature
        return False
    found = parameters.get("sample_weight")
    by_name = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    if found is not None and found.kind in by_name:
        return True
    return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())


def _known(name: str, loss: Loss | None) -> Callable[[], Running]:
    """Return a function that makes the metric of this name."""
    if name == "accuracy":
        return BinaryAccuracy if isinstance(loss, BCEWithLogitsLoss) else partial(TopK, 1, name)
    if match := re.fullmatch(r"top_([1-9]\d*)", name):
        return partial(TopK, int(match[1]), name)
    if name in ("mse", "mae"):
        return partial(MeanError, 2 if name == "mse" else 1, name)
    if name in ("roc_auc", "roc_auc_weighted"):
        average = "weighted" if name.endswith("weighted") else "macro"
        return partial(Whole, partial(roc_auc, average=average), weighted=True)
    if match := re.fullmatch(r"(precision|recall|f1)(?:_(macro|micro|weighted))?", name):
        kind, average = match[1], match[2] or "binary"
        compute = partial(Counts.score, kind=kind, average=average, zero_division=0.0)
        return partial(FromCounts, name, compute, 2 if average == "binary" else None)
    if name in PLAIN:
        return PLAIN[name]
    raise ValueError(
        f"unknown metric {name!r}; known: accuracy, top_k (such as top_5), mse, mae, mape, r2, "
        "log_loss, roc_auc, balanced_accuracy, precision, recall, f1 (f1_macro, ...)"
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
        weight = spread(weight, counted.shape)[counted]
    return prediction[counted], target[counted], weight


def is_mean(loss: Loss) -> bool:
    """Return whether the loss of a batch is a mean over its rows, and not their sum."""
    return bool(getattr(loss, "reduction", "mean") == "mean")


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

    def resume_state(self) -> dict[str, Any]:
        """Return the sums so far."""
        metrics = [_sums_of(metric) for metric in self._metrics.values()]
        return {"total": self._total, "weight": self._weight, "metrics": metrics}

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from sums that ``resume_state`` has returned."""
        self._total, self._weight = state["total"], state["weight"]
        for metric, sums in zip(self._metrics.values(), state["metrics"], strict=True):
            _set_sums(metric, sums)

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


def _sums_of(metric: Any) -> dict[str, Any]:
    """Return the attributes of a metric, and of objects in it, without functions."""
    return {
        name: _sums_of(value) if hasattr(value, "__dict__") else value
        for name, value in vars(metric).items()
        if not callable(value)
    }


def _set_sums(metric: Any, sums: dict[str, Any]) -> None:
    """Set the attributes that ``_sums_of`` has returned."""
    for name, value in sums.items():
        held = vars(metric)[name]
        if hasattr(held, "__dict__"):
            _set_sums(held, value)
        else:
            vars(metric)[name] = value
