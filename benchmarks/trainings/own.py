"""Further programs that do not work: every kind of verdict, recurrent networks among them."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.datasets import (
    load_breast_cancer,
    load_digits,
    load_wine,
    make_blobs,
    make_friedman1,
    make_moons,
)

from minidl import datasets, nn, optim
from minidl.diagnosis.program import Program
from minidl.nn.parameter import Initializer
from minidl.typing import Array

from .case import Case, accuracy, balanced, error, kinds, stack, standardised

Maker = Any  # a layer's class, or a function that makes a layer


def digits(
    seed: int,
    widths: tuple[int, ...] = (64, 10),
    between: Maker = nn.ReLU,
    init: Initializer | str | None = None,
    biases: Initializer | str = "zeros",
    optimizer: type[optim.Optimizer] = optim.Adam,
    lr: float = 0.003,
    epochs: int = 15,
    shuffle: bool = True,
    in_order: bool = False,
    head: Maker = None,
    loss: Any = nn.CrossEntropyLoss,
    rows: int | None = None,
    settings: dict[str, Any] | None = None,
) -> Program:
    """Small pictures of digits."""
    data = load_digits()
    x, y = data.data[:rows] / 16, data.target[:rows]
    if in_order:
        order = np.argsort(y, kind="stable")
        x, y = x[order], y[order]
    model = stack([64, *widths], between, head, init, seed, biases)
    chosen = optimizer(model.parameters(), lr=lr, **(settings or {}))
    return Program(model, loss(), chosen, x, y, epochs, shuffle=shuffle, rng=seed)


def adding(
    seed: int,
    layer: type[nn.RNN] | type[nn.LSTM] | type[nn.GRU] = nn.RNN,
    steps: int = 40,
    lr: float = 0.01,
    optimizer: Any = optim.Adam,
    epochs: int = 30,
    max_norm: float | None = 1.0,
    cell: dict[str, Any] | None = None,
    scale: float = 1.0,
    hidden: int = 24,
) -> Program:
    """The adding problem by a recurrent layer."""
    x, y = datasets.adding(800, steps, rng=seed)
    recurrent = layer(2, hidden, return_sequences=False, **(cell or {}))
    model = nn.Sequential(recurrent, nn.Linear(hidden, 1), rng=seed)
    chosen = optimizer(model.parameters(), lr=lr, max_norm=max_norm)
    return Program(model, nn.MSELoss(), chosen, x, scale * y, epochs, rng=seed)


def waves(seed: int, lr: float = 0.003, large: bool = False, scale: float = 1.0) -> Program:
    """Which frequency a noisy sine has, by a plain recurrent layer."""
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=600)
    time = np.arange(30) + rng.uniform(0, 20, (600, 1))
    x = scale * np.sin(time * (0.3 + 0.4 * y[:, None])) + rng.normal(0, 0.1 * scale, (600, 30))
    init = {"recurrent_init": nn.init.normal(std=1.5)} if large else {}
    layer = nn.RNN(1, 24, return_sequences=False, **init)
    model = nn.Sequential(layer, nn.Linear(24, 3), rng=seed)
    adam = optim.Adam(model.parameters(), lr=lr)
    return Program(model, nn.CrossEntropyLoss(), adam, x[:, :, None], y, 25, rng=seed)


def growing_sum(seed: int, cured: bool = False) -> Program:
    """The mean of a sequence by rectified units, whose gradient grows by 1.5 or so a step."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 1, (500, 40, 1))
    y = x.mean(axis=1)
    init = "orthogonal" if cured else nn.init.orthogonal(2.2)
    layer = nn.RNN(1, 16, return_sequences=False, nonlinearity="relu", recurrent_init=init)
    model = nn.Sequential(layer, nn.Linear(16, 1), rng=seed)
    lr, clip = (0.01, 1.0) if cured else (0.01, None)
    optimizer = (optim.Adam if cured else optim.SGD)(model.parameters(), lr=lr, max_norm=clip)
    return Program(model, nn.MSELoss(), optimizer, x, y, 100 if cured else 30, rng=seed)


