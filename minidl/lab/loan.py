"""An income in dollars saturates a sigmoid: no gradient, no learning, until it is standardised."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from minidl import analysis, nn
from minidl.lab import choices
from minidl.lab.drawing import curve, finish, log_curves, panels
from minidl.lab.findings import Findings
from minidl.lab.limits import size
from minidl.lab.quoted import Quoted, comparison, table
from minidl.training import Trainer
from minidl.typing import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INCOME, WEIGHT = 150_000.0, 0.0002  # dollars a year; z = 30
CUSTOMERS, HIDDEN, BATCH = 1000, 8, 50
RATES = {"sgd": 0.5, "momentum": 0.1, "rmsprop": 0.01, "adam": 0.01}


@dataclass
class Training:
    """A training on one form of the data.

    Attributes
    ----------
    losses
        Mean cross entropy before the first epoch, and after every epoch.
    saturation
        Before training: 1 - the mean of σ'(z) / ¼ over hidden units and customers.
    gradient
        Before training: the norm of the gradient of the first layer's weights.
    """

    losses: list[float]
    saturation: float
    gradient: float

    @property
    def ends(self) -> tuple[str, str]:
        """The first and the last loss, in words."""
        return f"{self.losses[0]:.4f}", f"{self.losses[-1]:.4f}"


@dataclass(repr=False)
class Loan(Findings):
    """The derivative of a sigmoid for incomes in dollars, and two trainings.

    Attributes
    ----------
    slope, slope32
        σ'(30) in float64 and in float32.
    incomes, slopes
        Incomes of all customers, and σ'(0.0002 · income).
    base
        The cross entropy of answering the share of defaults for everyone.
    trainings
        By the form of the data: in dollars, standardised.
    """

    slope: float
    slope32: float
    incomes: Array
    slopes: Array
    base: float
    trainings: dict[str, Training]

    def quoted(self) -> list[Quoted]:
        """Return the numbers of lesson 7."""
        return [
            Quoted("z = 0.0002 · 150,000 dollars", "30", WEIGHT * INCOME),
            Quoted("sigmoid'(30), in float64", "0", self.slope, f"not 0, but {self.slope:.2g}"),
            Quoted("sigmoid'(30), in float32", "0", self.slope32, "exactly: sigmoid(30) is 1"),
        ]

    def lines(self) -> Iterator[str]:
        yield "Will a customer pay back? One column is the income in dollars a year."
        yield ""
        yield from comparison(self.quoted())
        yield ""
        head = "data", "saturation", "gradient of layer 1", "loss before", "after"
        rows = [
            (name, f"{t.saturation:.1%}", f"{t.gradient:.2g}", *t.ends)
            for name, t in self.trainings.items()
        ]
        yield from table([head, *rows])
        yield ""
        yield f"Answering the share of defaults for everyone has a loss of {self.base:.4f}."

    def figure(self) -> Figure:
        """Draw the derivative against the income, and the loss of both trainings."""
        figure, (left, right) = panels(2)
        thousands = np.linspace(0, INCOME / 1000, 76)
        slope = _slope(WEIGHT * 1000 * thousands)
        log_curves(left, {"z = 0.0002 · income": (thousands, slope)})
        low, high = np.percentile(self.incomes, [5, 95]) / 1000
        left.axvspan(low, high, color="0.92", zorder=0, label="nine in ten customers")
        left.legend()
        finish(left, "The derivative of a sigmoid", "income (1000 dollars a year)", "sigmoid'(z)")
        for index, (name, training) in enumerate(self.trainings.items()):
            curve(right, range(len(training.losses)), training.losses, name, index)
        style = {"color": "0.35", "linestyle": ":", "label": "the share of defaults"}
        right.axhline(self.base, **style)
        finish(right, "Training", "epoch", "mean cross entropy (nats)", whole=True)
        return figure


def compute(optimizer: str = "sgd", epochs: int = 20, seed: int = 0) -> Loan:
    """Train on incomes in dollars, and on standardised ones.

    σ'(z) = σ(z) (1 - σ(z)),  at most ¼ and e^-z for large z

    Parameters
    ----------
    optimizer
        Its name, in ``choices.OPTIMIZERS``.
    epochs
        Of both trainings.
    seed
        Of the customers and of the weights.
    """
    epochs = size("loan", "epochs", epochs)
    x, y = _customers(seed)
    share = float(y.mean())
    trainings = {
        "in dollars": _trained(x, y, False, optimizer, epochs, seed),
        "standardised": _trained(x, y, True, optimizer, epochs, seed),
    }
    z = np.array([[WEIGHT * INCOME]])
    return Loan(
        slope=float(_slope(z).item()),
        slope32=float(_slope(z.astype(np.float32)).item()),
        incomes=x[:, 0],
        slopes=_slope(WEIGHT * x[:, :1].astype(np.float64)).ravel(),
        base=-share * np.log(share) - (1 - share) * np.log(1 - share),
        trainings=trainings,
    )


def _slope(z: Array) -> Array:
    """Measure σ'(z) by a backward pass."""
    layer = nn.Sigmoid()
    y = layer(z.reshape(-1, 1))
    return np.asarray(layer.backward(np.ones_like(y)))[:, 0]


def _customers(seed: int) -> tuple[Array, Array]:
    """Draw customers: income, and debt as a share of it; and who does not pay back."""
    rng = np.random.default_rng(seed)
    income = 60_000 * np.exp(rng.normal(scale=0.5, size=CUSTOMERS))
    debt = rng.uniform(0.0, 1.0, CUSTOMERS)
    risk = 6 * (debt - 0.5) - 3 * np.log(income / 60_000)
    y = rng.uniform(size=CUSTOMERS) < 1 / (1 + np.exp(-risk))
    return np.stack([income, debt], axis=1).astype(np.float32), y[:, None].astype(np.float32)


def _trained(
    x: Array, y: Array, standardised: bool, optimizer: str, epochs: int, seed: int
) -> Training:
    """Train a hidden layer of sigmoids, and look at it before."""
    if standardised:
        x = ((x - x.mean(axis=0)) / x.std(axis=0)).astype(np.float32)
    model = nn.Sequential(nn.Linear(2, HIDDEN), nn.Sigmoid(), nn.Linear(HIDDEN, 1), rng=seed)
    loss = nn.BCEWithLogitsLoss()
    first = analysis.trace(model, x, loss, y)
    made = choices.optimizer(optimizer, model.parameters(), RATES)
    trainer = Trainer(model, loss, made, rng=seed)
    before = trainer.evaluate(x, y)["loss"]
    history = trainer.fit(x, y, epochs, batch_size=BATCH, progress=False)
    s = first["1"].value.astype(np.float64)
    return Training(
        losses=[before, *history["loss"]],
        saturation=float(1 - (4 * s * (1 - s)).mean()),
        gradient=float(np.linalg.norm(first["0"].parameters["weight"][1])),
    )
