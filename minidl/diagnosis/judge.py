"""The judge: from suspicions to causes, by trials.

A training is judged by what can be reached with the same rows and the same model. If it comes close
to that, it is well, however it looks. If not, each suspicion is tried: one change at a time, from
the same weights. What goes most of the way alone is the cause; where nothing does, all changes are
made together, and those that cannot be left out are the causes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from minidl.diagnosis.causes import (
    HELPS,
    NEARLY_ALL,
    ORDER,
    TOO_SHORT,
    Cause,
    believed,
    credited,
    foremost,
    is_of_scale,
    one_of_each,
)
from minidl.diagnosis.reach import (
    ADAM_RATES,
    FAR,
    OF_OTHER_ERRORS,
    Reach,
    score,
)
from minidl.diagnosis.remedies.actions import (
    Action,
    Epochs,
    Reinitialise,
    ScaleInputs,
    ScaleTargets,
    Shuffle,
    UseOptimizer,
)
from minidl.diagnosis.rules.suspicion import Change, Suspicion
from minidl.diagnosis.trials import Outcome

# Share of the way from the training as told to the best known that a change must go alone; of one
# that is strongly suspected.
CURES, CURES_IF_STRONG = 0.75, 0.6
# Powers of ten by which a scale is absurd; and what follows from it, whatever else cures that.
ABSURD = 3.0
EXPLAINED_BY_SCALE = (
    "vanishing_gradient", "exploding_gradient", "saturated_units", "dead_units",
    "learning_rate_too_high", "learning_rate_too_low", "stopped_early",
)  # fmt: skip
# How much of an error that only held-out rows show a restraint must gain; where no rows were given
# to validate on, and answers to others are better than poor, much more.
FAR_HELD, FAR_UNASKED, POOR = 0.1, 0.4, 0.8


class Judge(Reach):
    """Tries suspicions."""

    # --- what cures ---

    def causes(self) -> list[Cause]:
        """Return what cures alone; else what is needed; else what helps; else nothing."""
        tried = self._tried()
        found = self._found(tried)
        if found and is_of_scale(found[0].suspicion, ABSURD):
            return [c for c in found if c is found[0] or c.kind not in EXPLAINED_BY_SCALE]
        scale = self._absurd_scale(found, tried)
        return found if scale is None else [scale]

    def _found(self, tried: Sequence[Cause]) -> list[Cause]:
        strong = {id(c) for c in tried if c.suspicion.strength >= 1}
        if broken := self._broken_loss(tried):
            return [broken]
        alone = [c for c in tried if c.share >= (CURES_IF_STRONG if id(c) in strong else CURES)]
        if alone:
            first = foremost(alone)
            both = first.kind in TOO_SHORT
            return [c for c in alone if c is first or (both and c.kind in TOO_SHORT)]
        return (
            list(self._needed(tried))
            or list(self._parts_of_recipe())
            or sorted((c for c in tried if c.share >= HELPS), key=lambda c: -c.share)
        )

    def _absurd_scale(self, found: Sequence[Cause], tried: Sequence[Cause]) -> Cause | None:
        """Return the scale of the data, if it is absurd and explains what was found first.

        The rate that was told suits no scale: so it is tried with a usual one, too.
        """
        if not found or found[0].kind not in EXPLAINED_BY_SCALE:
            return None
        for suspicion in self.suspicions:
            if not is_of_scale(suspicion, ABSURD):
                continue
            (change, *_) = suspicion.changes
            alone = max((c.share for c in tried if c.suspicion is suspicion), default=0.0)
            if alone >= CURES:
                return Cause(suspicion, change, alone)
            rated = (*change, UseOptimizer("Adam", ADAM_RATES[0]))
            if self.affords(rated) and (share := self.way(self.attempt(*rated), True)) >= HELPS:
                return Cause(suspicion, rated, share)
        return None

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
