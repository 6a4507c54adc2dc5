"""Programs that people asked about on Stack Overflow, in the benchmark of fault localisation.

Numbers are those of the questions; those without one stand in the benchmark of DeepFD (Cao et al.
2022) and of Humbatova et al. (2025) under the name that is given. Each is rebuilt with the sizes,
rates and faults that it had, on small data.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.datasets import load_digits, load_iris

from minidl import nn, optim
from minidl.diagnosis.program import Program
from minidl.typing import Array

from .case import Case, accuracy, bits, error, kinds, stack, standardised

SMALL = nn.init.uniform(-0.05, 0.05)


def two_clusters(seed: int, lr: float = 0.001, epochs: int = 5) -> Program:
    """Two squares of the plane, and 35 steps to tell them apart."""
    rng = np.random.default_rng(seed)
    x = np.concatenate([rng.uniform(0.2, 0.4, (100, 2)), rng.uniform(0.5, 0.7, (100, 2))])
    model = stack([2, 2, 2], nn.Sigmoid, seed=seed)
    adam = optim.Adam(model.parameters(), lr=lr)
    y = np.repeat([0, 1], 100)
    return Program(model, nn.CrossEntropyLoss(), adam, x, y, epochs, rng=seed)


def xor_of_softmax(seed: int, cured: bool = False) -> Program:
    """XOR in six rows, answered by a softmax over one unit."""
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1], [0, 0], [1, 1]], float)
    y = (x.sum(axis=1, keepdims=True) == 1).astype(float)
    if cured:
        model = stack([2, 2, 3, 1], nn.Sigmoid, seed=seed)
        adam = optim.Adam(model.parameters(), lr=0.1)
        return Program(model, nn.BCEWithLogitsLoss(), adam, x, y, 1000, rng=seed)
    model = stack([2, 2, 3, 1], nn.Sigmoid, nn.Softmax, SMALL, seed)
    sgd = optim.SGD(model.parameters(), lr=0.001, momentum=0.9, nesterov=True)
    return Program(model, nn.MSELoss(), sgd, x, y, 20, rng=seed)


def sum_of_softmax(seed: int, cured: bool = False) -> Program:
    """A linear function of large inputs, answered by a softmax over one unit."""
    x = np.random.default_rng(seed).uniform(0, 10_000, (2000, 3))
    y = x @ np.array([[2.0], [1.0], [0.5]]) + 2.2
    x, y = (standardised(x), standardised(y)) if cured else (x, y)
    model = stack([3, 3, 2, 1], nn.Tanh, None if cured else nn.Softmax, SMALL, seed)
    sgd = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return Program(model, nn.MSELoss(), sgd, x, y, 20, rng=seed)


def copied_bits(seed: int, lr: float = 0.01) -> Program:
    """Eight bits through three layers of sigmoids, with tiny weights and a small rate."""
    x = ((np.arange(256)[:, None] >> np.arange(8)) & 1).astype(float)
    model = stack([8, 8, 8, 8], nn.Sigmoid, nn.Sigmoid, nn.init.normal(std=0.05), seed)
    sgd = optim.SGD(model.parameters(), lr=lr)
    return Program(model, nn.MSELoss(), sgd, x, x, 1000, 50, rng=seed)


def fourth_power(seed: int, scaled: bool = False) -> Program:
    """x⁴ for x from -100 to 100: targets up to 1e8."""
    x = np.arange(-100, 100, 0.5)[:, None]
    x, y = (standardised(x), standardised(x**4)) if scaled else (x, x**4)
    model = stack([1, 50, 50, 1], [nn.Sigmoid, nn.ELU], seed=seed)
    adam = optim.Adam(model.parameters(), lr=0.001)
    return Program(model, nn.MSELoss(), adam, x, y, 1000, 400, rng=seed)


def threshold_of_softmax(seed: int, cured: bool = False) -> Program:
    """Whether a large number is below 20 000, answered by a softmax over one unit."""
    x = 10.0 * np.random.default_rng(seed).integers(1504, 2500, (1000, 1))
    y = (x <= 20_000).astype(float)
    x = standardised(x) if cured else x
    model = stack([1, 1, 1], nn.Sigmoid, nn.Sigmoid if cured else nn.Softmax, seed=seed)
    optimizer = optim.RMSprop(model.parameters(), lr=0.01 if cured else 0.001)
    return Program(model, nn.L1Loss(), optimizer, x, y, 100, 200, rng=seed)


def character_codes(seed: int, cured: bool = False) -> Program:
    """Three letters as their codes, 65 to 70, through small ReLU layers."""
    rng = np.random.default_rng(seed)
    x = np.concatenate([np.tile([68, 69, 70], (8, 1)), rng.integers(65, 71, (13, 3))]).astype(float)
    y = (x == [68, 69, 70]).all(axis=1, keepdims=True).astype(float)
    x = standardised(x) if cured else x
    activation = nn.LeakyReLU if cured else nn.ReLU
    model = stack([3, 12, 3, 1], activation, init=None if cured else SMALL, seed=seed)
    adam = optim.Adam(model.parameters(), lr=0.001)
    return Program(model, nn.BCEWithLogitsLoss(), adam, x, y, 150, 1, rng=seed)


def iris_of_sigmoid(seed: int, cured: bool = False) -> Program:
    """Half of the iris rows, a sigmoid in front of the cross entropy."""
    x, y = load_iris(return_X_y=True)
    half = np.random.default_rng(seed).permutation(len(x))[:75]
    x, y = x[half], y[half]
    x = standardised(x) if cured else x
    model = stack(
        [4, 4, 3], nn.Tanh if cured else nn.ReLU, None if cured else nn.Sigmoid, seed=seed
    )
    adam = optim.Adam(model.parameters(), lr=0.01 if cured else 0.001)
    return Program(model, nn.CrossEntropyLoss(), adam, x, y, 50, 5, rng=seed)


def noise_of_softmax(seed: int) -> Program:
    """Targets that have nothing to do with the inputs, and a softmax over one unit."""
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(size=(1000, 5)), rng.uniform(size=(1000, 1))
    model = stack([5, 60, 50, 1], nn.ReLU, nn.Softmax, seed=seed)
    adam = optim.Adam(model.parameters(), lr=0.001)
    return Program(model, nn.BCEWithLogitsLoss(), adam, x, y, 30, rng=seed)


def five_times(seed: int, lr: float = 0.001) -> Program:
    """y = 5x by one unit, which can travel 0.8 in all its steps."""
    x = np.linspace(1, 2, 100)[:, None]
    model = stack([1, 1], seed=seed)
    optimizer = optim.RMSprop(model.parameters(), lr=lr)
    return Program(model, nn.MSELoss(), optimizer, x, 5 * x, 200, rng=seed)


def line_that_diverges(seed: int, lr: float = 0.1) -> Program:
    """A line through eight points, whose curvature is beyond 2 / 0.1."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-8, 8, (8, 1))
    y = 1.5 * x + 2 + rng.normal(0, 0.5, (8, 1))
    model = stack([1, 1], seed=seed)
    return Program(
        model, nn.MSELoss(), optim.SGD(model.parameters(), lr=lr), x, y, 200, 8, rng=seed
    )


