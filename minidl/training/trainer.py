"""Training, evaluation and prediction."""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import partial
from typing import Any

from minidl.diagnosis.rules.closing import closing_sentence
from minidl.diagnosis.rules.ending import ending_of
from minidl.files import AnyPath
from minidl.nn import Layer, Loss
from minidl.nn.checks import check_count
from minidl.nn.frames import Columns
from minidl.nn.suspicion import warn_of_suspicious
from minidl.optim import EMA, Optimizer
from minidl.optim.schedules import ReduceOnPlateau
from minidl.seeds import as_generator
from minidl.training.callbacks import Callback, Callbacks
from minidl.training.checks import batch_size_for, check_batch_size, check_parts
from minidl.training.data import Data
from minidl.training.epoch import Epoch
from minidl.training.evaluator import Evaluator
from minidl.training.history import History
from minidl.training.metrics import Metrics, by_name, names_of_losses
from minidl.training.plan import Plan, Stop
from minidl.training.prediction import Predictor
from minidl.training.preparation import for_training
from minidl.training.progress import Progress, choose
from minidl.training.resuming import Resumption, load_training, save_training
from minidl.training.steps import Places, TrainingStep
from minidl.training.tally import tally_of
from minidl.training.transforms import Transform, check_transform
from minidl.training.weights import ClassWeight
from minidl.typing import Seed


