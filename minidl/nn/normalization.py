"""Normalization: layers that keep the scale of a signal near one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from minidl import kernels
from minidl.nn import init as initializers
from minidl.nn.array_checks import float_dtype
from minidl.nn.checks import POSITIVE, check_count, check_number
from minidl.nn.data_checks import as_array
from minidl.nn.layer import Examples, Layer
from minidl.nn.parameter import Parameter
from minidl.typing import Array, DType


class BatchNorm(Layer):
    """Batch normalization of every feature over the batch.

    y = γ · x̂ + β,  x̂ = (x - μ) / sqrt(σ² + ε)

    In training, μ and σ² (biased) are those of the batch, the gradient flows through them,

    dx = γ / sqrt(σ² + ε) · (dy - mean(dy) - x̂ · mean(dy · x̂)),

    and running ← running + momentum · (batch - running), with the unbiased variance. In evaluation,
    μ and σ² are the running statistics. These are also used in training while γ and β are frozen:
    a frozen layer must not change.

    Source: Ioffe and Szegedy 2015, algorithm 1.

    Parameters
    ----------
    features
        Width of the last dimension.
    momentum
        Weight of the batch in the running statistics, in (0, 1].
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
    state_minimum: ClassVar[Mapping[str, float]] = {"running_var": 0.0}
    preferred_init = "skip"

    in_features: int
    gamma: Parameter  # γ (features)
    beta: Parameter  # β (features)
    running_mean: Array  # (features)
    running_var: Array  # (features)

    def __init__(
        self, features: int, momentum: float = 0.1, eps: float = 1e-5, dtype: DType = np.float32
    ) -> None:
        self.in_features = features = check_count("BatchNorm", "features", features)
        self.momentum = check_number("BatchNorm", "momentum", momentum, POSITIVE, np.inf)
        if self.momentum > 1:
            raise ValueError(f"BatchNorm: momentum must be in (0, 1], got {momentum}")
        self.eps = check_number("BatchNorm", "eps", eps, POSITIVE, np.inf)
        self.gamma = Parameter((features,), initializers.constant(1.0), 0, dtype)
        self.beta = Parameter((features,), initializers.zeros(), 0, dtype)
        self.running_mean = np.zeros(features, float_dtype(dtype))
        self.running_var = np.ones(features, float_dtype(dtype))

    @property
    def uses_batch(self) -> bool:
        """Whether mean and variance are those of the batch: in training, unless γ, β are frozen."""
        return self.training and not (self.gamma.frozen and self.beta.frozen)

    def check_input(self, x: Array) -> None:
        super().check_input(x)
        if self.uses_batch and x.size == x.shape[-1]:
            raise ValueError(
                f"{self.label}: a batch of one row has no variance to normalise with; "
                "use larger batches, or eval()"
            )

    def forward(self, x: Array) -> Array:
        uses_batch = self.uses_batch
        y, mean, rstd = kernels.batch_norm(
            x,
            self.gamma.data,
            self.beta.data,
            self.running_mean,
            self.running_var,
            self.momentum,
            self.eps,
            uses_batch,
        )
        self.save(x, mean, rstd, uses_batch)
        return y

    def backward(self, dy: Array) -> Array:
        x, mean, rstd, uses_batch = self.saved(dy)
        return kernels.batch_norm_grad(
            dy, x, self.gamma.data, mean, rstd, self.gamma.grad, self.beta.grad, uses_batch
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


class LayerNorm(Layer):
    """Layer normalization of every row over its features.

    y = γ · x̂ + β,  x̂ = (x - μ) / sqrt(σ² + ε)

    μ and σ² (biased) are those of the row, so that training and evaluation are the same and a batch
    may have one row.

    dx = 1 / sqrt(σ² + ε) · (g - mean(g) - x̂ · mean(g · x̂)),  g = γ · dy

    Source: Ba, Kiros and Hinton 2016, equation 4.

    Parameters
    ----------
    features
        Width of the last dimension, over which μ and σ² are taken.
    eps
        ε > 0, added to the variance.

    Shapes
    ------
    x and y (batch, ..., features); gamma and beta (features).

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> nn.LayerNorm(2, eps=1e-12, dtype=np.float64)(np.array([[1.0, 3.0]])).round(6)
    array([[-1.,  1.]])
    """

    preferred_init = "skip"

    in_features: int
    gamma: Parameter  # γ (features)
    beta: Parameter  # β (features)

    def __init__(self, features: int, eps: float = 1e-5, dtype: DType = np.float32) -> None:
        self.in_features = features = check_count("LayerNorm", "features", features)
        self.eps = check_number("LayerNorm", "eps", eps, POSITIVE, float("inf"))
        self.gamma = Parameter((features,), initializers.constant(1), 0, dtype)
        self.beta = Parameter((features,), initializers.zeros(), 0, dtype)

    def forward(self, x: Array) -> Array:
        y, mean, rstd = kernels.layer_norm(x, self.gamma.data, self.beta.data, self.eps)
        self.save(x, mean, rstd)
        return y

    def backward(self, dy: Array) -> Array:
        x, mean, rstd = self.saved(dy)
        kernels.layer_norm_grad_params(dy, x, mean, rstd, self.gamma.grad, self.beta.grad)
        return kernels.layer_norm_grad_input(dy, x, self.gamma.data, mean, rstd)

    def __repr__(self) -> str:
        return f"LayerNorm({self.in_features})"

    @classmethod
    def examples(cls) -> Examples:
        yield cls(4), ((6, 4),)
        yield cls(5), ((1, 5),)
        yield cls(3), ((2, 3, 3),)


class RMSNorm(Layer):
    """Root mean square normalization of every row over its features.

    y = γ · x̂,  x̂ = x · r,  r = 1 / sqrt(mean(x²) + ε)

    It is ``LayerNorm`` without μ and β: rows are scaled, but not shifted.

    dx = r · (g - x̂ · mean(g · x̂)),  g = γ · dy

    Source: Zhang and Sennrich 2019, equation 4.

    Parameters
    ----------
    features
        Width of the last dimension, over which the mean is taken.
    eps
        ε > 0, added to the mean of the squares; None for the machine epsilon of the dtype, as in
        PyTorch.

    Shapes
    ------
    x and y (batch, ..., features); gamma (features).

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> nn.RMSNorm(2, dtype=np.float64)(np.array([[1.0, 7.0]]))
    array([[0.2, 1.4]])
    """

    preferred_init = "skip"

    in_features: int
    gamma: Parameter  # γ (features)

    def __init__(self, features: int, eps: float | None = None, dtype: DType = np.float32) -> None:
        self.in_features = features = check_count("RMSNorm", "features", features)
        if eps is not None:
            eps = check_number("RMSNorm", "eps", eps, POSITIVE, float("inf"))
        self.eps = eps
        self.gamma = Parameter((features,), initializers.constant(1), 0, dtype)

    def epsilon(self, dtype: np.dtype[Any]) -> float:
        """Return ε, the machine epsilon of this dtype where none was given."""
        return float(np.finfo(dtype).eps) if self.eps is None else self.eps

    def forward(self, x: Array) -> Array:
        y, rstd = kernels.rms_norm(x, self.gamma.data, self.epsilon(x.dtype))
        self.save(x, rstd)
        return y

    def backward(self, dy: Array) -> Array:
        x, rstd = self.saved(dy)
        kernels.rms_norm_grad_params(dy, x, rstd, self.gamma.grad)
        return kernels.rms_norm_grad_input(dy, x, self.gamma.data, rstd)

    def __repr__(self) -> str:
        return f"RMSNorm({self.in_features})"

    @classmethod
    def examples(cls) -> Examples:
        yield cls(4), ((6, 4),)
        yield cls(5, 0.1), ((1, 5),)
        yield cls(3), ((2, 3, 3),)


class Standardize(Layer):
    """Bring every feature to mean 0 and variance 1, as measured by ``adapt``.

    y = (x - μ) / σ,  dx = dy / σ

    Raw features of large scale (years, incomes) saturate sigmoids and tanh, whose gradients then
    vanish. μ and σ are computed once, from training data. They belong to the model: they are saved
    and loaded with it, and neither training nor ``reset`` changes them. Before ``adapt``, y = x.

    Parameters
    ----------
    features
        Width of the last dimension.

    Shapes
    ------
    x and y (batch, ..., features); mean and std (features).

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> incomes = np.array([[20_000.0], [40_000.0]])
    >>> nn.Standardize(1, dtype=np.float64).adapt(incomes)(incomes)
    array([[-1.],
           [ 1.]])
    """

    state_names = constant_names = ("mean", "std")
    state_minimum: ClassVar[Mapping[str, float]] = {"std": float(np.finfo(np.float64).tiny)}
    preferred_init = "skip"

    in_features: int
    mean: Array  # μ (features)
    std: Array  # σ (features)

    def __init__(self, features: int, dtype: DType = np.float32) -> None:
        self.in_features = features = check_count("Standardize", "features", features)
        self.mean = np.zeros(features, float_dtype(dtype))
        self.std = np.ones(features, float_dtype(dtype))

    @property
    def dtype(self) -> np.dtype[Any]:
        """dtype of mean and deviation."""
        return self.mean.dtype

    def adapt(self, data: Any) -> Self:
        """Compute μ and σ of every feature from all rows of ``data``; σ = 1 if it is constant.

        ``data`` is an array, or a frame of pandas or polars.

        A feature counts as constant if its σ is rounding noise: σ ≤ 10 · ε · max|x| with the ε of
        float64 (2.2e-16), as in scikit-learn, or σ ≤ ε · max|x| with that of data in a
        smaller dtype.

        Raises
        ------
        TypeError
            For a column of a frame that holds no numbers.
        ValueError
            If the data are not numbers of this many features, or not finite; if a mean or a
            deviation is beyond the layer's dtype; or if this dtype keeps less than half of the
            distinct values of a feature, as float32 does of seconds since 1970.
        """
        x = as_array(f"{self.label}: data", data)
        if x.dtype.kind not in "fiu" or x.ndim < 2 or x.shape[-1] != self.in_features or not x.size:
            raise ValueError(
                f"{self.label}: adapt expected numbers of shape (rows, ..., {self.in_features}), "
                f"got {x.dtype} of shape {x.shape}"
            )
        rows = x.reshape(-1, x.shape[-1]).astype(np.float64)
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(bad):
            raise ValueError(f"{self.label}: adapt got data that are not finite, in row {bad[0]}")
        with np.errstate(over="ignore", invalid="ignore"):  # beyond float64: refused below
            shifted = rows - rows[0]  # exactly zero where a feature is constant
            mean, std = rows[0] + shifted.mean(axis=0), shifted.std(axis=0)
        least, most = np.finfo(self.dtype).tiny, np.finfo(self.dtype).max
        beyond = (np.abs(mean) > most) | ~(std <= most) | ((std > 0) & (std < least))
        if beyond.any():
            place = int(np.flatnonzero(beyond)[0])
            raise ValueError(
                f"{self.label}: feature {place} has mean {mean[place]:g} and deviation "
                f"{std[place]:g}, beyond {self.dtype}"
            )
        constant = std <= _noise(x.dtype) * np.abs(rows).max(axis=0)
        self._check_distinct(x.reshape(rows.shape)[:, ~constant], np.flatnonzero(~constant))
        self.mean[...], self.std[...] = mean, np.where(constant, 1, std)
        return self

    def _check_distinct(self, columns: Array, places: Array) -> None:
        """Raise ValueError for a feature that loses most of its distinct values in this dtype."""
        low, high = columns.min(axis=0) + 0.0, columns.max(axis=0) + 0.0  # integers to float64
        step = np.finfo(self.dtype).eps * np.maximum(np.abs(low), np.abs(high)) / 2
        # Counted only where few numbers of this dtype lie between the least value and the largest.
        for index in np.flatnonzero(high - low < 4 * len(columns) * step):
            column = columns[:, index]
            distinct, kept = (len(np.unique(c)) for c in (column, column.astype(self.dtype)))
            if 2 * kept < distinct:
                raise ValueError(
                    f"{self.label}: of the {distinct} distinct values of feature {places[index]}, "
                    f"{low[index]:.10g} to {high[index]:.10g}, {self.dtype} keeps {kept}; subtract "
                    f"{low[index]:.10g} from them before they are cast, or use a float64 model"
                )

    def forward(self, x: Array) -> Array:
        self.save(None)  # nothing is needed, but backward is allowed now, once
        return kernels.standardize(x, self.mean, self.std)

    def backward(self, dy: Array) -> Array:
        self.saved(dy)
        return kernels.standardize(dy, None, self.std)

    def __repr__(self) -> str:
        return f"Standardize({self.in_features})"

    @classmethod
    def examples(cls) -> Examples:
        yield cls(2).adapt([[1, 50_000], [3, 20_000], [2, 90_000]]), ((4, 2),)
        yield cls(3).adapt([[1, 2, 3], [1, 3, 5]]), ((2, 2, 3),)
        yield cls(1), ((1, 1),)


def _noise(dtype: np.dtype[Any]) -> float:
    """Return the rounding noise of data of this dtype, relative to the largest number."""
    if dtype.kind == "f" and dtype.itemsize < 8:
        return float(np.finfo(dtype).eps)
    return 10 * float(np.finfo(np.float64).eps)
