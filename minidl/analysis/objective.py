"""The loss of a model for fixed data, as a function of one vector of parameters."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from minidl.analysis.arguments import (
    as_inputs,
    as_targets,
    check_loss,
    check_model,
    trained_parameters,
)
from minidl.nn import Layer, Loss
from minidl.typing import Array


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
    TypeError
        For what is no model, no loss, or no numbers.
    ValueError
        If all parameters are frozen, or there are none; for a loss without a reduction; for no
        rows, and where x and y differ in how many they have.
    """

    def __init__(self, model: Layer, loss: Loss, x: Any, y: Any) -> None:
        check_model(model)
        check_loss(loss)
        self._model, self._loss = copy.deepcopy((model, loss))
        self._model.astype(np.float64)
        self._inputs = as_inputs(model, x, np.float64)
        self._targets = as_targets(loss, y, self._inputs[0], np.float64)
        self._state = {name: array.copy() for name, array in self._model.state().items()}
        self.parameters = trained_parameters(self._model)
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
