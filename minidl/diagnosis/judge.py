"""The judge: from suspicions to verdicts, by trials.

A training is judged by what can be reached with the same rows and the same model. If it comes close
to that, it is well, however it looks. If not, each suspicion is tried: one change at a time, from the
same weights. What goes most of the way alone is the cause; where nothing does, all changes are made
together, and those that cannot be left out are the causes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from minidl.diagnosis.remedies.actions import (
    Action,
    Epochs,
    Reinitialise,
    ReplaceHead,
    ScaleInputs,
    ScaleTargets,
    SetLearningRate,
    Shuffle,
    UseOptimizer,
)
from minidl.diagnosis.rules.suspicion import Change, Suspicion
from minidl.diagnosis.trials import Outcome, Trials
from minidl.training.data import Data
from minidl.diagnosis.verdict import KINDS, Verdict
from minidl.nn import BCEWithLogitsLoss

# How much of the error that a useless answer has must be gained, on held-out rows too, before a
# training counts as far from what it can reach.
FAR = 0.15
# The same where no rows can be held out, or where a strong suspicion makes the rows that were trained
# on tell enough.
FAR_TRAINED = 0.25
FAR_HELD = 0.1  # the same for a restraint, which only held-out rows gain by
NEAR = 0.03  # an error that nobody need ask about
# Share of the way from the training as told to the best known that a change must go alone.
CURES = 0.75
HELPS = 0.3
WORST = 1.2  # beyond, an answer is useless, however far
REACH_STEPS = 800  # of training that are enough to see what a small net can reach
OF_OTHER_ERRORS = ("overfitting", "class_imbalance")  # judged by held-out rows, and by class
ADAM_RATES = (0.01, 0.001)


@dataclass
class Clock:
    """The time that trials may take."""

    limit: float
    began: float = field(default_factory=time.perf_counter)

    @property
    def left(self) -> float:
        """Seconds."""
        return self.limit - (time.perf_counter() - self.began)

    def affords(self, seconds: float) -> bool:
        """Whether so many seconds are left."""
        return seconds < self.left


class Judge:
    """Tries suspicions.

    Parameters
    ----------
    trials
        Repeats the training.
    suspicions
        In the order in which they are believed, where several do.
    fixed
        Changes that are certainly needed; all others are tried on top of them.
    clock
        The time there is.
    """

    def __init__(
        self,
        trials: Trials,
        suspicions: Sequence[Suspicion],
        fixed: Change,
        clock: Clock,
    ) -> None:
        self.trials, self.suspicions, self.fixed, self.clock = trials, suspicions, fixed, clock
        self.outcomes: list[Outcome] = []
        self.told = trials.run(*merged(*fixed), curve=True)
        self.outcomes.append(self.told)
        self.slowest = self.told.seconds

    # --- trials ---

    def _try(self, *actions: Action) -> Outcome:
        outcome = self.trials.run(*merged(*self.fixed, *actions))
        self.outcomes.append(outcome)
        self.slowest = max(getattr(self, "slowest", 0.0), outcome.seconds)
        return outcome

    def _affords(self, change: Change) -> bool:
        factor = 1.0
        program = self.trials.program
        for action in change:
            if isinstance(action, Epochs):
                factor *= action.epochs / program.epochs
        return self.clock.affords(self.told.seconds * factor)

    # --- what can be reached ---

    def reach(self) -> Outcome:
        """Train with all that usually helps, and return the best outcome of all trials."""
        if self.told.error < NEAR:
            return self.told
        program = self.trials.program
        steps = program.epochs * -(-len(self.trials.rows.trained) // program.batch_size)
        longer = max(1, -(-REACH_STEPS // steps))
        recipe: list[Action] = [ScaleInputs(), Reinitialise()]
        if self.trials.task.kind == "numbers" and not isinstance(program.loss, BCEWithLogitsLoss):
            recipe.append(ScaleTargets())
        recipe += [Shuffle()] * (not program.shuffle)
        recipe += [Epochs(longer * program.epochs)] * (longer > 1)
        heads = [c for s in self.suspicions if s.kind == "output_mismatch" for c in s.changes][:1]
        variants: list[list[Action]] = [[UseOptimizer("Adam", rate)] for rate in ADAM_RATES]
        variants += [[UseOptimizer("Adam", ADAM_RATES[0]), *head] for head in heads]
        for suspicion in self.suspicions:
            if suspicion.kind in ("vanishing_gradient", "saturated_units", "dead_units"):
                variants += [
                    [UseOptimizer("Adam", rate), *change]
                    for change in suspicion.changes[-2:]
                    for rate in ADAM_RATES
                ]
        for suspicion in self.suspicions:
            if suspicion.kind in OF_OTHER_ERRORS or suspicion.strength < 1:
                continue
            if self._affords(()):
                self._try(*suspicion.changes[0])
        for variant in variants:
            if self.best().error < NEAR and not self.best().held > 0.1:
                break
            if self._affords((Epochs(longer * program.epochs),)):
                self._try(*recipe, *variant)
        return self.best()

    def best(self) -> Outcome:
        """Return the best outcome so far."""
        return min(self.outcomes, key=score)

    def far(self, told: Outcome, best: Outcome) -> bool:
        """Whether the training as told is far from the best that is known."""
        gain = told.error - best.error if told.finite else WORST - best.error
        if told.error < NEAR or gain < FAR * (0.67 if told.finite else 0):
            return False
        strong = max((s.strength for s in self.suspicions), default=0.0) >= 1
        if np.isnan(told.held):
            return gain > FAR
        gain_held = capped(told.held) - capped(best.held)
        noise = self.noise(told.held, best.held)
        if gain_held > max(FAR, noise):
            return True
        return strong and gain > FAR_TRAINED and score(told) - score(best) > 0.1

    def noise(self, *errors: float) -> float:
        """Two standard errors of the difference of two errors on the held-out rows."""
        held = self.trials.rows.held
        count = 1 if held is None else answers_of(held)
        spread = [min(max(e * (2 - e), 0.05), 1.0) for e in errors]
        return float(2 * np.sqrt(sum(spread) / 2 / count))

    # --- what cures ---

    def causes(self, told: Outcome, best: Outcome) -> Iterator[tuple[Suspicion, Change, float]]:
        """Yield suspicions with the change that cures alone, or is needed where none does."""
        tried: list[tuple[Suspicion, Change, float]] = []
        for suspicion in self.suspicions:
            if suspicion.kind in OF_OTHER_ERRORS:
                continue
            found = self._best_change(suspicion, told, best)
            if found is not None:
                tried.append((suspicion, *found))
        best = self.best()
        tried = [(s, c, self.way(told, o, best)) for s, c, o in tried]  # type: ignore[misc]
        alone = [item for item in tried if item[2] >= CURES]
        if alone:
            yield from sorted(alone, key=believed)
            return
        needed = list(self._needed(told, tried))
        yield from needed or sorted(
            (item for item in tried if item[2] >= HELPS), key=lambda item: -item[2]
        )

    def by_evidence(self) -> Iterator[Verdict]:
        """Yield the strongest suspicion where no trial could show the cause."""
        strong = [s for s in self.suspicions if s.strength >= 1]
        if strong:
            s = max(strong, key=lambda s: s.strength)
            remedy = ", and ".join(action.sentence() for action in s.changes[0])
            yield Verdict(
                s.kind, s.layer, s.evidence, None, remedy, s.changes[0][0], s.statement
            )
        elif self.told.error > 0.9:
            yield Verdict(
                "not_learning", "", {"error": self.told.error},
                statement="it does not learn, and nothing that was tried alone changes that",
                remedy=f"its error is {self.told.error:.2f} of that of one answer for all rows",
            )  # fmt: skip

    def rare_class(self) -> Iterator[tuple[Suspicion, Change, float]]:
        """Yield the suspicion of a rare class, if weighting the classes helps it."""
        for suspicion in self.suspicions:
            if suspicion.kind == "class_imbalance" and self._affords(()):
                outcome = self._try(*suspicion.changes[0])
                gain = self.told.balanced - outcome.balanced
                gain_held = self.told.held_balanced - outcome.held_balanced
                if gain > FAR and (np.isnan(gain_held) or gain_held > FAR):
                    yield suspicion, suspicion.changes[0], gain

    def overfitting(self) -> Iterator[tuple[Suspicion, Change, float]]:
        """Yield the suspicion of learning by heart, if a restraint helps the rows held out."""
        for suspicion in self.suspicions:
            if suspicion.kind != "overfitting":
                continue
            best, least = (), self.told.held
            for change in suspicion.changes:
                if self._affords(change):
                    outcome = self._try(*change)
                    if outcome.held < least:
                        best, least = change, outcome.held
            gain = self.told.held - least
            if best and gain > max(FAR_HELD, FAR_HELD * self.told.held, self.noise(self.told.held, least) / 2):
                yield suspicion, best, gain

    def _best_change(
        self, suspicion: Suspicion, told: Outcome, best: Outcome
    ) -> tuple[Change, Outcome] | None:
        found: tuple[Change, Outcome] | None = None
        for change in suspicion.changes:
            if not self._affords(change):
                break
            outcome = self._try(*change)
            if found is None or score(outcome) < score(found[1]):
                found = change, outcome
            if self.way(told, outcome, min(best, self.best(), key=score)) >= 0.9:
                break
        return found

    def _needed(
        self, told: Outcome, tried: Sequence[tuple[Suspicion, Change, float]]
    ) -> Iterator[tuple[Suspicion, Change, float]]:
        """Yield what cannot be left out of all changes together."""
        together = [item for item in tried if item[0].kind not in ("exploding_gradient",)]
        together = one_of_each(together)
        if len(together) < 2 or not self._affords(tuple(a for _, c, _ in together for a in c)):
            return
        everything = self._try(*(action for _, change, _ in together for action in change))
        best = self.best()
        if self.way(told, everything, best) < HELPS:
            return
        for left_out in together:
            rest = tuple(a for item in together if item is not left_out for a in item[1])
            if not self._affords(rest):
                return
            loss = score(self._try(*rest)) - score(everything)
            share = loss / max(score(told) - score(best), 1e-9)
            if share > HELPS:
                yield (*left_out[:2], share)

    def way(self, told: Outcome, outcome: Outcome, best: Outcome) -> float:
        """Return the share of the way from told to best that an outcome goes."""
        return (score(told) - score(outcome)) / max(score(told) - score(best), 1e-9)


def score(outcome: Outcome) -> float:
    """Return the error of an outcome: the mean over rows trained on and held out."""
    error = capped(outcome.error) if outcome.finite else WORST
    return error if np.isnan(outcome.held) else (error + capped(outcome.held)) / 2


def answers_of(data: Data) -> int:
    """Return how many answers are asked for: of sequences with a target for each step, all."""
    return len(data) if data.targets.ndim < 3 else len(data) * data.targets.shape[1]


def capped(error: float) -> float:
    """Return the error, but no more than that of a useless answer."""
    return float(min(error, WORST)) if np.isfinite(error) else WORST


# Where several changes cure alone, the one for which there is the best reason comes first: what is
# strongly suspected by numbers of data or first weights, then what shows in the course.
ORDER = (
    "output_mismatch", "not_shuffled", "unscaled_targets", "unscaled_inputs", "bad_initialization",
    "vanishing_gradient", "exploding_gradient", "learning_rate_too_high", "not_finite", "saturated_units",
    "dead_units", "learning_rate_too_low", "stopped_early", "class_imbalance", "overfitting",
)  # fmt: skip


def believed(item: tuple[Suspicion, Change, float]) -> tuple[float, ...]:
    """Return a key by which causes that cure alone are sorted, the most believed first."""
    suspicion, _, share = item
    return (ORDER.index(suspicion.kind), -share)


def merged(*actions: Action) -> tuple[Action, ...]:
    """Return actions without those that a later one of the same kind replaces."""
    kept: dict[type[Action], Action] = {}
    rate: Action | None = None
    for action in actions:
        if isinstance(action, (SetLearningRate, UseOptimizer)):
            rate = action
            continue
        if isinstance(action, ReplaceHead) and type(action) in kept:
            before = kept[type(action)]
            assert isinstance(before, ReplaceHead)
            action = replace(
                before,
                head=before.head if action.head is None else action.head,
                loss=before.loss if action.loss is None else action.loss,
            )
        kept[type(action)] = action
    return (*kept.values(), *([rate] if rate else []))


def one_of_each(
    tried: Sequence[tuple[Suspicion, Change, float]],
) -> list[tuple[Suspicion, Change, float]]:
    """Return suspicions that do not contradict one another: one learning rate, one activation."""
    found: list[tuple[Suspicion, Change, float]] = []
    rates = [item for item in tried if item[0].kind.startswith("learning_rate")]
    best_rate = max(rates, key=lambda item: item[2], default=None)
    for item in tried:
        if item in rates and item is not best_rate:
            continue
        if any(item[0].kind == other[0].kind for other in found):
            continue
        found.append(item)
    return found


__all__ = ["KINDS", "Clock", "Judge", "Verdict", "score"]