def parabola_that_diverges(seed: int, lr: float = 0.01) -> Program:
    """A parabola through four points, by a loss that is a sum."""
    x = np.arange(4.0)[:, None]
    x = np.concatenate([x**2, x], axis=1)
    model = stack([2, 1], seed=seed)
    sgd = optim.SGD(model.parameters(), lr=lr)
    return Program(model, nn.MSELoss("sum"), sgd, x, x[:, :1], 500, 4, rng=seed)


class LogOfOutputs(nn.Loss):
    """A loss of the user's own, -Σ t · log p over a row, which believes all outputs to be p."""

    def forward(
        self, prediction: Array, target: Array, weight: Array | None = None
    ) -> tuple[Array, Array]:
        with np.errstate(all="ignore"):
            rows = len(prediction)
            value = -(target * np.log(prediction)).sum(dtype=np.float64) / rows
            return np.asarray(value), -target / prediction / rows


def digits_without_softmax(seed: int, softmax: bool = False) -> Program:
    """Digits by a loss of the user's own that takes the logarithm of logits."""
    data = load_digits()
    x, y = data.data / 16, np.eye(10)[data.target]
    normal = nn.init.normal(std=1.0)
    head = nn.Softmax if softmax else None
    model = stack([64, 64, 10], nn.Sigmoid, head, normal, seed, biases=normal)
    return Program(model, LogOfOutputs(), optim.SGD(model.parameters(), lr=0.1), x, y, 20, rng=seed)


