"""The rows that ``fit`` and ``evaluate`` use: cast, checked, weighted, and tried out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from minidl.diagnosis.rules.static import Setting, to_warn_of
from minidl.nn import Parameter
from minidl.nn.hooks import evaluating
from minidl.nn.suspicion import warn_of_suspicious, warn_once
from minidl.training.checks import as_validation, split
from minidl.training.data import Batch, Data, Source, rows_that_count
from minidl.training.inputs import Rows
from minidl.training.metrics import Start, check_metrics, try_out
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
        warn_of_suspicious(model, loss, output, trained)
        warn_once(model, to_warn_of(Setting(model, loss, data.inputs, data.targets, output)), 4)
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
    loss = source.loss
    output = source.first_output()
    classes = output.shape[-1]
    check_metrics(metrics, source.repeated(output), source.targets)
    targets = source.cast_targets(classes) if loss.takes_labels else source.targets
    weights = row_weights(source, weight, targets)
    counting = rows_that_count("", loss, targets, weights)
    count = len(source) if isinstance(counting, slice) else len(counting)
    for begin in range(0, count, batch_size):
        rows: Rows = slice(begin, min(begin + batch_size, count))
        rows = rows if isinstance(counting, slice) else counting[rows]
        some = () if weights is None else (weights[rows],)
        yield source.inputs.cast(rows), (source.cast_targets(classes, rows), *some)


def _cast(source: Source, weight: Any) -> tuple[Data, Array]:
    """All rows as steps take them, all checked; and the output for the first."""
    with evaluating(), np.errstate(all="ignore"):
        output = source.first_output()
        inputs, targets = source.inputs.cast(), source.cast_targets(output.shape[-1])
    return Data(inputs, targets, row_weights(source, weight, targets)), output


def _tried(what: str, source: Source, data: Data, output: Array, metrics: dict[str, Start]) -> Data:
    """Return the data without rows of weight 0, after trying loss and metrics on as many rows."""
    loss = source.loss
    data = data.counting(what, loss)
    with np.errstate(all="ignore"), evaluating():
        loss(output, *(array[:1] for array in data.targets_and_weights))
        loss_weight = loss.row_weights(*data.targets_and_weights)
        predictions = np.broadcast_to(output[:1], (len(data), *output.shape[1:]))
        try_out(metrics, predictions, data.targets, data.weights, loss_weight)
    return data
