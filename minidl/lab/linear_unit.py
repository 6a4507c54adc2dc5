"""One linear unit: what its weights and its inputs do to the sum, and W to the power of L."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from minidl import analysis, nn
from minidl.lab.drawing import curve, finish, log_curves, panels
from minidl.lab.findings import Findings
from minidl.lab.limits import size
from minidl.lab.quoted import Quoted, comparison
from minidl.typing import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

X, W = (2.0, 3.0), (0.5, 1.0)
RATE = 0.1  # of the step of gradient descent
POWERS = (2.0, 1.1, 1.0, 0.9, 0.5)  # weights of deep chains


@dataclass(repr=False)
class LinearUnit(Findings):
    """The unit z = w₁ x₁ + w₂ x₂ with the loss L = z, a step of descent, and chains of units.

    Attributes
    ----------
    z, dw, dx
        The sum at x = (2, 3), w = (0.5, 1), and the gradients of L = z.
    slope, stepped
        dL/dw of L = w² at w = 2, and w after a step of descent at rate 0.1.
    chains
        By weight W: dz_L/dz_{L-k} for k = 0 to the depth, that is W^k.
    """

    z: float
    dw: Array
    dx: Array
    slope: float
    stepped: float
    chains: dict[float, Array]

    def quoted(self) -> list[Quoted]:
        """Return the numbers of lesson 1."""
        rows = [Quoted("z = 0.5·2 + 1·3", "4", self.z)]
        for i in range(2):
            rows.append(Quoted(f"dL/dw{i + 1} = x{i + 1}", f"{X[i]:g}", float(self.dw[i])))
        for i in range(2):
            rows.append(Quoted(f"dL/dx{i + 1} = w{i + 1}", f"{W[i]:g}", float(self.dx[i])))
        return [
            *rows,
            Quoted("L = w², w = 2: dL/dw = 2w", "4", self.slope),
            Quoted("w - 0.1·4", "1.6", self.stepped),
            Quoted("L before the step", "4", 2.0**2),
            Quoted("L after it", "2.56", self.stepped**2),
        ]

    def lines(self) -> Iterator[str]:
        yield "One linear unit, z = w1·x1 + w2·x2, L = z, and one step of gradient descent"
        yield ""
        yield from comparison(self.quoted())
        yield ""
        yield "A chain of L such units, one input each, all weights W: dz/dx = W^L"
        for weight, powers in self.chains.items():
            last = f"{powers[-1]:10.4g} for L = {len(powers) - 1}"
            yield f"  W = {weight:3g}: {powers[10]:10.4g} for L = 10, {last}"

    def figure(self) -> Figure:
        """Draw the sum along each weight, and the gradient of deep chains."""
        figure, (left, right) = panels(2)
        for i in range(2):
            w = np.linspace(W[i] - 1, W[i] + 1, 21)
            curve(left, w, self.z + self.dw[i] * (w - W[i]), f"along w{i + 1}: slope {X[i]:g}", i)
            left.plot(W[i], self.z, "k.", markersize=12, zorder=5)
        finish(left, "The slope of a weight is its input", "weight", "z")
        layers = range(len(next(iter(self.chains.values()))))
        log_curves(right, {f"W = {w:g}": (layers, y) for w, y in self.chains.items()})
        finish(right, "A chain of L weights W", "L, layers", "dz/dx = W^L", whole=True)
        return figure


def compute(depth: int = 50) -> LinearUnit:
    """Measure the gradients of one linear unit, and of chains of up to ``depth`` of them.

    dz/dw = x,  dz/dx = w,  and  dz/dx = W^L for L units one after the other

    Parameters
    ----------
    depth
        Units of the longest chain, ≥ 10.
    """
    depth = size("linear-unit", "depth", depth, 10)
    unit = nn.Linear(2, 1, bias=False, dtype=np.float64)
    unit.weight.data = np.reshape(W, (2, 1))
    pass_ = analysis.trace(unit, np.array([X]))
    gradient = pass_[""].gradient
    assert gradient is not None
    square = nn.Linear(1, 1, bias=False, init=nn.init.constant(2.0), dtype=np.float64)
    loss, one = nn.MSELoss(), np.ones((1, 1))
    slope = analysis.trace(square, one, loss, 0 * one).steps[-1].parameters["weight"][1].item()
    return LinearUnit(
        z=float(pass_.steps[-1].value.item()),
        dw=pass_.steps[-1].parameters["weight"][1].ravel(),
        dx=gradient.ravel(),
        slope=float(slope),
        stepped=2.0 - RATE * float(slope),
        chains={weight: _chain(weight, depth) for weight in POWERS},
    )


def _chain(weight: float, depth: int) -> Array:
    """Measure dz_L/dz_{L-k} for k = 0 to L in a chain of L units of this weight."""
    make = nn.init.constant(weight)
    layers = [nn.Linear(1, 1, bias=False, init=make, dtype=np.float64) for _ in range(depth)]
    pass_ = analysis.trace(nn.Sequential(*layers), np.ones((1, 1)))
    return np.array([step.gradient_norm for step in reversed(pass_.steps)])
