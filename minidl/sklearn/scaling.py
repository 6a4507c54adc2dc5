"""Mean and deviation of columns, by the weights of their rows."""

from __future__ import annotations

import numpy as np

from minidl.typing import Array


def mean_and_deviation(columns: Array, weight: Array | None) -> tuple[Array, Array]:
    """Compute μ = Σ w_i · x_i / Σ w_i and σ = √(Σ w_i · (x_i - μ)² / Σ w_i) of every column.

    σ = 1 where it is rounding noise: where it is below 10 · ε · max|x| with the ε of float64, or
    below ε · max|x| with that of columns in float32, as in ``nn.Standardize``.

    Shapes: columns (rows, columns); weight (rows), or None if all are equal.
    """
    noise = 10 * float(np.finfo(np.float64).eps)
    if columns.dtype == np.float32:
        noise = float(np.finfo(np.float32).eps)
    values = columns.astype(np.float64)
    mean = np.average(values, axis=0, weights=weight)
    deviation = np.sqrt(np.average((values - mean) ** 2, axis=0, weights=weight))
    constant = deviation <= noise * np.abs(values).max(axis=0)
    return mean, np.where(constant, 1.0, deviation)
