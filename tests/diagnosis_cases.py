"""Small programs with one fault each, and programs that are well, for the tests of diagnoses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from minidl import datasets, nn, optim
from minidl.diagnosis.program import Program

Array = Any


@dataclass(frozen=True)
class Faulty:
    """A program that does not work, and the kinds of which one must come first."""

    name: str
    make: Callable[[int], Program]
    right: frozenset[str]


FAULTY: list[Faulty] = []
HEALTHY: list[Callable[[int], Program]] = []


def faulty(*right: str) -> Callable[[Callable[[int], Program]], Callable[[int], Program]]:
    """Put a program on the list of those that do not work."""

    def put(make: Callable[[int], Program]) -> Callable[[int], Program]:
        FAULTY.append(Faulty(make.__name__, make, frozenset(right)))
        return make

    return put


def healthy(make: Callable[[int], Program]) -> Callable[[int], Program]:
    """Put a program on the list of those that are well."""
    HEALTHY.append(make)
    return make


def moons(seed: int, rows: int = 300) -> tuple[Array, Array]:
    """Two half circles, one in the other."""
    rng = np.random.default_rng(seed)
    label = rng.integers(2, size=rows)
    angle = rng.uniform(0, np.pi, rows)
    x = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    x[label == 1] = np.array([1, 0.5]) - x[label == 1]
    return x + rng.normal(0, 0.1, x.shape), label


def curve(seed: int, rows: int = 300) -> tuple[Array, Array]:
    """A smooth function of three columns, of mean 0 and deviation 1."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 3))
    y = np.sin(2 * x[:, :1]) + 0.5 * x[:, 1:2] * x[:, 2:] + rng.normal(0, 0.1, (rows, 1))
    return x, (y - y.mean()) / y.std()


def heaps(seed: int, rows: int = 300, classes: int = 4) -> tuple[Array, Array]:
    """Heaps of points around corners of a square."""
    rng = np.random.default_rng(seed)
    label = rng.integers(classes, size=rows)
    corners = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]], float)
    return corners[label] + rng.normal(0, 0.25, (rows, 2)), label


def waves(seed: int, rows: int = 240, steps: int = 16) -> tuple[Array, Array]:
    """Sines of two frequencies."""
    rng = np.random.default_rng(seed)
    label = rng.integers(2, size=rows)
    time = np.arange(steps) + rng.uniform(0, 20, (rows, 1))
    return np.sin(time * (0.3 + 0.5 * label[:, None]))[:, :, None], label


def net(
    seed: int,
    *widths: int,
    between: Any = nn.Tanh,
    head: Any = None,
    init: Any = None,
    bias: Any = None,
) -> nn.Sequential:
    """Linear layers of these widths, with activations between them."""
    layers: list[nn.Layer] = []
    for n, m in pairwise(widths):
        layers += [nn.Linear(n, m, init=init, bias_init=bias), between()]
    layers = layers[:-1] + ([] if head is None else [head()])
    return nn.Sequential(*layers, rng=seed)


def classify(seed: int, model: nn.Layer, rows: Any, epochs: int, lr: float, **more: Any) -> Program:
    """Cross entropy of labels, Adam unless another optimizer is named."""
    cls = more.pop("optimizer", optim.Adam)
    settings = more.pop("settings", {})
    optimizer = cls(model.parameters(), lr=lr, **settings)
    return Program(model, nn.CrossEntropyLoss(), optimizer, *rows, epochs, rng=seed, **more)


def fit_numbers(
    seed: int, model: nn.Layer, rows: Any, epochs: int, lr: float, **more: Any
) -> Program:
    """Squared error, Adam unless another optimizer is named."""
    cls, loss = more.pop("optimizer", optim.Adam), more.pop("loss", nn.MSELoss())
    optimizer = cls(model.parameters(), lr=lr)
    return Program(model, loss, optimizer, *rows, epochs, rng=seed, **more)


# --- faults -----------------------------------------------------------------------------------


@faulty("vanishing_gradient")
def deep_sigmoids(seed: int) -> Program:
    """Eight layers of sigmoids and plain descent."""
    model = net(seed, 2, *[24] * 8, 4, between=nn.Sigmoid)
    return classify(seed, model, heaps(seed), 20, 0.1, optimizer=optim.SGD)


@faulty("vanishing_gradient", "bad_initialization")
def short_memory(seed: int) -> Program:
    """The sign of the first step, asked for after forty more."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(0, 0.3, (300, 40, 1)), rng.integers(2, size=300)
    x[:, 0, 0] = 2 * y - 1
    cell = nn.RNN(1, 12, return_sequences=False, recurrent_init=nn.init.orthogonal(0.4))
    model = nn.Sequential(cell, nn.Linear(12, 2), rng=seed)
    return classify(seed, model, (x, y), 10, 0.003)


@faulty("exploding_gradient", "bad_initialization", "learning_rate_too_high")
def growing_memory(seed: int) -> Program:
    """A linear recurrence that doubles at every step."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(240, 30, 2))
    cell = nn.RNN(
        *(2, 12),
        return_sequences=False,
        nonlinearity="relu",
        recurrent_init=nn.init.orthogonal(2.0),
    )
    model = nn.Sequential(cell, nn.Linear(12, 1), rng=seed)
    rows = x, x[:, -5:, 0].sum(axis=1, keepdims=True)
    return fit_numbers(seed, model, rows, 15, 0.01, optimizer=optim.SGD)


