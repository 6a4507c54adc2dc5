"""Activations: functions of each element, or of each row, whose slopes multiply gradients."""

from __future__ import annotations

from minidl import kernels
from minidl.nn.checks import POSITIVE, check_number
from minidl.nn.layer import Examples, Layer
from minidl.typing import Array


class ReLU(Layer):
    """Rectified linear unit.

    y = max(0, x),  dy/dx = 1 where x > 0, else 0

    The derivative of one keeps gradients from vanishing in depth. Where x ≤ 0, a unit learns
    nothing.
    Source: Nair and Hinton 2010.

    Shapes
    ------
    x and y (batch, ...).

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> nn.ReLU()(np.array([[-1.0, 2.0]]))
    array([[0., 2.]])
    """

    preferred_init = "he_normal"

    def forward(self, x: Array) -> Array:
        y = kernels.relu(x)
        self.save(y)
        return y

    def backward(self, dy: Array) -> Array:
        return kernels.relu_grad(dy, self.saved(dy))

    @classmethod
    def examples(cls) -> Examples:
        yield cls(), ((3, 5),)
        yield cls(), ((1, 1),)


class Sigmoid(Layer):
    """Logistic function.

    y = 1 / (1 + exp(-x)),  dy/dx = y · (1 - y) ≤ 1/4

    Ten sigmoids in a row make a gradient smaller by a factor of at least 4¹⁰ ≈ 10⁶, weights aside.

    Shapes
    ------
    x and y (batch, ...).

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> nn.Sigmoid()(np.array([[0.0, 1000.0]]))
    array([[0.5, 1. ]])
    """

    preferred_init = "xavier_uniform"

    def forward(self, x: Array) -> Array:
        y = kernels.sigmoid(x)
        self.save(y)
        return y

    def backward(self, dy: Array) -> Array:
        return kernels.sigmoid_grad(dy, self.saved(dy))

    @classmethod
    def examples(cls) -> Examples:
        yield cls(), ((3, 5),)
        yield cls(), ((1, 1),)


class Tanh(Layer):
    """Hyperbolic tangent.

    y = tanh(x),  dy/dx = 1 - y² ≤ 1

    Shapes
    ------
    x and y (batch, ...).

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> nn.Tanh()(np.array([[0.0, 1000.0]]))
    array([[0., 1.]])
    """

    preferred_init = "xavier_uniform"

    def forward(self, x: Array) -> Array:
        y = kernels.tanh(x)
        self.save(y)
        return y

    def backward(self, dy: Array) -> Array:
        return kernels.tanh_grad(dy, self.saved(dy))

    @classmethod
    def examples(cls) -> Examples:
        yield cls(), ((3, 5),)
        yield cls(), ((1, 1),)


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

    Φ is the distribution function of the standard normal and φ its density. This is the exact form,
    not the approximation by tanh.
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
    """Smooth rectifier: ReLU with a rounded kink.

    y = log(1 + exp(β · x)) / β,  dy/dx = 1 / (1 + exp(-β · x))

    Source: Dugas et al. 2001.

    Parameters
    ----------
    beta
        β > 0; the larger it is, the closer y is to ReLU.

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


class Softmax(Layer):
    """Probabilities from scores, over the last dimension.

    y_j = exp(x_j) / Σ_k exp(x_k),  dx = y · (dy - Σ_k dy_k · y_k)

    To train a classifier, leave it out: ``CrossEntropyLoss`` takes the scores themselves, and its
    gradient does not vanish where y is near 0 or 1.
    Source: Bridle 1990.

    Shapes
    ------
    x and y (batch, ..., classes).

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> nn.Softmax()(np.array([[1000.0, 1000.0, 0.0]]))
    array([[0.5, 0.5, 0. ]])
    """

    preferred_init = "xavier_uniform"

    def forward(self, x: Array) -> Array:
        y = kernels.softmax(x)
        self.save(y)
        return y

    def backward(self, dy: Array) -> Array:
        return kernels.softmax_grad(dy, self.saved(dy))

    @classmethod
    def examples(cls) -> Examples:
        yield cls(), ((3, 5),)
        yield cls(), ((1, 1),)
        yield cls(), ((2, 3, 4),)


class LogSoftmax(Layer):
    """Logarithms of the probabilities, over the last dimension.

    y_j = x_j - log Σ_k exp(x_k),  dx = dy - exp(y) · Σ_k dy_k

    Shapes
    ------
    x and y (batch, ..., classes).

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> nn.LogSoftmax()(np.array([[0.0, -1000.0]]))
    array([[    0., -1000.]])
    """

    preferred_init = "xavier_uniform"

    def forward(self, x: Array) -> Array:
        y = kernels.log_softmax(x)
        self.save(y)
        return y

    def backward(self, dy: Array) -> Array:
        return kernels.log_softmax_grad(dy, self.saved(dy))

    @classmethod
    def examples(cls) -> Examples:
        yield cls(), ((3, 5),)
        yield cls(), ((1, 1),)
        yield cls(), ((2, 3, 4),)
