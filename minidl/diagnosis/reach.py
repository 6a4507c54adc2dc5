"""What can be reached: the training as told beside the best that trials come to."""

from __future__ import annotations

import time
from collections.abc import Iterator
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
from minidl.nn import BCEWithLogitsLoss
from minidl.training.data import Data

# How much of the error that a useless answer has must be gained, on held-out rows too, before a
# training counts as far from what it can reach. A healthy one gains less by twice its epochs.
FAR = 0.15
# The same where a strong suspicion makes the rows that were trained on tell enough.
FAR_TRAINED = 0.25
FAR_ORDER = 0.05  # the same for rows that are sorted, and not shuffled
NEAR = 0.03  # an error that nobody need ask about
# An error from which on nothing has been learned, and the share of the variance that a simple
# predictor explains from which on there is something to learn for certain.
USELESS, EXPLAINED = 0.9, 0.3
WORST = 1.2  # beyond, an answer is useless, however far
REACH_STEPS = 800  # of training that are enough to see what a small net can reach
SHARE_OF_TIME = 0.4  # that is left, which one training with what usually helps may take
ADAM_RATES = (0.01, 0.001)
OF_OTHER_ERRORS = ("overfitting", "class_imbalance")  # judged by held-out rows, and by class


@dataclass
class Clock:
    """The time that trials may take, of the processor: other programs change no verdict."""

    limit: float
    began: float = field(default_factory=time.process_time)

    @property
    def left(self) -> float:
        """The seconds that are left."""
        return self.limit - (time.process_time() - self.began)


