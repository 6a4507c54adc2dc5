"""Training, evaluation and prediction."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np

from minidl.nn import Layer, Loss
from minidl.nn.checks import check_count
from minidl.nn.hooks import evaluating
from minidl.nn.suspicion import warn_of_suspicious
from minidl.optim import EMA, Optimizer
from minidl.optim.schedules import ReduceOnPlateau
from minidl.seeds import as_generator
from minidl.training.callbacks import Callback, Callbacks
from minidl.training.data import (
    Batch,
    Data,
    Source,
    as_validation,
    check_batch_size,
    check_parts,
    rows_that_count,
    split,
)
from minidl.training.epoch import Epoch, Plan, RecordedSteps
from minidl.training.history import History
from minidl.training.inputs import Rows, as_inputs
from minidl.training.interrupt import InterruptBetweenSteps
from minidl.training.metrics import Metric, Tally, by_name, check_metrics, try_out
from minidl.training.prediction import Predictor
from minidl.training.progress import Progress, choose
from minidl.training.weights import ClassWeight, class_weighted, row_weights
from minidl.typing import Array, Seed

EVALUATION_BATCH = 1024
STATISTICS_ROWS = 8192  # from which the averages of an EMA take the statistics of BatchNorm


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
        averages; ``with ema.average():`` evaluates and predicts with them afterwards. After every
        epoch ``BatchNorm`` takes the statistics of the averages from the training data, some
        thousand rows of them.
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
        self.metrics = by_name(metrics, loss)
        self.rng = as_generator(rng)
        self.dtype = optimizer.flat.dtype
        self.history = History()
        self._stopping: str | None = None  # why, once somebody said so
        self._inputs = 1  # of the model: what a step takes first
        self._parts = self._steps_depend_on()  # those that were recorded
        self._recorded = RecordedSteps(self) if record else None
        self._predictor = Predictor(model, self.dtype, record)

    def fit(
        self,
        X: Any,
        y: Any,
        epochs: int,
        batch_size: int = 32,
        validation: tuple[Any, ...] | float | None = None,
        progress: str | bool | Progress = "auto",
        callbacks: Iterable[Callback | ReduceOnPlateau] = (),
        sample_weight: Any = None,
        class_weight: ClassWeight | None = None,
        accumulate: int = 1,
        shuffle: bool = True,
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
            Features and targets. A tuple of several inputs, with which the model is called as
            ``model(*inputs)``: such as padded sequences and their lengths, ``(X, lengths)``. A
            list of sequences of unequal length is padded. Padded steps count nothing, in loss and
            metrics, and what stands in them is not looked at.
        epochs
            Passes over the data, ≥ 1.
        batch_size
            Rows of a step, ≥ 1; the last step of an epoch may have fewer.
        validation
            ``(X, y)`` or ``(X, y, weight)`` to evaluate on after every epoch; or a share of the
            rows, such as 0.2, that is held out: random ones, but the same at every ``fit`` of as
            many rows; or None.
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
            class counts as much as any other, with the weights of its rows: the row's weight is
            multiplied by that of its label. With ``BCEWithLogitsLoss`` of one logit the labels are
            0 and 1. Validation has the weights that it is given.
        accumulate
            Batches of a step, ≥ 1: the gradients of so many batches are averaged, each by what
            its rows count (added up, for a loss with the reduction "sum"), before the optimizer
            makes its step, which is that of a batch so many times as large, in the memory of one.
            But ``BatchNorm`` sees one batch at a time.
        shuffle
            Whether every epoch takes the rows in another order, drawn from the trainer's ``rng``.

        Shapes
        ------
        X (samples, ..., features), or (samples, ...) integers for a model that begins with an
        ``Embedding``; lengths (samples), integers from 1 to time; y (samples) for labels,
        (samples, time) for those of sequences, else as the model's output; sample_weight (samples),
        or (samples, time) where every step has a target.

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

        Warns
        -----
        TrainingWarning
            Where model and loss can be trained, but hardly as they are meant: Softmax before a
            loss that has it, logits for a loss that takes logarithms of probabilities, two
            ``Linear`` in a row, a model that is in evaluation as a whole, parameters that are
            neither in the optimizer nor frozen. Once for each model.
        """
        check_parts(self.model, self.loss, self.optimizer, self.ema)  # one may have been replaced
        epochs = check_count("fit", "epochs", epochs)
        batch_size = check_count("fit", "batch_size", batch_size)
        accumulate = check_count("fit", "accumulate", accumulate)
        data, held_out = self._prepare_training(
            self._source(X, y), sample_weight, class_weight, validation
        )
        check_batch_size(self.model, data.inputs, batch_size)
        names = ["loss", *self.metrics]
        names += [f"val_{name}" for name in names if held_out is not None]
        calls, shown = Callbacks(callbacks, self, names), choose(progress)
        plan = Plan(data, batch_size, accumulate, bool(shuffle), calls, shown)
        self._inputs = len(data.inputs)
        if self.ema is not None:
            self.ema.follow_state(self.model)
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
            if number > 1 and not self.model.training:  # a callback may have left it so
                warn_of_suspicious(self.model, self.loss, None, self.optimizer.flat.parameters)
            started = time.perf_counter()
            values = Epoch(self, plan, number).run()
            seconds = time.perf_counter() - started
            values["loss"] += self._penalty()
            self._take_statistics(plan.data)
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
        """The model's output for every row, in evaluation, whatever modes its layers are in.

        Any number of threads may call it. The modes of the layers and their state stay as they are.

        Parameters
        ----------
        X
            As for ``fit``; NaN, infinity and numbers beyond the model's dtype are refused.
        batch_size
            Rows at a time: bounds the memory, changes no result beyond rounding.

        Returns
        -------
        ndarray
            (samples, ...): for a classifier the logits; ``predict(X).argmax(axis=1)`` are
            the labels. For a list of sequences that were padded, (samples, longest, ...), of which
            what lies beyond the length of a sequence means nothing.

        Raises
        ------
        TypeError, ValueError
            For data that the model cannot take, naming the first such row.
        """
        predictor = self._predictor_of_model()
        if (quick := predictor.quick(X, batch_size)) is not None:
            return quick
        check_count("predict", "batch_size", batch_size)
        inputs = as_inputs("X", X, self.model, self.dtype)
        stretches = (slice(i, i + batch_size) for i in range(0, len(inputs), batch_size))
        outputs = [predictor(*inputs.cast(rows)) for rows in stretches]
        return np.concatenate(outputs)  # a copy: a layer may return its very input

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
        with np.errstate(all="ignore"):
            return self._evaluate(self._batches(X, y, sample_weight, batch_size), batch_size)

    def lasting(self) -> list[Array]:
        """What a trained model is: parameters, the layers' state, and averages of an ``ema``."""
        averages = [*self.ema.averages, *self.ema.state_averages] if self.ema is not None else []
        arrays = [parameter.data for parameter in self.model.parameters()]
        return [*arrays, *self.model.state().values(), *averages]

    def __repr__(self) -> str:
        return f"Trainer({type(self.model).__name__}, {self.loss!r}, {self.optimizer!r})"

    # --- steps: an epoch makes them, recorded or not ---

    def _gradient(
        self, *batch: Array, check: bool = True, fresh: bool = True
    ) -> tuple[Array, Array]:
        """The loss and the prediction; their gradients are added to what there is, unless fresh.

        Raises FloatingPointError with ``check``, if the loss is not finite.
        """
        prediction = self.model(*batch[: self._inputs])
        value = self.loss(prediction, *batch[self._inputs :])
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
        averaged = None if self.ema is None else len(self.ema.state)
        return self.model, self.loss, self.optimizer, self.ema, averaged, self._inputs

    def _record_what_is_there(self) -> None:
        """Drop recordings of a model, a loss or an optimizer that was replaced since."""
        if self._recorded is not None and self._parts != self._steps_depend_on():
            self._parts = self._steps_depend_on()
            self._recorded.forget()

    def _predictor_of_model(self) -> Predictor:
        """What predicts with the model, which may have been replaced since."""
        if self._predictor.model is not self.model:
            self._predictor = Predictor(self.model, self.dtype, self._predictor.record)
        return self._predictor

    def _penalty(self) -> float:
        return self.optimizer.penalty() if self.report_penalty else 0.0

    def _take_statistics(self, data: Data) -> None:
        """Have the averages take statistics of their own, from some rows of the training data."""
        if self.ema is None or not self.ema.has_statistics:
            return
        rows = np.random.default_rng(0).permutation(len(data))[:STATISTICS_ROWS]
        parts = np.array_split(rows, -(-len(rows) // EVALUATION_BATCH))
        with InterruptBetweenSteps(), np.errstate(all="ignore"):
            self.ema.take_statistics(data.take(part).inputs for part in parts)

    def _validate(self, held_out: Data) -> dict[str, float]:
        """Loss and metrics, with the averages if there are any."""
        # Ctrl-C waits for a batch to end: within `swap` it would leave the weights of both mixed.
        with (
            InterruptBetweenSteps() as interrupt,
            self.ema.average() if self.ema is not None else nullcontext(),
        ):
            batches = held_out.batches(EVALUATION_BATCH)
            return self._evaluate(batches, EVALUATION_BATCH, interrupt.check)

    def _batches(self, X: Any, y: Any, weight: Any, batch_size: int) -> Iterator[Batch]:
        """Batches to evaluate, each cast and checked when its turn comes: the memory is that of
        one, beside labels and weights.
        """
        source, loss = self._source(X, y), self.loss
        output = source.first_output()
        classes = output.shape[-1]
        check_metrics(self.metrics, source.standing_for(output), source.targets)
        targets = source.cast_targets(classes) if loss.takes_labels else source.targets
        weights = row_weights(source, weight, targets)
        counting = rows_that_count("", loss, targets, weights)
        count = len(source) if isinstance(counting, slice) else len(counting)
        for begin in range(0, count, batch_size):
            rows: Rows = slice(begin, min(begin + batch_size, count))
            rows = rows if isinstance(counting, slice) else counting[rows]
            some = () if weights is None else (weights[rows],)
            yield source.inputs.cast(rows), (source.cast_targets(classes, rows), *some)

    def _evaluate(
        self,
        batches: Iterable[Batch],
        batch_size: int,
        between: Callable[[], object] = lambda: None,
    ) -> dict[str, float]:
        tally, predictor = Tally(self.loss, self.metrics), self._predictor_of_model()
        with evaluating():
            for inputs, (y, *weight) in batches:
                prediction = predictor(*inputs)
                value = float(self.loss(prediction, y, *weight))
                counts = self.loss.row_weights(y, *weight)
                tally.add([value], batch_size, len(y), counts)
                tally.show(prediction, y, counts)
                between()
        values = tally.read()
        values["loss"] += self._penalty()
        return values

    # --- checks, all before the first step ---

    def _source(self, X: Any, y: Any, what: str = "") -> Source:
        return Source(what, X, y, self.model, self.loss, self.dtype)

    def _prepare(self, source: Source, weight: Any) -> tuple[Data, Array]:
        """All rows as steps take them, all checked; and the output for the first."""
        with evaluating(), np.errstate(all="ignore"):
            output = source.first_output()
            inputs, targets = source.inputs.cast(), source.cast_targets(output.shape[-1])
        return Data(inputs, targets, row_weights(source, weight, targets)), output

    def _prepare_training(
        self, source: Source, weight: Any, class_weight: ClassWeight | None, validation: Any
    ) -> tuple[Data, Data | None]:
        """What to train on, and what to validate on: given, or some of the rows."""
        data, output = self._prepare(source, weight)
        warn_of_suspicious(self.model, self.loss, output, self.optimizer.flat.parameters)
        others = None
        if isinstance(validation, (float, np.floating)):
            rows, held_out = split(len(data), float(validation))
            data, others = data.take(rows), data.take(held_out)
        if class_weight is not None:
            data = replace(data, weights=class_weighted(data, class_weight, self.loss, output))
        data = self._tried("", data, output)
        if validation is not None and others is None:
            X, y, weight = as_validation(validation)
            others, output = self._prepare(self._source(X, y, "validation "), weight)
        return data, others and self._tried("validation ", others, output)

    def _tried(self, what: str, data: Data, output: Array) -> Data:
        """The rows that count, after trying loss and metrics on as many."""
        data, loss = data.counting(what, self.loss), self.loss
        with np.errstate(all="ignore"), evaluating():
            loss(output, *(array[:1] for array in data.targets_and_weights))
            counts = loss.row_weights(*data.targets_and_weights)
            predictions = np.broadcast_to(output[:1], (len(data), *output.shape[1:]))
            try_out(self.metrics, predictions, data.targets, counts)
        return data
