"""Data into the dtype of the model, and all checks before training begins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl.nn import BCEWithLogitsLoss, Layer, Loss
from minidl.optim import EMA, Optimizer
from minidl.training.inputs import (
    ALL,
    Inputs,
    Rows,
    as_array,
    as_contiguous,
    as_inputs,
    check_finite,
    check_kind,
    check_same_rows,
    is_ragged,
    padded,
    row_number,
    without_padding,
)
from minidl.training.interrupt import Snapshot
from minidl.typing import Array

Batch = tuple[tuple[Array, ...], tuple[Array, ...]]  # inputs; targets, and maybe weights


@dataclass(frozen=True)
class Data:
    """What a model is trained or judged on: inputs, targets, and maybe weights of the rows."""

    inputs: tuple[Array, ...]
    targets: Array
    weights: Array | None = None

    @property
    def targets_and_weights(self) -> tuple[Array, ...]:
        """What the loss takes beside predictions, for all rows."""
        return (self.targets,) if self.weights is None else (self.targets, self.weights)

    @property
    def arrays(self) -> tuple[Array, ...]:
        """What a step takes, for all rows."""
        return *self.inputs, *self.targets_and_weights

    def take(self, rows: Array) -> Data:
        """Copies of these rows."""
        arrays = tuple(array.take(rows, axis=0) for array in self.arrays)
        count = len(self.inputs)
        return Data(arrays[:count], *arrays[count:])

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """What is evaluated, for all rows in order; views."""
        count = len(self.inputs)
        for begin in range(0, len(self), batch_size):
            arrays = tuple(array[begin : begin + batch_size] for array in self.arrays)
            yield arrays[:count], arrays[count:]

    def counting(self, what: str, loss: Loss) -> Data:
        """Without the rows that count nothing: a batch of nothing else would have no mean.

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
    """The rows whose weight in the loss is not zero.

    Raises
    ------
    ValueError
        If there is none.
    """
    of_rows = loss.row_weights(targets, weights)
    if of_rows is None or of_rows.all():
        return ALL
    counting = np.flatnonzero(of_rows.reshape(len(targets), -1).any(axis=1))
    if not len(counting):
        raise ValueError(f"{what}y: in {loss!r} no row counts, all weights are zero")
    return ALL if len(counting) == len(targets) else counting


class Source:
    """The rows of a data set as they were given, to be cast and checked where they are wanted.

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
        For what can be refused without a look at every number.
    """

    def __init__(
        self, what: str, X: Any, y: Any, model: Layer, loss: Loss, dtype: np.dtype[Any]
    ) -> None:
        self.what, self.model, self.loss, self.dtype = what, model, loss, dtype
        self.per_step = False  # whether every step of a sequence has a target
        self.inputs = as_inputs(f"{what}X", X, model, dtype)
        self.targets = as_array(f"{what}y", padded_targets(f"{what}y", y, self.inputs))
        check_same_rows([(f"{what}X", self.inputs.arrays[0]), (f"{what}y", self.targets)])
        if loss.takes_labels:
            check_integers(f"{what}y", self.targets)
        else:
            check_kind(f"{what}y", y, self.targets, dtype)

    def __len__(self) -> int:
        return len(self.targets)

    def steps(self, rows: Rows = ALL) -> Array | None:
        """Which steps are no padding, where every step has a target."""
        return self.inputs.steps(rows) if self.per_step else None

    def first_output(self) -> Array:
        """The output for the first row: tells the number of classes, and whether all fits.

        Raises
        ------
        ValueError
            If the model does not take such rows, or the loss not such targets, with the shapes of
            all of them.
        """
        given = self.inputs
        first = given.cast(slice(0, 1))  # outside: its errors are of numbers, not of shapes
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
        self.per_step = output.ndim > 2 and output.shape[1] == given.arrays[0].shape[1]
        targets = np.broadcast_to(self._dummy_target(), self.targets.shape)
        check_agreement(self.what, self.loss, given.arrays[0], targets, self.standing_for(output))
        return output

    def standing_for(self, output: Array, rows: int | None = None) -> Array:
        """The output for one row as if it were that of every row."""
        return np.broadcast_to(output[:1], (len(self) if rows is None else rows, *output.shape[1:]))

    def _dummy_target(self) -> Array:
        """A target of the dtype that the loss wants."""
        return np.zeros((), np.int64 if self.loss.takes_labels else self.dtype)

    def cast_targets(self, classes: int, rows: Rows = ALL) -> Array:
        """Targets as the loss wants them: labels of so many classes, or real numbers.

        Raises
        ------
        ValueError
            For the first row that holds what cannot be a target.
        """
        name, targets, steps = f"{self.what}y", self.targets[rows], self.steps(rows)
        if steps is not None:
            targets = without_padding(targets, steps)
        if self.loss.takes_labels:
            return check_labels(name, targets, classes, rows, self.loss.ignore_index)
        targets = as_contiguous(targets, self.dtype)
        check_finite(name, targets, rows)
        if isinstance(self.loss, BCEWithLogitsLoss) and ((targets < 0) | (targets > 1)).any():
            row, *place = np.argwhere((targets < 0) | (targets > 1))[0].tolist()
            value = targets[(row, *place)]
            raise ValueError(f"{name}: row {row_number(rows, row)} holds {value}, outside [0, 1]")
        return targets


