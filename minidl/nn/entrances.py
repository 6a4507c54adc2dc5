"""What takes the inputs of a model: which layer, under which name, with whose lengths."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

from minidl.nn.array_checks import is_lengths
from minidl.nn.branches import Parallel
from minidl.nn.containers import Sequential
from minidl.nn.data_checks import NOT_ROWS
from minidl.nn.layer import Layer
from minidl.typing import Array


@dataclass(frozen=True)
class Entrance:
    """What becomes of one input of a model.

    Attributes
    ----------
    layer
        The layer that takes it as its first input; None where there is none.
    lengths_of
        The number of the input whose sequences have these lengths; None for anything else.
    """

    layer: Layer | None
    lengths_of: int | None = None


def first_layer(model: Layer) -> Layer:
    """Return the layer that gets the inputs of a model: the first one of every ``Sequential``."""
    while isinstance(model, Sequential) and type(model).forward is Sequential.forward:
        if not model.stack:
            break
        model = model.stack[0]
    return model


def takes_lengths(model: Layer) -> bool:
    """Return whether a layer of the model takes the lengths of sequences."""
    return any(layer.takes_lengths for _, layer in model.layers())


def input_names(model: Layer) -> list[str]:
    """Return the names of a model's inputs: of its first branches, or of arguments of forward."""
    first = first_layer(model)
    if isinstance(first, Parallel):
        return list(first.branches)
    parameters = inspect.signature(first.forward).parameters.values()
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def most_inputs(model: Layer) -> int | None:
    """Return how many inputs a model takes at most, with lengths; None for any number."""
    first = first_layer(model)
    if first.most_inputs is None or first is model or not takes_lengths(model):
        return first.most_inputs
    return max(first.most_inputs, 2)  # the second one may be lengths


def entrances(model: Layer, arrays: list[Array]) -> list[Entrance]:
    """Return what becomes of each of these inputs of a model.

    Raises
    ------
    TypeError
        For another number of inputs than of branches.
    """
    first = first_layer(model)
    if not isinstance(first, Parallel):
        has_lengths = len(arrays) == 2 and takes_lengths(model) and is_lengths(arrays[1])
        others = [Entrance(None, 0 if has_lengths else None) for _ in arrays[1:]]
        return [Entrance(model), *others]
    given, found = first.by_branch(tuple(arrays)), list[Entrance]()
    layers = list(first.branches.values()) if len(given) > 1 else [model]
    for layer, (_, lengths) in zip(layers, given, strict=True):
        found.append(Entrance(layer))
        if lengths is not None:
            found.append(Entrance(None, len(found) - 1))
    return found


def check_number_of_inputs(name: str, count: int, model: Layer) -> None:
    """Raise TypeError if the model cannot be called with so many inputs."""
    most = most_inputs(model)
    if most is not None and count > most:
        there = " there" * name.endswith("]")  # a part of X, for one of several branches
        raise TypeError(
            f"{name} is a tuple of {count:,}, the model takes {most} at most{there}; {NOT_ROWS}"
        )
