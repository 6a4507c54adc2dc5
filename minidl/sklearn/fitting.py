"""The training of one network, over all calls of ``fit`` and ``partial_fit``."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minidl import nn, optim
from minidl.optim import EMA, Optimizer, schedules
from minidl.sklearn.network import penalised
from minidl.sklearn.objectives import FunctionLoss
from minidl.sklearn.parameters import TrainingParameters
from minidl.sklearn.progress import Convergence, Curves, shown
from minidl.training import Trainer
from minidl.typing import Array

AUTO_BATCH = 200  # rows, as in scikit-learn


@dataclass(frozen=True)
class Rows:
    """Rows as a network and its loss take them: features, targets, and weights or None.

    ``mean_weight`` is that of the weights as they were given; ``weight`` itself has the mean 1.
    """

    X: Any
    y: Array
    weight: Array | None = None
    mean_weight: float = 1.0

    def weighted(self, weight: Array | None) -> Rows:
        """Return the rows that count, with these weights, or without any if all are equal."""
        if weight is None:
            return self
        counting = np.flatnonzero(weight)
        if not len(counting):
            raise ValueError("all weights of rows are zero: none is left to train on")
        rows = self if len(counting) == len(weight) else self.take(counting)
        weight = weight[counting]
        mean = float(weight.mean(dtype=np.float64))
        equal = (weight == weight[0]).all()
        return replace(rows, weight=None if equal else weight / mean, mean_weight=mean)

    def take(self, places: Array) -> Rows:
        """Return some of the rows."""
        X = tuple(x[places] for x in self.X) if isinstance(self.X, tuple) else self.X[places]
        weight = None if self.weight is None else self.weight[places]
        return replace(self, X=X, y=self.y[places], weight=weight)

    def taken(self, places: Array, weight: Array | None) -> Rows:
        """Return some of the rows that count, given the weights of all."""
        return self.take(places).weighted(None if weight is None else weight[places])

    def as_tuple(self) -> tuple[Any, ...]:
        """Return features, targets and maybe weights, as ``Trainer`` takes validation data."""
        return (self.X, self.y) if self.weight is None else (self.X, self.y, self.weight)

    def __len__(self) -> int:
        return len(self.y)


Score = Callable[[Array, Array, Array | None], float]  # of outputs, targets and weights


class DivergenceError(ValueError, FloatingPointError):
    """A training in which loss or gradient became infinite or NaN."""


class Fitting:
    """A network in training: its loss, its optimizer, and what its epochs have measured.

    Parameters
    ----------
    network
        Before training, in the dtype of the data.
    loss
        Of the network's output and encoded targets.
    rng
        Of the order of the rows.

    Attributes
    ----------
    curves
        Loss and scores of all epochs.
    trainer
        Of the latest epochs; None before the first.
    """

    def __init__(self, network: nn.Layer, loss: nn.Loss, rng: np.random.Generator) -> None:
        self.network, self.loss, self.rng = network, loss, rng
        self.curves = Curves()
        self.trainer: Trainer | None = None

    def run(
        self,
        parameters: TrainingParameters,
        rows: Rows,
        validation: Rows | None,
        score: Score,
        epochs: int,
        final: bool,
    ) -> None:
        """Train for at most so many epochs; compute the score on validation data after each.

        ``final`` says that no more epochs are to follow, so that early stopping goes back to the
        best one also if it has not ended the training.

        Raises
        ------
        DivergenceError
            If loss or gradient is not finite, naming epoch, step and layer.

        Warns
        -----
        UserWarning
            If Ctrl-C has ended the training; the network is as after the latest step.
        """
        batch = batch_size(parameters, rows, self.network)
        trainer = self._prepared(parameters, rows, batch)
        one_step = parameters.solver == "lbfgs"  # makes all its iterations in one
        held_out = None if validation is None else validation.as_tuple()

        def scored() -> float:
            assert validation is not None
            return score(self.outputs(validation.X), validation.y, validation.weight)

        given = scored if validation is not None else None
        convergence = Convergence(parameters, self.curves, given, final)
        try:
            trainer.fit(
                rows.X,
                rows.y,
                epochs=1 if one_step else epochs,
                batch_size=batch,
                validation=held_out,
                progress=shown(parameters.verbose),
                callbacks=[convergence, *parameters.callbacks],
                sample_weight=rows.weight,
                shuffle=parameters.shuffle,
                diagnose=bool(parameters.verbose),
            )
            if one_step:
                convergence.note_iterations(trainer, len(rows))
        except KeyboardInterrupt:
            convergence.restore(trainer)
            if one_step:
                self._measure(convergence, trainer, rows, held_out)
                convergence.note_iterations(trainer, len(rows))
            warnings.warn("Training interrupted by user.", stacklevel=4)
        except FloatingPointError as error:
            message = f"epoch {self.curves.epochs + 1}, {error}"
            raise DivergenceError(message) from None

    def _measure(
        self,
        convergence: Convergence,
        trainer: Trainer,
        rows: Rows,
        held_out: tuple[Any, ...] | None,
    ) -> None:
        """Note the losses where a step of many iterations was interrupted, if they are not yet."""
        if convergence.noted or not trainer.optimizer.steps:
            return
        values = {"loss": trainer.evaluate(rows.X, rows.y, sample_weight=rows.weight)["loss"]}
        if held_out is not None:
            X, y, *weight = held_out
            found = trainer.evaluate(X, y, sample_weight=weight[0] if weight else None)
            values["val_loss"] = found["loss"]
        convergence.note(values, len(rows))

    def start_again(self, loss: nn.Loss) -> None:
        """Forget the optimizer's moments, and what was best; weights and curves stay."""
        self.loss, self.trainer = loss, None
        self.curves.start_again()

    def outputs(self, X: Any) -> Array:
        """Compute the output of the network, with averaged weights if there are any."""
        assert self.trainer is not None
        ema = self.trainer.ema
        with nullcontext() if ema is None else ema.average():
            return self.trainer.predict(X)

    def _prepared(self, parameters: TrainingParameters, rows: Rows, batch: int) -> Trainer:
        """Return the trainer, with the penalty that suits these rows."""
        decay = parameters.alpha / (batch * rows.mean_weight)
        if self.trainer is None:
            steps = parameters.max_iter * math.ceil(len(rows) / batch)
            optimizer = make_optimizer(self.network, parameters, decay, steps)
            self.trainer = Trainer(
                self.network,
                self.loss,
                optimizer,
                metrics=(),
                rng=self.rng,
                record=not isinstance(self.loss, FunctionLoss),
                ema=None if parameters.ema is None else EMA(self.network, parameters.ema),
                report_penalty=True,
            )
        shrunk, _ = penalised(self.network)
        if shrunk:
            self.trainer.optimizer.groups[0]["weight_decay"] = decay
        return self.trainer


