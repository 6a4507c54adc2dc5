"""Activations that look like ReLU from afar and have a derivative everywhere."""

from __future__ import annotations

from minidl import kernels
from minidl.nn.checks import POSITIVE, check_number
from minidl.nn.layer import Examples, Layer
from minidl.typing import Array


class SiLU(Layer):
    """Sigmoid linear unit, also called swish.

    y = x · s,  dy/dx = s · (1 + x · (1 - s)),  s = 1 / (1 + exp(-x))

    Source: Elfwing, Uchibe and Doya 2018; Ramachandran, Zoph and Le 2017.

    Shapes
    ------
    x and y (batch, ...).

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> nn.SiLU()(np.array([[-1.0, 0.0, 100.0]])).round(4)
    array([[ -0.2689,   0.    , 100.    ]])
    """

    preferred_init = "he_normal"

    def forward(self, x: Array) -> Array:
        self.save(x)
        return kernels.silu(x)

    def backward(self, dy: Array) -> Array:
        return kernels.silu_grad(dy, self.saved(dy))

    @classmethod
    def examples(cls) -> Examples:
        yield cls(), ((3, 5),)
        yield cls(), ((1, 1),)


class GELU(Layer):
    """Gaussian error linear unit.

    y = x · Φ(x),  dy/dx = Φ(x) + x · φ(x),  Φ(x) = ½ (1 + erf(x / √2)),  φ(x) = exp(-x²/2) / √(2π)

    Φ is the distribution of normal numbers, and φ its density. This is the exact form, not
    that by tanh.
    Source: Hendrycks and Gimpel 2016.

    Shapes
    ------
    x and y (batch, ...).

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> nn.GELU()(np.array([[-1.0, 0.0, 100.0]])).round(4)
    array([[ -0.1587,   0.    , 100.    ]])
    """

    preferred_init = "he_normal"

    def forward(self, x: Array) -> Array:
        self.save(x)
        return kernels.gelu(x)

    def backward(self, dy: Array) -> Array:
        return kernels.gelu_grad(dy, self.saved(dy))

    @classmethod
    def examples(cls) -> Examples:
        yield cls(), ((3, 5),)
        yield cls(), ((1, 1),)


class Softplus(Layer):
    """Smooth rectifier: ReLU with its kink rounded off.

    y = log(1 + exp(β · x)) / β,  dy/dx = 1 / (1 + exp(-β · x))

    Source: Dugas et al. 2001.

    Parameters
    ----------
    beta
        β > 0; the larger, the sharper the bend.

    Shapes
    ------
    x and y (batch, ...).

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> nn.Softplus()(np.array([[-1000.0, 0.0, 1000.0]])).round(4)
    array([[0.000e+00, 6.931e-01, 1.000e+03]])
    """

    preferred_init = "he_normal"

    def __init__(self, beta: float = 1.0) -> None:
        self.beta = check_number("Softplus", "beta", beta, POSITIVE, float("inf"))

    def forward(self, x: Array) -> Array:
        self.save(x)
        return kernels.softplus(x, self.beta)

    def backward(self, dy: Array) -> Array:
        return kernels.softplus_grad(dy, self.saved(dy), self.beta)

    def __repr__(self) -> str:
        return f"Softplus({self.beta})"

    @classmethod
    def examples(cls) -> Examples:
        yield cls(), ((3, 5),)
        yield cls(2.0), ((1, 1),)
