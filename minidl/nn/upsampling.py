"""Images and sequences made larger."""

from __future__ import annotations

from typing import Any

from minidl import kernels
from minidl.nn.layer import Examples, Layer
from minidl.nn.pooling import check_images
from minidl.nn.windows import is_listed, one_for_each
from minidl.typing import Array


class Upsample(Layer):
    """Repeat every pixel of an image, or step of a sequence: the nearest neighbour in a larger one.

    y_ij = x_(⌊i / s⌋, ⌊j / s⌋);  dx = Σ dy over the s · s pixels that x became

    Parameters
    ----------
    scale_factor
        How many times height and width grow, or the steps of a sequence: a whole number, or two.

    Shapes
    ------
    x (batch, height, width, channels), y (batch, s · height, s · width, channels); x (batch, steps,
    channels), y (batch, s · steps, channels).

    Raises
    ------
    TypeError, ValueError
        For factors that are no whole numbers >= 1, and for other inputs.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> nn.Upsample(2)(np.array([1.0, 2, 3]).reshape(1, 3, 1)).ravel()
    array([1., 1., 2., 2., 3., 3.])
    """

    preferred_init = "skip"

    def __init__(self, scale_factor: Any) -> None:
        several = is_listed(scale_factor)
        factors = one_for_each("Upsample", "scale_factor", scale_factor, 2)
        self.scale_factor: int | tuple[int, ...] = factors if several else factors[0]

    @property
    def input_ranks(self) -> tuple[int, ...]:  # type: ignore[override]
        """Those of images, and of sequences if one factor serves for all dimensions."""
        return (4,) if isinstance(self.scale_factor, tuple) else (3, 4)

    def check_input(self, x: Array) -> None:
        self.check_array(x)
        if isinstance(self.scale_factor, tuple) or x.ndim != 3:
            check_images(self, x, 2)

    def factors(self, dimensions: int) -> tuple[int, ...]:
        """Return how many times each of so many dimensions grows."""
        factors = self.scale_factor
        return factors if isinstance(factors, tuple) else (factors,) * dimensions

    def forward(self, x: Array) -> Array:
        self.save(factors := self.factors(x.ndim - 2))
        return kernels.upsample(x, factors)

    def backward(self, dy: Array) -> Array:
        return kernels.upsample_grad(dy, self.saved(dy))

    def output_shape(self, input_shape: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        if input_shape is None or len(input_shape) not in self.input_ranks:
            return None
        batch, *sizes, channels = input_shape
        if not all(isinstance(size, int) for size in sizes):
            return input_shape
        factors = self.factors(len(sizes))
        return batch, *(n * s for n, s in zip(sizes, factors, strict=True)), channels

    def __repr__(self) -> str:
        return f"Upsample({self.scale_factor})"

    @classmethod
    def examples(cls) -> Examples:
        yield cls(2), ((2, 3, 2, 3),)
        yield cls((1, 3)), ((1, 2, 2, 1),)
        yield cls(3), ((2, 4, 2),)
