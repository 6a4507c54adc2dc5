"""Layers that compute nothing: they pass an array on, or give it another shape."""

from __future__ import annotations

import math
from typing import Any

from minidl import kernels
from minidl.nn.layer import Examples, Layer
from minidl.typing import Array


class Identity(Layer):
    """The identity, for where a layer is expected and nothing is to be done.

    y = x,  dx = dy

    Shapes
    ------
    x and y (batch, ...).

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> nn.Identity()(np.array([[-1.0, 2.0]]))
    array([[-1.,  2.]])
    """

    preferred_init = "skip"

    def forward(self, x: Array) -> Array:
        self.save(None)
        return x

    def backward(self, dy: Array) -> Array:
        self.saved(dy)
        return dy

    @classmethod
    def examples(cls) -> Examples:
        yield cls(), ((3, 5),)
        yield cls(), ((1, 1),)


class Flatten(Layer):
    """Put all features of a sample in one row, such as the pixels of an image.

    y = x, reshaped,  dx = dy, reshaped back

    Shapes
    ------
    x (batch, a, b, ...), y (batch, a · b · ...).

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> nn.Flatten()(np.zeros((5, 8, 8))).shape
    (5, 64)
    """

    preferred_init = "skip"

    def forward(self, x: Array) -> Array:
        self.save(x.shape)
        return _contiguous(x).reshape(x.shape[0], -1)

    def backward(self, dy: Array) -> Array:
        shape = self.saved(dy)
        return _contiguous(dy).reshape(shape)

    def output_shape(self, input_shape: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        if input_shape is None or not all(isinstance(size, int) for size in input_shape[1:]):
            return None
        return input_shape[0], math.prod(input_shape[1:])

    @classmethod
    def examples(cls) -> Examples:
        yield cls(), ((3, 2, 4),)
        yield cls(), ((1, 1),)
        yield cls(), ((2, 3, 2, 2),)


def _contiguous(x: Array) -> Array:
    return x if x.flags.c_contiguous else kernels.copy(x)
