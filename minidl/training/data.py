"""A data set as it was given, and as a model and a loss take it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl._kernels.twins.errors import RowError
from minidl.nn import BCEWithLogitsLoss, Layer, Loss
from minidl.nn.data_checks import as_array, check_kind, check_same_rows
from minidl.nn.frames import in_code
from minidl.training.inputs import (
    ALL,
    Inputs,
    Rows,
    as_contiguous,
    as_inputs,
    check_finite,
    check_no_tuple_of_rows,
    check_range,
    first_where,
    is_ragged,
    padded,
    place_of,
    without_padding,
)
from minidl.typing import Array

Batch = tuple[tuple[Array, ...], tuple[Array, ...]]  # inputs; targets, and maybe weights


@dataclass(frozen=True)
class Data:
    """Rows to train or to evaluate on: inputs, targets, and maybe weights."""

    inputs: tuple[Array, ...]
    targets: Array
    weights: Array | None = None

    @property
    def targets_and_weights(self) -> tuple[Array, ...]:
        """The arrays that the loss takes beside predictions, for all rows."""
        return (self.targets,) if self.weights is None else (self.targets, self.weights)

    @property
    def arrays(self) -> tuple[Array, ...]:
        """The arrays that a step takes, for all rows."""
        return *self.inputs, *self.targets_and_weights

    def take(self, rows: Array) -> Data:
        """Copies of these rows."""
        arrays = tuple(array.take(rows, axis=0) for array in self.arrays)
        count = len(self.inputs)
        return Data(arrays[:count], *arrays[count:])

    def targets_and_weights_of(self, rows: Array) -> tuple[Array, ...]:
        """Copies of what the loss takes beside predictions, for these rows."""
        return tuple(array.take(rows, axis=0) for array in self.targets_and_weights)

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Views of all rows in order, so many at a time."""
        count = len(self.inputs)
        for begin in range(0, len(self), batch_size):
            arrays = tuple(array[begin : begin + batch_size] for array in self.arrays)
            yield arrays[:count], arrays[count:]

    def counting(self, what: str, loss: Loss) -> Data:
        """Leave out the rows of weight zero: a batch of these alone would have no mean.

        Raises
        ------
        ValueError
            If no row counts.
        """
        rows = rows_that_count(what, loss, self.targets, self.weights)
        return self if isinstance(rows, slice) else self.take(rows)

    def __len__(self) -> int:
        return len(self.targets)


def rows_that_count(what: str, loss: Loss, targets: Array, weights: Array | None) -> Rows:
    """Return the rows whose weight in the loss is not zero.

    Raises
    ------
    ValueError
        If there is none.
    """
    loss_weights = loss.row_weights(targets, weights)
    if loss_weights is None or loss_weights.all():
        return ALL
    counting = np.flatnonzero(loss_weights.reshape(len(targets), -1).any(axis=1))
    if not len(counting):
        raise ValueError(f"{what}y: in {loss!r} no row counts, all weights are zero")
    return ALL if len(counting) == len(targets) else counting


class Source:
    """The rows of a data set as they were given; casts and checks those that are asked for.

    Parameters
    ----------
    what
        In front of "X" and "y" in messages: ``"validation "``, or nothing.
    X, y
        As they were given.
    model, loss, dtype
        What they are for.

    Raises
    ------
    TypeError, ValueError
        For data that can be refused without looking at every number.
    """

    def __init__(
        self, what: str, X: Any, y: Any, model: Layer, loss: Loss, dtype: np.dtype[Any]
    ) -> None:
        self.what, self.model, self.loss, self.dtype = what, model, loss, dtype
        self.per_step = False  # whether every step of a sequence has a target
        self.in_code = in_code("y", y)
        check_no_tuple_of_rows(f"{what}X", X, y)
        self.inputs = as_inputs(f"{what}X", X, model, dtype)
        self.targets = as_array(f"{what}y", padded_targets(f"{what}y", y, self.inputs))
        check_same_rows([(f"{what}X", self.inputs.arrays[0]), (f"{what}y", self.targets)])
        if loss.takes_labels:
            check_integers(f"{what}y", self.targets, self.in_code)
        else:
            check_kind(f"{what}y", self.targets, dtype)

    def __len__(self) -> int:
        return len(self.targets)

    def steps(self, rows: Rows = ALL) -> Array | None:
        """Which steps are no padding; None unless every step has a target."""
        return self.inputs.steps(rows) if self.per_step else None

    def first_output(self) -> Array:
        """Compute the output for the first row, and check that model, loss and data agree.

        Raises
        ------
        ValueError
            If the model does not take rows, or the loss targets, of these shapes.
        """
        given = self.inputs
        first = given.cast(slice(0, 1))  # not inside `try`: its errors are about numbers
        try:
            output = self.model(*first)
        except ValueError as error:
            shapes = " and ".join(
                f"{name} of shape {array.shape}"
                for name, array in zip(given.names, given.arrays, strict=True)
            )
            raise ValueError(
                f"{shapes} does not suit the model; with its first row, {error}"
            ) from error
        steps = given.arrays[0].shape[1:2]
        self.per_step = output.ndim > 2 and output.shape[1:2] == self.targets.shape[1:2] == steps
        dummy = np.zeros((), np.int64 if self.loss.takes_labels else self.dtype)
        targets = np.broadcast_to(dummy, self.targets.shape)
        check_agreement(
            self.what, self.loss, given.arrays[0], targets, self.repeated(output), self.in_code
        )
        return output

    def repeated(self, output: Array) -> Array:
        """Repeat the output for one row, without copies, as if it were that of every row."""
        return np.broadcast_to(output[:1], (len(self), *output.shape[1:]))

    def cast_targets(self, classes: int, rows: Rows = ALL) -> Array:
        """Check targets, and cast them to what the loss takes: labels, or real numbers.

        Raises
        ------
        ValueError
            For the first row that holds no target, such as a label beyond the classes.
        """
        name, targets, steps = f"{self.what}y", self.targets[rows], self.steps(rows)
        if steps is not None:
            targets = without_padding(targets, steps)
        if self.loss.takes_labels:
            return check_labels(name, targets, classes, rows, self.loss.ignore_index)
        targets = as_contiguous(targets, self.dtype)
        check_finite(name, targets, rows)
        if isinstance(self.loss, BCEWithLogitsLoss):
            outside = (targets < 0) | (targets > 1)
            if outside.any():
                place = first_where(outside)
                row = place_of(place[:1], rows)
                raise ValueError(f"{name}: {row} holds {targets[place]}, outside [0, 1]")
        return targets


