"""A cliff in the loss, and gradient descent across it, with and without clipping."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from minidl import nn, optim
from minidl.lab.drawing import finish, log_curves, panels
from minidl.lab.findings import Findings
from minidl.lab.limits import size
from minidl.lab.quoted import Quoted, comparison, table
from minidl.nn.checks import POSITIVE, check_number
from minidl.pictures import BLUE, VERMILION
from minidl.typing import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TIME, GOAL = 50, 0.7  # steps of the recurrent unit, and what it is to say at the end
GRID_W, GRID_B = np.linspace(4, 8, 81), np.linspace(-4, -1, 61)
SHOWN_W, SHOWN_B, SHOWN = (3.7, 6.0), (-3.1, -1.4), 60  # in the picture; steps of the way
START, RATE = (5.2, -2.4), 0.5
PLAIN, CLIPPED = "not clipped", "clipped"
STYLES = {PLAIN: (VERMILION, "--", "s"), CLIPPED: (BLUE, "-", "o")}


@dataclass
class Descent:
    """Gradient descent from the start: (w, b), the error and the gradient norm before each step."""

    points: Array
    errors: Array
    norms: Array


@dataclass(repr=False)
class Clipping(Findings):
    """One gradient clipped, and a cliff.

    Attributes
    ----------
    clipped
        The gradient (3, 4) after clipping to length 1.
    max_norm
        Of the descent that is clipped.
    median, steepest
        Of |dE/dw| on the grid.
    place
        Where on the grid it is steepest: (w, b).
    descents
        Without and with clipping.
    """

    clipped: Array
    max_norm: float
    median: float
    steepest: float
    place: tuple[float, float]
    descents: dict[str, Descent]

    def quoted(self) -> list[Quoted]:
        """Return the numbers of lesson 11."""
        finer = "on this grid; a finer one finds steeper points"
        return [
            Quoted("(3, 4) clipped to 1: first component", "0.6", float(self.clipped[0])),
            Quoted("second component", "0.8", float(self.clipped[1])),
            Quoted("median of |dE/dw| near the cliff", "0.008", self.median),
            Quoted("largest |dE/dw|", "13.8", self.steepest, finer),
            Quoted("there w is", "4.9", self.place[0]),
            Quoted("and b is", "-2.55", self.place[1]),
        ]

    def lines(self) -> Iterator[str]:
        yield "One unit that feeds itself: x_t = w·sigmoid(x_{t-1}) + b, x_0 = 0.5,"
        yield f"E = (sigmoid(x_{TIME}) - {GOAL})²; g is clipped to θ: g·θ/|g| where |g| > θ"
        yield ""
        yield from comparison(self.quoted())
        yield ""
        head = f"descent at rate {RATE}", "E: first", "last", "longest gradient", "ends at w, b"
        rows = []
        for name, descent in self.descents.items():
            numbers = descent.errors[0], descent.errors[-1], descent.norms.max()
            w, b = descent.points[-1]
            rows.append((name, *(f"{number:.3g}" for number in numbers), f"{w:.2f}, {b:.2f}"))
        yield from table([head, *rows])

    def figure(self) -> Figure:
        """Draw the error over w and b with both descents, and their errors by step."""
        figure, (left, right) = panels(2)
        w, b = np.linspace(*SHOWN_W, 221), np.linspace(*SHOWN_B, 181)
        error, *_ = cliff(*np.meshgrid(w, b))
        area = left.contourf(w, b, error, 14, cmap="Greys")
        figure.colorbar(area, ax=left, label="error E")
        for name, descent in self.descents.items():
            color, line, marker = STYLES[name]
            first = descent.points[:SHOWN]
            style = {"color": color, "linestyle": line, "marker": marker, "markersize": 3.5}
            left.plot(*first.T, **style, linewidth=1.2, label=name)
        left.plot(*START, "*", color="white", markeredgecolor="black", markersize=14, label="start")
        left.set(xlim=SHOWN_W, ylim=SHOWN_B)
        title = f"The cliff, and the first {SHOWN} steps at rate {RATE}"
        finish(left, title, "w", "b", legend="lower right")
        order = {name: self.descents[name] for name in (CLIPPED, PLAIN)}
        labels = {CLIPPED: f"clipped to {self.max_norm:g}", PLAIN: PLAIN}
        errors = {labels[n]: (np.arange(len(d.errors)), d.errors) for n, d in order.items()}
        log_curves(right, errors)
        finish(right, "The error along the way", "step", "error E", whole=True)
        return figure


def compute(max_norm: float = 0.5, steps: int = 150) -> Clipping:
    """Descend near a cliff, without and with clipping.

    g ← g · θ / ‖g‖ where ‖g‖ > θ: the direction stays, the length is at most θ

    Parameters
    ----------
    max_norm
        θ > 0.
    steps
        Of gradient descent.

    Source: Pascanu, Mikolov and Bengio 2013, algorithm 1 and figure 6.
    """
    max_norm = check_number("clipping", "max_norm", max_norm, POSITIVE, math.inf)
    steps = size("clipping", "steps", steps)
    w, b = np.meshgrid(GRID_W, GRID_B, indexing="ij")
    _, slopes, _ = cliff(w, b)
    steepest = np.unravel_index(np.abs(slopes).argmax(), slopes.shape)
    return Clipping(
        clipped=_clipped((3.0, 4.0), 1.0),
        max_norm=max_norm,
        median=float(np.median(np.abs(slopes))),
        steepest=float(np.abs(slopes).max()),
        place=(float(w[steepest]), float(b[steepest])),
        descents={PLAIN: _descent(None, steps), CLIPPED: _descent(max_norm, steps)},
    )


def cliff(w: Array, b: Array) -> tuple[Array, Array, Array]:
    """Compute E of a unit that feeds itself, with dE/dw and dE/db.

    x_t = w · σ(x_{t-1}) + b,  ∂x_t/∂w = σ(x_{t-1}) + w · σ'(x_{t-1}) · ∂x_{t-1}/∂w

    Examples
    --------
    >>> [f"{float(value):.4f}" for value in cliff(np.array(5.2), np.array(-2.4))]
    ['0.0452', '0.0529', '0.0580']
    """
    x, dw, db = np.full(np.shape(w), 0.5), np.zeros(np.shape(w)), np.zeros(np.shape(w))
    for _ in range(TIME):
        s = 1 / (1 + np.exp(-x))
        slope = w * s * (1 - s)
        x, dw, db = w * s + b, s + slope * dw, 1 + slope * db
    s = 1 / (1 + np.exp(-x))
    outer = 2 * (s - GOAL) * s * (1 - s)
    return (s - GOAL) ** 2, outer * dw, outer * db


def _clipped(gradient: tuple[float, float], max_norm: float) -> Array:
    """Have an optimizer of rate 1 clip a gradient: the step it makes is the clipped gradient."""
    point = nn.Parameter((2,), nn.init.zeros(), dtype=np.float64)
    optimizer = optim.SGD([point], lr=1.0, max_norm=max_norm)
    point.grad = gradient
    optimizer.step()
    return np.asarray(-point.data)


def _descent(max_norm: float | None, steps: int) -> Descent:
    """Descend from the start."""
    point = nn.Parameter((2,), nn.init.zeros(), dtype=np.float64)
    optimizer = optim.SGD([point], lr=RATE, max_norm=max_norm)
    point.data = START
    points, errors, norms = [], [], []
    for _ in range(steps + 1):
        points.append(point.data.copy())
        error, *gradient = cliff(*point.data)
        point.grad = gradient
        errors.append(float(error))
        norms.append(optimizer.step())
    return Descent(np.array(points), np.array(errors), np.array(norms))
