"""Pooling of a whole image, or a whole sequence, into one number for each channel."""

from __future__ import annotations

from typing import Any

from minidl import kernels
from minidl.nn.layer import Examples, Layer
from minidl.nn.lengths import check_lengths
from minidl.nn.pooling import Places
from minidl.typing import Array


class GlobalPooling(Layer):
    """Base of the layers that put all pixels of an image, or steps of a sequence, into one.

    Of padded sequences, with ``lengths``, they leave the padding out.
    """

    preferred_init = "skip"
    input_ranks = 3, 4
    keepdims: bool

    def __init__(self, keepdims: bool = False) -> None:
        self.keepdims = bool(keepdims)

    def check_input(self, x: Array, lengths: Array | None = None) -> None:
        self.check_array(x)
        if x.ndim not in self.input_ranks:
            raise ValueError(
                f"{self.label}: expected input of shape (batch, height, width, channels) or "
                f"(batch, steps, channels), got {x.shape}"
            )
        if lengths is not None:
            if x.ndim == 4:
                raise ValueError(
                    f"{self.label}: lengths are of sequences (batch, steps, channels), "
                    f"got images of shape {x.shape}"
                )
            check_lengths(self.label, x, lengths)

    @staticmethod
    def places(sizes: tuple[int, ...]) -> Places:
        """Return kernel, stride and padding of one window over all."""
        return sizes, sizes, tuple((0, 0) for _ in sizes)

    def output_shape(self, input_shape: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        if input_shape is None:
            return None
        ones = (1,) * (len(input_shape) - 2) if self.keepdims else ()
        return (input_shape[0], *ones, input_shape[-1])

    def squeezed(self, y: Array) -> Array:
        """Return images of one pixel as rows, or with ``keepdims`` as they are."""
        return y if self.keepdims else y.reshape(y.shape[0], y.shape[-1])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({'keepdims=True' * self.keepdims})"


class GlobalAvgPool(GlobalPooling):
    """Take the mean of all pixels of an image, or steps of a sequence, for each channel.

    y_c = Σ_i x_ic / n,  dx_ic = dy_c / n

    Of a padded sequence, n is its length: the padding does not count. Source: Lin, Chen and Yan
    2014, who put it in place of the last dense layers.

    Parameters
    ----------
    keepdims
        Whether the output is an image of one pixel, or a sequence of one step, and not a row.

    Shapes
    ------
    x (batch, height, width, channels) or (batch, steps, channels), y (batch, channels), or with
    ``keepdims`` (batch, 1, 1, channels) or (batch, 1, channels). lengths (batch,), of sequences
    only.

    Raises
    ------
    TypeError, ValueError
        For other inputs, and lengths that are not in 1 to steps.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> x = np.array([[1.0, 2, 6], [1, 3, 0]]).reshape(2, 3, 1)
    >>> nn.GlobalAvgPool()(x, lengths=np.array([3, 2])).ravel()
    array([3., 2.])
    """

    def forward(self, x: Array, lengths: Array | None = None) -> Array:
        places = self.places(x.shape[1:-1])
        self.save(x.shape, lengths)
        return self.squeezed(kernels.avg_pool(x, *places, False, lengths))

    def backward(self, dy: Array) -> Array:
        shape, lengths = self.saved(dy)
        sizes = shape[1:-1]
        dy = _contiguous(dy).reshape(shape[0], *(1 for _ in sizes), shape[-1])
        return kernels.avg_pool_grad(dy, sizes, *self.places(sizes), False, lengths)

    @classmethod
    def examples(cls) -> Examples:
        yield cls(), ((3, 4, 2),)
        yield cls(), ((2, 2, 3, 5),)
        yield cls(keepdims=True), ((2, 2, 3, 5),)
        yield cls(), ((1, 1, 1),)


class GlobalMaxPool(GlobalPooling):
    """Take the largest of all pixels of an image, or steps of a sequence, for each channel.

    y_c = max_i x_ic;  dx = dy at the first pixel that is the largest, 0 elsewhere

    The padding of a padded sequence does not count. Source: Collobert et al. 2011.

    Parameters
    ----------
    keepdims
        Whether the output is an image of one pixel, or a sequence of one step, and not a row.

    Shapes
    ------
    x (batch, height, width, channels) or (batch, steps, channels), y (batch, channels), or with
    ``keepdims`` (batch, 1, 1, channels) or (batch, 1, channels). lengths (batch,), of sequences
    only.

    Raises
    ------
    TypeError, ValueError
        For other inputs, and lengths that are not in 1 to steps.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> x = np.array([[1.0, 2, 6], [-1, -3, 0]]).reshape(2, 3, 1)
    >>> nn.GlobalMaxPool()(x, lengths=np.array([3, 2])).ravel()
    array([ 6., -1.])
    """

    def forward(self, x: Array, lengths: Array | None = None) -> Array:
        y = kernels.max_pool(x, *self.places(x.shape[1:-1]), lengths)
        self.save(x, y, lengths)
        return self.squeezed(y)

    def backward(self, dy: Array) -> Array:
        x, y, lengths = self.saved(dy)
        dy = _contiguous(dy).reshape(y.shape)
        return kernels.max_pool_grad(dy, x, y, *self.places(x.shape[1:-1]), lengths)

    @classmethod
    def examples(cls) -> Examples:
        yield cls(), ((3, 4, 2),)
        yield cls(), ((2, 2, 3, 5),)
        yield cls(keepdims=True), ((2, 2, 3, 5),)
        yield cls(), ((1, 1, 1),)


def _contiguous(x: Array) -> Array:
    return x if x.flags.c_contiguous else kernels.copy(x)
