"""The line n · Var(w) · κ = 1 between vanishing and exploding, for four activations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from minidl import analysis, nn
from minidl.lab import choices
from minidl.lab.drawing import GREY, STYLES, curve, finish, log_curves, panels
from minidl.lab.findings import Findings
from minidl.lab.limits import check_weights, size
from minidl.lab.quoted import Quoted, comparison, table
from minidl.nn.criticality import critical_point
from minidl.pictures import log_axis
from minidl.typing import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = ("sigmoid", "tanh", "relu", "elu")
SCALES = np.geomspace(0.25, 256, 21)  # n · Var(w)
VARIANCES = np.geomspace(1e-6, 1e4, 101)  # of z; beyond them κ hardly changes
SHOWN = (VARIANCES > 0.009) & (VARIANCES < 110)  # of them, in the picture
ROWS = 8  # inputs


@dataclass
class Line:
    """One activation.

    Attributes
    ----------
    kappas
        κ at each of VARIANCES.
    predicted, measured
        The factor of ‖gradient‖² per layer at each of SCALES, in the geometric mean over layers:
        by mean-field theory, and in a random network.
    critical
        The critical point: the variance that stays, and n · Var(w) there; None where there is no
        such point without biases, as for GELU.
    """

    kappas: Array
    predicted: Array
    measured: Array
    critical: tuple[float, float] | None


@dataclass(repr=False)
class CriticalLine(Findings):
    """The lines of some activations, by name, and the size of the networks."""

    found: dict[str, Line]
    width: int
    depth: int

    def quoted(self) -> list[Quoted]:
        """Return the numbers of lesson 6."""
        near, far = analysis.kappa("tanh", 0.01), analysis.kappa("tanh", 1.0)
        relu, sigmoid = analysis.kappa("relu"), analysis.kappa("sigmoid")
        near_zero = f"{near:.2f} for z of variance 0.01: near 1 only near 0"
        highest = "the square of 1/4, at z = 0; so n Var(w) ≥ 16"
        return [
            Quoted("κ of ReLU", "0.5", relu),
            Quoted("He: n Var(w) = 1/κ", "2", 1 / relu),
            Quoted("κ of tanh, z of variance 1", "1", far, near_zero),
            Quoted("Xavier: n Var(w)", "1", critical_point("tanh")[1]),
            Quoted("largest κ of sigmoid", "0.0625", 0.25**2, highest),
            Quoted("κ of sigmoid, z of variance 1", "0.045", sigmoid),
        ]

    def lines(self) -> Iterator[str]:
        yield "A layer multiplies the squared gradient by n · Var(w) · κ, κ = E[φ'(z)²]"
        yield ""
        yield from comparison(self.quoted())
        yield ""
        yield f"The critical point, and networks of {self.depth} layers of width {self.width}:"
        yield ""
        head = "activation", "κ, variance 1", "critical: variance", "n Var(w)", "growth error"
        rows = []
        for name, line in self.found.items():
            off = float(np.abs(line.measured / line.predicted - 1).max())
            point = ("none", "none") if line.critical is None else line.critical
            cells = (
                f"{n:.4g}" if isinstance(n, float) else n for n in (analysis.kappa(name), *point)
            )
            rows.append((name, *cells, f"{off:.1%}"))
        yield from table([head, *rows])
        yield ""
        yield "growth error: the largest difference of a measured factor per layer from n Var(w) κ"

    def figure(self) -> Figure:
        """Draw κ against the variance, and the factor per layer against n · Var(w)."""
        figure, (left, right) = panels(2)
        log_axis(left.xaxis, VARIANCES[SHOWN])
        for index, (name, line) in enumerate(self.found.items()):
            curve(left, VARIANCES[SHOWN], line.kappas[SHOWN], name, index)
        finish(left, "What an activation lets through", "variance of z", "κ = E[φ'(z)²]")
        log_axis(right.xaxis, SCALES)
        measured = {name: (SCALES, line.measured) for name, line in self.found.items()}
        theory = {name: (SCALES, line.predicted) for name, line in self.found.items()}
        place = log_curves(right, measured, theory=theory)
        right.axhline(place(1.0), color=GREY, linewidth=1)
        for index, line in enumerate(self.found.values()):
            if line.critical is not None:
                scale = line.critical[1]
                right.plot(scale, place(1.0), "o", color=STYLES[index][0], markersize=10)
        y = "factor of the squared gradient per layer"
        finish(right, "Vanishing below 1, exploding above", "n · Var(w)", y)
        return figure


def compute(
    activation: str = "all", depth: int = 30, width: int = 128, seed: int = 0
) -> CriticalLine:
    """Measure how the gradient grows in random networks, and compare with mean-field theory.

    E‖g_{l-1}‖² = n · Var(w) · κ(q_l) · E‖g_l‖²,  q_{l+1} = n · Var(w) · E[φ(√q_l z)²]

    Parameters
    ----------
    activation
        Its name, in ``choices.ACTIVATIONS``, or ``all`` for sigmoid, tanh, ReLU and ELU.
    depth, width
        Of the networks.
    seed
        Of the weights and the inputs.

    Source: Schoenholz et al. 2017.
    """
    depth = size("critical-line", "depth", depth, most=200)
    width = size("critical-line", "width", width)
    check_weights("critical-line", "depth", depth, width)
    names = NAMES if activation == "all" else (activation,)
    return CriticalLine({name: _line(name, depth, width, seed) for name in names}, width, depth)


def _line(name: str, depth: int, width: int, seed: int) -> Line:
    """Predict and measure one activation."""
    layer = choices.activation(name)
    squares, kappas = np.transpose([analysis.mean_squares(layer, q) for q in VARIANCES])
    return Line(
        kappas=kappas,
        predicted=np.array([_predicted(squares, kappas, scale, depth) for scale in SCALES]),
        measured=np.array([_measured(name, scale, depth, width, seed) for scale in SCALES]),
        critical=_critical(layer),
    )


def _critical(layer: nn.Layer) -> tuple[float, float] | None:
    """Return the critical point, or None where there is none."""
    try:
        return critical_point(layer)
    except ValueError:
        return None


def _predicted(squares: Array, kappas: Array, scale: float, depth: int) -> float:
    """Return the geometric mean of n · Var(w) · κ over the layers, by the length map.

    Between VARIANCES, log E[φ²] and log κ are interpolated.
    """
    log_q, logs = np.log(scale), []  # the inputs have variance 1
    for _ in range(depth):
        logs.append(np.log(scale) + np.interp(log_q, np.log(VARIANCES), np.log(kappas)))
        log_q = np.log(scale) + np.interp(log_q, np.log(VARIANCES), np.log(squares))
    return float(np.exp(np.mean(logs)))


def _measured(name: str, scale: float, depth: int, width: int, seed: int) -> float:
    """Measure the factor of the squared gradient per layer in a random network."""
    make = nn.init.normal(std=np.sqrt(scale / width))
    layers: list[nn.Layer] = []
    for _ in range(depth):
        linear = nn.Linear(width, width, bias=False, init=make, dtype=np.float64)
        layers += [linear, choices.activation(name)]
    x, dy = np.random.default_rng(seed).normal(size=(2, ROWS, width))
    pass_ = analysis.trace(nn.Sequential(*layers, rng=seed), x, dy=dy)
    ratio = pass_[""].gradient_norm / np.linalg.norm(dy)
    return float(ratio ** (2 / depth))
