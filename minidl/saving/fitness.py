"""Whether a layer from a file can be: it is compared with what its constructor makes.

The constructor of one of minidl's own layers checks hyper-parameters, and lays out parameters and
arrays. It is called with the numbers and words of the layer that share a name with its arguments;
what it makes must be like the layer, whatever the values of its arrays are.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np

from minidl.nn.branches import JOINS, Parallel
from minidl.nn.container import Container
from minidl.nn.containers import Sequential
from minidl.nn.dropout import Dropout
from minidl.nn.forms import is_ours
from minidl.nn.layer import KEPT, Layer
from minidl.nn.layout import ChannelsFirst
from minidl.nn.parameter import Parameter
from minidl.nn.recurrent.sequence import Recurrent
from minidl.nn.residual import Residual
from minidl.saving.tensor_file import shortened

LARGEST_SETTING = 4096  # of a whole number that is not the size of any array, such as a stride
PLAIN = (bool, int, float, str, type(None))
NUMBERS = (bool, int, float)
# Arguments of constructors that layers hold under another name.
HELD_AS = {
    "features": "in_features",
    "in_channels": "in_features",
    "out_channels": "out_features",
}


def check_fits(layer: Layer) -> None:
    """Raise ValueError or TypeError for one of minidl's layers that its constructor never makes."""
    kind = type(layer)
    if not is_ours(kind) or issubclass(kind, Container):
        _check_container(layer)
        return
    if hasattr(kind, "check_held"):  # a layer of a loaded graph, which has its own check
        kind.check_held(layer)
        return
    _check_sizes(layer)
    if isinstance(layer, Recurrent):
        _check_recurrent(layer)
    _check_alike(kind(**_arguments(layer)), layer, kind.__name__)


def _check_container(layer: Layer) -> None:
    """Raise for a container of anything but layers."""
    kind = type(layer).__name__
    if isinstance(layer, ChannelsFirst) and not isinstance(layer.inner, Layer):
        raise ValueError(f"{kind}.inner must be a layer")
    if isinstance(layer, Sequential) and not _are(layer.stack, Layer):
        raise ValueError(f"{kind}.stack must be a tuple of layers")
    if isinstance(layer, Residual) and not (
        isinstance(layer.body, Layer) and isinstance(layer.shortcut, Layer | None)
    ):
        raise ValueError(f"{kind} must have a layer as body, and one or None as shortcut")
    if isinstance(layer, Parallel) and not (
        isinstance(layer.branches, dict)
        and all(isinstance(name, str) for name in layer.branches)
        and _are(tuple(layer.branches.values()), Layer)
        and layer.join in JOINS
        and type(layer.joint) is (JOINS[layer.join] or type(None))
    ):
        raise ValueError(f"{kind} must have layers as branches, and a join that is known")


def _are(values: Any, kind: type[Any]) -> bool:
    return isinstance(values, tuple) and all(isinstance(value, kind) for value in values)


def _check_recurrent(layer: Recurrent) -> None:
    """Raise if cells and dropouts are not as many as the layer says."""
    name, directions = type(layer).__name__, 1 + bool(layer.bidirectional)
    if not _are(layer.cells, layer.cell_type) or not _are(layer.dropouts, Dropout):
        raise ValueError(f"{name} must have cells and dropouts")
    if len(layer.cells) != layer.num_layers * directions:
        raise ValueError(f"{name} has {len(layer.cells)} cells for {layer.num_layers} layers")
    if len(layer.dropouts) not in (0, len(layer.cells) - directions):
        raise ValueError(f"{name} has {len(layer.dropouts)} dropouts")


def _check_sizes(layer: Layer) -> None:
    """Raise for a whole number with which the constructor would allocate more than the file has."""
    largest = max([LARGEST_SETTING, *_sizes(layer)])
    for name, value in vars(layer).items():
        for number in _flat(value):
            if isinstance(number, np.generic) or (type(number) is int and abs(number) > largest):
                raise ValueError(f"{type(layer).__name__}.{name} is {shortened(value)}")


def _sizes(layer: Layer) -> Iterator[int]:
    """Yield the sizes of all arrays in a layer and below it."""
    for _, inner in layer.layers():
        for value in vars(inner).values():
            if isinstance(value, (Parameter, np.ndarray)):
                yield from value.shape


def _flat(value: Any) -> Iterator[Any]:
    """Yield a value, or those of a tuple and of the tuples in it."""
    if isinstance(value, tuple):
        for item in value:
            yield from _flat(item)
    else:
        yield value


def _arguments(layer: Layer) -> dict[str, Any]:
    """Return what the constructor is called with: what the layer holds under the same names."""
    held = vars(layer)
    found: dict[str, Any] = {}
    for name, argument in inspect.signature(type(layer)).parameters.items():
        value = held.get(name, held.get(HELD_AS.get(name, name)))
        if name == "rng":
            found[name] = 0
        elif name == "dropout" and isinstance(layer, Recurrent):
            found[name] = layer.dropouts[0].p if layer.dropouts else 0.0
        elif isinstance(argument.default, bool):
            found[name] = value is not None and value is not False
        elif _is_plain(value) and (name in held or value is not None):
            found[name] = value
    return found


def _is_plain(value: Any) -> bool:
    """Whether a value is a number, a word, None, or a tuple of such, as a size of two numbers."""
    return type(value) in PLAIN or (type(value) is tuple and all(map(_is_plain, value)))


def _check_alike(made: Any, layer: Any, where: str) -> None:
    """Raise unless a value from a file is like that which the constructor has made."""
    if isinstance(made, (Parameter, np.ndarray)):
        alike = type(layer) is type(made) and layer.shape == made.shape
        if not alike or layer.dtype.kind != made.dtype.kind:
            raise ValueError(f"{where} should have the shape {made.shape}")
    elif isinstance(made, Layer):
        if type(layer) is not type(made):
            raise ValueError(f"{where} should be a layer of the class {type(made).__name__}")
        for name, value in vars(made).items():
            if name in KEPT or name in made.pass_names or name == "path":
                continue
            if name not in vars(layer):  # an option that is newer than the file
                if not _is_plain(value):
                    raise ValueError(f"{where} should hold {name}")
                vars(layer)[name] = value
            _check_alike(value, vars(layer)[name], f"{where}.{name}")
    elif isinstance(made, tuple):
        if type(layer) is not tuple or len(layer) != len(made):
            raise ValueError(f"{where} should hold {len(made)}")
        for index, (one, other) in enumerate(zip(made, layer, strict=True)):
            _check_alike(one, other, f"{where}.{index}")
    elif type(layer) is type(made) or (type(made), type(layer)) == (float, int):
        if isinstance(made, NUMBERS) and where.rpartition(".")[2].startswith("_") and layer != made:
            raise ValueError(f"{where} should be {made}, and is {shortened(layer)}")
    else:
        raise ValueError(f"{where} should be like {made!r}, and is {shortened(layer)}")
