"""RMSprop and AdaGrad: a learning rate for every weight, by the size of its gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from minidl import kernels
from minidl.optim.optimizer import Optimizer, Parameters, Rate, hyper_parameter
from minidl.typing import Array


class RMSprop(Optimizer):
    """Divide the rate of every weight by the root of the recent mean square of its gradient.

    g ← g + λ · w;  s ← α · s + (1 - α) · g²;  w ← w - η · g / (sqrt(s) + ε)

    With momentum μ: b ← μ · b + g / (sqrt(s) + ε);  w ← w - η · b. Centered: the variance of the
    gradient, s - m² with m ← α · m + (1 - α) · g, in place of its mean square s.

    Source: Tieleman and Hinton 2012 (lecture 6.5); centered as in Graves 2013, equations 38 to
    41; in the form PyTorch uses.

    Parameters
    ----------
    parameters, weight_decay, max_norm, max_value, l1
        As in every optimizer: see ``Optimizer``.
    lr
        Learning rate η ≥ 0, or a schedule.
    alpha
        α in [0, 1).
    eps
        ε > 0.
    momentum
        μ in [0, 1).
    centered
        Whether to divide by the deviation instead.

    Raises
    ------
    ValueError
        For hyper-parameters outside these ranges.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn, optim
    >>> layer = nn.Linear(1, 1, init=nn.init.constant(2.0))
    >>> optimizer = optim.RMSprop(layer.parameters(), lr=0.1)
    >>> layer.weight.grad += 4.0
    >>> optimizer.step()
    4.0
    >>> layer.weight.data
    array([[1.]], dtype=float32)
    """

    names = ("alpha", "eps", "momentum")
    never_negative = ("square",)
    alpha = hyper_parameter("alpha")
    eps = hyper_parameter("eps")
    momentum = hyper_parameter("momentum")

    def __init__(
        self,
        parameters: Parameters,
        lr: Rate = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        momentum: float = 0.0,
        centered: bool = False,
        weight_decay: float = 0.0,
        max_norm: float | None = None,
        max_value: float | None = None,
        l1: float = 0.0,
    ) -> None:
        own = {"alpha": alpha, "eps": eps, "momentum": momentum}
        shared = {"weight_decay": weight_decay, "l1": l1, "max_value": max_value}
        super().__init__(parameters, lr, max_norm, **own, **shared)
        self.states["centered"] = centered
        self.square, self.mean, self.velocity = (self.flat.zeros() for _ in range(3))

    def update_part(self, data: Array, grad: Array, part: slice, state: Array) -> None:
        square, mean, velocity = self.square[part], self.mean[part], self.velocity[part]
        kernels.rmsprop(data, grad, square, mean, velocity, state)

    @classmethod
    def examples(cls) -> Iterator[dict[str, Any]]:
        yield {"lr": 0.01}
        yield {"lr": 0.01, "alpha": 0.9, "eps": 1e-5, "momentum": 0.8, "weight_decay": 0.1}
        yield {"lr": 0.01, "centered": True, "weight_decay": 0.01}
        yield {"lr": 0.01, "centered": True, "momentum": 0.5}


class AdaGrad(Optimizer):
    """Lower the rate of every weight as the squares of its gradients add up.

    g ← g + λ · w;  s ← s + g²;  w ← w - η · g / (sqrt(s) + ε)

    Source: Duchi et al. 2011, with the diagonal matrix.

    Parameters
    ----------
    parameters, weight_decay, max_norm, max_value, l1
        As in every optimizer: see ``Optimizer``.
    lr
        Learning rate η ≥ 0, or a schedule.
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
    >>> optimizer = optim.AdaGrad(layer.parameters(), lr=0.1)
    >>> layer.weight.grad += 4.0
    >>> optimizer.step()
    4.0
    >>> layer.weight.data
    array([[1.9]], dtype=float32)
    """

    names = ("eps",)
    never_negative = ("square",)
    eps = hyper_parameter("eps")

    def __init__(
        self,
        parameters: Parameters,
        lr: Rate = 1e-2,
        eps: float = 1e-10,
        weight_decay: float = 0.0,
        max_norm: float | None = None,
        max_value: float | None = None,
        l1: float = 0.0,
    ) -> None:
        shared = {"weight_decay": weight_decay, "l1": l1, "max_value": max_value}
        super().__init__(parameters, lr, max_norm, eps=eps, **shared)
        self.square = self.flat.zeros()

    def update_part(self, data: Array, grad: Array, part: slice, state: Array) -> None:
        kernels.adagrad(data, grad, self.square[part], state)

    @classmethod
    def examples(cls) -> Iterator[dict[str, Any]]:
        yield {"lr": 0.1}
        yield {"lr": 0.1, "eps": 1e-3, "weight_decay": 0.01}
