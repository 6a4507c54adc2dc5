"""Metrics while they are computed: they take batch after batch, and can be read at any time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from minidl.typing import Array


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
        if weight is not None:
            weight = spread(weight, values.shape).astype(np.float64)
            self._total = float(sums(self._total, (values * weight).ravel())[-1])
            self._weight = float(sums(self._weight, weight.ravel())[-1])
            return
        if values.dtype.kind == "b":
            self._total += int(np.count_nonzero(values))
        else:
            self._total = float(sums(self._total, values.ravel())[-1])
        self._weight += values.size

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
                + "; for numbers there are mae, mse and r2"
                * (prediction.shape == target.shape)
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
        check_same_shape("accuracy", prediction, target)

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
        check_same_shape(self._name, prediction, target)

    def add(self, prediction: Array, target: Array, weight: Array | None = None) -> None:
        self.check(prediction, target)
        error = np.subtract(prediction, target, dtype=np.float64)
        self.add_values(np.abs(error) if self._power == 1 else np.square(error), weight)


class R2:
    """1 - Σ w (ŷ - y)² / Σ w (y - ȳ)² for every column of the targets, and their mean.

    A column that does not vary counts 1 if it is predicted exactly, else 0. Row by row, the squares
    around the mean grow by w (y - ȳ before) (y - ȳ after), which loses no digits where the mean is
    large. Source: West 1979, "Updating mean and variance estimates: an improved method".
    """

    def __init__(self) -> None:
        self._first: Array | None = None  # row: of a column that does not vary, exactly the mean
        self._weight: Array = np.zeros(1)  # of all rows so far: their number, without weights
        self._total: Array = np.zeros(())  # Σ w (y - first)
        self._residual: Array = np.zeros(())
        self._around: Array = np.zeros(())  # squares around the mean

    def check(self, prediction: Array, target: Array) -> None:
        check_same_shape("r2", prediction, target)

    def add(self, prediction: Array, target: Array, weight: Array | None = None) -> None:
        self.check(prediction, target)
        y = target.reshape(len(target), -1).astype(np.float64)
        residual = np.square(prediction.reshape(len(target), -1) - y)
        self._first = y[0] if self._first is None else self._first
        y = y - self._first
        w = np.ones((len(y), 1)) if weight is None else weight.reshape(-1, 1).astype(np.float64)
        weights, totals = sums(self._weight, w), sums(self._total, w * y)
        mean = np.divide(totals, weights, out=np.zeros_like(totals), where=weights > 0)
        growth = w * (y - mean[:-1]) * (y - mean[1:])
        self._weight, self._total = weights[-1], totals[-1]
        self._residual = sums(self._residual, w * residual)[-1]
        self._around = sums(self._around, growth)[-1]

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
        options = {"sample_weight": weights[0] if weights else None} if self._weighted else {}
        value = self._function(prediction, target, **options)
        if np.size(value) != 1:
            called = getattr(self._function, "__name__", repr(self._function))
            raise TypeError(f"metric {called} must return one number, got shape {np.shape(value)}")
        return float(value)


def sums(start: Any, rows: Array) -> Array:
    """Return a sum before the first row and after each: in float64, always in their order.

    So it is the same to the last bit in whatever parts the rows come; a sum of sums is not.
    """
    begin = np.broadcast_to(np.asarray(start, np.float64), (1, *rows.shape[1:]))
    return np.cumsum(np.concatenate([begin, rows]), axis=0)


def check_same_shape(name: str, prediction: Array, target: Array) -> None:
    """Raise ValueError unless prediction and target have one shape."""
    if prediction.shape != target.shape:
        raise ValueError(
            f"{name} needs prediction and target of one shape, "
            f"got {prediction.shape} and {target.shape}"
        )


def spread(weight: Array, shape: tuple[int, ...]) -> Array:
    """Return weights of rows, or of steps, as those of all elements."""
    return np.broadcast_to(weight.reshape(weight.shape + (1,) * (len(shape) - weight.ndim)), shape)


def check_sample_weight(name: str, sample_weight: Any, target: Array) -> Array | None:
    """Return the weights of rows or steps, in float64; None if there are none.

    Raises
    ------
    ValueError
        For weights of another shape, and for such that are negative, not finite or all zero.
    """
    if sample_weight is None:
        return None
    weight = np.asarray(sample_weight, np.float64)
    if weight.shape not in (target.shape, target.shape[:1]):
        fitting = " or ".join(map(str, dict.fromkeys((target.shape[:1], target.shape))))
        raise ValueError(f"{name} needs sample_weight {fitting}, got {weight.shape}")
    if not (np.isfinite(weight) & (weight >= 0)).all() or not weight.any():
        raise ValueError(f"{name}: sample_weight must be finite, >= 0 and not all zero")
    return weight
