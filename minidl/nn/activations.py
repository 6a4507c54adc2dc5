"""Activations: functions of each element, whose derivatives decide what gradient survives."""

from __future__ import annotations

from minidl import kernels
from minidl.nn.layer import Examples, Layer
from minidl.typing import Array


class ReLU(Layer):
    """Rectified linear unit.

    y = max(0, x),  dy/dx = 1 where x > 0, else 0

    The derivative of one keeps gradients alive in depth; where x ≤ 0 a unit learns nothing.
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

    Ten sigmoids in a row shrink a gradient at least by 4¹⁰ ≈ 10⁶, before the weights say
    anything.

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


class Softmax(Layer):
    """Probabilities from scores, over the last dimension.

    y_j = exp(x_j) / Σ_k exp(x_k),  dx = y · (dy - Σ_k dy_k · y_k)

    A network that ends in it needs no loss of its own for it: ``CrossEntropyLoss`` takes the
    scores themselves, and its gradient does not vanish where y is near 0 or 1.
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
