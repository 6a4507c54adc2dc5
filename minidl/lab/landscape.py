"""The loss around a trained deep network, with and without a way around each layer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from minidl import analysis, datasets, nn
from minidl.analysis.slices import contour_levels
from minidl.lab import choices
from minidl.lab.drawing import panels
from minidl.lab.findings import Findings
from minidl.lab.limits import size
from minidl.lab.quoted import table
from minidl.training import Trainer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH, CLASSES, ROWS = 64, 10, 200
BATCH = 32
RATES = {"sgd": 0.05, "momentum": 0.01, "rmsprop": 1e-3, "adam": 1e-3}
CHANCE = math.log(CLASSES)
NAMES = ("plain", "with a way around each layer")


@dataclass(repr=False)
class Landscape(Findings):
    """A slice of the loss around each network, and its accuracy on the test set."""

    slices: dict[str, analysis.LossSlice]
    accuracies: dict[str, float]
    depth: int

    def lines(self) -> Iterator[str]:
        yield f"{self.depth} hidden layers on the digits; the loss in a random plane through the"
        yield "trained weights, each direction as long as the weights of every unit"
        yield ""
        head = "network", "test accuracy", "loss", "least around", "median around", "below chance"
        rows = []
        for name, found in self.slices.items():
            losses = found.losses
            numbers = found.centre, losses.min(), np.median(losses)
            share = f"{(losses < CHANCE).mean():.0%} of the plane"
            cells = (f"{number:.3g}" for number in numbers)
            rows.append((name, f"{self.accuracies[name]:.3f}", *cells, share))
        yield from table([head, *rows])
        yield ""
        yield f"Chance is a loss of log {CLASSES} = {CHANCE:.2f}."

    def figure(self) -> Figure:
        """Draw both slices with the same levels."""
        figure, axes = panels(2, (6.0, 4.6))
        everything = np.concatenate([found.losses.ravel() for found in self.slices.values()])
        # Far out, a plain network's loss is of no interest; it would take most of the levels.
        levels = contour_levels(np.minimum(everything, 10 * CHANCE))
        for panel, (name, found) in zip(axes, self.slices.items(), strict=True):
            found.draw(panel, levels)
            panel.set_title(f"{self.depth} layers, {name}")
        return figure


def compute(
    activation: str = "relu",
    optimizer: str = "adam",
    depth: int = 20,
    epochs: int = 10,
    points: int = 25,
    seed: int = 0,
) -> Landscape:
    """Train two deep networks on the digits, and slice the loss around them.

    L(w + a · d₁ + b · d₂), d filter-normalised, for a and b from -1 to 1

    Parameters
    ----------
    activation, optimizer
        Their names, in ``choices``.
    depth, epochs
        Hidden layers, and passes over the data.
    points
        Along each direction, odd, ≥ 3.
    seed
        Of weights, order and directions.

    Source: Li, Xu, Taylor, Studer and Goldstein 2018.
    """
    depth = size("landscape", "depth", depth, most=200)
    epochs = size("landscape", "epochs", epochs)
    points = size("landscape", "points", points, 3)
    if points % 2 == 0:
        raise ValueError(f"landscape: points must be odd, got {points}")
    slices, accuracies = {}, {}
    data, loss = datasets.digits(), nn.CrossEntropyLoss()
    for name in NAMES:
        model = _network(activation, depth, name == NAMES[1], seed)
        made = choices.optimizer(optimizer, model.parameters(), RATES, max_norm=1.0)
        trainer = Trainer(model, loss, made, rng=seed)
        trainer.fit(data.x_train, data.y_train, epochs, batch_size=BATCH, progress=False)
        accuracies[name] = trainer.evaluate(data.x_test, data.y_test)["accuracy"]
        rows = data.x_train[:ROWS], data.y_train[:ROWS]
        options = {"directions": 2, "points": points, "rng": seed}
        slices[name] = analysis.loss_slice(model, loss, *rows, **options)
    return Landscape(slices, accuracies, depth)


def _network(activation: str, depth: int, residual: bool, seed: int) -> nn.Sequential:
    """Build a deep network; residual blocks are scaled by the root of the depth."""
    he = math.sqrt(2 / WIDTH)
    init = nn.init.normal(std=he / math.sqrt(depth) if residual else he)

    def block() -> nn.Layer:
        body = nn.Sequential(choices.activation(activation), nn.Linear(WIDTH, WIDTH, init=init))
        return nn.Residual(body) if residual else body

    layers = [nn.Linear(WIDTH, WIDTH), *(block() for _ in range(depth - 1))]
    last = choices.activation(activation), nn.Linear(WIDTH, CLASSES)
    return nn.Sequential(*layers, *last, rng=seed)
