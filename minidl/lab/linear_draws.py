"""Gradients of many random linear networks: their mean is far above the typical one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from minidl.lab.drawing import finish, log_curves, panels
from minidl.lab.findings import Findings
from minidl.lab.limits import check_power, check_weights, size
from minidl.lab.quoted import Quoted, comparison, table
from minidl.nn.checks import POSITIVE, check_number
from minidl.pictures import BLUE, GREEN, VERMILION
from minidl.typing import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EULER = 0.5772156649015329  # Euler and Mascheroni's γ
QUOTED = "called nearly 0 for a hundred layers; that takes a thousand"


@dataclass(repr=False)
class LinearDraws(Findings):
    """‖g₀‖² / ‖g_L‖² in linear networks with weights N(0, s / n), one number for every draw.

    Attributes
    ----------
    width, scale
        n, and s = n · Var(w).
    ratios
        (draws, depth + 1): the ratio after 0, 1, … layers.
    component
        (draws,): the first component of g₀ for a g_L of length 1, after all layers.
    """

    width: int
    scale: float
    ratios: Array
    component: Array

    @property
    def depth(self) -> int:
        """The number of layers, L."""
        return self.ratios.shape[1] - 1

    @property
    def expected(self) -> Array:
        """The exact mean, s^L."""
        return self.scale ** np.arange(self.depth + 1.0)

    @property
    def typical(self) -> Array:
        """exp of the exact mean of the logarithm: about the median.

        Each layer multiplies ‖g‖² by s · χ²_n / n, independently; E[ln χ²_n] = ψ(n/2) + ln 2.
        """
        per_layer = math.log(self.scale) + digamma(self.width / 2) + math.log(2 / self.width)
        return np.exp(per_layer * np.arange(self.depth + 1))

    @property
    def spread(self) -> float:
        """The exact variance of ln of the ratio after all layers, L · ψ'(n/2)."""
        return self.depth * trigamma(self.width / 2)

    def quoted(self) -> list[Quoted]:
        """Return the numbers of lesson 5; in them σ² is n · Var(w), not Var(w)."""
        return [
            Quoted("σ² = 0.99: 0.99^100", "0.37", 0.99**100, QUOTED),
            Quoted("0.99^1000", "0.000043", 0.99**1000),
            Quoted("σ² = 1.01: 1.01^100", "2.7", 1.01**100),
            Quoted("a hundred 4 × 4 matrices N(0, 1): typical norm", "1.7e24", _typical_product()),
        ]

    def lines(self) -> Iterator[str]:
        draws, half = len(self.ratios), self.depth // 2
        law = f"width {self.width}, weights N(0, {self.scale:g}/{self.width})"
        yield f"{draws} linear networks of {self.depth} layers, {law}:"
        yield "the squared norm of the gradient, first over last layer"
        yield ""
        yield from comparison(self.quoted())
        yield ""
        head = "layers", "mean: theory", "mean of the draws", "typical: theory", "median", "90 % in"
        rows = []
        for layers in sorted({min(10, self.depth), half, self.depth}):
            ratio = self.ratios[:, layers]
            low, high = np.percentile(ratio, [5, 95])
            row = self.expected[layers], ratio.mean(), self.typical[layers], np.median(ratio)
            cells = (f"{value:.3g}" for value in row)
            rows.append((str(layers), *cells, f"{low:.2g} to {high:.2g}"))
        yield from table([head, *rows])
        error = self.component.std() / math.sqrt(draws)
        yield ""
        yield f"A component of the gradient itself: mean {self.component.mean():.2g} ± {error:.2g}:"
        yield "paths of both signs cancel, so that only squares tell its size."

    def figure(self) -> Figure:
        """Draw the ratio against depth, and its distribution at the last one."""
        figure, (left, right) = panels(2)
        layers = np.arange(self.depth + 1)
        low, high = np.percentile(self.ratios, [5, 95], axis=0)
        curves = {
            "mean, theory: (n Var w)^L": (layers, self.expected),
            "mean of the draws": (layers, self.ratios.mean(axis=0)),
            "median of the draws": (layers, np.median(self.ratios, axis=0)),
        }
        theory = {"typical": (layers, self.typical)}
        log_curves(left, curves, others=[*low[1:], *high], theory=theory)
        left.fill_between(layers, low, high, color="0.88", label="nine in ten draws", zorder=0)
        y = "squared norm, first over last layer"
        finish(left, f"Width {self.width}, n Var(w) = {self.scale:g}", "L, layers", y)
        exponents = np.log10(self.ratios[:, -1])
        right.hist(exponents, bins=40, color="0.75")
        marks = [
            ("mean, theory", self.expected[-1], BLUE, "-"),
            ("mean of the draws", self.ratios[:, -1].mean(), VERMILION, "--"),
            ("median", np.median(self.ratios[:, -1]), GREEN, "-."),
        ]
        for label, value, color, line in marks:
            right.axvline(np.log10(value), color=color, linestyle=line, linewidth=2, label=label)
        x = "log10 of the squared norm, first over last layer"
        finish(right, f"{len(exponents)} draws of {self.depth} layers", x, "draws")
        return figure


