"""Recurrent layers in ONNX's layout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minidl import kernels
from minidl.nn.recurrent.sequence import Recurrent
from minidl.onnx.adapter import Adapter
from minidl.typing import Array


class TimeFirst(Adapter):
    """A recurrent layer as ONNX has it: time first, all directions in one array.

    Of several levels, the last h and c are those of the highest, and none are given.

    Parameters
    ----------
    inner
        The layer.
    batch_first
        Whether the batch comes first, ONNX's layout 1.
    reverse
        Whether the only direction is from the last step to the first.
    options
        Which inputs follow x: some of "lengths", "h" and "c".
    results
        Which outputs there are: some of 0, 1 and 2 for all h, the last h and the last c.
    """

    holds = ("inner", "batch_first", "reverse", "options", "results")

    def __init__(
        self,
        inner: Recurrent,
        batch_first: bool,
        reverse: bool,
        options: tuple[str, ...],
        results: tuple[int, ...],
    ) -> None:
        self.inner = inner
        self.batch_first, self.reverse = batch_first, reverse
        self.options, self.results = options, results
        self.assign_paths()

    def forward(self, x: Array, *more: Array) -> Any:
        given = dict(zip(self.options, more, strict=True))
        x, lengths = self._moved(x), given.pop("lengths", None)
        begin = self._by_cell(len(x), [given.get(name) for name in self._kinds])
        options = {} if lengths is None else {"lengths": lengths}
        y, *end = self.inner(x, *begin, **options)
        self.save(y.shape)
        outputs = [self._outputs(y), *self._by_kind(end)]
        chosen = tuple(outputs[index] for index in self.results)
        return chosen[0] if len(chosen) == 1 else chosen

    def backward(self, *gradients: Array | None) -> Any:
        shape = self.saved(*gradients)  # type: ignore[arg-type]
        given = dict(zip(self.results, gradients, strict=True))
        dy, *dends = (given.get(index) for index in range(1 + len(self._kinds)))
        dx, *dbegin = self.inner.backward(
            np.zeros(shape, self.inner.dtype) if dy is None else self._outputs_grad(dy, shape),
            *self._by_cell(shape[0], dends),
        )
        dstate = dict(zip(self._kinds, self._by_kind(dbegin), strict=True))
        more = [dstate.get(name) for name in self.options]  # lengths have no gradient
        dx = kernels.copy(self._moved(dx) if self.batch_first else self._turned(dx).swapaxes(0, 1))
        return (dx, *more) if more else dx

    def check_gradient(self, dy: Any, output: Any) -> None:
        """Check nothing: the layer inside checks its gradients."""

    def check_held(self) -> None:
        super().check_held()
        if not isinstance(self.inner, Recurrent):
            raise TypeError(f"TimeFirst has {self.inner.short_name()}, which is not recurrent")

    def __repr__(self) -> str:
        return f"TimeFirst({self.inner.short_name()})"

    @property
    def _kinds(self) -> tuple[str, ...]:
        """The arrays of the state: h, and c of an LSTM."""
        return self.inner.cell_type.state_of

    @property
    def _highest(self) -> int:
        """The number of arrays in the state of the highest level, of all its directions."""
        return (1 + self.inner.bidirectional) * len(self._kinds)

    def _turned(self, x: Array) -> Array:
        """Return (batch, time, features) from the last step to the first, if that is its order."""
        return x[:, ::-1] if self.reverse else x

    def _moved(self, x: Array) -> Array:
        """Return the input as the layer inside takes it: (batch, time, features)."""
        return kernels.copy(self._turned(x if self.batch_first else x.swapaxes(0, 1)))

    def _outputs(self, y: Array) -> Array:
        """Return y (batch, time, directions · hidden) as ONNX has it."""
        parts = self._turned(y).reshape(*y.shape[:2], -1, self.inner.hidden_size)
        return kernels.copy(parts if self.batch_first else parts.transpose(1, 2, 0, 3))

    def _outputs_grad(self, dy: Array, shape: tuple[int, ...]) -> Array:
        """Return the gradient of y in its own shape."""
        parts = dy if self.batch_first else dy.transpose(2, 0, 1, 3)
        return kernels.copy(self._turned(parts.reshape(shape)))

    def _by_cell(self, batch: int, arrays: Sequence[Array | None]) -> list[Array]:
        """Return the state of every cell, of h and c of the highest level; zero elsewhere."""
        state = list(self.inner.zero_state(batch))
        begin = len(state) - self._highest
        for place, array in enumerate(arrays):
            if array is not None:
                directions = array.swapaxes(0, 1) if self.batch_first else array
                state[begin + place :: len(arrays)] = map(kernels.copy, directions)
        return state

    def _by_kind(self, state: Sequence[Array]) -> list[Array]:
        """Return h and c of the highest level, of the state of every cell."""
        count, of_level = len(self._kinds), state[-self._highest :]
        stacked = [np.stack(of_level[place::count]) for place in range(count)]
        return [kernels.copy(h.swapaxes(0, 1)) if self.batch_first else h for h in stacked]
