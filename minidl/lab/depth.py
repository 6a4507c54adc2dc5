"""Why a deep network does not learn, and what each remedy alone changes about it.

Thirty hidden layers of tanh whose weights are drawn from N(0, 0.05²) stay at chance; each
other network has one remedy.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from minidl import datasets, nn, optim
from minidl.datasets import Dataset
from minidl.lab.drawing import GREY, finish, panels
from minidl.lab.findings import Findings
from minidl.lab.limits import size
from minidl.nn import Layer, Linear, Sequential, init
from minidl.nn.parameter import Initializer
from minidl.pictures import BLUE, GREEN, VERMILION, log_axis
from minidl.training import Trainer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 64  # that of the digits, so that every hidden layer can have a way around it
PROBE = 256  # rows that the gradient is measured on
SMALL = init.normal(std=0.05)

Block = Callable[[], list[Layer]]


def _of(weights: str | Initializer | None, *after: Callable[[], Layer]) -> Block:
    """A hidden layer: weights, and what follows them."""
    return lambda: [Linear(WIDTH, WIDTH, init=weights), *(make() for make in after)]


def _residual() -> list[Layer]:
    return [nn.Residual(Sequential(*NETWORKS["plain"].block()))]


@dataclass(frozen=True)
class Network:
    """How to make a hidden layer, and the output layer's initialiser (None: the default)."""

    what: str
    block: Block
    output: str | Initializer | None = SMALL

    def build(self, depth: int, classes: int, seed: int) -> Sequential:
        """Build so many hidden layers, and the logits."""
        hidden = [layer for _ in range(depth) for layer in self.block()]
        return Sequential(*hidden, Linear(WIDTH, classes, init=self.output), rng=seed)


CRITICAL = init.critical("tanh")
NETWORKS = {
    "plain": Network("tanh, weights N(0, 0.05²)", _of(SMALL, nn.Tanh)),
    "he": Network("ReLU, He normal", _of("he_normal", nn.ReLU), "he_normal"),
    "xavier": Network("tanh, Xavier uniform", _of("xavier_uniform", nn.Tanh), "xavier_uniform"),
    "batchnorm": Network(
        "plain, BatchNorm before tanh", _of(SMALL, lambda: nn.BatchNorm(WIDTH), nn.Tanh)
    ),
    "residual": Network("plain, a way around each layer", _residual),
    "layernorm": Network(
        "plain, LayerNorm before tanh", _of(SMALL, lambda: nn.LayerNorm(WIDTH), nn.Tanh)
    ),
    "critical": Network("tanh, init.critical", _of(CRITICAL, nn.Tanh), CRITICAL),
    "relu": Network("ReLU, weights by default", _of(None, nn.ReLU), None),
    "tanh": Network("tanh, weights by default", _of(None, nn.Tanh), None),
}


@dataclass
class Result:
    """The measurements of one network: a value for every seed.

    Attributes
    ----------
    name
        Of the network, in ``NETWORKS``.
    accuracy
        On the test set, after training.
    before, after
        Norms of the gradient of the weights of the first and of the last hidden layer.
    """

    name: str
    accuracy: list[float]
    before: list[tuple[float, float]]
    after: list[tuple[float, float]]

    def cells(self) -> list[str]:
        """Format the row of the table: medians over the seeds."""
        low, high = min(self.accuracy), max(self.accuracy)
        norms = [*np.median(self.before, axis=0), *np.median(self.after, axis=0)]
        return [
            self.name,
            NETWORKS[self.name].what,
            f"{np.median(self.accuracy):.3f} ({low:.3f} to {high:.3f})",
            *(f"{norm:.0e}" for norm in norms),
        ]


@dataclass(repr=False)
class DepthTable(Findings):
    """The results of some networks: the table, and its picture."""

    results: list[Result]

    def lines(self) -> Iterator[str]:
        """Yield the table, in Markdown."""
        return table(iter(self.results))

    def figure(self) -> Figure:
        """Draw the gradients before training, and the accuracies after it."""
        figure, (left, right) = panels(2, (6.2, 4.6))
        norms = {r.name: np.median(r.before, axis=0) for r in self.results}
        place = log_axis(left.xaxis, np.concatenate(list(norms.values())))
        for row, result in enumerate(self.results):
            first, last = map(place, norms[result.name])
            left.plot([first, last], [row, row], color="0.75", linewidth=2, zorder=1)
            names = ("first hidden layer", "last hidden layer") if not row else ("_", "_")
            left.plot(first, row, "o", color=BLUE, label=names[0])
            left.plot(last, row, "s", color=VERMILION, label=names[1])
            low, high = min(result.accuracy), max(result.accuracy)
            right.plot([low, high], [row, row], color="0.75", linewidth=2, zorder=1)
            label = "median over the seeds" if not row else "_"
            right.plot(np.median(result.accuracy), row, "D", color=GREEN, label=label)
        right.axvline(0.1, color=GREY, linestyle=":", label="chance")
        right.set_xlim(0, 1)
        finish(left, "Before training", "norm of the gradient of the weights", "")
        finish(right, "After training", "test accuracy", "")
        for axes in (left, right):
            axes.set_yticks(range(len(self.results)), [r.name for r in self.results])
            axes.invert_yaxis()
        return figure


