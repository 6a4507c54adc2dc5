"""The NumPy twins of matrix products."""

from __future__ import annotations

from typing import Literal

import numpy as np

from minidl._kernels.twins.activations import relu, sigmoid, tanh
from minidl._kernels.twins.matrix import matrix
from minidl._kernels.twins.normalization import column_sum
from minidl.typing import Array

ActivationName = Literal["relu", "sigmoid", "tanh"]
_ACTIVATIONS = {"relu": relu, "sigmoid": sigmoid, "tanh": tanh}


def matmul(
    a: Array,
    b: Array,
    out: Array | None = None,
    transpose_a: bool = False,
    transpose_b: bool = False,
) -> Array:
    """C = op(A) · op(B), where op transposes if asked to."""
    return np.matmul(a.T if transpose_a else a, b.T if transpose_b else b, out=out)


def linear(
    x: Array, weight: Array, bias: Array | None = None, activation: ActivationName | None = None
) -> Array:
    """y = activation(x · W + b)."""
    y = x @ weight if bias is None else x @ weight + bias
    return y if activation is None else _ACTIVATIONS[activation](y)


def linear_grad_input(dy: Array, weight: Array) -> Array:
    """dx = dy · Wᵀ."""
    return dy @ weight.T


def linear_grad_params(x: Array, dy: Array, dweight: Array, dbias: Array | None = None) -> None:
    """dW += xᵀ · dy and db += Σ dy over the batch."""
    dweight += matrix(x).T @ matrix(dy)
    if dbias is not None:
        dbias += column_sum(dy)
