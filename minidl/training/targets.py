"""The targets of a loss: as they were given, and as the loss takes them."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl._kernels.twins.errors import RowError
from minidl.nn import BCEWithLogitsLoss, Loss
from minidl.nn.data_checks import as_array, check_kind, check_same_rows
from minidl.nn.frames import in_code
from minidl.training.inputs import (
    ALL,
    Inputs,
    Rows,
    as_contiguous,
    check_finite,
    check_range,
    first_where,
    is_ragged,
    padded,
    place_of,
    without_padding,
)
from minidl.typing import Array


class Targets:
    """The targets of one loss, for all rows; casts and checks those that are asked for.

    Parameters
    ----------
    what, y
        Messages call them both together: ``"validation "`` or nothing, and ``"y"`` or the part of
        it that belongs to one of several heads.
    given
        The targets, as they were given.
    inputs
        The inputs of the model for these rows.
    loss, dtype
        What they are for.

    Raises
    ------
    TypeError, ValueError
        For targets that can be refused without looking at every number.
    """

    def __init__(
        self, what: str, y: str, given: Any, inputs: Inputs, loss: Loss, dtype: np.dtype[Any]
    ) -> None:
        self.what, self.name, self.inputs = what, f"{what}{y}", inputs
        self.loss, self.dtype = loss, dtype
        self.per_step = False  # whether every step of a sequence has a target
        self.in_code = in_code(y, given)
        self.array = as_array(self.name, padded_targets(self.name, given, inputs))
        check_same_rows([(inputs.names[0], inputs.arrays[0]), (self.name, self.array)])
        if loss.takes_labels:
            check_integers(self.name, self.array, self.in_code)
        else:
            check_kind(self.name, self.array, dtype)

    def __len__(self) -> int:
        return len(self.array)

    def steps(self, rows: Rows = ALL) -> Array | None:
        """Which steps are no padding; None unless every step has a target."""
        return self.inputs.steps(rows) if self.per_step else None

    def check_output(self, output: Array) -> None:
        """Raise ValueError if the loss cannot compare targets with an output like this one."""
        steps = self.inputs.arrays[self.inputs.sequences].shape[1:2]
        self.per_step = output.ndim > 2 and output.shape[1:2] == self.array.shape[1:2] == steps
        dummy = np.zeros((), np.int64 if self.loss.takes_labels else self.dtype)
        targets = np.broadcast_to(dummy, self.array.shape)
        features = self.inputs.names[0], self.inputs.arrays[0].shape
        check_agreement(
            self.name, self.loss, features, targets, self.repeated(output), self.in_code
        )

    def repeated(self, output: Array) -> Array:
        """Repeat the output for one row, without copies, as if it were that of every row."""
        return np.broadcast_to(output[:1], (len(self), *output.shape[1:]))

    def cast(self, classes: int, rows: Rows = ALL) -> Array:
        """Check targets, and cast them to what the loss takes: labels, or real numbers.

        Raises
        ------
        ValueError
            For the first row that holds no target, such as a label beyond the classes.
        """
        targets, steps = self.array[rows], self.steps(rows)
        if steps is not None:
            targets = without_padding(targets, steps)
        if self.loss.takes_labels:
            return check_labels(self.name, targets, classes, rows, self.loss.ignore_index)
        targets = as_contiguous(targets, self.dtype)
        check_finite(self.name, targets, rows)
        if isinstance(self.loss, BCEWithLogitsLoss):
            outside = (targets < 0) | (targets > 1)
            if outside.any():
                place = first_where(outside)
                row = place_of(place[:1], rows)
                raise ValueError(f"{self.name}: {row} holds {targets[place]}, outside [0, 1]")
        return targets


def padded_targets(name: str, y: Any, inputs: Inputs) -> Any:
    """Pad targets of every step, given as a list of sequences, as the inputs are padded."""
    if not is_ragged(y):
        return y
    known = inputs.lengths[inputs.sequences]
    if known is None:
        raise ValueError(f"{name}: its rows differ in length, and those of X do not")
    targets, lengths = padded(name, y)
    if len(lengths) == len(inputs) and (lengths != known).any():
        row = int(np.flatnonzero(lengths != known)[0])
        raise ValueError(f"{name}: row {row} has {lengths[row]} steps, in X it has {known[row]}")
    missing = inputs.arrays[inputs.sequences].shape[1] - targets.shape[1]
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
        y = y.removeprefix("np.asarray(").removesuffix(")")
        raise TypeError(
            f"{name}: labels must be integers, got dtype {labels.dtype}; write "
            f"classes, {y} = np.unique({y}, return_inverse=True) to number them"
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
    name: str,
    loss: Loss,
    features: tuple[str, tuple[int, ...]],
    targets: Array,
    predictions: Array,
    y: str = "y",
) -> None:
    """Raise ValueError if the loss cannot compare targets with predictions of these shapes.

    ``name`` is that of the targets, ``features`` name and shape of the first input, ``y`` what the
    user writes for the targets.
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
            f"{name} of shape {targets.shape} does not suit {features[0]} of shape "
            f"{features[1]}: {error}{advice}"
        ) from None
