"""Training, evaluation and prediction."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any

import numpy as np

from minidl._kernels.reference import Array
from minidl.nn import Layer, Loss
from minidl.nn.checks import check_count
from minidl.nn.init import Seed, as_generator
from minidl.nn.layer import evaluating
from minidl.optim import EMA, Optimizer
from minidl.optim.schedules import ReduceOnPlateau
from minidl.training.batching import check_lengths
from minidl.training.callbacks import Callback, Callbacks
from minidl.training.epoch import Epoch, Plan, RecordedSteps
from minidl.training.history import History
from minidl.training.metrics import Metric, Tally, by_name, try_out
from minidl.training.preparing import (
    Data,
    as_features,
    as_targets,
    as_validation,
    check_agreement,
    check_batch_size,
    check_finite,
    check_labels,
    check_parts,
    first_output,
)
from minidl.training.progress import Progress, choose
from minidl.training.safety import InterruptBetweenSteps
from minidl.training.weighting import ClassWeight, row_weights

EVALUATION_BATCH = 1024


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
        What to measure beside the loss: ``"accuracy"``, ``"top_5"`` (any k), ``"mse"``,
        ``"mae"``, ``"r2"``, or functions ``(prediction, target) -> float`` of all rows at once.
        Rows count alike in them, whatever their weights, but those of weight 0 not at all, be they
        steps of sequences, such as padding: what is left of these comes as rows. By default
        accuracy for a loss that takes labels, and nothing otherwise.
    rng
        Generator or seed of the order of the rows. It goes on from epoch to epoch and from
        fit to fit: ``fit`` for 3 epochs and again for 2 is ``fit`` for 5.
    record
        Whether steps are recorded (see ``minidl.record``), which changes the speed and nothing
        else. Where a model cannot be recorded, a warning says why, once, and steps run eagerly.
    ema
        An average of the weights that follows every step. Validation in ``fit`` is of the
        averages; ``with ema.average():`` evaluates and predicts with them afterwards.
    report_penalty
        Whether the losses of epochs and of ``evaluate`` include ``optimizer.penalty()``, the L1
        and L2 penalties of the weights at that time: for an epoch, those at its end. What
        ``on_batch_end`` hears and a bar shows meanwhile never does.

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
        For an optimizer or an average of other parameters, or a metric that is unknown or given
        twice.

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
        ema: EMA | None = None,
        report_penalty: bool = False,
    ) -> None:
        check_parts(model, loss, optimizer, ema)
        if metrics is None:
            metrics = ("accuracy",) if loss.takes_labels else ()
        self.model = model
        self.loss = loss
        self.optimizer = optimizer
        self.ema = ema
        self.report_penalty = report_penalty
        self.metrics = by_name(metrics)
        self.rng = as_generator(rng)
        self.dtype = optimizer.flat.dtype
        self.history = History()
        self._stopping: str | None = None  # why, once somebody said so
        self._parts = self._steps_depend_on()  # those that were recorded
        self._recorded = RecordedSteps(self) if record else None

    def fit(
        self,
        X: Any,
        y: Any,
        epochs: int,
        batch_size: int = 32,
        validation: tuple[Any, ...] | None = None,
        progress: str | bool | Progress = "auto",
        callbacks: Iterable[Callback | ReduceOnPlateau] = (),
        sample_weight: Any = None,
        class_weight: ClassWeight | None = None,
        accumulate: int = 1,
    ) -> History:
        """Train; called again, go on from there.

        The model trains in the modes that its layers are in: those in evaluation, by ``eval()``,
        stay so, such as the body of a model whose last layers are trained anew.

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
            ``(X, y)`` or ``(X, y, weight)`` to evaluate on after every epoch, or None.
        progress
            ``"auto"`` or True: a bar at a terminal or in a notebook (with tqdm installed, and
            ipywidgets for the latter), else a line for every epoch; ``"bar"``, ``"lines"``;
            ``"none"`` or False; or a ``Progress``.
        callbacks
            Each a ``Callback``, such as ``EarlyStopping``, or a ``ReduceOnPlateau``.
        sample_weight
            A weight ≥ 0 for each row, see ``Loss``; a row of weight 0 is left out.
        class_weight
            ``{label: weight}``, 1 for labels that are missing, or ``"balanced"``, where each
            class counts as much as any other: the row's weight is multiplied by that of its
            label. Validation has the weights that it is given.
        accumulate
            Batches of a step, ≥ 1: the gradients of so many batches are averaged, each by what
            its rows count (added up, for a loss with the reduction "sum"), before the optimizer
            makes its step, which is that of a batch so many times as large, in the memory of one.
            But ``BatchNorm`` sees one batch at a time.

        Shapes
        ------
        X (samples, ..., features), or (samples, ...) integers for a model that begins with an
        ``Embedding``; y (samples) for labels, (samples, time) for those of sequences, else as the
        model's output; sample_weight (samples), or of the shape of labels.

        Returns
        -------
        History
            ``loss`` and the metrics of every epoch, from the predictions its steps were made
            with (a loss as its reduction says), and ``val_loss`` and so on of ``validation``.

        Raises
        ------
        ValueError
            For data that cannot be trained on, before any step, naming the first such row.
        FloatingPointError
            If the loss or the gradient is not finite, naming the step and the first layer
            concerned.
        """
        epochs = check_count("fit", "epochs", epochs)
        batch_size = check_count("fit", "batch_size", batch_size)
        accumulate = check_count("fit", "accumulate", accumulate)
        data = self._prepare(X, y, sample_weight, class_weight)
        held_out = None
        if validation is not None:
            held_out = self._prepare(*as_validation(validation), None, "validation ")
        check_batch_size(self.model, data.features, batch_size)
        names = ["loss", *self.metrics]
        names += [f"val_{name}" for name in names if held_out is not None]
        calls, shown = Callbacks(callbacks, self, names), choose(progress)
        plan = Plan(data, batch_size, accumulate, calls, shown)
        self.history, self._stopping = History(), None
        try:
            self._train(plan, epochs, held_out)
        finally:
            shown.close()
        return self.history

    def _train(self, plan: Plan, epochs: int, held_out: Data | None) -> None:
        """All epochs, and what comes between them."""
        tell, shown, number = plan.callbacks.tell, plan.shown, 0
        values: dict[str, float] = {}
        shown.begin(epochs, len(plan.data))
        tell("on_train_begin", number, values)
        while number < epochs and self._stopping is None:
            number += 1
            tell("on_epoch_begin", number, values)
            started = time.perf_counter()
            values = Epoch(self, plan, number).run()
            seconds = time.perf_counter() - started
            values["loss"] += self._penalty()
            if held_out is not None:
                values |= {f"val_{k}": value for k, value in self._validate(held_out).items()}
            self.history.append(values, seconds)
            shown.epoch(number, values, seconds)
            tell("on_epoch_end", number, values)
        tell("on_train_end", number, values)
        if self._stopping and number < epochs:
            shown.stopped(number, self._stopping)

    def stop(self, why: str = "") -> None:
        """End ``fit`` soon: after the epoch under way, or the step if a callback hears of steps.

        The epoch counts then as one that is over, with the steps that were made. ``why`` is shown.
        """
        self._stopping = self._stopping or why

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
        check_count("predict", "batch_size", batch_size)
        features = as_features("X", X, self.model, self.dtype)
        if features.size == 0:
            raise ValueError(f"X is empty: shape {features.shape}")
        with evaluating():
            pieces = (features[i : i + batch_size] for i in range(0, len(features), batch_size))
            return np.concatenate([self.model(piece) for piece in pieces])

    def evaluate(
        self, X: Any, y: Any, batch_size: int = EVALUATION_BATCH, sample_weight: Any = None
    ) -> dict[str, float]:
        """Loss and metrics of the model in evaluation mode.

        Parameters
        ----------
        X, y
            Features and targets, as for ``fit``.
        batch_size
            Rows at a time.
        sample_weight
            A weight for each row in the loss, as for ``fit``.

        Returns
        -------
        dict
            ``{"loss": ..., "accuracy": ...}``
        """
        check_count("evaluate", "batch_size", batch_size)
        return self._evaluate(self._prepare(X, y, sample_weight), batch_size)

    def lasting(self) -> list[Array]:
        """What a trained model is: parameters, the layers' state, and averages of an ``ema``."""
        averages = self.ema.averages if self.ema is not None else []
        arrays = [parameter.data for parameter in self.model.parameters()]
        return [*arrays, *self.model.state().values(), *averages]

    def __repr__(self) -> str:
        return f"Trainer({type(self.model).__name__}, {self.loss!r}, {self.optimizer!r})"

    # --- steps: an epoch makes them, recorded or not ---

    def _gradient(
        self, x: Array, y: Array, *weight: Array, check: bool = True, fresh: bool = True
    ) -> tuple[Array, Array]:
        """The loss and the prediction; their gradients are added to what there is, unless fresh.

        Raises FloatingPointError with ``check``, if the loss is not finite.
        """
        prediction = self.model(x)
        value = self.loss(prediction, y, *weight)
        if check and not math.isfinite(value):
            raise FloatingPointError(f"the loss is {value}")
        if fresh:
            self.optimizer.zero_grad()
        self.model.backward(self.loss.backward())
        return value, prediction

    def _update(self) -> None:
        """Change the parameters by their gradients.

        Raises FloatingPointError before a parameter changes, if the norm is not finite.
        """
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update()

    def _step(self, *batch: Array, check: bool = True) -> tuple[Array, Array]:
        """One step of training: the loss before it, and the prediction."""
        result = self._gradient(*batch, check=check)
        self._update()
        return result

    def _steps_depend_on(self) -> tuple[Any, ...]:
        return self.model, self.loss, self.optimizer, self.ema

    def _record_what_is_there(self) -> None:
        """Drop recordings of a model, a loss or an optimizer that was replaced since."""
        if self._recorded is not None and self._parts != self._steps_depend_on():
            self._parts = self._steps_depend_on()
            self._recorded.forget()

    def _penalty(self) -> float:
        return self.optimizer.penalty() if self.report_penalty else 0.0

    def _validate(self, held_out: Data) -> dict[str, float]:
        """Loss and metrics, with the averages if there are any."""
        # Ctrl-C waits for a batch to end: within `swap` it would leave the weights of both mixed.
        with (
            InterruptBetweenSteps() as interrupt,
            self.ema.average() if self.ema is not None else nullcontext(),
        ):
            return self._evaluate(held_out, EVALUATION_BATCH, interrupt.check)

    def _evaluate(
        self, data: Data, batch_size: int, between: Callable[[], object] = lambda: None
    ) -> dict[str, float]:
        tally = Tally(self.loss, self.metrics)
        with evaluating():
            for x, y, *weight in data.batches(batch_size):
                prediction = self.model(x)
                value = float(self.loss(prediction, y, *weight))
                counts = self.loss.row_weights(y, *weight)
                tally.add([value], batch_size, len(y), counts)
                tally.show(prediction, y, counts)
                between()
        values = tally.read()
        values["loss"] += self._penalty()
        return values

    # --- checks, all before the first step ---

    def _prepare(
        self,
        X: Any,
        y: Any,
        weight: Any = None,
        class_weight: ClassWeight | None = None,
        what: str = "",
    ) -> Data:
        features = as_features(f"{what}X", X, self.model, self.dtype)
        check_lengths(features, np.asarray(y), what)
        check_finite(f"{what}X", features)
        targets = as_targets(f"{what}y", y, self.loss, self.dtype)
        with evaluating(), np.errstate(all="ignore"):
            # One row tells the number of classes, and whether model, loss and data fit at all.
            output = first_output(f"{what}X", features, self.model)
            if self.loss.takes_labels:
                targets = check_labels(f"{what}y", targets, output.shape[-1])
            # Standing for all rows, it tells the same of the metrics.
            predictions = np.broadcast_to(output[:1], (len(features), *output.shape[1:]))
            check_agreement(what, self.loss, features, targets, predictions)
            name = f"{what}sample_weight"
            weights = row_weights(name, weight, class_weight, targets, self.loss, self.dtype)
            data = Data(features, targets, weights).counting(what, self.loss)
            self.loss(output, *(array[:1] for array in data.arrays[1:]))
            counts = self.loss.row_weights(*data.arrays[1:])
            try_out(self.metrics, predictions[: len(data)], data.targets, counts)
        return data
