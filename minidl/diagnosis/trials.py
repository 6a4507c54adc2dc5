"""Trials: the training repeated with one thing changed, from the same weights, to see what it does.

A rule only suspects. Whether what it suspects is the cause shows when nothing but that is changed.
"""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from minidl.diagnosis.program import Program
from minidl.diagnosis.remedies.actions import (
    Action,
    ClassWeights,
    Clip,
    Epochs,
    Reinitialise,
    ScaleInputs,
    ScaleTargets,
    SetLearningRate,
    Shuffle,
    UseOptimizer,
    WeightDecay,
)
from minidl.diagnosis.remedies.apply import apply
from minidl.diagnosis.remedies.optimizers import set_rate
from minidl.diagnosis.remedies.surgery import NotApplicableError
from minidl.diagnosis.task import Task, answers, balanced_error, decided, error, recalls
from minidl.nn import BCEWithLogitsLoss, Layer, Loss
from minidl.nn.hooks import evaluating
from minidl.seeds import as_generator
from minidl.training import Callback, Trainer
from minidl.training.data import Data
from minidl.typing import Array

# Changes of data and numbers only: the same model serves, set back to its first weights, and what
# was recorded of its step is used again.
OF_NUMBERS = (
    ScaleInputs, ScaleTargets, SetLearningRate, Epochs, Shuffle, ClassWeights, Clip, WeightDecay,
)  # fmt: skip
ANY_RATE = 0.001  # of an optimizer whose rate is set afterwards
EAGER_STEPS = 150  # recording a step costs as much as some hundred eager ones
SCALED_LIMIT = 1e-12  # up to this deviation, as a share of the mean, a column is constant


@dataclass(frozen=True)
class Outcome:
    """What a trial came to.

    Attributes
    ----------
    actions
        What was changed.
    error
        Of the rows trained on, from 0 (perfect) to 1 (one answer for all rows), or beyond.
    held
        Of the rows held out; NaN without any.
    finite
        Whether it reached its end.
    balanced, recall
        Of classes: the error in which every class counts the same, and by class the share answered
        right and the number of rows.
    losses
        The loss of every epoch.
    held_curve
        Epoch, error of the rows trained on, and of those held out, at some epochs.
    seconds
        How long it took.
    moved
        How far the parameters have moved from where they began, as a share of their norm.
    """

    actions: tuple[Action, ...]
    error: float
    held: float = float("nan")
    finite: bool = True
    balanced: float = float("nan")
    held_balanced: float = float("nan")
    recall: dict[float, tuple[float, int]] = field(default_factory=dict)
    losses: tuple[float, ...] = ()
    held_curve: tuple[tuple[int, float, float], ...] = ()
    seconds: float = 0.0
    moved: float = float("nan")


@dataclass(frozen=True)
class Rows:
    """The rows of a data set for trials: those to train on, and those held out (maybe none)."""

    trained: Data
    held: Data | None
    whole: Data | None = None

    @property
    def together(self) -> Data:
        """All rows; if they were one data set, in its order."""
        if self.whole is not None or self.held is None:
            return self.whole or self.trained
        pairs = zip(self.trained.inputs, self.held.inputs, strict=True)
        inputs = tuple(np.concatenate(pair) for pair in pairs)
        return Data(inputs, np.concatenate([self.trained.targets, self.held.targets]))


class Bench:
    """One model with its optimizer and trainer, which can be set back to how they began."""

    def __init__(self, program: Program, record: bool) -> None:
        self.program = program
        self.trainer = Trainer(
            program.model, program.loss, program.optimizer, metrics=(), record=record
        )
        optimizer = program.optimizer
        vectors = [a for a in vars(optimizer).values() if isinstance(a, np.ndarray)]
        arrays = [optimizer.flat.data, *vectors, *program.model.state().values()]
        self._begin = [(array, array.copy()) for array in arrays]
        self._schedules = list(optimizer.schedules)
        dtype = np.int64 if program.loss.takes_labels else optimizer.flat.dtype
        self.targets = np.ascontiguousarray(program.y, dtype)
        self._rng = as_generator(program.rng)

    def set_back(self) -> None:
        """Put back first weights, state, counters, hyper-parameters, and the order of rows."""
        for array, first in self._begin:
            array[...] = first
        self.program.optimizer.schedules[:] = self._schedules
        self.trainer.rng = copy.deepcopy(self._rng)