@faulty("dead_units", "bad_initialization")
def born_dead(seed: int) -> Program:
    """Biases that keep all rectifiers shut."""
    model = net(seed, 2, 16, 16, 4, between=nn.ReLU, bias=nn.init.constant(-8.0))
    return classify(seed, model, heaps(seed), 20, 0.003)


@faulty("saturated_units", "bad_initialization")
def saturated(seed: int) -> Program:
    """Weights so large that every tanh is at an end."""
    model = net(seed, 2, 24, 24, 4, init=nn.init.normal(std=12.0))
    return classify(seed, model, heaps(seed), 15, 0.02, optimizer=optim.SGD)


@faulty("unscaled_inputs", "saturated_units")
def raw_columns(seed: int) -> Program:
    """Columns of hundreds, and tanh."""
    x, y = moons(seed)
    model = net(seed, 2, 16, 2)
    return classify(seed, model, (300 + 80 * x, y), 30, 0.01, optimizer=optim.SGD)


@faulty("unscaled_targets", "stopped_early")
def raw_targets(seed: int) -> Program:
    """Targets of thousands."""
    x, y = curve(seed)
    return fit_numbers(seed, net(seed, 3, 32, 1), (x, 20_000 + 3000 * y), 40, 0.005)


@faulty("bad_initialization")
def all_zero(seed: int) -> Program:
    """All weights zero."""
    return classify(seed, net(seed, 2, 16, 4, init="zeros"), heaps(seed), 15, 0.01)


@faulty("learning_rate_too_high", "dead_units", "exploding_gradient")
def rate_too_high(seed: int) -> Program:
    """Adam at 1."""
    return fit_numbers(seed, net(seed, 3, 32, 32, 1, between=nn.ReLU), curve(seed), 30, 1.0)


@faulty("learning_rate_too_low", "stopped_early")
def rate_too_low(seed: int) -> Program:
    """Adam at a hundred-thousandth."""
    return fit_numbers(seed, net(seed, 3, 32, 1), curve(seed), 30, 1e-5)


@faulty("stopped_early", "learning_rate_too_low")
def one_epoch(seed: int) -> Program:
    """Ten steps."""
    return classify(seed, net(seed, 2, 16, 2), moons(seed), 1, 0.003)


@faulty("output_mismatch")
def softmax_of_one(seed: int) -> Program:
    """A softmax over the only output."""
    x, y = moons(seed)
    model = net(seed, 2, 16, 1, head=nn.Softmax)
    return fit_numbers(seed, model, (x, y[:, None].astype(float)), 30, 0.01)


@faulty("output_mismatch")
def short_head(seed: int) -> Program:
    """Targets of mean 5 behind a sigmoid."""
    x, y = curve(seed)
    return fit_numbers(seed, net(seed, 3, 16, 1, head=nn.Sigmoid), (x, 5 + y), 20, 0.01)


class LogOfAll(nn.Loss):
    """A cross entropy of the user's own that takes scores for probabilities."""

    def forward(self, prediction: Any, target: Any, weight: Any = None) -> Any:
        with np.errstate(all="ignore"):
            rows = len(prediction)
            value = -(target * np.log(prediction)).sum(dtype=np.float64) / rows
            return np.asarray(value), -target / prediction / rows


@faulty("not_finite", "output_mismatch")
def log_of_scores(seed: int) -> Program:
    """The logarithm of negative numbers."""
    x, y = heaps(seed)
    return fit_numbers(seed, net(seed, 2, 16, 4), (x, np.eye(4)[y]), 20, 0.05, loss=LogOfAll())


class RelativeError(nn.Loss):
    """A squared error of log(1 + y), which is no number for y < -1."""

    def forward(self, prediction: Any, target: Any, weight: Any = None) -> Any:
        with np.errstate(all="ignore"):
            error = np.log1p(prediction) - np.log1p(target)
            slope = 2 * error / (1 + prediction) / error.size
            return np.asarray(np.square(error, dtype=np.float64).mean()), slope


@faulty("not_finite")
def log_of_a_linear_head(seed: int) -> Program:
    """Answers that begin on both sides of zero, for targets that are positive."""
    x, y = curve(seed)
    model = net(seed, 3, 16, 1)
    model[-1].weight.data *= 5
    return fit_numbers(seed, model, (x, 3 + y), 20, 0.003, loss=RelativeError())


class Uphill(nn.MSELoss):
    """A squared error whose gradient has the wrong sign."""

    def forward(self, prediction: Any, target: Any, weight: Any = None) -> Any:
        error = prediction - target
        return np.asarray(np.square(error, dtype=np.float64).mean()), -2 * error / error.size


@faulty("not_learning")
def uphill(seed: int) -> Program:
    """Steps away from the least."""
    return fit_numbers(seed, net(seed, 3, 16, 1), curve(seed), 10, 0.003, loss=Uphill())


