"""The Jacobian of a layer: the derivative of each output by each input."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from minidl.analysis.arguments import as_inputs, check_model
from minidl.nn import Layer
from minidl.typing import Array


def jacobian(layer: Layer, x: Any) -> Array:
    """Compute the Jacobian of a layer, or of a whole model, at a point.

    J_ij = ∂y_i / ∂x_j

    A backward pass multiplies a gradient by Jᵀ. The gradient that is one at output i and zero
    elsewhere gives row i, so that there are as many passes as outputs. The Jacobian of a deep
    network is the product of its layers' Jacobians: their singular values make gradients grow or
    shrink.

    Parameters
    ----------
    layer
        Any layer whose output is one array; it is copied, and keeps its mode.
    x
        What the layer takes, batch first: a batch of one for the Jacobian of a function of one
        row. Where rows influence one another, as in ``BatchNorm`` in training mode, a whole batch.
        A tuple is several inputs, of which the first is differentiated.

    Shapes
    ------
    The result is float64 (y.size, x.size): outputs and inputs are numbered in the order in which
    ``ravel()`` reads them.

    Raises
    ------
    TypeError
        If the layer takes indices, which have no derivative, or returns several arrays.
    ValueError
        If an output or a derivative is not finite.

    Source: Rumelhart, Hinton and Williams 1986.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import analysis, nn
    >>> block = nn.Residual(nn.Linear(2, 2, init=nn.init.constant(0.1)))
    >>> analysis.jacobian(block, np.ones((1, 2)))  # I + ∂F/∂x
    array([[1.1, 0.1],
           [0.1, 1.1]])
    """
    check_model(layer)
    if layer.takes_indices:
        raise TypeError(f"jacobian: {layer.short_name()} takes indices, which have no derivative")
    layer = copy.deepcopy(layer).astype(np.float64)
    inputs = as_inputs(layer, x, np.float64)
    state = {name: array.copy() for name, array in layer.state().items()}

    def forward() -> Array:
        for name, array in layer.state().items():
            array[...] = state[name]
        output: Array = layer(*inputs)
        return output

    y = forward()
    if isinstance(y, tuple):
        raise TypeError(f"jacobian: {layer.short_name()} returns {len(y)} arrays; one is needed")
    rows = np.empty((y.size, inputs[0].size))
    for i in range(y.size):
        if i:
            forward()  # every backward pass needs a forward pass of its own
        one = np.zeros(y.size)
        one[i] = 1.0
        dx = layer.backward(one.reshape(y.shape))
        rows[i] = np.ravel(dx[0] if isinstance(dx, tuple) else dx)
    if not (np.isfinite(y).all() and np.isfinite(rows).all()):
        raise ValueError("jacobian: an output or a derivative is not finite")
    return rows
