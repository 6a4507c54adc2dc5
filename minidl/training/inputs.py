"""Inputs as a model takes them, from arrays, tables, tuples and sequences of unequal length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from operator import add
from typing import Any

import numpy as np

from minidl._kernels.twins.errors import RowError
from minidl.nn import Layer, Parallel
from minidl.nn.checks import check_keys
from minidl.nn.data_checks import (
    INDEX,
    NOT_ROWS,
    as_array,
    check_kind,
    check_same_rows,
)
from minidl.nn.entrances import (
    check_number_of_inputs,
    entrances,
    first_layer,
    input_names,
    takes_lengths,
)
from minidl.nn.frames import PIPELINE, Columns, check_columns, column_names
from minidl.nn.nonfinite import is_finite
from minidl.recording.pytree import tree_map
from minidl.typing import Array

Rows = slice | Array  # of a data set: a slice of it, or the numbers of its rows
ALL = slice(None)


@dataclass(frozen=True)
class Inputs:
    """The inputs of a model for all rows, in the dtypes they were given in.

    Attributes
    ----------
    names
        Of the inputs in messages.
    arrays, dtypes
        The inputs, and the dtypes that the model takes.
    limits
        How many different integers each input may hold; None for one that holds real numbers.
    lengths
        The lengths of the sequences that each input holds; None for one that holds none.
    columns
        The names of the columns of each input, None for an input without.
    nest
        The numbers of the inputs, in tuples within tuples as the model is called with them:
        ((0, 1), 2) for a first branch that takes two. Empty: one after another.
    """

    names: tuple[str, ...]
    arrays: tuple[Array, ...]
    dtypes: tuple[np.dtype[Any], ...]
    limits: tuple[int | None, ...]
    lengths: tuple[Array | None, ...]
    columns: tuple[Columns, ...] = ()
    nest: tuple[Any, ...] = ()

    def __len__(self) -> int:
        return len(self.arrays[0])

    def check_columns(self, known: tuple[Columns, ...]) -> None:
        """Raise ValueError if tables have other columns than those known, or another order."""
        for name, given, before in zip(self.names, self.columns, known, strict=False):
            check_columns(name, given, before)

    @property
    def sequences(self) -> int:
        """The number of the first input that has lengths; 0 if none has."""
        return next((i for i, own in enumerate(self.lengths) if own is not None), 0)

    def steps(self, rows: Rows = ALL, number: int | None = None) -> Array | None:
        """(samples, time): which steps are no padding; None where there are no lengths.

        ``number`` is that of the input, by default of the first that has lengths.
        """
        number = self.sequences if number is None else number
        lengths = self.lengths[number]
        if lengths is None:
            return None
        return np.arange(self.arrays[number].shape[1]) < lengths[rows][:, None]

    def cast(self, rows: Rows = ALL) -> tuple[Any, ...]:
        """Check the inputs of these rows, and cast them to what the model takes, as ``nest`` says.

        Arrays that need no cast are not copied. Padding is not checked: it becomes zero.

        Raises
        ------
        ValueError
            For NaN, infinity, numbers beyond the dtype, and indices out of range, naming the row.
        """
        given = zip(self.arrays, self.dtypes, strict=True)
        arrays = [as_contiguous(array[rows], dtype) for array, dtype in given]
        for number, array in enumerate(arrays):
            if (steps := self.steps(rows, number)) is not None:
                arrays[number] = without_padding(array, steps)
        columns = self.columns or [None] * len(arrays)
        for name, array, labels in zip(self.names, arrays, columns, strict=True):
            if array.dtype.kind == "f":
                check_finite(name, array, rows, labels)
        for name, array, limit in zip(self.names, arrays, self.limits, strict=True):
            if limit is not None:
                check_range("index", name, array, limit, rows)
        return tuple(tree_map(self.nest, arrays.__getitem__) if self.nest else arrays)


def as_inputs(name: str, X: Any, model: Layer, dtype: np.dtype[Any]) -> Inputs:
    """Take X as inputs of ``model``: a tuple is several, and so is a dict by their names.

    A list of sequences of unequal length is padded, and its lengths are one more input. A tuple or
    dict within X holds what one branch takes: sequences and their lengths, or several inputs of
    its own. An input must be integers if the layer that takes it is an ``Embedding``, else real
    numbers, which become ``dtype``; integers that no first layer takes, such as lengths, stay
    integers.

    Raises
    ------
    TypeError
        For anything but numbers.
    ValueError
        For rows of unequal length where no layer takes lengths, inputs of different numbers of
        rows, and lengths that are not in 1 to time, naming the row.
    """
    parts, first = _named_parts(name, X, model), first_layer(model)
    if isinstance(first, Parallel) and len(parts) == len(first.branches) and _has_several(parts):
        branches = list(first.branches.values())
        given = zip(parts, branches, strict=True)
        of_branches = [as_inputs(label, part, branch, dtype) for (label, part), branch in given]
        return _side_by_side(of_branches, branches)
    return _in_a_row(_without_pairs(parts, X), model, dtype)


def _named_parts(name: str, X: Any, model: Layer) -> list[tuple[str, Any]]:
    """Return (name, part) of all parts of X, in the order in which the model takes them."""
    if not isinstance(X, (Mapping, tuple)):
        return [(name, X)]
    if isinstance(X, tuple):
        check_number_of_inputs(name, len(X), model)
        parts = [(f"{name}[{number}]", part) for number, part in enumerate(X)]
    else:
        names = input_names(model)
        check_keys(name, X, names, f"the inputs {', '.join(names)}")
        parts = [(f"{name}[{key!r}]", X[key]) for key in names]
    if not parts:
        raise ValueError(f"{name}: expected at least one input, got an empty {type(X).__name__}")
    return parts


def _has_several(parts: list[tuple[str, Any]]) -> bool:
    """Return whether any part is several arrays, or becomes two: sequences and their lengths."""
    return any(isinstance(part, (Mapping, tuple)) or is_ragged(part) for _, part in parts)


def _without_pairs(parts: list[tuple[str, Any]], X: Any) -> Iterator[tuple[str, Any]]:
    """Yield (name, input) of all inputs; a pair within X is sequences and their lengths."""
    for label, part in parts:
        if isinstance(X, (Mapping, tuple)) and isinstance(part, tuple):
            yield from ((f"{label}[{number}]", array) for number, array in enumerate(part))
        else:
            yield label, part


def _in_a_row(named: Iterable[tuple[str, Any]], model: Layer, dtype: np.dtype[Any]) -> Inputs:
    """Return inputs with which the model is called as they come, one after another."""
    given = [padded_or_not(label, part, model) for label, part in named]
    names, parts = zip(*(named for several in given for named in several), strict=True)
    columns = tuple(column_names(part) for part in parts)
    arrays = [as_array(*named) for named in zip(names, parts, strict=True)]
    check_same_rows(zip(names, arrays, strict=True))
    dtypes, limits = [], []
    lengths: list[Array | None] = [None] * len(arrays)
    for label, array, entrance in zip(names, arrays, entrances(model, arrays), strict=True):
        layer = entrance.layer
        is_index = array.dtype.kind in "ui" if layer is None else layer.takes_indices
        dtypes.append(INDEX if is_index else dtype)
        limits.append(layer.index_limit if layer is not None and is_index else None)
        check_kind(label, array, dtypes[-1])
        if (number := entrance.lengths_of) is not None:
            lengths[number] = array
            check_range("length", label, array, (*arrays[number].shape, 0)[1])
    return Inputs(names, tuple(arrays), tuple(dtypes), tuple(limits), tuple(lengths), columns)


def _side_by_side(parts: list[Inputs], branches: list[Layer]) -> Inputs:
    """Return the inputs of all branches together; those of a branch that takes several, a tuple."""
    nest: list[Any] = []
    before = 0
    for part, branch in zip(parts, branches, strict=True):
        own = tree_map(part.nest or tuple(range(len(part.arrays))), partial(add, before))
        has_lengths = part.lengths[0] is not None and not isinstance(first_layer(branch), Parallel)
        nest += own if has_lengths or len(own) == 1 else [own]
        before += len(part.arrays)

    def of_all(attribute: str) -> tuple[Any, ...]:
        return tuple(chain.from_iterable(getattr(part, attribute) for part in parts))

    names, arrays = of_all("names"), of_all("arrays")
    check_same_rows(zip(names, arrays, strict=True))
    dtypes, limits, lengths = of_all("dtypes"), of_all("limits"), of_all("lengths")
    return Inputs(names, arrays, dtypes, limits, lengths, of_all("columns"), tuple(nest))


def padded_or_not(name: str, part: Any, model: Layer) -> list[tuple[str, Any]]:
    """Return (name, input), of sequences of unequal length padded, and then of their lengths."""
    if not is_ragged(part):
        return [(name, part)]
    check_takes_lengths(name, part, model)
    sequences, lengths = padded(name, part)
    return [(name, sequences), (f"lengths of {name}", lengths)]


def as_contiguous(array: Array, dtype: np.dtype[Any]) -> Array:
    """Return a contiguous array of the dtype; a float64 beyond float32 becomes infinite."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, dtype)


