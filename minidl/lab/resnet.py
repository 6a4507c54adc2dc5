"""Convolutional networks of 20 to 56 layers, plain and residual: who trains, and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from minidl import datasets, models, nn
from minidl.lab import batchnorm, choices
from minidl.lab.drawing import curve, finish, log_curves, panels
from minidl.lab.findings import Findings
from minidl.lab.limits import size
from minidl.lab.quoted import Quoted, comparison, table
from minidl.training import History, Trainer
from minidl.typing import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEPTHS = 20, 38  # beside the deepest
WIDTH = 8  # channels of the first stage
BATCH = 32
PROBE = 512  # images that a gradient is measured on
RATES = {"sgd": 0.1, "momentum": 0.1, "rmsprop": 1e-3, "adam": 1e-3}
SMOOTHED = 5  # layers
LAYERS = 54  # convolutions between the first and the last layer of 56


@dataclass
class Result:
    """What was measured of one network.

    Attributes
    ----------
    depth, residual
        Which network.
    gradients
        Before training: the norm of the gradient of the weight of each convolution, in order.
    agreement
        The cosine between this gradient and that of other images.
    history
        Of the training.
    """

    depth: int
    residual: bool
    gradients: Array
    agreement: Array
    history: History

    @property
    def name(self) -> str:
        """What the network is called in tables and figures."""
        return f"{'residual' if self.residual else 'plain'} {self.depth}"

    @property
    def ratio(self) -> float:
        """The gradient of the first convolution over that of the last."""
        return float(self.gradients[0] / self.gradients[-1])

    @property
    def growth(self) -> float:
        """The factor of the gradient per layer, over the convolutions of the first stage."""
        layers = (self.depth - 2) // 3
        return float((self.gradients[1] / self.gradients[layers]) ** (1 / (layers - 1)))

    @property
    def middle(self) -> float:
        """The mean agreement of the middle third of the convolutions."""
        third = len(self.agreement) // 3
        return float(self.agreement[third:-third].mean())

    def cells(self) -> list[str]:
        """Return the row of the table."""
        last = {name: values[-1] for name, values in self.history.items()}
        scores = [f"{last[name]:.3f}" for name in ("loss", "accuracy", "val_accuracy")]
        return [
            self.name,
            f"{self.ratio:.2g}",
            f"{self.growth:.2f}",
            f"{self.middle:.2f}",
            *scores,
        ]


@dataclass(repr=False)
class Resnet(Findings):
    """Gradients before training, and trainings, of plain and residual networks."""

    results: list[Result]
    optimizer: str

    def quoted(self) -> list[Quoted]:
        """Return the numbers of lesson 13."""
        growth = batchnorm.growth("relu")
        return [
            Quoted("growth for ReLU, √(π / (π - 1))", "1.211", growth),
            Quoted(f"1.211^{LAYERS}", "3.1e4", growth**LAYERS),
        ]

    def lines(self) -> Iterator[str]:
        yield "Residual networks for images, and the same without shortcuts, on the digits"
        yield ""
        yield from comparison(self.quoted())
        yield ""
        measured = "network", "first / last", "growth", "agreement"
        scores = "train loss", "train accuracy", "test accuracy"
        yield from table([[*measured, *scores], *(result.cells() for result in self.results)])
        yield ""
        yield "gradients of the weights before training: of the first convolution over the last;"
        yield "its factor per layer in the first stage; its cosine with that of other images, in"
        epochs = self.results[0].history.epochs
        yield f"the middle of the network. Then {epochs} epochs of {self.optimizer}"

    def figure(self) -> Figure:
        """Draw the gradient by layer, its agreement, and the loss by epoch."""
        figure, (left, middle, right) = panels(3)
        curves = {r.name: (np.arange(len(r.gradients)) + 1, r.gradients) for r in self.results}
        log_curves(left, curves)
        x, y = "convolution, the first beside the image", "norm of the gradient of its weight"
        finish(left, "Before training: how large", x, y, whole=True)
        for index, result in enumerate(self.results):
            layers, agreement = smooth(result.agreement)
            curve(middle, layers, agreement, result.name, index)
            loss = result.history["loss"]
            curve(right, np.arange(len(loss)) + 1, loss, result.name, index)
        # The styles are those of the legend on the left.
        y = f"cosine with that of other images, over {SMOOTHED} layers"
        finish(middle, "Before training: how reliable", x, y, legend=None, whole=True)
        right.set_ylim(bottom=0)
        title, y = f"Training with {self.optimizer}", "mean cross entropy"
        finish(right, title, "epoch", y, legend=None, whole=True)
        return figure


def compute(optimizer: str = "momentum", depth: int = 56, epochs: int = 8, seed: int = 0) -> Resnet:
    """Train plain and residual networks of 20, 38 and ``depth`` layers on the digits.

    y = ReLU(F(x)) and y = ReLU(F(x) + x),  F: convolution, BatchNorm, ReLU, convolution, BatchNorm

    Parameters
    ----------
    optimizer
        Its name, in ``choices.OPTIMIZERS``.
    depth
        Of the deepest, 6n + 2; those that would be deeper than this are left out.
    epochs
        Passes over the data.
    seed
        Of weights and order.

    Source: He et al. 2016, section 4.2; Yang et al. 2019 (the growth).
    """
    depth = size("resnet", "depth", depth, most=200)
    models.blocks_of(depth)  # refuses a depth before others are trained
    epochs = size("resnet", "epochs", epochs)
    depths = [*(some for some in DEPTHS if some < depth), depth]
    results = [
        measured(each, residual, optimizer, epochs, seed)
        for residual in (False, True)
        for each in depths
    ]
    return Resnet(results, optimizer)


def measured(depth: int, residual: bool, optimizer: str, epochs: int, seed: int) -> Result:
    """Measure the gradients of a network, and train it."""
    data = datasets.digits()
    x_train, x_test = (x.reshape(-1, 8, 8, 1) for x in (data.x_train, data.x_test))
    model = models.resnet(depth, width=WIDTH, residual=residual, rng=seed)
    made = choices.optimizer(optimizer, model.parameters(), RATES)
    one, other = (
        weight_gradients(model, x_train[rows], data.y_train[rows])
        for rows in (slice(PROBE), slice(PROBE, 2 * PROBE))
    )
    norms = np.array([np.linalg.norm(gradient) for gradient in one])
    agreement = np.array([cosine(a, b) for a, b in zip(one, other, strict=True)])
    trainer = Trainer(model, nn.CrossEntropyLoss(), made, rng=seed + 1)
    history = trainer.fit(
        *(x_train, data.y_train, epochs, BATCH),
        validation=(x_test, data.y_test),
        progress=False,
        diagnose=False,
    )
    return Result(depth, residual, norms, agreement, history)


def weight_gradients(model: nn.Sequential, x: Array, y: Array) -> list[Array]:
    """Return the gradient of the weight of each convolution of 3 × 3, in order."""
    loss = nn.CrossEntropyLoss()
    model.zero_grad()
    loss(model(x), y)
    model.backward(loss.backward())
    gradients = [
        layer.weight.grad.copy()
        for _, layer in model.layers()
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3)
    ]
    model.zero_grad()
    return gradients


def cosine(a: Array, b: Array) -> float:
    """Return the cosine of the angle between two arrays, taken as vectors."""
    return float(np.vdot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)))


def smooth(values: Array) -> tuple[Array, Array]:
    """Return the numbers of layers, and means over some neighbours: single layers scatter."""
    count = min(SMOOTHED, len(values))
    means = np.convolve(values, np.full(count, 1 / count), mode="valid")
    return np.arange(len(means)) + (count + 1) / 2, means
