"""Embedding: a vector for each word, character or other index."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl import kernels
from minidl._kernels.twins.errors import RowError
from minidl.nn import init as initializers
from minidl.nn.checks import check_count
from minidl.nn.hooks import is_recording
from minidl.nn.layer import Examples, Layer
from minidl.nn.parameter import Initializer, Parameter
from minidl.typing import Array, DType, Seed


class Embedding(Layer):
    """Look up a row of the weight for every index.

    y_ij = W[x_ij],  dW[x_ij] += dy_ij

    A ``Linear`` without bias computes the same from one-hot rows. Rows of dW whose index does not
    occur do not change.

    Parameters
    ----------
    num_embeddings
        Number of different indices, 0 to num_embeddings - 1.
    features
        Width of a row.
    init
        Initialiser of W, by default N(0, 1).
    rng
        Generator or seed of the weight.
    dtype
        float32 or float64.

    Shapes
    ------
    x (batch, ...), int64; y (batch, ..., features); weight (num_embeddings, features).
    ``backward`` returns None: an index has no gradient.

    Raises
    ------
    TypeError, ValueError
        For indices that are not int64 or not below ``num_embeddings``, naming the first.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> layer = nn.Embedding(3, 2, rng=0)
    >>> layer.weight.data = [[1, 2], [3, 4], [5, 6]]
    >>> layer(np.array([[2, 0]]))
    array([[[5., 6.],
            [1., 2.]]], dtype=float32)
    """

    takes_indices = True

    num_embeddings: int
    features: int
    weight: Parameter  # W (num_embeddings, features)

    def __init__(
        self,
        num_embeddings: int,
        features: int,
        init: str | Initializer | None = None,
        rng: Seed = None,
        dtype: DType = np.float32,
    ) -> None:
        self.num_embeddings = count = check_count("Embedding", "num_embeddings", num_embeddings)
        self.features = features = check_count("Embedding", "features", features)
        weight_init = initializers.normal() if init is None else initializers.by_name(init)
        self.weight = Parameter((count, features), weight_init, rng, dtype)

    @property
    def index_limit(self) -> int:  # type: ignore[override]
        """The number of different indices."""
        return self.num_embeddings

    def check_input(self, x: Array) -> None:
        if not isinstance(x, np.ndarray) or x.dtype.kind not in "iu":
            got = x.dtype if isinstance(x, np.ndarray) else type(x).__name__
            raise TypeError(
                f"{self.label}: expected an array of integers as indices, got {got}; "
                "write x.astype(np.int64)"
            )
        if x.size == 0 or x.ndim == 0:
            raise ValueError(
                f"{self.label}: expected indices of shape (batch, ...) with no empty dimension, "
                f"got {x.shape}"
            )
        if is_recording():
            return  # the kernel checks the values, now and in every replay
        if not 0 <= x.min() <= x.max() < self.num_embeddings:
            place = int(np.flatnonzero((x < 0) | (x >= self.num_embeddings))[0])
            value = int(x.flat[place])
            raise RowError("index", place, value, self.num_embeddings, x.shape, self.label)

    def forward(self, x: Array) -> Array:
        self.save(x)
        return kernels.embedding(x, self.weight.data)

    def backward(self, dy: Array) -> None:
        kernels.embedding_grad(self.saved(dy), dy, self.weight.grad)

    def output_shape(self, input_shape: tuple[Any, ...] | None) -> tuple[Any, ...]:
        return (*(input_shape or ("batch", "time")), self.features)

    def __repr__(self) -> str:
        return f"Embedding({self.num_embeddings}, {self.features})"

    @classmethod
    def examples(cls) -> Examples:
        yield cls(4, 3, rng=0), (np.array([[0, 3, 3], [1, 0, 3]]),)
        yield cls(2, 1, rng=1), (np.array([1]),)
