"""A training as it was told: model, loss, optimizer, data, and for how long."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from typing import Any, Self

from minidl.nn import Layer, Loss
from minidl.optim import Optimizer
from minidl.training import Trainer
from minidl.typing import Seed


@dataclass(frozen=True)
class Program:
    """A training program: the arguments of ``diagnose``, before anything was trained.

    Parameters
    ----------
    model, loss, optimizer
        As a ``Trainer`` takes them; the optimizer holds the model's parameters.
    X, y
        The data, as ``Trainer.fit`` takes them.
    epochs, batch_size, shuffle, validation, rng
        As ``Trainer.fit`` and ``Trainer`` take them.
    class_weight, sample_weight
        As ``Trainer.fit`` takes them.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn, optim
    >>> from minidl.diagnosis.program import Program
    >>> model = nn.Sequential(nn.Linear(1, 1), rng=0)
    >>> sgd = optim.SGD(model.parameters(), lr=0.1)
    >>> x = np.linspace(0, 1, 20)[:, None]
    >>> program = Program(model, nn.MSELoss(), sgd, x, 3 * x, epochs=400)
    >>> trainer = program.copy().train()
    >>> trainer.evaluate(x, 3 * x)["loss"] < 0.01
    True
    """

    model: Layer
    loss: Loss
    optimizer: Optimizer
    X: Any
    y: Any
    epochs: int
    batch_size: int = 32
    shuffle: bool = True
    validation: tuple[Any, ...] | float | None = None
    rng: Seed = 0
    class_weight: Any = None
    sample_weight: Any = None

    def copy(self) -> Self:
        """Copy model, loss, optimizer and generator, so that training changes none of these."""
        model, loss, optimizer, rng = copy.deepcopy(
            (self.model, self.loss, self.optimizer, self.rng)
        )
        return dataclasses.replace(self, model=model, loss=loss, optimizer=optimizer, rng=rng)

    def trainer(self, record: bool = True) -> Trainer:
        """Make the trainer, without metrics but the usual ones."""
        return Trainer(self.model, self.loss, self.optimizer, rng=self.rng, record=record)

    def train(self, trainer: Trainer | None = None, **options: Any) -> Trainer:
        """Train as told; ``options`` are further ones of ``Trainer.fit``."""
        trainer = trainer or self.trainer()
        trainer.fit(
            self.X,
            self.y,
            self.epochs,
            self.batch_size,
            self.validation,
            shuffle=self.shuffle,
            class_weight=self.class_weight,
            sample_weight=self.sample_weight,
            **{"progress": False} | options,
        )
        return trainer
