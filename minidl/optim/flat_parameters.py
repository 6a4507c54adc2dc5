"""All parameters in one vector, all gradients in another."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from minidl._kernels.memory import LINE, aligned_zeros
from minidl.nn.parameter import Parameter
from minidl.typing import Array


class FlatParameters:
    """Parameters whose values and gradients are views into two contiguous vectors.

    A norm is then one reduction and an update one pass, whatever the number of layers. Each
    parameter begins on a cache line; the few elements before the first and between two of them stay
    zero. Groups of parameters lie one after the other; ``parts`` are their slices of the vectors.
    Frozen parameters are not in the vectors.

    Parameters
    ----------
    *groups
        The parameters of each group; at least one in all must not be frozen.
    """

    def __init__(self, *groups: Iterable[Parameter]) -> None:
        self._lay_out([_listed(group) for group in groups])

    def _lay_out(self, given: list[list[Parameter]]) -> None:
        """Allocate the vectors and move the parameters into them."""
        everything = [parameter for group in given for parameter in group]
        if len({id(parameter) for parameter in everything}) < len(everything):
            raise ValueError("the same parameter was given twice")
        self.groups = [[p for p in group if not p.frozen] for group in given]
        if not any(self.groups):
            raise ValueError("all parameters given are frozen: there is nothing to train")
        self.frozen = [parameter for parameter in everything if parameter.frozen]
        self.parameters = [parameter for group in self.groups for parameter in group]
        dtypes = {parameter.dtype for parameter in self.parameters}
        if len(dtypes) > 1:
            raise TypeError(f"all parameters must have one dtype, got {sorted(map(str, dtypes))}")
        self.dtype = dtypes.pop()
        step = LINE // self.dtype.itemsize
        # A cache line before the first parameter of a group, so that no parameter has the address
        # of a vector or of a part: recording identifies the arrays of a kernel by their addresses.
        self.starts: list[int] = []
        self.parts: list[slice] = []
        self.size = 0
        for group in self.groups:
            begin, end = self.size, self.size + step
            for parameter in group:
                self.starts.append(end)
                end += -(-parameter.size // step) * step
            self.parts.append(slice(begin, end))
            self.size = end
        self.data, self.grad = self.zeros(), self.zeros()
        for parameter, start in zip(self.parameters, self.starts, strict=True):
            part = slice(start, start + parameter.size)
            parameter.move(
                self.data[part].reshape(parameter.shape), self.grad[part].reshape(parameter.shape)
            )
        self._views = [(parameter.data, parameter.grad) for parameter in self.parameters]

    def __getstate__(self) -> dict[str, Any]:
        # A copy, by copy or pickle, allocates vectors of its own for the copied parameters.
        return {"groups": self.groups, "frozen": self.frozen}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._lay_out(state["groups"])
        self.frozen = state["frozen"]

    def zeros(self) -> Array:
        """Return a vector of zeros of the same layout, for moments."""
        return aligned_zeros(self.size * self.dtype.itemsize).view(self.dtype)

    def check(self) -> None:
        """Raise RuntimeError if a parameter has left the vectors, or was frozen meanwhile."""
        for parameter, (data, grad) in zip(self.parameters, self._views, strict=True):
            if not parameter.lies_in(data, grad):
                raise RuntimeError(
                    f"parameter {parameter.name or parameter!r} has left this optimizer: it was "
                    "handed to another optimizer, reset or converted. Build the optimizer last."
                )
            if parameter.frozen:
                raise RuntimeError(
                    f"parameter {parameter.name or parameter!r} was frozen after this optimizer "
                    "was built, which would still change it: freeze first, then build it"
                )


def _listed(parameters: Iterable[Parameter]) -> list[Parameter]:
    """Return parameters as a list; raise for anything else."""
    if isinstance(parameters, (Parameter, dict)) or not isinstance(parameters, Iterable):
        raise TypeError(f"expected model.parameters(), got {parameters!r}")
    parameters = list(parameters)
    if not parameters:
        raise ValueError("no parameters given")
    for parameter in parameters:
        if not isinstance(parameter, Parameter):
            raise TypeError(f"expected parameters, got {parameter!r}")
    return parameters
