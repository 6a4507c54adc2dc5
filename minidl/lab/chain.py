"""The gradient of a product of weights: 72 or 0.0072, and worse with every layer."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from minidl import analysis, nn
from minidl.lab.drawing import GREY, finish, log_curves, panels
from minidl.lab.findings import Findings
from minidl.lab.limits import size
from minidl.lab.quoted import Quoted, comparison
from minidl.typing import Array, DType

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LARGE, SMALL = (1.0, 2.0, 3.0), (1.0, 0.2, 0.3)
WEIGHTS = (2.0, 1.1, 1.0, 0.9, 0.5)  # of the long chains, behind w₁ = 1
MOST, LEAST = float(np.finfo(np.float32).max), float(np.finfo(np.float32).smallest_subnormal)


@dataclass(repr=False)
class Chain(Findings):
    """Gradients of P = x · w₁ · … · w_L with L = P², x = 1.

    Attributes
    ----------
    large, small
        dL/dw₁ for (1, 2, 3) and (1, 0.2, 0.3).
    long
        By weight w: dL/dw₁ in float64 for w₁ = 1 and k further weights w, k = 0, 1, …
    ends
        By weight: how many further weights it takes until float32 says infinity or zero.
    """

    large: float
    small: float
    long: dict[float, Array]
    ends: dict[float, int | None]

    @property
    def counts(self) -> Array:
        """The numbers k of further weights."""
        return np.arange(len(self.long[WEIGHTS[0]]))

    def quoted(self) -> list[Quoted]:
        """Return the numbers of lesson 3."""
        return [
            Quoted("w = 1, 2, 3: dL/dw1 = 2 · 1 · 2² · 3²", "72", self.large),
            Quoted("w = 1, 0.2, 0.3: 2 · 1 · 0.2² · 0.3²", "0.0072", self.small),
        ]

    def lines(self) -> Iterator[str]:
        yield "P = x·w1·w2·w3, L = P², x = 1: dL/dw1 = 2 x² · w1 · w2² · w3²"
        yield ""
        yield from comparison(self.quoted())
        yield ""
        yield "The same with more layers: w1 = 1, and all further weights w; dL/dw1 = 2 w^(2k)"
        for weight, gradients in self.long.items():
            end = self.ends[weight]
            word = "infinity" if weight > 1 else "zero"
            limit = f"; float32 says {word} from k = {end} on" if end is not None else ""
            some = [f"{gradients[k]:8.4g} for k = {k}" for k in sorted({2, self.counts[-1]})]
            yield f"  w = {weight:3g}: {', '.join(some)}{limit}"

    def figure(self) -> Figure:
        """Draw the gradient of the first weight against the number of weights behind it."""
        figure, (axes,) = panels(1, (7.0, 4.4))
        curves = {f"w = {w:g}": (self.counts, y) for w, y in self.long.items()}
        place = log_curves(axes, curves, others=(MOST, LEAST))
        for value, words in ((MOST, "largest number"), (LEAST, "smallest number")):
            axes.axhline(place(value), color=GREY, linewidth=1, linestyle=(0, (1, 2)))
            axes.annotate(
                f"{words} of float32",
                (0.2, place(value)),
                xycoords=axes.get_yaxis_transform(),
                **{"xytext": (0, 3), "textcoords": "offset points", "color": GREY, "fontsize": 9},
            )
        title = "The gradient of the first weight in a chain"
        finish(axes, title, "k, further weights w behind w1 = 1", "dL/dw1 = 2 w^(2k)")
        return figure


def compute(depth: int = 99) -> Chain:
    """Measure dL/dw₁ of a product of weights.

    dL/dw₁ = 2P · x · w₂ ⋯ w_L = 2 x² · w₁ · w₂² ⋯ w_L²

    Parameters
    ----------
    depth
        Weights behind the first in the longest chain, ≥ 2.
    """
    depth = size("chain", "depth", depth, 2)
    return Chain(
        large=_gradient(LARGE),
        small=_gradient(SMALL),
        long={weight: _gradients(weight, depth) for weight in WEIGHTS},
        ends={weight: _end(weight, depth) for weight in WEIGHTS},
    )


def _gradient(weights: tuple[float, ...], dtype: DType = np.float64) -> float:
    """Measure dL/dw₁ for a chain of these weights."""
    model, loss, one = _chain(weights, dtype), nn.MSELoss(), np.ones((1, 1), dtype)
    with np.errstate(all="ignore"):
        loss(model(one), 0 * one)
        model.backward(loss.backward())
    return float(model.parameters()[0].grad.item())


def _gradients(weight: float, depth: int) -> Array:
    """Measure dL/dw₁ = 2P · ∂P/∂w₁ for w₁ = 1 and k = 0 to the depth weights behind it.

    All of them are the same, so that a pass through the longest chain has what any shorter one has:
    P on the way forward, after k of them, and ∂P/∂w₁ on the way back, k from the end.
    """
    _, *steps = analysis.trace(_chain((1.0, *[weight] * depth)), np.ones((1, 1)))
    products = np.array([step.value.item() for step in steps])
    slopes = np.array([step.gradient_norm for step in reversed(steps)])
    with np.errstate(over="ignore"):
        return 2 * products * slopes


def _chain(weights: tuple[float, ...], dtype: DType = np.float64) -> nn.Sequential:
    """Build a chain of these weights."""
    makers = [nn.init.constant(weight) for weight in weights]
    return nn.Sequential(*(nn.Linear(1, 1, bias=False, init=m, dtype=dtype) for m in makers))


def _end(weight: float, depth: int) -> int | None:
    """Return how many weights it takes until dL/dw₁ in float32 is infinite, or zero."""

    def lost(k: int) -> bool:
        gradient = _gradient((1.0, *[weight] * k), np.float32)
        return gradient == 0 or not np.isfinite(gradient)

    most = 1  # doubled, so that a chain much longer than needed is not built
    while most < depth and not lost(most):
        most = min(2 * most, depth)
    return bisect_left(range(most), True, key=lost) if lost(most) else None