def batch_size(parameters: TrainingParameters, rows: Rows, network: nn.Layer) -> int:
    """Return how many rows a step takes.

    ``"auto"`` avoids a last batch of one row where ``BatchNorm`` would refuse it.
    """
    asked = parameters.batch_size
    if parameters.solver == "lbfgs":
        return len(rows)
    if not isinstance(asked, str):
        if asked > len(rows):
            warnings.warn(
                f"batch_size={asked} is more than the {len(rows)} rows: a step takes all of them",
                stacklevel=5,
            )
        return min(asked, len(rows))
    size = min(AUTO_BATCH, len(rows))
    if any(isinstance(layer, nn.BatchNorm) for _, layer in network.layers()):
        while 1 < size < len(rows) and len(rows) % size == 1:
            size += 1
    return size


def make_optimizer(
    network: nn.Layer, parameters: TrainingParameters, decay: float, steps: int
) -> Optimizer:
    """Make the optimizer of ``solver``, with a penalty on the weights and none on biases."""
    shrunk, others = penalised(network)
    groups: list[dict[str, Any]] = [{"params": shrunk, "weight_decay": decay}, {"params": others}]
    groups = [group for group in groups if group["params"]]
    if parameters.solver == "lbfgs":
        return optim.LBFGS(
            groups,
            max_iter=parameters.max_iter,
            max_eval=parameters.max_fun,
            tolerance_grad=parameters.tol,
        )
    rate = make_rate(parameters, steps)
    if parameters.solver == "adam":
        betas = parameters.beta_1, parameters.beta_2
        return optim.Adam(groups, rate, betas, parameters.epsilon, max_norm=parameters.max_norm)
    momentum = parameters.momentum
    nesterov = parameters.nesterovs_momentum and momentum > 0
    return optim.SGD(groups, rate, momentum, nesterov, max_norm=parameters.max_norm)


def make_rate(parameters: TrainingParameters, steps: int) -> optim.optimizer.Rate:
    """Return the learning rate, or its schedule over the steps of a training."""
    rate, kind = parameters.learning_rate_init, parameters.learning_rate
    if callable(kind):
        return kind
    if kind == "cosine":
        return schedules.cosine(rate, steps)
    if kind == "one_cycle":
        return schedules.one_cycle(rate, steps)
    return rate
