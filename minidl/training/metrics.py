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
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from minidl.nn import BCEWithLogitsLoss, Loss, MultiLoss
from minidl.nn.multi_loss import heads_of, naming
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
    prediction, target = np.asarray(prediction), np.asarray(target)
    metric = TopK(1, "accuracy")
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
    head: str = ""  # of a MultiLoss, whose predictions it measures

    def __call__(self) -> Running:
        return self.make()


def by_name(metrics: Any, loss: Loss | None = None, weighted_metrics: Any = ()) -> dict[str, Start]:
    """Return the metrics for predictions of this loss, with their names in a history.

    The name of a weighted metric begins with ``weighted_``. For a ``MultiLoss``, metrics come in
    dicts by the names of the heads, and these names begin all others, as in ``"size.mae"``.
    Without metrics (None), heads of labels have ``accuracy``.
    """
    if not isinstance(loss, MultiLoss):
        if metrics is None:
            metrics = ("accuracy",) if loss is not None and loss.takes_labels else ()
        return _of_one_loss(metrics, loss, weighted_metrics)
    found: dict[str, Start] = {}
    plain = _by_head(loss, "metrics", metrics)
    weighted = _by_head(loss, "weighted_metrics", weighted_metrics or {})
    for name, own in loss.heads.items():
        default = ("accuracy",) if own.takes_labels and metrics is None else ()
        with naming(name):
            starts = _of_one_loss(plain.get(name, default), own, weighted.get(name, ()))
        found |= {f"{name}.{metric}": replace(s, head=name) for metric, s in starts.items()}
    return found


def _by_head(loss: MultiLoss, name: str, metrics: Any) -> Mapping[str, Metrics]:
    """Check metrics by the names of heads; return them, or no names for None."""
    metrics = {} if metrics is None else metrics
    if not isinstance(metrics, Mapping) or not metrics.keys() <= loss.heads.keys():
        raise ValueError(
            f"{name} of a MultiLoss: expected a dict by the names of its heads "
            f"({', '.join(loss.heads)}), got {metrics!r}"
        )
    return metrics


def metrics_of_heads(metrics: dict[str, Start], loss: Loss) -> Any:
    """Return the metrics of each head of a ``MultiLoss`` in a tuple, or those of the only loss."""
    if not isinstance(loss, MultiLoss):
        return metrics
    return tuple(
        {
            key.removeprefix(f"{name}."): start
            for key, start in metrics.items()
            if start.head == name
        }
        for name in loss.heads
    )


def names_of_losses(loss: Loss) -> list[str]:
    """Return the names that losses have in a history: ``loss``, and those of all heads."""
    return ["loss", *(f"{name}.loss" for name in heads_of(loss) if name)]


def _of_one_loss(
    metrics: Metrics, loss: Loss | None, weighted_metrics: Metrics
) -> dict[str, Start]:
    """Return the metrics for predictions of one loss, by name."""
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
        with naming(start.head) if start.head else nullcontext():
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
        some, labels, weight_of_some = counted(prediction[rows], target[rows], *weights)
        with naming(start.head) if start.head else nullcontext():
            metric.add(some, labels, weight_of_some if start.weighted else None)
            metric.read()


def counted(
    prediction: Array, target: Array, weight: Array | None, loss_weight: Array | None
) -> tuple[Array, Array, Array | None]:
    """Return what has a weight above zero: rows, or of sequences all steps of them, as rows."""
    if loss_weight is None or (loss_weight.ndim == 1 and loss_weight.all()):
        return prediction, target, weight
    counted = loss_weight > 0
    if weight is not None:
        weight = spread(weight, counted.shape)[counted]
    return prediction[counted], target[counted], weight
