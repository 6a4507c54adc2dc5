"""Training, evaluation and prediction."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from minidl import _kernels as kernels
from minidl import recording
from minidl._kernels.reference import Array
from minidl.nn import Layer, Loss
from minidl.nn.init import Seed, as_generator
from minidl.optim import Optimizer
from minidl.recording import RecordingError
from minidl.recording.epoch import Kept, run_epoch
from minidl.training.batching import batches, check_count, check_lengths, pieces
from minidl.training.diagnosis import first_not_finite
from minidl.training.history import History
from minidl.training.metrics import Metric, Tally, by_name, measure
from minidl.training.preparing import (
    as_features,
    as_pair,
    as_targets,
    check_agreement,
    check_batch_size,
    check_finite,
    check_labels,
    check_parts,
)
from minidl.training.progress import Progress, choose
from minidl.training.safety import InterruptBetweenSteps, Snapshot, mode

EVALUATION_BATCH = 1024


@dataclass
class _Epoch:
    """What an epoch runs over, and how many of its steps are done."""

    features: Array
    targets: Array
    batch_size: int
    order: Array
    done: int = 0

    def batch(self) -> tuple[Array, Array]:
        """The batch of the step to come."""
        rows = self.order[self.done * self.batch_size : (self.done + 1) * self.batch_size]
        return self.features[rows], self.targets[rows]


class Trainer:
    """Fits a model to data, one optimizer step a batch.

    Features of any real dtype, and lists, are cast to the dtype of the model; so are targets,
    but for the labels of a classification loss, which must be integers.

    Parameters
    ----------
    model
        Any layer.
    loss
        ``loss(model(x), y)`` is what training makes small.
    optimizer
        Of the model's parameters, built last.
    metrics
        Names or callables ``(prediction, target) -> float`` to measure beside the loss; by
        default accuracy for a loss that takes labels, and nothing otherwise.
    rng
        Generator or seed of the order of the rows. It goes on from epoch to epoch and from
        fit to fit: ``fit`` for 3 epochs and again for 2 is ``fit`` for 5.
    record
        Whether steps are recorded (see ``minidl.record``), which changes the speed and nothing
        else. Where a model cannot be recorded, a warning says why, once, and steps run eagerly.

    Attributes
    ----------
    history
        What the latest ``fit`` returned or, if Ctrl-C or an error ended it, would have: the
        epochs that were completed.

    Raises
    ------
    TypeError
        For a model, a loss or an optimizer that is none, or is the class of one.
    ValueError
        For an optimizer of other parameters, or a metric that is unknown or given twice.

    Examples
    --------
    >>> from minidl import datasets, nn, optim
    >>> from minidl.training import Trainer
    >>> x_train, y_train, x_test, y_test = datasets.digits()
    >>> model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10), rng=0)
    >>> trainer = Trainer(
    ...     model, nn.CrossEntropyLoss(), optim.Adam(model.parameters(), lr=3e-3), rng=0
    ... )
    >>> history = trainer.fit(x_train, y_train, epochs=10, progress=False)
    >>> trainer.evaluate(x_test, y_test)["accuracy"] > 0.9
    True
    """

    def __init__(
        self,
        model: Layer,
        loss: Loss,
        optimizer: Optimizer,
        metrics: Iterable[str | Metric] | None = None,
        rng: Seed = None,
        record: bool = True,
    ) -> None:
        check_parts(model, loss, optimizer)
        known = {id(parameter) for parameter in model.parameters()}
        if any(id(parameter) not in known for parameter in optimizer.flat.parameters):
            raise ValueError(
                "Trainer: the optimizer holds parameters that are not the model's; "
                "build it from model.parameters()"
            )
        if metrics is None:
            metrics = ("accuracy",) if loss.takes_labels else ()
        self.model = model
        self.loss = loss
        self.optimizer = optimizer
        self.metrics = by_name(metrics)
        self.rng = as_generator(rng)
        self.dtype = optimizer.flat.dtype
        self.history = History()
        self._parts = model, loss, optimizer  # those that were recorded
        self._recorded = recording.record(partial(self._step, check=False)) if record else None

    def fit(
        self,
        X: Any,
        y: Any,
        epochs: int,
        batch_size: int = 32,
        validation: tuple[Any, Any] | None = None,
        progress: str | bool | Progress = "auto",
        after_epoch: Callable[[History], object] | None = None,
    ) -> History:
        """Train; called again, go on from there.

        Ctrl-C is heeded between two steps, never within one. A step that raises, whatever it
        raises, leaves parameters and state as they were before it. Loss and metrics are tried
        on data of these shapes before the first step.

        Parameters
        ----------
        X, y
            Features and targets.
        epochs
            Passes over the data, ≥ 1.
        batch_size
            Rows of a step, ≥ 1; the last step of an epoch may have fewer.
        validation
            ``(X, y)`` to evaluate on after every epoch, or None.
        progress
            ``"auto"`` or True: a bar at a terminal (with tqdm installed), else a line for
            every epoch; ``"bar"``, ``"lines"``; ``"none"`` or False; or a ``Progress``.
        after_epoch
            Called with the history so far.

        Shapes
        ------
        X (samples, ..., features), or (samples, ...) integers for a model that begins with an
        ``Embedding``; y (samples) for labels, (samples, time) for those of sequences, else as the
        model's output.

        Returns
        -------
        History
            ``loss`` and the metrics of every epoch, averaged over its steps as they were
            taken, and with ``validation`` also ``val_loss`` and so on at its end.

        Raises
        ------
        ValueError
            For data that cannot be trained on, before any step, naming the first such row.
        FloatingPointError
            If the loss or the gradient is not finite, naming the step and the first layer
            concerned.
        """
        epochs, batch_size = check_count("epochs", epochs), check_count("batch_size", batch_size)
        features, targets = self._prepare(X, y)
        held_out = None
        if validation is not None:
            held_out = self._prepare(*as_pair(validation), "validation ")
        check_batch_size(self.model, features, batch_size)
        shown = choose(progress)
        self.history = history = History()
        with mode(self.model, training=True):
            try:
                shown.begin(epochs, len(features))
                for epoch in range(1, epochs + 1):
                    started = time.perf_counter()
                    values = self._train_epoch(features, targets, batch_size, shown)
                    seconds = time.perf_counter() - started
                    if held_out is not None:
                        scores = self._evaluate(*held_out, EVALUATION_BATCH)
                        values |= {f"val_{name}": value for name, value in scores.items()}
                    history.append(values, seconds)
                    shown.epoch(epoch, values, seconds)
                    if after_epoch is not None:
                        after_epoch(history)
            finally:
                shown.close()
        return history

    def predict(self, X: Any, batch_size: int = EVALUATION_BATCH) -> Array:
        """The model's output for every row, in evaluation mode.

        Parameters
        ----------
        X
            Features, (samples, ..., features).
        batch_size
            Rows at a time: bounds the memory, changes no result beyond rounding.

        Returns
        -------
        ndarray
            (samples, ...): for a classifier the logits; ``predict(X).argmax(axis=1)`` are
            the labels.
        """
        check_count("batch_size", batch_size)
        features = as_features("X", X, self.model, self.dtype)
        if features.size == 0:
            raise ValueError(f"X is empty: shape {features.shape}")
        with mode(self.model, training=False):
            pieces = (features[i : i + batch_size] for i in range(0, len(features), batch_size))
            return np.concatenate([self.model(piece) for piece in pieces])

    def evaluate(self, X: Any, y: Any, batch_size: int = EVALUATION_BATCH) -> dict[str, float]:
        """Loss and metrics of the model in evaluation mode.

        Parameters
        ----------
        X, y
            Features and targets, as for ``fit``.
        batch_size
            Rows at a time.

        Returns
        -------
        dict
            ``{"loss": ..., "accuracy": ...}``
        """
        check_count("batch_size", batch_size)
        return self._evaluate(*self._prepare(X, y), batch_size)

    # --- one epoch ---

    def _train_epoch(
        self, features: Array, targets: Array, batch_size: int, shown: Progress
    ) -> dict[str, float]:
        epoch = _Epoch(features, targets, batch_size, self.rng.permutation(len(features)))
        tally = Tally(self.loss, self.metrics, len(features))
        snapshot = Snapshot([*self.model.state().values(), self.optimizer.states])
        # NumPy's warnings would say less than the checks of the step, and twice.
        with np.errstate(all="ignore"), InterruptBetweenSteps() as interrupt:

            def count(values: list[float], prediction: Array | None, target: Array) -> None:
                epoch.done += len(values)
                tally.extend(values, batch_size, prediction, target)
                shown.step(len(target), tally.read)
                interrupt.check()

            try:
                self._run_recorded(epoch, count)
                for x, y in pieces(features, targets, batch_size, epoch.order, epoch.done):
                    with snapshot:
                        value, prediction = self._step(x, y)
                    count([float(value)], prediction, y)
            except FloatingPointError:
                with snapshot:
                    why = self._explain(*epoch.batch())
                    snapshot.restore()
                raise FloatingPointError(why) from None
        return tally.read()

    def _run_recorded(self, epoch: _Epoch, count: Callable[..., None]) -> None:
        """Run the epoch as a recorded step, as far as that can be."""
        if self._recorded is None or kernels.isa == "reference":
            return
        parts = self.model, self.loss, self.optimizer
        if any(old is not new for old, new in zip(self._parts, parts, strict=True)):
            self._parts = parts
            self._recorded.forget()

        def progress(kept: Kept, first: int) -> None:
            losses, *rest = (array for array in kept.arrays)
            rows = slice(first * kept.batch_size, kept.done * kept.batch_size)
            prediction = rest[0][rows] if rest else None
            target = epoch.targets[epoch.order[rows]]
            count(losses[first : kept.done].tolist(), prediction, target)

        data = epoch.features, epoch.targets, epoch.batch_size, epoch.order
        try:
            run_epoch(self._recorded, *data, everything=bool(self.metrics), progress=progress)
        except RecordingError as error:
            self._recorded = None
            warnings.warn(
                f"training runs eagerly, which is slower: {error}", RuntimeWarning, stacklevel=4
            )

    def _step(self, x: Array, y: Array, check: bool = True) -> tuple[Array, Array]:
        """One step of training: the loss before it, and the prediction.

        Raises FloatingPointError before a parameter changes, if the norm of the gradient is not
        finite, or with ``check`` the loss.
        """
        prediction = self.model(x)
        value = self.loss(prediction, y)
        if check and not math.isfinite(value):
            raise FloatingPointError(f"the loss is {value}")
        self.optimizer.zero_grad()
        self.model.backward(self.loss.backward())
        self.optimizer.step()
        return value, prediction

    def _explain(self, x: Array, y: Array) -> str:
        return (
            f"training step {self.optimizer.steps + 1}: loss or gradient is not finite; "
            f"{first_not_finite(self.model, self.loss, x, y)}. Parameters and state are as before "
            "this step. A lower learning rate, max_norm or another initialiser may help."
        )

    def _evaluate(self, features: Array, targets: Array, batch_size: int) -> dict[str, float]:
        tally = Tally(self.loss, self.metrics, len(features))
        with mode(self.model, training=False):
            for x, y in batches(features, targets, batch_size, shuffle=False):
                prediction = self.model(x)
                tally.add(self.loss(prediction, y), prediction, y)
        return tally.read()

    # --- checks, all before the first step ---

    def _prepare(self, X: Any, y: Any, what: str = "") -> tuple[Array, Array]:
        features = as_features(f"{what}X", X, self.model, self.dtype)
        check_lengths(features, np.asarray(y), what)
        check_finite(f"{what}X", features)
        targets = as_targets(f"{what}y", y, self.loss, self.dtype)
        with mode(self.model, training=False), np.errstate(all="ignore"):
            # One row tells the number of classes, and whether model, loss and data fit at all.
            output = self.model(features[:1])
            if self.loss.takes_labels:
                targets = check_labels(f"{what}y", targets, output.shape[-1])
            # Standing for all rows, it tells the same of the metrics.
            predictions = np.broadcast_to(output[:1], (len(features), *output.shape[1:]))
            check_agreement(what, self.loss, features, targets, predictions)
            self.loss(output, targets[:1])
            if self.metrics:
                measure(self.metrics, predictions.copy(), targets.copy())
        return features, targets
