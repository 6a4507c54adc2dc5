"""All parameters in one vector, all gradients in another."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from minidl._kernels.reference import Array
from minidl.nn.layer import Parameter

ALIGNMENT = 64  # bytes: one cache line, one AVX-512 register


class FlatParameters:
    """Parameters whose values and gradients are views into two contiguous vectors.

    Each begins on a cache line; the few elements before the first and between two of them stay
    zero. So a norm is one reduction, an update one pass, whatever the number of layers.
    """

    def __init__(self, parameters: Iterable[Parameter]) -> None:
        if isinstance(parameters, Parameter) or not isinstance(parameters, Iterable):
            raise TypeError(f"expected model.parameters(), got {parameters!r}")
        self.parameters = list(parameters)
        if not self.parameters:
            raise ValueError("no parameters given")
        for parameter in self.parameters:
            if not isinstance(parameter, Parameter):
                raise TypeError(f"expected parameters, got {parameter!r}")
        if len({id(parameter) for parameter in self.parameters}) < len(self.parameters):
            raise ValueError("the same parameter was given twice")
        dtypes = {parameter.dtype for parameter in self.parameters}
        if len(dtypes) > 1:
            raise TypeError(f"all parameters must have one dtype, got {sorted(map(str, dtypes))}")
        self.dtype = dtypes.pop()
        step = ALIGNMENT // self.dtype.itemsize
        sizes = [-(-parameter.size // step) * step for parameter in self.parameters]
        # A line before the first, so that the vector's address is that of no parameter: a
        # recorded step tells by its address what a kernel is given.
        *self.starts, self.size = np.cumsum([step, *sizes]).tolist()
        self.data, self.grad = self.zeros(), self.zeros()
        for parameter, start in zip(self.parameters, self.starts, strict=True):
            part = slice(start, start + parameter.size)
            parameter.move(
                self.data[part].reshape(parameter.shape), self.grad[part].reshape(parameter.shape)
            )
        self._views = [(parameter.data, parameter.grad) for parameter in self.parameters]

    def __getstate__(self) -> dict[str, Any]:
        # A copy, by copy or pickle, lays out vectors of its own for the copied parameters.
        return {"parameters": self.parameters}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["parameters"])  # type: ignore[misc]

    def zeros(self) -> Array:
        """A vector of the same layout: for moments."""
        spare = ALIGNMENT // self.dtype.itemsize
        buffer = np.zeros(self.size + spare, self.dtype)
        start = -buffer.ctypes.data % ALIGNMENT // self.dtype.itemsize
        return buffer[start : start + self.size]

    def check(self) -> None:
        """Raise RuntimeError if a parameter has left the vectors."""
        for parameter, (data, grad) in zip(self.parameters, self._views, strict=True):
            if not (_same(parameter.data, data) and _same(parameter.grad, grad)):
                raise RuntimeError(
                    f"parameter {parameter.name or parameter!r} has left this optimizer: it was "
                    "handed to another optimizer, reset or converted. Build the optimizer last."
                )


def _same(array: Array, view: Array) -> bool:
    """Whether an array is this view, or (while a step is recorded) another of the same memory."""
    return array is view or array.ctypes.data == view.ctypes.data
