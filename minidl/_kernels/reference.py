"""The NumPy twin of every kernel: its definition, in one to five lines.

The twin is what the tests hold the compiled loops against, what the benchmarks compare
with, and a complete backend (``MINIDL_ISA=reference``). Read it first: a compiled kernel
does the same arithmetic, only faster. The activations are in ``reference_activations.py``.
Gradients are named after the variable that they belong to: ``dx`` is the derivative of the loss
with respect to ``x``.

Arrays are float32 or float64, rows are the batch, columns the features; an input of more
than two dimensions is treated as the matrix of its last dimension. What optimizers do is in
``reference_optimizers.py``.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from minidl._kernels.reference_activations import *  # noqa: F403 (a part of the twin)
from minidl._kernels.reference_activations import Array, log_softmax, relu, sigmoid, tanh
from minidl._kernels.reference_errors import RowError
from minidl._kernels.reference_optimizers import *  # noqa: F403 (all of it: the twins are one)
from minidl._kernels.reference_recurrent import *  # noqa: F403

ActivationName = Literal["relu", "sigmoid", "tanh"]

# --- products ---------------------------------------------------------------------------


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
    dweight += _matrix(x).T @ _matrix(dy)
    if dbias is not None:
        dbias += column_sum(dy)


# --- elementwise ------------------------------------------------------------------------


def copy(x: Array) -> Array:
    """y = x, C-contiguous."""
    return np.array(x, order="C")


def clear(x: Array) -> None:
    """x ← 0, in place."""
    x[...] = 0


def add(a: Array, b: Array) -> Array:
    """y = a + b."""
    return a + b


def scale(x: Array, factor: float) -> None:
    """x ← factor · x, in place."""
    x *= x.dtype.type(factor)


def exp(x: Array) -> Array:
    """y = exp(x)."""
    return np.exp(x)


def log(x: Array) -> Array:
    """y = log(x), the natural logarithm."""
    return np.log(x)


_ACTIVATIONS = {"relu": relu, "sigmoid": sigmoid, "tanh": tanh}


def dropout_key(state: Array) -> Array:
    """Draw the two 32-bit words that decide a mask; ``state`` is uint64 {seed, calls so far}."""
    state[1] += np.uint64(1)
    word = _splitmix64(int(state[0]) + int(state[1]) * 0x9E3779B97F4A7C15)
    return np.array([word & 0xFFFFFFFF, word >> 32], dtype=np.uint32)


def dropout(x: Array, key: Array, p: float) -> Array:
    """y = x / (1 - p) with probability 1 - p, else 0. The same key gives the same mask, so
    the gradient is the same function of dy.
    """
    index = np.arange(x.size, dtype=np.uint64)
    block = (index >> np.uint64(32)).astype(np.uint32)
    bits = _mix32(index.astype(np.uint32) ^ _mix32(block, key[0]), key[1])
    keep = (bits >= np.uint32(p * 2.0**32)).reshape(x.shape)
    return np.where(keep, x * x.dtype.type(1 / (1 - p)), x.dtype.type(0))


def _splitmix64(z: int) -> int:
    """Output function of SplitMix64 (Steele, Lea and Flood 2014)."""
    z &= 2**64 - 1
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & 2**64 - 1
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & 2**64 - 1
    return z ^ (z >> 31)


def _mix32(h: Any, key: Any) -> Any:
    """Every bit of h, and then of the key, reaches the upper bits of the result.

    The multipliers are those of MurmurHash3. Its last step is left out: it changes no upper bit.
    """
    h = (h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B) ^ key
    return (h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35)


# --- reductions and normalization -------------------------------------------------------


def column_sum(x: Array) -> Array:
    """s_j = Σ_i x_ij, added up in float64."""
    return _matrix(x).sum(axis=0, dtype=np.float64).astype(x.dtype)


def batch_norm(
    x: Array,
    gamma: Array,
    beta: Array,
    running_mean: Array,
    running_var: Array,
    momentum: float,
    eps: float,
    training: bool,
) -> tuple[Array, Array, Array]:
    """y = γ · (x - μ) / √(σ² + ε) + β; returns y, μ and 1/√(σ² + ε).

    In training μ and σ² are those of the batch, and the running ones move towards them by
    ``momentum`` (σ² unbiased); otherwise the running ones are used.
    """
    mean, var = running_mean, running_var
    if training:
        rows = _matrix(x)
        mean, var = _mean_and_variance(rows, axis=0)
        running_mean += momentum * (mean - running_mean)
        running_var += momentum * (var * len(rows) / (len(rows) - 1) - running_var)
    rstd = (1 / np.sqrt(var + eps)).astype(x.dtype)
    return gamma * ((x - mean) * rstd) + beta, mean.copy(), rstd


def batch_norm_grad(
    dy: Array,
    x: Array,
    gamma: Array,
    mean: Array,
    rstd: Array,
    dgamma: Array,
    dbeta: Array,
    training: bool,
) -> Array:
    """dx = γ/σ · (dy - mean(dy) - x̂ · mean(dy · x̂)); adds to dγ = Σ dy · x̂ and dβ = Σ dy.

    With the running statistics μ and σ do not depend on x, and dx = γ/σ · dy.
    """
    x_hat = (x - mean) * rstd
    sum_dy, sum_dy_x = column_sum(dy), column_sum(dy * x_hat)
    dgamma += sum_dy_x
    dbeta += sum_dy
    if training:
        dy = dy - (sum_dy + x_hat * sum_dy_x) / len(_matrix(x))
    return dy * (gamma * rstd)


def layer_norm(x: Array, gamma: Array, beta: Array, eps: float) -> tuple[Array, Array, Array]:
    """y = γ · (x - μ) / √(σ² + ε) + β, μ and σ² those of a row; returns y, μ and 1/√(σ² + ε)."""
    rows = _matrix(x)
    mean, var = _mean_and_variance(rows, axis=1)
    rstd = (1 / np.sqrt(var + eps)).astype(x.dtype)
    y = gamma * ((rows - mean[:, None]) * rstd[:, None]) + beta
    return y.reshape(x.shape), mean, rstd


def _mean_and_variance(x: Array, axis: int) -> tuple[Array, Array]:
    """In float64, of differences from the first: equal numbers have no variance whatever."""
    first = x.take([0], axis=axis)
    shifted = x.astype(np.float64) - first
    mean = (first.squeeze(axis) + shifted.mean(axis=axis)).astype(x.dtype)
    return mean, shifted.var(axis=axis).astype(x.dtype)


def layer_norm_grad_input(dy: Array, x: Array, gamma: Array, mean: Array, rstd: Array) -> Array:
    """dx = 1/σ · (g - mean(g) - x̂ · mean(g · x̂)), g = γ · dy, means over a row."""
    g, x_hat = _matrix(gamma * dy), (_matrix(x) - mean[:, None]) * rstd[:, None]
    g_mean, g_x_mean = (m.mean(axis=1, keepdims=True) for m in (g, g * x_hat))
    return (rstd[:, None] * (g - g_mean - x_hat * g_x_mean)).reshape(x.shape)


def layer_norm_grad_params(
    dy: Array, x: Array, mean: Array, rstd: Array, dgamma: Array, dbeta: Array
) -> None:
    """dγ += Σ dy · x̂ and dβ += Σ dy over the rows."""
    dgamma += column_sum(_matrix(dy) * ((_matrix(x) - mean[:, None]) * rstd[:, None]))
    dbeta += column_sum(dy)


def standardize(x: Array, mean: Array | None, std: Array) -> Array:
    """y = (x - μ) / σ, column by column; without μ, y = x / σ, which is the gradient."""
    return x / std if mean is None else (x - mean) / std


# --- losses: (value, gradient), the value a float64 array of no dimensions --------------


def softmax_cross_entropy(
    logits: Array,
    labels: Array,
    mean: bool = True,
    weight: Array | None = None,
    class_weight: Array | None = None,
    smoothing: float = 0.0,
) -> tuple[Array, Array]:
    """L_i = log Σ_j exp(z_ij) - z_i,label; dz = softmax(z) - onehot(label).

    Row i counts weight_i · class_weight_label. Smoothing ε: (1 - ε) · L_i, and ε times the mean
    over all classes c of class_weight_c · L_i with c for a label. A mean is divided by Σ of
    what the rows count.
    """
    _check_labels(labels, logits.shape[1])
    share, count = _label_shares(logits, labels, weight, class_weight, smoothing)
    log_p = log_softmax(logits.astype(np.float64))
    total = share.sum(axis=1, keepdims=True)
    dlogits = np.where(total > 0, total * np.exp(log_p) - share, 0)
    losses = np.where(share > 0, -share * log_p, 0)  # what counts nothing may be infinite
    return _reduce(losses.sum(axis=1), dlogits.astype(logits.dtype), count, mean)


def nll(
    log_probabilities: Array,
    labels: Array,
    mean: bool = True,
    weight: Array | None = None,
    class_weight: Array | None = None,
) -> tuple[Array, Array]:
    """L_i = -log p_i,label; dlog p = -onehot(label). Weights as in softmax_cross_entropy."""
    _check_labels(labels, log_probabilities.shape[1])
    share, count = _label_shares(log_probabilities, labels, weight, class_weight, 0.0)
    rows = np.arange(len(labels))
    own = share[rows, labels]
    losses = np.where(own > 0, -own * log_probabilities[rows, labels], 0)
    return _reduce(losses, -share.astype(log_probabilities.dtype), count, mean)


def _label_shares(
    logits: Array,
    labels: Array,
    weight: Array | None,
    class_weight: Array | None,
    smoothing: float,
) -> tuple[Array, Any]:
    """What every class of every row counts, and what all rows count together."""
    rows, classes = logits.shape
    of_class = np.ones(classes) if class_weight is None else class_weight.astype(np.float64)
    of_row = np.ones(rows) if weight is None else weight.astype(np.float64)
    own = of_row * of_class[labels]
    _check_weights(own)
    share = of_row[:, None] * (smoothing / classes * of_class)
    share[np.arange(rows), labels] += (1 - smoothing) * own
    return share, own.sum()


def mse(
    prediction: Array, target: Array, mean: bool = True, weight: Array | None = None
) -> tuple[Array, Array]:
    """L = (prediction - target)²; dprediction = 2 · (prediction - target).

    With weights, row i counts weight_i, and a mean is divided by their sum.
    """
    error = prediction - target
    return _reduce_elements(np.square(error), 2 * error, mean, weight)


def absolute_error(
    prediction: Array, target: Array, mean: bool = True, weight: Array | None = None
) -> tuple[Array, Array]:
    """L = |prediction - target|; dprediction = sign(prediction - target)."""
    error = prediction - target
    return _reduce_elements(np.abs(error), np.sign(error), mean, weight)


def huber(
    prediction: Array,
    target: Array,
    delta: float = 1.0,
    mean: bool = True,
    weight: Array | None = None,
) -> tuple[Array, Array]:
    """L = e²/2 for |e| ≤ δ, δ · (|e| - δ/2) beyond; dprediction = e within ±δ."""
    error = prediction - target
    near = np.minimum(np.abs(error), error.dtype.type(delta))
    losses = near * (np.abs(error) - near / 2)
    return _reduce_elements(losses, np.copysign(near, error), mean, weight)


def bce_with_logits(
    logits: Array,
    target: Array,
    mean: bool = True,
    weight: Array | None = None,
    pos_weight: Array | None = None,
) -> tuple[Array, Array]:
    """L = |z| · u + log(1 + exp(-|z|)), u = 1 - t for z > 0, else t; dz = sigmoid(z) - t.

    That is max(z, 0) - z · t + log(1 + exp(-|z|)), and |z| · u is 0 where u is, be z infinite.
    With a weight w for every column, L = w · t · log(1 + exp(-z)) + (1 - t) · log(1 + exp(z)):
    then w · t takes the place of t, and 1 - t + w · t that of 1.
    """
    ones = target if pos_weight is None else (target.reshape(len(target), -1) * pos_weight)
    ones = ones.reshape(target.shape)
    both: Any = 1 if pos_weight is None else 1 - target + ones
    wrong = np.where(logits > 0, 1 - target, ones)
    losses = np.where(wrong == 0, 0, np.abs(logits) * wrong)
    losses = losses + both * np.log1p(np.exp(-np.abs(logits)))
    return _reduce_elements(losses, both * sigmoid(logits) - ones, mean, weight)


def _check_labels(labels: Array, classes: int) -> None:
    bad = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(bad):
        raise RowError("label", bad[0], labels[bad[0]], classes)


def _check_weights(weights: Array) -> None:
    if not (weights >= 0).all() or not 0 < weights.sum() < np.inf:
        raise ValueError("weights must be finite and >= 0, and not all zero")


def _reduce_elements(
    losses: Array, gradient: Array, mean: bool, weight: Array | None
) -> tuple[Array, Array]:
    losses = losses.astype(np.float64)
    if weight is None:
        return _reduce(losses, gradient, losses.size, mean)
    _check_weights(weight)
    # Each row's factor first: the gradient's dtype may not hold the inverse of tiny weights.
    share = weight.astype(np.float64) / (weight.sum(dtype=np.float64) if mean else 1)
    share = share.reshape(-1, *[1] * (losses.ndim - 1)) / (
        losses.size // len(weight) if mean else 1
    )
    losses = np.where(share > 0, share * losses, 0)
    gradient = np.where(share > 0, share.astype(gradient.dtype) * gradient, 0)
    return _reduce(losses, gradient, 1, False)


def _reduce(losses: Array, gradient: Array, count: Any, mean: bool) -> tuple[Array, Array]:
    factor = 1 / count if mean else 1.0
    return np.asarray(losses.sum() * factor), gradient * gradient.dtype.type(factor)


def _matrix(x: Array) -> Array:
    """x as the matrix whose columns are its last dimension."""
    return x.reshape(-1, x.shape[-1])