def padded_targets(name: str, y: Any, inputs: Inputs) -> Any:
    """Pad targets of every step, given as a list of sequences, as the inputs are padded."""
    if not is_ragged(y):
        return y
    if inputs.lengths is None:
        raise ValueError(f"{name}: its rows differ in length, and those of X do not")
    targets, lengths = padded(name, y)
    if len(lengths) == len(inputs) and (lengths != inputs.lengths).any():
        row = int(np.flatnonzero(lengths != inputs.lengths)[0])
        raise ValueError(
            f"{name}: row {row} has {lengths[row]} steps, in X it has {inputs.lengths[row]}"
        )
    missing = inputs.arrays[0].shape[1] - targets.shape[1]
    return np.pad(targets, [(0, 0), (0, missing)] + [(0, 0)] * (targets.ndim - 2))


def check_integers(name: str, labels: Array, y: str = "y") -> None:
    """Raise unless labels are integers: a vector, or a row for every sequence.

    ``y`` is what the user writes for them.

    Raises
    ------
    TypeError
        For anything but numbers.
    ValueError
        For floats, naming the first row that is no whole number, or the first row if all are.
    """
    if labels.ndim == 0:
        raise ValueError(f"{name}: expected labels of shape (samples,), got {labels.shape}")
    if labels.dtype.kind == "f":
        binary = labels.ndim > 1 and set(np.unique(labels)) == {0, 1}
        if binary and (labels.sum(axis=-1) == 1).all():
            raise ValueError(f"{name}: labels must be integers; one-hot? write {y}.argmax(axis=-1)")
        place = first_where(labels != np.floor(labels))
        raise ValueError(
            f"{name}: labels must be integers, {place_of(place)} holds {labels[place]} "
            f"({labels.dtype}); write {y}.astype(int) if they are whole numbers"
        )
    if labels.dtype.kind not in "bui":
        raise TypeError(
            f"{name}: labels must be integers, got dtype {labels.dtype}; write "
            "classes, y = np.unique(y, return_inverse=True) to number them"
        )


def check_labels(
    name: str, labels: Array, classes: int, rows: Rows = ALL, ignored: int | None = None
) -> Array:
    """Return the labels as int64; raise ValueError with the first row whose label is no class."""
    checked = labels if ignored is None else np.where(labels == ignored, 0, labels)
    try:
        check_range("label", name, checked, classes, rows)
    except RowError as error:
        if classes > 1:
            raise
        raise ValueError(
            f"{error}; the model has one output: give it two, or write BCEWithLogitsLoss() for one "
            "logit"
        ) from None
    return np.ascontiguousarray(labels, np.int64)  # not before: a uint64 could become another one


def check_agreement(
    what: str, loss: Loss, features: Array, targets: Array, predictions: Array, y: str = "y"
) -> None:
    """Raise ValueError if the loss cannot compare targets with predictions of these shapes.

    ``y`` is what the user writes for the targets.
    """
    try:
        loss.check_input(predictions, targets)
    except ValueError as error:
        advice = ""
        if loss.takes_labels and targets.shape == predictions.shape:
            advice = f"; one-hot? write {y}.argmax(axis=-1)"
        elif loss.takes_labels and targets.shape == (*predictions.shape[:-1], 1):
            advice = f"; write {y}[..., 0]"
        elif (*targets.shape, 1) == predictions.shape:
            advice = f"; write {y}[:, None]"
        raise ValueError(
            f"{what}y of shape {targets.shape} does not suit {what}X of shape {features.shape}: "
            f"{error}{advice}"
        ) from None
