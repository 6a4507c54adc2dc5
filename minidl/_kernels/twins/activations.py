"""The NumPy twin of every activation.

Each gradient takes dy and the array that its layer has saved: the output ``y`` if the derivative
can be computed from it, else the input ``x``.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from minidl._kernels.signature import EXP, kernel
from minidl.typing import Array


@kernel("x[n] -> y[n]", flops=1, activation=1)
def relu(x: Array) -> Array:
    """y = max(0, x)."""
    return np.maximum(x, x.dtype.type(0))


@kernel("dy[n] y[n] -> dx[n]", flops=1, activation=4)
def relu_grad(dy: Array, y: Array) -> Array:
    """dx = dy where y > 0, else 0."""
    return np.where(y > 0, dy, dy.dtype.type(0))


@kernel("x[n] slope -> y[n]", flops=2)
def leaky_relu(x: Array, slope: float) -> Array:
    """y = x where x > 0, else slope · x."""
    return np.where(x > 0, x, x.dtype.type(slope) * x)


@kernel("dy[n] y[n] slope -> dx[n]", flops=2)
def leaky_relu_grad(dy: Array, y: Array, slope: float) -> Array:
    """dx = dy where y > 0, else slope · dy."""
    return np.where(y > 0, dy, dy.dtype.type(slope) * dy)


@kernel("x[rows,columns] slope[slopes=columns|1] -> y[rows,columns]", flops=2)
def prelu(x: Array, slope: Array) -> Array:
    """y = x where x > 0, else slope · x; one slope for every feature, or one for all."""
    return np.where(x > 0, x, slope * x)


@kernel(
    "dy[rows,columns] x[rows,columns] slope[slopes=columns|1] +dslope[columns] -> dx[rows,columns]",
    composite=True,
    flops=4,
)
def prelu_grad(dy: Array, x: Array, slope: Array, dslope: Array) -> Array:
    """dx = dy where x > 0, else slope · dy; adds to dslope: Σ dy · x over all x ≤ 0."""
    below = np.where(x > 0, x.dtype.type(0), dy * x).reshape(-1, x.shape[-1]).sum(axis=0)
    dslope += below if dslope.size > 1 else below.sum()
    return np.where(x > 0, dy, slope * dy)


@kernel("x[n] alpha -> y[n]", flops=EXP + 2)
def elu(x: Array, alpha: float) -> Array:
    """y = x where x ≥ 0, else α · (exp(x) - 1)."""
    return np.where(x < 0, x.dtype.type(alpha) * np.expm1(np.minimum(x, 0)), x)


@kernel("dy[n] y[n] alpha -> dx[n]", flops=3)
def elu_grad(dy: Array, y: Array, alpha: float) -> Array:
    """dx = dy · (y + α) where y has a minus sign, else dy.

    For a tiny x < 0, y is -0, which counts as negative.
    """
    return np.where(np.signbit(y), dy * (y + dy.dtype.type(alpha)), dy)


@kernel("x[n] -> y[n]", flops=EXP + 2, activation=2)
def sigmoid(x: Array) -> Array:
    """y = 1 / (1 + exp(-x)), written so that exp never overflows."""
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, x.dtype.type(1)) / (1 + e)


@kernel("dy[n] y[n] -> dx[n]", flops=3, activation=5)
def sigmoid_grad(dy: Array, y: Array) -> Array:
    """dx = dy · y · (1 - y)."""
    return dy * y * (1 - y)


@kernel("x[n] -> y[n]", flops=EXP + 3, activation=3)
def tanh(x: Array) -> Array:
    """y = tanh(x)."""
    return np.tanh(x)


@kernel("dy[n] y[n] -> dx[n]", flops=3, activation=6)
def tanh_grad(dy: Array, y: Array) -> Array:
    """dx = dy · (1 - y²)."""
    return dy * (1 - y * y)


@kernel("x[n] -> y[n]", flops=EXP + 3)
def silu(x: Array) -> Array:
    """y = x · sigmoid(x), which is 0 at -∞."""
    return np.maximum(x, -_FAR) * sigmoid(x)


@kernel("dy[n] x[n] -> dx[n]", flops=EXP + 7)
def silu_grad(dy: Array, x: Array) -> Array:
    """dx = dy · s · (1 + x · (1 - s)), s = sigmoid(x)."""
    return dy * sigmoid(x) * (1 + np.clip(x, -_FAR, _FAR) * sigmoid(-x))


@kernel("x[n] beta -> y[n]", flops=2 * EXP + 4)
def softplus(x: Array, beta: float) -> Array:
    """y = log(1 + exp(β · x)) / β, written so that exp never overflows."""
    beta = x.dtype.type(beta)
    return np.maximum(x, 0) + np.log1p(np.exp(-beta * np.abs(x))) / beta


@kernel("dy[n] x[n] beta -> dx[n]", flops=EXP + 4)
def softplus_grad(dy: Array, x: Array, beta: float) -> Array:
    """dx = dy · sigmoid(β · x)."""
    return dy * sigmoid(x.dtype.type(beta) * x)


@kernel("x[n] -> y[n]", flops=2 * EXP + 12)
def gelu(x: Array) -> Array:
    """y = x · Φ(x), Φ(x) = ½ erfc(-x / √2), the probability that a normal number is less than x."""
    return (np.maximum(x, -_FAR) * _normal_cdf(x)).astype(x.dtype)


@kernel("dy[n] x[n] -> dx[n]", flops=2 * EXP + 16)
def gelu_grad(dy: Array, x: Array) -> Array:
    """dx = dy · (Φ(x) + x · φ(x)), φ(x) = exp(-x² / 2) / √(2π)."""
    z = np.clip(x, -_FAR, _FAR).astype(np.float64)
    return (dy * (_normal_cdf(x) + z * np.exp(-z * z / 2) / math.sqrt(2 * math.pi))).astype(x.dtype)


@kernel("x[n] -> y[n]", flops=EXP + 3)
def selu(x: Array) -> Array:
    """y = λ · x where x ≥ 0, else λ · α · (exp(x) - 1)."""
    real = x.dtype.type
    return np.where(x < 0, real(_SELU_SLOPE) * np.expm1(np.minimum(x, 0)), real(_SELU_GAIN) * x)


@kernel("dy[n] y[n] -> dx[n]", flops=3)
def selu_grad(dy: Array, y: Array) -> Array:
    """dx = dy · (y + λ · α) where y has a minus sign, as x then has, else λ · dy."""
    real = dy.dtype.type
    return np.where(np.signbit(y), dy * (y + real(_SELU_SLOPE)), real(_SELU_GAIN) * dy)


@kernel("x[n] alpha -> y[n]", flops=EXP + 3)
def celu(x: Array, alpha: float) -> Array:
    """y = x where x ≥ 0, else α · (exp(x / α) - 1)."""
    alpha = x.dtype.type(alpha)
    return np.where(x < 0, alpha * np.expm1(np.minimum(x, 0) / alpha), x)


@kernel("dy[n] y[n] alpha -> dx[n]", flops=4)
def celu_grad(dy: Array, y: Array, alpha: float) -> Array:
    """dx = dy · (y / α + 1) where y has a minus sign, as x then has, else dy."""
    return np.where(np.signbit(y), dy * (y / dy.dtype.type(alpha) + 1), dy)


@kernel("x[n] -> y[n]", flops=EXP + 7)
def gelu_tanh(x: Array) -> Array:
    """y = x · (1 + tanh(√(2/π) · (x + 0.044715 · x³))) / 2, close to gelu."""
    return np.maximum(x, -_FAR) * sigmoid(_gelu_inner(x)[0])


@kernel("dy[n] x[n] -> dx[n]", flops=2 * EXP + 14)
def gelu_tanh_grad(dy: Array, x: Array) -> Array:
    """dx = dy · s · (1 + x · (1 - s) · inner'), s = sigmoid(inner), y = x · s."""
    inner, slope = _gelu_inner(x)
    return dy * sigmoid(inner) * (1 + np.clip(x, -_FAR, _FAR) * sigmoid(-inner) * slope)


@kernel("x[n] -> y[n]", flops=4)
def hard_sigmoid(x: Array) -> Array:
    """y = min(max(x / 6 + 1/2, 0), 1)."""
    return np.clip(x / 6 + x.dtype.type(0.5), 0, 1)


@kernel("dy[n] x[n] -> dx[n]", flops=3)
def hard_sigmoid_grad(dy: Array, x: Array) -> Array:
    """dx = dy / 6 where -3 < x < 3, else 0."""
    return np.where((x > -3) & (x < 3), dy / 6, dy.dtype.type(0))


@kernel("x[n] -> y[n]", flops=5)
def hard_swish(x: Array) -> Array:
    """y = x · hard_sigmoid(x)."""
    return np.maximum(x, -_FAR) * hard_sigmoid(x)


@kernel("dy[n] x[n] -> dx[n]", flops=5)
def hard_swish_grad(dy: Array, x: Array) -> Array:
    """dx = dy · (x / 3 + 1/2) where -3 < x < 3; 0 below, dy above."""
    between = dy * (np.clip(x, -3, 3) / 3 + dy.dtype.type(0.5))
    return np.where(x > -3, np.where(x < 3, between, dy), dy.dtype.type(0))


@kernel("x[n] -> y[n]", flops=EXP + 10)
def mish(x: Array) -> Array:
    """y = x · tanh(softplus(x))."""
    return np.maximum(x, -_FAR) * np.tanh(softplus(x, 1.0))


@kernel("dy[n] x[n] -> dx[n]", flops=EXP + 20)
def mish_grad(dy: Array, x: Array) -> Array:
    """dx = dy · (t + x · (1 - t²) · sigmoid(x)), t = tanh(softplus(x))."""
    t = np.tanh(softplus(x, 1.0))
    return dy * (t + np.clip(x, -_FAR, _FAR) * (1 - t * t) * sigmoid(x))


@kernel("x[n] -> y[n]", flops=3)
def softsign(x: Array) -> Array:
    """y = x / (1 + |x|)."""
    largest = np.finfo(x.dtype).max
    x = np.clip(x, -largest, largest)
    return x / (1 + np.abs(x))


@kernel("dy[n] x[n] -> dx[n]", flops=5)
def softsign_grad(dy: Array, x: Array) -> Array:
    """dx = dy / (1 + |x|)²."""
    root = 1 / (1 + np.abs(x))
    return dy * root * root


def _gelu_inner(x: Array) -> tuple[Array, Array]:
    """Return inner = 2 · √(2/π) · (x + 0.044715 · x³) and its derivative."""
    real, z = x.dtype.type, np.clip(x, -_FAR, _FAR)
    scale, cube = real(2 * math.sqrt(2 / math.pi)), real(0.044715)
    return scale * z * (1 + cube * z * z), scale * (1 + 3 * cube * z * z)


@kernel("x[rows,columns] -> y[rows,columns]", flops=EXP + 4)
def softmax(x: Array) -> Array:
    """y = exp(x_j) / Σ_k exp(x_k) over the last dimension."""
    e = np.exp(_less_largest(x))
    return e / e.sum(axis=-1, keepdims=True)


@kernel("dy[rows,columns] y[rows,columns] -> dx[rows,columns]", flops=4)
def softmax_grad(dy: Array, y: Array) -> Array:
    """dx = y · (dy - Σ_k dy_k · y_k)."""
    return y * (dy - (dy * y).sum(axis=-1, keepdims=True))


@kernel("x[rows,columns] -> y[rows,columns]", flops=EXP + 4)
def log_softmax(x: Array) -> Array:
    """y = x_j - log Σ_k exp(x_k) over the last dimension."""
    z = _less_largest(x)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


@kernel("dy[rows,columns] y[rows,columns] -> dx[rows,columns]", flops=EXP + 3)
def log_softmax_grad(dy: Array, y: Array) -> Array:
    """dx = dy - exp(y) · Σ_k dy_k."""
    return dy - np.exp(y) * dy.sum(axis=-1, keepdims=True)


def _less_largest(x: Array) -> Array:
    """Return x - max x, row by row.

    Where one x is the only largest, that is 0 even if x is infinite: ∞ - ∞ would be NaN.
    """
    largest = x == x.max(axis=-1, keepdims=True)
    alone = largest & (largest.sum(axis=-1, keepdims=True) == 1)
    return np.where(alone, x.dtype.type(0), x - x.max(axis=-1, keepdims=True))


_Activation = Literal["relu", "sigmoid", "tanh"]  # those that a product can apply
_FAR = 1000.0  # beyond ±_FAR, sigmoid and Φ are 0 or 1 to the last bit
_SELU_GAIN = 1.0507009873554805  # λ of Klambauer et al. 2017
_SELU_SLOPE = _SELU_GAIN * 1.6732632423543772  # λ · α

_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def _normal_cdf(x: Array) -> Array:
    """Return Φ(x), in float64."""
    return 0.5 * _erfc(x * -math.sqrt(0.5))
