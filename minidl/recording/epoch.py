"""Run a recorded step over all batches of a data set, in C."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl import _kernels
from minidl._kernels.twins.errors import RowError, WeightError
from minidl.nn.checks import check_count
from minidl.recording.errors import NotFiniteError
from minidl.recording.guards import RecordingError
from minidl.recording.inputs import prepared
from minidl.recording.pytree import tree_leaves, tree_map
from minidl.recording.recorded_function import RecordedFunction
from minidl.seeds import random_order
from minidl.typing import Array

if TYPE_CHECKING:
    from minidl.recording.program import StepProgram

SLICE = 0.05  # seconds in C between two looks at Ctrl-C, and calls of `progress`
MOST_RATES = 512  # learning rates that a schedule is asked for at a time

Progress = Callable[["Kept", int], object]


def arrays_of(X: Any, Y: Any, function: Callable[..., Any]) -> tuple[Array, ...]:
    """Check all inputs of an epoch; returns them in the order of the step's arguments."""
    found = _named_arrays(X, Y)
    for name, array in found.items():
        if not isinstance(array, np.ndarray):
            within = isinstance(array, (tuple, dict))
            cure = (
                "the function gets each array as an argument of its own, such as def step(a, b, c, "
                "y) for epoch((A, B, C), Y), and may call model((a, b), c)"
                if within
                else "several inputs are a tuple of arrays"
            )
            raise TypeError(
                f"epoch: {name} must be a NumPy array, got {type(array).__name__}; {cure}"
            )
        if array.ndim == 0 or array.size == 0:
            raise ValueError(f"epoch: {name} is empty: shape {array.shape}")
    if not found:
        raise ValueError("epoch: there is no input")
    first, *others = found.items()
    for name, array in others:
        if len(array) != len(first[1]):
            raise ValueError(
                f"epoch: {first[0]} has {len(first[1]):,} rows, {name} has {len(array):,}"
            )
    if not any(isinstance(given, dict) for given in (X, Y)):
        return tuple(found.values())
    keys = [key for given in (X, Y) for key in _keys_of(given)]
    return in_order_of_arguments(function, keys, found)


def _named_arrays(X: Any, Y: Any) -> dict[str, Any]:
    """Return the inputs by their names in messages."""
    found: dict[str, Any] = {}
    for name, given in (("X", X), ("Y", Y)):
        if isinstance(given, (tuple, dict)):
            items = given.items() if isinstance(given, dict) else enumerate(given)
            found |= {f"{name}[{key!r}]": array for key, array in items}
        elif not (name == "Y" and given is None):
            found[name] = given
    return found


def _keys_of(given: Any) -> list[Any]:
    """Return the keys of a dict of inputs; None for every input that is in no dict."""
    if isinstance(given, dict):
        return list(given)
    return [None] * (len(given) if isinstance(given, tuple) else given is not None)


def in_order_of_arguments(
    function: Callable[..., Any], keys: list[Any], named: dict[str, Array]
) -> tuple[Array, ...]:
    """Return inputs in the order of a function's arguments.

    ``keys`` name the argument of each input; those that are None get the other arguments, in turn.

    Raises
    ------
    TypeError
        For a key that names no argument, or one that is taken, and for arguments that are left out.
    """
    arguments = list(inspect.signature(function, follow_wrapped=False).parameters)
    free = iter([argument for argument in arguments if argument not in keys])
    chosen = [next(free, "") if key is None else key for key in keys]
    if sorted(map(str, chosen)) != sorted(arguments[: len(chosen)]):
        called = getattr(function, "__qualname__", repr(function))
        raise TypeError(
            f"epoch: the inputs are {', '.join(named)}, and the arguments of {called} are "
            f"{', '.join(arguments)}"
        )
    by_argument = dict(zip(chosen, named.values(), strict=True))
    return tuple(by_argument[argument] for argument in arguments[: len(chosen)])


def order_of(samples: int, batch_size: int, rng: Any, shuffle: bool) -> Array | None:
    """Check the size of a batch; returns the order of rows, or None for the order of the data."""
    check_count("epoch", "batch_size", batch_size)
    return random_order("epoch", rng, samples) if shuffle else None


