"""Random changes of images, so that no epoch shows a network the same images twice.

A transform is called with a batch of images, channels last, and a generator, and returns a new
batch: ``Trainer.fit(transform=...)`` applies it to every batch that is trained on, and not to those
of validation. It keeps nothing between two calls, so the generator alone says what it draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from minidl.nn.checks import check_count, check_number
from minidl.seeds import as_generator
from minidl.typing import Array, Seed

__all__ = ["Compose", "Flip", "Noise", "Shift", "Transform"]


class Transform:
    """Base of the random transforms; a subclass defines ``apply``.

    Calling one checks that the batch is of images, and makes a generator of a seed.
    """

    def __call__(self, x: Array, rng: Seed = None) -> Array:
        """Return a batch that is changed at random; the batch itself stays as it is."""
        if not isinstance(x, np.ndarray) or x.ndim != 4 or x.dtype.kind != "f":
            is_array = isinstance(x, np.ndarray)
            found = f"{x.dtype} of shape {x.shape}" if is_array else type(x).__name__
            raise ValueError(
                f"{self!r}: expected real images (batch, height, width, channels), got {found}"
            )
        return self.apply(x, as_generator(rng))

    def apply(self, x: Array, rng: np.random.Generator) -> Array:
        """Return the changed images, drawing from the generator."""
        raise NotImplementedError(f"{type(self).__name__} must define apply")


class Shift(Transform):
    """Shift each image by a few pixels, up or down and to the left or right.

    y_ij = x_(i - a)(j - b), a and b uniform on {-pixels, ..., pixels}; ``fill`` beyond the image

    Parameters
    ----------
    pixels
        How far at most, ≥ 1.
    fill
        What moves in at the edges: the background.

    Shapes
    ------
    x and y (batch, height, width, channels).

    Raises
    ------
    ValueError
        For less than one pixel.

    Source: Simard, Steinkraus and Platt 2003.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import augment
    >>> x = np.arange(1.0, 10).reshape(1, 3, 3, 1)
    >>> augment.Shift(1)(x, rng=0)[0, :, :, 0]
    array([[4., 5., 6.],
           [7., 8., 9.],
           [0., 0., 0.]])
    """

    def __init__(self, pixels: int, fill: float = 0.0) -> None:
        self.pixels = check_count("Shift", "pixels", pixels)
        self.fill = check_number("Shift", "fill", fill, -math.inf, math.inf)

    def apply(self, x: Array, rng: np.random.Generator) -> Array:
        count, height, width, _ = x.shape
        edge = (self.pixels, self.pixels)
        padded = np.pad(x, ((0, 0), edge, edge, (0, 0)), constant_values=self.fill)
        begins = rng.integers(0, 2 * self.pixels + 1, (2, count, 1))
        rows, columns = begins[0] + np.arange(height), begins[1] + np.arange(width)
        return padded[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]

    def __repr__(self) -> str:
        fill = f", fill={self.fill}" if self.fill else ""
        return f"Shift({self.pixels}{fill})"


class Flip(Transform):
    """Mirror some of the images, left to right.

    y_ij = x_i(width - 1 - j) with the given probability, else x_ij

    Not for digits and letters, whose mirror images are others or none.

    Parameters
    ----------
    probability
        In [0, 1].

    Shapes
    ------
    x and y (batch, height, width, channels).

    Raises
    ------
    ValueError
        For another probability.

    Source: Krizhevsky, Sutskever and Hinton 2012.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import augment
    >>> x = np.arange(4.0).reshape(1, 1, 4, 1)
    >>> augment.Flip(1)(x).ravel()
    array([3., 2., 1., 0.])
    """

    def __init__(self, probability: float = 0.5) -> None:
        if not is_real(probability) or not 0 <= probability <= 1:
            raise ValueError(f"Flip: probability must be in [0, 1], got {probability!r}")
        self.probability = probability

    def apply(self, x: Array, rng: np.random.Generator) -> Array:
        turned = rng.random(len(x)) < self.probability
        return np.where(turned[:, None, None, None], x[:, :, ::-1], x)

    def __repr__(self) -> str:
        return f"Flip({self.probability})"


class Noise(Transform):
    """Add normal noise to every pixel.

    y = x + ε,  ε from N(0, std²)

    Parameters
    ----------
    std
        The standard deviation, > 0.

    Shapes
    ------
    x and y (batch, height, width, channels).

    Raises
    ------
    ValueError
        For a standard deviation that is not finite, or not above zero.

    Source: Bishop 1995, for whom it is a penalty on the slope of the network.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import augment
    >>> y = augment.Noise(0.1)(np.zeros((100, 8, 8, 1), np.float32), rng=0)
    >>> y.dtype, round(float(y.std()), 2)
    (dtype('float32'), 0.1)
    """

    def __init__(self, std: float) -> None:
        if not is_real(std) or not 0 < std < math.inf:
            raise ValueError(f"Noise: std must be a finite number > 0, got {std!r}")
        self.std = std

    def apply(self, x: Array, rng: np.random.Generator) -> Array:
        return (x + self.std * rng.standard_normal(x.shape)).astype(x.dtype)

    def __repr__(self) -> str:
        return f"Noise({self.std})"


class Compose(Transform):
    """Apply several transforms, one after the other.

    y = T_n(... T_2(T_1(x)))

    Parameters
    ----------
    transforms
        Functions of a batch and a generator, such as the others of this module.

    Shapes
    ------
    x and y (batch, height, width, channels).

    Raises
    ------
    TypeError
        For what cannot be called.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import augment
    >>> change = augment.Compose(augment.Shift(2), augment.Flip(), augment.Noise(0.05))
    >>> change(np.zeros((5, 28, 28, 1), np.float32), rng=0).shape
    (5, 28, 28, 1)
    >>> change
    Compose(Shift(2), Flip(0.5), Noise(0.05))
    """

    def __init__(self, *transforms: Callable[[Array, np.random.Generator], Array]) -> None:
        for transform in transforms:
            if not callable(transform) or isinstance(transform, type):
                cure = "; write Compose(*transforms)" if isinstance(transform, list) else ""
                raise TypeError(
                    f"Compose takes functions of a batch and a generator, got {transform!r}{cure}"
                )
        self.transforms = transforms

    def apply(self, x: Array, rng: np.random.Generator) -> Array:
        for transform in self.transforms:
            x = transform(x, rng)
        return x

    def __repr__(self) -> str:
        return f"Compose({', '.join(map(repr, self.transforms))})"


def is_real(value: object) -> bool:
    """Return whether this is a real number, and no truth value."""
    is_number = isinstance(value, (int, float, np.integer, np.floating))
    return is_number and not isinstance(value, bool)