def run(
    names: Sequence[str] = tuple(NETWORKS), depth: int = 30, epochs: int = 30, seeds: int = 5
) -> Iterator[Result]:
    """Train the networks of these names on the digits, by Adam, and measure.

    Parameters
    ----------
    names
        Keys of ``NETWORKS``.
    depth
        Hidden layers.
    epochs
        Passes over the data, in batches of 32.
    seeds
        Every network is trained with the seeds 0, 1, …, so many of them.

    Raises
    ------
    ValueError
        For an unknown name, and for numbers that are less than one.

    Examples
    --------
    >>> from minidl.lab import depth
    >>> (plain,) = depth.run(["plain"], epochs=1, seeds=1)
    >>> plain.accuracy[0] < 0.2
    True
    """
    depth, epochs = size("depth", "depth", depth, most=200), size("depth", "epochs", epochs)
    seeds = size("depth", "seeds", seeds)
    unknown = [name for name in names if name not in NETWORKS]
    if unknown:
        raise ValueError(f"no network is called {unknown[0]!r}; there are {', '.join(NETWORKS)}")
    return (_result(name, depth, epochs, seeds) for name in names)


def compute(depth: int = 30, epochs: int = 30, seeds: int = 5) -> DepthTable:
    """Train all networks, and measure: ``run`` with all results at once."""
    return DepthTable(list(run(tuple(NETWORKS), depth, epochs, seeds)))


def _result(name: str, depth: int, epochs: int, seeds: int) -> Result:
    """Train one network with every seed."""
    data = datasets.digits()
    trials = [_trained(NETWORKS[name], data, depth, epochs, seed) for seed in range(seeds)]
    accuracy, before, after = zip(*trials, strict=True)
    return Result(name, list(accuracy), list(before), list(after))


def _trained(
    network: Network, data: Dataset, depth: int, epochs: int, seed: int
) -> tuple[float, tuple[float, float], tuple[float, float]]:
    """Test accuracy, and the gradients of the first and last hidden layer before and after."""
    model = network.build(depth, data.classes, seed)
    optimizer = optim.Adam(model.parameters(), lr=1e-3, max_norm=1.0)
    trainer = Trainer(model, nn.CrossEntropyLoss(), optimizer, rng=seed + 1)
    before = _gradients(model, data)
    trainer.fit(data.x_train, data.y_train, epochs, batch_size=32, progress=False)
    accuracy = trainer.evaluate(data.x_test, data.y_test)["accuracy"]
    return accuracy, before, _gradients(model, data)


def _gradients(model: Sequential, data: Dataset) -> tuple[float, float]:
    """Norms of the gradients of the first and last hidden weights, in training mode."""
    probe, loss = copy.deepcopy(model), nn.CrossEntropyLoss()
    probe.zero_grad()
    loss(probe(data.x_train[:PROBE]), data.y_train[:PROBE])
    probe.backward(loss.backward())
    weights = [layer.weight for _, layer in probe.layers() if isinstance(layer, Linear)]
    first, last = (
        float(np.linalg.norm(weight.grad.astype(np.float64)))
        for weight in (weights[0], weights[-2])
    )
    return first, last


COLUMNS = (
    "network",
    "what it is",
    "test accuracy",
    "gradient, first layer",
    "last layer",
    "trained: first",
    "last",
)
_WIDTHS = (
    max(map(len, NETWORKS)),
    max(len(network.what) for network in NETWORKS.values()),
    len("0.123 (0.123 to 0.123)"),
    *map(len, COLUMNS[3:]),
)


def table(results: Iterator[Result]) -> Iterator[str]:
    """The lines of the table, in Markdown, each as soon as its network is trained."""
    yield _line(COLUMNS)
    yield "|" + "|".join("-" * (width + 2) for width in _WIDTHS) + "|"
    for result in results:
        yield _line(result.cells())


def _line(cells: Sequence[str]) -> str:
    padded = (f"{cell:<{width}}" for cell, width in zip(cells, _WIDTHS, strict=True))
    return f"| {' | '.join(padded)} |"
