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
    ScaleInputs,
    ScaleTargets,
    SetLearningRate,
    Shuffle,
    WeightDecay,
)
from minidl.diagnosis.remedies.apply import apply
from minidl.diagnosis.task import Task, answers, balanced_error, decided, error, recalls
from minidl.nn.hooks import evaluating
from minidl.seeds import as_generator
from minidl.training import Trainer
from minidl.training.data import Data
from minidl.typing import Array

# Changes of data and numbers only: the same model serves, set back to its first weights, and what
# was recorded of its step is used again.
OF_NUMBERS = (
    ScaleInputs, ScaleTargets, SetLearningRate, Epochs, Shuffle, ClassWeights, Clip, WeightDecay,
)  # fmt: skip
SCALED_LIMIT = 1e-12  # below this deviation a column is constant


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
    seconds
        How long it took.
    """

    actions: tuple[Action, ...]
    error: float
    held: float = float("nan")
    finite: bool = True
    balanced: float = float("nan")
    held_balanced: float = float("nan")
    recall: dict[float, tuple[float, int]] = field(default_factory=dict)
    losses: tuple[float, ...] = ()
    held_curve: tuple[float, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class Rows:
    """The rows of a data set for trials: those to train on, and those held out (maybe none)."""

    trained: Data
    held: Data | None

    @property
    def tells(self) -> bool:
        """Whether enough rows are held out that their error says something."""
        return self.held is not None


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
    """

    def __init__(self, program: Program, rows: Rows, task: Task) -> None:
        self.program, self.rows, self.task = program, rows, task
        self.seconds = 0.0
        self._benches: dict[tuple[Action, ...], Bench] = {}
        self._known: dict[tuple[Any, ...], Outcome] = {}

    def run(self, *actions: Action, epochs: int | None = None, curve: bool = False) -> Outcome:
        """Train with these changes and judge; a trial that was made before is not repeated."""
        key = (frozenset(actions), epochs)
        if key not in self._known or (curve and not self._known[key].held_curve):
            began = time.perf_counter()
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                outcome = self._run(actions, epochs, curve)
            seconds = time.perf_counter() - began
            self.seconds += seconds
            self._known[key] = replace(outcome, seconds=seconds)
        return self._known[key]

    def _run(self, actions: tuple[Action, ...], epochs: int | None, curve: bool) -> Outcome:
        numbers = [action for action in actions if isinstance(action, OF_NUMBERS)]
        changed = tuple(action for action in actions if not isinstance(action, OF_NUMBERS))
        bench = self._bench(changed)
        bench.set_back()
        program, trainer = bench.program, bench.trainer
        settings = {"epochs": program.epochs, "shuffle": program.shuffle}
        scaling = Scaling.of(self.rows.trained, numbers, program.loss.takes_labels)
        trained = scaling.scale(self.rows.trained)
        weight: Any = self.rows.trained.weights
        for action in numbers:
            if isinstance(action, SetLearningRate):
                set_rate(program.optimizer, action.lr)
            elif isinstance(action, Clip):
                program.optimizer.max_norm = action.max_norm
            elif isinstance(action, WeightDecay):
                program.optimizer.weight_decay = action.weight_decay
            elif isinstance(action, Epochs):
                settings["epochs"] = action.epochs
            elif isinstance(action, Shuffle):
                settings["shuffle"] = True
            elif isinstance(action, ClassWeights):
                weight = balancing(decided(trained.targets, self.task))
        if epochs is not None:
            settings["epochs"] = epochs
        judge = Judge(self, trainer, scaling) if curve and self.rows.held is not None else None
        try:
            history = trainer.fit(
                as_X(trained), trained.targets, settings["epochs"], program.batch_size,
                shuffle=bool(settings["shuffle"]), progress=False, sample_weight=weight,
            )  # fmt: skip
            losses, finite = tuple(history["loss"]), True
        except FloatingPointError:
            losses, finite = tuple(trainer.history.get("loss", ())), False
        del judge
        return self._judged(actions, bench, scaling, losses, finite)

    def _judged(
        self,
        actions: tuple[Action, ...],
        bench: Bench,
        scaling: Scaling,
        losses: tuple[float, ...],
        finite: bool,
    ) -> Outcome:
        model, loss = bench.program.model, bench.program.loss
        found: dict[str, Any] = {}
        for name, data in (("", self.rows.trained), ("held", self.rows.held)):
            if data is None:
                continue
            prediction = scaling.undo(output_of(model, scaling.scale(data)))
            counts = counting(data, self.program.loss)
            answer = answers(prediction, self.task, loss)[counts]
            target = decided(data.targets, self.task)[counts]
            found[name or "error"] = error(answer, target, self.task)
            if self.task.kind in ("labels", "onehot") or (
                self.task.kind == "bits" and target.shape[-1] == 1
            ):
                found[f"{name}_balanced".lstrip("_")] = balanced_error(answer, target)
                if not name:
                    found["recall"] = recalls(answer, target)
        if not finite:
            found["error"] = max(found["error"], 1.0)
        return Outcome(actions, losses=losses, finite=finite, **found)

    def _bench(self, changed: tuple[Action, ...]) -> Bench:
        if changed not in self._benches:
            program = self.program.copy()
            if changed:
                program = apply(program, changed)
            rows = len(self.rows.trained)
            steps = program.epochs * -(-rows // program.batch_size)
            # Recording a step costs as much as some three hundred eager ones.
            self._benches[changed] = Bench(program, record=steps > 300)
        return self._benches[changed]


@dataclass(frozen=True)
class Scaling:
    """Means and deviations that inputs and targets are scaled by; None: not."""

    inputs: tuple[Array, Array] | None = None
    targets: tuple[Array, Array] | None = None

    @classmethod
    def of(cls, data: Data, actions: Iterable[Action], labels: bool) -> Scaling:
        """Measure on these rows what the actions scale."""
        inputs = targets = None
        for action in actions:
            if isinstance(action, ScaleInputs) and data.inputs[0].dtype.kind == "f":
                inputs = moments(data.inputs[0])
            if isinstance(action, ScaleTargets) and not labels:
                targets = moments(data.targets)
        return cls(inputs, targets)

    def scale(self, data: Data) -> Data:
        """Scale rows."""
        first, others = data.inputs[0], data.inputs[1:]
        targets = data.targets
        if self.inputs is not None:
            first = scaled(first, *self.inputs)
        if self.targets is not None:
            targets = scaled(targets, *self.targets)
        return Data((first, *others), targets, data.weights)

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
    constant = deviation <= SCALED_LIMIT * np.maximum(np.abs(mean), 1)
    return mean, np.where(constant, 1, deviation)


def scaled(array: Array, mean: Array, deviation: Array) -> Array:
    """Return (array - mean) / deviation in the array's dtype."""
    return np.ascontiguousarray((array - mean) / deviation, array.dtype)


def as_X(data: Data) -> Any:
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


def balancing(answers: Array) -> Array:
    """Return a weight for each row, so that every class has the same total."""
    _, which, counts = np.unique(answers.reshape(-1), return_inverse=True, return_counts=True)
    return len(which) / (len(counts) * counts[which])


def set_rate(optimizer: Any, rate: float) -> None:
    """Set the learning rate of the first group, and those of the others in proportion.

    Of a schedule, all rates are multiplied by the same factor.
    """
    factor = rate / optimizer.lr if optimizer.lr else 0.0
    for group in optimizer.groups:
        schedule = group.schedule
        if schedule is None:
            group["lr"] = group["lr"] * factor if factor else rate
        else:
            group["lr"] = lambda step, schedule=schedule: factor * schedule(step)
