"""The forward pass of a model in evaluation, recorded for input shapes that come often."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minidl import _kernels, recording
from minidl.nn import Layer
from minidl.nn.hooks import evaluating
from minidl.nn.summary import numbers_of_a_row
from minidl.recording import RecordingError
from minidl.typing import Array

Shapes = tuple[tuple[int, ...], ...]

# A recording takes as long as some forty eager calls. So it is made for a few shapes only, which
# have come often, and all are dropped if they take much memory.
EAGER_CALLS = 8
MOST_SHAPES = 16
MOST_MEMORY = 1 << 28
# Of all that the layers give for the rows of a call together: recording keeps it all, with copies.
LARGEST_CALL = 1 << 26  # bytes


class Predictor:
    """Calls a model in evaluation, from any number of threads; returns arrays of the caller's own.

    Parameters
    ----------
    model
        Any layer. One that cannot be recorded is called eagerly.
    dtype
        Of its parameters.
    record
        Whether to record at all.
    """

    def __init__(self, model: Layer, dtype: np.dtype[np.floating], record: bool) -> None:
        self.model, self._dtype, self.record = model, dtype, record
        self._step = recording.record(self._forward, copy=True)
        self._calls: dict[Shapes, int] = {}  # eager ones
        self._rows: dict[tuple[int, ...], int] = {}  # at once, by the shape of one
        self._quick: set[tuple[int, ...]] = set()  # shapes of one input that a program serves

    def __call__(self, *inputs: Any) -> Any:
        """Compute the output for inputs that were checked and cast before."""
        x, several = inputs[0], len(inputs) > 1 or type(inputs[0]) is tuple
        if several or len(x) <= (rows := self._rows_at_once(x.shape[1:])):
            return self._call(*inputs)
        return joined([self._call(x[i : i + rows]) for i in range(0, len(x), rows)])

    def _rows_at_once(self, row: tuple[int, ...]) -> int:
        """Return how many rows of this shape, a power of two, do not take too much memory."""
        if (rows := self._rows.get(row)) is None:
            if len(self._rows) >= MOST_SHAPES:
                self._rows.clear()
            try:
                size = max(1, numbers_of_a_row(self.model, row)) * self._dtype.itemsize
            except Exception:  # what a user's layer says of shapes is no reason not to predict
                size = 1
            self._rows[row] = rows = 1 << max(1, LARGEST_CALL // size).bit_length() - 1
        return rows

    def _call(self, *inputs: Any) -> Any:
        with evaluating():
            if any(type(x) is tuple for x in inputs):  # a recorded function takes arrays
                return self.model(*inputs)
            shapes = tuple(array.shape for array in inputs)
            if not self._comes_again(shapes):
                return self.model(*inputs)
            try:
                output = self._step(*inputs)
            except RecordingError:
                # If something was replaced it is recorded anew; else it cannot be recorded.
                self.record = self._step.programs > 0
                self._forget()
                return self.model(*inputs)
            if self._step.memory > MOST_MEMORY:
                self.record = False
                self._forget()
            elif len(inputs) == 1:
                self._quick.add(shapes[0])
            return output

    def quick(self, X: object, batch_size: int) -> Array | None:
        """Compute the output for a finite array of known shape that needs no cast; else None."""
        if (
            type(X) is not np.ndarray
            or X.shape not in self._quick
            or X.dtype != self._dtype
            or type(batch_size) is not int
            or len(X) > batch_size
            or _kernels.isa == "reference"  # eager there: a layer may return its very input
            or not np.vdot(X, X) < np.inf  # NaN and infinity would show; a large sum may be finite
        ):
            return None
        try:
            with evaluating():
                return self._step(X)
        except RecordingError:
            return None

    def _forward(self, *inputs: Array) -> Array:
        return self.model(*inputs)

    def _comes_again(self, shapes: Shapes) -> bool:
        """Count a call; return whether there were enough for a recording to be worth it."""
        if not self.record:
            return False
        calls = self._calls.get(shapes, 0)
        if calls < EAGER_CALLS:
            if len(self._calls) >= MOST_SHAPES and shapes not in self._calls:
                self._forget()
            self._calls[shapes] = calls + 1
            return False
        return True

    def _forget(self) -> None:
        self._calls.clear()
        self._quick.clear()
        self._step.forget()


def joined(outputs: Sequence[Any]) -> Any:
    """Put the outputs for parts of the rows one after the other, in arrays of their own."""
    if isinstance(outputs[0], tuple):
        return tuple(map(joined, zip(*outputs, strict=True)))
    return np.concatenate(outputs)
