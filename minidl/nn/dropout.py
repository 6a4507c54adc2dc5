"""Dropout: the mask is a function of seed, call and position, and is never stored."""

from __future__ import annotations

import numpy as np

from minidl import kernels
from minidl.nn.checks import check_number
from minidl.nn.layer import Examples, Layer
from minidl.seeds import as_generator
from minidl.typing import Array, Seed


class Dropout(Layer):
    """Set each element to zero with probability p, in training only.

    y = m · x / (1 - p),  m ~ Bernoulli(1 - p), independent for every element

    The mean of y is that of x, so y = x in evaluation. The mask is a function of (seed, number of
    calls, position) and is never stored: the backward pass computes it again, and ``gradcheck``
    keeps it fixed by restoring the generator before every pass.
    Source: Srivastava et al. 2014, in the "inverted" form.

    Parameters
    ----------
    p
        Probability of zero, in [0, 1).
    rng
        Generator or seed of the masks.
    whole_channels
        Whether one element of the mask is for all pixels of a channel of an image, or all steps of
        a feature of a sequence, and not for a single number: neighbouring pixels are so alike that
        dropping one of them takes away little. PyTorch calls it ``Dropout2d``, Keras
        ``SpatialDropout2D``. Source: Tompson et al. 2015.

    Shapes
    ------
    x and y (batch, ...); with ``whole_channels`` (batch, ..., channels).

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> np.unique(nn.Dropout(0.5, rng=0)(np.ones((10, 10))))
    array([0., 2.])
    >>> nn.Dropout(0.5, rng=0, whole_channels=True)(np.ones((1, 3, 4)))[0]
    array([[0., 2., 0., 0.],
           [0., 2., 0., 0.],
           [0., 2., 0., 0.]])
    """

    state_names = ("generator",)
    preferred_init = "skip"

    p: float
    generator: Array  # (seed, number of calls so far), uint64

    def __init__(self, p: float = 0.5, rng: Seed = None, whole_channels: bool = False) -> None:
        self.p = check_number("Dropout", "p", p, 0, 1)
        self.whole_channels = bool(whole_channels)
        self.generator = np.zeros(2, np.uint64)
        self.reset_own(as_generator(rng))

    def forward(self, x: Array) -> Array:
        if not self.training or self.p == 0:
            self.save(None)  # no mask, but backward is allowed now, once
            return x
        key = kernels.dropout_key(self.generator)
        self.save(key)
        return self._masked(x, key)

    def backward(self, dy: Array) -> Array:
        key = self.saved(dy)
        return dy if key is None else self._masked(dy, key)

    def _masked(self, x: Array, key: Array) -> Array:
        """Multiply by the mask: forward the input, backward the gradient."""
        if self.whole_channels:
            return kernels.dropout_channels(x, key, self.p)
        return kernels.dropout(x, key, self.p)

    def reset_own(self, rng: np.random.Generator) -> None:
        self.generator[...] = rng.integers(2**64, dtype=np.uint64), 0

    def __repr__(self) -> str:
        return f"Dropout({self.p}{', whole_channels=True' * self.whole_channels})"

    @classmethod
    def examples(cls) -> Examples:
        yield cls(0.5, rng=0), ((4, 5),)
        yield cls(0.9, rng=1), ((1, 1),)
        yield cls(0.2, rng=2).eval(), ((2, 3),)
        yield cls(0.4, rng=3, whole_channels=True), ((3, 2, 2, 4),)
