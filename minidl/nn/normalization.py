"""Layers that keep the scale of a signal near one."""

from __future__ import annotations

import numpy as np

from minidl import _kernels as kernels
from minidl._kernels.reference import Array
from minidl.nn import init as initializers
from minidl.nn.checks import POSITIVE, check_number, check_width
from minidl.nn.layer import DType, Examples, Layer, Parameter, float_dtype


class BatchNorm(Layer):
    """Batch normalization of every feature over the batch.

    y = γ · x̂ + β,  x̂ = (x - μ) / sqrt(σ² + ε)

    In training μ and σ² (biased) are those of the batch, and
    running ← running + momentum · (batch - running) with the unbiased variance; in evaluation
    the running ones are used. The gradient flows through μ and σ²:

    dx = γ / sqrt(σ² + ε) · (dy - mean(dy) - x̂ · mean(dy · x̂))

    Source: Ioffe and Szegedy 2015, algorithm 1.

    Parameters
    ----------
    features
        Width of the last dimension.
    momentum
        Step of the running statistics, in (0, 1].
    eps
        ε > 0, added to the variance.

    Shapes
    ------
    x and y (batch, ..., features); gamma, beta, running_mean, running_var (features).

    Raises
    ------
    ValueError
        In training, for a batch of one row: it has no variance.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> nn.BatchNorm(1, eps=1e-12, dtype=np.float64)(np.array([[1.0], [3.0]])).round(6)
    array([[-1.],
           [ 1.]])
    """

    state_names = ("running_mean", "running_var")
    preferred_init = "skip"

    def __init__(
        self, features: int, momentum: float = 0.1, eps: float = 1e-5, dtype: DType = np.float32
    ) -> None:
        self.in_features = features = check_width("BatchNorm", "features", features)
        self.momentum = check_number("BatchNorm", "momentum", momentum, POSITIVE, np.inf)
        if self.momentum > 1:
            raise ValueError(f"BatchNorm: momentum must be in (0, 1], got {momentum}")
        self.eps = check_number("BatchNorm", "eps", eps, POSITIVE, np.inf)
        self.gamma = Parameter((features,), initializers.constant(1.0), 0, dtype)
        self.beta = Parameter((features,), initializers.zeros(), 0, dtype)
        self.running_mean = np.zeros(features, float_dtype(dtype))
        self.running_var = np.ones(features, float_dtype(dtype))

    def check_input(self, x: Array) -> None:
        super().check_input(x)
        if self.training and x.size == x.shape[-1]:
            raise ValueError(
                f"{self.label}: a batch of one row has no variance to normalise with; "
                "use larger batches, or eval()"
            )

    def forward(self, x: Array) -> Array:
        y, mean, rstd = kernels.batch_norm(
            x,
            self.gamma.data,
            self.beta.data,
            self.running_mean,
            self.running_var,
            self.momentum,
            self.eps,
            self.training,
        )
        self.save(x, mean, rstd, self.training)
        return y

    def backward(self, dy: Array) -> Array:
        x, mean, rstd, training = self.saved(dy)
        return kernels.batch_norm_grad(
            dy, x, self.gamma.data, mean, rstd, self.gamma.grad, self.beta.grad, training
        )

    def reset_own(self, rng: np.random.Generator) -> None:
        super().reset_own(rng)
        self.running_mean[...], self.running_var[...] = 0, 1

    def __repr__(self) -> str:
        return f"BatchNorm({self.in_features})"

    @classmethod
    def examples(cls) -> Examples:
        yield cls(4), ((6, 4),)
        yield cls(1), ((2, 1),)
        yield cls(3), ((2, 3, 3),)
        yield cls(3).eval(), ((1, 3),)