# --- checks -----------------------------------------------------------------------------------


def check_no_tuple_of_rows(name: str, X: Any, y: Any) -> None:
    """Raise ValueError if X is a tuple of rows: the parts of a tuple are inputs of the model."""
    sized = isinstance(y, Sequence) or getattr(y, "ndim", 0) > 0
    if not isinstance(X, tuple) or not sized or len(X) != len(y):
        return
    if np.ndim(X[0]) == 0 or len(X[0]) != len(y):
        raise ValueError(f"{name} is a tuple of {len(X):,}, as many as y has rows; {NOT_ROWS}")


def check_no_list_of_inputs(name: str, X: Any, y: Any) -> None:
    """Raise ValueError if X is a list of arrays with as many rows as y: a list has rows itself."""
    if not isinstance(X, list) or not isinstance(y, np.ndarray) or len(X) in (0, *y.shape[:1]):
        return
    if all(getattr(part, "shape", ())[:1] == y.shape[:1] for part in X):
        raise ValueError(
            f"{name} is a list of {len(X)} arrays with as many rows as y; several inputs are a "
            f"tuple: write tuple({name.split()[-1]})"
        )


def check_finite(name: str, array: Array, rows: Rows = ALL, columns: Columns = None) -> None:
    """Raise ValueError with the first row, and column, that holds NaN or inf."""
    if is_finite(array):
        return
    row, *place = first_where(~np.isfinite(array))
    value, where, cure = array[(row, *place)], f" at {tuple(place)}" if place else "", ""
    if columns is not None:
        where = f" in column {columns[place[0]]!r}"
        cure = f"; fill what is missing ({PIPELINE})" if np.isnan(value) else ""
    raise ValueError(
        f"{name}: row {row_number(rows, row)} holds {value}{where}; finite numbers "
        f"within the range of {array.dtype} are needed{cure}"
    )


