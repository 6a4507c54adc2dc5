"""Stochastic gradient descent, with momentum."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from minidl import kernels
from minidl.optim.optimizer import Optimizer, Parameters, Rate, hyper_parameter
from minidl.typing import Array


class SGD(Optimizer):
    """Stochastic gradient descent with momentum.

    g ← g + λ · w;  v ← μ · v + g;  w ← w - η · v  (Nesterov: w ← w - η · (g + μ · v))

    Source: Sutskever et al. 2013, in the form PyTorch uses.

    Parameters
    ----------
    parameters, weight_decay, max_norm, max_value, l1
        As in every optimizer: see ``Optimizer``.
    lr
        Learning rate η ≥ 0, or a schedule.
    momentum
        μ in [0, 1).
    nesterov
        Whether the step looks ahead along the velocity; needs momentum.

    Raises
    ------
    ValueError
        For hyper-parameters outside these ranges.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn, optim
    >>> layer = nn.Linear(1, 1, init=nn.init.constant(2.0))
    >>> optimizer = optim.SGD(layer.parameters(), lr=0.1)
    >>> layer.weight.grad += 4.0
    >>> optimizer.step()
    4.0
    >>> layer.weight.data
    array([[1.6]], dtype=float32)
    """

    names = ("momentum",)
    momentum = hyper_parameter("momentum")

    def __init__(
        self,
        parameters: Parameters,
        lr: Rate = 1e-2,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        max_norm: float | None = None,
        max_value: float | None = None,
        l1: float = 0.0,
    ) -> None:
        if nesterov and not momentum:
            raise ValueError("SGD: nesterov needs momentum > 0")
        shared = {"weight_decay": weight_decay, "l1": l1, "max_value": max_value}
        super().__init__(parameters, lr, max_norm, momentum=momentum, **shared)
        self.states["nesterov"] = nesterov
        self.velocity = self.flat.zeros()

    def update_part(self, data: Array, grad: Array, part: slice, state: Array) -> None:
        kernels.sgd(data, grad, self.velocity[part], state)

    @classmethod
    def examples(cls) -> Iterator[dict[str, Any]]:
        yield {"lr": 0.1}
        yield {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}
        yield {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01, "nesterov": True}
