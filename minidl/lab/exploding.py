"""Weights twice too large: what becomes of the gradient, and then of the loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from minidl import analysis, datasets, nn
from minidl.lab import choices
from minidl.lab.drawing import finish, log_curves, panels
from minidl.lab.findings import Findings
from minidl.lab.limits import size
from minidl.lab.quoted import Quoted, comparison, table
from minidl.typing import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH, BATCH, PROBE = 64, 32, 256
RATES = {"sgd": 0.01, "momentum": 0.001, "rmsprop": 0.001, "adam": 0.001}
CLIP = 1.0
CALM, TWICE, CLIPPED = "He weights", "twice as large", "twice as large, clipped"
NETWORKS = {CALM: (1.0, None), TWICE: (2.0, None), CLIPPED: (2.0, CLIP)}


@dataclass
class Training:
    """A deep ReLU network on the digits.

    Attributes
    ----------
    gradients
        ‖dL/d(output)‖ of every hidden layer, the last one first, before training.
    losses
        The loss of every step's batch.
    failure
        What ended the training, or "".
    """

    gradients: Array
    losses: list[float]
    failure: str

    @property
    def growth(self) -> float:
        """The factor per layer, in the geometric mean."""
        ends = self.gradients[-1] / self.gradients[0]
        return float(ends ** (1 / (len(self.gradients) - 1)))

    @property
    def finite(self) -> tuple[Array, Array]:
        """The numbers of the steps whose loss is finite, from 1, and these losses."""
        good = np.isfinite(self.losses)
        return np.flatnonzero(good) + 1, np.array(self.losses)[good]

    @property
    def extremes(self) -> tuple[str, ...]:
        """The first, the largest and the last loss, in words."""
        values = self.losses[0], np.nanmax(self.losses), self.losses[-1]
        return tuple(f"{value:.3g}" for value in values)


@dataclass(repr=False)
class Exploding(Findings):
    """Powers of two, and networks whose gradient doubles with every layer.

    Attributes
    ----------
    powers
        The gradient of k units of weight 2 in a row, k = 1 to 10.
    trainings
        By the name of the network.
    """

    powers: Array
    trainings: dict[str, Training]

    def quoted(self) -> list[Quoted]:
        """Return the numbers of lesson 4."""
        rows = [
            Quoted(f"{k} weights of 2 in a row", str(2**k), float(power))
            for k, power in enumerate(self.powers, 1)
        ]
        last = "counted so that layer 1 has 1.0, layer 10 has 2^9 = 512"
        return [*rows[:-1], Quoted(rows[-1].what, "1024", float(self.powers[-1]), last)]

    def lines(self) -> Iterator[str]:
        yield "A weight of 2 doubles the gradient; so do He weights for ReLU, times 2"
        yield ""
        yield from comparison(self.quoted())
        yield ""
        head = "network", "factor per layer", "loss: first", "largest", "last", "steps", "failure"
        rows = [
            (name, f"{t.growth:.2f}", *t.extremes, str(len(t.losses)), t.failure or "none")
            for name, t in self.trainings.items()
        ]
        yield from table([head, *rows])

    def figure(self) -> Figure:
        """Draw the gradient by layer, and the loss by step."""
        figure, (left, right) = panels(2)
        gradients = {
            name: (range(len(t.gradients)), t.gradients)
            for name, t in self.trainings.items()
            if name != CLIPPED
        }
        start = self.trainings[TWICE].gradients
        doubling = start[0] * 2.0 ** np.arange(len(start))
        log_curves(left, gradients, theory={"2^k": (range(len(start)), doubling)})
        finish(
            left,
            "Before training",
            "layers below the last",
            "norm of the gradient, dL/da",
            whole=True,
        )
        losses = {
            ": ".join(filter(None, (name, t.failure))): t.finite
            for name, t in self.trainings.items()
        }
        log_curves(right, losses)
        finish(right, "Training", "step", "loss of the batch (nats)", whole=True)
        return figure


def compute(optimizer: str = "sgd", depth: int = 8, steps: int = 300, seed: int = 0) -> Exploding:
    """Train deep ReLU networks whose weights are He's, and twice as large.

    ‖dL/da_{l-1}‖ ≈ √(n · Var(w) / 2) · ‖dL/da_l‖, which is 1 for He's Var(w) = 2/n

    Parameters
    ----------
    optimizer
        Its name, in ``choices.OPTIMIZERS``.
    depth
        Hidden layers, ≥ 2.
    steps
        Of each training, at most.
    seed
        Of the weights and of the order of the rows.
    """
    depth = size("exploding", "depth", depth, 2, most=100)
    steps = size("exploding", "steps", steps)
    powers = [analysis.jacobian(_chain(k), np.ones((1, 1))).item() for k in range(1, 11)]
    trainings = {
        name: _trained(scale, clip, optimizer, depth, steps, seed)
        for name, (scale, clip) in NETWORKS.items()
    }
    return Exploding(np.array(powers), trainings)


def _chain(count: int) -> nn.Sequential:
    """Build so many units of weight 2 in a row."""
    make = nn.init.constant(2.0)
    return nn.Sequential(*(nn.Linear(1, 1, bias=False, init=make) for _ in range(count)))


def _trained(
    scale: float, clip: float | None, optimizer: str, depth: int, steps: int, seed: int
) -> Training:
    """Measure the gradients of a network, then train it until it fails or the steps are made."""
    data = datasets.digits()
    make = nn.init.normal(std=scale * np.sqrt(2 / WIDTH))
    hidden = [(nn.Linear(WIDTH, WIDTH, init=make), nn.ReLU()) for _ in range(depth)]
    layers = (layer for pair in hidden for layer in pair)
    model = nn.Sequential(*layers, nn.Linear(WIDTH, 10, init=make), rng=seed)
    loss = nn.CrossEntropyLoss()
    pass_ = analysis.trace(model, data.x_train[:PROBE], loss, data.y_train[:PROBE])
    norms = [pass_[str(2 * layer + 1)].gradient_norm for layer in range(depth)]
    made = choices.optimizer(optimizer, model.parameters(), RATES, max_norm=clip)
    losses: list[float] = []
    failure, rng = "", np.random.default_rng(seed)
    for step in range(1, steps + 1):
        rows = rng.integers(len(data.x_train), size=BATCH)
        losses.append(float(loss(model(data.x_train[rows]), data.y_train[rows])))
        if not np.isfinite(losses[-1]):
            failure = f"the loss of step {step} is {losses[-1]}"
            break
        made.zero_grad()
        model.backward(loss.backward())
        try:
            made.step()
        except FloatingPointError:
            failure = f"the gradient of step {step} is not finite"
            break
    return Training(np.array(norms[::-1]), losses, failure)
