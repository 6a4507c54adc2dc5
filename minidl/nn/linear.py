"""The affine layer, y = x · W + b."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl import kernels
from minidl.nn.affine import Affine
from minidl.nn.checks import check_count
from minidl.nn.layer import Examples
from minidl.nn.parameter import Initializer
from minidl.typing import Array, DType, Seed


class Linear(Affine):
    """Affine map of the last dimension.

    y = x · W + b

    Parameters
    ----------
    in_features, out_features
        Widths of input and output.
    bias
        Whether b is added.
    init
        Initialiser of W, or its name.
    rng
        Generator or seed of weights and biases.
    dtype
        float32 or float64.
    bias_init
        Initialiser of b, or its name; by default zeros if ``init`` is given.

    By default W is drawn from U(±1/√in_features) and b from U(±√3/√in_features). The Linear layers
    between the first and the last ``Linear`` of a ``Sequential`` have b = 0, and W is He normal if
    a ReLU or a relative follows (after normalization, dropout and the like), else Xavier uniform.
    Signals then neither vanish nor explode in depth. Here a ``Sequential`` inside another is a part
    of it, but the body of a ``Residual`` counts as a network of its own: its first and its last
    ``Linear`` keep U(±1/√in_features). See docs/initialisation.md.

    Raises
    ------
    ValueError
        For sizes below one, for an unknown initialiser, and for ``bias_init`` without a bias.

    Shapes
    ------
    x (..., in_features), y (..., out_features), weight (in_features, out_features),
    bias (out_features).

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> layer = nn.Linear(3, 2, rng=0)
    >>> layer(np.ones((5, 3), np.float32)).shape
    (5, 2)
    """

    in_features: int
    out_features: int

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        init: str | Initializer | None = None,
        rng: Seed = None,
        dtype: DType = np.float32,
        bias_init: str | Initializer | None = None,
    ) -> None:
        self.in_features = in_features = check_count("Linear", "in_features", in_features)
        self.out_features = out_features = check_count("Linear", "out_features", out_features)
        self._make_parameters((in_features, out_features), bias, init, rng, dtype, bias_init)

    def forward(self, x: Array) -> Array:
        self.save(x)
        return kernels.linear(x, self.weight.data, self.bias.data if self.bias else None)

    def backward(self, dy: Array) -> Array:
        x = self.saved(dy)
        kernels.linear_grad_params(x, dy, self.weight.grad, self.bias.grad if self.bias else None)
        return kernels.linear_grad_input(dy, self.weight.data)

    def output_shape(self, input_shape: tuple[Any, ...] | None) -> tuple[Any, ...]:
        return (*(input_shape or ("batch", 0))[:-1], self.out_features)

    def __repr__(self) -> str:
        bias = "" if self.bias else ", bias=False"
        return f"Linear({self.in_features}, {self.out_features}{bias})"

    @classmethod
    def examples(cls) -> Examples:
        yield cls(3, 4, rng=0), ((5, 3),)
        yield cls(7, 1, bias=False, rng=1), ((1, 7),)
        yield cls(2, 3, rng=2), ((2, 4, 2),)