def wine(seed: int, scaled: bool = False, between: Maker = nn.Tanh, **more: Any) -> Program:
    """Wine, whose columns reach from 0.1 to 1680."""
    x, y = load_wine(return_X_y=True)
    model = stack([13, 16, 3], between, seed=seed)
    options: dict[str, Any] = {"lr": 0.01} | more
    sgd = optim.SGD(model.parameters(), **options)
    x = standardised(x) if scaled else x
    return Program(model, nn.CrossEntropyLoss(), sgd, x, y, 60, rng=seed)


def friedman(
    seed: int,
    scale: float = 1.0,
    offset: float = 0.0,
    head: Maker = None,
    lr: float = 0.005,
    optimizer: type[optim.Optimizer] = optim.Adam,
    epochs: int = 40,
    noise: bool = False,
    shift: int = 0,
    **init: Any,
) -> Program:
    """A smooth function of five of ten columns."""
    x, y = make_friedman1(600, noise=0.5, random_state=seed)
    y = offset + scale * standardised(y[:, None])
    if noise:
        y = np.random.default_rng(seed).permutation(y)
    model = stack([10, 48, 1], nn.Tanh, head, seed=seed, **init)
    chosen = optimizer(model.parameters(), lr=lr)
    return Program(
        model, nn.MSELoss(), chosen, standardised(x), np.roll(y, shift, 0), epochs, rng=seed
    )


def moons(
    seed: int, lr: float = 1e-4, epochs: int = 40, optimizer: Any = optim.SGD, **more: Any
) -> Program:
    """Two moons."""
    x, y = make_moons(400, noise=0.1, random_state=seed)
    model = stack([2, 24, 2], nn.Tanh, seed=seed)
    chosen = optimizer(model.parameters(), lr=lr, **more)
    return Program(model, nn.CrossEntropyLoss(), chosen, x, y, epochs, rng=seed)


class RootOfLogarithm(nn.Loss):
    """A binary cross entropy of the user's own, without a floor below its logarithms."""

    def forward(
        self, prediction: Array, target: Array, weight: Array | None = None
    ) -> tuple[Array, Array]:
        with np.errstate(all="ignore"):
            p, count = prediction, prediction.size
            value = -(target * np.log(p) + (1 - target) * np.log(1 - p))
            gradient = (p - target) / (p * (1 - p)) / count
        return np.asarray(value.mean(dtype=np.float64)), gradient.astype(p.dtype)


class Halted(nn.MSELoss):
    """A squared error of the user's own that forgets the error: its gradient is that of p²."""

    def forward(
        self, prediction: Array, target: Array, weight: Array | None = None
    ) -> tuple[Array, Array]:
        value = np.square(prediction - target, dtype=np.float64).mean()
        return np.asarray(value), 2 * prediction / prediction.size


class Ascending(nn.BCEWithLogitsLoss):
    """A cross entropy of the user's own whose gradient has the wrong sign."""

    def forward(
        self, logits: Array, target: Array, weight: Array | None = None
    ) -> tuple[Array, Array]:
        value, gradient = super().forward(logits, target, weight)
        return value, -np.asarray(gradient)


def cancer(seed: int, loss: Any = nn.BCEWithLogitsLoss, **more: Any) -> Program:
    """Two classes and one output."""
    x, y = load_breast_cancer(return_X_y=True)
    options: dict[str, Any] = {"lr": 0.005, "head": None, "scale": 1.0} | more
    model = stack([30, 16, 1], nn.ReLU, options["head"], seed=seed)
    adam = optim.Adam(model.parameters(), lr=options["lr"])
    x = options["scale"] * standardised(x)
    return Program(model, loss(), adam, x, y[:, None].astype(float), 30, rng=seed)


def small_sample(seed: int, weight_decay: float = 0.0, epochs: int = 1000) -> Program:
    """A hundred noisy rows, a large network, and as many epochs as it needs to learn the noise."""
    x, y = sine(seed, 100)
    model = stack([4, 128, 128, 1], nn.ReLU, seed=seed)
    adam = optim.AdamW(model.parameters(), lr=0.003, weight_decay=weight_decay)
    held_out = sine(seed + 100, 300)
    return Program(model, nn.MSELoss(), adam, x, y, epochs, validation=held_out, rng=seed)


