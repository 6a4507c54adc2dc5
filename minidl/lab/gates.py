"""RNN, LSTM and GRU: how far back the loss is felt, and what they learn of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from minidl import datasets, nn, optim
from minidl.lab.drawing import curve, finish, log_curves, panels
from minidl.lab.quoted import Quoted, comparison, table
from minidl.nn.checks import check_count
from minidl.nn.recurrent.sequence import Recurrent
from minidl.pictures import finished
from minidl.training import Trainer
from minidl.typing import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GUESS = 1 / 6  # the mean squared error of always answering 1
TRAINING, TEST, BATCH, RATE = 2000, 500, 20, 0.01
CELLS = {
    "RNN": lambda width: nn.RNN(2, width, return_sequences=False),
    "LSTM, forget bias 1": lambda width: nn.LSTM(2, width, return_sequences=False),
    "LSTM, forget bias 5": lambda width: nn.LSTM(2, width, return_sequences=False, forget_bias=5.0),
    "GRU, update bias 0": lambda width: nn.GRU(2, width, return_sequences=False),
    "GRU, update bias 5": lambda width: nn.GRU(2, width, return_sequences=False, update_bias=5.0),
}


@dataclass
class Memory:
    """One recurrent layer on the adding problem.

    Attributes
    ----------
    gradients
        ‖dL/dh_{T-k}‖ / ‖dL/dh_T‖ for k = 0, 1, …, before training.
    errors
        The mean squared error on new sequences, before the first epoch and after every epoch.
    """

    gradients: Array
    errors: list[float]


@dataclass
class Gates:
    """The layers by name, and the product of forget gates that the cell of an LSTM multiplies."""

    cells: dict[str, Memory]

    def quoted(self) -> list[Quoted]:
        """Return the numbers of lesson 10."""
        rows = [Quoted("the answer 1: mean squared error 1/6", "0.1667", GUESS)]
        for bias, gate, power in (
            (0, "0.5", "7.9e-31"),
            (1, "0.731", "2.5e-14"),
            (5, "0.9933", "0.51"),
        ):
            f = 1 / (1 + np.exp(-bias))
            rows.append(Quoted(f"forget gate of bias {bias}: f", gate, f))
            rows.append(Quoted("f^100", power, f**100))
        return rows

    def lines(self) -> Iterator[str]:
        """Yield the text."""
        yield "From c_t to c_{t-1} the gradient of an LSTM is multiplied by the forget gate, f"
        yield ""
        yield from comparison(self.quoted())
        yield ""
        some = next(iter(self.cells.values()))
        steps, epochs = len(some.gradients), len(some.errors) - 1
        yield f"The adding problem, {steps} steps: the gradient before training, the error after it"
        yield ""
        head = "layer", f"gradient {steps - 1} steps back", "factor per step"
        rows = []
        for name, cell in self.cells.items():
            last = cell.gradients[-1]
            rows.append(
                (name, f"{last:.2g}", f"{last ** (1 / (steps - 1)):.3f}", f"{cell.errors[-1]:.4f}")
            )
        yield from table([(*head, f"error after {epochs} epochs"), *rows])

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Draw the gradient against the steps back in time, and the error by epoch."""
        figure, (left, right) = panels(2)
        gradients = {
            name: (range(len(cell.gradients)), cell.gradients) for name, cell in self.cells.items()
        }
        log_curves(left, gradients)
        y = "norm of dL/dh_{T-k}, over that of dL/dh_T"
        finish(left, "Before training", "k, steps back in time", y, whole=True)
        for index, (name, cell) in enumerate(self.cells.items()):
            curve(right, range(len(cell.errors)), np.minimum(cell.errors, 2 * GUESS), name, index)
        right.axhline(GUESS, color="0.35", linestyle=":", label="always answering 1")
        title = f"The adding problem, {len(gradients['RNN'][1])} steps"
        finish(right, title, "epoch", "mean squared error, new sequences", whole=True)
        return finished(figure, path)


def compute(steps: int = 60, hidden: int = 32, epochs: int = 10, seed: int = 0) -> Gates:
    """Measure how far back in time the loss is felt, and train on the adding problem.

    c_t = f · c_{t-1} + i · g:  ∂c_T/∂c_{T-k} = Π f, where the gates themselves are held fixed

    Parameters
    ----------
    steps, hidden
        Of the sequences, ≥ 2, and the width of the state.
    epochs
        Of the trainings, by Adam.
    seed
        Of weights, sequences and order.

    Source: Hochreiter and Schmidhuber 1997; Gers et al. 2000 (the forget gate and its bias).
    """
    steps = check_count("gates", "steps", steps, 2)
    hidden = check_count("gates", "hidden", hidden)
    epochs = check_count("gates", "epochs", epochs)
    return Gates({name: _memory(name, steps, hidden, epochs, seed) for name in CELLS})


def _memory(name: str, steps: int, hidden: int, epochs: int, seed: int) -> Memory:
    """Measure one layer, and train it."""
    x, y = datasets.adding(TRAINING, steps, rng=seed + 1)
    test = datasets.adding(TEST, steps, rng=seed + 2)
    layer: Recurrent = CELLS[name](hidden)
    model = nn.Sequential(layer, nn.Linear(hidden, 1), rng=seed)
    loss = nn.MSELoss()
    loss(model(x[:BATCH]), y[:BATCH])
    model.backward(loss.backward())
    norms = layer.state_gradient_norms()[::-1].astype(np.float64)
    model.zero_grad()
    optimizer = optim.Adam(model.parameters(), lr=RATE, max_norm=1.0)
    trainer = Trainer(model, loss, optimizer, rng=seed + 3)
    before = trainer.evaluate(*test)["loss"]
    history = trainer.fit(x, y, epochs, BATCH, validation=test, progress=False)
    return Memory(norms / norms[0], [before, *history["val_loss"]])
