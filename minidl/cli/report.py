"""Reports on a trained classifier: confused classes, and the gradient norm of every layer."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np

from minidl.cli.gradients import in_evaluation
from minidl.datasets import Dataset
from minidl.nn import BatchNorm, Layer, Loss, Parameter
from minidl.pictures import shortened
from minidl.training.batching import batches
from minidl.training.callbacks import Callback, Values
from minidl.training.history import show
from minidl.training.trainer import Trainer
from minidl.typing import Array

LONGEST_NAME, LONGEST_HEAD = 30, 10  # characters of a class
LARGEST_MATRIX = 20  # classes; a wider matrix would not fit a terminal
WORST_PAIRS = 3
ROWS = 128  # at a time: a convolutional network keeps megabytes for the backward pass of each


def confusion(labels: Array, predicted: Array, classes: Sequence[object]) -> str:
    """Format the confusion matrix, a row for every true class, and the pairs confused most.

    ``classes`` are what the labels 0, 1, ... are called.
    """
    names = [one_line(str(name), LONGEST_NAME) for name in classes]
    counts = np.zeros((len(names), len(names)), np.int64)
    np.add.at(counts, (labels, predicted), 1)
    lines = _matrix(counts, names) if len(names) <= LARGEST_MATRIX else []
    wrong = counts * (1 - np.eye(len(names), dtype=np.int64))
    worst = np.argsort(-wrong, axis=None, kind="stable")[:WORST_PAIRS]
    pairs = [divmod(int(place), len(names)) for place in worst]
    words = [
        f"{names[true]} taken for {names[guess]}: {wrong[true, guess]}"
        for true, guess in pairs
        if wrong[true, guess]
    ]
    summary = f"{wrong.sum()} of {len(labels):,} wrong"
    return "\n".join([*lines, summary + (f"; {', '.join(words)}" if words else "")])


def one_line(text: str, longest: int) -> str:
    """Return the text on one line, without its middle if it is longer than that."""
    return shortened("".join(c if c.isprintable() else "�" for c in text), longest)


def _matrix(counts: Array, names: list[str]) -> list[str]:
    longest = max(map(len, names))
    # Above long names columns would be too wide: there they are numbered, as the rows are then.
    numbered = longest > LONGEST_HEAD
    heads = [str(number) for number in range(len(names))] if numbered else names
    width = 1 + max(len(str(counts.max())), *map(len, heads))
    rows = [f"{head}: {name}" for head, name in zip(heads, names, strict=True)]
    rows = rows if numbered else names
    corner = "true \\ predicted"
    begin = max(len(corner), *map(len, rows))
    lines = [f"{corner:>{begin}}" + "".join(f"{head:>{width}}" for head in heads)]
    for row, numbers in zip(rows, counts.tolist(), strict=True):
        cells = "".join(f"{count or '.':>{width}}" for count in numbers)
        lines.append(f"{row:>{begin}}" + cells)
    return lines


class Norms(Callback):
    """Measures the norms of gradient and parameters of every layer that has parameters.

    The gradient is that of the mean loss over all the data, in evaluation mode: it does not depend
    on the order of the rows, and measuring it does not change the training. As a callback it
    measures before the first epoch and after every one. Before the first, ``BatchNorm`` has no
    running statistics; it gets those of the data, without which it would normalise nothing.
    """

    def __init__(self, model: Layer, loss: Loss, x: Array, y: Array) -> None:
        self._model, self._loss, self._x, self._y = model, loss, x, y
        self.gradients: dict[str, list[float]] = {name: [] for name in _parameters_of(model)}

    def on_train_begin(self, trainer: Trainer, epoch: int, values: Values) -> None:
        """Measure epoch 0."""
        self._add(_with_statistics(self._model, self._x))

    def on_epoch_end(self, trainer: Trainer, epoch: int, values: Values) -> None:
        """Measure."""
        self.measure()

    def measure(self) -> None:
        """Append the present gradient norms to ``gradients``; the gradient is zero afterwards."""
        self._add(self._model)

    def _add(self, model: Layer) -> None:
        model.zero_grad()
        with in_evaluation(model):
            for x, y in batches(self._x, self._y, ROWS, shuffle=False):
                self._loss(model(x), y)
                share = self._x.dtype.type(len(x) / len(self._x))
                model.backward(self._loss.backward() * share)
        for name, parameters in _parameters_of(model).items():
            self.gradients[name].append(norm([p.grad for p in parameters]))
        model.zero_grad()

    def table(self) -> str:
        """Format a line for every layer, with the norms of its gradient and of its parameters."""
        self.measure()
        layers = _parameters_of(self._model)
        width = max(map(len, layers))
        lines = [f"{'layer':<{width}}  gradient norm  parameter norm"]
        for name, parameters in layers.items():
            gradient = show(self.gradients[name].pop())
            size = show(norm([p.data for p in parameters]))
            lines.append(f"{name:<{width}}  {gradient:>13}  {size:>14}")
        return "\n".join(lines)


def _parameters_of(model: Layer) -> dict[str, list[Parameter]]:
    """Return the parameters of each layer without those of its parts, by its path and repr."""
    found = {}
    for path, layer in model.layers():
        own = [value for value in vars(layer).values() if isinstance(value, Parameter)]
        if own:
            found[f"{path} {layer!r}".strip()] = own
    return found


def _with_statistics(model: Layer, x: Array) -> Layer:
    """Return a copy whose ``BatchNorm`` layers have the statistics of these rows."""
    probe = copy.deepcopy(model)
    for _, layer in probe.layers():
        if isinstance(layer, BatchNorm):
            layer.momentum = 1.0
    probe.train()
    probe(x[:ROWS])
    return probe


def untrained(trainer: Trainer, data: Dataset) -> dict[str, float]:
    """Measure before training what every epoch measures; this does not change the training."""
    values = trainer.evaluate(data.x_train, data.y_train)
    validation = trainer.evaluate(data.x_test, data.y_test)
    return values | {f"val_{name}": value for name, value in validation.items()}


def norm(arrays: list[Array]) -> float:
    """Euclidean norm of several arrays together."""
    return float(np.sqrt(sum(np.square(array, dtype=np.float64).sum() for array in arrays)))
