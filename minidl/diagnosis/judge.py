"""The judge: from suspicions to causes, by trials.

A training is judged by what can be reached with the same rows and the same model. If it comes close
to that, it is well, however it looks. If not, each suspicion is tried: one change at a time, from
the same weights. What goes most of the way alone is the cause; where nothing does, all changes are
made together, and those that cannot be left out are the causes.
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
from minidl.nn import BCEWithLogitsLoss
from minidl.training.data import Data

# How much of the error that a useless answer has must be gained, on held-out rows too, before a
# training counts as far from what it can reach. A healthy one gains less by twice its epochs.
FAR = 0.15
# The same where a strong suspicion makes the rows that were trained on tell enough.
FAR_TRAINED = 0.25
FAR_HELD = 0.1  # the same for a restraint, which only held-out rows gain by
# The same where no rows were given to validate on, and answers to others are better than poor.
FAR_UNASKED, POOR = 0.4, 0.8
FAR_ORDER = 0.05  # the same for rows that are sorted, and not shuffled
NEAR = 0.03  # an error that nobody need ask about
# Share of the way from the training as told to the best known that a change must go alone; of one
# that is strongly suspected, and of one that is needed beside others.
CURES, CURES_IF_STRONG, HELPS = 0.75, 0.6, 0.3
NEARLY_ALL = 0.9  # the same, from which on nothing else need be tried
FURTHER = 0.2  # what a change must go further, to stand before one of better reason
# An error from which on nothing has been learned, and the share of the variance that a simple
# predictor explains from which on there is something to learn for certain.
USELESS, EXPLAINED = 0.9, 0.3
WORST = 1.2  # beyond, an answer is useless, however far
REACH_STEPS = 800  # of training that are enough to see what a small net can reach
ADAM_RATES = (0.01, 0.001)
OF_OTHER_ERRORS = ("overfitting", "class_imbalance")  # judged by held-out rows, and by class
# Where several changes cure alone, the one for which there is the best reason comes first: what
# numbers of the data or the first weights tell, then gradients, then what any training might gain
# by.
ORDER = (
    "output_mismatch", "not_shuffled", "unscaled_targets", "unscaled_inputs", "bad_initialization",
    "vanishing_gradient", "exploding_gradient", "learning_rate_too_high", "not_finite",
    "saturated_units", "dead_units", "learning_rate_too_low", "stopped_early", "class_imbalance",
    "overfitting",
)  # fmt: skip


@dataclass
class Clock:
    """The time that trials may take, of the processor: other programs change no verdict."""

    limit: float
    began: float = field(default_factory=time.process_time)

    def affords(self, seconds: float) -> bool:
        """Whether so many seconds are left."""
        return seconds < self.limit - (time.process_time() - self.began)


@dataclass(frozen=True)
class Cause:
    """A suspicion that a trial has confirmed.

    Attributes
    ----------
    suspicion
        What was suspected.
    change
        What cures it, alone or as a part.
    share
        Which share of the way to the best that is known it goes; NaN where no trial told.
    """

    suspicion: Suspicion
    change: Change
    share: float = float("nan")

    @property
    def kind(self) -> str:
        """What is suspected."""
        return self.suspicion.kind


class Judge:
    """Tries suspicions.

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
        return self.clock.affords(self.outcomes[0].seconds * max(factors, default=1.0))

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
            if strong and self.affords():
                self.attempt(*suspicion.changes[0])
        for recipe in self._recipes():
            if self.best.error < NEAR and not self.best.held > 0.1:
                break
            if self.affords(recipe):
                outcome = self.attempt(*recipe)
                if outcome is self.best:
                    self.recipe = recipe

    def _recipes(self) -> Iterator[Change]:
        """Yield what usually helps: scales, first weights, Adam, steps enough; then structure."""
        program = self.trials.program
        steps = program.epochs * -(-len(self.trials.rows.trained) // program.batch_size)
        longer = max(1, -(-REACH_STEPS // steps))
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
        return bool(strong) and gain > FAR_TRAINED and score(told) - score(best) > FAR_ORDER

    # --- what cures ---

    def causes(self) -> list[Cause]:
        """Return what cures alone; else what is needed; else what helps; else nothing."""
        tried = self._tried()
        strong = {id(c) for c in tried if c.suspicion.strength >= 1}
        if broken := self._broken_loss(tried):
            return [broken]
        alone = [c for c in tried if c.share >= (CURES_IF_STRONG if id(c) in strong else CURES)]
        if alone:
            first = foremost(alone)
            either = ("learning_rate_too_low", "stopped_early")
            return [c for c in alone if c is first or (first.kind in either and c.kind in either)]
        return (
            list(self._needed(tried))
            or list(self._parts_of_recipe())
            or sorted((c for c in tried if c.share >= HELPS), key=lambda c: -c.share)
        )

    def _broken_loss(self, tried: Sequence[Cause]) -> Cause | None:
        """Return the suspicion of a loss that is no number although every output is one.

        Whatever else helps a little only keeps away from there, unless it cures alone.
        """
        if any(cause.share >= NEARLY_ALL and cause.kind != "not_finite" for cause in tried):
            return None
        for cause in tried:
            if cause.kind == "not_finite":
                return cause if cause.share >= HELPS else replace(cause, share=float("nan"))
        broken = [s for s in self.suspicions if s.kind == "not_finite"]
        return Cause(broken[0], broken[0].changes[0]) if broken else None

    def _tried(self) -> list[Cause]:
        """Try suspicions in order, until one cures alone."""
        found: list[tuple[Suspicion, Change, Outcome]] = []
        for suspicion in sorted(self.suspicions, key=believed):
            if suspicion.kind in OF_OTHER_ERRORS:
                continue
            best = self._best_change(suspicion)
            if best is not None:
                found.append((suspicion, *best))
                cured = self.way(best[1], suspicion.strength >= 1) >= NEARLY_ALL
                if cured and suspicion.kind != "learning_rate_too_low":
                    break
        causes = [Cause(s, c, self.way(o, s.strength >= 1)) for s, c, o in found]
        return credited(causes)

    def _best_change(self, suspicion: Suspicion) -> tuple[Change, Outcome] | None:
        """Try the changes of a suspicion until one cures, or there is no hope of the others."""
        found: tuple[Change, Outcome] | None = None
        for change in suspicion.changes:
            if not self.affords(change):
                break
            outcome = self.attempt(*change)
            if found is None or score(outcome) < score(found[1]):
                found = change, outcome
            lower = suspicion.kind == "learning_rate_too_high" and suspicion.strength < 1
            if lower and self._worse(outcome):
                break  # still lower ones are worse still
            if self.way(outcome) >= NEARLY_ALL:
                break
        return found

    def _worse(self, outcome: Outcome) -> bool:
        """Whether an outcome is clearly worse than that of the training as told."""
        return self.told.finite and outcome.error > 1.02 * self.told.error + 0.01

    def _needed(self, tried: Sequence[Cause]) -> Iterator[Cause]:
        """Yield what cannot be left out of all changes together."""
        together = one_of_each(tried)
        everything = [action for cause in together for action in cause.change]
        if len(together) < 2 or not self.affords(tuple(everything)):
            return
        outcome = self.attempt(*everything)
        if self.way(outcome) < CURES:
            return
        for left_out in together:
            rest = tuple(a for cause in together if cause is not left_out for a in cause.change)
            if not self.affords(rest):
                return
            lost = self.way(outcome) - self.way(self.attempt(*rest))
            if lost > HELPS:
                yield replace(left_out, share=lost)

    def _parts_of_recipe(self) -> Iterator[Cause]:
        """Yield what cannot be left out of the recipe that reached most."""
        if not self.recipe:
            return
        whole = self.attempt(*self.recipe)
        found = []
        for action in self.recipe:
            rest = tuple(a for a in self.recipe if a is not action)
            if not self.affords(rest):
                break
            lost = self.way(whole) - self.way(self.attempt(*rest))
            if lost > HELPS:
                found += [replace(c, share=lost) for c in self._of_part(action)]
        yield from sorted(found, key=lambda cause: ORDER.index(cause.kind))

    def _of_part(self, action: Action) -> Iterator[Cause]:
        """Yield the suspicion that a part of the recipe answers."""
        program = self.trials.program
        wanted = {
            ScaleInputs: ("unscaled_inputs",),
            ScaleTargets: ("unscaled_targets",),
            Shuffle: ("not_shuffled",),
            Epochs: ("stopped_early",),
            Reinitialise: ("bad_initialization", "exploding_gradient", "vanishing_gradient",
                           "saturated_units", "dead_units"),
        }.get(type(action), ())  # fmt: skip
        if isinstance(action, UseOptimizer):
            rises = any(s.strength >= 1 for s in self.suspicions if s.kind.endswith("too_high"))
            same = type(program.optimizer).__name__ == action.name
            higher = action.lr > program.optimizer.lr if same else not rises
            wanted = ("learning_rate_too_low" if higher else "learning_rate_too_high",)
            if same and action.lr == program.optimizer.lr:
                return
        elif not wanted:  # structure
            wanted = ("vanishing_gradient", "saturated_units", "dead_units", "output_mismatch")
        for kind in wanted:
            for suspicion in self.suspicions:
                if suspicion.kind == kind:
                    yield Cause(suspicion, (action,))
                    return

    def idle(self, explained: float) -> bool:
        """Whether nothing is learned of what simple predictors explain, whatever is changed."""
        return self.told.error > USELESS and explained > EXPLAINED

    def by_evidence(self) -> Iterator[Cause]:
        """Yield the strongest suspicion, where no trial could show the cause.

        Without a strong one, what the recipe that reached most changes about the learning rate.
        """
        strong = [s for s in self.suspicions if s.strength >= 1 and self._is_open(s)]
        if strong:
            suspicion = max(strong, key=lambda s: s.strength)
            untried = [c for c in suspicion.changes if not self.knows(c)]
            yield Cause(suspicion, (untried or suspicion.changes)[0])
            return
        if self.way(self.best) >= CURES:
            parts = [a for a in self.recipe if isinstance(a, (UseOptimizer, Epochs))]
            yield from [cause for action in parts[::-1] for cause in self._of_part(action)][:1]

    def _is_open(self, suspicion: Suspicion) -> bool:
        """Whether a suspicion may still be the cause: not all of its changes were tried in vain.

        If a recipe has come to good answers, the cause is among what it changes.
        """
        if suspicion.kind in OF_OTHER_ERRORS:
            return False
        parts = {type(action) for action in self.recipe}
        if parts and score(self.best) <= FAR:
            return any({type(action) for action in change} <= parts for change in suspicion.changes)
        return not all(self.knows(change) for change in suspicion.changes)

    def knows(self, change: Change) -> bool:
        """Whether the outcome of a change is known."""
        return self.trials.knows(*merged(*self.fixed, *change))

    # --- what other errors tell ---

    def rare_class(self) -> Iterator[Cause]:
        """Yield the suspicion of a rare class, if weighting the classes helps it."""
        for suspicion in self.suspicions:
            if suspicion.kind == "class_imbalance" and self.affords():
                outcome = self.attempt(*suspicion.changes[0])
                gain = self.told.balanced - outcome.balanced
                gain_held = self.told.held_balanced - outcome.held_balanced
                if gain > FAR and (np.isnan(gain_held) or gain_held > FAR / 3):
                    yield Cause(suspicion, suspicion.changes[0])

    def overfitting(self) -> Iterator[Cause]:
        """Yield the suspicion of learning by heart, if a restraint helps the rows held out."""
        for suspicion in self.suspicions:
            if suspicion.kind != "overfitting":
                continue
            best: Change = ()
            least = self.told.held
            for change in suspicion.changes:
                if self.affords(change):
                    outcome = self.attempt(*change)
                    if outcome.held < least:
                        best, least = change, outcome.held
            gain = self.told.held - least
            limit = max(FAR_HELD, FAR_HELD * self.told.held, self.noise(self.told.held, least) / 2)
            unasked = self.trials.rows.whole is not None and self.trials.task.counts
            if unasked and self.told.held < POOR:
                limit = FAR_UNASKED
            if best and gain > limit:
                yield Cause(suspicion, best)


def believed(suspicion: Suspicion) -> float:
    """Return a number by which suspicions are sorted, the most believed first.

    A head that is only unusual comes last: most losses learn behind most heads. Clipping where no
    gradient was seen to grow comes after the learning rate.
    """
    if suspicion.strength < 1 and suspicion.kind == "output_mismatch":
        return len(ORDER)
    if suspicion.strength < 1 and suspicion.kind == "exploding_gradient":
        return ORDER.index("learning_rate_too_high") + 0.5
    return ORDER.index(suspicion.kind)


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


def credited(causes: Sequence[Cause]) -> list[Cause]:
    """Credit a change that helps alone with all that it does together with another change.

    If new weights go half of the way, leaky rectifiers none, and both together all of it, then the
    weights are the cause.
    """
    found = list(causes)
    for index, cause in enumerate(causes):
        for other in causes[index + 1 :]:
            part = set(cause.change) < set(other.change)
            if part and cause.share >= HELPS and other.share > cause.share:
                found[index] = replace(cause, change=other.change, share=other.share)
    return found


def foremost(alone: Sequence[Cause]) -> Cause:
    """Return the first of causes, in their order, but none before one that goes far further."""
    furthest = max(alone, key=lambda cause: cause.share)
    behind = furthest.share >= NEARLY_ALL and furthest.share - alone[0].share > FURTHER
    return furthest if behind else alone[0]


def one_of_each(causes: Sequence[Cause]) -> list[Cause]:
    """Return causes that do not contradict one another: one learning rate, one of each kind."""
    rates = [c for c in causes if c.kind.startswith("learning_rate")]
    best_rate = max(rates, key=lambda c: c.share, default=None)
    found: list[Cause] = []
    for cause in causes:
        if cause in rates and cause is not best_rate:
            continue
        if all(cause.kind != other.kind for other in found):
            found.append(cause)
    return found