def run_epoch(
    step: RecordedFunction,
    arrays: tuple[Array, ...],
    batch_size: int,
    order: Array | None,
    leaves: int | None = 1,
    progress: Progress | None = None,
    at_a_time: int | None = None,
    watch: Any = None,
) -> Kept:
    """Run the step over all batches of the arrays, which are its inputs for all rows.

    Parameters
    ----------
    step
        The recorded function.
    arrays
        Its inputs, for all rows.
    batch_size
        How many rows a step takes.
    order
        The rows to take, in this order; None for all rows as they come.
    leaves
        How many of the arrays that a step returns to keep, from the loss on; None for all.
    progress
        Called between two steps now and then, as ``progress(kept, first)``: the steps from
        ``first`` to ``kept.done`` are new. It ends the run by returning True.
    at_a_time
        How many steps to make between two calls of ``progress``; by default, as many as fit into
        ``SLICE`` seconds.
    watch
        What watches the steps, if anything: see ``RecordedFunction.watch``.

    Returns
    -------
    Kept
        The results of the steps.
    """
    data = tuple(prepared(number, array) for number, array in enumerate(arrays))
    samples = len(arrays[0]) if order is None else len(order)
    batch_size = min(batch_size, samples)
    kept = Kept(samples, batch_size, leaves)
    full = samples // batch_size
    notify = progress or _ignore
    most = at_a_time or full
    stopped = _Part(step, data, order, kept, 0, full, batch_size, most, watch).run(notify)
    if not stopped and (remainder := samples - full * batch_size):
        tail = slice(full * batch_size, None)
        if order is None:
            data = tuple(array[tail] for array in data)
        else:
            order = order[tail]
        _Part(step, data, order, kept, full, 1, remainder, 1, watch).run(notify)
    return kept


def _ignore(kept: Kept, first: int) -> None:
    """Do nothing about progress."""


@dataclass
class _Part:
    """Steps of an epoch whose batches have the same number of rows, so that one program runs all.

    Parameters
    ----------
    step
        The recorded function.
    data, order
        Rows of these steps. ``order`` holds row numbers of ``data``; if it is None, the rows are
        those of ``data`` in order, from its first one on.
    kept
        Receives the results of the steps.
    first, count, rows
        Number of the first step in the epoch, number of steps, rows of each step.
    at_a_time
        Steps between two calls of ``progress``.
    watch
        What watches them, or None.
    """

    step: RecordedFunction
    data: tuple[Array, ...]
    order: Array | None
    kept: Kept
    first: int
    count: int
    rows: int
    at_a_time: int
    watch: Any = None
    done: int = 0
    checked_order: Any = None
    # Of which programs, and from and to: what their steps return, and what watched ones return.
    outputs: tuple[Any, list[list[tuple[Array, Array]]]] = (None, [])

    def run(self, progress: Progress) -> bool:
        """Make the steps; returns whether ``progress`` has ended them before the last."""
        batch = tuple(np.empty((self.rows, *x.shape[1:]), x.dtype) for x in self.data)
        while self.done < self.count:
            first = self.kept.done
            # Find the program every time: `progress` may have changed something.
            with self._located():
                if _kernels.isa == "reference":
                    self._from_python()
                else:
                    self._in_c(self._recorded(batch), batch)
            # There is no new step if the next one is to be watched, and was not recorded yet.
            if self.kept.done > first and progress(self.kept, first) is True:
                return True
        return False

    def _batch(self) -> tuple[Array, ...]:
        """Gather the inputs of the next step."""
        rows = slice(self.done * self.rows, (self.done + 1) * self.rows)
        order = self.order
        return tuple(a[rows].copy() if order is None else a.take(order[rows], 0) for a in self.data)

    def _check(self, output: Any, batch: tuple[Array, ...]) -> None:
        self.kept.expect(output, batch)
        if not np.isfinite(loss := np.asarray(next(tree_leaves(output)))):
            raise FloatingPointError(f"the loss is {loss}")

    def _recorded(self, batch: tuple[Array, ...]) -> StepProgram:
        """Find the program of the steps, or record it with the first of them."""
        recorded = self.step.find(batch)
        if recorded is None:
            first = self._batch()
            recorded = self.step.record(first, lambda output: self._check(output, first))
        if self.watch is not None:
            self.step.watch(recorded, self.watch, self._batch)
        return recorded

    def _from_python(self) -> None:
        """Make one step on the NumPy twin."""
        batch = self._batch()
        # Outside a recording an optimizer's step returns a float.
        output = tree_map(
            self.step.function(*batch),
            lambda leaf: np.asarray(leaf) if isinstance(leaf, float) else leaf,
        )
        self._check(output, batch)
        for leaf, array in zip(self.kept.leaves(output), self.kept.arrays, strict=True):
            room = self.kept.room_from(array, leaf, self.first + self.done)
            room[: max(leaf.size, 1)] = leaf.reshape(-1)
        self.done += 1
        self.kept.done += 1

    def _in_c(self, recorded: StepProgram, batch: tuple[Array, ...]) -> None:
        """Make as many steps as fit into a slice of time."""
        programs = recorded, recorded if self.watch is None else recorded.watched or recorded
        if self.outputs[0] != programs:
            own = self._outputs(recorded, batch)
            same = programs[1] is recorded
            self.outputs = programs, [own, own if same else self._outputs(programs[1], batch)]
        left = min(self.count - self.done, self.at_a_time - self.done % self.at_a_time)
        if recorded.participants.scheduled:
            left = min(left, MOST_RATES)
        # The program indexes rates from the first step of the part, but schedules give them from
        # the present step on: zeros stand for the steps that are done.
        rates = []
        for place, values in recorded.participants.scheduled_rates(left):
            left = len(values)
            rates.append((place, np.concatenate([np.zeros(self.done), values])))
        made, failed, answer = recorded.program.steps(
            self.data,
            batch,
            self._order_in_c(),
            self.rows,
            self.done,
            left,
            rates,
            self.outputs[1][0],
            SLICE,
            self.outputs[1][1] if self.watch is not None else None,
        )
        self.done += made
        self.kept.done += made
        if failed:
            was_watched = recorded.program.latest is not recorded.program
            programs[was_watched].explain(failed, answer, batch)

    def _outputs(self, program: StepProgram, batch: tuple[Array, ...]) -> list[tuple[Array, Array]]:
        """Where what a program returns is kept: (from, to)."""
        output = program.interface.result(batch)
        self.kept.expect(output, batch)
        return [
            (leaf, self.kept.room_from(array, leaf, self.first))
            for leaf, array in zip(self.kept.leaves(output), self.kept.arrays, strict=True)
        ]

    def _order_in_c(self) -> Any:
        from minidl._kernels.executor.program import RowOrder  # needs compiled kernels

        if self.order is not None and self.checked_order is None:
            self.checked_order = RowOrder(self.order, len(self.data[0]))
        return self.checked_order

    @contextmanager
    def _located(self) -> Iterator[None]:
        """Add the step to an error, and convert the row of a batch to that of the data set."""
        try:
            yield
        except RowError as error:
            raise error.in_epoch(self.first + self.done, self._row_of_data(error.row)) from None
        except NotFiniteError as error:
            raise error.in_epoch(self.first + self.done, self._row_of_data) from None
        except WeightError as error:
            raise error.in_epoch(self.first + self.done) from None
        except FloatingPointError as error:
            where = f"step {self.first + self.done} of the epoch (the first is 0)"
            raise type(error)(f"{where}: {error}") from None

    def _row_of_data(self, row: int) -> int:
        place = self.done * self.rows + row
        first_row = self.first * self.kept.batch_size
        return int(first_row + place if self.order is None else self.order[place])


