"""Which tensors of a state dict of PyTorch hold which parameters and state of a model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from minidl import nn
from minidl.nn.layer import Layer, joined
from minidl.nn.parameter import Parameter
from minidl.nn.recurrent.cells import RecurrentCell
from minidl.nn.recurrent.sequence import Recurrent
from minidl.typing import Array

# PyTorch keeps a weight as (out_features, in_features): of a recurrent cell, too.
OF_CELLS = {
    "input_weight": ("weight_ih",),
    "recurrent_weight": ("weight_hh",),
    # Two biases where one is enough: they are added up.
    "bias": ("bias_ih", "bias_hh"),
}
OF_GRU_CELLS = {**OF_CELLS, "bias": ("bias_ih",), "recurrent_bias": ("bias_hh",)}


@dataclass(frozen=True)
class Slot:
    """A parameter or an array of a model, and the tensors that hold it.

    Of several tensors, it is the sum. ``transposed`` says that PyTorch keeps it the other way
    round, ``optional`` that a state dict may be without it, ``least`` what it can hold at least.
    """

    names: tuple[str, ...]
    place: Parameter | Array
    transposed: bool = False
    optional: bool = False
    least: float = -np.inf

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of each tensor."""
        return self.place.shape[::-1] if self.transposed else self.place.shape

    @property
    def values(self) -> Array:
        """The numbers as PyTorch keeps them."""
        data = self.place.data if isinstance(self.place, Parameter) else self.place
        return np.ascontiguousarray(data.T) if self.transposed else np.array(data)

    def fill(self, values: Array) -> None:
        """Set the numbers to those of PyTorch's."""
        values = values.T if self.transposed else values
        if isinstance(self.place, Parameter):
            self.place.data = values
        else:
            self.place[...] = values


def slots(layer: Layer, path: str = "") -> Iterator[Slot]:
    """Yield the slots of a layer and of all below it; a layer that is there twice comes twice.

    Raises
    ------
    TypeError
        For a layer of the user's with parameters of its own: PyTorch may keep them in any way.
    """
    match layer:
        case RecurrentCell():
            yield from _of_cell(layer, path, "")
        case Recurrent():
            directions = 1 + layer.bidirectional
            for index, cell in enumerate(layer.cells):
                level, reverse = divmod(index, directions)
                yield from _of_cell(cell, path, f"_l{level}{'_reverse' * reverse}")
        case _:
            yield from _own(layer, path)
            for name, child in layer.children():
                yield from slots(child, joined(path, name))


def _of_cell(cell: RecurrentCell, path: str, suffix: str) -> Iterator[Slot]:
    """Yield the slots of a recurrent cell, whose names end as those of its level and direction."""
    named = OF_GRU_CELLS if isinstance(cell, nn.GRUCell) else OF_CELLS
    for ours, theirs in named.items():
        names = tuple(joined(path, f"{name}{suffix}") for name in theirs)
        yield Slot(names, getattr(cell, ours), transposed="weight" in ours)


def _own(layer: Layer, path: str) -> Iterator[Slot]:
    """Yield the slots of a layer, without those of the layers in it."""
    match layer:
        case nn.Linear():
            yield Slot((joined(path, "weight"),), layer.weight, transposed=True)
            if layer.bias is not None:
                yield Slot((joined(path, "bias"),), layer.bias)
        case nn.PReLU() | nn.Embedding():
            yield Slot((joined(path, "weight"),), layer.weight)
        case nn.BatchNorm() | nn.LayerNorm() | nn.RMSNorm():
            yield Slot((joined(path, "weight"),), layer.gamma)
            if not isinstance(layer, nn.RMSNorm):
                yield Slot((joined(path, "bias"),), layer.beta)
        case _ if layer.own_parameters():
            raise TypeError(
                f"{layer.label}: it is not known how PyTorch keeps its parameters; set them by "
                "hand, parameter.data = ..."
            )
    for name, array in _state(layer).items():
        yield Slot((joined(path, name),), array, least=layer.state_minimum.get(name, -np.inf))
    if isinstance(layer, nn.BatchNorm):  # a count that minidl does not need
        count = np.zeros((), np.int64)
        yield Slot((joined(path, "num_batches_tracked"),), count, optional=True)


def _state(layer: Layer) -> dict[str, Array]:
    """Return the state that a layer itself keeps, without generators of random numbers."""
    arrays = {name: getattr(layer, name) for name in layer.state_names}
    return {name: array for name, array in arrays.items() if array.dtype.kind == "f"}
