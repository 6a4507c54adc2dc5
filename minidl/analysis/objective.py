"""The loss of a model for fixed data, as a function of one vector of parameters."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from minidl.nn import Layer, Loss
from minidl.typing import Array, DType


def as_inputs(model: Layer, x: Any, dtype: DType) -> tuple[Array, ...]:
    """Return the inputs of a model as it takes them: a tuple is several, reals become ``dtype``.

    The first input stays as it is if the model takes indices, further ones if they are integers,
    such as the lengths of sequences.
    """
    arrays = [np.asarray(part) for part in (x if isinstance(x, tuple) else (x,))]
    whole = [array.dtype.kind in "iu" for array in arrays]
    whole[0] = model.takes_indices
    return tuple(
        array if is_whole else np.ascontiguousarray(array, dtype)
        for array, is_whole in zip(arrays, whole, strict=True)
    )


def as_targets(loss: Loss, y: Any, dtype: DType) -> tuple[Array, ...]:
    """Return targets as a loss takes them; a tuple is targets and the weights of the rows.

    Raises
    ------
    ValueError
        For a loss without a reduction, which gives no single number.
    """
    if loss.reduction == "none":
        raise ValueError(f"{loss!r} gives a loss for each row; here one number is needed")
    target, *weight = (np.asarray(part) for part in (y if isinstance(y, tuple) else (y,)))
    if not loss.takes_labels:
        target = np.ascontiguousarray(target, dtype)
    return (target, *(np.ascontiguousarray(part, dtype) for part in weight))


class Objective:
    """The loss L(w) of a model for fixed data and its gradient, in float64.

    w is one vector of all parameters that are not frozen, one after the other. Every evaluation
    begins with the same state, and so with the same masks of dropout: L is a function. Layers stay
    in the modes they are in; in training mode, ``BatchNorm`` uses the statistics of these rows.

    Parameters
    ----------
    model, loss
        Both are copied.
    x, y
        As the model and the loss take them: a tuple of several inputs; a tuple of targets and
        weights of the rows.

    Raises
    ------
    ValueError
        If all parameters are frozen, or there are none.
    """

    def __init__(self, model: Layer, loss: Loss, x: Any, y: Any) -> None:
        self._model, self._loss = copy.deepcopy((model, loss))
        self._model.astype(np.float64)
        self._inputs = as_inputs(model, x, np.float64)
        self._targets = as_targets(loss, y, np.float64)
        self._state = {name: array.copy() for name, array in self._model.state().items()}
        self.parameters = [p for p in self._model.parameters() if not p.frozen]
        if not self.parameters:
            raise ValueError(f"{model.short_name()} has no parameters that are not frozen")
        self.start = np.concatenate([p.data.ravel() for p in self.parameters])

    def value(self, w: Array) -> float:
        """Compute L(w)."""
        value = self._forward(w)
        self._loss.forget()
        return value

    def gradient(self, w: Array) -> Array:
        """Compute ∇L(w)."""
        return self.value_and_gradient(w)[1]

    def value_and_gradient(self, w: Array) -> tuple[float, Array]:
        """Compute L(w) and ∇L(w)."""
        value = self._forward(w)
        self._model.zero_grad()
        self._model.backward(self._loss.backward())
        return value, np.concatenate([p.grad.ravel() for p in self.parameters])

    def split(self, w: Array) -> list[Array]:
        """Return views of the parts of a vector, in the shapes of the parameters."""
        ends = np.cumsum([p.size for p in self.parameters])[:-1]
        parts = np.split(w, ends)
        return [part.reshape(p.shape) for part, p in zip(parts, self.parameters, strict=True)]

    def _forward(self, w: Array) -> float:
        for parameter, part in zip(self.parameters, self.split(w), strict=True):
            parameter.data = part
        for name, array in self._model.state().items():
            array[...] = self._state[name]
        return float(self._loss(self._model(*self._inputs), *self._targets))
