"""Data into the dtype of the model, and all checks before training begins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl._kernels.reference import Array
from minidl.nn import BCEWithLogitsLoss, Layer, Loss
from minidl.nn.label_losses import in_steps
from minidl.optim import EMA, Optimizer
from minidl.training.safety import Snapshot


@dataclass(frozen=True)
class Data:
    """What a model is trained or judged on: features, targets, and maybe weights of the rows."""

    features: Array
    targets: Array
    weights: Array | None = None

    @property
    def arrays(self) -> tuple[Array, ...]:
        """What a step takes, for all rows."""
        given = self.features, self.targets
        return given if self.weights is None else (*given, self.weights)

    def take(self, rows: Array) -> tuple[Array, ...]:
        """What a step takes, for these rows."""
        return tuple(array.take(rows, axis=0) for array in self.arrays)

    def batches(self, batch_size: int) -> Iterator[tuple[Array, ...]]:
        """What a step takes, for all rows in order; views."""
        for begin in range(0, len(self), batch_size):
            yield tuple(array[begin : begin + batch_size] for array in self.arrays)

    def counting(self, what: str, loss: Loss) -> Data:
        """Without the rows that count nothing: a batch of nothing else would have no mean.

        Raises
        ------
        ValueError
            If no row counts.
        """
        weights = loss.row_weights(self.targets, self.weights)
        if weights is None or weights.all():
            return self
        counts = weights.reshape(len(self), -1).any(axis=1)
        if not counts.any():
            raise ValueError(f"{what}y: in {loss!r} no row counts, all weights are zero")
        return self if counts.all() else Data(*self.take(np.flatnonzero(counts)))

    def __len__(self) -> int:
        return len(self.features)


def as_real(name: str, data: Any, dtype: np.dtype[Any]) -> Array:
    """``data`` as a contiguous array of ``dtype``; the very array, if it is one already.

    Raises
    ------
    TypeError
        For what is not real numbers: strings, objects, complex numbers.
    ValueError
        For masked rows.
    """
    array = as_array(name, data)
    if array.dtype.kind not in "buif":
        raise TypeError(f"{name}: expected real numbers, got dtype {array.dtype}")
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes inf, and is found as such
        return np.ascontiguousarray(array, dtype=dtype)


def as_features(name: str, data: Any, model: Layer, dtype: np.dtype[Any]) -> Array:
    """Features as ``model`` wants them: integers for an ``Embedding``, else real numbers."""
    if not model.takes_indices:
        return as_real(name, data, dtype)
    indices = as_array(name, data)
    if indices.dtype.kind not in "ui":
        raise TypeError(
            f"{name}: the model takes integers, got dtype {indices.dtype}; write X.astype(np.int64)"
        )
    return np.ascontiguousarray(indices, np.int64)


def as_array(name: str, data: Any) -> Array:
    """``data`` as an array, unless NumPy would take values that are masked for real ones."""
    if np.ma.is_masked(data):
        row = int(np.argwhere(np.atleast_1d(np.ma.getmaskarray(data)))[0, 0])
        raise ValueError(
            f"{name}: row {row} is masked; leave such rows out, or fill them with .filled(value)"
        )
    return np.asarray(data)


def check_finite(name: str, array: Array) -> None:
    """Raise ValueError with the first row that holds NaN or inf."""
    if np.isfinite(array).all():
        return
    where = np.argwhere(~np.isfinite(array))[0].tolist()
    place = f" at {tuple(where[1:])}" if len(where) > 1 else ""
    raise ValueError(
        f"{name}: row {where[0]} holds {array[tuple(where)]}{place}; training needs finite "
        f"numbers within the range of {array.dtype}"
    )


def as_targets(name: str, y: Any, loss: Loss, dtype: np.dtype[Any]) -> Array:
    """Targets as ``loss`` wants them: integer labels for cross entropy, else real numbers."""
    if loss.takes_labels:
        return as_labels(name, as_array(name, y))
    targets = as_real(name, y, dtype)
    check_finite(name, targets)
    if isinstance(loss, BCEWithLogitsLoss) and ((targets < 0) | (targets > 1)).any():
        where = tuple(np.argwhere((targets < 0) | (targets > 1))[0].tolist())
        raise ValueError(f"{name}: row {where[0]} holds {targets[where]}, outside [0, 1]")
    return targets


def as_labels(name: str, labels: Array) -> Array:
    """``labels``, if they are integers: a vector, or a row for every sequence.

    Raises
    ------
    ValueError
        For floats, naming the first row that is no whole number, or the first row if all are.
    """
    if labels.ndim == 0:
        raise ValueError(f"{name}: expected labels of shape (samples,), got {labels.shape}")
    if labels.dtype.kind == "f":
        place = int(np.argmax(labels != np.floor(labels)))
        message = (
            f"{name}: labels must be integers, row {place} holds {labels.flat[place]} "
            f"({labels.dtype}); write labels.astype(int) if they are whole numbers"
        )
        if (
            labels.ndim > 1
            and set(np.unique(labels)) == {0, 1}
            and (labels.sum(axis=-1) == 1).all()
        ):
            message = f"{name}: labels must be integers; one-hot? write y.argmax(axis=-1)"
        raise ValueError(in_steps(message, labels.shape))
    if labels.dtype.kind not in "bui":
        raise TypeError(f"{name}: labels must be integers, got dtype {labels.dtype}")
    return labels


def check_labels(name: str, labels: Array, classes: int) -> Array:
    """The labels as int64, or a ValueError with the first row whose label is no class."""
    bad = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(bad):
        message = (
            f"{name}: label {labels.flat[bad[0]]} in row {bad[0]} is outside the {classes} classes "
            f"0 to {classes - 1}"
        )
        raise ValueError(in_steps(message, labels.shape))
    return labels.astype(np.int64)  # only now: a uint64 label could have become another one


def as_validation(validation: Any) -> tuple[Any, Any, Any]:
    """Features, targets and weights or None, if ``validation`` is two or three of them."""
    if isinstance(validation, (tuple, list)) and len(validation) in (2, 3):
        X, y, *weight = validation
        return X, y, weight[0] if weight else None
    got = type(validation).__name__
    if isinstance(validation, (tuple, list)):
        got += f" of {len(validation)}"
    raise ValueError(
        f"validation must be a pair (X, y) of held-out data, or (X, y, weight), got {got}"
    )


def check_parts(model: Any, loss: Any, optimizer: Any, ema: Any) -> None:
    """Raise unless each is an instance of what a Trainer needs, in its place, of this model."""
    wanted = [
        ("model", model, Layer, "a layer such as nn.Sequential(...)"),
        ("loss", loss, Loss, "a loss such as nn.MSELoss()"),
        ("optimizer", optimizer, Optimizer, "an optimizer such as optim.SGD(model.parameters())"),
    ]
    for name, part, kind, example in wanted:
        if isinstance(part, kind):
            continue
        got = repr(part) if isinstance(part, str) else f"an instance of {type(part).__name__}"
        if isinstance(part, type):
            got = f"the class {part.__name__} itself"
        raise TypeError(f"Trainer(model, loss, optimizer): {name} must be {example}, got {got}")
    for _, layer in model.layers():
        if getattr(layer, "stateful", None) is not None:
            raise ValueError(
                f"Trainer: it shuffles the rows, and the state of {layer.label} goes on from batch "
                "to batch; use minidl.record and step.epoch(..., shuffle=False)"
            )
    if ema is not None and not isinstance(ema, EMA):
        raise TypeError(f"Trainer: ema must be an optim.EMA, got {ema!r}")
    known = {id(parameter) for parameter in model.parameters()}
    averaged = [] if ema is None else ema.parameters
    for name, parameters in ("optimizer", optimizer.flat.parameters), ("ema", averaged):
        if any(id(parameter) not in known for parameter in parameters):
            raise ValueError(
                f"Trainer: the {name} holds parameters that are not the model's; "
                "build it from model.parameters()"
            )


def first_output(name: str, features: Array, model: Layer) -> Array:
    """The output for the first row: ValueError, with the shape of all, if the model takes none."""
    try:
        return model(features[:1])
    except ValueError as error:
        raise ValueError(
            f"{name} of shape {features.shape} does not suit the model; with its first row, {error}"
        ) from error


def check_agreement(
    what: str, loss: Loss, features: Array, targets: Array, predictions: Array
) -> None:
    """Raise ValueError if the loss cannot compare targets with predictions of these shapes."""
    try:
        loss.check_input(predictions, targets)
    except ValueError as error:
        advice = ""
        if loss.takes_labels and targets.shape == predictions.shape:
            advice = "; one-hot? write y.argmax(axis=-1)"
        elif loss.takes_labels and targets.shape == (*predictions.shape[:-1], 1):
            advice = "; write y[..., 0]"
        elif (*targets.shape, 1) == predictions.shape:
            advice = "; write y[:, None]"
        raise ValueError(
            f"{what}y of shape {targets.shape} does not suit {what}X of shape {features.shape}: "
            f"{error}{advice}"
        ) from None


def check_batch_size(model: Layer, features: Array, batch_size: int) -> None:
    """Raise ValueError if a batch would have one row and a layer needs more: by trying."""
    samples = len(features)
    if (samples - 1) % batch_size:
        return  # every step has more than one row
    why = f"{samples:,} rows in batches of {batch_size} leave one for the last; choose another"
    if samples == 1:
        why = "X has no more, for any"
    elif batch_size == 1:
        why = "with batch size 1 every batch has one; choose a larger"
    snapshot = Snapshot(model.state().values())
    try:
        with snapshot, np.errstate(all="ignore"):
            model(features[:1])
            snapshot.restore()
    except ValueError as error:
        raise ValueError(f"training on one row fails ({error}), and {why} batch_size") from None
