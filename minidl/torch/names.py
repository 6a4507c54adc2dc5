"""Which tensors of a state dict of PyTorch hold which parameters and state of a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from minidl import nn
from minidl.nn.layer import Layer, joined
from minidl.nn.parameter import Parameter
from minidl.nn.recurrent.cells import RecurrentCell
from minidl.nn.recurrent.sequence import Recurrent
from minidl.typing import Array

# The order in PyTorch of the features that a layer takes, by the layer's id.
Orders = Mapping[int, Array]
NONE: Orders = {}

TURNED = (1, 0)  # (in_features, out_features) as PyTorch keeps it, (out_features, in_features)

# Of each layer, its parameters: the name that PyTorch has for them, and the order of their axes
# there, None for the same. Arrays of state have the same name and order in both.
PARAMETERS: dict[type[Layer], dict[str, tuple[str, tuple[int, ...] | None]]] = {
    nn.Linear: {"weight": ("weight", TURNED), "bias": ("bias", None)},
    # (kernel, in / groups, out) as PyTorch keeps it, (out, in / groups, kernel)
    nn.Conv1d: {"weight": ("weight", (2, 1, 0)), "bias": ("bias", None)},
    nn.Conv2d: {"weight": ("weight", (3, 2, 0, 1)), "bias": ("bias", None)},
    nn.Embedding: {"weight": ("weight", None)},
    nn.PReLU: {"weight": ("weight", None)},
    nn.BatchNorm: {"gamma": ("weight", None), "beta": ("bias", None)},
    nn.LayerNorm: {"gamma": ("weight", None), "beta": ("bias", None)},
    nn.RMSNorm: {"gamma": ("weight", None)},
}
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

    Of several tensors, it is the sum. ``order`` has its axes as PyTorch keeps them, ``features``
    the indices along its first axis, None for the same; ``optional`` says that a state dict may be
    without it, ``least`` what it holds at least.
    """

    names: tuple[str, ...]
    place: Parameter | Array
    order: tuple[int, ...] | None = None
    optional: bool = False
    least: float = -np.inf
    features: Array | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of each tensor."""
        shape = self.place.shape
        return shape if self.order is None else tuple(shape[axis] for axis in self.order)

    @property
    def values(self) -> Array:
        """The numbers as PyTorch keeps them."""
        data = self.place.data if isinstance(self.place, Parameter) else self.place
        data = data if self.features is None else data[self.features]
        return np.array(data if self.order is None else data.transpose(self.order), order="C")

    def fill(self, values: Array) -> None:
        """Set the numbers to those of PyTorch's."""
        if self.order is not None:
            values = values.transpose([int(axis) for axis in np.argsort(self.order)])
        if self.features is not None:
            values = values[np.argsort(self.features)]
        if isinstance(self.place, Parameter):
            self.place.data = values
        else:
            self.place[...] = values


def slots(layer: Layer, path: str = "", orders: Orders = NONE) -> Iterator[Slot]:
    """Yield the slots of a layer and of all below it; a layer that is there twice comes twice.

    ``orders`` has the order in PyTorch of the features that a layer takes, by the layer's ``id``.

    Raises
    ------
    TypeError
        For a layer of the user's with parameters of its own: PyTorch may keep them in any way.
    """
    match layer:
        case RecurrentCell():
            yield from _of_cell(layer, path, "", orders.get(id(layer)))
        case Recurrent():
            directions = 1 + layer.bidirectional
            for index, cell in enumerate(layer.cells):
                level, reverse = divmod(index, directions)
                features = orders.get(id(layer)) if level == 0 else None
                yield from _of_cell(cell, path, f"_l{level}{'_reverse' * reverse}", features)
        case nn.ChannelsFirst():  # its module is that of the layer inside
            yield from slots(layer.inner, path, orders)
        case _:
            yield from _own(layer, path, orders.get(id(layer)))
            for name, child in layer.children():
                yield from slots(child, joined(path, name), orders)


def _of_cell(cell: RecurrentCell, path: str, suffix: str, features: Array | None) -> Iterator[Slot]:
    """Yield the slots of a recurrent cell, whose names end as those of its level and direction."""
    named = OF_GRU_CELLS if isinstance(cell, nn.GRUCell) else OF_CELLS
    for ours, theirs in named.items():
        names = tuple(joined(path, f"{name}{suffix}") for name in theirs)
        order = features if ours == "input_weight" else None
        turned = TURNED if "weight" in ours else None
        yield Slot(names, getattr(cell, ours), turned, features=order)


def _own(layer: Layer, path: str, features: Array | None) -> Iterator[Slot]:
    """Yield the slots of a layer, without those of the layers in it."""
    known = next((PARAMETERS[kind] for kind in type(layer).__mro__ if kind in PARAMETERS), {})
    own = dict(layer._members(Parameter))
    if not own.keys() <= known.keys():
        raise TypeError(
            f"{layer.label}: it is not known how PyTorch keeps its parameters; set them by hand, "
            "parameter.data = ..."
        )
    for ours, parameter in own.items():
        name, order = known[ours]
        own_order = None if name == "bias" and isinstance(layer, nn.Linear) else features
        yield Slot((joined(path, name),), parameter, order, features=own_order)
    for name, array in _state(layer).items():
        least = layer.state_minimum.get(name, -np.inf)
        yield Slot((joined(path, name),), array, least=least, features=features)
    if isinstance(layer, nn.BatchNorm):  # a count that minidl does not need
        count = np.zeros((), np.int64)
        yield Slot((joined(path, "num_batches_tracked"),), count, optional=True)


def _state(layer: Layer) -> dict[str, Array]:
    """Return the state that a layer itself keeps, without generators of random numbers."""
    arrays = {name: getattr(layer, name) for name in layer.state_names}
    return {name: array for name, array in arrays.items() if array.dtype.kind == "f"}
