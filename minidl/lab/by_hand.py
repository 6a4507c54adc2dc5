"""Two neurons, forward, backward and one step of learning, number by number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from minidl import analysis, nn, optim
from minidl.lab.drawing import finish, panels
from minidl.lab.findings import Findings
from minidl.lab.quoted import Quoted, comparison
from minidl.pictures import BLUE, GREEN, VERMILION
from minidl.typing import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

X, Y, RATE = 3.0, 1.0, 0.1
W1, B1, W2, B2 = 0.5, 0.2, 0.8, -0.5
CUT = "follows from 0.702"
ROUNDED = "follows from -0.100, rounded on the way"
AROUND = 1.5  # how far the picture goes to both sides of a weight


@dataclass(repr=False)
class ByHand(Findings):
    """The pass and the step: x = 3, y = 1, ReLU then sigmoid, L = (a₂ - y)², η = 0.1.

    Attributes
    ----------
    first
        z₁, a₁, z₂, a₂ of the first example, forward only: x = 5, b₂ = -1.
    before, after
        Both passes, before the step and after it; ``before["2"].gradient`` is dL/dz₂.
    weights
        w₁ and w₂ after the step, which leaves the biases as they are.
    curves
        The loss around w₁ and w₂, as slices.
    """

    first: list[float]
    before: analysis.Trace
    after: analysis.Trace
    weights: tuple[float, float]
    curves: list[analysis.LossSlice]

    @property
    def loss(self) -> float:
        """The loss before the step."""
        return self.before.loss or 0.0

    def gradient(self, path: str) -> float:
        """Return dL/d(output of the layer at this path)."""
        gradient = self.before[path].gradient
        assert gradient is not None
        return float(gradient.item())

    def slope(self, path: str) -> float:
        """Return dL/dw of the neuron at this path."""
        return float(self.before[path].parameters["weight"][1].item())

    def quoted(self) -> list[Quoted]:
        """Return the numbers of lesson 2."""
        said = zip(("2.7", "2.7", "1.16", "0.76"), self.first, strict=True)
        names = "x = 5: z1", "a1 = ReLU(z1)", "z2", "a2 = sigmoid(z2)"
        rows = [Quoted(name, *pair) for name, pair in zip(names, said, strict=True)]
        a2 = self.before["3"].value.item()
        rows += [
            Quoted("x = 3: z1 = 0.5·3 + 0.2", "1.7", self.before["0"].value.item()),
            Quoted("a1 = ReLU(z1)", "1.7", self.before["1"].value.item()),
            Quoted("z2 = 0.8·1.7 - 0.5", "0.86", self.before["2"].value.item()),
            Quoted("a2 = sigmoid(z2)", "0.702", a2, "rounds to 0.703: 0.702 is cut off"),
            Quoted("L = (a2 - 1)²", "0.089", self.loss, CUT),
            Quoted("dL/da2 = 2 (a2 - 1)", "-0.596", self.gradient("3"), CUT),
            Quoted("da2/dz2 = a2 (1 - a2)", "0.209", a2 * (1 - a2)),
            Quoted("dL/dw2", "-0.212", self.slope("2"), CUT),
            Quoted("dL/da1", "-0.100", self.gradient("1"), CUT),
            Quoted("dL/dw1", "-0.300", self.slope("0"), ROUNDED),
            Quoted("w2 after the step", "0.821", self.weights[1]),
            Quoted("w1 after the step", "0.530", self.weights[0]),
            Quoted("then z1", "1.79", self.after["0"].value.item()),
            Quoted("z2", "0.97", self.after["2"].value.item()),
            Quoted("a2", "0.725", self.after["3"].value.item()),
            Quoted("L", "0.076", self.after.loss or 0.0),
        ]
        return rows

    def lines(self) -> Iterator[str]:
        yield "Two neurons: z1 = w1·x + b1, a1 = ReLU(z1), z2 = w2·a1 + b2, a2 = sigmoid(z2)"
        yield ""
        yield from str(self.before).splitlines()
        yield ""
        yield from comparison(self.quoted())

    def figure(self) -> Figure:
        """Draw the loss along each weight, its tangent, and the step."""
        figure, axes = panels(2)
        old, paths = (W1, W2), ("0", "2")
        for i, panel in enumerate(axes):
            w, loss = old[i] + self.curves[i].places, self.curves[i].losses
            slope, new = self.slope(paths[i]), self.weights[i]
            panel.plot(w, loss, color=BLUE, linewidth=1.8, label="loss")
            near = np.array([-0.6, 0.6])
            label = f"tangent, slope {slope:.4f}"
            panel.plot(old[i] + near, self.loss + slope * near, "--", color=VERMILION, label=label)
            panel.plot(old[i], self.loss, "ko", label=f"w{i + 1} = {old[i]:g}")
            reached = float(np.interp(new, w, loss))
            label = f"after the step: {new:.3f}"
            panel.plot(new, reached, "^", color=GREEN, markersize=8, label=label)
            finish(panel, f"The loss along w{i + 1}", f"w{i + 1}", "loss (a2 - y)²")
        return figure


def compute() -> ByHand:
    """Run both passes and the step of lesson 2.

    dL/dw₂ = 2 (a₂ - y) · a₂ (1 - a₂) · a₁,  dL/dw₁ = 2 (a₂ - y) · a₂ (1 - a₂) · w₂ · 1 · x
    """
    model, *neurons = _network(B2)
    loss, x, y = nn.MSELoss(), np.array([[X]]), np.array([[Y]])
    before = analysis.trace(model, x, loss, y)
    curves = [
        analysis.loss_slice(model, loss, x, y, directions=[unit], radius=AROUND, points=151)
        for unit in _unit_vectors(model)
    ]
    loss(model(x), y)
    model.backward(loss.backward())
    weights = [neuron.weight for neuron in neurons]
    optim.SGD(weights, lr=RATE).step()
    forward = analysis.trace(_network(-1.0)[0], np.array([[5.0]]))
    return ByHand(
        first=[float(step.value.item()) for step in forward.steps[1:]],
        before=before,
        after=analysis.trace(model, x, loss, y),
        weights=(float(weights[0].data.item()), float(weights[1].data.item())),
        curves=curves,
    )


def _network(last_bias: float) -> tuple[nn.Sequential, nn.Linear, nn.Linear]:
    """Build the network; returns it and its two neurons."""
    make = nn.init.constant
    first = nn.Linear(1, 1, init=make(W1), bias_init=make(B1), dtype=np.float64)
    last = nn.Linear(1, 1, init=make(W2), bias_init=make(last_bias), dtype=np.float64)
    return nn.Sequential(first, nn.ReLU(), last, nn.Sigmoid()), first, last


def _unit_vectors(model: nn.Layer) -> Iterator[Array]:
    """Yield the directions along w₁ and w₂ among all four parameters."""
    names = [name for name, _ in model.named_parameters()]
    for name in ("0.weight", "2.weight"):
        yield np.array([float(other == name) for other in names])