def sine(seed: int, rows: int) -> tuple[Array, Array]:
    """A sine of the first of four columns, and as much noise again."""
    rng = np.random.default_rng([seed, rows])
    x = rng.uniform(-1, 1, (rows, 4))
    return x, np.sin(3 * x[:, :1]) + rng.normal(0, 0.5, (rows, 1))


def rare(seed: int, weighted: bool = False) -> Program:
    """A class of three in a hundred, which overlaps with the other."""
    rng = np.random.default_rng(seed)
    y = (np.arange(1500) % 33 == 0).astype(int)
    x = rng.normal(size=(1500, 4)) + 1.0 * y[:, None]
    model = stack([4, 16, 2], nn.ReLU, seed=seed)
    adam = optim.Adam(model.parameters(), lr=0.003)
    weights = "balanced" if weighted else None
    return Program(model, nn.CrossEntropyLoss(), adam, x, y, 40, rng=seed, class_weight=weights)


def two_heaps(seed: int, labels: str = "") -> Program:
    """Heaps that are easy to tell apart, with labels that are not theirs."""
    x, y = make_blobs(400, centers=4, random_state=seed, cluster_std=0.5)
    rng = np.random.default_rng(seed)
    if labels == "drawn":
        y = rng.integers(4, size=400)
    if labels == "half drawn":
        y = np.where(rng.uniform(size=400) < 0.5, rng.integers(4, size=400), y)
    model = stack([2, 24, 4], nn.ReLU, seed=seed)
    adam = optim.Adam(model.parameters(), lr=0.01)
    return Program(model, nn.CrossEntropyLoss(), adam, standardised(x), y, 40, rng=seed)


def _case(name: str, make: Any, right: str, figure: Any, faulty: Any, cure: Any = None) -> Case:
    def build(seed: int, **edits: Any) -> Program:
        return make(seed, **(faulty | edits))

    judged = (lambda seed: sine(seed + 200, 2000)) if make is small_sample else None
    return Case(name, "our own", build, kinds(*right.split()), figure, cure, judged)


