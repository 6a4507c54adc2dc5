"""One healthy program, the diabetes data by a network of two hidden layers, with one fault each."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.datasets import load_diabetes

from minidl import nn, optim
from minidl.diagnosis.program import Program
from minidl.nn.parameter import Initializer
from minidl.typing import Array

from .case import Case, error, kinds, stack, standardised


class WrongSign(nn.MSELoss):
    """A squared error of the user's own, whose gradient is target - prediction."""

    def forward(
        self, prediction: Array, target: Array, weight: Array | None = None
    ) -> tuple[Array, Array]:
        difference = prediction - target
        value = np.square(difference, dtype=np.float64).mean()
        return np.asarray(value), -2 * difference / difference.size


def diabetes(
    seed: int,
    loss: type[nn.Loss] = nn.MSELoss,
    lr: float = 0.001,
    init: Initializer | None = None,
    raw: str = "",
) -> Program:
    """Columns and targets standardised; 10-64-64-1, ReLU, He; Adam 0.001, 40 epochs."""
    data = load_diabetes(scaled=False)
    x = data.data if raw == "x" else standardised(data.data)
    y = data.target[:, None] if raw == "y" else standardised(data.target[:, None])
    model = stack([10, 64, 64, 1], nn.ReLU, init=init, seed=seed)
    adam = optim.Adam(model.parameters(), lr=lr)
    return Program(model, loss(), adam, x, y, 40, rng=seed)


def _mutant(name: str, right: str, fault: dict[str, Any], **cure: Any) -> Case:
    def make(seed: int, **edits: Any) -> Program:
        return diabetes(seed, **(edits or fault))

    return Case(
        name, "a fault set into a healthy program", make, kinds(*right.split()), error, cure
    )


HEALTHY: dict[str, Any] = {"lr": 0.001}
CASES = [
    _mutant("gradient of wrong sign", "not_learning", {"loss": WrongSign}, **HEALTHY),
    _mutant("Adam 1.0", "learning_rate_too_high dead_units", {"lr": 1.0}, **HEALTHY),
    _mutant("Adam 1e-5", "learning_rate_too_low stopped_early", {"lr": 1e-5}, **HEALTHY),
    _mutant(
        "all weights 0.01",
        "bad_initialization",
        {"init": nn.init.constant(0.01)},
        **HEALTHY,
    ),
    _mutant(
        "weights N(0, 1)",
        "bad_initialization exploding_gradient",
        {"init": nn.init.normal(std=1.0)},
        **HEALTHY,
    ),
    _mutant("raw columns", "unscaled_inputs", {"raw": "x"}, **HEALTHY),
    _mutant("raw targets", "unscaled_targets stopped_early", {"raw": "y"}, **HEALTHY),
]
