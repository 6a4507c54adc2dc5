"""A data set as it was given, and as a model and a loss take it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from minidl.nn import Layer, Loss, MultiLoss
from minidl.nn.multi_loss import heads_of
from minidl.recording.pytree import tree_leaves, tree_map
from minidl.training.inputs import (
    ALL,
    Rows,
    as_inputs,
    check_no_list_of_inputs,
    check_no_tuple_of_rows,
)
from minidl.training.steps import Places
from minidl.training.targets import Targets
from minidl.typing import Array

Batch = tuple[tuple[Any, ...], tuple[Any, ...]]  # inputs; targets, and maybe weights


@dataclass(frozen=True)
class Data:
    """Rows to train or to evaluate on: inputs, targets, and maybe weights.

    For a ``MultiLoss``, targets are a tuple with one array for each head, and so are weights, with
    None for a loss that takes none. An input may be a tuple, for a branch that takes several.
    """

    inputs: tuple[Any, ...]
    targets: Any
    weights: Any = None

    @property
    def targets_and_weights(self) -> tuple[Any, ...]:
        """What the loss takes beside predictions, for all rows."""
        return (self.targets,) if self.weights is None else (self.targets, self.weights)

    @property
    def places(self) -> Places:
        """Inputs, and then targets and weights, by their numbers among ``arrays``."""
        numbers = count()
        places: Places = tree_map(
            (self.inputs, self.targets_and_weights),
            lambda array: None if array is None else next(numbers),
        )
        return places

    @property
    def arrays(self) -> tuple[Array, ...]:
        """The arrays that a step takes, for all rows."""
        leaves = tree_leaves((self.inputs, self.targets_and_weights))
        return tuple(array for array in leaves if array is not None)

    def take(self, rows: Array) -> Data:
        """Copies of these rows."""
        return Data(part_of(self.inputs, rows), *self.targets_and_weights_of(rows))

    def targets_and_weights_of(self, rows: Array) -> tuple[Any, ...]:
        """Copies of what the loss takes beside predictions, for these rows."""
        given: tuple[Any, ...] = part_of(self.targets_and_weights, rows)
        return given

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Views of all rows in order, so many at a time."""
        for begin in range(0, len(self), batch_size):
            given = self.inputs, self.targets_and_weights
            yield part_of(given, slice(begin, begin + batch_size))

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
        return len(next(tree_leaves(self.targets)))


def part_of(arrays: Any, rows: Rows) -> Any:
    """Return these rows of an array, or of all arrays of a tuple; None stays None."""

    def part(array: Array | None) -> Array | None:
        if array is None:
            return None
        return array[rows] if isinstance(rows, slice) else array.take(rows, axis=0)

    return tree_map(arrays, part)