SIGMOIDS = {"widths": (32,) * 8 + (10,), "between": nn.Sigmoid, "optimizer": optim.SGD, "lr": 0.1}
DEEP = (32,) * 12 + (10,)
CASES = [
    _case(
        "nine sigmoids", digits, "vanishing_gradient", accuracy, SIGMOIDS,
        {"between": nn.ReLU, "optimizer": optim.Adam, "lr": 0.003},
    ),
    _case(
        "deep tanh, small weights", digits, "vanishing_gradient bad_initialization", accuracy,
        {"widths": DEEP, "between": nn.Tanh, "init": nn.init.normal(std=0.03), "lr": 0.001},
        {"init": None},
    ),
    _case(
        "RNN over 40 steps", adding, "vanishing_gradient", error,
        {"cell": {"recurrent_init": nn.init.orthogonal(0.4)}},
        {"layer": nn.LSTM, "cell": {}, "epochs": 60},
    ),
    _case(
        "recurrence that grows", growing_sum,
        "exploding_gradient bad_initialization learning_rate_too_high", error, {},
        {"cured": True},
    ),
    _case(
        "deep ReLU, large weights", digits, "exploding_gradient bad_initialization", accuracy,
        {"widths": DEEP, "init": nn.init.normal(std=0.8), "optimizer": optim.SGD, "lr": 0.05},
        {"init": None},
    ),
    _case(
        "born dead", digits, "dead_units bad_initialization", accuracy,
        {"biases": nn.init.constant(-8.0), "widths": (32, 32, 10)}, {"biases": "zeros"},
    ),
    _case(
        "tanh on its ends", digits, "saturated_units bad_initialization", accuracy,
        {"widths": (32, 32, 10), "between": nn.Tanh, "init": nn.init.normal(std=4.0),
         "optimizer": optim.SGD, "lr": 0.1}, {"init": None},
    ),
    _case(
        "recurrence on its ends", waves,
        "saturated_units exploding_gradient bad_initialization", accuracy,
        {"large": True, "lr": 0.001}, {"large": False, "lr": 0.003},
    ),
    _case("raw wine", wine, "unscaled_inputs saturated_units", accuracy, {}, {"scaled": True}),
    _case(
        "raw wine, ReLU", wine, "unscaled_inputs dead_units learning_rate_too_high", accuracy,
        {"between": nn.ReLU}, {"scaled": True},
    ),
    _case(
        "targets of thousands", friedman, "unscaled_targets stopped_early", error,
        {"scale": 3000.0, "offset": 20_000.0}, {"scale": 1.0, "offset": 0.0},
    ),
    _case(
        "sums of hundreds, LSTM", adding, "unscaled_targets stopped_early", error,
        {"layer": nn.LSTM, "steps": 10, "scale": 300.0, "epochs": 40}, {"scale": 1.0},
    ),
    _case(
        "weights of zero", digits, "bad_initialization", accuracy,
        {"init": "zeros", "between": nn.Tanh}, {"init": None},
    ),
    _case(
        "SGD 100", moons, "learning_rate_too_high", accuracy, {"lr": 100.0}, {"lr": 0.5},
    ),
    _case(
        "SGD 0.5, momentum 0.99", digits,
        "learning_rate_too_high dead_units exploding_gradient", accuracy,
        {"optimizer": optim.SGD, "lr": 0.5, "settings": {"momentum": 0.99}},
        {"lr": 0.01, "settings": {"momentum": 0.9}},
    ),
    _case(
        "LSTM, Adam 1", adding, "learning_rate_too_high", error,
        {"layer": nn.LSTM, "steps": 10, "lr": 1.0, "epochs": 40}, {"lr": 0.01},
    ),
    _case(
        "SGD 1e-4", moons, "learning_rate_too_low stopped_early", accuracy, {}, {"lr": 0.5},
    ),
    _case(
        "GRU, Adam 1e-5", adding, "learning_rate_too_low stopped_early", error,
        {"layer": nn.GRU, "steps": 10, "lr": 1e-5, "epochs": 40}, {"lr": 0.01},
    ),
    _case(
        "ReLU head", friedman, "output_mismatch", error, {"head": nn.ReLU}, {"head": None},
    ),
    _case(
        "tanh head, targets to 10", friedman, "output_mismatch", error,
        {"head": nn.Tanh, "scale": 5.0}, {"head": None, "scale": 1.0},
    ),
    _case(
        "softmax before cross entropy", digits, "output_mismatch", accuracy,
        {"head": nn.Softmax, "optimizer": optim.SGD, "lr": 0.05, "epochs": 10}, {"head": None},
    ),
    _case(
        "log of zero", cancer, "not_finite output_mismatch learning_rate_too_high", accuracy,
        {"loss": RootOfLogarithm, "head": nn.Sigmoid, "lr": 0.1, "scale": 5.0},
        {"loss": nn.BCEWithLogitsLoss, "head": None, "lr": 0.005, "scale": 1.0},
    ),
    _case(
        "cross entropy uphill", cancer, "not_learning", accuracy, {"loss": Ascending},
        {"loss": nn.BCEWithLogitsLoss},
    ),
    _case("drawn labels", two_heaps, "nothing_to_learn data_error", accuracy, {"labels": "drawn"}),
    _case("permuted targets", friedman, "nothing_to_learn data_error", error, {"noise": True}),
    _case("half of the labels", two_heaps, "data_error", accuracy, {"labels": "half drawn"}),
    _case("targets a row late", friedman, "data_error nothing_to_learn", error, {"shift": 1}),
    _case(
        "a hundred noisy rows", small_sample, "overfitting", error, {},
        {"weight_decay": 3.0, "epochs": 300},
    ),
    _case(
        "one epoch", digits, "stopped_early learning_rate_too_low", accuracy,
        {"epochs": 1, "lr": 0.0003}, {"epochs": 100},
    ),
    _case(
        "rows by class", digits, "not_shuffled", accuracy,
        {"in_order": True, "shuffle": False, "lr": 0.01}, {"shuffle": True},
    ),
    _case("three in a hundred", rare, "class_imbalance", balanced, {}, {"weighted": True}),
]  # fmt: skip
