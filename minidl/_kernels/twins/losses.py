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
from minidl._kernels.twins.errors import RowError
from minidl.typing import Array

# One signature for all losses of elements: they share a struct, though only Huber's has a delta and
# only binary cross entropy has a pos_weight.
_ELEMENTS = (
    "prediction[n] target[n] weight[rows]? weights:double[]? pos_weight[*]? scale delta "
    "each:flag -> dprediction[n] losses:double[*]"
)
WRONG_WEIGHTS = (
    "weights must be finite and >= 0, and not all zero (an ignored label has a weight of 0)"
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
    share, count = _label_shares(logits, labels, weight, class_weight, smoothing, each)
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
    share, count = _label_shares(log_probabilities, labels, weight, class_weight, 0.0, each)
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
    each: bool,
) -> tuple[Array, Any]:
    """Return the weight of every class in every row's loss, and the sum of the rows' weights."""
    rows, classes = logits.shape
    of_class = np.ones(classes) if class_weight is None else class_weight.astype(np.float64)
    of_row = np.ones(rows) if weight is None else weight.astype(np.float64)
    own = of_row * of_class[labels]
    _check_weights(own, each)
    share = of_row[:, None] * (smoothing / classes * of_class)
    share[np.arange(rows), labels] += (1 - smoothing) * own
    return share, own.sum()


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


def _check_labels(labels: Array, classes: int) -> None:
    """Raise RowError for the first label that is no class."""
    bad = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(bad):
        raise RowError("label", bad[0], labels[bad[0]], classes)


def _check_weights(weights: Array, each: bool) -> None:
    """Raise ValueError for weights that are negative or not finite, or that have no mean."""
    total = weights.sum()
    if not (weights >= 0).all() or not total < np.inf or (total == 0 and not each):
        raise ValueError(WRONG_WEIGHTS)


def _reduce_elements(
    losses: Array, gradient: Array, mean: bool, weight: Array | None, each: bool
) -> tuple[Array, Array]:
    """Weight the losses and gradients of all elements by rows, and reduce them."""
    losses = losses.astype(np.float64)
    if weight is None:
        return _reduce(losses, gradient, losses.size, mean, each)
    _check_weights(weight, each)
    mean = mean and not each
    # Each row's factor first: the gradient's dtype may not hold the inverse of tiny weights.
    share = weight.astype(np.float64) / (weight.sum(dtype=np.float64) if mean else 1)
    share = share.reshape(-1, *[1] * (losses.ndim - 1)) / (
        losses.size // len(weight) if mean else 1
    )
    losses = np.where(share > 0, share * losses, 0)
    gradient = np.where(share > 0, share.astype(gradient.dtype) * gradient, 0)
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
    "weight[rows]? labels:index[rows]? class_weight[classes]? ignore_index each:flag -> "
    "total:double[]",
    problem=WRONG_WEIGHTS,
    threads="one",
)
