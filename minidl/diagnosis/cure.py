"""The cure: remedies carried out on a fresh copy of a program, trained, and judged."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from minidl.diagnosis.program import Program
from minidl.diagnosis.remedies import recipes
from minidl.diagnosis.remedies.actions import Action, Epochs
from minidl.diagnosis.remedies.apply import apply, inputs_of
from minidl.diagnosis.remedies.probing import Change, Outcome, Prober, parted
from minidl.diagnosis.remedies.standing import Rows, standing
from minidl.diagnosis.remedies.surgery import NotApplicableError
from minidl.diagnosis.task import answers, decided
from minidl.diagnosis.verdict import Verdict
from minidl.nn.checks import check_count
from minidl.training import Trainer
from minidl.typing import Array

# Kinds of which a person must take care: no change of the program mends the data.
OF_DATA = frozenset({"nothing_to_learn", "data_error"})
# Kinds that say that the training was too short as it was told.
TOO_SHORT = frozenset({"stopped_early", "learning_rate_too_low"})
GOOD = 0.02  # an error after which no second training is made
# A training of fewer steps than the first is too short to keep; longer ones are as many times as
# long, with no fewer steps than a small network needs to learn XOR, or to add two numbers.
ENOUGH_STEPS, LONGER, LEAST_STEPS, MOST_STEPS = 500, 3, 3000, 20_000
SECONDS = 15.0  # of a training, unless the one that was told took longer; and of all its probes
# Rounds of probes: how many changes enter, the part of the training's steps that each of them gets,
# and the least.
ROUNDS = ((40, 1 / 40, 100), (6, 1 / 10, 250), (2, 1 / 4, 500))
HELD_OUT_FROM = 100  # rows from which on some can be held out
WORSE = 0.02  # on rows held out, that a longer training must not be


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
    """Carry out the remedies of all verdicts on a fresh copy, train it, and revise them once."""
    check_count("cure", "trainings", trainings)
    return Cures(diagnosis).find(trainings)


class Cures:
    """Looks for a cure."""

    def __init__(self, diagnosis: Diagnosed) -> None:
        self.program, self.told = diagnosis.program, diagnosis.trainer
        self.verdicts = list(diagnosis.verdicts)
        self.kinds = {verdict.kind for verdict in self.verdicts}
        self.by_heart = "overfitting" in self.kinds
        self.rows = self._rows()
        self.error = standing(self.told, self.rows)

    def find(self, trainings: int) -> Cure:
        """Train at most so many times, and return the best."""
        outcomes: list[Outcome] = []
        for plan in (self._first, self._second)[:trainings]:
            if not self.verdicts or self.kinds <= OF_DATA:
                break
            if outcomes and (outcomes[0].error < GOOD or self.by_heart):
                break
            if (planned := plan(outcomes)) is not None:
                outcomes.append(Prober(self.program, self.rows, SECONDS).train(*planned))
        best = min(outcomes, key=lambda outcome: outcome.error, default=None)
        if best is None or best.trainer is None or best.error >= self.error:
            return self._none(len(outcomes))
        return Cure(
            self._words(best),
            measured(self.told, self.program),
            measured(best.trainer, self.program),
            best.trainer,
            True,
            len(outcomes),
            best.change,
        )

    # --- what is tried ---

    def _first(self, outcomes: Sequence[Outcome]) -> tuple[Change, int]:
        """What the verdicts prescribe, with the scales and the learning rate that go with it."""
        program, task = self.program, self.rows.task
        base = recipes.keeping_meaning(recipes.prescribed(self.verdicts), program, task)
        base = self._applicable(recipes.merged(recipes.scaling(program, task), base))
        if self.by_heart:
            return self._against_heart(base)
        keeps = self._told_steps() >= ENOUGH_STEPS and not self.kinds & TOO_SHORT
        steps = self._told_steps() if keeps else self._long(base)
        changes = [recipes.merged(base, rate) for rate in recipes.rates(program, base)]
        return self._prober().best(changes, rounds(steps)), steps

    def _second(self, outcomes: Sequence[Outcome]) -> tuple[Change, int] | None:
        """What usually makes a program train: longer, with other layers, draws and rates."""
        first, program = outcomes[0], self.program
        usual = recipes.usual(program, self.rows.task)
        base = self._applicable(recipes.merged(first.change, usual))
        layers = [recipes.merged(base, more) for more in recipes.structures(program)]
        layers += [recipes.merged(base, draw) for draw in recipes.draws(3)]
        changes = [
            recipes.merged(layer, rate)
            for rate in list(recipes.rates(program, base))
            for layer in layers
        ]
        steps = self._long(base)
        change = self._prober().best(changes, rounds(steps))
        return (change, steps) if self._bears(first, change, steps) else None

    def _against_heart(self, base: Change) -> tuple[Change, int]:
        """The penalty, dropout or number of epochs with which rows held out are answered best."""
        changes = [recipes.merged(base, more) for more in recipes.penalties(self.program)]
        steps = self._told_steps()
        plan = [(len(changes), -(-steps // 4)), (3, steps)]
        return self._prober().best(changes, plan), steps

    def _bears(self, first: Outcome, change: Change, steps: int) -> bool:
        """Whether rows that are held out bear the second change, and do not suffer from it.

        A longer training may only learn by heart what is noise.
        """
        rows = len(inputs_of(self.program))
        if rows < HELD_OUT_FROM or first.error > 0.9:
            return True
        rest, held = parted(self.program)
        judged = Rows.of(held.X, held.y, held.loss, self.rows.balanced)
        prober = Prober(rest, judged, SECONDS)
        before = prober.train(first.change, first.steps).error
        return prober.train(change, steps).error <= before + WORSE

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
        """Probes of rows as they are judged; of those held out, where rows are learned by heart."""
        program, rows = self.program, self.rows
        if self.by_heart and not isinstance(program.validation, tuple):
            program, held = parted(program)
            rows = Rows.of(held.X, held.y, held.loss, rows.balanced)
        return Prober(program, rows.some(), SECONDS)

    def _told_steps(self) -> int:
        return self.program.epochs * self._an_epoch()

    def _an_epoch(self) -> int:
        return -(-len(inputs_of(self.program)) // self.program.batch_size)

    def _long(self, change: Change) -> int:
        """Return the steps of a training that is not too short, as far as time allows."""
        told = self._told_steps()
        epochs = max((a.epochs for a in change if isinstance(a, Epochs)), default=0)
        steps = max(min(max(LONGER * told, epochs * self._an_epoch()), MOST_STEPS), LEAST_STEPS)
        history = self.told.history
        if history.epochs:
            second = sum(history.seconds) / (history.epochs * self._an_epoch())
            steps = min(steps, int(SECONDS / max(second, 1e-9)))
        return max(steps, told)

    def _rows(self) -> Rows:
        program = self.program
        X, y = program.X, program.y
        if self.by_heart and isinstance(program.validation, tuple):
            X, y = program.validation[:2]
        return Rows.of(X, y, program.loss, balanced="class_imbalance" in self.kinds)

    # --- words ---

    def _none(self, trainings: int = 0) -> Cure:
        before = measured(self.told, self.program)
        if not self.verdicts:
            what = "nothing was changed: the training is well"
        elif self.kinds <= OF_DATA:
            what = "nothing was changed: no change of the program mends data; look at X and y"
        else:
            what = "nothing that was tried made the training better"
        return Cure(what, before, before, self.told, False, trainings)

    def _words(self, outcome: Outcome) -> str:
        clauses = [action.sentence() for action in outcome.change]
        clauses.append(f"train for {outcome.steps:,} steps, the rate falling to zero")
        code = [line for action in outcome.change for line in action.code()]
        return "\n".join(["; ".join(clauses).capitalize() + ".", "", *code])


def rounds(steps: int) -> list[tuple[int, int]]:
    """Return how many changes enter each round of probes of a training, and for how many steps."""
    return [(count, min(max(least, round(part * steps)), steps)) for count, part, least in ROUNDS]


def measured(trainer: Trainer, program: Program) -> dict[str, float]:
    """Return what ``evaluate`` reports, by the loss that was told and in its units."""
    rows = Rows.of(program.X, program.y, program.loss)
    metric: Any = "accuracy" if program.loss.takes_labels else "r2"

    def accuracy(prediction: Array, target: Array) -> float:
        """Share of right answers."""
        answer = answers(prediction, rows.task, trainer.loss)
        return float((answer == decided(target, rows.task)).mean())

    if rows.task.counts and not program.loss.takes_labels:
        metric = accuracy
    judge = Trainer(trainer.model, program.loss, trainer.optimizer, metrics=[metric], record=False)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return judge.evaluate(program.X, program.y)
