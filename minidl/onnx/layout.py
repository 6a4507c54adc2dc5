"""Where the channels of images and sequences are: last in minidl, on axis 1 in ONNX.

An operator that has them on axis 1 is written between two transposes. A second such operator takes
the result of the first one from within its transposes, and so does what works on any layout, such
as an activation; what nothing uses in the end is dropped, so that transposes stand at the border
only. Reading does the same in ``channels_last``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl import nn
from minidl.nn.layer import Layer
from minidl.onnx import adapters
from minidl.onnx.writer import Value, Writer
from minidl.typing import Array

# Layers that do the same wherever the channels are.
ANYWHERE = (
    *(nn.ReLU, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus),
    *(nn.Sigmoid, nn.Tanh, nn.Softsign, nn.HardSigmoid, nn.HardSwish, nn.Identity, nn.Dropout),
    *(nn.Add, nn.Multiply, adapters.Add, adapters.Multiply),
)


def is_anywhere(layer: Layer) -> bool:
    """Return whether a layer does the same wherever the channels are."""
    if isinstance(layer, nn.Sequential):
        return all(map(is_anywhere, layer.stack))
    if isinstance(layer, nn.PReLU):
        return layer.in_features is None
    if isinstance(layer, adapters.Affine):
        return bool(layer.scale.size == layer.shift.size == 1)
    return isinstance(layer, ANYWHERE)


def channels_first(rank: int) -> list[int]:
    """Return the order of axes that brings the last one, of the channels, to axis 1."""
    return [0, rank - 1, *range(1, rank - 1)]


def channels_last(rank: int) -> list[int]:
    """Return the order of axes that brings axis 1 to the end."""
    return [0, *range(2, rank), 1]


def turned(writer: Writer, x: Value) -> str:
    """Return the name of a value with the channels on axis 1; write the transpose if need be."""
    rank = x.array.ndim
    if rank < 3:
        return x.name
    if x.name not in writer.turned:
        writer.turned[x.name] = writer.one("Transpose", x.name, perm=channels_first(rank))
    return writer.turned[x.name]


def turned_back(writer: Writer, name: str, rank: int) -> str:
    """Return the name of a value with the channels last, given that with them on axis 1."""
    if rank < 3:
        return name
    back = writer.one("Transpose", name, perm=channels_last(rank))
    writer.turned[back] = name
    return back


def with_channels_first(
    writer: Writer, kind: str, inputs: list[Value], *constants: str, **attributes: Any
) -> list[str]:
    """Write an operator that has the channels on axis 1."""
    names = [turned(writer, x) for x in inputs]
    y = writer.one(kind, *names, *constants, **attributes)
    return [turned_back(writer, y, inputs[0].array.ndim)]


def all_turned(writer: Writer, inputs: list[Value]) -> bool:
    """Return whether all values are there with the channels on axis 1, too."""
    return all(x.name in writer.turned for x in inputs)


def first_array(x: Array) -> Array:
    """Return an array with the last axis on axis 1."""
    return np.ascontiguousarray(np.moveaxis(x, -1, 1))
