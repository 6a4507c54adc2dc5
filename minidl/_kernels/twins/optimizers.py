"""The NumPy twins of the kernels of optimizers: norm, clipping, updates, over flat vectors."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl._kernels.signature import kernel
from minidl.typing import Array

# The numbers that kernels read from memory at every step: hyper-parameters and counters. C knows
# the same layout as OptimizerState (arguments.pxd).
OPTIMIZER_STATE = np.dtype(
    [
        (name, np.float64)
        for name in (
            "learning_rate",
            "weight_decay",
            "max_norm",
            "norm",
            "scale",
            "step",
            "momentum",
            "nesterov",
            "beta1",
            "beta2",
            "eps",
            "l1",
            "max_value",
            "alpha",
            "centered",
            "decoupled",
            "momentum_decay",
            "mu_product",
        )
    ]
)


# What every step leaves in a state, and the rate that it was made with.
LATEST = ("norm", "scale", "learning_rate")


@kernel("x[n] -> sums:double[*]", composite=True, flops=2, may_be_infinite=True)
def squared_norm(x: Array) -> Array:
    """Σ x², in float64. It may be infinite: `clip` decides what happens then."""
    with np.errstate(over="ignore"):
        return np.asarray(np.square(x, dtype=np.float64).sum())


@kernel("x[n] y[n] -> sums:double[*]", composite=True, flops=2, may_be_infinite=True)
def dot(x: Array, y: Array) -> Array:
    """Σ x · y, in float64."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(np.multiply(x, y, dtype=np.float64).sum())


@kernel(
    "squared_norm:double[] grad:double[n]? ~state:OptimizerState[groups]",
    composite=True,
    threads="one",
    stops=True,
)
def clip(squared_norm: Array, state: Array, grad: Array | None = None) -> bool:
    """Count the step and find the factor that brings the norm down to max_norm.

    ``state`` may be an array, with one struct for each group of parameters. ``grad``, if given, is
    used to compute the norm again where its square over- or underflows float64. Returns whether
    the norm is finite; if it is not, only the ``norm`` of the first group changes.
    """
    norm = np.sqrt(squared_norm)
    if grad is not None and (squared_norm < 1e-280 or np.isinf(squared_norm)):
        peak = np.abs(grad).max(initial=0)
        if 0 < peak < np.inf:
            norm = peak * np.sqrt(np.square(grad / peak, dtype=np.float64).sum())
    state.reshape(-1)["norm"][0] = norm
    if not np.isfinite(norm):
        return False
    state["norm"] = norm
    limit = np.where(state["max_norm"] > 0, state["max_norm"], np.inf)
    with np.errstate(divide="ignore"):  # where the norm is 0
        state["scale"] = np.minimum(limit / norm, 1)
    state["step"] += 1
    state["mu_product"] *= _nadam_momentum(state, state["step"])
    return True


@kernel("~x[n] limit:[0,inf]", flops=2)
def clamp(x: Array, limit: float) -> None:
    """x ← min(max(x, -limit), limit), in place."""
    np.clip(x, -x.dtype.type(limit), x.dtype.type(limit), out=x)


@kernel("~data[n] grad[n] ~velocity[n]? state:OptimizerState[]", flops=7)
def sgd(data: Array, grad: Array, velocity: Array | None, state: Array) -> None:
    """g ← scale · grad + λ · w; v ← μ · v + g; w ← w - η · v (Nesterov: g + μ · v)."""
    g = _clipped(data, grad, state)
    if velocity is not None:
        velocity *= data.dtype.type(state["momentum"])
        velocity += g
        _settle(velocity)
        g = g + data.dtype.type(state["momentum"]) * velocity if state["nesterov"] else velocity
        g = np.clip(g, np.finfo(g.dtype).min, np.finfo(g.dtype).max)
    data -= data.dtype.type(state["learning_rate"]) * g


@kernel("~data[n] grad[n] ~m[n] ~v[n] state:OptimizerState[]", flops=16)
def adam(data: Array, grad: Array, m: Array, v: Array, state: Array) -> None:
    """m ← β₁m + (1-β₁)g; v ← β₂v + (1-β₂)g²; w ← w - η · m̂ / (√v̂ + ε) (Kingma and Ba 2015)."""
    real, (beta1, beta2) = data.dtype.type, (state["beta1"], state["beta2"])
    g = _squarable(data, grad, state)
    m += real(1 - beta1) * (g - m)
    v *= real(beta2)
    v += real(1 - beta2) * (g * g)
    _settle(m)
    _settle(v)
    rate = real(state["learning_rate"] / (1 - beta1 ** state["step"]))
    root = np.sqrt(v) * real(1 / np.sqrt(1 - beta2 ** state["step"]))
    if state["decoupled"]:  # AdamW, Loshchilov and Hutter 2019
        data *= real(1 - state["learning_rate"] * state["weight_decay"])
    data -= rate * m / (root + real(state["eps"]))


