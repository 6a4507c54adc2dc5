"""RNN, LSTM and GRU: the gradient by time step, and what they learn from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl import datasets, nn, optim
from minidl.lab.drawing import GREY, finish, log_curves, panels
from minidl.lab.findings import Findings
from minidl.lab.limits import size
from minidl.lab.quoted import Quoted, comparison, table
from minidl.nn.recurrent.sequence import Recurrent
from minidl.training import Trainer
from minidl.typing import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GUESS = 1 / 6  # the mean squared error of always answering 1
TRAINING, TEST, BATCH, RATE = 4000, 500, 20, 0.01
FORGET = ((0, "0.5", "7.9e-31"), (1, "0.731", "2.5e-14"), (5, "0.9933", "0.51"))  # bias, f, f^100
CELLS: dict[str, tuple[type[Recurrent], dict[str, Any]]] = {
    "RNN": (nn.RNN, {}),
    "LSTM, forget bias 1": (nn.LSTM, {"forget_bias": 1.0}),
    "LSTM, forget bias 3": (nn.LSTM, {"forget_bias": 3.0}),
    "GRU": (nn.GRU, {}),
}


@dataclass
class Memory:
    """One recurrent layer on the adding problem.

    Attributes
    ----------
    before, after
        ‖dL/ds_{T-k}‖ / ‖dL/ds_{T-1}‖ for k = 1, 2, …, before training and after it; the state s is
        h, of an LSTM h and c.
    errors
        The mean squared error on new sequences, before the first epoch and after every epoch.
    """

    before: Array
    after: Array
    errors: list[float]


@dataclass(repr=False)
class Gates(Findings):
    """The layers by name, and the product of forget gates that the cell of an LSTM multiplies."""

    cells: dict[str, Memory]

    def quoted(self) -> list[Quoted]:
        """Return the numbers of lesson 10."""
        rows = [Quoted("the answer 1: mean squared error 1/6", "0.1667", GUESS)]
        for bias, gate, power in FORGET:
            f = 1 / (1 + np.exp(-bias))
            rows.append(Quoted(f"forget gate of bias {bias}: f", gate, f))
            rows.append(Quoted("f^100", power, f**100))
        return rows

    def lines(self) -> Iterator[str]:
        yield "From c_t to c_{t-1} the gradient of an LSTM is multiplied by the forget gate, f"
        yield ""
        yield from comparison(self.quoted())
        yield ""
        some = next(iter(self.cells.values()))
        steps, epochs = len(some.before) + 1, len(some.errors) - 1
        yield f"The adding problem, {steps} steps: the gradient {steps - 1} steps back, over that"
        yield "of one step back, and the error on new sequences"
        yield ""
        head = "layer", "before training", "factor per step", "after training"
        rows = []
        for name, cell in self.cells.items():
            ends = cell.before[-1], cell.before[-1] ** (1 / (steps - 2)), cell.after[-1]
            rows.append((name, *(f"{end:.3g}" for end in ends), f"{cell.errors[-1]:.4f}"))
        yield from table([(*head, f"error after {epochs} epochs"), *rows])

    def figure(self) -> Figure:
        """Draw the gradient against the steps back in time, and the error by epoch."""
        figure, (left, middle, right) = panels(3)
        k = range(1, len(next(iter(self.cells.values())).before) + 1)
        before = {name: (k, cell.before) for name, cell in self.cells.items()}
        after = {name: (k, cell.after) for name, cell in self.cells.items()}
        everything = [*np.concatenate([y for _, y in (*before.values(), *after.values())])]
        words = "k, steps back in time", "norm of dL/d(state) at T-k, over that at T-1"
        for axes, curves, when in ((left, before, "Before"), (middle, after, "After")):
            log_curves(axes, curves, others=everything)
            finish(axes, f"{when} training", *words, whole=True)
        errors = {name: (range(len(c.errors)), c.errors) for name, c in self.cells.items()}
        place = log_curves(right, errors, others=[GUESS])
        right.axhline(place(GUESS), color=GREY, linestyle=":", label="always answering 1: 1/6")
        title = f"The adding problem, {len(k) + 1} steps"
        finish(right, title, "epoch", "mean squared error, new sequences", whole=True)
        return figure


def compute(steps: int = 50, hidden: int = 32, epochs: int = 10, seed: int = 0) -> Gates:
    """Measure the gradient by time step, and train on the adding problem.

    c_t = f · c_{t-1} + i · g:  ∂c_T/∂c_{T-k} = Π f, where the gates themselves are held fixed

    Parameters
    ----------
    steps, hidden
        Of the sequences, ≥ 3, and the width of the state.
    epochs
        Of the trainings, by Adam.
    seed
        Of weights, sequences and order.

    Source: Hochreiter and Schmidhuber 1997; Gers et al. 2000 (the forget gate and its bias).
    """
    steps = size("gates", "steps", steps, 3, most=1_000)
    hidden = size("gates", "hidden", hidden)
    epochs = size("gates", "epochs", epochs)
    return Gates({name: _memory(name, steps, hidden, epochs, seed) for name in CELLS})


def _memory(name: str, steps: int, hidden: int, epochs: int, seed: int) -> Memory:
    """Measure one layer, and train it."""
    x, y = datasets.adding(TRAINING, steps, rng=seed + 1)
    test = datasets.adding(TEST, steps, rng=seed + 2)
    kind, options = CELLS[name]
    layer = kind(2, hidden, return_sequences=False, **options)
    head = nn.Linear(hidden, 1)
    model = nn.Sequential(layer, head, rng=seed)
    loss = nn.MSELoss()
    first = _state_gradients(layer, head, x[:BATCH], y[:BATCH])
    optimizer = optim.Adam(model.parameters(), lr=RATE, max_norm=1.0)
    trainer = Trainer(model, loss, optimizer, rng=seed + 3)
    error = trainer.evaluate(*test)["loss"]
    history = trainer.fit(x, y, epochs, BATCH, validation=test, progress=False)
    last = _state_gradients(layer, head, x[:BATCH], y[:BATCH])
    return Memory(first / first[0], last / last[0], [error, *history["val_loss"]])


def _state_gradients(layer: Recurrent, head: nn.Linear, x: Array, y: Array) -> Array:
    """Measure ‖dL/ds_{T-k}‖ for k = 1, 2, …, by cutting the sequences before their last k steps.

    The first part gives the state, the second part goes on from it and takes the gradient back.
    """
    loss, norms = nn.MSELoss(), []
    for cut in range(x.shape[1] - 1, 0, -1):
        _, *state = layer(x[:, :cut], *layer.zero_state(len(x)))
        last, *_ = layer(x[:, cut:], *state)
        loss(head(last), y)
        _, *dstate = layer.backward(head.backward(loss.backward()))
        norms.append(np.sqrt(sum(float((d.astype(np.float64) ** 2).sum()) for d in dstate)))
    return np.array(norms)
