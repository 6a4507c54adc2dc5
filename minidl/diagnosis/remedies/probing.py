"""Probes: short trainings of changed programs, which tell the best change by its first steps.

Many changes are tried for few steps, the better ones for more, the best of them for the whole
training: successive halving (Jamieson and Talwalkar 2016). In all its trainings, the learning rate
falls to zero along a half cosine, so that a short training shows what its rate can reach, and not
the noise that it makes.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np

from minidl.diagnosis.program import Program
from minidl.diagnosis.remedies.actions import Action, Epochs
from minidl.diagnosis.remedies.apply import apply, inputs_of
from minidl.diagnosis.remedies.losses import ScaledLoss
from minidl.diagnosis.remedies.standing import WORST, Rows, standing, take
from minidl.diagnosis.remedies.surgery import NotApplicableError
from minidl.diagnosis.task import Task
from minidl.nn import Loss
from minidl.optim import Optimizer, schedules
from minidl.training import Callback, Trainer
from minidl.typing import Array

Change = tuple[Action, ...]
# Recording a step costs as much as some hundreds of eager ones.
WORTH_RECORDING = 300
# What a change may be worse than another one before it that is milder, and yet be preferred to it.
AS_GOOD = 0.02
SOLVED = 5e-4


@dataclass
class Outcome:
    """A change, the trainer that it led to, and how well that answers."""

    change: Change
    trainer: Trainer | None
    error: float
    steps: int


class Prober:
    """Trains changed copies of a program.

    Parameters
    ----------
    program
        As told, untrained.
    *rows
        To judge on: where these are several, such as rows trained on and rows held out, what counts
        is the mean of the errors.
    """

    def __init__(self, program: Program, *rows: Rows) -> None:
        self.program, self.rows = program, rows

    def train(self, change: Change, steps: int, as_told: bool = False) -> Outcome:
        """Train with a change for about so many steps; as told, at the rates that were told.

        A change that has a number of epochs trains for no more of them.
        """
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            try:
                program = apply(self.program.copy(), change)
            except NotApplicableError:
                return Outcome(change, None, WORST, 0)
            if any(isinstance(action, Epochs) for action in change):
                steps = min(steps, program.epochs * an_epoch(program))
            program = program if as_told else lasting(program, steps)
            record = steps > WORTH_RECORDING and is_recordable(program.loss)
            trainer = program.trainer(record)
            try:
                program.train(
                    trainer, callbacks=[StopWhenSolved(self.rows[0].task)], diagnose=False
                )
                error = fmean(standing(trainer, rows) for rows in self.rows)
            except (FloatingPointError, TypeError, ValueError):  # it diverges, or takes no weights
                error = WORST
        return Outcome(change, trainer, error, steps)

    def best(self, changes: Iterable[Change], rounds: Sequence[tuple[int, int]]) -> Outcome:
        """Return the outcome of the best of some changes, by successive halving.

        ``rounds`` has, for each round, the number of changes that enter it and of their steps.
        """
        ranked = list(dict.fromkeys(changes))
        for count, steps in rounds:
            few = self._few(steps)
            outcomes = [few.train(change, steps) for change in ranked[:count]]
            # Sorting is stable: of two that are as good, the one that was named before is first.
            outcomes.sort(key=lambda outcome: round(outcome.error / AS_GOOD))
            ranked = [outcome.change for outcome in outcomes]
        return outcomes[0]

    def _few(self, steps: int) -> Prober:
        """Return a prober of no more rows than so many steps see."""
        count, seen = len(inputs_of(self.program)), steps * self.program.batch_size
        if seen >= count:
            return self
        rows = np.random.default_rng(0).permutation(count)[:seen]
        return Prober(with_rows(self.program, rows), *self.rows)


class StopWhenSolved(Callback):
    """Ends a training whose loss says that there is nothing left to learn.

    That is a mean cross entropy of ``SOLVED`` (every row is answered right, and surely), or a
    squared error of so much of the variance.
    """

    def __init__(self, task: Task) -> None:
        self.task = task

    def on_epoch_end(self, trainer: Trainer, epoch: int, values: Any) -> None:
        """Look at the loss of the epoch."""
        is_relative = self.task.counts or isinstance(trainer.loss, ScaledLoss)
        if is_relative and trainer.loss.reduction == "mean" and 0 <= values["loss"] < SOLVED:
            trainer.stop("nothing is left to learn")


def is_recordable(loss: Loss) -> bool:
    """Return whether a loss is made of kernels alone, as a recorded step needs it."""
    inner = getattr(loss, "inner", loss)
    return type(inner).__module__.startswith("minidl.nn")


def lasting(program: Program, steps: int) -> Program:
    """Return a program that trains for about so many steps, its rate falling to zero."""
    epochs = max(1, round(steps / an_epoch(program)))
    let_rate_fall(program.optimizer, epochs * an_epoch(program))
    return replace(program, epochs=epochs)


def an_epoch(program: Program) -> int:
    """Return the steps of an epoch."""
    return -(-len(inputs_of(program)) // program.batch_size)


def let_rate_fall(optimizer: Optimizer, steps: int) -> None:
    """Have the learning rates of all groups fall to zero along a half cosine."""
    for group in optimizer.groups:
        group["lr"] = schedules.cosine(group["lr"], steps)


HELD_OUT = 0.2  # share of the rows


def parted(program: Program) -> tuple[Program, Program]:
    """Return the program with most of its rows, and with those that are held out from it."""
    order = np.random.default_rng(0).permutation(len(inputs_of(program)))
    count = max(1, round(HELD_OUT * len(order)))
    if (len(order) - count) % program.batch_size == 1:
        count += 1  # BatchNorm needs more than one row in the last batch
    return with_rows(program, order[count:]), with_rows(program, order[:count])


def with_rows(program: Program, rows: Array) -> Program:
    """Return the program with some of its rows, in the order that they had."""
    rows, X, weight = np.sort(rows), program.X, program.sample_weight
    return replace(
        program,
        X=tuple(take(x, rows) for x in X) if isinstance(X, tuple) else take(X, rows),
        y=take(program.y, rows),
        sample_weight=None if weight is None else np.asarray(weight)[rows],
    )
