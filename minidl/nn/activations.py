"""Activations: functions of each element, or of each row, whose slopes multiply gradients."""

from __future__ import annotations

from minidl import kernels
from minidl.nn.checks import POSITIVE, check_choice, check_number
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
    largest_slope = 1 / 4

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
    largest_slope = 1.0

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


class HardSigmoid(Layer):
    """Sigmoid of three straight lines, which needs no exponential.

    y = min(max(x / 6 + 1/2, 0), 1),  dy/dx = 1/6 where -3 < x < 3, else 0

    Where |x| ≥ 3, a unit learns nothing.
    Source: Courbariaux, Bengio and David 2015, whose slope is 1/2; Howard et al. 2019 for 1/6.

    Shapes
    ------
    x and y (batch, ...).

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> nn.HardSigmoid()(np.array([[-3.0, 0.0, 1.5, 1000.0]]))
    array([[0.  , 0.5 , 0.75, 1.  ]])
    """

    preferred_init = "xavier_uniform"
    largest_slope = 1 / 6

    def forward(self, x: Array) -> Array:
        self.save(x)
        return kernels.hard_sigmoid(x)

    def backward(self, dy: Array) -> Array:
        return kernels.hard_sigmoid_grad(dy, self.saved(dy))

    @classmethod
    def examples(cls) -> Examples:
        yield cls(), ((3, 5),)
        yield cls(), ((1, 1),)


class Softsign(Layer):
    """Saturating function that approaches ±1 like 1/x, where tanh does so exponentially.

    y = x / (1 + |x|),  dy/dx = 1 / (1 + |x|)²

    Source: Turian, Bergstra and Bengio 2009; Glorot and Bengio 2010.

    Shapes
    ------
    x and y (batch, ...).

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> nn.Softsign()(np.array([[-1.0, 0.0, 3.0]]))
    array([[-0.5 ,  0.  ,  0.75]])
    """

    preferred_init = "xavier_uniform"
    largest_slope = 1.0

    def forward(self, x: Array) -> Array:
        self.save(x)
        return kernels.softsign(x)

    def backward(self, dy: Array) -> Array:
        return kernels.softsign_grad(dy, self.saved(dy))

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


class HardSwish(Layer):
    """``SiLU`` with the sigmoid replaced by ``HardSigmoid``.

    y = x · min(max(x / 6 + 1/2, 0), 1),  dy/dx = x / 3 + 1/2 where -3 < x < 3; 0 below, 1 above

    Source: Howard et al. 2019, section 5.2.

    Shapes
    ------
    x and y (batch, ...).

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> nn.HardSwish()(np.array([[-1.5, 1.5, 4.0]]))
    array([[-0.375,  1.125,  4.   ]])
    """

    preferred_init = "he_normal"

    def forward(self, x: Array) -> Array:
        self.save(x)
        return kernels.hard_swish(x)

    def backward(self, dy: Array) -> Array:
        return kernels.hard_swish_grad(dy, self.saved(dy))

    @classmethod
    def examples(cls) -> Examples:
        yield cls(), ((3, 5),)
        yield cls(), ((1, 1),)


class Mish(Layer):
    """Smooth, non-monotonic unit: x times the tanh of its softplus.

    y = x · t,  dy/dx = t + x · (1 - t²) · sigmoid(x),  t = tanh(log(1 + exp(x)))

    Source: Misra 2020.

    Shapes
    ------
    x and y (batch, ...).

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> nn.Mish()(np.array([[-1.0, 0.0, 100.0]])).round(4)
    array([[ -0.3034,   0.    , 100.    ]])
    """

    preferred_init = "he_normal"

    def forward(self, x: Array) -> Array:
        self.save(x)
        return kernels.mish(x)

    def backward(self, dy: Array) -> Array:
        return kernels.mish_grad(dy, self.saved(dy))

    @classmethod
    def examples(cls) -> Examples:
        yield cls(), ((3, 5),)
        yield cls(), ((1, 1),)


class GELU(Layer):
    """Gaussian error linear unit.

    y = x · Φ(x),  dy/dx = Φ(x) + x · φ(x),  Φ(x) = ½ (1 + erf(x / √2)),  φ(x) = exp(-x²/2) / √(2π)

    Φ is the distribution function of the standard normal and φ its density. The form with
    ``approximate="tanh"``, which GPT-2 and BERT were trained with, differs from it by less than
    0.0005:

    y = x · s,  dy/dx = s · (1 + x · (1 - s) · u'),  s = (1 + tanh(u / 2)) / 2,
    u = 2 · √(2/π) · (x + 0.044715 · x³)

    Source: Hendrycks and Gimpel 2016.

    Parameters
    ----------
    approximate
        ``"none"`` for the exact form or ``"tanh"``.

    Shapes
    ------
    x and y (batch, ...).

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> nn.GELU()(np.array([[-1.0, 0.0, 100.0]])).round(4)
    array([[ -0.1587,   0.    , 100.    ]])
    >>> nn.GELU("tanh")(np.array([[-1.0, 0.0, 100.0]])).round(4)
    array([[ -0.1588,   0.    , 100.    ]])
    """

    preferred_init = "he_normal"

    def __init__(self, approximate: str = "none") -> None:
        self.approximate = check_choice("GELU", "approximate", approximate, "none", "tanh")

    def forward(self, x: Array) -> Array:
        self.save(x)
        return kernels.gelu(x) if self.approximate == "none" else kernels.gelu_tanh(x)

    def backward(self, dy: Array) -> Array:
        x = self.saved(dy)
        if self.approximate == "none":
            return kernels.gelu_grad(dy, x)
        return kernels.gelu_tanh_grad(dy, x)

    def __repr__(self) -> str:
        return "GELU()" if self.approximate == "none" else f"GELU({self.approximate!r})"

    @classmethod
    def examples(cls) -> Examples:
        yield cls(), ((3, 5),)
        yield cls("tanh"), ((2, 4),)
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
    # Where β · x is larger, y = x but for 3e-7 of it. Other libraries return x itself there.
    straight_from = 15.0

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
