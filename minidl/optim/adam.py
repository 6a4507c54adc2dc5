"""Adam and its kin: steps from the moments of the gradient."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from minidl import kernels
from minidl.optim.hyper_parameters import with_single_betas
from minidl.optim.optimizer import Optimizer, Parameters, Rate, hyper_parameter
from minidl.typing import Array


class _TwoMoments(Optimizer):
    """What Adam and its kin share: β₁, β₂, ε, and a vector for each moment."""

    names: tuple[str, ...] = ("beta1", "beta2", "eps")
    never_negative = ("moment2",)
    beta1 = hyper_parameter("beta1")
    beta2 = hyper_parameter("beta2")
    eps = hyper_parameter("eps")

    def __init__(
        self,
        parameters: Parameters,
        lr: Rate,
        betas: tuple[float, float],
        max_norm: float | None,
        **hyper: Any,
    ) -> None:
        hyper |= with_single_betas(type(self).__name__, {"betas": betas})
        super().__init__(parameters, lr, max_norm, **hyper)
        self.moment1, self.moment2 = self.flat.zeros(), self.flat.zeros()

    def update_part(self, data: Array, grad: Array, part: slice, state: Array) -> None:
        kernels.adam(data, grad, self.moment1[part], self.moment2[part], state)


class Adam(_TwoMoments):
    """Adaptive moment estimation.

    g ← g + λ · w;  m ← β₁ · m + (1 - β₁) · g;  v ← β₂ · v + (1 - β₂) · g²
    w ← w - η · m̂ / (sqrt(v̂) + ε),  m̂ = m / (1 - β₁ᵗ),  v̂ = v / (1 - β₂ᵗ)

    Source: Kingma and Ba 2015, algorithm 1.

    Parameters
    ----------
    parameters, weight_decay, max_norm, max_value, l1
        As in every optimizer: see ``Optimizer``.
    lr
        Learning rate η ≥ 0, or a schedule.
    betas
        (β₁, β₂), both in [0, 1).
    eps
        ε > 0.

    Raises
    ------
    ValueError
        For hyper-parameters outside these ranges.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn, optim
    >>> layer = nn.Linear(1, 1, init=nn.init.constant(2.0))
    >>> optimizer = optim.Adam(layer.parameters(), lr=0.1)
    >>> layer.weight.grad += 4.0
    >>> optimizer.step()
    4.0
    >>> layer.weight.data
    array([[1.9]], dtype=float32)
    """

    def __init__(
        self,
        parameters: Parameters,
        lr: Rate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        max_norm: float | None = None,
        max_value: float | None = None,
        l1: float = 0.0,
    ) -> None:
        shared = {"weight_decay": weight_decay, "l1": l1, "max_value": max_value}
        super().__init__(parameters, lr, betas, max_norm, eps=eps, **shared)

    @classmethod
    def examples(cls) -> Iterator[dict[str, Any]]:
        yield {"lr": 0.01}
        yield {"lr": 0.01, "betas": (0.5, 0.9), "eps": 1e-3, "weight_decay": 0.1}


class AdamW(_TwoMoments):
    """Adam with decoupled weight decay: the decay is not divided by the second moment.

    w ← (1 - η · λ) · w, then a step of Adam with λ = 0.

    Source: Loshchilov and Hutter 2019, algorithm 2, in the form PyTorch uses (η scales the decay).

    Parameters
    ----------
    parameters, weight_decay, max_norm, max_value, l1
        As in every optimizer: see ``Optimizer``.
    lr
        Learning rate η ≥ 0, or a schedule.
    betas
        (β₁, β₂), both in [0, 1).
    eps
        ε > 0.

    Raises
    ------
    ValueError
        For hyper-parameters outside these ranges.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn, optim
    >>> layer = nn.Linear(1, 1, init=nn.init.constant(2.0))
    >>> optimizer = optim.AdamW(layer.parameters(), lr=0.1)
    >>> layer.weight.grad += 4.0
    >>> optimizer.step()
    4.0
    >>> layer.weight.data
    array([[1.898]], dtype=float32)
    """

    def __init__(
        self,
        parameters: Parameters,
        lr: Rate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        max_norm: float | None = None,
        max_value: float | None = None,
        l1: float = 0.0,
    ) -> None:
        shared = {"weight_decay": weight_decay, "l1": l1, "max_value": max_value}
        super().__init__(parameters, lr, betas, max_norm, eps=eps, **shared)
        self.states["decoupled"] = True

    @classmethod
    def examples(cls) -> Iterator[dict[str, Any]]:
        yield {"lr": 0.01}
        yield {"lr": 0.01, "betas": (0.8, 0.9), "weight_decay": 0.3}


class Nadam(_TwoMoments):
    """Adam with Nesterov's momentum: a step uses the first moment as expected one step ahead.

    m, v as in Adam;  μₜ = β₁ · (1 - ½ · 0.96^(t · ψ))
    w ← w - η · m̂ / (sqrt(v̂) + ε),  v̂ = v / (1 - β₂ᵗ)
    m̂ = μₜ₊₁ · m / (1 - Π_{i ≤ t+1} μᵢ) + (1 - μₜ) · g / (1 - Π_{i ≤ t} μᵢ)

    Source: Dozat 2016, in the form PyTorch uses.

    Parameters
    ----------
    parameters, weight_decay, max_norm, max_value, l1
        As in every optimizer: see ``Optimizer``.
    lr
        Learning rate η ≥ 0, or a schedule.
    betas
        (β₁, β₂), both in [0, 1).
    eps
        ε > 0.
    momentum_decay
        ψ ≥ 0.

    Raises
    ------
    ValueError
        For hyper-parameters outside these ranges.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn, optim
    >>> layer = nn.Linear(1, 1, init=nn.init.constant(2.0))
    >>> optimizer = optim.Nadam(layer.parameters(), lr=0.1)
    >>> layer.weight.grad += 4.0
    >>> optimizer.step()
    4.0
    >>> layer.weight.data
    array([[1.8943548]], dtype=float32)
    """

    names = ("beta1", "beta2", "eps", "momentum_decay")
    momentum_decay = hyper_parameter("momentum_decay")

    def __init__(
        self,
        parameters: Parameters,
        lr: Rate = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        momentum_decay: float = 4e-3,
        weight_decay: float = 0.0,
        max_norm: float | None = None,
        max_value: float | None = None,
        l1: float = 0.0,
    ) -> None:
        own = {"eps": eps, "momentum_decay": momentum_decay}
        shared = {"weight_decay": weight_decay, "l1": l1, "max_value": max_value}
        super().__init__(parameters, lr, betas, max_norm, **own, **shared)
        self.states["mu_product"] = 1.0

    def update_part(self, data: Array, grad: Array, part: slice, state: Array) -> None:
        kernels.nadam(data, grad, self.moment1[part], self.moment2[part], state)

    @classmethod
    def examples(cls) -> Iterator[dict[str, Any]]:
        yield {"lr": 0.01}
        yield {"lr": 0.01, "betas": (0.8, 0.9), "momentum_decay": 0.02, "weight_decay": 0.1}
