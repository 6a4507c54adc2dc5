"""Losses that remedies put in the place of, or around, those of a program."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl import kernels
from minidl.nn import Loss
from minidl.nn.hooks import stand_in
from minidl.typing import Array


class ScaledLoss(Loss):
    """A loss of targets that are brought to mean 0 and deviation 1: they keep their units.

    L(prediction, target) = inner((prediction - μ) / σ, (target - μ) / σ)

    Parameters
    ----------
    inner
        The loss, in units of σ.
    mean, deviation
        μ and σ of every column of the targets.

    Shapes
    ------
    prediction and target (batch, ..., columns); mean and deviation (columns).

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> loss = ScaledLoss(nn.MSELoss(), np.array([50.0]), np.array([10.0]))
    >>> float(loss(np.array([[60.0]]), np.array([[40.0]])))
    4.0
    """

    def __init__(self, inner: Loss, mean: Array, deviation: Array) -> None:
        super().__init__(inner.reduction if hasattr(inner, "reduction") else "mean")
        self.inner, self.mean, self.deviation = inner, mean, deviation
        self._of_dtype: dict[Any, tuple[Array, Array]] = {}

    def _scales(self, dtype: Any) -> tuple[Array, Array]:
        """Return μ and σ in a dtype, as kernels of a recorded step may use them."""
        if dtype not in self._of_dtype:
            self._of_dtype[dtype] = self.mean.astype(dtype), self.deviation.astype(dtype)
        mean, deviation = self._of_dtype[dtype]
        return stand_in("state", "mean", mean), stand_in("state", "deviation", deviation)

    def check_target(self, prediction: Array, target: Array) -> None:
        """Have the inner loss check them."""
        self.inner.check_target(prediction, target)

    def forward(
        self, prediction: Array, target: Array, weight: Array | None = None
    ) -> tuple[Array, Array]:
        """Compute the inner loss of scaled arrays, and its gradient for unscaled ones."""
        mean, deviation = self._scales(prediction.dtype)
        scaled = (kernels.standardize(each, mean, deviation) for each in (prediction, target))
        given = () if weight is None else (weight,)
        value, gradient = self.inner.forward(*scaled, *given)
        return value, kernels.standardize(np.asarray(gradient), None, deviation)

    def __repr__(self) -> str:
        return f"ScaledLoss({self.inner!r})"


class CrossEntropyOfProbabilities(Loss):
    """Cross entropy of probabilities, for a model that goes on ending in a sigmoid or a softmax.

    L = -Σ t · log p for rows of probabilities that are 1 in sum, and
    L = -t · log p - (1 - t) · log(1 - p) for each probability by itself.

    For logarithms and quotients p is kept between ε and 1 - ε, so that neither overflows. Losses of
    scores, such as ``BCEWithLogitsLoss``, need no such limit.

    Parameters
    ----------
    rows
        Whether the probabilities of a row are 1 in sum, as those of a softmax.
    floor
        ε.

    Shapes
    ------
    prediction and target (batch, ..., outputs).

    Examples
    --------
    >>> import numpy as np
    >>> loss = CrossEntropyOfProbabilities()
    >>> f"{float(loss(np.array([[0.5]]), np.array([[1.0]]))):.4f}"
    '0.6931'
    """

    def __init__(self, rows: bool = False, floor: float = 1e-6) -> None:
        super().__init__("mean")
        self.rows, self.floor = rows, floor

    def forward(
        self, prediction: Array, target: Array, weight: Array | None = None
    ) -> tuple[Array, Array]:
        """Compute the mean over rows, or over elements, and its gradient."""
        p = np.clip(prediction, self.floor, 1 - self.floor).astype(np.float64)
        value = -target * np.log(p)
        gradient = -target / p
        if not self.rows:
            value -= (1 - target) * np.log1p(-p)
            gradient += (1 - target) / (1 - p)
        share = np.full(prediction.shape, 1.0 / prediction.size)
        if self.rows:
            share *= prediction.shape[-1]
        if weight is not None:
            shape = weight.shape + (1,) * (prediction.ndim - weight.ndim)
            share *= weight.reshape(shape) * (weight.size / weight.sum(dtype=np.float64))
        return np.asarray((value * share).sum()), (gradient * share).astype(prediction.dtype)

    def settings(self) -> dict[str, Any]:
        """Return whether rows are 1 in sum."""
        return {"rows": True} if self.rows else {}


class CorrectedLoss(Loss):
    """A loss of the user's own with its gradient multiplied by a number, such as -1."""

    def __init__(self, inner: Loss, factor: float) -> None:
        super().__init__()
        self.inner, self.factor = inner, factor
        self.takes_labels = inner.takes_labels  # type: ignore[misc]

    def check_target(self, prediction: Array, target: Array) -> None:
        """Have the inner loss check them."""
        self.inner.check_target(prediction, target)

    def forward(
        self, prediction: Array, target: Array, weight: Array | None = None
    ) -> tuple[Array, Array]:
        """Compute the inner loss, and turn its gradient."""
        given = () if weight is None else (weight,)
        value, gradient = self.inner.forward(prediction, target, *given)
        return value, np.asarray(gradient) * prediction.dtype.type(self.factor)

    def __repr__(self) -> str:
        return f"CorrectedLoss({self.inner!r}, {self.factor:g})"
