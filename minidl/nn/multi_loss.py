"""The loss of a model with several outputs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from functools import reduce
from typing import Any

import numpy as np

from minidl import kernels
from minidl._kernels.twins.errors import MEAN_MAY_BE_EMPTY, RowError, WeightError
from minidl.nn.checks import check_keys, check_number
from minidl.nn.hooks import is_evaluating, kept_by, named_within, run_forward
from minidl.nn.losses import Loss
from minidl.typing import Array


class MultiLoss(Loss):
    """The weighted sum of the losses of several outputs, the heads of a model.

    L = Σ_h w_h · L_h(prediction_h, target_h),  dprediction_h = w_h · ∂L_h/∂prediction_h

    ``loss(predictions, targets)`` takes tuples, or dicts by the names of the heads, and
    ``loss.backward()`` returns a tuple of gradients for ``model.backward``. Weights of rows are one
    array for all heads, or a tuple with one, or None, for each, or a dict, in which heads that are
    left out have weights of 1.

    A head of which no row counts in a batch, because all are ignored or of weight 0, adds nothing:
    its loss and its gradient are 0. Alone, a loss refuses such a batch, whose mean is 0 / 0 and
    from which nothing is learned; here the other heads do.

    Parameters
    ----------
    losses
        The losses of the heads, in the order of the model's outputs: a sequence, or a dict by the
        names of the heads. Without names they are called ``"0"``, ``"1"`` and so on.
    weights
        How much each head counts, ≥ 0: a sequence, or a dict by name; 1 by default.

    Attributes
    ----------
    heads
        The losses by name.
    weights
        The weights, in the order of the heads.

    Shapes
    ------
    predictions and targets as the losses take them.

    Raises
    ------
    TypeError
        For a head that is no loss, or a ``MultiLoss`` itself, and names that are no words.
    ValueError
        For no head, a loss without reduction, weights that are negative or not those of the heads,
        and names that begin with ``val_``.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> losses = {"kind": nn.CrossEntropyLoss(), "size": nn.MSELoss()}
    >>> loss = nn.MultiLoss(losses, weights={"size": 0.5})
    >>> predictions = np.zeros((1, 2)), np.array([[3.0]])
    >>> float(loss(predictions, (np.array([1]), np.array([[1.0]])))).__round__(4)
    2.6931
    >>> {name: round(float(value), 4) for name, value in loss.values.items()}
    {'kind': 0.6931, 'size': 4.0}
    >>> [gradient.tolist() for gradient in loss.backward()]
    [[[0.5, -0.5]], [[2.0]]]
    """

    heads: dict[str, Loss]
    weights: tuple[float, ...]

    def __init__(
        self,
        losses: Sequence[Loss] | Mapping[str, Loss],
        weights: Sequence[float] | Mapping[str, float] | None = None,
    ) -> None:
        self.heads = as_heads(losses)
        for name, loss in self.heads.items():
            if not isinstance(name, str):
                raise TypeError(f"MultiLoss: the name of a head must be a word, got {name!r}")
            if not name or name.startswith("val_"):
                raise ValueError(
                    f"MultiLoss: a head cannot be called {name!r}: values of validation are called "
                    '"val_..." in a history'
                )
            if not isinstance(loss, Loss) or isinstance(loss, MultiLoss):
                raise TypeError(f"MultiLoss: head {name} must be the loss of one, got {loss!r}")
            if loss.reduction == "none":
                raise ValueError(
                    f"MultiLoss: head {name} needs one number, and {loss!r} gives many"
                )
        self.weights = self._as_weights(weights)
        kinds = {loss.reduction for loss in self.heads.values()}
        super().__init__("sum" if kinds == {"sum"} else "mean")

    def _as_weights(self, weights: Any) -> tuple[float, ...]:
        """Return the weight of each head."""
        if weights is None:
            weights = {}
        elif not isinstance(weights, Mapping):
            if not isinstance(weights, Iterable):
                raise TypeError(
                    f"MultiLoss: weights must be a sequence, or a dict by name, got {weights!r}"
                )
            weights = list(weights)
            if len(weights) != len(self.heads):
                raise ValueError(
                    f"MultiLoss: expected a weight for each of the {len(self.heads)} heads, got "
                    f"{len(weights)}"
                )
            weights = dict(zip(self.heads, weights, strict=True))
        if unknown := [name for name in weights if name not in self.heads]:
            raise ValueError(
                f"MultiLoss: a weight for {unknown[0]!r}, and the heads are {', '.join(self.heads)}"
            )
        return tuple(
            check_number("MultiLoss", f"the weight of {name}", weights.get(name, 1), 0, math.inf)
            for name in self.heads
        )

    @property
    def values(self) -> dict[str, Array]:
        """The losses of the heads in the latest call, without their weights, by name.

        A recorded function may return them: ``return value, loss.values``.
        """
        return dict(kept_by(self).get("_values", {}))

    @property
    def predicts_targets(self) -> bool:
        return False

    def by_head(self, what: str, given: Any, partly: bool = False) -> tuple[Any, ...]:
        """Return what is given for each head, a tuple or a dict, in the order of the heads.

        With ``partly``, heads that a dict leaves out get None.

        Raises
        ------
        TypeError, ValueError
            For anything else, and for another number or other names.
        """
        if isinstance(given, Mapping):
            names = f"{', '.join(self.heads)}, the heads of the MultiLoss"
            check_keys(what, given, self.heads, names, partly)
            return tuple(given.get(name) for name in self.heads)
        if not isinstance(given, tuple):
            raise TypeError(
                f"{what}: expected a tuple of {len(self.heads)}, or a dict by the names of the "
                f"heads ({', '.join(self.heads)}), got {type(given).__name__}"
            )
        if len(given) != len(self.heads):
            raise ValueError(
                f"{what}: expected {len(self.heads)}, one for each head of the MultiLoss "
                f"({', '.join(self.heads)}), got {len(given)}"
            )
        return given

    def __call__(self, prediction: Any, target: Any, weight: Any = None) -> Array:
        predictions = self.by_head("MultiLoss: prediction", prediction)
        targets = self.by_head("MultiLoss: target", target)
        weights: tuple[Any, ...] = (weight,) * len(self.heads)
        if isinstance(weight, (tuple, Mapping)):
            weights = self.by_head("MultiLoss: weight", weight, partly=True)
        value, gradients = run_forward(self, (predictions, targets, weights))
        if not is_evaluating():
            kept_by(self)["_gradient"] = gradients
        return value

    def forward(self, predictions: Any, targets: Any, weights: Any = None) -> Any:
        values, gradients = {}, []
        given = zip(self.heads.items(), predictions, targets, weights, strict=True)
        for (name, loss), *of_rows in given:
            with naming(name):
                values[name] = copy_context().run(maybe_empty, loss, *of_rows)
                gradients.append(None if is_evaluating() else loss.backward())
        kept_by(self)["_values"] = values
        total = reduce(kernels.add, map(weighted, values.values(), self.weights))
        return total, tuple(map(weighted, gradients, self.weights))

    def backward(self) -> Any:
        return super().backward()

    def row_weights(self, target: Any, weight: Any = None) -> Any:
        """Return the weights of the rows in each head's mean; None if all are equal in all."""
        weights = (None,) * len(self.heads) if weight is None else weight
        given = zip(self.heads.values(), target, weights, strict=True)
        found = tuple(loss.row_weights(y, own) for loss, y, own in given)
        return None if all(own is None for own in found) else found

    def forget(self) -> None:
        super().forget()
        for loss in self.heads.values():
            loss.forget()

    def settings(self) -> dict[str, Any]:
        if set(self.weights) == {1}:
            return {}
        return {"weights": dict(zip(self.heads, self.weights, strict=True))}

    def __repr__(self) -> str:
        shown = "".join(f", {name}={value!r}" for name, value in self.settings().items())
        return f"MultiLoss({self.heads!r}{shown})"


