"""Weights of rows, computed from sample weights, class weights and padding."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from minidl.nn import BCEWithLogitsLoss, Loss, MultiLoss
from minidl.nn.checks import check_number
from minidl.nn.data_checks import as_array, check_kind
from minidl.nn.multi_loss import heads_of, naming
from minidl.training.data import Data, Source
from minidl.training.inputs import as_contiguous, check_finite, first_where, place_of
from minidl.training.targets import Targets
from minidl.typing import Array

ClassWeight = Mapping[int, float] | str


def row_weights(source: Source, weight: Any, targets: Any) -> Any:
    """Return the weight of each row, or step of a sequence, in the loss; None if all are equal.

    For a ``MultiLoss`` that is a tuple with the weights in each head. ``weight`` then is one array
    for all heads, or a tuple with one, or None, for each, or a dict that may leave heads out.

    Raises
    ------
    TypeError, ValueError
        As ``weights_of_head``.
    """
    name, loss = f"{source.what}sample_weight", source.loss
    if not isinstance(loss, MultiLoss):
        return weights_of_head(source.heads[0], name, weight, targets)
    weights, names = (weight,) * len(loss.heads), [f"{name} of head {head}" for head in loss.heads]
    if isinstance(weight, (tuple, Mapping)) or is_list_of_heads(weight, source):
        weights = loss.by_head(name, weight, partly=True)
        keys: Any = loss.heads if isinstance(weight, Mapping) else range(len(loss.heads))
        names = [f"{name}[{key!r}]" for key in keys]
    found = source.of_heads(weights_of_head, names, weights, targets)
    return for_all_heads(found, targets, loss, source.dtype)


def is_list_of_heads(weight: Any, source: Source) -> bool:
    """Return whether a list holds weights for every head, which are expected in a tuple."""
    return isinstance(weight, list) and len(weight) == len(source.heads) != len(source)


def for_all_heads(weights: Any, targets: Any, loss: MultiLoss, dtype: np.dtype[Any]) -> Any:
    """Return weights in a tuple with 1 for heads without; None if there are none.

    Heads whose loss takes no weights keep None.
    """
    if all(own is None for own in weights):
        return None
    given = zip(loss.heads.values(), weights, targets, strict=True)
    return tuple(
        np.ones(len(y), dtype) if own is None and takes_weights(head) else own
        for head, own, y in given
    )


def alike_in_all_heads(weights: tuple[Array | None, ...], loss: Loss) -> Array | None:
    """Return the weights that rows have in all heads, by which batches of a step are averaged.

    Raises
    ------
    ValueError
        If they differ: then no factor gives each head its part in the gradient of a step.
    """
    first, *others = weights
    one, *names = heads_of(loss)
    for name, other in zip(names, others, strict=True):
        same = first is other
        if first is not None and other is not None:
            same = np.array_equal(first, other)
        if not same:
            raise ValueError(
                "fit: accumulate > 1 needs rows that count alike in all heads, and heads "
                f"{one} and {name} weight them differently; use accumulate=1 with a larger "
                "batch_size"
            )
    return first


def weights_of_head(source: Targets, name: str, weight: Any, targets: Array) -> Array | None:
    """Return the weight of each row, or step of a sequence, in one loss; None if all are equal.

    Padded steps have weight 0. Messages call the weights by their name.

    Raises
    ------
    TypeError
        If the weights are no real numbers, or the loss takes none.
    ValueError
        For another number of them, and for weights that are negative, not finite or all zero.
    """
    loss, steps = source.loss, source.steps()
    if steps is not None and steps.all():
        steps = None
    if weight is None and steps is None:
        return None
    check_takes_weights(loss, "; padded steps need one of 0" if weight is None else "")
    shape = targets.shape if loss.takes_labels else targets.shape[:1]
    weights = np.ones(shape if steps is None else steps.shape, source.dtype)
    if weight is not None:
        weights = _checked(name, weight, weights, targets.shape[:2] if source.per_step else None)
        if not weights.any():
            raise ValueError(f"{name}: all weights are zero")
    return weights if steps is None else weights * steps


def class_weighted(data: Data, class_weight: Any, loss: Loss, output: Any) -> Any:
    """Return the weights of the rows times those of their labels.

    For a ``MultiLoss``, ``class_weight`` has the names of heads, and ``output`` is a tuple.

    Raises
    ------
    TypeError, ValueError
        As ``times_class_weights``.
    """
    if not isinstance(loss, MultiLoss):
        return times_class_weights(data.targets, data.weights, class_weight, loss, output)
    if not isinstance(class_weight, Mapping) or not class_weight.keys() <= loss.heads.keys():
        raise ValueError(
            f"class_weight: expected a dict by the names of the heads ({', '.join(loss.heads)}), "
            f"got {class_weight!r}"
        )
    weights = (None,) * len(loss.heads) if data.weights is None else data.weights
    found = []
    given = zip(loss.heads.items(), output, data.targets, weights, strict=True)
    for (name, own_loss), own_output, y, own in given:
        if class_weight.get(name) is not None:
            with naming(name):
                own = times_class_weights(y, own, class_weight[name], own_loss, own_output)
        found.append(own)
    return for_all_heads(found, data.targets, loss, output[0].dtype)


def times_class_weights(
    targets: Array, weights: Array | None, class_weight: ClassWeight, loss: Loss, output: Array
) -> Array:
    """Return the weights of the rows of one loss times those of their labels.

    Raises
    ------
    TypeError, ValueError
        As ``class_weights`` does; if the loss takes no weights, and if all are zero.
    """
    check_takes_weights(loss)
    labels = labels_of(targets, loss)
    weights = np.ones(len(targets)) if weights is None else weights
    weights = weights.reshape(weights.shape + (1,) * (labels.ndim - weights.ndim))
    if loss.ignore_index is not None:
        ignored = labels == loss.ignore_index
        weights, labels = np.where(ignored, 0, weights), np.where(ignored, 0, labels)
    classes = output.shape[-1] if loss.takes_labels else 2
    weights = weights * class_weights(class_weight, labels, classes, weights)
    if not weights.any():
        raise ValueError("class_weight: all weights are zero")
    return weights.astype(output.dtype)


def takes_weights(loss: Loss) -> bool:
    """Return whether the loss has an argument for weights."""
    return len(inspect.signature(loss.forward).parameters) > 2


def check_takes_weights(loss: Loss, why: str = "") -> None:
    """Raise TypeError if the loss has no argument for weights."""
    if not takes_weights(loss):
        raise TypeError(f"{loss!r} takes no weights: its forward is (prediction, target){why}")


def _checked(name: str, weight: Any, like: Array, per_step: tuple[int, ...] | None) -> Array:
    """Check weights, and spread those of rows over their steps if every step has a target."""
    array = as_array(name, weight)
    check_kind(name, array, like.dtype)
    weights = as_contiguous(array, like.dtype)
    if per_step is not None and weights.shape == per_step:
        like = np.broadcast_to(like[:, None] if like.ndim == 1 else like, per_step)
    if weights.shape not in (like.shape, like.shape[:1]):
        raise ValueError(f"{name}: expected shape {like.shape}, got {weights.shape}")
    check_finite(name, weights)
    if (weights < 0).any():
        place = first_where(weights < 0)
        raise ValueError(f"{name}: {place_of(place)} holds {weights[place]}; weights must be >= 0")
    spread = weights.reshape(*weights.shape, *[1] * (like.ndim - weights.ndim))
    return np.ascontiguousarray(np.broadcast_to(spread, like.shape))


def labels_of(targets: Array, loss: Loss) -> Array:
    """Return the labels that class weights refer to: targets, or 0 and 1 of one logit.

    Raises
    ------
    ValueError
        If the loss takes no labels, or has several logits a row, or targets between 0 and 1.
    """
    if loss.takes_labels:
        return targets
    if not isinstance(loss, BCEWithLogitsLoss):
        raise ValueError(f"class_weight needs a loss of labels, not {loss!r}; use sample_weight")
    if targets.ndim > 1 and targets.shape[-1] != 1:
        raise ValueError(
            f"class_weight: with {targets.shape[-1]} logits a row there is no one label; write "
            f"BCEWithLogitsLoss(pos_weight=[...]), a weight of the ones for every logit"
        )
    labels = targets[..., 0] if targets.ndim > 1 else targets
    between = (labels != 0) & (labels != 1)
    if between.any():
        place = first_where(between)
        raise ValueError(
            f"class_weight needs targets of 0 or 1, row {place[0]} holds {labels[place]}"
        )
    return labels.astype(np.int64)


def class_weights(
    weight: ClassWeight, labels: Array, classes: int, weights: Array | None = None
) -> Array:
    """Return for each row the weight of its label.

    ``"balanced"`` is Σ w / (classes · Σ w of the rows with this label), where w are the weights
    that the rows have without it: every class that occurs has the same total weight, and rows of
    weight zero, such as padding, do not count. In a mapping, labels that are missing have weight
    1; labels without a row are allowed.

    Raises
    ------
    TypeError
        For anything but a mapping or ``"balanced"``, labels that are no integers, and weights that
        are no numbers.
    ValueError
        For labels outside the classes, and weights below zero or not finite.
    """
    if isinstance(weight, str):
        if weight != "balanced":
            raise ValueError(f'class_weight must be a mapping or "balanced", got {weight!r}')
        rows = np.ones(labels.shape) if weights is None else np.broadcast_to(weights, labels.shape)
        totals = np.bincount(labels.reshape(-1), rows.reshape(-1), classes)
        present = np.count_nonzero(totals)
        of_class = totals.sum() / (present * np.where(totals == 0, 1, totals))
    elif isinstance(weight, Mapping):
        of_class = np.ones(classes)
        for label, value in weight.items():
            if not isinstance(label, (int, float, np.number)) or label != int(label):
                raise TypeError(f"class_weight: labels are integers, got {label!r}")
            if not 0 <= label < classes:
                raise ValueError(
                    f"class_weight: label {label} is outside the {classes} classes 0 to "
                    f"{classes - 1}"
                )
            name = f"the weight of label {label}"
            of_class[int(label)] = check_number("class_weight", name, value, 0, math.inf)
    else:
        raise TypeError(f'class_weight must be a mapping or "balanced", got {weight!r}')
    return of_class[labels]
