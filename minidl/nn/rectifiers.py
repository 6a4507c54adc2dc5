"""Relatives of ReLU with a gradient also below zero, so that a unit goes on learning there.

The gradient of the exponential ones tends to zero as x → -∞; with slope 0, LeakyReLU is ReLU.
"""

from __future__ import annotations

import numpy as np

from minidl import kernels
from minidl.nn import init as initializers
from minidl.nn.checks import POSITIVE, check_count, check_number
from minidl.nn.layer import Examples, Layer
from minidl.nn.parameter import Initializer, Parameter, Shape
from minidl.typing import Array, DType


class LeakyReLU(Layer):
    """Rectified linear unit with a small slope below zero.

    y = x where x > 0, else slope · x,  dy/dx = 1 where x > 0, else slope

    Source: Maas, Hannun and Ng 2013.

    Parameters
    ----------
    slope
        In [0, 1).

    Shapes
    ------
    x and y (batch, ...).

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> nn.LeakyReLU(0.1)(np.array([[-1.0, 2.0]]))
    array([[-0.1,  2. ]])
    """

    def __init__(self, slope: float = 0.01) -> None:
        self.slope = check_number("LeakyReLU", "slope", slope, 0, 1)
        self.preferred_init = he_normal_for(self.slope)

    def forward(self, x: Array) -> Array:
        y = kernels.leaky_relu(x, self.slope)
        self.save(y)
        return y

    def backward(self, dy: Array) -> Array:
        return kernels.leaky_relu_grad(dy, self.saved(dy), self.slope)

    def __repr__(self) -> str:
        return f"LeakyReLU({self.slope})"

    @classmethod
    def examples(cls) -> Examples:
        yield cls(), ((3, 5),)
        yield cls(0.3), ((2, 4),)
        yield cls(), ((1, 1),)


class PReLU(Layer):
    """Rectified linear unit whose slope below zero is learned.

    y = x where x > 0, else a · x,  da = Σ dy · x over all x ≤ 0

    Source: He et al. 2015, equations 1 and 5.

    Parameters
    ----------
    features
        Width of the last dimension, for one slope per feature; None for one slope for all.
    slope
        The slopes before training, in [0, 1).

    Shapes
    ------
    x and y (batch, ..., features); weight, the slopes, (features) or (1).

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> nn.PReLU()(np.array([[-1.0, 2.0]], np.float32))
    array([[-0.25,  2.  ]], dtype=float32)
    """

    weight: Parameter  # a (features) or (1)

    def __init__(
        self, features: int | None = None, slope: float = 0.25, dtype: DType = np.float32
    ) -> None:
        if features is not None:
            self.in_features = check_count("PReLU", "features", features)
        slope = check_number("PReLU", "slope", slope, 0, 1)
        start = initializers.constant(slope)
        self.weight = Parameter((self.in_features or 1,), start, 0, dtype)
        self.preferred_init = he_normal_for(slope)

    def forward(self, x: Array) -> Array:
        self.save(x)
        return kernels.prelu(x, self.weight.data)

    def backward(self, dy: Array) -> Array:
        return kernels.prelu_grad(dy, self.saved(dy), self.weight.data, self.weight.grad)

    def __repr__(self) -> str:
        return f"PReLU({self.in_features or ''})"

    @classmethod
    def examples(cls) -> Examples:
        yield cls(), ((3, 5),)
        yield cls(4), ((2, 3, 4),)
        yield cls(1), ((1, 1),)


class ELU(Layer):
    """Exponential linear unit.

    y = x where x ≥ 0, else α · (exp(x) - 1),  dy/dx = 1 where x ≥ 0, else y + α

    Below zero it approaches -α, which brings the mean of the activations nearer to zero.
    Source: Clevert, Unterthiner and Hochreiter 2016, equation 15.

    Parameters
    ----------
    alpha
        α > 0; with α = 0 it would be ``ReLU``.

    Shapes
    ------
    x and y (batch, ...).

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> nn.ELU()(np.array([[-1000.0, 2.0]]))
    array([[-1.,  2.]])
    """

    preferred_init = "he_normal"

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = check_number("ELU", "alpha", alpha, POSITIVE, float("inf"))

    def forward(self, x: Array) -> Array:
        y = kernels.elu(x, self.alpha)
        self.save(y)
        return y

    def backward(self, dy: Array) -> Array:
        return kernels.elu_grad(dy, self.saved(dy), self.alpha)

    def __repr__(self) -> str:
        return f"ELU({self.alpha})"

    @classmethod
    def examples(cls) -> Examples:
        yield cls(), ((3, 5),)
        yield cls(0.5), ((2, 4),)
        yield cls(), ((1, 1),)


class CELU(Layer):
    """Exponential linear unit whose slope is continuous for every α.

    y = x where x ≥ 0, else α · (exp(x / α) - 1),  dy/dx = 1 where x ≥ 0, else y / α + 1

    With α = 1 it is ``ELU``.
    Source: Barron 2017.

    Parameters
    ----------
    alpha
        α > 0.

    Shapes
    ------
    x and y (batch, ...).

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> nn.CELU(0.5)(np.array([[-1000.0, 2.0]]))
    array([[-0.5,  2. ]])
    """

    preferred_init = "he_normal"

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = check_number("CELU", "alpha", alpha, POSITIVE, float("inf"))

    def forward(self, x: Array) -> Array:
        y = kernels.celu(x, self.alpha)
        self.save(y)
        return y

    def backward(self, dy: Array) -> Array:
        return kernels.celu_grad(dy, self.saved(dy), self.alpha)

    def __repr__(self) -> str:
        return f"CELU({self.alpha})"

    @classmethod
    def examples(cls) -> Examples:
        yield cls(), ((3, 5),)
        yield cls(0.5), ((2, 4),)
        yield cls(), ((1, 1),)


class SELU(Layer):
    """Scaled exponential linear unit: activations keep mean 0 and variance 1 from layer to layer.

    y = λ · x where x ≥ 0, else λ · α · (exp(x) - 1),  dy/dx = λ where x ≥ 0, else y + λ · α

    λ = 1.0507 and α = 1.6733 make (0, 1) the fixed point of the mean and variance of y, if weights
    are N(0, 1 / fan_in): ``lecun_normal``, which is what ``Sequential`` chooses before this layer.
    ``init.gain("selu")`` is PyTorch's 3/4, for weights that need not keep the variance.
    Source: Klambauer et al. 2017, equations 2 and 14.

    Shapes
    ------
    x and y (batch, ...).

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> nn.SELU()(np.array([[-1000.0, 0.0, 1.0]])).round(4)
    array([[-1.7581,  0.    ,  1.0507]])
    """

    preferred_init = "lecun_normal"

    def forward(self, x: Array) -> Array:
        y = kernels.selu(x)
        self.save(y)
        return y

    def backward(self, dy: Array) -> Array:
        return kernels.selu_grad(dy, self.saved(dy))

    @classmethod
    def examples(cls) -> Examples:
        yield cls(), ((3, 5),)
        yield cls(), ((1, 1),)


def he_normal_for(slope: float) -> Initializer:
    """N(0, 2 / ((1 + slope²) · fan_in)): He et al. 2015, equation 15."""
    return Initializer("he_normal", _he_normal_for, (slope,))


def _he_normal_for(shape: Shape, rng: np.random.Generator, slope: float) -> Array:
    return initializers.he_normal()(shape, rng) / np.sqrt(1 + slope * slope)