def compute(
    depth: int = 100, width: int = 20, draws: int = 1000, scale: float = 1.0, seed: int = 0
) -> LinearDraws:
    """Draw deep linear networks, and send a gradient of length 1 back through each.

    g_{l-1} = W_lᵀ g_l,  E‖g₀‖² = (n · Var(w))^L · ‖g_L‖²

    The distribution is known: the ratio is a product of L independent χ²_n, each times Var(w). Its
    logarithm is nearly normal, so that the median is far below the mean, which a few rare draws
    carry. Source: Hanin and Nica 2020.

    Parameters
    ----------
    depth, width, draws
        Layers L, units n of each, and how many networks.
    scale
        n · Var(w), > 0.
    seed
        Of the weights.
    """
    depth = size("linear-draws", "depth", depth)
    width = size("linear-draws", "width", width)
    draws = size("linear-draws", "draws", draws, 2)
    check_weights("linear-draws", "draws", draws, width)
    scale = check_number("linear-draws", "scale", scale, POSITIVE, math.inf)
    check_power("linear-draws", "scale", scale, "depth", depth)
    rng = np.random.default_rng(seed)
    g = np.zeros((draws, width))
    g[:, 0] = 1.0
    ratios = np.ones((draws, depth + 1))
    for layer in range(1, depth + 1):
        weights = rng.normal(scale=math.sqrt(scale / width), size=(draws, width, width))
        g = np.einsum("dij,dj->di", weights, g)
        ratios[:, layer] = (g * g).sum(axis=1)
    return LinearDraws(width, scale, ratios, g[:, 0])


def _typical_product() -> float:
    """Return exp(E ln ‖g‖) after a hundred matrices of 4 × 4 numbers from N(0, 1)."""
    return math.exp(100 * (digamma(2.0) + math.log(2)) / 2)


def digamma(x: float) -> float:
    """Compute ψ(x) = d ln Γ(x) / dx for x = ½, 1, 1½, …

    ψ(½) = -γ - 2 ln 2,  ψ(1) = -γ,  ψ(x + 1) = ψ(x) + 1/x

    Examples
    --------
    >>> f"{digamma(2.5):.6f}"
    '0.703157'
    """
    start = x % 1 or 1.0
    value = -EULER - (2 * math.log(2) if start == 0.5 else 0.0)
    return value + sum(1 / (start + k) for k in range(round(x - start)))


def trigamma(x: float) -> float:
    """Compute ψ'(x) for x = ½, 1, 1½, …

    ψ'(½) = π²/2,  ψ'(1) = π²/6,  ψ'(x + 1) = ψ'(x) - 1/x²

    Examples
    --------
    >>> f"{trigamma(2.5):.6f}"
    '0.490358'
    """
    start = x % 1 or 1.0
    value = math.pi**2 / (2 if start == 0.5 else 6)
    return value - sum(1 / (start + k) ** 2 for k in range(round(x - start)))