def as_heads(losses: Any) -> dict[str, Loss]:
    """Return losses by the names of their heads."""
    if isinstance(losses, Loss):
        raise TypeError(f"MultiLoss: expected several losses, a list or a dict, got {losses!r}")
    if isinstance(losses, (set, str)) or not isinstance(losses, Iterable):
        raise TypeError(f"MultiLoss: expected a list or a dict of losses, got {losses!r}")
    if not isinstance(losses, Mapping):
        losses = {str(number): loss for number, loss in enumerate(losses)}
    if not losses:
        raise ValueError("MultiLoss: expected at least one loss, got none")
    return dict(losses)


def heads_of(loss: Loss) -> dict[str, Loss]:
    """Return the losses of all heads by name: of a plain loss, itself under an empty name."""
    return loss.heads if isinstance(loss, MultiLoss) else {"": loss}


def maybe_empty(loss: Loss, prediction: Array, target: Array, weight: Array | None) -> Array:
    """Return the loss of a head, 0 where none of its rows counts."""
    MEAN_MAY_BE_EMPTY.set(True)  # in the context of this call alone
    value = loss(prediction, target, weight)
    return value if getattr(value, "dtype", None) == np.float64 else np.asarray(value, np.float64)


@contextmanager
def naming(head: str) -> Iterator[None]:
    """Have errors inside the block, and those of recorded steps, name a head."""
    try:
        with named_within(f"head {head}"):
            yield
    except RowError as error:
        error.owner = f"head {head}" + f": {error.owner}" * bool(error.owner)
        raise
    except (TypeError, ValueError) as error:
        if type(error) not in (TypeError, ValueError, WeightError):  # made of more than a text
            raise
        raise type(error)(f"head {head}: {error}") from error


def weighted(value: Any, weight: float) -> Any:
    """Return an array times the weight of its head; None stays None."""
    if value is None or weight == 1:
        return value
    value = kernels.copy(value)
    kernels.scale(value, weight)
    return value