class Blocking(nn.Layer):
    """A layer of the user's own that passes no gradient on."""

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        self.save(None)
        return x * x.dtype.type(1)

    def backward(self, dy: Any) -> Any:  # type: ignore[override]
        self.saved(dy)
        return dy * dy.dtype.type(0)


@faulty("not_learning")
def blocked(seed: int) -> Program:
    """Nothing in front of the last layer gets a gradient."""
    model = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 4), Blocking(), rng=seed)
    return classify(seed, model, heaps(seed), 10, 0.01)


@faulty("nothing_to_learn")
def drawn_labels(seed: int) -> Program:
    """Labels that are drawn."""
    x, _ = heaps(seed)
    rows = x, np.random.default_rng([seed, 1]).integers(4, size=len(x))
    return classify(seed, net(seed, 2, 16, 4), rows, 20, 0.01)


@faulty("overfitting")
def learned_by_heart(seed: int) -> Program:
    """Fifty noisy rows, and a net of 17,000 weights."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (100, 4))
    y = np.sin(3 * x[:, :1]) + rng.normal(0, 0.5, (100, 1))
    return fit_numbers(seed, net(seed, 4, 128, 128, 1, between=nn.ReLU), (x, y), 300, 0.003)


@faulty("not_shuffled")
def rows_by_class(seed: int) -> Program:
    """All digits of a class after one another, in every epoch."""
    data = datasets.digits()
    x, y = data.x_train[:800], data.y_train[:800]
    order = np.argsort(y, kind="stable")
    model = net(seed, 64, 32, 10, between=nn.ReLU)
    return classify(seed, model, (x[order], y[order]), 10, 0.01, shuffle=False)


@faulty("class_imbalance")
def rare_class(seed: int) -> Program:
    """Four rows in a hundred, which overlap with the others."""
    rng = np.random.default_rng(seed)
    y = (rng.uniform(size=1500) < 0.04).astype(int)
    x = rng.normal(size=(1500, 6)) + 0.9 * y[:, None]
    return classify(seed, net(seed, 6, 16, 2, between=nn.ReLU), (x, y), 15, 0.003)


@faulty("data_error")
def slipped(seed: int) -> Program:
    """Targets two rows late."""
    x, y = heaps(seed)
    return classify(seed, net(seed, 2, 16, 4), (x, np.roll(y, 2)), 20, 0.01)


@faulty("data_error")
def block_of_others(seed: int) -> Program:
    """A third of the rows whose targets were permuted."""
    x, y = heaps(seed, rows=600)
    y[200:400] = np.random.default_rng(seed).permutation(y[200:400])
    return classify(seed, net(seed, 2, 16, 4), (x, y), 20, 0.01)


# --- programs that are well -----------------------------------------------------------------------


@healthy
def plain_descent(seed: int) -> Program:
    """SGD at 0.1, as it is."""
    return classify(seed, net(seed, 2, 24, 4), heaps(seed), 30, 0.1, optimizer=optim.SGD)


@healthy
def small_rate(seed: int) -> Program:
    """A small rate, and epochs enough."""
    return fit_numbers(seed, net(seed, 3, 32, 1), curve(seed), 400, 1e-3)


@healthy
def much_noise(seed: int) -> Program:
    """R² of 0.1, and no more is to be had."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(1000, 1))
    return fit_numbers(seed, net(seed, 1, 16, 1), (x, x + rng.normal(0, 3, x.shape)), 20, 0.01)


@healthy
def zeros_and_ones(seed: int) -> Program:
    """A table of zeros and ones."""
    rng = np.random.default_rng(seed)
    values = rng.integers(6, size=(500, 3))
    y = rng.normal(size=(3, 6))[np.arange(3), values].sum(axis=1, keepdims=True)
    return fit_numbers(
        seed, net(seed, 18, 24, 1), (np.eye(6)[values].reshape(500, 18), y), 40, 0.01
    )


@healthy
def dropped(seed: int) -> Program:
    """Half of the units dropped."""
    layers = nn.Linear(2, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 4)
    return classify(seed, nn.Sequential(*layers, rng=seed), heaps(seed), 40, 0.01)


@healthy
def residual(seed: int) -> Program:
    """Eight residual blocks."""
    blocks = [nn.pre_activation(16, norm=nn.LayerNorm) for _ in range(8)]
    model = nn.Sequential(nn.Linear(2, 16), *blocks, nn.Linear(16, 4), rng=seed)
    return classify(seed, model, heaps(seed), 15, 0.003)


@healthy
def remembered(seed: int) -> Program:
    """Two frequencies, told apart by an LSTM."""
    cell = nn.LSTM(1, 12, return_sequences=False)
    model = nn.Sequential(cell, nn.Linear(12, 2), rng=seed)
    return classify(seed, model, waves(seed), 20, 0.01)


@healthy
def exclusive_or(seed: int) -> Program:
    """XOR in four rows, with sixteen hidden units."""
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], float)
    y = (x.sum(axis=1) == 1).astype(int)
    return classify(seed, net(seed, 2, 16, 2), (x, y), 200, 0.05, batch_size=4)
