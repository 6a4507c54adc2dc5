"""The largest learning rate is 2 / curvature, and training brings the curvature there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from minidl import analysis, datasets, nn, optim
from minidl.lab.drawing import curve, finish, log_curves, panels
from minidl.lab.findings import Findings
from minidl.lab.limits import size
from minidl.lab.quoted import Quoted, comparison, table
from minidl.typing import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FACTORS = (0.5, 0.95, 1.05)  # of 2 / λ
FIT_STEPS = 60
ROWS, HIDDEN, EVERY = 100, 16, 20  # of the digits; units; steps between two measurements
RATES = (0.04, 0.08, 0.12)  # of the network


@dataclass
class Training:
    """A network trained by gradient descent on all rows at once.

    Attributes
    ----------
    steps, curvatures
        The steps at which the largest curvature was measured, and it.
    losses
        The loss at these steps.
    """

    steps: Array
    curvatures: Array
    losses: Array


@dataclass(repr=False)
class Curvature(Findings):
    """Curvatures and rates.

    Attributes
    ----------
    exact, found
        The largest eigenvalue of the Hessian of a linear fit: 2 Xᵀ X / n by ``eigvalsh``, and by
        power iteration.
    fits
        By the factor of 2 / λ: the loss of the linear fit by step.
    trainings
        By rate: a network on a hundred digits.
    places
        By name: the gradient's norm and the largest curvature on a plateau, in a ravine, and of a
        network.
    """

    exact: float
    found: float
    fits: dict[float, Array]
    trainings: dict[float, Training]
    places: dict[str, tuple[float, float]]

    def quoted(self) -> list[Quoted]:
        """Return the numbers of lesson 12."""
        return [
            Quoted("power iteration / eigvalsh", "1.00", self.found / self.exact),
            Quoted("rate 0.5 · 2/λ: the loss falls", "1", self._falls(0.5)),
            Quoted("rate 0.95 · 2/λ: the loss falls", "1", self._falls(0.95)),
            Quoted("rate 1.05 · 2/λ: the loss falls", "0", self._falls(1.05)),
        ]

    def _falls(self, factor: float) -> float:
        return float(self.fits[factor][-1] < self.fits[factor][0])

    def lines(self) -> Iterator[str]:
        limit = 2 / self.exact
        yield f"A linear fit: λ = {self.exact:.4f}, so the largest rate is 2/λ = {limit:.4f}"
        yield ""
        yield from comparison(self.quoted())
        yield ""
        head = "network, rate", "2/rate", "curvature: first", "last", "loss: first", "last"
        rows = []
        for rate, t in self.trainings.items():
            ends = 2 / rate, *t.curvatures[[0, -1]], *t.losses[[0, -1]]
            rows.append((f"{rate:g}", *(f"{end:.3g}" for end in ends)))
        yield from table([head, *rows])
        yield ""
        yield "A gradient may be small on a plateau and in a ravine; the curvature tells which:"
        yield ""
        places = [
            (name, f"{gradient:.2g}", f"{curvature:.2g}")
            for name, (gradient, curvature) in self.places.items()
        ]
        yield from table([("place", "gradient", "largest curvature"), *places])

    def figure(self) -> Figure:
        """Draw the linear fit at three rates, and the curvature during training."""
        figure, (left, right) = panels(2)
        fits = {f"{f:g} · 2/λ": (range(len(y)), y) for f, y in self.fits.items()}
        log_curves(left, fits)
        finish(left, "A linear fit by gradient descent", "step", "loss", whole=True)
        for index, (rate, training) in enumerate(self.trainings.items()):
            curve(right, training.steps, training.curvatures, f"rate {rate:g}", index)
            line = right.get_lines()[-1]
            style = {"color": line.get_color(), "linewidth": 0.9, "linestyle": (0, (2, 2))}
            right.axhline(2 / rate, **style, label="2 / rate" if not index else "_")
        right.set_ylim(bottom=0)
        title = f"A network on {ROWS} digits"
        finish(right, title, "step", "largest curvature of the loss", whole=True)
        return figure


def compute(steps: int = 800, seed: int = 0) -> Curvature:
    """Measure curvatures, and descend at rates around 2 / λ.

    w_{t+1} - w* = (I - η H) (w_t - w*), which shrinks in every direction while η < 2 / λ_max

    Parameters
    ----------
    steps
        Of the network's trainings, ≥ 20.
    seed
        Of data and weights.

    Source: LeCun, Simard and Pearlmutter 1993; Cohen et al. 2021 (the edge of stability).
    """
    steps = size("curvature", "steps", steps, EVERY)
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(50, 3)) * (3.0, 1.0, 0.5)
    y = x @ rng.normal(size=(3, 1))
    model, loss = nn.Linear(3, 1, bias=False, init="zeros", dtype=np.float64), nn.MSELoss()
    exact = float(np.linalg.eigvalsh(2 * x.T @ x / len(x))[-1])
    return Curvature(
        exact=exact,
        found=analysis.largest_curvature(model, loss, x, y),
        fits={factor: _fit(x, y, factor * 2 / exact) for factor in FACTORS},
        trainings={rate: _trained(rate, steps, seed) for rate in RATES},
        places=_places(seed),
    )


def _fit(x: Array, y: Array, rate: float) -> Array:
    """Fit a linear unit by gradient descent; returns the loss by step."""
    model, loss = nn.Linear(3, 1, bias=False, init="zeros", dtype=np.float64), nn.MSELoss()
    optimizer = optim.SGD(model.parameters(), lr=rate)
    losses = []
    for _ in range(FIT_STEPS + 1):
        losses.append(float(loss(model(x), y)))
        optimizer.zero_grad()
        model.backward(loss.backward())
        optimizer.step()
    return np.array(losses)


def _digits() -> tuple[Array, Array]:
    """Return some digits, and their classes as vectors of zeros and a one."""
    data = datasets.digits()
    return data.x_train[:ROWS], np.eye(10, dtype=np.float32)[data.y_train[:ROWS]]


def _network(seed: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(64, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 10), rng=seed)


def _trained(rate: float, steps: int, seed: int) -> Training:
    """Train a network by gradient descent, and measure the curvature on the way."""
    (x, y), model, loss = _digits(), _network(seed), nn.MSELoss("sum")
    optimizer = optim.SGD(model.parameters(), lr=rate / ROWS)
    found, losses = [], []
    for step in range(steps + 1):
        losses.append(float(loss(model(x), y)) / ROWS)
        if step % EVERY == 0:
            found.append(analysis.largest_curvature(model, loss, x, y, tolerance=0.02) / ROWS)
        optimizer.zero_grad()
        loss(model(x), y)
        model.backward(loss.backward())
        optimizer.step()
    measured = np.arange(0, steps + 1, EVERY)
    return Training(measured, np.array(found), np.array(losses)[measured])


def _places(seed: int) -> dict[str, tuple[float, float]]:
    """Measure gradient and curvature on a plateau, in a ravine, and where a network begins."""
    x, y = _digits()
    rng = np.random.default_rng(seed)
    last = nn.Linear(HIDDEN, 10, bias_init=nn.init.constant(12.0))  # σ(12) is 1 to five digits
    hidden = nn.Linear(64, HIDDEN)
    saturated = nn.Sequential(hidden, nn.Sigmoid(), last, nn.Sigmoid(), rng=seed)
    columns = rng.normal(size=(50, 2)) * (1.0, 100.0)
    ravine = nn.Linear(2, 1, bias=False, init="zeros", dtype=np.float64)
    ravine.weight.data = [[0.001], [0.0]]
    return {
        "plateau: saturated sigmoids": _place(saturated, x, y),
        "ravine: columns of sizes 1 and 100": _place(ravine, columns, np.zeros((50, 1))),
        "the network, before training": _place(_network(seed), x, y),
    }


def _place(model: nn.Layer, x: Array, y: Array) -> tuple[float, float]:
    """Measure the gradient's norm and the largest curvature."""
    loss = nn.MSELoss()
    loss(model(x), y)
    model.backward(loss.backward())
    norm = np.sqrt(
        sum(float(np.square(p.grad, dtype=np.float64).sum()) for p in model.parameters())
    )
    return float(norm), analysis.largest_curvature(model, loss, x, y)