def check_range(operand: str, name: str, array: Array, limit: int, rows: Rows = ALL) -> None:
    """Raise RowError with the first label, index or length that a kernel could not use.

    Labels and indices are 0 to ``limit`` - 1, lengths 1 to ``limit``.
    """
    least = int(operand == "length")
    beyond = limit + least
    if array.min() >= least and array.max() < beyond:
        return
    first = int(np.argmax((array < least) | (array >= beyond)))
    error = RowError(operand, first, int(array.flat[first]), limit, array.shape, name)
    error.row = row_number(rows, error.row)
    raise error


def first_where(condition: Array) -> tuple[int, ...]:
    """Return the first place where a condition holds."""
    return tuple(map(int, np.unravel_index(int(np.argmax(condition)), condition.shape)))


def place_of(place: tuple[int, ...], rows: Rows = ALL) -> str:
    """Describe a row of the data set, or a step of a sequence: ``"row 3, step 1"``."""
    row, *steps = place
    return f"row {row_number(rows, row)}" + "".join(f", step {step}" for step in steps)


def row_number(rows: Rows, row: int) -> int:
    """Return the number that one of these rows has in the whole data set."""
    return (rows.start or 0) + row if isinstance(rows, slice) else int(rows[row])


# --- sequences --------------------------------------------------------------------------------


def check_takes_lengths(name: str, rows: Any, model: Layer) -> None:
    """Raise ValueError if no layer of the model takes the lengths of these sequences."""
    if takes_lengths(model):
        return
    lengths = [len(row) for row in rows]
    other = next(row for row, length in enumerate(lengths) if length != lengths[0])
    raise ValueError(
        f"{name}: row 0 has length {lengths[0]}, row {other} has {lengths[other]}, and no layer of "
        "the model takes lengths, as LSTM and GRU do; pad the rows or cut them"
    )


def is_ragged(data: Any) -> bool:
    """Return whether this is a list (or an array of objects) of sequences of unequal length."""
    if isinstance(data, np.ndarray):
        return data.dtype == object and data.ndim == 1 and is_ragged(data.tolist())
    return (
        isinstance(data, list)
        and all(isinstance(row, (np.ndarray, Sequence)) for row in data)
        and not any(isinstance(row, (str, bytes)) or np.ndim(row) == 0 for row in data[:1])
        and len({len(row) for row in data}) > 1
    )


def padded(name: str, rows: Iterable[Any]) -> tuple[Array, Array]:
    """Return all sequences in one array, with zeros up to the longest; and their lengths.

    Shapes
    ------
    each row (time, ...); the result (samples, longest, ...) and (samples).

    Raises
    ------
    ValueError
        For a sequence without a step, and for steps of different shapes, naming the row.
    """
    arrays = [as_array(name, row) for row in rows]
    for row, array in enumerate(arrays):
        if array.size == 0:
            raise ValueError(f"{name}: row {row} is an empty sequence")
        if array.shape[1:] != arrays[0].shape[1:]:
            raise ValueError(
                f"{name}: a step of row {row} has shape {array.shape[1:]}, one of row 0 "
                f"{arrays[0].shape[1:]}"
            )
    lengths = np.array([len(array) for array in arrays], INDEX)
    dtype = np.result_type(*{array.dtype for array in arrays})
    together = np.zeros((len(arrays), lengths.max(), *arrays[0].shape[1:]), dtype)
    for target, array in zip(together, arrays, strict=True):
        target[: len(array)] = array
    return together, lengths


def without_padding(array: Array, steps: Array) -> Array:
    """Return the array with zeros as padding; the array itself, if it has these already."""
    if not array[~steps].any():
        return array
    return np.where(steps.reshape(*steps.shape, *[1] * (array.ndim - 2)), array, 0).astype(
        array.dtype
    )
