"""The derivative of ten sigmoids in a row: a bound, and what it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from minidl import nn
from minidl.lab import choices
from minidl.lab.drawing import finish, log_curves, panels
from minidl.lab.findings import Findings
from minidl.lab.limits import size
from minidl.lab.quoted import Quoted, comparison, table
from minidl.typing import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TABLE = (
    *("0.250000", "0.062500", "0.015625", "0.003906", "0.000977"),
    *("0.000244", "0.000061", "0.000015", "0.000004", "0.000001"),
)
QUARTER, EIGHTH = 0.25, 0.125  # the largest σ', and that times a weight of 0.5


@dataclass(repr=False)
class SigmoidTable(Findings):
    """Derivatives of k activations one after the other, from the input 0.

    Attributes
    ----------
    name
        Of the activation.
    stack, halved
        dy_k/dx for k = 1, 2, …, of the activation alone, and with a weight of 0.5 before each.
    values
        y_k: what the next activation is given.
    """

    name: str
    stack: Array
    halved: Array
    values: Array

    @property
    def layers(self) -> Array:
        """The numbers of activations."""
        return np.arange(1, len(self.stack) + 1)

    def quoted(self) -> list[Quoted]:
        """Return the numbers of lesson 3."""
        off = "counted so that layer 1 has 1.0, layer 10 has 0.25^9 = 3.8e-06"
        rows = [Quoted(f"0.25^{k + 1}", said, QUARTER ** (k + 1)) for k, said in enumerate(TABLE)]
        rows += [
            Quoted("0.25^10", "0.00000095", QUARTER**10, off),
            Quoted("0.25^100", "0", QUARTER**100, "6e-61: zero in float32, not in float64"),
            Quoted("0.5 · 0.25, a weight and a sigmoid", "0.125", 0.5 * QUARTER),
            Quoted("0.125^10", "0.0000001", EIGHTH**10, "a hundred times less than quoted"),
            Quoted("light that halves: layer 2", "0.5", 0.5),
            Quoted("layer 3", "0.25", 0.5**2),
            Quoted("layer 4", "0.125", 0.5**3),
            Quoted("layer 10: 0.5^9", "0.002", 0.5**9),
        ]
        if self.name == "sigmoid":
            rows.insert(0, Quoted("sigmoid(0)", "0.5", float(self.values[0])))
            rows.insert(1, Quoted("its derivative at 0", "0.25", float(self.stack[0])))
        return rows

    def lines(self) -> Iterator[str]:
        yield "The largest derivative of a sigmoid is 1/4: a bound for k of them is 0.25^k"
        yield ""
        yield from comparison(self.quoted())
        yield ""
        yield f"k {self.name} layers in a row, x = 0; each one's output is the next one's input"
        yield ""
        head = "k", "output", "dy/dx", "with weights 0.5", "0.25^k", "0.125^k"
        columns = self.values, self.stack, self.halved, QUARTER**self.layers, EIGHTH**self.layers
        rows = [
            (str(k), *(f"{column[k - 1]:.4g}" for column in columns)) for k in self.layers.tolist()
        ]
        yield from table([head, *rows])
        if self.name == "sigmoid":
            yield ""
            yield "Less than 0.25^k: sigmoid(0) = 0.5, so no layer but the first has the input 0."

    def figure(self) -> Figure:
        """Draw the derivative against the number of activations."""
        figure, (axes,) = panels(1, (6.6, 4.4))
        k = self.layers
        curves = {
            "bound for sigmoids: 0.25^k": (k, QUARTER**k),
            f"{self.name}, measured": (k, self.stack),
            "bound with weights 0.5: 0.125^k": (k, EIGHTH**k),
            f"{self.name} with weights 0.5, measured": (k, self.halved),
        }
        log_curves(axes, curves)
        finish(
            axes, "Activations in a row", "k, activations", "derivative dy/dx at x = 0", whole=True
        )
        return figure


def compute(activation: str = "sigmoid", depth: int = 10) -> SigmoidTable:
    """Measure the derivative of activations in a row.

    dy_k/dx = φ'(y_{k-1}) · φ'(y_{k-2}) ⋯ φ'(x)

    Parameters
    ----------
    activation
        Its name, in ``choices.ACTIVATIONS``.
    depth
        How many in a row.
    """
    depth = size("sigmoid-table", "depth", depth)
    values, stack = _derivatives(activation, depth, 1.0)
    _, halved = _derivatives(activation, depth, 0.5)
    return SigmoidTable(activation, stack, halved, values)


def _derivatives(name: str, depth: int, weight: float) -> tuple[Array, Array]:
    """Measure y_k and dy_k/dx for k = 1 to the depth, the product of the first k slopes."""
    linear = nn.Linear(1, 1, bias=False, init=nn.init.constant(weight), dtype=np.float64)
    unit = nn.Sequential(linear, choices.activation(name))
    inputs = np.zeros((depth + 1, 1))  # the output of a unit is the input of the next
    for k in range(depth):
        inputs[k + 1] = unit(inputs[k : k + 1])
    unit(inputs[:-1])
    slopes = unit.backward(np.ones((depth, 1)))
    return inputs[1:, 0], np.cumprod(slopes)
