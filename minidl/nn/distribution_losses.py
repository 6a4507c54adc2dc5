"""Losses that describe a distribution: its quantiles, a rate of counts, or mean and variance."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from minidl import kernels
from minidl.nn.checks import POSITIVE, check_number
from minidl.nn.hooks import stand_in
from minidl.nn.losses import Loss
from minidl.typing import Array


class QuantileLoss(Loss):
    """Pinball loss, whose minimum is a quantile of the target: the median, or prediction intervals.

    L = q · e for e = target - prediction ≥ 0, else (q - 1) · e
    dprediction = -q for e > 0, 1 - q for e < 0, 0 where they are equal

    With q = 0.9 an error above the prediction costs nine times as much as one below it, so that
    nine of ten targets will lie below.

    Source: Koenker and Bassett 1978.

    Parameters
    ----------
    quantiles
        q in (0, 1), or several: the prediction then has a column for each of them.
    reduction
        ``"mean"`` over all elements, ``"sum"`` or ``"none"``: see ``Loss``.

    Shapes
    ------
    prediction and target of the same shape. With several quantiles prediction (..., quantiles), and
    target (...), (..., 1) or one for each column.

    Raises
    ------
    ValueError
        For quantiles outside (0, 1), and a prediction with another number of columns.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> loss = nn.QuantileLoss([0.1, 0.5, 0.9])
    >>> float(loss(np.array([[1.0, 2.0, 3.0]]), np.array([[4.0]]))).__round__(3)  # of 0.3, 1, 0.9
    0.733
    """

    def __init__(self, quantiles: float | Sequence[float] = 0.5, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self._is_one = np.ndim(quantiles) == 0
        given = [quantiles] if np.ndim(quantiles) == 0 else list(np.ravel(quantiles).tolist())
        if not given:
            raise ValueError("QuantileLoss: quantiles must be a number or some, got none")
        self._quantiles = tuple(
            check_number("QuantileLoss", "quantiles", q, POSITIVE, 1) for q in given
        )
        self._cast: dict[Any, Array] = {}  # quantiles and ones, by dtype and number of columns

    @property
    def quantiles(self) -> tuple[float, ...]:
        """The quantiles, in the order of the columns."""
        return self._quantiles

    def check_target(self, prediction: Array, target: Array) -> None:
        if self._is_one:
            super().check_target(prediction, target)
            return
        count = len(self._quantiles)
        if prediction.ndim < 2 or prediction.shape[-1] != count:
            raise ValueError(
                f"{self!r}: the prediction must have {count} columns, one for each quantile, got "
                f"{prediction.shape}"
            )
        rows = prediction.shape[:-1]
        if target.shape not in (rows, (*rows, 1), prediction.shape):
            raise ValueError(
                f"{self!r}: expected target {rows} or {(*rows, 1)} for prediction "
                f"{prediction.shape}, got {target.shape}"
            )
        self.check_target_dtype(prediction, target)

    def forward(
        self, prediction: Array, target: Array, weight: Array | None = None
    ) -> tuple[Array, Array]:
        mean, each = self.reduction == "mean", self.reduction == "none"
        if target.shape != prediction.shape:
            ones = self._columns("ones", (1.0,), len(self._quantiles), prediction.dtype)
            target = kernels.matmul(target.reshape(-1, 1), ones.reshape(1, -1))
            target = target.reshape(prediction.shape)
        columns = prediction.size // len(prediction) if prediction.ndim else 1
        q = self._columns("quantiles", self._quantiles, columns, prediction.dtype)
        return kernels.pinball(prediction, target, q, mean, weight, each=each)

    def _columns(self, name: str, values: tuple[float, ...], columns: int, dtype: Any) -> Array:
        """Return these values again and again, for kernels to read."""
        kind = name, columns, dtype
        if kind not in self._cast:
            self._cast[kind] = np.resize(values, columns).astype(dtype)
        return stand_in("state", name, self._cast[kind])

    @property
    def predicts_targets(self) -> bool:
        return self._is_one and self._quantiles[0] == 0.5

    def settings(self) -> dict[str, Any]:
        quantiles = self._quantiles[0] if self._is_one else list(self._quantiles)
        return super().settings() | {"quantiles": quantiles}

    @classmethod
    def examples(cls) -> Iterator[tuple[Loss, Array, Array]]:
        rng = np.random.default_rng(0)
        yield cls(), rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
        yield cls(0.9, "sum"), rng.normal(size=(1, 1)), rng.normal(size=(1, 1))
        yield cls([0.1, 0.5, 0.9]), rng.normal(size=(4, 3)), rng.normal(size=(4, 1))
        yield cls([0.1, 0.9], "none"), rng.normal(size=(4, 2)), rng.normal(size=4)
        yield cls([0.1, 0.9], "sum"), rng.normal(size=(2, 3, 2)), rng.normal(size=(2, 3, 1))


class PoissonNLLLoss(Loss):
    """Negative log likelihood of counts, whose rate is predicted.

    L = exp(z) - t · z, dz = exp(z) - t for the logarithm z of the rate
    L = r - t · log(r + ε), dr = 1 - t / (r + ε) for the rate r itself

    Both leave out log t!, which does not depend on the prediction.

    Parameters
    ----------
    log_input
        Whether the prediction is the logarithm of the rate, which a ``Linear`` can give: a rate
        must be > 0.
    full
        Whether log t! counts, as t · log t - t + log(2π t) / 2 for t > 1 (Stirling), else 0.
    eps
        ε > 0, against the logarithm of a rate of zero.
    reduction
        ``"mean"`` over all elements, ``"sum"`` or ``"none"``: see ``Loss``.

    Shapes
    ------
    prediction and target of the same shape.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> float(nn.PoissonNLLLoss()(np.zeros((2, 1)), np.array([[0.0], [3.0]])))
    1.0
    """

    def __init__(
        self,
        log_input: bool = True,
        full: bool = False,
        eps: float = 1e-8,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction)
        self.log_input, self.full = bool(log_input), bool(full)
        self.eps = check_number("PoissonNLLLoss", "eps", eps, POSITIVE, np.inf)

    def forward(
        self, prediction: Array, target: Array, weight: Array | None = None
    ) -> tuple[Array, Array]:
        mean, each = self.reduction == "mean", self.reduction == "none"
        given = mean, weight, self.full
        if self.log_input:
            return kernels.poisson_nll(prediction, target, *given, each=each)
        return kernels.poisson_rate_nll(prediction, target, self.eps, *given, each=each)

    @property
    def predicts_targets(self) -> bool:
        return not self.log_input

    def settings(self) -> dict[str, Any]:
        defaults = {"log_input": True, "full": False, "eps": 1e-8}
        own = {name: getattr(self, name) for name in defaults}
        return super().settings() | {k: v for k, v in own.items() if v != defaults[k]}

    @classmethod
    def examples(cls) -> Iterator[tuple[Loss, Array, Array]]:
        rng = np.random.default_rng(0)
        counts = rng.poisson(2.0, size=(4, 3)).astype(float)
        yield cls(), rng.normal(size=(4, 3)), counts
        yield cls(full=True, reduction="sum"), rng.normal(size=(1, 1)), np.array([[3.0]])
        yield cls(False, eps=1e-3), rng.uniform(5, 8, size=(4, 3)), counts
        for full in (False, True):
            yield cls(False, full, reduction="none"), rng.uniform(5, 8, size=(4, 3)), counts


class GaussianNLLLoss(Loss):
    """Negative log likelihood of a normal distribution, whose mean and variance are predicted.

    L = ½ · (s + (m - t)² · exp(-s)), for the mean m and the logarithm s of the variance
    dm = (m - t) · exp(-s), ds = ½ · (1 - (m - t)² · exp(-s))

    The logarithm keeps the variance positive, whatever a ``Linear`` gives. A variance below ε
    counts as ε, and its gradient is that at ε, as in PyTorch.

    Source: Nix and Weigend 1994.

    Parameters
    ----------
    full
        Whether the constant ½ · log 2π counts.
    eps
        ε > 0, the least variance.
    reduction
        ``"mean"`` over all targets, ``"sum"`` or ``"none"``: see ``Loss``.

    Shapes
    ------
    prediction (..., 2 · outputs), first all means, then all log variances; target (..., outputs),
    or (...) for one output.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> prediction = np.array([[1.0, np.log(4.0)]])  # mean 1, variance 4
    >>> f"{float(nn.GaussianNLLLoss()(prediction, np.array([[3.0]]))):.4f}"  # (log 4 + 1) / 2
    '1.1931'
    """

    def __init__(self, full: bool = False, eps: float = 1e-6, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.full = bool(full)
        self.eps = check_number("GaussianNLLLoss", "eps", eps, POSITIVE, np.inf)

    def check_target(self, prediction: Array, target: Array) -> None:
        outputs = prediction.shape[-1] // 2 if prediction.ndim > 1 else 0
        if outputs == 0 or prediction.shape[-1] % 2:
            raise ValueError(
                f"{self!r}: prediction must be (batch, 2 · outputs), means and log variances, got "
                f"{prediction.shape}"
            )
        rows = prediction.shape[:-1]
        if target.shape != (*rows, outputs) and (outputs > 1 or target.shape != rows):
            raise ValueError(
                f"{self!r}: expected target {(*rows, outputs)} for prediction {prediction.shape}, "
                f"got {target.shape}"
            )
        self.check_target_dtype(prediction, target)

    def forward(
        self, prediction: Array, target: Array, weight: Array | None = None
    ) -> tuple[Array, Array]:
        mean, each = self.reduction == "mean", self.reduction == "none"
        outputs = target.reshape(*prediction.shape[:-1], prediction.shape[-1] // 2)
        given = math.log(self.eps), mean, weight, self.full
        value, gradient = kernels.gaussian_nll(prediction, outputs, *given, each=each)
        return (value.reshape(target.shape) if each else value), gradient

    @property
    def predicts_targets(self) -> bool:
        return False

    def settings(self) -> dict[str, Any]:
        defaults = {"full": False, "eps": 1e-6}
        own = {name: getattr(self, name) for name in defaults}
        return super().settings() | {k: v for k, v in own.items() if v != defaults[k]}

    @classmethod
    def examples(cls) -> Iterator[tuple[Loss, Array, Array]]:
        rng = np.random.default_rng(0)
        yield cls(), rng.normal(size=(4, 6)), rng.normal(size=(4, 3))
        yield cls(True, reduction="sum"), rng.normal(size=(1, 2)), rng.normal(size=(1, 1))
        yield cls(reduction="none"), rng.normal(size=(4, 4)), rng.normal(size=(4, 2))
        yield cls(True), rng.normal(size=(3, 2)), rng.normal(size=3)
        yield cls(), rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 3, 2))
