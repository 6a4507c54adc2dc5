"""Losses and metrics while they are added up, batch by batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from minidl.nn import Loss, MultiLoss
from minidl.nn.multi_loss import naming
from minidl.training.metrics import Start, counted, metrics_of_heads, names_of_losses
from minidl.training.running_metrics import Running, Whole
from minidl.typing import Array


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

    @property
    def has_counted(self) -> bool:
        """Whether any row has counted so far."""
        return self._weight > 0

    def add(self, values: list[float], batch: int, rows: int, weight: Array | None = None) -> None:
        """Count the losses of batches, in order; each has ``batch`` rows, the last may have fewer.

        ``weight`` is the weight of each row in the loss; None if all are equal.
        """
        for number, value in enumerate(values):
            begin, end = number * batch, min((number + 1) * batch, rows)
            share = end - begin if weight is None else float(weight[begin:end].sum())
            self._total += value * share if self._mean else value
            self._weight += share

    def add_predictions(
        self,
        prediction: Array,
        target: Array,
        weight: Array | None,
        loss_weight: Array | None,
    ) -> None:
        """Add rows to all metrics.

        ``weight`` is for the weighted metrics. Rows, and steps of sequences, whose ``loss_weight``
        is zero are left out.
        """
        prediction, target, weight = counted(prediction, target, weight, loss_weight)
        if not len(target):
            return
        for metric, weighted in zip(self._metrics.values(), self._weighted, strict=True):
            metric.add(prediction, target, weight if weighted else None)

    def resume_state(self) -> dict[str, Any]:
        """Return the sums so far."""
        metrics = [_sums_of(metric) for metric in self._metrics.values()]
        return {"total": self._total, "weight": self._weight, "metrics": metrics}

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from sums that ``resume_state`` has returned."""
        self._total, self._weight = state["total"], state["weight"]
        if not self._mean and self._total:  # of sums, older files do not say what has counted
            self._weight = self._weight or 1.0
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
        if not self.has_counted:  # of a head no row of which has counted yet
            return dict.fromkeys(("loss", *metrics), math.nan)
        values = {"loss": self._total / self._weight if self._mean else self._total}
        return values | {name: metric.read() for name, metric in metrics.items()}


class HeadTally:
    """Adds up the losses and metrics of all heads of a ``MultiLoss``, each as ``Tally`` does.

    What belongs to the heads comes in tuples: losses, predictions, targets and weights. The loss of
    all is the weighted sum of those of the heads. While no row of a head has counted, its values
    are NaN, and its loss adds nothing.
    """

    def __init__(self, loss: MultiLoss, metrics: dict[str, Start]) -> None:
        self._weights, self._losses = loss.weights, names_of_losses(loss)
        of_heads = zip(loss.heads.items(), metrics_of_heads(metrics, loss), strict=True)
        self._heads = {name: Tally(own, starts) for (name, own), starts in of_heads}

    @property
    def has_metrics(self) -> bool:
        """Whether predictions are wanted at all."""
        return any(head.has_metrics for head in self._heads.values())

    def add(
        self, values: list[tuple[float, ...]], batch: int, rows: int, weight: Any = None
    ) -> None:
        """Count the losses of the heads in batches, in order; see ``Tally.add``."""
        weights = [None] * len(self._heads) if weight is None else weight
        given = zip(self._heads.values(), zip(*values, strict=True), weights, strict=True)
        for head, own, of_rows in given:
            head.add(list(own), batch, rows, of_rows)

    def add_predictions(self, prediction: Any, target: Any, weight: Any, loss_weight: Any) -> None:
        """Add rows to all metrics of all heads; see ``Tally.add_predictions``."""
        nothing = [None] * len(self._heads)
        given = (nothing if own is None else own for own in (weight, loss_weight))
        for head, *own in zip(self._heads.values(), prediction, target, *given, strict=True):
            head.add_predictions(*own)

    def resume_state(self) -> dict[str, Any]:
        """Return the sums so far."""
        return {"heads": [head.resume_state() for head in self._heads.values()]}

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from sums that ``resume_state`` has returned."""
        for head, sums in zip(self._heads.values(), state["heads"], strict=True):
            head.resume(sums)

    def read(self) -> dict[str, float]:
        """Return the values over all rows."""
        return self._together(Tally.read)

    def read_running(self) -> dict[str, float]:
        """Return the values so far, without those that a function computes of all rows at once."""
        return self._together(Tally.read_running)

    def _together(self, read: Callable[[Tally], dict[str, float]]) -> dict[str, float]:
        """Return the values of all heads under their names in a history."""
        losses, metrics = list[float](), dict[str, float]()
        for name, head in self._heads.items():
            with naming(name):
                values = read(head)
            losses.append(values.pop("loss"))
            metrics |= {f"{name}.{key}": value for key, value in values.items()}
        pairs = zip(self._weights, losses, self._heads.values(), strict=True)
        total = sum(weight * loss for weight, loss, head in pairs if head.has_counted)
        return dict(zip(self._losses, (total, *losses), strict=True)) | metrics


def tally_of(loss: Loss, metrics: dict[str, Start]) -> Tally | HeadTally:
    """Return a tally that has counted nothing yet, for this loss."""
    return HeadTally(loss, metrics) if isinstance(loss, MultiLoss) else Tally(loss, metrics)


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