class Kept:
    """The results of the steps of an epoch: the losses, or more of what they return.

    ``arrays`` hold the results of the first ``done`` steps.
    """

    def __init__(self, samples: int, batch_size: int, leaves: int | None) -> None:
        self.samples, self.batch_size = samples, batch_size
        self.steps = -(-samples // batch_size)
        self.done = 0
        self.arrays: list[Array] = []
        self._leaves = leaves
        self._template: Any = None

    def leaves(self, output: Any) -> list[Array]:
        """Select the arrays to keep of what a step returned."""
        arrays = [leaf for leaf in tree_leaves(output) if isinstance(leaf, np.ndarray)]
        return arrays[: self._leaves]

    def expect(self, output: Any, batch: tuple[Array, ...]) -> None:
        """Allocate arrays for outputs like these, of a step over this batch."""
        if self.arrays:
            return
        leaves = self.leaves(output)
        if not leaves or leaves[0].ndim:
            raise RecordingError(
                f"epoch: the function must return the loss, or begin with it, not {output!r}"
            )
        for leaf in leaves:
            given = any(np.may_share_memory(leaf, x) for x in batch)
            if given or not leaf.flags.c_contiguous or (leaf.ndim and len(leaf) != len(batch[0])):
                raise RecordingError(
                    "epoch: per_step needs outputs that kernels have written, contiguous, and "
                    "that are numbers or have a row for each of the batch; one has shape "
                    f"{leaf.shape} and strides {leaf.strides}"
                )
        self._template = output
        self.arrays = [
            np.empty((self.samples, *leaf.shape[1:]) if leaf.ndim else self.steps, leaf.dtype)
            for leaf in leaves
        ]

    def room_from(self, array: Array, leaf: Array, step: int) -> Array:
        """Return the part of an array of outputs that begins with this step, flattened."""
        return array[step * self.batch_size if leaf.ndim else step :].reshape(-1)

    def mean_loss(self) -> float:
        """Return the mean of the losses, weighted with the rows of their batches."""
        rows = np.full(self.steps, self.batch_size)
        rows[-1] = self.samples - (self.steps - 1) * self.batch_size
        return float(np.dot(self.arrays[0], rows) / self.samples)

    def output(self) -> Any:
        """Rebuild the tree that the function returns, with the outputs of all steps."""
        arrays = iter(self.arrays)
        return tree_map(
            self._template, lambda leaf: next(arrays) if isinstance(leaf, np.ndarray) else leaf
        )
