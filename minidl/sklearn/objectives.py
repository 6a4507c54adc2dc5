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


class PerRow(nn.Loss):
    """The loss of a batch as scikit-learn sees it: L = factor / rows · Σ_i w_i · Σ_k l_ik.

    Sums go over the rows and their outputs. Where the weights of all rows have the mean 1, batches
    add up to Σ w_i · L_i / Σ w_i, though each is divided by its number of rows, and not by its sum
    of weights: a batch of rows that hardly count hardly counts.

    Parameters
    ----------
    terms
        The loss of elements or labels, with the reduction ``"sum"``.
    factor
        A constant, such as ½.
    """

    def __init__(self, terms: nn.Loss, factor: float = 1.0) -> None:
        super().__init__()
        self.terms, self.factor = terms, factor
        self.takes_labels = terms.takes_labels  # type: ignore[misc]

    def check_target(self, prediction: Array, target: Array) -> None:
        """Raise if the target does not fit the prediction."""
        self.terms.check_target(prediction, target)

    def weighted_shape(self, prediction: Array) -> tuple[int, ...]:
        """Return the shape of the weights: one for each row of the batch."""
        return self.terms.weighted_shape(prediction)

    def row_weights(self, target: Array, weight: Array | None = None) -> Array | None:
        """Return None: in the mean over batches all rows are equal, whatever their weights."""
        return None

    def forward(
        self, prediction: Array, target: Array, weight: Array | None = None
    ) -> tuple[Array, Array]:
        value, gradient = self.terms.forward(prediction, target, weight)
        factor = self.factor / len(prediction)
        kernels.scale(value, factor)
        kernels.scale(gradient, factor)
        return value, gradient

    def __repr__(self) -> str:
        return repr(self.terms)


class FunctionLoss(nn.Loss):
    """A loss by a function of NumPy arrays: L = Σ_i w_i · L_i / rows.

    Parameters
    ----------
    function
        ``function(prediction, target)`` returns the loss of every row (rows), and the gradient of
        their sum with respect to the prediction.
    """

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def row_weights(self, target: Array, weight: Array | None = None) -> Array | None:
        """Return None: see ``PerRow``."""
        return None

    def check_target(self, prediction: Array, target: Array) -> None:
        """Raise unless there is a target for every row."""
        if len(target) != len(prediction):
            raise ValueError(f"{self!r}: {len(prediction)} predictions and {len(target)} targets")

    def forward(
        self, prediction: Array, target: Array, weight: Array | None = None
    ) -> tuple[Array, Array]:
        losses, gradient = self._checked(prediction, self.function(prediction, target))
        shares = (1.0 if weight is None else weight) * np.full(len(losses), 1 / len(losses))
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
    "squared_error": nn.MSELoss,
    "absolute_error": nn.L1Loss,
    "huber": nn.HuberLoss,
    "poisson": nn.PoissonNLLLoss,
    "quantile": nn.QuantileLoss,
    "gaussian": nn.GaussianNLLLoss,
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
        settings = {"quantiles": quantile} if loss == "quantile" else {}
        terms = kind(reduction="sum", **settings)
        found = PerRow(terms, 0.5 if loss == "squared_error" else 1.0)
    if found.takes_labels:
        raise ValueError(f"{owner}: loss must compare numbers, and {found!r} takes labels")
    if name := needed_name(found):
        raise ValueError(
            f'{owner}: write loss="{name}", so that predict knows what the outputs of the network '
            f"mean, got {found!r}"
        )
    return found


def needed_name(loss: nn.Loss) -> str:
    """Return the name of a loss whose outputs are no prediction for each target; else ""."""
    if isinstance(loss, nn.GaussianNLLLoss):
        return "gaussian"
    if isinstance(loss, nn.PoissonNLLLoss) and loss.log_input:
        return "poisson"
    return "quantile" if isinstance(loss, nn.QuantileLoss) and len(loss.quantiles) > 1 else ""


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
        terms = nn.CrossEntropyLoss("sum") if takes_labels else nn.BCEWithLogitsLoss("sum")
        found = PerRow(terms)
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
