"""The cases of kernel_cases.py that belong to activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from kernel_cases import Draw

Args = dict[str, Any]


def unary(draw: Draw) -> Args:
    return {"x": 3 * draw.array(*draw.shape())}


def gradient(draw: Draw) -> Args:
    shape = draw.shape()
    return {"dy": draw.array(*shape), "y": some_zero(draw.array(*shape))}


def gradient_of_input(draw: Draw) -> Args:
    shape = draw.shape()
    return {"dy": draw.array(*shape), "x": some_zero(3 * draw.array(*shape))}


def some_zero(x: np.ndarray) -> np.ndarray:
    """Set some numbers to what a rectifier leaves of them, zero: there > and ≥ differ."""
    x[(x < -1) & (x > -2)] = 0
    return x


def leaky_relu(draw: Draw) -> Args:
    return {**unary(draw), "slope": draw.rng.uniform()}


def leaky_relu_grad(draw: Draw) -> Args:
    return {**gradient(draw), "slope": draw.rng.uniform()}


def elu(draw: Draw) -> Args:
    return {**unary(draw), "alpha": draw.rng.uniform(0, 2)}


def elu_grad(draw: Draw) -> Args:
    return {**gradient(draw), "alpha": draw.rng.uniform(0, 2)}


def softplus(draw: Draw) -> Args:
    return {**unary(draw), "beta": draw.rng.uniform(0.5, 4)}


def softplus_grad(draw: Draw) -> Args:
    return {**gradient_of_input(draw), "beta": draw.rng.uniform(0.5, 4)}


def prelu(draw: Draw) -> Args:
    x = draw.array(*draw.shape())
    return {"x": x, "slope": draw.array(x.shape[-1] if draw.flag() else 1)}


def prelu_grad(draw: Draw) -> Args:
    args = prelu(draw)
    dslope = draw.array(*args["slope"].shape)
    return {"dy": draw.array(*args["x"].shape), **args, "dslope": dslope}


ACTIVATION_CASES: dict[str, Callable[[Draw], Args]] = {
    "leaky_relu": leaky_relu,
    "leaky_relu_grad": leaky_relu_grad,
    "prelu": prelu,
    "prelu_grad": prelu_grad,
    "elu": elu,
    "elu_grad": elu_grad,
    "softplus": softplus,
    "softplus_grad": softplus_grad,
}
