"""Several inputs or outputs of a layer, as tuples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minidl import kernels
from minidl.nn.layer import Layer
from minidl.typing import Array

# The shape of an array, such as ("batch", 64), or a tuple of shapes; None where it is not known.
Shape = tuple[Any, ...] | None


def through(layer: Layer, x: Any, lengths: Array | None = None) -> Any:
    """Return what a layer gives for an input or a tuple of them, with lengths if it takes any."""
    return layer(x, lengths=lengths) if lengths is not None and layer.takes_lengths else layer(x)


def backward_through(layer: Layer, dy: Any) -> Any:
    """Return what a layer's backward pass gives for a gradient, or for a tuple of them."""
    return layer.backward(*dy) if type(dy) is tuple else layer.backward(dy)


def one_or_all(inputs: tuple[Any, ...]) -> Any:
    """Return what a layer is to be called with for these inputs: the only array, or the tuple.

    An only tuple stays within one, because a layer takes apart the tuple that it is called with.
    """
    return inputs[0] if len(inputs) == 1 and type(inputs[0]) is not tuple else inputs


def of_each(x: Any, function: Callable[[Array], Any]) -> Any:
    """Return a function of an array, or of each array in tuples within tuples."""
    return tuple(of_each(part, function) for part in x) if type(x) is tuple else function(x)


def added(a: Any, b: Any) -> Any:
    """Return the sum of two arrays, or tuples of arrays; None stands for zero."""
    if a is None or b is None:
        return b if a is None else a
    if type(a) is tuple:
        return tuple(added(*both) for both in zip(a, b, strict=True))
    return kernels.add(a, b)


def shapes_of(x: Any) -> Any:
    """Return the shape of an array, or the shapes of a tuple of arrays."""
    return of_each(x, lambda array: array.shape)


def is_several(shape: tuple[Any, ...] | None) -> bool:
    """Return whether this is a tuple of shapes, and not a shape."""
    return shape is not None and not all(isinstance(size, (int, str)) for size in shape)


def without_tuple_of_one(shape: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
    """Return the shape of the array in a tuple of one, which containers take as the array.

    Other shapes are returned as they are.
    """
    if shape is not None and is_several(shape) and len(shape) == 1:
        (shape,) = shape
    return shape