class Reach:
    """Finds out how far a training is from what can be reached.

    Parameters
    ----------
    trials
        Repeats the training.
    fixed
        Changes that are certainly needed; all others are tried on top of them.
    clock
        The time there is.
    trained
        What the training as told came to, on the rows that it has seen.
    """

    def __init__(self, trials: Trials, fixed: Change, clock: Clock, trained: Outcome) -> None:
        self.trials, self.fixed, self.clock, self.trained = trials, fixed, clock, trained
        self.suspicions: list[Suspicion] = []
        self.recipe: Change = ()
        self.asked = False  # whether what usually helps was tried
        first = trials.run(*merged(*fixed), curve=True)
        self.outcomes: list[Outcome] = [first]
        self.told = first
        # A training that comes out otherwise with a few rows less is as bad as the worse of the
        # two; one whose trials are cut short, as good as it came out in the end.
        self.unsteady = not fixed and score(trained) - score(first) > FAR
        if not fixed and (self.unsteady or trials.share < 1):
            held = max(first.held, trained.held) if self.unsteady else trained.held
            self.told = replace(first, error=trained.error, held=held, finite=trained.finite)
        elif not fixed and trained.error < NEAR and first.error - trained.error > FAR:
            # The rows of the trial were too few; those held out gain as those trained on.
            gained = first.error - trained.error
            self.told = replace(first, error=trained.error, held=max(first.held - gained, 0.0))

    # --- trials ---

    def attempt(self, *actions: Action) -> Outcome:
        """Train with these changes, on top of those that are certainly needed."""
        outcome = self.trials.run(*merged(*self.fixed, *actions))
        self.outcomes.append(outcome)
        return outcome

    def affords(self, change: Change = ()) -> bool:
        """Whether there is time for a trial of this change, or its outcome is known."""
        if self.knows(change):
            return True
        epochs = self.trials.program.epochs
        factors = [a.epochs / epochs for a in change if isinstance(a, Epochs)]
        return self.outcomes[0].seconds * max(factors, default=1.0) < self.clock.left

    def knows(self, change: Change) -> bool:
        """Whether the outcome of a change is known."""
        return self.trials.knows(*merged(*self.fixed, *change))

    @property
    def best(self) -> Outcome:
        """The best outcome so far."""
        return min(self.outcomes, key=score)

    def way(self, outcome: Outcome, strong: bool = False) -> float:
        """Return the share of the way from the training as told to the best that an outcome goes.

        For what is strongly suspected, the rows that were trained on may tell it alone.
        """
        told, best = self.told, self.best
        share = (score(told) - score(outcome)) / max(score(told) - score(best), 1e-9)
        if strong and outcome.finite:
            least = min(capped(o.error) for o in self.outcomes if o.finite)
            gained = capped(told.error) - capped(outcome.error)
            if gained > FAR_TRAINED:
                share = max(share, gained / max(capped(told.error) - least, 1e-9))
        return float(share)

    def noise(self, *errors: float) -> float:
        """Return two standard errors of the difference of two errors on the held-out rows."""
        held = self.trials.rows.held
        count = 1 if held is None else answers_of(held)
        spread = [min(max(e * (2 - e), 0.05), 1.0) for e in errors]
        return float(2 * np.sqrt(sum(spread) / 2 / count))

    # --- what can be reached ---

    def reach(self) -> None:
        """Train with what is strongly suspected, and with all that usually helps."""
        if self.told.error < NEAR:
            return
        for suspicion in self.suspicions:
            strong = suspicion.strength >= 1 and suspicion.kind not in OF_OTHER_ERRORS
            fading = suspicion.over_time and suspicion.kind == "vanishing_gradient"
            if (strong or fading) and self.affords():
                self.attempt(*suspicion.changes[0])
        for recipe in self._recipes():
            if self.best.error < NEAR and not self.best.held > 0.1:
                break
            if self.affords(recipe):
                outcome = self.attempt(*recipe)
                self.asked = True
                if outcome is self.best:
                    self.recipe = recipe

    def _recipes(self) -> Iterator[Change]:
        """Yield what usually helps: scales, first weights, Adam, steps enough; then structure."""
        program = self.trials.program
        steps = program.epochs * -(-len(self.trials.rows.trained) // program.batch_size)
        longer = max(1, min(-(-REACH_STEPS // steps), self._affordable()))
        common: list[Action] = [ScaleInputs(), Reinitialise()]
        if self.trials.task.kind == "numbers" and not isinstance(program.loss, BCEWithLogitsLoss):
            common.append(ScaleTargets())
        common += [Shuffle()] * (not program.shuffle)
        common += [Epochs(longer * program.epochs)] * (longer > 1)
        for rate in ADAM_RATES:
            yield (*common, UseOptimizer("Adam", rate))
        for suspicion in self.suspicions:
            if suspicion.kind == "output_mismatch":
                yield (*common, UseOptimizer("Adam", ADAM_RATES[0]), *suspicion.changes[0])
            if suspicion.kind in ("vanishing_gradient", "saturated_units", "dead_units"):
                for change in suspicion.changes[-2:]:
                    for rate in ADAM_RATES:
                        yield (*common, UseOptimizer("Adam", rate), *change)

    def _affordable(self) -> int:
        """Return how many times as long a training may be that takes its share of the time left."""
        return int(SHARE_OF_TIME * self.clock.left / max(self.outcomes[0].seconds, 1e-9))

    @property
    def far(self) -> bool:
        """Whether the training as told is far from the best that is known."""
        told, best = self.told, self.best
        gain = (told.error if told.finite else WORST) - best.error
        if told.error < NEAR or gain < FAR_ORDER:
            return False
        gain_held = gain if np.isnan(told.held) else capped(told.held) - capped(best.held)
        noise = 0.0 if np.isnan(told.held) else self.noise(told.held, best.held)
        strong = {s.kind for s in self.suspicions if s.strength >= 1}
        if "not_shuffled" in strong and gain_held > max(FAR_ORDER, noise / 2):
            return True
        if gain_held > max(FAR, noise) and gain > 0.67 * FAR:
            return True
        if told.error > USELESS and gain > 2 * FAR_TRAINED and gain_held > FAR:
            return True  # of a few rows held out, noise hides what the others show
        return bool(strong) and gain > FAR_TRAINED and score(told) - score(best) > FAR_ORDER

    def idle(self, explained: float) -> bool:
        """Whether nothing is learned of what simple predictors explain, whatever is changed."""
        return self.told.error > USELESS and explained > EXPLAINED


def score(outcome: Outcome) -> float:
    """Return the error of an outcome: the mean over rows trained on and held out."""
    error = capped(outcome.error) if outcome.finite else WORST
    return error if np.isnan(outcome.held) else (error + capped(outcome.held)) / 2


def capped(error: float) -> float:
    """Return the error, but no more than that of a useless answer."""
    return float(min(error, WORST)) if np.isfinite(error) else WORST


def answers_of(data: Data) -> int:
    """Return how many answers are asked for: of sequences with a target for each step, all."""
    return len(data) if data.targets.ndim < 3 else len(data) * data.targets.shape[1]


def merged(*actions: Action) -> Change:
    """Return actions without those that a later one of the same kind replaces."""
    kept: dict[type[Action], Action] = {}
    for action in actions:
        kind = SetLearningRate if isinstance(action, UseOptimizer) else type(action)
        before = kept.pop(kind, None)
        if isinstance(action, ReplaceHead) and isinstance(before, ReplaceHead):
            head = before.head if action.head is None else action.head
            action = ReplaceHead(head, before.loss if action.loss is None else action.loss)
        kept[kind] = action
    return tuple(kept.values())
