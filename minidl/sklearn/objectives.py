"""Losses as scikit-learn defines them: sums over the outputs of a row, means over the rows."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from minidl import kernels, nn
from minidl.nn.checks import check_choice
from minidl.typing import Array

# (prediction, target) -> the loss of every row, and the gradient of their sum.
Function = Callable[[Array, Array], tuple[Array, Array]]


class _SummedOverOutputs(nn.Loss):
    """A loss whose mean over all elements is multiplied, to be a sum over the outputs of a row."""

    factor = 1.0  # of the loss of one element

    def forward(
        self, prediction: Array, target: Array, weight: Array | None = None
    ) -> tuple[Array, Array]:
        value, gradient = super().forward(prediction, target, weight)
        factor = self.factor * prediction.shape[-1]
        kernels.scale(value, factor)
        kernels.scale(gradient, factor)
        return value, gradient


class HalfSquaredError(_SummedOverOutputs, nn.MSELoss):
    """Half the squared error of a row: L = ½ · Σ_k (ŷ_k - y_k)²."""

    factor = 0.5


class AbsoluteError(_SummedOverOutputs, nn.L1Loss):
    """The absolute error of a row: L = Σ_k |ŷ_k - y_k|."""


class HuberError(_SummedOverOutputs, nn.HuberLoss):
    """Huber's loss of a row: the sum of that of its outputs."""


class PinballError(_SummedOverOutputs, nn.QuantileLoss):
    """The pinball loss of a row: the sum of that of its quantiles and outputs."""


class PoissonError(_SummedOverOutputs, nn.PoissonNLLLoss):
    """The Poisson loss of a row, of the logarithms of its rates: the sum of that of its outputs."""


class LogLoss(_SummedOverOutputs, nn.BCEWithLogitsLoss):
    """The log loss of a row of independent labels: the sum of their binary cross entropies."""


class FunctionLoss(nn.Loss):
    """A loss by a function of NumPy arrays: the mean, over the rows, of what it returns.

    Parameters
    ----------
    function
        ``function(prediction, target)`` returns the loss of every row (rows), and the gradient of
        their sum with respect to the prediction.
    """

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def check_target(self, prediction: Array, target: Array) -> None:
        """Raise unless there is a target for every row."""
        if len(target) != len(prediction):
            raise ValueError(f"{self!r}: {len(prediction)} predictions and {len(target)} targets")

    def forward(
        self, prediction: Array, target: Array, weight: Array | None = None
    ) -> tuple[Array, Array]:
        losses, gradient = self._checked(prediction, self.function(prediction, target))
        shares = np.ones(len(losses)) if weight is None else weight
        shares = shares / shares.sum()
        columns = shares.reshape(-1, *[1] * (gradient.ndim - 1))
        return np.array(losses @ shares), (gradient * columns).astype(prediction.dtype)

    def _checked(self, prediction: Array, result: Any) -> tuple[Array, Array]:
        """Return losses and gradient as arrays; raise ValueError for other shapes."""
        expected = f"losses of shape {prediction.shape[:1]}, gradient of shape {prediction.shape}"
        if not isinstance(result, tuple) or len(result) != 2:
            raise ValueError(f"{self!r}: the function must return ({expected}), got {result!r}")
        losses, gradient = np.asarray(result[0], np.float64), np.asarray(result[1])
        if losses.shape != prediction.shape[:1] or gradient.shape != prediction.shape:
            raise ValueError(
                f"{self!r}: the function must return ({expected}), got {losses.shape} and "
                f"{gradient.shape}"
            )
        return losses, gradient

    def __repr__(self) -> str:
        return f"FunctionLoss({getattr(self.function, '__name__', self.function)})"


REGRESSION: dict[str, type[nn.Loss]] = {
    "squared_error": HalfSquaredError,
    "absolute_error": AbsoluteError,
    "huber": HuberError,
    "poisson": PoissonError,
    "quantile": PinballError,
}


def regression_loss(owner: str, loss: Any, quantile: Any) -> nn.Loss:
    """Return the loss of a name, a copy of a ``Loss``, or one that calls a function.

    ``quantile`` is that of ``"quantile"``, or several.

    Raises
    ------
    TypeError, ValueError
        For anything else, and for a loss of labels.
    """
    found = own_loss(loss)
    if found is None:
        kind = REGRESSION[check_choice(owner, "loss", loss, *REGRESSION)]
        found = PinballError(quantile) if kind is PinballError else kind()
    if found.takes_labels:
        raise ValueError(f"{owner}: loss must compare numbers, and {found!r} takes labels")
    return found


def classification_loss(owner: str, loss: Any, takes_labels: bool) -> nn.Loss:
    """Return the log loss, or a copy of a ``Loss``, for targets of this kind.

    Raises
    ------
    TypeError, ValueError
        For anything else, and for a loss of another kind of targets.
    """
    found = own_loss(loss)
    if found is None:
        check_choice(owner, "loss", loss, "log_loss")
        found = nn.CrossEntropyLoss() if takes_labels else LogLoss()
    elif found.takes_labels != takes_labels and not isinstance(found, FunctionLoss):
        kind = "three classes or more" if takes_labels else "two classes, or several labels a row"
        wanted = "one that takes labels" if takes_labels else "one like BCEWithLogitsLoss"
        raise ValueError(f"{owner}: for {kind}, loss must be {wanted}, got {found!r}")
    return found


def own_loss(loss: Any) -> nn.Loss | None:
    """Return a copy of a ``Loss``, or one that calls a function; None for anything else."""
    if isinstance(loss, nn.Loss):
        return copy.deepcopy(loss)
    if callable(loss) and not isinstance(loss, type):
        return FunctionLoss(loss)
    return None
