"""Gradients through BatchNorm: the size of the weights does not matter, and they grow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from minidl import analysis, nn
from minidl.lab import choices
from minidl.lab.drawing import finish, log_curves, panels
from minidl.lab.findings import Findings
from minidl.lab.limits import check_weights, size
from minidl.lab.quoted import Quoted, comparison, table
from minidl.typing import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SMALL = 0.05  # the standard deviation of all weights
NAMES = ("sigmoid", "tanh", "relu")
SETTLED = 5  # layers from both ends that the growth leaves out


@dataclass
class Stack:
    """Layers of Linear, perhaps BatchNorm, and an activation.

    Attributes
    ----------
    gradients
        ‖dL/d(activation's output)‖ of every layer, the last one first.
    mean, variance
        Of what the last activation is given.
    slope
        The mean of φ'(z) over all layers.
    """

    gradients: Array
    mean: float
    variance: float
    slope: float

    @property
    def growth(self) -> float:
        """The factor per layer, towards the input, in the geometric mean."""
        inner = self.gradients[SETTLED:-SETTLED]
        return float((inner[-1] / inner[0]) ** (1 / (len(inner) - 1)))


@dataclass(repr=False)
class BatchNormStack(Findings):
    """Stacks without and with BatchNorm, by activation, and the predicted growth."""

    plain: dict[str, Stack]
    normalized: dict[str, Stack]
    predicted: dict[str, float]

    def quoted(self) -> list[Quoted]:
        """Return the numbers of lesson 7."""
        some = next(iter(self.normalized.values()))
        z = _gauss()
        s = 1 / (1 + np.exp(-z[0]))
        return [
            Quoted("mean before the activation", "0", some.mean),
            Quoted("variance before the activation", "1", some.variance),
            Quoted("sigmoid' at 0", "0.25", 0.25),
            Quoted("its mean for z from N(0, 1)", "0.207", float(z[1] @ (s * (1 - s)))),
            Quoted("growth for ReLU, √(π / (π - 1))", "1.211", growth("relu")),
            Quoted("1.211^50", "1.4e4", growth("relu") ** 50),
        ]

    def lines(self) -> Iterator[str]:
        yield f"Weights N(0, {SMALL}²), without and with BatchNorm before the activation"
        yield ""
        yield from comparison(self.quoted())
        yield ""
        head = "activation", "growth: plain", "BatchNorm", "theory", "slope: plain", "BatchNorm"
        rows = []
        for name, plain in self.plain.items():
            normalized = self.normalized[name]
            growths = plain.growth, normalized.growth, self.predicted[name]
            slopes = plain.slope, normalized.slope
            rows.append((name, *(f"{number:.4f}" for number in (*growths, *slopes))))
        yield from table([head, *rows])
        yield ""
        yield "growth: the factor of the gradient per layer; slope: the mean of φ'(z) in all layers"
        yield "theory: √(E[φ'(z)²] / Var φ(z)), z ~ N(0, 1): never below 1 (Poincaré's inequality)"

    def figure(self) -> Figure:
        """Draw the gradient by layer, without and with BatchNorm."""
        figure, (left, right) = panels(2)
        ranges = [range(len(s.gradients)) for s in self.plain.values()]
        plain = {
            f"{name}: {stack.growth:.2f} per layer": (layers, stack.gradients)
            for layers, (name, stack) in zip(ranges, self.plain.items(), strict=True)
        }
        log_curves(left, plain)
        x, y = "layers below the last", "norm of the gradient, dL/da"
        finish(left, f"Weights N(0, {SMALL}²)", x, y, whole=True)
        normalized, theory = {}, {}
        for layers, (name, stack) in zip(ranges, self.normalized.items(), strict=True):
            normalized[f"{name}: {stack.growth:.3f} per layer"] = (layers, stack.gradients)
            middle = len(layers) // 2
            steps = np.arange(len(layers)) - middle
            theory[name] = (layers, stack.gradients[middle] * self.predicted[name] ** steps)
        log_curves(right, normalized, theory=theory)
        finish(right, "The same weights, with BatchNorm", x, y, whole=True)
        return figure


def compute(
    activation: str = "all", depth: int = 50, width: int = 128, batch: int = 256, seed: int = 0
) -> BatchNormStack:
    """Measure the gradient by layer, without and with BatchNorm.

    ‖g_{l-1}‖² ≈ E[φ'(z)²] / Var φ(z) · ‖g_l‖²,  z ~ N(0, 1)

    Parameters
    ----------
    activation
        Its name, in ``choices.ACTIVATIONS``, or ``all`` for sigmoid, tanh and ReLU.
    depth, width, batch
        Layers, ≥ 13, units of each, ≥ 8, and rows, ≥ 8.
    seed
        Of the weights and the inputs.

    Source: Ioffe and Szegedy 2015; Yang et al. 2019 (the growth).
    """
    depth = size("batchnorm", "depth", depth, 2 * SETTLED + 3, most=200)
    width = size("batchnorm", "width", width, 8)
    batch = size("batchnorm", "batch", batch, 8)
    check_weights("batchnorm", "depth", depth, width)
    names = NAMES if activation == "all" else (activation,)
    plain = {name: _stack(name, False, depth, width, batch, seed) for name in names}
    normalized = {name: _stack(name, True, depth, width, batch, seed) for name in names}
    return BatchNormStack(plain, normalized, {name: growth(name) for name in names})


def growth(name: str) -> float:
    """Compute the growth of the gradient per layer of Linear, BatchNorm and an activation.

    √(E[φ'(z)²] / Var φ(z)),  z ~ N(0, 1)

    The activation multiplies the squared gradient by E[φ'²]. The next Linear's outputs have the
    variance n · Var(w) · Var φ, by which BatchNorm divides, forward and so backward.

    Examples
    --------
    >>> f"{growth('relu'):.4f} {(np.pi / (np.pi - 1)) ** 0.5:.4f}"
    '1.2112 1.2112'
    """
    layer, (z, weights) = choices.activation(name), _gauss()
    values = layer(z[:, None])
    slopes = layer.backward(np.ones_like(values))[:, 0]
    mean = weights @ values[:, 0]
    return float(np.sqrt(weights @ slopes**2 / (weights @ (values[:, 0] - mean) ** 2)))


def _gauss() -> tuple[Array, Array]:
    """Return points and weights for means over N(0, 1), by the midpoint rule."""
    z = (np.arange(20_000) + 0.5) / 1000 - 10
    weights = np.exp(-(z**2) / 2)
    return z, weights / weights.sum()


def _stack(name: str, normalize: bool, depth: int, width: int, batch: int, seed: int) -> Stack:
    """Build a stack, and send a random gradient back through it."""
    layers: list[nn.Layer] = []
    for _ in range(depth):
        layers.append(nn.Linear(width, width, bias=False, init=nn.init.normal(std=SMALL)))
        layers += [nn.BatchNorm(width)] if normalize else []
        layers.append(choices.activation(name))
    model = nn.Sequential(*layers, rng=seed).astype(np.float64)
    x, dy = np.random.default_rng(seed).normal(size=(2, batch, width))
    every = 3 if normalize else 2
    pass_ = analysis.trace(model, x, dy=dy)
    given = [pass_[str(every * i + every - 2)].value for i in range(depth)]
    slopes = []
    for z in given:
        activation = choices.activation(name)
        slopes.append(float(activation.backward(np.ones_like(activation(z))).mean()))
    norms = [pass_[str(every * i + every - 1)].gradient_norm for i in range(depth)]
    return Stack(
        np.array(norms[::-1]),
        mean=float(given[-1].mean()),
        variance=float(given[-1].var()),
        slope=float(np.mean(slopes)),
    )
