"""Weights of rows, from those of samples and of classes."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from minidl._kernels.reference import Array
from minidl.nn import Loss
from minidl.nn.checks import check_number
from minidl.training.preparing import as_real, check_finite

ClassWeight = Mapping[int, float] | str


def row_weights(
    name: str,
    weight: Any,
    class_weight: ClassWeight | None,
    targets: Array,
    loss: Loss,
    dtype: np.dtype[Any],
) -> Array | None:
    """What each row counts: its own weight times that of its label; None if none are given.

    Raises
    ------
    TypeError
        If they are no real numbers, or the loss takes no weights.
    ValueError
        For another number of them, and for weights that are negative, not finite or all zero.
    """
    if weight is None and class_weight is None:
        return None
    if len(inspect.signature(loss.forward).parameters) < 3:
        raise TypeError(f"{loss!r} takes no weights: its forward is (prediction, target)")
    # Of sequences of labels, every step is a row of its own.
    weights = np.ones(targets.shape if loss.takes_labels else targets.shape[:1], dtype)
    if weight is not None:
        weights = _checked(name, weight, weights)
    if class_weight is not None:
        weights = weights * class_weights(class_weight, targets, loss).astype(dtype)
    if not weights.any():
        raise ValueError(f"{name}: all weights are zero")
    return weights


def _checked(name: str, weight: Any, like: Array) -> Array:
    """Weights of samples or of their steps, as those of steps if there are any."""
    weights = as_real(name, weight, like.dtype)
    if weights.shape not in (like.shape, like.shape[:1]):
        raise ValueError(f"{name}: expected shape {like.shape}, got {weights.shape}")
    check_finite(name, weights)
    negative = np.argwhere(weights < 0)
    if len(negative):
        place = tuple(negative[0])
        raise ValueError(f"{name}: row {place[0]} holds {weights[place]}; weights must be >= 0")
    spread = weights.reshape(*weights.shape, *[1] * (like.ndim - weights.ndim))
    return np.ascontiguousarray(np.broadcast_to(spread, like.shape))


def class_weights(weight: ClassWeight, targets: Array, loss: Loss) -> Array:
    """What each row counts for its label.

    ``"balanced"`` is n / (classes · rows with this label): every class that occurs counts as much
    as any other. In a mapping, labels that are missing count 1.

    Raises
    ------
    TypeError
        For something else, and for weights that are no numbers.
    ValueError
        For labels that do not occur, weights below zero or not finite, or a loss that takes no
        labels.
    """
    if not loss.takes_labels:
        raise ValueError(f"class_weight needs a loss of labels, not {loss!r}; use sample_weight")
    labels, places, counts = np.unique(targets, return_inverse=True, return_counts=True)
    if isinstance(weight, str):
        if weight != "balanced":
            raise ValueError(f'class_weight must be a mapping or "balanced", got {weight!r}')
        of_class = counts.sum() / (len(labels) * counts)
    elif isinstance(weight, Mapping):
        unknown = [label for label in weight if label not in labels]
        if unknown:
            raise ValueError(f"class_weight: no row has the label {unknown[0]!r}")
        for label, value in weight.items():
            check_number("class_weight", f"the weight of label {label}", value, 0, math.inf)
        of_class = np.array([weight.get(label, 1.0) for label in labels.tolist()], np.float64)
    else:
        raise TypeError(f'class_weight must be a mapping or "balanced", got {weight!r}')
    return of_class[places].reshape(targets.shape)
