"""Writing a model: each layer by the function that is registered for it, containers as below."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from minidl import nn
from minidl.nn.array_checks import is_lengths
from minidl.nn.layer import Layer
from minidl.nn.lengths import steps_in, steps_of_last
from minidl.onnx import adapters
from minidl.onnx.branch_layers import joined
from minidl.onnx.layers import WRITERS
from minidl.onnx.layout import all_turned, first_array, is_anywhere, turned, turned_back
from minidl.onnx.network import Network
from minidl.onnx.writer import Value, Writer

Function = TypeVar("Function")
# A function that writes the layers in a container; the values that it returns are computed.
WriteContainer = Callable[[Writer, Any, list[Value]], list[Value]]

CONTAINERS: dict[type[Layer], WriteContainer] = {}


def contains(kind: type[Layer]) -> Callable[[WriteContainer], WriteContainer]:
    """Register the function that writes a class of containers."""

    def register(function: WriteContainer) -> WriteContainer:
        CONTAINERS[kind] = function
        return function

    return register


def write(writer: Writer, layer: Layer, inputs: list[Value]) -> list[Value]:
    """Write a layer, or the layers of a container; return the values that it gives."""
    if any(value.name in writer.nested for value in inputs):
        raise TypeError(
            f"export: {layer.label} would get a tuple within a tuple, which ONNX does not have; "
            "join or choose the outputs of each branch before"
        )
    if (container := _registered(CONTAINERS, layer)) is not None:
        return container(writer, layer, inputs)
    function = _registered(WRITERS, layer)
    if function is None:
        raise TypeError(
            f"export: {layer.label} is a layer that ONNX has no operator for; only models made of "
            "minidl's own layers can be written"
        )
    writer.path = layer.path
    if is_anywhere(layer) and all_turned(writer, inputs):
        first = [Value(turned(writer, x), first_array(x.array)) for x in inputs]
        rank = inputs[0].array.ndim
        names = [turned_back(writer, name, rank) for name in function(writer, layer, first)]
    else:
        names = function(writer, layer, inputs)
    outputs = layer(*(value.array for value in inputs))
    arrays = outputs if isinstance(outputs, tuple) else (outputs,)
    return [Value(name, array) for name, array in zip(names, arrays, strict=True)]


def _registered(table: Mapping[type[Layer], Function], layer: Layer) -> Function | None:
    """Return the function for a layer, also for a subclass with the same forward pass."""
    kind: Any = next((kind for kind in type(layer).__mro__ if kind in table), None)
    return table[kind] if kind is not None and type(layer).forward is kind.forward else None


@contains(nn.Sequential)
def _sequential(writer: Writer, model: nn.Sequential, inputs: list[Value]) -> list[Value]:
    values, lengths = _apart(model, inputs)
    steps = steps_of_last(tuple(value.array for value in values))
    for layer in model.stack:
        given = _with_lengths(layer, values, lengths)
        if given is not values and layer is not model.stack[0] and isinstance(layer, nn.Parallel):
            given = _between(layer, given, steps)
        values = write(writer, layer, given)
        if steps not in steps_in(tuple(value.array for value in values)):
            lengths = None  # the time axis is gone
    return values


@contains(nn.Residual)
def _residual(writer: Writer, block: nn.Residual, inputs: list[Value]) -> list[Value]:
    around, lengths = _apart(block, inputs)
    body = write(writer, block.body, _with_lengths(block.body, around, lengths))
    if block.shortcut is not None:
        around = write(writer, block.shortcut, _with_lengths(block.shortcut, around, lengths))
    writer.path = block.path
    pairs = zip(body, around, strict=True)
    return [Value(joined(writer, "Add", [y, x])[0], y.array + x.array) for y, x in pairs]


@contains(nn.Parallel)
def _parallel(writer: Writer, layer: nn.Parallel, inputs: list[Value]) -> list[Value]:
    values = {id(value.array): value for value in inputs}
    given = layer.by_branch(tuple(value.array for value in inputs))
    given = given * len(layer.branches) if len(given) == 1 else given
    by_branch = []
    for branch, (x, lengths) in zip(layer.branches.values(), given, strict=True):
        own = [values[id(x)]]
        if lengths is not None and branch.takes_lengths:
            own.append(values[id(lengths)])
        by_branch.append(write(writer, branch, own))
    writer.nested.update(y.name for outputs in by_branch if len(outputs) > 1 for y in outputs)
    together = [y for outputs in by_branch for y in outputs]
    return together if layer.joint is None else write(writer, layer.joint, together)


@contains(nn.ChannelsFirst)
def _channels_first(writer: Writer, layer: nn.ChannelsFirst, inputs: list[Value]) -> list[Value]:
    (x,) = inputs
    writer.path = layer.path
    if x.array.ndim > 2:
        x = Value(turned_back(writer, x.name, x.array.ndim), np.moveaxis(x.array, 1, -1).copy())
    (y,) = write(writer, layer.inner, [x])
    writer.path = layer.path
    return [Value(turned(writer, y), first_array(y.array)) if y.array.ndim > 2 else y]


def _apart(layer: Layer, inputs: list[Value]) -> tuple[list[Value], Value | None]:
    """Return the inputs of a container, and the lengths behind them, if it takes any."""
    *others, last = inputs
    if others and layer.takes_lengths and is_lengths(last.array):
        return others, last
    return inputs, None


def _with_lengths(layer: Layer, inputs: list[Value], lengths: Value | None) -> list[Value]:
    """Return the inputs of a layer, with the lengths behind them if it takes any."""
    return [*inputs, lengths] if lengths is not None and layer.takes_lengths else inputs


def _between(layer: nn.Parallel, inputs: list[Value], steps: int | None) -> list[Value]:
    """Return the inputs of branches, with the lengths behind all sequences of so many steps."""
    *arrays, lengths = (value.array for value in inputs)
    if not len(arrays) == len(layer.branches) > 1:
        return inputs
    values = {id(value.array): value for value in inputs}
    return [values[id(x)] for x in layer.with_lengths(tuple(arrays), lengths, steps)]


@contains(Network)
def _network(writer: Writer, model: Network, inputs: list[Value]) -> list[Value]:
    values = dict(zip(model.inputs, inputs, strict=True))
    for layer, (names, results) in zip(model.stack, model.wiring, strict=True):
        outputs = write(writer, layer, [values[name] for name in names])
        values.update(zip(results, outputs, strict=True))
    return [values[name] for name in model.outputs]


@contains(adapters.AsRows)
def _as_rows(writer: Writer, layer: adapters.AsRows, inputs: list[Value]) -> list[Value]:
    (x,) = inputs
    lead, rest = x.array.shape[: layer.axis], x.array.shape[1:]
    writer.path = layer.path
    rows = writer.one("Flatten", x.name, axis=layer.axis)
    (y,) = write(writer, layer.inner, [Value(rows, x.array.reshape(math.prod(lead), -1))])
    if y.array.size == x.array.size:
        sizes = (-1, *rest)
    else:
        sizes = (-1, *lead[1:], *y.array.shape[1:][: len(lead)])
    writer.path = layer.path
    return [Value(writer.one("Reshape", y.name, writer.shape(*sizes)), layer(x.array))]


@contains(adapters.OnAxis)
def _on_axis(writer: Writer, layer: adapters.OnAxis, inputs: list[Value]) -> list[Value]:
    (x,) = inputs
    there = list(range(x.array.ndim))
    there.append(there.pop(layer.axis))
    writer.path = layer.path
    last = Value(writer.one("Transpose", x.name, perm=there), x.array.transpose(there).copy())
    (y,) = write(writer, layer.inner, [last])
    writer.path = layer.path
    back = [int(place) for place in np.argsort(there)]
    return [Value(writer.one("Transpose", y.name, perm=back), y.array.transpose(back).copy())]
