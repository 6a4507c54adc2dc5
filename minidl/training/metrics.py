"""What is measured beside the loss.

A metric is a callable ``(prediction, target) -> float``, or the name of one known here.
It sees the predictions of a whole epoch or data set at once, so that it need not be an
average over rows: R² and F1 are metrics like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from minidl._kernels.reference import Array
from minidl.nn import Loss

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
    if prediction.ndim < 2 or target.shape != prediction.shape[:-1]:
        raise ValueError(
            "accuracy needs prediction (samples, ..., classes) and target (samples, ...), "
            f"got {prediction.shape} and {target.shape}"
        )
    return float(np.count_nonzero(prediction.argmax(axis=-1) == target) / target.size)


NAMED: dict[str, Metric] = {"accuracy": accuracy}


def by_name(metrics: Iterable[str | Metric]) -> dict[str, Metric]:
    """The metrics with the names under which a history lists them."""
    found: dict[str, Metric] = {}
    for metric in [metrics] if isinstance(metrics, str) or callable(metrics) else metrics:
        if isinstance(metric, str):
            if metric not in NAMED:
                raise ValueError(f"unknown metric {metric!r}; known: {', '.join(NAMED)}")
            name, metric = metric, NAMED[metric]
        elif callable(metric):
            name = getattr(metric, "__name__", type(metric).__name__)
        else:
            raise TypeError(f"a metric is a name or a callable, got {metric!r}")
        if name == "loss" or name in found:
            raise ValueError(f"two entries of the history would be called {name!r}")
        found[name] = metric
    return found


def measure(metrics: dict[str, Metric], prediction: Array, target: Array) -> dict[str, float]:
    """The value of every metric."""
    return {name: float(metric(prediction, target)) for name, metric in metrics.items()}


class Tally:
    """Loss and metrics over the batches of an epoch or of a data set.

    Predictions and targets are collected, and the metrics see them all at once: that is exact
    for any metric, and one copy a batch is cheaper than one metric a batch.
    """

    def __init__(self, loss: Loss, metrics: dict[str, Metric], samples: int) -> None:
        self._mean = getattr(loss, "reduction", "mean") == "mean"
        self._metrics = metrics
        self._samples = samples
        self._rows = 0
        self._total = 0.0
        self._collected: tuple[Array, Array] | None = None

    def add(self, value: Array, prediction: Array, target: Array) -> None:
        """Count a batch."""
        self.extend([float(value)], len(target), prediction, target)

    def extend(
        self, values: list[float], batch: int, prediction: Array | None, target: Array
    ) -> None:
        """Count batches of so many rows each, the last maybe fewer, given one after the other."""
        rows = left = len(target)
        for value in values:
            self._total += value * min(batch, left) if self._mean else value
            left -= batch
        if self._metrics and prediction is not None:
            if self._collected is None:
                self._collected = self._space(prediction), self._space(target)
            predictions, targets = self._collected
            predictions[self._rows : self._rows + rows] = prediction
            targets[self._rows : self._rows + rows] = target
        self._rows += rows

    def _space(self, batch: Array) -> Array:
        return np.empty((self._samples, *batch.shape[1:]), batch.dtype)

    def read(self) -> dict[str, float]:
        """The values so far."""
        values = {"loss": self._total / self._rows if self._mean else self._total}
        if self._collected is not None:
            predictions, targets = (array[: self._rows] for array in self._collected)
            values |= measure(self._metrics, predictions, targets)
        return values
