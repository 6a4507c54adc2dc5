"""A ravine: where curvatures differ, one learning rate cannot suit both directions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl import nn, optim
from minidl.lab.drawing import STYLES, finish, log_curves, panels
from minidl.lab.findings import Findings
from minidl.lab.limits import size
from minidl.lab.quoted import Quoted, comparison, table
from minidl.typing import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HIGHEST = 1e12  # condition: beyond it, the best momentum is 1 to the last digits
START = (10.0, 1.0)
ADAPTIVE_RATE = 0.3  # of RMSprop and Adam, which divide by the size of the gradient
BEYOND = 1.02  # times the largest rate that descends
TOO_HIGH = "sgd, too high"
SHOWN = 25  # steps of the ways in the picture


@dataclass
class Path:
    """The way of one optimizer.

    Attributes
    ----------
    rate
        Its learning rate.
    points
        (steps + 1, 2).
    values
        f at each.
    """

    rate: float
    points: Array
    values: Array


@dataclass(repr=False)
class Ravine(Findings):
    """f(w) = (w₁² + κ w₂²) / 2, and ways down.

    Attributes
    ----------
    condition
        κ, the ratio of the curvatures.
    paths
        By the name of the optimizer.
    newton
        Where one step of Newton's method leads.
    """

    condition: float
    paths: dict[str, Path]
    newton: Array

    @property
    def factors(self) -> tuple[float, float]:
        """The best factors of the distance per step: descent, and momentum.

        (κ - 1) / (κ + 1)  and  (√κ - 1) / (√κ + 1)
        """
        root = math.sqrt(self.condition)
        return (self.condition - 1) / (self.condition + 1), (root - 1) / (root + 1)

    def quoted(self) -> list[Quoted]:
        """Return the numbers of lesson 11, for a condition of 100."""
        descent, momentum = (100 - 1) / (100 + 1), (10 - 1) / (10 + 1)
        return [
            Quoted("κ = 100: best factor per step of descent", "0.98", descent),
            Quoted("of momentum", "0.818", momentum),
            Quoted("largest rate of descent, 2/κ", "0.02", 2 / 100),
            Quoted("Newton's step: distance left", "0", float(np.linalg.norm(self.newton))),
        ]

    def lines(self) -> Iterator[str]:
        yield f"f = (w1² + κ·w2²) / 2, κ = {self.condition:g}, from {START}"
        yield ""
        yield from comparison(self.quoted())
        yield ""
        steps = len(next(iter(self.paths.values())).values) - 1
        head = "optimizer", "rate", "f at the start", "after 10 steps", f"after {steps}"
        rows = []
        for name, path in self.paths.items():
            values = path.values[[0, min(10, steps), -1]]
            rows.append((name, f"{path.rate:.3g}", *(f"{value:.3g}" for value in values)))
        yield from table([head, *rows])

    def figure(self) -> Figure:
        """Draw the ways down over the contours, and f by step."""
        figure, (left, right) = panels(2, (6.2, 4.4))
        x, y = np.linspace(-4, 11, 151), np.linspace(-1.5, 1.5, 121)
        f = (x**2 + self.condition * y[:, None] ** 2) / 2
        levels = np.geomspace(0.1, f.max(), 12)
        left.contour(x, y, f, levels, colors="0.8", linewidths=0.8)
        for index, (name, way) in enumerate(self.paths.items()):
            if name == TOO_HIGH:
                continue
            color, line, marker = STYLES[index]
            style = {"color": color, "linestyle": line, "marker": marker, "markersize": 3}
            left.plot(*way.points[:SHOWN].T, **style, linewidth=1.1, label=name)
        left.plot(0, 0, "k+", markersize=12)
        left.set(xlim=x[[0, -1]], ylim=y[[0, -1]])
        finish(left, f"The first {SHOWN} steps", "w1", "w2", legend="lower left")
        curves = {name: (range(len(way.values)), way.values) for name, way in self.paths.items()}
        log_curves(right, curves)
        finish(right, f"Curvatures 1 and {self.condition:g}", "step", "f", whole=True)
        return figure


def compute(optimizer: str = "all", condition: float = 100.0, steps: int = 100) -> Ravine:
    """Descend a ravine with several optimizers, each at its best rate.

    Descent: η = 2 / (1 + κ), factor (κ - 1) / (κ + 1). Momentum: η = 4 / (1 + √κ)²,
    μ = ((√κ - 1) / (√κ + 1))², factor √μ.

    Parameters
    ----------
    optimizer
        ``sgd``, ``momentum``, ``rmsprop``, ``adam``, or ``all``, and descent at a rate too high.
    condition
        κ > 1, ≤ 1e12.
    steps
        Of each, ≥ 1.

    Source: Polyak 1964; Kingma and Ba 2015.
    """
    if not 1 < condition <= HIGHEST:
        raise ValueError(f"ravine: condition must be > 1 and <= {HIGHEST:g}, got {condition:g}")
    steps = size("ravine", "steps", steps)
    makers = _optimizers(condition)
    if optimizer != "all":
        del makers[TOO_HIGH]
        if optimizer not in makers:
            raise ValueError(f"no optimizer {optimizer!r}; there are all, {', '.join(makers)}")
        makers = {optimizer: makers[optimizer]}
    start = np.array(START)
    hessian = np.array([1.0, condition])
    newton = start - hessian * start / hessian
    return Ravine(condition, {n: _path(m, condition, steps) for n, m in makers.items()}, newton)


def _optimizers(condition: float) -> dict[str, Callable[[Any], optim.Optimizer]]:
    """Return functions that make each optimizer of a parameter."""
    root = math.sqrt(condition)
    fast, slow = 4 / (1 + root) ** 2, 2 / (1 + condition)
    mu = ((root - 1) / (root + 1)) ** 2
    return {
        "sgd": lambda parameters: optim.SGD(parameters, slow),
        "momentum": lambda parameters: optim.SGD(parameters, fast, momentum=mu),
        "rmsprop": lambda parameters: optim.RMSprop(parameters, ADAPTIVE_RATE),
        "adam": lambda parameters: optim.Adam(parameters, ADAPTIVE_RATE),
        TOO_HIGH: lambda parameters: optim.SGD(parameters, BEYOND * 2 / condition),
    }


def _path(make: Callable[[Any], optim.Optimizer], condition: float, steps: int) -> Path:
    """Descend with one optimizer."""
    w = nn.Parameter((2,), nn.init.zeros(), dtype=np.float64)
    optimizer = make([w])
    w.data = START
    curvatures = np.array([1.0, condition])
    points = []
    for _ in range(steps + 1):
        points.append(w.data.copy())
        w.grad = curvatures * w.data
        optimizer.step()
    values = (np.square(points) * curvatures).sum(axis=1) / 2
    return Path(optimizer.lr, np.array(points), values)
