"""What is measured beside the loss.

A metric is a callable ``(prediction, target) -> float``, or the name of one known here.
It sees the predictions of a whole epoch or data set at once, so that it need not be an
average over rows: R² and F1 are metrics like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from minidl._kernels.reference import Array

Metric = Callable[[Array, Array], float]


def accuracy(prediction: Array, target: Array) -> float:
    """Share of the rows whose largest logit is that of the label.

    accuracy = 1/n · Σ_i [argmax_j z_ij = label_i]

    Shapes
    ------
    prediction (samples, classes), target (samples).

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
    if prediction.ndim != 2 or target.shape != prediction.shape[:1]:
        raise ValueError(
            "accuracy needs prediction (samples, classes) and target (samples), "
            f"got {prediction.shape} and {target.shape}"
        )
    return float(np.count_nonzero(prediction.argmax(axis=1) == target) / len(target))


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
