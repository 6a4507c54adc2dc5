"""Images and sequences with their channels on axis 1, for layers that have them last."""

from __future__ import annotations

from collections.abc import Iterator

from minidl import kernels
from minidl.nn.activations import ReLU
from minidl.nn.container import Container, form_after
from minidl.nn.containers import Sequential
from minidl.nn.convolution import Conv1d, Conv2d
from minidl.nn.forms import Form
from minidl.nn.layer import Examples, Layer
from minidl.nn.reshape import Flatten
from minidl.nn.summary import Member, describe_branch
from minidl.nn.tuples import Shape
from minidl.typing import Array


class ChannelsFirst(Container):
    """A layer with the channels last, for inputs with the channels on axis 1, as PyTorch has them.

    y = first(inner(last(x))),  where last moves axis 1 to the end, and first moves it back

    Only the input and the output are transposed: within ``inner`` the channels stay last. Rows
    (batch, features) are the same in both layouts.

    Parameters
    ----------
    inner
        A layer, such as a ``Sequential`` of convolutions.

    Shapes
    ------
    x (batch, channels, height, width), y as ``inner`` gives it, with its last axis on axis 1.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> layer = nn.ChannelsFirst(nn.Conv2d(3, 8, 3, padding="same", rng=0))
    >>> layer(np.ones((5, 3, 28, 28), np.float32)).shape
    (5, 8, 28, 28)
    """

    keeps_axes = False

    def __init__(self, inner: Layer) -> None:
        if not isinstance(inner, Layer):
            raise TypeError(f"ChannelsFirst takes a layer, got {inner!r}")
        self.inner = inner
        self.assign_paths()

    def check_input(self, x: Array) -> None:
        self.check_array(x)  # the layer inside checks the rest

    def forward(self, x: Array) -> Array:
        self.save(None)  # nothing is needed, but the gradient is checked
        return to_first(self.inner(to_last(x)))

    def backward(self, dy: Array) -> Array:
        self.saved(dy)
        return to_first(self.inner.backward(to_last(dy)))

    def output_shape(self, input_shape: Shape) -> Shape:
        shape = self.inner.output_shape(shape_to_last(input_shape))
        if shape is None or len(shape) < 3:
            return shape
        batch, *sizes, channels = shape
        return batch, channels, *sizes

    def members(self, input_shape: Shape) -> Iterator[Member]:
        yield "inner", self.inner, shape_to_last(input_shape)

    def form_after(self, form: Form, place: str = "") -> Form:
        rows = form.ranks == {2}
        # Of more dimensions than rows have, the last one is not that of the channels.
        y = form_after(self.inner, form if rows else form._replace(width=None), place)
        return y._replace(maker=self, width=y.width if y.ranks == {2} else None)

    def __repr__(self) -> str:
        return f"ChannelsFirst({describe_branch(self.inner)})"

    @classmethod
    def examples(cls) -> Examples:
        yield cls(Conv2d(2, 3, 3, padding="same", rng=0)), ((2, 2, 4, 5),)
        yield cls(Sequential(Conv1d(2, 3, 2, rng=0), ReLU())), ((1, 2, 3),)
        pixels = Sequential(Conv2d(2, 3, 2, rng=0), Flatten(channels_first=True))
        yield cls(pixels), ((2, 2, 3, 4),)


def to_last(x: Array) -> Array:
    """Return an array with axis 1 moved to the end; rows as they are."""
    return x if x.ndim < 3 else kernels.copy(x.transpose(0, *range(2, x.ndim), 1))


def shape_to_last(shape: Shape) -> Shape:
    """Return the shape of an array whose axis 1 is moved to the end."""
    if shape is None or len(shape) < 3:
        return shape
    batch, channels, *sizes = shape
    return batch, *sizes, channels


def to_first(x: Array) -> Array:
    """Return an array with its last axis moved to axis 1; rows as they are."""
    return x if x.ndim < 3 else kernels.copy(x.transpose(0, x.ndim - 1, *range(1, x.ndim - 1)))