def coin_tosses(seed: int) -> Program:
    """Labels by coin tosses, and dropout of 0.8."""
    x, y = tosses(seed, 100)
    model = stack(
        [14, 20, 20, 15, 2],
        nn.ReLU,
        init=nn.init.normal(std=0.5),
        seed=seed,
        after=lambda: nn.Dropout(0.8),
    )
    adam = optim.Adam(model.parameters(), lr=0.001)
    return Program(model, nn.CrossEntropyLoss(), adam, x, y, 100, rng=seed)


def tosses(seed: int, rows: int) -> tuple[Array, Array]:
    """Normal columns and a label that is a coin toss."""
    rng = np.random.default_rng([seed, rows])
    return rng.normal(size=(rows, 14)), rng.integers(2, size=rows)


def _case(name: str, source: str, make: Any, right: str, figure: Any, **more: Any) -> Case:
    return Case(name, source, make, kinds(*right.split()), figure, **more)


STACK_OVERFLOW = "Stack Overflow {}".format
CASES = [
    _case(
        "two clusters", STACK_OVERFLOW(50306988), two_clusters,
        "learning_rate_too_low stopped_early", accuracy, cure={"epochs": 500},
    ),
    _case(
        "XOR, softmax of one", STACK_OVERFLOW(34311586), xor_of_softmax,
        "output_mismatch learning_rate_too_low stopped_early", accuracy, cure={"cured": True},
    ),
    _case(
        "sum, softmax of one", STACK_OVERFLOW(33969059), sum_of_softmax,
        "output_mismatch unscaled_inputs unscaled_targets saturated_units", error,
        cure={"cured": True},
    ),
    _case(
        "bits copied", STACK_OVERFLOW(39217567), copied_bits,
        "vanishing_gradient learning_rate_too_low", bits, cure={"lr": 10.0},
    ),
    _case(
        "fourth power", STACK_OVERFLOW(52800582), fourth_power,
        "unscaled_targets unscaled_inputs", error, cure={"scaled": True},
    ),
    _case(
        "threshold, softmax of one", STACK_OVERFLOW(45442843), threshold_of_softmax,
        "output_mismatch unscaled_inputs saturated_units", accuracy, cure={"cured": True},
    ),
    _case(
        "character codes", STACK_OVERFLOW(39525358), character_codes,
        "unscaled_inputs dead_units", accuracy, cure={"cured": True},
    ),
    _case(
        "iris, sigmoid before loss", STACK_OVERFLOW(51930566), iris_of_sigmoid,
        "output_mismatch learning_rate_too_low stopped_early unscaled_inputs", accuracy,
        cure={"cured": True},
    ),
    _case(
        "noise, softmax of one", STACK_OVERFLOW(45337371), noise_of_softmax,
        "output_mismatch nothing_to_learn", error,
    ),
    _case(
        "five times x", STACK_OVERFLOW(51181393), five_times,
        "learning_rate_too_low stopped_early", error, cure={"lr": 0.1},
    ),
    _case(
        "line that diverges", "Humbatova et al., IPS_5", line_that_diverges,
        "learning_rate_too_high exploding_gradient unscaled_inputs", error, cure={"lr": 0.02},
    ),
    _case(
        "parabola that diverges", "Humbatova et al., IPS_17", parabola_that_diverges,
        "learning_rate_too_high exploding_gradient unscaled_inputs", error, cure={"lr": 0.005},
    ),
    _case(
        "digits, log of logits", "Humbatova et al., IPS_7", digits_without_softmax,
        "output_mismatch not_finite", accuracy, cure={"softmax": True},
    ),
    _case(
        "coin tosses", "Humbatova et al., IPS_12", coin_tosses,
        "nothing_to_learn", accuracy, judged=lambda seed: tosses(seed, 2000),
    ),
]  # fmt: skip