def padded_targets(name: str, y: Any, inputs: Inputs) -> Any:
    """Targets of every step, given as a list of sequences, padded as the inputs are."""
    if not is_ragged(y):
        return y
    if inputs.lengths is None:
        raise ValueError(f"{name}: its rows have different lengths, and those of X have not")
    targets, lengths = padded(name, y)
    if len(lengths) == len(inputs) and (lengths != inputs.lengths).any():
        row = int(np.flatnonzero(lengths != inputs.lengths)[0])
        raise ValueError(
            f"{name}: row {row} has {lengths[row]} steps, in X it has {inputs.lengths[row]}"
        )
    missing = inputs.arrays[0].shape[1] - targets.shape[1]
    return np.pad(targets, [(0, 0), (0, missing)] + [(0, 0)] * (targets.ndim - 2))


def check_integers(name: str, labels: Array) -> None:
    """Raise unless labels are integers: a vector, or a row for every sequence.

    Raises
    ------
    TypeError
        For what is not numbers.
    ValueError
        For floats, naming the first row that is no whole number, or the first row if all are.
    """
    if labels.ndim == 0:
        raise ValueError(f"{name}: expected labels of shape (samples,), got {labels.shape}")
    if labels.dtype.kind == "f":
        binary = labels.ndim > 1 and set(np.unique(labels)) == {0, 1}
        if binary and (labels.sum(axis=-1) == 1).all():
            raise ValueError(f"{name}: labels must be integers; one-hot? write y.argmax(axis=-1)")
        broken = labels != np.floor(labels)
        place = np.unravel_index(int(np.argmax(broken)), labels.shape)
        raise ValueError(
            f"{name}: labels must be integers, {place_of(place)} holds {labels[place]} "
            f"({labels.dtype}); write y.astype(int) if they are whole numbers"
        )
    if labels.dtype.kind not in "bui":
        raise TypeError(
            f"{name}: labels must be integers, got dtype {labels.dtype}; write "
            "classes, y = np.unique(y, return_inverse=True) to number them"
        )


def check_labels(
    name: str, labels: Array, classes: int, rows: Rows = ALL, ignored: int | None = None
) -> Array:
    """The labels as int64, or a ValueError with the first row whose label is no class."""
    outside = (labels < 0) | (labels >= classes)
    if ignored is not None:
        outside &= labels != ignored
    if outside.any():
        row, *steps = np.argwhere(outside)[0].tolist()
        place = place_of((row_number(rows, row), *steps))
        label = labels[(row, *steps)]
        if classes == 1:
            raise ValueError(
                f"{name}: label {label} in {place}, and the model has one output, so one class, 0; "
                "give it two, or write BCEWithLogitsLoss() for one logit"
            )
        raise ValueError(
            f"{name}: label {label} in {place} is outside the {classes} classes 0 to {classes - 1}"
        )
    return np.ascontiguousarray(labels, np.int64)  # not before: a uint64 could become another one


def place_of(place: Any) -> str:
    """A row, or a step of a sequence, in words."""
    row, *steps = place
    return f"row {row}" + "".join(f", step {step}" for step in steps)


def split(samples: int, fraction: float) -> tuple[Array, Array]:
    """Rows to train on, and a random fraction of them to validate on: always the same ones."""
    count = round(samples * fraction) if 0 < fraction < 1 else 0
    if not 0 < count < samples:
        raise ValueError(
            f"validation must be a share of the rows in (0, 1) that leaves some on both sides, got "
            f"{fraction} of {samples:,}"
        )
    order = np.random.default_rng(0).permutation(samples)
    return np.sort(order[count:]), np.sort(order[:count])


def as_validation(validation: Any) -> tuple[Any, Any, Any]:
    """Features, targets and weights or None, if ``validation`` is two or three of them."""
    if isinstance(validation, (tuple, list)) and len(validation) in (2, 3):
        X, y, *weight = validation
        return X, y, weight[0] if weight else None
    got = type(validation).__name__
    if isinstance(validation, (tuple, list)):
        got += f" of {len(validation)}"
    raise ValueError(
        "validation must be a pair (X, y) of held-out data, or (X, y, weight), or a share of the "
        f"rows such as 0.2, got {got}"
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


def check_batch_size(model: Layer, inputs: tuple[Array, ...], batch_size: int) -> None:
    """Raise ValueError if a batch would have one row and a layer needs more: by trying."""
    samples = len(inputs[0])
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
            snapshot.take()
            model(*(array[:1] for array in inputs))
            snapshot.restore()
    except ValueError as error:
        raise ValueError(f"training on one row fails ({error}), and {why} batch_size") from None
