"""The NumPy twins of losses.

Each returns (value, gradient); the value is a float64 array of no dimensions, a mean if ``mean``,
else a sum. With ``each``, whatever ``mean`` is, the value is the float64 losses of all rows or
elements, and the gradient is that of their sum.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl._kernels.signature import EXP, declare, kernel
from minidl._kernels.twins.activations import log_softmax, sigmoid
from minidl._kernels.twins.errors import MEAN_MAY_BE_EMPTY, RowError, WeightError
from minidl.typing import Array

# One signature for all losses of elements: they share a struct, though only some have a parameter
# for every column (a pos_weight, a quantile), a delta, or constants that count if ``full``.
_ELEMENTS = (
    "prediction[n] target[n] weight[rows]? weights:double[]? column[*]? scale delta full:flag "
    "each:flag -> dprediction[n] losses:double[*]"
)
# And one for all losses of vectors.
_VECTORS = (
    "prediction[steps,both] target[steps,columns] weight[rows]? weights:double[]? scale delta "
    "full:flag each:flag -> dprediction[steps,both] losses:double[*]"
)
LEAST_LENGTH = 1e-8  # a vector shorter than this counts as so long in a cosine
WRONG_WEIGHTS = (
    "weights must be finite and >= 0, and for a mean not all zero (an ignored label has a weight "
    "of 0)"
)


@kernel(
    "logits[rows,classes] labels:index[rows]<classes weight[rows]? class_weight[classes]? "
    "weights:double[]? scale smoothing ignore_index -> dlogits[rows,classes] losses:double[rows]",
    composite=True,
    flops=EXP + 4,
    row_flops=EXP,
)
def softmax_cross_entropy(
    logits: Array,
    labels: Array,
    mean: bool = True,
    weight: Array | None = None,
    class_weight: Array | None = None,
    smoothing: float = 0.0,
    ignore_index: int | None = None,
    *,
    each: bool = False,
) -> tuple[Array, Array]:
    """L_i = log Σ_j exp(z_ij) - z_i,label; dz = softmax(z) - onehot(label).

    With weights, row i has the weight w_i = weight_i · class_weight_label, or 0 if its label is
    ``ignore_index``: a sum is Σ w_i · L_i, a mean that divided by Σ w_i. With smoothing ε the loss
    of a row is weight_i times (1 - ε) · class_weight_label · L_i plus ε / classes · Σ_c
    class_weight_c · (-log p_ic).
    """
    labels, weight = _without_ignored(labels, weight, ignore_index)
    _check_labels(labels, logits.shape[1])
    for_mean = mean and not each
    share, count = _label_shares(logits, labels, weight, class_weight, smoothing, for_mean)
    log_p = log_softmax(logits.astype(np.float64))
    total = share.sum(axis=1, keepdims=True)
    dlogits = np.where(total > 0, total * np.exp(log_p) - share, 0)
    losses = np.where(share > 0, -share * log_p, 0)  # log p may be -∞ where share is 0
    return _reduce(losses.sum(axis=1), dlogits.astype(logits.dtype), count, mean, each)


@kernel(
    "logits[rows,classes] labels:index[rows]<classes weight[rows]? class_weight[classes]? "
    "weights:double[]? scale smoothing ignore_index -> dlogits[rows,classes] losses:double[rows]",
    composite=True,
    flops=1,
)
def nll(
    log_probabilities: Array,
    labels: Array,
    mean: bool = True,
    weight: Array | None = None,
    class_weight: Array | None = None,
    ignore_index: int | None = None,
    *,
    each: bool = False,
) -> tuple[Array, Array]:
    """L_i = -log p_i,label; dlog p = -onehot(label). Weights as in softmax_cross_entropy."""
    labels, weight = _without_ignored(labels, weight, ignore_index)
    _check_labels(labels, log_probabilities.shape[1])
    for_mean = mean and not each
    share, count = _label_shares(log_probabilities, labels, weight, class_weight, 0.0, for_mean)
    rows = np.arange(len(labels))
    own = share[rows, labels]
    losses = np.where(own > 0, -own * log_probabilities[rows, labels], 0)
    return _reduce(losses, -share.astype(log_probabilities.dtype), count, mean, each)


def _without_ignored(
    labels: Array, weight: Array | None, ignore_index: int | None
) -> tuple[Array, Array | None]:
    """Return labels and weights in which ignored rows have the label 0 and the weight 0."""
    if ignore_index is None:
        return labels, weight
    ignored = labels == ignore_index
    weight = np.ones(len(labels)) if weight is None else weight
    return np.where(ignored, 0, labels), np.where(ignored, 0, weight)


def _label_shares(
    logits: Array,
    labels: Array,
    weight: Array | None,
    class_weight: Array | None,
    smoothing: float,
    for_mean: bool,
) -> tuple[Array, Any]:
    """Return the weight of every class in every row's loss, and the sum of the rows' weights."""
    rows, classes = logits.shape
    of_class = np.ones(classes) if class_weight is None else class_weight.astype(np.float64)
    of_row = np.ones(rows) if weight is None else weight.astype(np.float64)
    own = of_row * of_class[labels]
    _check_weights(own, for_mean)
    share = of_row[:, None] * (smoothing / classes * of_class)
    share[np.arange(rows), labels] += (1 - smoothing) * own
    return share, own.sum() or 1  # a mean that may be empty adds up nothing


@kernel(
    _ELEMENTS,
    composite=True,
    flops=4,
)
def mse(
    prediction: Array,
    target: Array,
    mean: bool = True,
    weight: Array | None = None,
    *,
    each: bool = False,
) -> tuple[Array, Array]:
    """L = (prediction - target)²; dprediction = 2 · (prediction - target).

    With weights, a sum is Σ weight_i · L_i over the rows, a mean that divided by Σ weight_i.
    """
    error = prediction - target
    return _reduce_elements(np.square(error), 2 * error, mean, weight, each)


@kernel(
    _ELEMENTS,
    composite=True,
    flops=4,
)
def absolute_error(
    prediction: Array,
    target: Array,
    mean: bool = True,
    weight: Array | None = None,
    *,
    each: bool = False,
) -> tuple[Array, Array]:
    """L = |prediction - target|; dprediction = sign(prediction - target)."""
    error = prediction - target
    return _reduce_elements(np.abs(error), np.sign(error), mean, weight, each)


@kernel(
    _ELEMENTS,
    composite=True,
    flops=7,
)
def huber(
    prediction: Array,
    target: Array,
    delta: float = 1.0,
    mean: bool = True,
    weight: Array | None = None,
    *,
    each: bool = False,
) -> tuple[Array, Array]:
    """L = e²/2 for |e| ≤ δ, δ · (|e| - δ/2) beyond; dprediction = e within ±δ."""
    error = prediction - target
    near = np.minimum(np.abs(error), error.dtype.type(delta))
    losses = near * (np.abs(error) - near / 2)
    return _reduce_elements(losses, np.copysign(near, error), mean, weight, each)


@kernel(
    _ELEMENTS,
    composite=True,
    flops=2 * EXP + 9,
)
def bce_with_logits(
    logits: Array,
    target: Array,
    mean: bool = True,
    weight: Array | None = None,
    pos_weight: Array | None = None,
    *,
    each: bool = False,
) -> tuple[Array, Array]:
    """L = |z| · u + log(1 + exp(-|z|)), u = 1 - t for z > 0, else t; dz = sigmoid(z) - t.

    That is max(z, 0) - z · t + log(1 + exp(-|z|)), but |z| · u is 0 where u is 0, even if z is
    infinite. With a weight w for every column, L = w · t · log(1 + exp(-z)) + (1 - t) ·
    log(1 + exp(z)): w · t takes the place of t, and 1 - t + w · t that of 1.
    """
    ones = target if pos_weight is None else (target.reshape(len(target), -1) * pos_weight)
    ones = ones.reshape(target.shape)
    both: Any = 1 if pos_weight is None else 1 - target + ones
    wrong = np.where(logits > 0, 1 - target, ones)
    losses = np.where(wrong == 0, 0, np.abs(logits) * wrong)
    losses = losses + both * np.log1p(np.exp(-np.abs(logits)))
    return _reduce_elements(losses, both * sigmoid(logits) - ones, mean, weight, each)


@kernel(_ELEMENTS, composite=True, flops=5)
def pinball(
    prediction: Array,
    target: Array,
    quantiles: Array,
    mean: bool = True,
    weight: Array | None = None,
    *,
    each: bool = False,
) -> tuple[Array, Array]:
    """L = q · e for e = target - prediction > 0, else (q - 1) · e; dprediction = -q or 1 - q.

    ``quantiles`` has a q for every column. Where e is 0, so is the gradient.
    """
    error = target - prediction
    q = np.broadcast_to(quantiles, error.reshape(len(error), -1).shape).reshape(error.shape)
    slope = np.where(error < 0, q - 1, q)
    gradient = np.where(np.abs(error) > 0, -slope, np.abs(error))
    return _reduce_elements(slope * error, gradient, mean, weight, each)


@kernel(_ELEMENTS, composite=True, flops=EXP + 3)
def poisson_nll(
    log_rate: Array,
    target: Array,
    mean: bool = True,
    weight: Array | None = None,
    full: bool = False,
    *,
    each: bool = False,
) -> tuple[Array, Array]:
    """L = exp(z) - t · z, with ``full`` plus log t!; dz = exp(z) - t."""
    rate = np.exp(log_rate)
    losses = rate - target * log_rate + (_stirling(target) if full else 0)
    return _reduce_elements(losses, rate - target, mean, weight, each)


@kernel(_ELEMENTS, composite=True, flops=EXP + 5)
def poisson_rate_nll(
    rate: Array,
    target: Array,
    eps: float = 1e-8,
    mean: bool = True,
    weight: Array | None = None,
    full: bool = False,
    *,
    each: bool = False,
) -> tuple[Array, Array]:
    """L = r - t · log(r + ε), with ``full`` plus log t!; dr = 1 - t / (r + ε)."""
    above = rate + rate.dtype.type(eps)
    losses = rate - target * np.log(above) + (_stirling(target) if full else 0)
    return _reduce_elements(losses, 1 - target / above, mean, weight, each)


def _stirling(target: Array) -> Array:
    """Return t · log t - t + log(2π t) / 2, which is nearly log t!; 0 for t ≤ 1."""
    t = np.maximum(target, 1)
    return np.where(target > 1, t * np.log(t) - t + np.log(2 * np.pi * t) / 2, t - 1)


@kernel(_VECTORS, composite=True, flops=EXP // 2 + 4)
def gaussian_nll(
    prediction: Array,
    target: Array,
    least: float = -np.inf,
    mean: bool = True,
    weight: Array | None = None,
    full: bool = False,
    *,
    each: bool = False,
) -> tuple[Array, Array]:
    """L = (s + (m - t)² · exp(-s)) / 2; dm = (m - t) · exp(-s), ds = (1 - (m - t)² · exp(-s)) / 2.

    A row of the prediction holds the means m, then the log variances s, which count as ``least``
    where they are less. With ``full``, plus log(2π) / 2.
    """
    means, log_variance = np.split(prediction, 2, axis=-1)
    log_variance = np.maximum(log_variance, log_variance.dtype.type(least))
    error = means - target
    dmeans = error * np.exp(-log_variance)
    losses = (log_variance + error * dmeans) / 2 + (np.log(2 * np.pi) / 2 if full else 0)
    gradient = np.concatenate([dmeans, (1 - error * dmeans) / 2], axis=-1)
    return _reduce_elements(losses, gradient, mean, weight, each)


@kernel(_VECTORS, composite=True, flops=9)
def cosine_similarity(
    prediction: Array,
    target: Array,
    mean: bool = True,
    weight: Array | None = None,
    *,
    each: bool = False,
) -> tuple[Array, Array]:
    """L = 1 - cos of every row; dprediction = -dcos: see ``_cosine``."""
    cosine, gradient, _ = _cosine(prediction, target)
    return _reduce_elements(1 - cosine, -gradient, mean, weight, each)


@kernel(_VECTORS, composite=True, flops=6)
def cosine_embedding(
    prediction: Array,
    target: Array,
    margin: float = 0.0,
    mean: bool = True,
    weight: Array | None = None,
    *,
    each: bool = False,
) -> tuple[Array, Array]:
    """L = 1 - cos(u, v) where t > 0, else max(0, cos(u, v) - margin).

    The prediction (rows, 2, columns) holds the pairs u, v; the target (rows) is t. ``_cosine`` has
    the gradient.
    """
    cosine, *gradients = _cosine(prediction[:, 0], prediction[:, 1])
    pulled = target > 0
    losses = np.where(pulled, 1 - cosine, np.maximum(0, cosine - margin))
    apart = ~pulled & ~(cosine <= margin)
    gradient = np.stack(gradients, axis=1)
    gradient = np.where(
        pulled[:, None, None], -gradient, np.where(apart[:, None, None], gradient, 0)
    )
    return _reduce_elements(losses, gradient, mean, weight, each)


def _cosine(u: Array, v: Array) -> tuple[Array, Array, Array]:
    """Return cos = u · v / (‖u‖ ‖v‖) and its gradients, v / (‖u‖ ‖v‖) - cos · u / ‖u‖² and so on.

    A length below ``LEAST_LENGTH`` counts as that, and does not depend on the vector.
    """
    dtype, u, v = u.dtype, u.astype(np.float64), v.astype(np.float64)
    with np.errstate(all="ignore"):  # of vectors that are not finite
        lengths = [np.sqrt(np.square(x).sum(axis=-1, keepdims=True)) for x in (u, v)]
        a, b = (np.where(length < LEAST_LENGTH, LEAST_LENGTH, length) for length in lengths)
        cosine = (u * v).sum(axis=-1, keepdims=True) / (a * b)
        du = v / (a * b) - np.where(a == LEAST_LENGTH, 0, cosine / (a * a)) * u
        dv = u / (a * b) - np.where(b == LEAST_LENGTH, 0, cosine / (b * b)) * v
        du, dv = du.astype(dtype), dv.astype(dtype)
    return cosine[..., 0], du, dv


def _check_labels(labels: Array, classes: int) -> None:
    """Raise RowError for the first label that is no class."""
    bad = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(bad):
        raise RowError("label", bad[0], labels[bad[0]], classes)


def _check_weights(weights: Array, for_mean: bool) -> None:
    """Raise WeightError for weights that are negative or not finite, or add up to 0 for a mean."""
    total = weights.sum()
    is_empty = total == 0 and for_mean and not MEAN_MAY_BE_EMPTY.get()
    if not (weights >= 0).all() or not total < np.inf or is_empty:
        raise WeightError(WRONG_WEIGHTS)


def _reduce_elements(
    losses: Array, gradient: Array, mean: bool, weight: Array | None, each: bool
) -> tuple[Array, Array]:
    """Weight the losses and gradients of all elements by rows, and reduce them."""
    losses = losses.astype(np.float64)
    if weight is None:
        return _reduce(losses, gradient, losses.size, mean, each)
    mean = mean and not each
    _check_weights(weight, mean)
    # Each row's factor first: the gradient's dtype may not hold the inverse of tiny weights.
    share = weight.astype(np.float64) / ((weight.sum(dtype=np.float64) or 1) if mean else 1)
    share = share / (losses.size // len(weight) if mean else 1)
    of_losses, of_gradient = (
        share.reshape(-1, *[1] * (array.ndim - 1)) for array in (losses, gradient)
    )
    losses = np.where(of_losses > 0, of_losses * losses, 0)
    gradient = np.where(of_gradient > 0, of_gradient.astype(gradient.dtype) * gradient, 0)
    return _reduce(losses, gradient, 1, False, each)


def _reduce(
    losses: Array, gradient: Array, count: Any, mean: bool, each: bool
) -> tuple[Array, Array]:
    """Add up the losses; divide sum and gradient by ``count`` for a mean."""
    if each:
        return np.asarray(losses), gradient
    factor = 1 / count if mean else 1.0
    return np.asarray(losses.sum() * factor), gradient * gradient.dtype.type(factor)


# Two more kernels of the compiled losses: one thread adds up the losses of rows or blocks, and one
# the weights of rows.
declare("total", "parts:double[n] scale -> total:double[]", flops=1, threads="one", stops=True)
declare(
    "weight_total",
    "weight[rows]? labels:index[rows]? class_weight[classes]? ignore_index for_mean:flag -> "
    "total:double[]",
    problem=WRONG_WEIGHTS,
    threads="one",
)