class Trainer(Evaluator):
    """Fits a model to data, with one step of the optimizer for every batch.

    Features of any real dtype, and lists, are cast to the dtype of the model. So are targets,
    except the labels of a classification loss, which must be integers.

    Parameters
    ----------
    model
        Any layer.
    loss
        ``loss(model(x), y)`` is minimised.
    optimizer
        The optimizer of the model's parameters, built after everything else that changes the model.
    metrics
        What to measure beside the loss: ``"accuracy"``, ``"f1_macro"``, ``"mae"``, ``"r2"`` and so
        on (``training.metrics`` lists all), or functions ``(prediction, target) -> float`` of all
        rows at once. Metrics ignore weights, except that rows of weight 0 and padded steps are left
        out. If each step of a sequence has a weight, functions get the steps of weight > 0 as rows.
        By default accuracy for a loss that takes labels, and nothing otherwise. For a ``MultiLoss``
        they are a dict by the names of its heads.
    rng
        Generator or seed of the order of the rows, and of a ``transform``. All epochs of all calls
        of ``fit`` draw from it: ``fit`` for 3 epochs and again for 2 is ``fit`` for 5.
    record
        Whether steps are recorded (see ``minidl.record``), which changes the speed and nothing
        else. Where a model cannot be recorded, a warning says why, once, and steps run eagerly.
    ema
        An average of the weights that is updated after every step. ``fit`` validates with the
        averages; ``with ema.average():`` evaluates and predicts with them afterwards. After every
        epoch the statistics that ``BatchNorm`` needs for them are measured on at most 8192 rows of
        the training data.
    report_penalty
        Whether the losses of epochs and of ``evaluate`` include ``optimizer.penalty()``, the L1
        and L2 penalties of the weights at that time: for an epoch, those at its end. The losses of
        single steps, which ``on_batch_end`` gets and a bar shows, never do.
    weighted_metrics
        Metrics as in ``metrics``, in which each row counts by its weight: that of
        ``sample_weight`` (of ``fit``, ``evaluate`` and ``validation``) and, in ``fit``, of
        ``class_weight``. Their names begin with ``weighted_``, such as ``weighted_accuracy``. A
        function must take a third argument, ``sample_weight``: the weights of all rows, or None.

    Attributes
    ----------
    columns
        The names of the columns that ``fit`` was given, a tuple for each input, and None for an
        input that has no names, such as an array. Tables of later calls must have the same columns
        in the same order.
    history
        The epochs that the latest ``fit`` has completed, also if Ctrl-C or an error ended it.
    diagnosis
        The sentence with which the latest ``fit`` ended, or that ``minidl.diagnose`` found; "" if
        there was nothing to say.
    plan
        The arguments of the ``fit`` under way, for callbacks to read; None outside of ``fit``.
    resumption
        Where the training was that ``load`` has read, until ``fit`` goes on from there; or None.

    Raises
    ------
    TypeError
        If model, loss or optimizer is something else, or the class and not an instance; for a
        weighted metric that takes no weights.
    ValueError
        For an optimizer or an average of another model's parameters, and a metric that is unknown
        or given twice.

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
        metrics: Metrics | None = None,
        rng: Seed = None,
        record: bool = True,
        ema: EMA | None = None,
        report_penalty: bool = False,
        weighted_metrics: Metrics = (),
    ) -> None:
        check_parts(model, loss, optimizer, ema)
        self.model = model
        self.loss = loss
        self.optimizer = optimizer
        self.ema = ema
        self.report_penalty = report_penalty
        self.metrics = by_name(metrics, loss, weighted_metrics)
        self.rng = as_generator(rng)
        self.columns: tuple[Columns, ...] = ()
        self.history = History()
        self.diagnosis = ""
        self.plan: Plan | None = None
        self.resumption: Resumption | None = None
        self._step = TrainingStep(model, loss, optimizer, ema, record=record)
        self._predictor = Predictor(model, self.dtype, record)

    def fit(
        self,
        X: Any,
        y: Any,
        epochs: int,
        batch_size: int | str = "auto",
        validation: tuple[Any, ...] | float | None = None,
        progress: str | bool | Progress = "auto",
        callbacks: Iterable[Callback | ReduceOnPlateau] = (),
        sample_weight: Any = None,
        class_weight: ClassWeight | None = None,
        accumulate: int = 1,
        shuffle: bool = True,
        diagnose: bool = True,
        transform: Transform | None = None,
    ) -> History:
        """Train the model; a second call goes on where the first ended.

        After ``load``, training goes on where it was saved, also within an epoch, as if it had
        never ended, until there are ``epochs`` epochs in total. Give the same data and callbacks.

        Layers keep their modes: those that ``eval()`` has put into evaluation stay in it, such as
        the body of a model whose last layers are trained anew.

        Ctrl-C takes effect between two steps, never within one. If a step raises, parameters and
        state are as they were before it. Before the first step, loss and metrics are tried on data
        of these shapes.

        Parameters
        ----------
        X, y
            Features and targets. A tuple is several inputs, with which the model is called as
            ``model(*inputs)``, such as padded sequences and their lengths, ``(X, lengths)``; a dict
            has the names of the branches that take them, or of arguments of ``forward``. A tuple or
            dict within X is what one branch takes, if that is several. A list of sequences of
            unequal length is padded. Loss and metrics leave padded steps out, whatever their
            values. Frames and series of pandas and polars that hold numbers and booleans are taken
            as they are. For a ``MultiLoss``, y is a tuple or dict with the targets of each head.
        epochs
            Passes over the data, ≥ 1.
        batch_size
            Rows of a step, ≥ 1; the last step of an epoch may have fewer. ``"auto"``: 32, or all
            for ``LBFGS``, which makes one step an epoch and ends ``fit`` when it is finished.
        validation
            ``(X, y)`` or ``(X, y, weight)`` to evaluate on after every epoch; or a fraction of the
            rows, such as 0.2, which are then not trained on (they are chosen at random, but are the
            same in every ``fit`` of as many rows); or None.
        progress
            ``"auto"`` or True: a bar at a terminal or in a notebook (with tqdm installed, and
            ipywidgets for the latter), else a line for every epoch; ``"bar"``, ``"lines"``;
            ``"none"`` or False; or a ``Progress``.
        callbacks
            ``Callback`` objects, such as ``EarlyStopping``, or ``ReduceOnPlateau`` objects.
        sample_weight
            A weight ≥ 0 for each row, see ``Loss``; a row of weight 0 is left out. For a
            ``MultiLoss`` one array for all heads, or a tuple with one, or None, for each, or a dict
            that may leave heads out. Every head needs a row that counts, and a batch need not.
        class_weight
            ``{label: weight}``, 1 for labels that are missing, or ``"balanced"``, where each
            class has the same total weight. It multiplies the weight of each row of that label.
            With ``BCEWithLogitsLoss`` of one logit the labels are 0 and 1. It does not apply to
            the rows of ``validation``. For a ``MultiLoss`` it is a dict by the names of heads.
        accumulate
            Number of batches in a step, ≥ 1. The gradients of ``accumulate`` batches are averaged,
            weighted by the weights of their rows (for a loss with the reduction "sum", added up);
            then the optimizer makes its step. So ``accumulate`` batches give the step of one large
            batch in the memory of a small one, except that ``BatchNorm`` sees one batch at a time.
        shuffle
            Whether every epoch draws a new order of the rows from the trainer's ``rng``.
        diagnose
            Whether to warn of what cannot be meant, and to end with a sentence, where progress is
            shown, if the training has learned nothing, has become worse, or has ended too early.
            ``minidl.diagnose`` looks closer, and tries what it suspects.
        transform
            A function that changes each batch that is trained on, such as those of
            ``minidl.augment``: ``transform(x, rng)`` returns a batch of the same shape. Of several
            inputs x is the tuple. The generator of a batch follows from the trainer's ``rng``.
            Rows of ``validation`` are not changed.

        Shapes
        ------
        X (samples, ..., features), or (samples, ...) integers for a model that begins with an
        ``Embedding``; lengths (samples), integers from 1 to time; y (samples) for labels,
        (samples, time) for those of sequences, else as the model's output; sample_weight (samples),
        or (samples, time) where every step has a target.

        Returns
        -------
        History
            ``loss`` and the metrics of every epoch, computed from the predictions that each step
            makes before it updates the weights (``LBFGS``: after it); and ``val_loss`` and so on of
            ``validation``. Of a ``MultiLoss`` also those of the heads: ``size.loss``, ``size.mae``.

        Raises
        ------
        TypeError, ValueError
            For data that cannot be trained on, before any step, naming the first bad row; after
            ``load``, for other losses, metrics or validation than before.
        FloatingPointError
            If the loss or the gradient is not finite, naming the step and the first layer
            where that shows.

        Warns
        -----
        TrainingWarning
            If model and loss can be trained, but hardly as they are meant: Softmax before a loss
            that applies it itself, logits for a loss that takes log-probabilities, two ``Linear``
            in a row, a model that is in evaluation as a whole, parameters that are neither in the
            optimizer nor frozen, targets beyond the range of the last activation, hidden units with
            equal weights. Once for each model.
        """
        check_parts(self.model, self.loss, self.optimizer, self.ema)  # one may have been replaced
        epochs = check_count("fit", "epochs", epochs)
        if not isinstance(batch_size, str) or batch_size != "auto":
            batch_size = check_count("fit", "batch_size", batch_size)
        accumulate = check_count("fit", "accumulate", accumulate)
        source, trained = self._source(X, y), self.optimizer.flat.parameters
        data, validation_data = for_training(
            source, sample_weight, class_weight, validation, self.metrics, trained, diagnose
        )
        batch_size = batch_size_for(self.loss, self.optimizer, batch_size, accumulate, len(data))
        check_batch_size(self.model, data.inputs, batch_size)
        names = [*names_of_losses(self.loss), *self.metrics]
        names += [f"val_{name}" for name in names if validation_data is not None]
        shown = choose(progress)
        notified = Callbacks(callbacks, self, names, shown)
        begin = self._take_up(len(data), (batch_size, accumulate), notified.names, transform)
        if any(source.inputs.columns):
            self.columns = source.inputs.columns
        stop = Stop(begin.stop)
        plan = Plan(epochs, data, batch_size, accumulate, bool(shuffle), notified, stop, transform)
        try:
            self.plan = plan
            self._train(plan, validation_data, diagnose, begin)
            if diagnose and shown.remarks and self.loss.predicts_targets:
                self._close(plan, shown)
        finally:
            notified.notify("on_fit_end", self.history.epochs, {})
            self.plan = None
        return self.history

    def _take_up(
        self, rows: int, step: tuple[int, int], names: list[str], transform: Transform | None
    ) -> Resumption:
        """Return where training begins: where it was saved, after ``load``."""
        check_transform(transform, self.optimizer)
        begin = self.resumption or Resumption()
        begin.check_names(names)
        begin.check(rows, step, transform is not None)
        self.history, self.diagnosis = begin.history, ""
        if self.ema is not None:
            self.ema.follow_state(self.model)
        return begin

    def _close(self, plan: Plan, shown: Progress) -> None:
        """Say in a sentence what the training ended with, if that is remarkable."""
        inputs, targets, weights = plan.data.inputs, plan.data.targets, plan.data.weights
        parts = self.model, self.loss, inputs, targets, self.history, weights
        stopped = plan.stop.why is not None
        self.diagnosis = closing_sentence(ending_of(*parts, shuffle=plan.shuffle, stopped=stopped))
        if self.diagnosis:
            shown.remark(self.diagnosis)

    def _train(
        self, plan: Plan, validation: Data | None, diagnose: bool, begin: Resumption
    ) -> None:
        """Train for all epochs; validate and notify callbacks between them."""
        notify, number, place = plan.callbacks.notify, self.history.epochs, begin.place
        values = {name: column[-1] for name, column in self.history.items()}
        begin.restore_generators()
        notify("on_train_begin", 0, {})
        plan.callbacks.resume(begin.callbacks)
        while place is not None or (number < plan.epochs and plan.stop.why is None):
            number += 1
            notify("on_epoch_begin", number, values)
            self.resumption = None  # not before: a callback may have refused
            # A callback may have left it in evaluation.
            if diagnose and number > 1 and not self.model.training:
                warn_of_suspicious(self.model, self.loss, None, self.optimizer.flat.parameters)
            started = time.perf_counter()
            current_step = partial(self._current_step, plan.data.places)
            tally = tally_of(self.loss, self.metrics)
            plan.course.epoch = Epoch(plan, number, current_step, tally, self.rng, place)
            values, place = plan.course.epoch.run(), None
            seconds = time.perf_counter() - started
            values["loss"] += self._penalty()
            self._take_statistics(plan.data)
            if validation is not None:
                values |= {f"val_{k}": value for k, value in self._validate(validation).items()}
            values |= plan.callbacks.epoch_values(self.optimizer)
            self.history.append(values, seconds)
            plan.course.epoch = None
            notify("on_epoch_end", number, values)
        self.resumption = None
        notify("on_train_end", number, values)

    def save(self, path: AnyPath) -> None:
        """Write all that the training needs to go on: ``load`` reads it, in another process too.

        The file has the model, as ``minidl.save`` writes it, the optimizer's moments and counters,
        schedules, averages, the states of layers and generators, the history, and within ``fit``
        what callbacks have kept and the place within the epoch. A callback that saves should come
        last in its list; ``Checkpoint`` does so by itself.

        Parameters
        ----------
        path
            Where to write; the file is replaced as a whole, as by ``minidl.save``.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        save_training(self, path)

    def load(self, path: AnyPath) -> None:
        """Read what ``save`` has written, into a trainer that was built in the same way.

        The next ``fit`` goes on where the training was, until there are ``epochs`` epochs in
        total, with the same results to the bit as if it had never ended.

        Parameters
        ----------
        path
            A file of ``Trainer.save``.

        Raises
        ------
        ModelFileError
            If the file is damaged, or of a trainer with another model, optimizer or ``EMA``;
            nothing is changed then.
        OSError
            If it cannot be read.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> from minidl import Trainer, datasets, nn, optim
        >>> data = datasets.digits()
        >>> def build():
        ...     model = nn.Sequential(nn.Linear(64, 9), nn.ReLU(), nn.Linear(9, 10), rng=0)
        ...     optimizer = optim.Adam(model.parameters())
        ...     return Trainer(model, nn.CrossEntropyLoss(), optimizer, rng=0)
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "training.safetensors"
        >>> whole, first, second = build(), build(), build()
        >>> _ = whole.fit(data.x_train, data.y_train, epochs=3, progress=False)
        >>> _ = first.fit(data.x_train, data.y_train, epochs=2, progress=False)
        >>> first.save(path)
        >>> second.load(path)
        >>> second.fit(data.x_train, data.y_train, epochs=3, progress=False)["loss"] == (
        ...     whole.history["loss"]
        ... )
        True
        """
        self.resumption = load_training(self, path)
        self.history = self.resumption.history

    def stop(self, why: str = "") -> None:
        """End ``fit`` after the epoch under way, or after the step if a callback gets every step.

        The epoch counts as complete, with the steps that were made until then. ``why`` is shown.
        """
        if self.plan is not None:
            self.plan.stop.why = self.plan.stop.why or why

    def __repr__(self) -> str:
        return f"Trainer({type(self.model).__name__}, {self.loss!r}, {self.optimizer!r})"

    # --- parts that may have been replaced since the latest call ---

    def _current_step(self, places: Places) -> TrainingStep:
        """Return the step for the current parts; replacing a part drops its recordings."""
        parts = self.model, self.loss, self.optimizer, self.ema, places
        if not self._step.is_made_of(*parts):
            self._step = TrainingStep(*parts, record=self._step.recorded is not None)
        return self._step