def rows_that_count(what: str, loss: Loss, targets: Any, weights: Any) -> Rows:
    """Return the rows whose weight in the loss, of any head, is not zero.

    Raises
    ------
    ValueError
        If there is none, in one of the heads.
    """
    of_heads = list(tree_leaves(loss.row_weights(targets, weights)))
    for name, own in zip(heads_of(loss), of_heads, strict=False):
        if own is not None and not own.any():
            where = f"head {name}, {heads_of(loss)[name]!r}," if name else f"{loss!r}"
            raise ValueError(
                f"{what}y: in {where} no row counts: every label is ignored or every weight is zero"
            )
    if any(own is None or own.all() for own in of_heads):
        return ALL
    rows = len(next(tree_leaves(targets)))
    counting = np.zeros(rows, bool)
    for own in of_heads:
        counting |= own.reshape(rows, -1).any(axis=1)
    return ALL if counting.all() else np.flatnonzero(counting)


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

    Attributes
    ----------
    heads
        The targets of each head of a ``MultiLoss``, or of the only loss.

    Raises
    ------
    TypeError, ValueError
        For data that can be refused without looking at every number.
    """

    def __init__(
        self, what: str, X: Any, y: Any, model: Layer, loss: Loss, dtype: np.dtype[Any]
    ) -> None:
        self.what, self.model, self.loss, self.dtype = what, model, loss, dtype
        parts: dict[str, Any] = {"y": y}
        if isinstance(loss, MultiLoss):
            keys: Any = loss.heads if isinstance(y, Mapping) else range(len(loss.heads))
            of_heads = zip(keys, loss.by_head(f"{what}y", y), strict=True)
            parts = {f"y[{key!r}]": part for key, part in of_heads}
        else:
            if isinstance(y, Mapping):
                raise TypeError(
                    f"{what}y is a dict, and {loss!r} takes one array; a loss for each of several "
                    "outputs is an nn.MultiLoss"
                )
            check_no_tuple_of_rows(f"{what}X", X, y)
        check_no_list_of_inputs(f"{what}X", X, next(iter(parts.values())))
        self.inputs = as_inputs(f"{what}X", X, model, dtype)
        self.heads = [
            Targets(what, name, part, self.inputs, own, dtype)
            for (name, part), own in zip(parts.items(), heads_of(loss).values(), strict=True)
        ]

    def __len__(self) -> int:
        return len(self.heads[0])

    def of_heads(self, function: Callable[..., Any], *given: Any) -> Any:
        """Return ``function(targets, *items)`` of each head in a tuple, or of the only loss.

        ``given`` are what belongs to the heads: tuples of items, or items of the only loss.
        """
        if not isinstance(self.loss, MultiLoss):
            return function(self.heads[0], *given)
        return tuple(function(*items) for items in zip(self.heads, *given, strict=True))

    def first_output(self) -> Any:
        """Compute the output for the first row, and check that model, loss and data agree.

        Raises
        ------
        TypeError, ValueError
            If the model does not take rows, or the loss targets, of these shapes.
        """
        given = self.inputs
        first = given.cast(slice(0, 1))  # not inside `try`: its errors are about numbers
        try:
            output = self.model(*first)
        except (TypeError, ValueError) as error:
            shapes = " and ".join(
                f"{name} of shape {array.shape}"
                for name, array in zip(given.names, given.arrays, strict=True)
            )
            verb = "does" if len(given.names) == 1 else "do"
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(
                f"{shapes} {verb} not suit the model; with its first row, {error}"
            ) from error
        self._check_number_of(output)
        self.of_heads(Targets.check_output, output)
        return output

    def _check_number_of(self, output: Any) -> None:
        """Raise ValueError unless the model has as many outputs as the loss has heads."""
        outputs = len(output) if isinstance(output, tuple) else 1
        expected = len(self.heads)
        if isinstance(output, tuple) == isinstance(self.loss, MultiLoss) and outputs == expected:
            return
        advice = "" if isinstance(self.loss, MultiLoss) else "; nn.MultiLoss has one for each"
        found = f"a tuple of {outputs}" if isinstance(output, tuple) else "one array"
        wanted = f"a tuple of {expected}" if isinstance(self.loss, MultiLoss) else "one array"
        raise ValueError(f"the model returns {found}, and {self.loss!r} takes {wanted}{advice}")

    def cast_targets(self, output: Any, rows: Rows = ALL) -> Any:
        """Check targets, and cast them to what the loss takes, for outputs like this one.

        Raises
        ------
        ValueError
            For the first row that holds no target, such as a label beyond the classes.
        """

        def cast(targets: Targets, output: Array) -> Array:
            return targets.cast(output.shape[-1], rows)

        return self.of_heads(cast, output)

    def whole_targets(self, output: Any) -> Any:
        """Return the targets of all rows: labels cast and checked, all others as they are."""

        def whole(targets: Targets, output: Array) -> Array:
            return targets.cast(output.shape[-1]) if targets.loss.takes_labels else targets.array

        return self.of_heads(whole, output)
