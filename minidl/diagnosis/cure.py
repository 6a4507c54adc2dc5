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
from minidl.diagnosis.remedies.probing import Change, Outcome, Prober
from minidl.diagnosis.remedies.standing import Rows, standing
from minidl.diagnosis.remedies.surgery import NotApplicableError
from minidl.diagnosis.task import answers, decided
from minidl.diagnosis.verdict import Verdict
from minidl.nn.checks import check_count
from minidl.training import Trainer
from minidl.typing import Array

# Kinds of which a person must take care: no change of the program mends the data.
OF_DATA = frozenset({"nothing_to_learn", "data_error"})
GOOD = 0.02  # an error after which no second training is made
# Steps of a training: at least twice as many as were told, and no fewer than what a small network
# needs to learn XOR or to add two numbers of a sequence.
LONGER, LEAST_STEPS, MOST_STEPS = 2, 4000, 20_000
SECONDS = 20.0  # of a training, unless the one that was told took longer
# Rounds of probes: changes that enter, and the part of a training's steps that each gets.
ROUNDS = ((40, 1 / 25), (8, 1 / 8), (3, 1 / 4))
REST = 0.25  # of the rows, held out where a program learns by heart


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
        What ``evaluate`` reports of the training as it was told, and of the cured one: the loss that
        was told, and metrics, in the units of the targets that were given.
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
        self.steps = self._steps()
        self.prober = Prober(self._probed(), self.rows, SECONDS)

    def find(self, trainings: int) -> Cure:
        """Train at most so many times, and return the best."""
        if not self.verdicts or self.kinds <= OF_DATA:
            return self._none()
        outcomes: list[Outcome] = []
        for number in range(trainings):
            change = self._first() if number == 0 else self._second(outcomes)
            outcomes.append(self._trained(change))
            if outcomes[-1].error < GOOD:
                break
        best = min(outcomes, key=lambda outcome: outcome.error)
        if best.trainer is None or best.error >= self.error:
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

    def _first(self) -> Change:
        """What the verdicts prescribe, with the scales, the rate and the epochs that go with it."""
        task = self.rows.task
        base = recipes.prescribed(self.verdicts)
        base = recipes.keeping_meaning(base, self.program, task)
        base = self._applicable(recipes.merged(recipes.scaling(self.program, task), base))
        if self.by_heart:
            changes = [recipes.merged(base, more) for more in recipes.penalties(self.program)]
            return self.prober.best(changes, [(len(changes), self.steps)])
        changes = [recipes.merged(base, rate) for rate in recipes.rates(self.program, base)]
        return self.prober.best(changes, self._rounds())

    def _second(self, outcomes: Sequence[Outcome]) -> Change:
        """What usually makes a program train: other layers, draws and rates on top of the first."""
        first = outcomes[0].change
        if self.by_heart:
            return first
        base = self._applicable(recipes.merged(first, recipes.usual(self.program, self.rows.task)))
        layers = [recipes.merged(base, more) for more in recipes.structures(self.program)]
        layers += [recipes.merged(base, draw) for draw in recipes.draws(3)]
        changes = [
            recipes.merged(layer, rate)
            for layer in layers
            for rate in list(recipes.rates(self.program, base))
        ]
        return self.prober.best(changes, self._rounds())

    def _rounds(self) -> list[tuple[int, int]]:
        return [(count, max(1, round(part * self.steps))) for count, part in ROUNDS]

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

    def _trained(self, change: Change) -> Outcome:
        longer = next((a.epochs for a in change if isinstance(a, Epochs)), 0)
        steps = max(self.steps, longer * self._an_epoch()) if not self.by_heart else self.steps
        prober = Prober(self.program, self.rows, SECONDS)
        return prober.train(change, steps)

    # --- how long, and on which rows ---

    def _an_epoch(self) -> int:
        return -(-len(inputs_of(self.program)) // self.program.batch_size)

    def _steps(self) -> int:
        """Return the steps of a training."""
        told = self.program.epochs * self._an_epoch()
        if self.by_heart:
            return told
        steps = min(max(LONGER * told, LEAST_STEPS), max(MOST_STEPS, told))
        history = self.told.history
        if history.epochs:
            second = sum(history.seconds) / (history.epochs * self._an_epoch())
            steps = min(steps, max(told, int(SECONDS / max(second, 1e-9))))
        return steps

    def _rows(self) -> Rows:
        program = self.program
        X, y = program.X, program.y
        if self.by_heart and isinstance(program.validation, tuple):
            X, y = program.validation[:2]
        return Rows.of(X, y, program.loss, balanced="class_imbalance" in self.kinds)

    def _probed(self) -> Program:
        return self.program

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
