"""The NumPy twins of column sums and normalization."""

from __future__ import annotations

import numpy as np

from minidl._kernels.signature import kernel
from minidl._kernels.twins.matrix import _matrix
from minidl.typing import Array


@kernel("x[rows,columns] -> +sums[columns] !partials[*]?", flops=1)
def column_sum(x: Array) -> Array:
    """s_j = Σ_i x_ij, added up in float64."""
    return _matrix(x).sum(axis=0, dtype=np.float64).astype(x.dtype)


@kernel(
    "x[rows,columns] gamma[columns] beta[columns] ~running_mean[columns] "
    "~running_var[columns] momentum eps training:updates -> y[rows,columns] mean[columns] "
    "rstd[columns]",
    flops=8,
    idle_flops=4,
    problem="batch_norm: one row has no variance",
)
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

    In training μ and σ² are those of the batch, and the running statistics move towards them by
    ``momentum`` (σ² unbiased). In evaluation the running statistics are used.
    """
    mean, var = running_mean, running_var
    if training:
        rows = _matrix(x)
        if len(rows) < 2:
            raise ValueError("batch_norm: one row has no variance")
        mean, var = _mean_and_variance(rows, axis=0)
        running_mean += momentum * (mean - running_mean)
        running_var += momentum * (var * len(rows) / (len(rows) - 1) - running_var)
    rstd = (1 / np.sqrt(var + eps)).astype(x.dtype)
    return gamma * ((x - mean) * rstd) + beta, mean.copy(), rstd


@kernel(
    "dy[rows,columns] x[rows,columns] gamma[columns] mean[columns] rstd[columns] "
    "+dgamma[columns] +dbeta[columns] training:flag -> dx[rows,columns]",
    flops=9,
)
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

    In evaluation μ and σ do not depend on x, and dx = γ/σ · dy.
    """
    x_hat = (x - mean) * rstd
    sum_dy, sum_dy_x = column_sum(dy), column_sum(dy * x_hat)
    dgamma += sum_dy_x
    dbeta += sum_dy
    if training:
        dy = dy - (sum_dy + x_hat * sum_dy_x) / len(_matrix(x))
    return dy * (gamma * rstd)


@kernel(
    "x[rows,columns] gamma[columns] beta[columns] eps -> y[rows,columns] mean[rows] rstd[rows]",
    flops=8,
)
def layer_norm(x: Array, gamma: Array, beta: Array, eps: float) -> tuple[Array, Array, Array]:
    """y = γ · (x - μ) / √(σ² + ε) + β, μ and σ² those of a row; returns y, μ and 1/√(σ² + ε)."""
    rows = _matrix(x)
    mean, var = _mean_and_variance(rows, axis=1)
    rstd = (1 / np.sqrt(var + eps)).astype(x.dtype)
    y = gamma * ((rows - mean[:, None]) * rstd[:, None]) + beta
    return y.reshape(x.shape), mean, rstd


def _mean_and_variance(x: Array, axis: int) -> tuple[Array, Array]:
    """Return mean and variance of x.

    They are computed in float64, from the differences from the first number, so that equal numbers
    have variance exactly 0.
    """
    first = x.take([0], axis=axis)
    shifted = x.astype(np.float64) - first
    mean = (first.squeeze(axis) + shifted.mean(axis=axis)).astype(x.dtype)
    return mean, shifted.var(axis=axis).astype(x.dtype)


@kernel(
    "dy[rows,columns] x[rows,columns] gamma[columns] mean[rows] rstd[rows] -> dx[rows,columns]",
    flops=11,
)
def layer_norm_grad_input(dy: Array, x: Array, gamma: Array, mean: Array, rstd: Array) -> Array:
    """dx = 1/σ · (g - mean(g) - x̂ · mean(g · x̂)), g = γ · dy, means over a row."""
    g, x_hat = _matrix(gamma * dy), (_matrix(x) - mean[:, None]) * rstd[:, None]
    g_mean, g_x_mean = (m.mean(axis=1, keepdims=True) for m in (g, g * x_hat))
    return (rstd[:, None] * (g - g_mean - x_hat * g_x_mean)).reshape(x.shape)


@kernel(
    "dy[rows,columns] x[rows,columns] mean[rows] rstd[rows] +dgamma[columns] +dbeta[columns]",
    flops=5,
)
def layer_norm_grad_params(
    dy: Array, x: Array, mean: Array, rstd: Array, dgamma: Array, dbeta: Array
) -> None:
    """dγ += Σ dy · x̂ and dβ += Σ dy over the rows."""
    dgamma += column_sum(_matrix(dy) * ((_matrix(x) - mean[:, None]) * rstd[:, None]))
    dbeta += column_sum(dy)


@kernel("x[rows,columns] gamma[columns] eps -> y[rows,columns] rstd[rows]", flops=4)
def rms_norm(x: Array, gamma: Array, eps: float) -> tuple[Array, Array]:
    """y = γ · x / √(mean(x²) + ε), the mean that of a row; returns y and 1/√(mean(x²) + ε)."""
    rows = _matrix(x).astype(np.float64)
    largest = np.abs(rows).max(axis=1)
    scale = np.where((largest > 1e150) & (largest < np.inf), largest, 1)  # squares would overflow
    square = np.square(rows / scale[:, None]).mean(axis=1)
    rstd = (1 / np.sqrt(square + eps / scale / scale) / scale).astype(x.dtype)
    return (gamma * (_matrix(x) * rstd[:, None])).reshape(x.shape), rstd


@kernel("dy[rows,columns] x[rows,columns] gamma[columns] rstd[rows] -> dx[rows,columns]", flops=8)
def rms_norm_grad_input(dy: Array, x: Array, gamma: Array, rstd: Array) -> Array:
    """dx = rstd · (g - x̂ · mean(g · x̂)), g = γ · dy, x̂ = x · rstd, the mean over a row."""
    g, x_hat = _matrix(gamma * dy), _matrix(x) * rstd[:, None]
    mean = (g * x_hat).mean(axis=1, keepdims=True)
    return (rstd[:, None] * (g - x_hat * mean)).reshape(x.shape)


@kernel("dy[rows,columns] x[rows,columns] rstd[rows] +dgamma[columns]", flops=3)
def rms_norm_grad_params(dy: Array, x: Array, rstd: Array, dgamma: Array) -> None:
    """dγ += Σ dy · x̂ over the rows."""
    dgamma += column_sum(_matrix(dy) * (_matrix(x) * rstd[:, None]))


@kernel("x[rows,columns] mean[columns]? std[columns] -> y[rows,columns]", flops=2)
def standardize(x: Array, mean: Array | None, std: Array) -> Array:
    """y = (x - μ) / σ, column by column; without μ, y = x / σ, which is the gradient."""
    return x / std if mean is None else (x - mean) / std
