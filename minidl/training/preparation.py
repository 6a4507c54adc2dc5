"""The rows that ``fit`` and ``evaluate`` use: cast, checked, weighted, and tried out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from minidl.diagnosis.rules.static import Setting, to_warn_of
from minidl.nn import MultiLoss, Parameter
from minidl.nn.hooks import evaluating
from minidl.nn.suspicion import left_out, warn_of_suspicious, warn_once
from minidl.recording.pytree import tree_leaves
from minidl.training.checks import as_validation, split
from minidl.training.data import Batch, Data, Source, part_of, rows_that_count
from minidl.training.inputs import Rows
from minidl.training.metrics import Start, check_metrics, metrics_of_heads, try_out
from minidl.training.targets import Targets
from minidl.training.weights import ClassWeight, class_weighted, row_weights
from minidl.typing import Array


def for_training(
    source: Source,
    weight: Any,
    class_weight: ClassWeight | None,
    validation: Any,
    metrics: dict[str, Start],
    trained: Iterable[Parameter],
    diagnose: bool = True,
) -> tuple[Data, Data | None]:
    """Return what to train on, and what to validate on: given, or some of the rows.

    With ``diagnose``, warns of what cannot be meant; ``trained`` are the optimizer's parameters.
    """
    data, output = _cast(source, weight)
    if diagnose:
        model, loss = source.model, source.loss
        if isinstance(loss, MultiLoss):  # what is known of one output says little of several
            warn_once(model, left_out(model, trained), 4)
        else:
            warn_of_suspicious(model, loss, output, trained)
            inputs = tuple(tree_leaves(data.inputs))
            warn_once(model, to_warn_of(Setting(model, loss, inputs, data.targets, output)), 4)
    others = None
    if isinstance(validation, (float, np.floating)):
        rows, validation_rows = split(len(data), float(validation))
        data, others = data.take(rows), data.take(validation_rows)
    if class_weight is not None:
        data = replace(data, weights=class_weighted(data, class_weight, source.loss, output))
    data = _tried("", source, data, output, metrics)
    if validation is not None and others is None:
        X, y, weight = as_validation(validation)
        known = source.inputs.columns
        source = Source("validation ", X, y, source.model, source.loss, source.dtype)
        source.inputs.check_columns(known)
        others, output = _cast(source, weight)
    return data, others and _tried("validation ", source, others, output, metrics)


def for_evaluation(
    source: Source, weight: Any, metrics: dict[str, Start], batch_size: int
) -> Iterator[Batch]:
    """Yield batches, each cast and checked when it is needed.

    The memory is that of one batch, and of all labels and weights.
    """
    output = source.first_output()
    source.of_heads(_check_metrics, metrics_of_heads(metrics, source.loss), output)
    whole = source.whole_targets(output)
    weights = row_weights(source, weight, whole)
    counting = rows_that_count("", source.loss, whole, weights)
    count = len(source) if isinstance(counting, slice) else len(counting)
    for begin in range(0, count, batch_size):
        rows: Rows = slice(begin, min(begin + batch_size, count))
        rows = rows if isinstance(counting, slice) else counting[rows]
        some = () if weights is None else (part_of(weights, rows),)
        yield source.inputs.cast(rows), (source.cast_targets(output, rows), *some)


def _cast(source: Source, weight: Any) -> tuple[Data, Any]:
    """All rows as steps take them, all checked; and the output for the first."""
    with evaluating(), np.errstate(all="ignore"):
        output = source.first_output()
        inputs, targets = source.inputs.cast(), source.cast_targets(output)
    return Data(inputs, targets, row_weights(source, weight, targets)), output


def _tried(what: str, source: Source, data: Data, output: Any, metrics: dict[str, Start]) -> Data:
    """Return the data without rows of weight 0, after trying loss and metrics on as many rows."""
    loss = source.loss
    data = data.counting(what, loss)
    with np.errstate(all="ignore"), evaluating():
        nothing = (None,) * len(source.heads) if isinstance(loss, MultiLoss) else None
        weights = nothing if data.weights is None else data.weights
        row = source.of_heads(_row_that_counts, data.targets, weights)
        loss(output, *(tuple(zip(*row, strict=True)) if isinstance(loss, MultiLoss) else row))
        loss_weights = loss.row_weights(*data.targets_and_weights)
        given = data.targets, weights, nothing if loss_weights is None else loss_weights
        source.of_heads(_try_out, metrics_of_heads(metrics, loss), output, *given)
    return data


def _row_that_counts(head: Targets, target: Array, weight: Array | None) -> tuple[Any, Any]:
    """Return the target of the first row whose weight in the loss is not zero, and its weight."""
    row = _first_that_counts(head.loss.row_weights(target, weight))
    return target[row : row + 1], None if weight is None else weight[row : row + 1]


def _first_that_counts(weight: Array | None) -> int:
    """Return the number of the first row whose weight is not zero; None: all count."""
    return 0 if weight is None else int(weight.reshape(len(weight), -1).any(axis=1).argmax())


def _check_metrics(head: Targets, metrics: dict[str, Start], output: Array) -> None:
    check_metrics(metrics, head.repeated(output), head.array)


def _try_out(
    head: Targets, metrics: dict[str, Start], output: Array, target: Array, *weights: Array | None
) -> None:
    first = _first_that_counts(weights[-1])  # of a head: others may count before
    given = [None if own is None else own[first:] for own in weights]
    predictions = np.broadcast_to(output[:1], (len(target) - first, *output.shape[1:]))
    try_out(metrics, predictions, target[first:], *given)