class Trials:
    """Repeats a training with changes, each from the same weights.

    Parameters
    ----------
    program
        As told, untrained.
    rows
        What to train and to judge on, as the model takes them.
    task
        What the targets ask for.
    share
        Of the epochs that are trained for.
    """

    def __init__(self, program: Program, rows: Rows, task: Task, share: float = 1.0) -> None:
        self.program, self.rows, self.task, self.share = program, rows, task, share
        self._benches: dict[tuple[Action, ...], Bench] = {}
        self._weights: dict[tuple[Action, ...], Array] = {}
        self._known: dict[frozenset[Action], Outcome] = {}

    @property
    def count(self) -> int:
        """How many trials were made."""
        return len(self._known)

    def knows(self, *actions: Action) -> bool:
        """Whether the outcome of these changes is known."""
        return frozenset(actions) in self._known

    def run(self, *actions: Action, curve: bool = False) -> Outcome:
        """Train with these changes and judge; a trial that was made before is not repeated."""
        key = frozenset(actions)
        if key not in self._known or (curve and not self._known[key].held_curve):
            began = time.process_time()
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                outcome = self._run(actions, curve)
            seconds = time.process_time() - began
            self._known[key] = replace(outcome, seconds=seconds)
        return self._known[key]

    def _run(self, actions: tuple[Action, ...], curve: bool) -> Outcome:
        numbers, changed = parted(actions)
        try:
            bench = self._bench(changed)
            bench.set_back()
            for action in actions:
                if isinstance(action, Reinitialise):
                    bench.program.optimizer.flat.data[...] = self._drawn(changed, action)
        except NotApplicableError:
            return Outcome(actions, float("inf"), finite=False)
        program, trainer = bench.program, bench.trainer
        rows = replace(self.rows.trained, targets=bench.targets)
        scaling = Scaling.of(rows, numbers, program.loss)
        told = settled(program, numbers)
        weight = rows.weights
        if any(isinstance(action, ClassWeights) for action in numbers):
            weight = balancing(self.rows.trained.targets, self.task)
        trained = scaling.scale(rows)
        watcher = Curve(self, bench, scaling)
        first = program.optimizer.flat.data.copy()
        try:
            trainer.fit(
                inputs_of(trained), trained.targets, max(1, round(self.share * told.epochs)),
                program.batch_size, shuffle=told.shuffle, progress=False, sample_weight=weight,
                callbacks=[watcher] if curve and self.rows.held is not None else [],
            )  # fmt: skip
            finite = True
        except FloatingPointError:
            finite = False
        outcome = self.judged(actions, program.model, program.loss, scaling, finite)
        losses = tuple(trainer.history.get("loss", ()))
        moved = distance(program.optimizer.flat.data, first)
        return replace(outcome, losses=losses, held_curve=tuple(watcher.points), moved=moved)

    def judged(
        self, actions: tuple[Action, ...], model: Layer, loss: Loss, scaling: Scaling, finite: bool
    ) -> Outcome:
        """Judge a model as it is now."""
        found: dict[str, Any] = {}
        for name, data in (("", self.rows.trained), ("held", self.rows.held)):
            if data is None:
                continue
            prediction = scaling.undo(output_of(model, scaling.scale_inputs(data)))
            counts = counting(data, self.program.loss)
            answer = answers(prediction, self.task, loss)[counts]
            target = decided(data.targets, self.task)[counts]
            found[name or "error"] = error(answer, target, self.task)
            if has_classes(data.targets, self.task):
                found[f"{name}_balanced".lstrip("_")] = balanced_error(answer, target)
                if not name:
                    found["recall"] = recalls(answer, target)
        if not finite:
            found["error"] = max(found["error"], 1.0)
        return Outcome(actions, finite=finite, **found)

    def _bench(self, changed: tuple[Action, ...]) -> Bench:
        if changed not in self._benches:
            program = self.program.copy()
            if changed:
                program = apply(program, changed)
            rows = len(self.rows.trained)
            steps = program.epochs * -(-rows // program.batch_size)
            self._benches[changed] = Bench(program, record=steps > EAGER_STEPS)
        return self._benches[changed]

    def _drawn(self, changed: tuple[Action, ...], action: Reinitialise) -> Array:
        """Return the first weights of a changed model that are drawn as an action says."""
        key = (*changed, action)
        if key not in self._weights:
            program = apply(self.program.copy(), key)
            self._weights[key] = program.optimizer.flat.data
        return self._weights[key]


class Curve(Callback):
    """Judges the model after some epochs: after each at first, then more and more seldom."""

    def __init__(self, trials: Trials, bench: Bench, scaling: Scaling) -> None:
        self._trials, self._bench, self._scaling = trials, bench, scaling
        self._next = 1
        self.points: list[tuple[int, float, float]] = []

    def on_epoch_end(self, trainer: Any, epoch: int, values: Any) -> None:
        """Judge, if it is time."""
        if epoch >= self._next or epoch == trainer.plan.epochs:
            self._next = max(epoch + 1, int(epoch * 1.2))
            now = self._trials.judged(
                (), self._bench.program.model, self._bench.program.loss, self._scaling, True
            )
            self.points.append((epoch, now.error, now.held))


def parted(actions: Iterable[Action]) -> tuple[list[Action], tuple[Action, ...]]:
    """Part changes of numbers from those of layers, loss and optimizer, which need another model.

    The learning rate of another optimizer is a number: models are the same for all its rates.
    """
    numbers: list[Action] = []
    changed: list[Action] = []
    for action in actions:
        if isinstance(action, UseOptimizer):
            changed.append(replace(action, lr=ANY_RATE))
            numbers.append(SetLearningRate(action.lr))
        elif isinstance(action, OF_NUMBERS):
            numbers.append(action)
        else:
            changed.append(action)
    return numbers, tuple(a for a in changed if not isinstance(a, Reinitialise))


def settled(program: Program, numbers: Iterable[Action]) -> Program:
    """Set the numbers of a program's optimizer, and return the program with its other numbers."""
    for action in numbers:
        if isinstance(action, SetLearningRate):
            set_rate(program.optimizer, action.lr)
        elif isinstance(action, Clip):
            program.optimizer.max_norm = action.max_norm
        elif isinstance(action, WeightDecay):
            program.optimizer.weight_decay = action.weight_decay
        elif isinstance(action, Epochs):
            program = replace(program, epochs=action.epochs)
        elif isinstance(action, Shuffle):
            program = replace(program, shuffle=True)
    return program


@dataclass(frozen=True)
class Scaling:
    """Means and deviations that inputs and targets are scaled by; None: not."""

    inputs: tuple[Array, Array] | None = None
    targets: tuple[Array, Array] | None = None

    @classmethod
    def of(cls, data: Data, actions: Iterable[Action], loss: Loss) -> Scaling:
        """Measure on these rows what the actions scale."""
        inputs = targets = None
        numbers = not loss.takes_labels and not isinstance(loss, BCEWithLogitsLoss)
        for action in actions:
            if isinstance(action, ScaleInputs) and data.inputs[0].dtype.kind == "f":
                inputs = moments(data.inputs[0])
            if isinstance(action, ScaleTargets) and numbers:
                targets = moments(data.targets)
        return cls(inputs, targets)

    def scale_inputs(self, data: Data) -> Data:
        """Scale the inputs of rows."""
        if self.inputs is None:
            return data
        first, *others = data.inputs
        return Data((scaled(first, *self.inputs), *others), data.targets, data.weights)

    def scale(self, data: Data) -> Data:
        """Scale inputs and targets of rows."""
        data = self.scale_inputs(data)
        if self.targets is None:
            return data
        return Data(data.inputs, scaled(data.targets, *self.targets), data.weights)

    def undo(self, prediction: Array) -> Array:
        """Convert predictions back to the units of the targets."""
        if self.targets is None:
            return prediction
        mean, deviation = self.targets
        return prediction * deviation + mean


def moments(array: Array) -> tuple[Array, Array]:
    """Return mean and deviation of every column, over rows and steps; 1 where it is constant."""
    rows = array.reshape(-1, array.shape[-1] if array.ndim > 1 else 1).astype(np.float64)
    mean, deviation = rows.mean(axis=0), rows.std(axis=0)
    constant = deviation <= SCALED_LIMIT * np.abs(mean)
    return mean, np.where(constant, 1, deviation)


def scaled(array: Array, mean: Array, deviation: Array) -> Array:
    """Return (array - mean) / deviation in the array's dtype."""
    return np.ascontiguousarray((array - mean) / deviation, array.dtype)


def distance(vector: Array, first: Array) -> float:
    """Return how far a vector is from where it began, as a share of its norm there."""
    begin = first.astype(np.float64)
    norm = float(np.linalg.norm(begin))
    return float(np.linalg.norm(vector - begin)) / norm if norm > 0 else float("nan")


def inputs_of(data: Data) -> Any:
    """Return the inputs as ``fit`` takes them."""
    return data.inputs if len(data.inputs) > 1 else data.inputs[0]


def output_of(model: Any, data: Data, rows: int = 1024) -> Array:
    """Compute the model's output in evaluation, without a recording."""
    with evaluating(), np.errstate(all="ignore"):
        return np.concatenate([model(*inputs) for inputs, _ in data.batches(rows)])


def counting(data: Data, loss: Any) -> Array:
    """Return which rows, or steps of sequences, count at all."""
    weights = loss.row_weights(*data.targets_and_weights)
    steps = data.targets.size if loss.takes_labels else data.targets[..., :1].size
    if data.targets.ndim == 1:
        steps = len(data.targets)
    if weights is None:
        return np.ones(steps, bool)
    weights = np.asarray(weights)
    if weights.size != steps:
        weights = np.repeat(weights.reshape(len(data), -1)[:, :1], steps // len(data), axis=1)
    return weights.reshape(-1) != 0


def has_classes(targets: Array, task: Task) -> bool:
    """Return whether every row has one label: a class, a row with a single 1, or one bit."""
    if task.kind == "bits":
        return targets.ndim == 1 or targets.shape[1:] == (1,)
    return task.counts and targets.ndim == (1 if task.kind == "labels" else 2)


def balancing(targets: Array, task: Task) -> Array:
    """Return a weight for each row, so that every class has the same total."""
    labels = decided(targets, task).reshape(-1)
    _, which, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return len(which) / (len(counts) * counts[which])
