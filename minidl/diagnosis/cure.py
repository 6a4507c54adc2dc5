"""The cure: remedies carried out on a fresh copy of a program, trained, and judged."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from minidl.diagnosis.program import Program
from minidl.diagnosis.remedies import recipes
from minidl.diagnosis.remedies.actions import Action, Epochs, SetLearningRate, UseOptimizer
from minidl.diagnosis.remedies.apply import apply, inputs_of
from minidl.diagnosis.remedies.listing import listing
from minidl.diagnosis.remedies.probing import (
    Change,
    Outcome,
    Prober,
    an_epoch,
    lasting,
    parted,
    with_rows,
)
from minidl.diagnosis.remedies.standing import Rows, standing
from minidl.diagnosis.remedies.surgery import NotApplicableError
from minidl.diagnosis.task import answers, decided
from minidl.diagnosis.verdict import Verdict
from minidl.nn.checks import check_count
from minidl.training import Trainer
from minidl.training.checks import split
from minidl.typing import Array

# Kinds of which a person must take care: no change of the program mends the data.
OF_DATA = frozenset({"nothing_to_learn", "data_error"})
# Kinds that say that the training was too short as it was told.
TOO_SHORT = frozenset({"stopped_early", "learning_rate_too_low"})
# What a cure chooses anew, whatever is prescribed: the rate, and how long to train.
CHOSEN_ANEW = {SetLearningRate, UseOptimizer, Epochs}
GOOD = 0.02  # an error after which no second training is made
# A training of fewer steps than the first is too short to keep; longer ones are as many times as
# long, with no fewer steps than a small network needs to learn XOR, or to add two numbers.
ENOUGH_STEPS, LONGER, LEAST_STEPS, MOST_STEPS = 500, 3, 3000, 20_000
# Floating point operations of a training, and of all its probes, unless it was told to make more:
# some ten seconds on one core. Counted and not timed, so that a busy machine changes no result.
AFFORDED = 3e11
# Rounds of probes: how many changes enter, the part of the training's steps that each of them gets,
# and the least.
ROUNDS = ((40, 1 / 40, 100), (6, 1 / 10, 250), (2, 1 / 4, 500))
FEWEST = 3  # changes that enter a round, whatever they cost
HELD_OUT_FROM = 100  # rows from which on some can be held out


class Diagnosed(Protocol):
    """What a cure needs of a diagnosis."""

    @property
    def program(self) -> Program: ...
    @property
    def trainer(self) -> Trainer: ...
    @property
    def verdicts(self) -> Sequence[Verdict]: ...


@dataclass
class Cure:
    """What was changed about a training, and what came of it.

    Attributes
    ----------
    change
        A sentence that says what was changed, and the lines of code that do it.
    before, after
        What ``evaluate`` reports of the training as told, and of the cured one: the loss that was
        told, and metrics, in the units of the targets that were given.
    trainer
        That of the cured training; if nothing helped, that of the training as told.
    helped
        Whether the cured training answers better than the one that was told.
    trainings
        How many trainings were made.
    """

    change: str
    before: dict[str, float]
    after: dict[str, float]
    trainer: Trainer
    helped: bool
    trainings: int = 0
    actions: tuple[Action, ...] = field(default=(), repr=False)

    def __str__(self) -> str:
        lines = [self.change, ""]
        for name in self.before:
            lines.append(f"{name}: {self.before[name]:.4g} before, {self.after[name]:.4g} after")
        return "\n".join(lines)


def cure(diagnosis: Diagnosed, trainings: int = 2) -> Cure:
    """Carry out the remedies of all verdicts on a fresh copy, train it, and revise them once.

    docs/cure.md says how.

    Parameters
    ----------
    diagnosis
        The program as told, its trainer and its verdicts.
    trainings
        At most so many, ≥ 1; probes, which are short, not counted.

    Raises
    ------
    TypeError, ValueError
        For what is no diagnosis, and for a number of trainings below one.
    """
    if not hasattr(diagnosis, "verdicts"):
        raise TypeError(f"cure: diagnosis must be what minidl.diagnose returns, got {diagnosis!r}")
    check_count("cure", "trainings", trainings)
    return Cures(diagnosis).find(trainings)


class Cures:
    """Looks for a cure."""

    def __init__(self, diagnosis: Diagnosed) -> None:
        self.program, self.told = diagnosis.program, diagnosis.trainer
        self.verdicts = list(diagnosis.verdicts)
        self.kinds = {verdict.kind for verdict in self.verdicts}
        program = self.program
        balanced = "class_imbalance" in self.kinds
        self.rows = Rows.of(program.X, program.y, program.loss, balanced)
        self.steps = program.epochs * an_epoch(self.program)  # as told
        self.error = standing(self.told, self.rows)

    def find(self, trainings: int) -> Cure:
        """Train at most so many times, and return the best."""
        if not self.verdicts or self.kinds <= OF_DATA:
            return self._none(0)
        if "overfitting" in self.kinds:
            outcomes = [self._against_heart()]
        else:
            outcomes = [self._first()]
            if trainings > 1 and outcomes[0].error >= GOOD:
                second = self._second(outcomes[0])
                outcomes += [] if second is None else [second]
        best = min(outcomes, key=lambda outcome: outcome.error)
        if best.trainer is None or best.error >= self.error:
            return self._none(len(outcomes))
        before, after = (
            measured(trainer, self.program, self.rows) for trainer in (self.told, best.trainer)
        )
        change = self._words(best)
        return Cure(change, before, after, best.trainer, True, len(outcomes), best.change)

    # --- what is tried ---

    def _first(self) -> Outcome:
        """Train with what the verdicts prescribe, and the scales and the rate that go with it."""
        program = self.program
        base = self._prescribed()
        scales = recipes.scaling(program, self.rows.task, base)
        base = self._applicable(recipes.merged(scales, base))
        keeps = self.steps >= ENOUGH_STEPS and not self.kinds & TOO_SHORT
        steps = self.steps if keeps else self._long(base)
        base = tuple(action for action in base if not isinstance(action, Epochs))
        changes = [recipes.merged(base, rate) for rate in recipes.rates(program, base)]
        return self._trained(self._prober().best(changes, self._rounds(steps)).change, steps)

    def _second(self, first: Outcome) -> Outcome | None:
        """Train longer, with what usually helps and the best of other layers, draws and rates.

        None if it answers no better, rows held out included: a longer training may do no more than
        learn noise by heart.
        """
        program = self.program
        usual = recipes.usual(program, self.rows.task)
        base = self._applicable(recipes.merged(first.change, usual))
        layers = [recipes.merged(base, more) for more in recipes.structures(program)]
        layers += [recipes.merged(base, draw) for draw in recipes.draws(3)]
        tried = list(recipes.few_rates(program, base))
        changes = [recipes.merged(layer, rate) for rate in tried for layer in layers]
        steps = self._long(base)
        change = self._prober().best(changes, self._rounds(steps)).change
        if len(inputs_of(program)) >= HELD_OUT_FROM:
            prober = self._prober()
            before = prober.train(first.change, first.steps).error
            if prober.train(change, steps).error > before:
                return None
        return self._trained(change, steps)

    def _against_heart(self) -> Outcome:
        """Train with the penalty, dropout or number of steps that rows held out call for."""
        rest, held = self._parted()
        prober, base = Prober(rest, held), self._prescribed()
        changes = [recipes.merged(base, more) for more in recipes.penalties(self.program)]
        best = prober.best(changes, [(len(changes), -(-self.steps // 4)), (3, self.steps)])
        self.error = prober.train((), self.steps, as_told=True).error
        return replace(self._trained(best.change, best.steps), error=best.error)

    def _trained(self, change: Change, steps: int) -> Outcome:
        return Prober(self.program, self.rows).train(change, steps)

    def _prescribed(self) -> Change:
        """Return what the verdicts prescribe, as far as it can be carried out."""
        prescribed = recipes.prescribed(self.verdicts)
        return self._applicable(recipes.keeping_meaning(prescribed, self.program, self.rows.task))

    def _applicable(self, change: Change) -> Change:
        """Leave out what cannot be carried out on this model."""
        kept: list[Action] = []
        for action in change:
            try:
                apply(self.program.copy(), [*kept, action])
                kept.append(action)
            except NotApplicableError:
                pass
        return tuple(kept)

    # --- how long, and on which rows ---

    def _prober(self) -> Prober:
        """Return a prober that judges by rows trained on and, of many rows, by others too."""
        if len(inputs_of(self.program)) < HELD_OUT_FROM:
            return Prober(self.program, self.rows)
        rest, held = self._parted()
        if self.rows.balanced:
            return Prober(rest, held.some())  # a few rows of a rare class are soon known by heart
        own = Rows.of(rest.X, rest.y, rest.loss, self.rows.balanced)
        return Prober(rest, own.some(), held.some())

    def _parted(self) -> tuple[Program, Rows]:
        """Return the program with rows to train on, and rows to judge on that it does not see."""
        program = self.program
        if isinstance(program.validation, tuple):
            rest, (X, y) = program, program.validation[:2]
        else:
            rest, held = parted(program)
            X, y = held.X, held.y
        return rest, Rows.of(X, y, program.loss, self.rows.balanced)

    def _long(self, change: Change) -> int:
        """Return the steps of a training that is not too short, as far as time allows."""
        epochs = max((a.epochs for a in change if isinstance(a, Epochs)), default=0)
        steps = max(LONGER * self.steps, epochs * an_epoch(self.program))
        steps = max(min(steps, MOST_STEPS), LEAST_STEPS)
        return max(min(steps, self._afforded()), self.steps)

    def _afforded(self) -> int:
        """Return the steps that make as many operations as are afforded.

        Each weight takes part in two operations for a row, or for a step of a sequence, going
        forward, and in four going backward.
        """
        program, inputs = self.program, inputs_of(self.program)
        weights = sum(parameter.size for parameter in program.model.parameters())
        x = inputs.arrays[0]
        is_sequence = x.ndim > 2 or (inputs.limits[0] is not None and x.ndim > 1)
        rows = min(program.batch_size, len(inputs)) * (x.shape[1] if is_sequence else 1)
        return max(1, int(AFFORDED / (6 * weights * rows)))

    def _rounds(self, steps: int) -> list[tuple[int, int]]:
        """Return how many changes enter each round of probes, and for how many steps."""
        found = []
        for count, part, least in ROUNDS:
            each = min(max(least, round(part * steps)), steps)
            found.append((min(count, max(FEWEST, self._afforded() // each)), each))
        return found

    # --- words ---

    def _none(self, trainings: int) -> Cure:
        before = measured(self.told, self.program, self.rows)
        if not self.verdicts:
            what = "Nothing was changed: the training is well."
        elif self.kinds <= OF_DATA:
            what = "Nothing was changed: no change of the program mends data; look at X and y."
        else:
            what = "Nothing that was tried made the training better."
        return Cure(what, before, before, self.told, False, trainings)

    def _words(self, outcome: Outcome) -> str:
        assert outcome.trainer is not None
        clauses = [a.sentence() for a in outcome.change if not isinstance(a, Epochs)]
        clauses.append(f"train for {outcome.steps:,} steps, the learning rate falling to zero")
        made = {type(action) for action in outcome.change} | CHOSEN_ANEW
        dropped = [
            f"{action.sentence()} (this model has no place for it)"
            for action in recipes.prescribed(self.verdicts)
            if type(action) not in made
        ]
        sentence = "; ".join(clauses)
        sentence = sentence[0].upper() + sentence[1:] + "."
        if dropped:
            sentence += f" Left out: {'; '.join(dropped)}."
        program = lasting(apply(self.program.copy(), outcome.change), outcome.steps)
        return "\n".join([sentence, "", *listing(program, outcome.change)])


def measured(trainer: Trainer, program: Program, rows: Rows) -> dict[str, float]:
    """Return what ``evaluate`` reports, by the loss that was told and in its units."""
    task = rows.task

    def accuracy(prediction: Array, target: Array) -> float:
        """Share of right answers."""
        answer = answers(prediction, task, trainer.loss)
        return float((answer == decided(target, task)).mean())

    def balanced_accuracy(prediction: Array, target: Array) -> float:
        """Mean over the classes of the share of right answers."""
        answer, told = (
            array.reshape(-1)
            for array in (answers(prediction, task, trainer.loss), decided(target, task))
        )
        return float(np.mean([(answer[told == k] == k).mean() for k in np.unique(told)]))

    metrics: list[Any] = [accuracy] if task.counts else ["r2"]
    metrics += [balanced_accuracy] * rows.balanced
    judge = Trainer(trainer.model, program.loss, trainer.optimizer, metrics, record=False)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        found = judge.evaluate(program.X, program.y)
        for name, value in (_of_validation(judge, program) or {}).items():
            found[f"val_{name}"] = value
    return found


def _of_validation(judge: Trainer, program: Program) -> dict[str, float] | None:
    """Return what ``evaluate`` reports of the rows that the program validates on, if it does."""
    if isinstance(program.validation, tuple):
        return judge.evaluate(*program.validation[:2])
    if program.validation is None:
        return None
    _, rows = split(len(inputs_of(program)), float(program.validation))
    held_out = with_rows(program, rows)
    return judge.evaluate(held_out.X, held_out.y)