@kernel("~data[n] grad[n] ~m[n] ~v[n] state:OptimizerState[]", flops=18)
def nadam(data: Array, grad: Array, m: Array, v: Array, state: Array) -> None:
    """m, v as in adam; w ← w - (η₁ · m + η₂ · g) / (√v̂ + ε) (Dozat 2016)."""
    real, product = data.dtype.type, state["mu_product"]
    g = _squarable(data, grad, state)
    m += real(1 - state["beta1"]) * (g - m)
    v *= real(state["beta2"])
    v += real(1 - state["beta2"]) * (g * g)
    _settle(m)
    _settle(v)
    now, after = (_nadam_momentum(state, state["step"] + ahead) for ahead in (0, 1))
    rate1 = real(state["learning_rate"] * after / (1 - product * after))
    rate2 = real(state["learning_rate"] * (1 - now) / (1 - product))
    root = np.sqrt(v) * real(1 / np.sqrt(1 - state["beta2"] ** state["step"]))
    data -= (rate1 * m + rate2 * g) / (root + real(state["eps"]))


@kernel("~data[n] grad[n] ~square[n] ~mean[n] ~velocity[n] state:OptimizerState[]", flops=11)
def rmsprop(
    data: Array, grad: Array, square: Array, mean: Array, velocity: Array, state: Array
) -> None:
    """s ← α · s + (1-α) · g²; w ← w - η · g / (√s + ε).

    With momentum μ, v ← μ · v + g / (√s + ε) and w ← w - η · v. Centred, s less the square of the
    running mean of g takes the place of s (Graves 2013).
    """
    real = data.dtype.type
    g = _squarable(data, grad, state)
    square *= real(state["alpha"])
    square += real(1 - state["alpha"]) * (g * g)
    _settle(square)
    variance = square
    if state["centered"]:
        mean += real(1 - state["alpha"]) * (g - mean)
        _settle(mean)
        variance = np.maximum(square - mean * mean, 0)
    g = g / (np.sqrt(variance) + real(state["eps"]))
    if state["momentum"]:
        velocity *= real(state["momentum"])
        velocity += g
        _settle(velocity)
        g = velocity
    data -= real(state["learning_rate"]) * g


@kernel("~data[n] grad[n] ~square[n] state:OptimizerState[]", flops=9)
def adagrad(data: Array, grad: Array, square: Array, state: Array) -> None:
    """s ← s + g²; w ← w - η · g / (√s + ε)."""
    real = data.dtype.type
    g = _squarable(data, grad, state)
    square += g * g
    _settle(square)
    data -= real(state["learning_rate"]) * g / (np.sqrt(square) + real(state["eps"]))


@kernel("~average[n] x[n] weight", flops=3)
def lerp(average: Array, x: Array, weight: float) -> None:
    """average ← average + weight · (x - average), in place."""
    average += average.dtype.type(weight) * (x - average)


def _clipped(data: Array, grad: Array, state: Array) -> Array:
    """Return the gradient after clipping by norm and by value, plus that of the penalties."""
    real = data.dtype.type
    scale, root = float(state["scale"]), 1.0
    if scale < np.finfo(np.float64).tiny and 0 < state["max_norm"] < state["norm"]:
        # In two factors, each the root of the scale: the scale itself would underflow.
        scale = root = float(np.sqrt(state["max_norm"]) / np.sqrt(state["norm"]))
    g = (grad * np.float64(scale) * root).astype(data.dtype)  # in float32 the scale may be 0
    if state["max_value"]:
        g = np.clip(g, -real(state["max_value"]), real(state["max_value"]))
    if state["l1"]:
        g += real(state["l1"]) * np.sign(data)
    return g if state["decoupled"] else g + data * real(state["weight_decay"])


def _squarable(data: Array, grad: Array, state: Array) -> Array:
    """Return the gradient of `_clipped`, bounded so that its square is finite.

    A second moment that is infinite once stays so, and its parameter would never move again. The
    bound applies to both moments, so their ratio, and with it the step, stays what it was.
    """
    limit = 2.0 ** (np.finfo(data.dtype).maxexp // 2 - 1)  # 2^63 or 2^511
    return np.clip(_clipped(data, grad, state), -limit, limit)


def _settle(moment: Array) -> None:
    """Set subnormal numbers, with which CPUs are many times slower, to 0; bound the rest."""
    info = np.finfo(moment.dtype)
    moment[np.abs(moment) < info.tiny] = 0
    np.clip(moment, info.min, info.max, out=moment)


def _nadam_momentum(state: Array, step: Any) -> Any:
    """Return the momentum of a step, μ_t = β₁ · (1 - ½ · 0.96^(t · momentum_decay))."""
    return state["beta1"] * (1 - 0.5 * 0.96 ** (step * state["momentum_decay"]))
