"""The examination of a training: rules in three layers, and trials of what they suspect."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace
from typing import Any

import numpy as np

from minidl.diagnosis.gradients import wrong_gradient, wrong_layer
from minidl.diagnosis.judge import NEAR, Clock, Judge
from minidl.diagnosis.probe import Probe, look
from minidl.diagnosis.program import Program
from minidl.diagnosis.references import Predictors
from minidl.diagnosis.remedies.actions import Action, FixGradient
from minidl.diagnosis.rules import first_batches, running, static
from minidl.diagnosis.rules.suspicion import Change, Suspicion
from minidl.diagnosis.task import task_of
from minidl.diagnosis.trials import Rows, Trials, as_X, output_of
from minidl.diagnosis.verdict import Verdict
from minidl.training import Trainer
from minidl.training.data import Data, Source
from minidl.training.weights import row_weights

ALLOWANCE = 0.75  # seconds beside twice the training
HELD_OUT = 0.2  # share of the rows
LEAST_ROWS = 60  # from which on rows can be held out
PROBED = 256


def examine(program: Program, trainer: Trainer, seconds: float, stopped: str) -> list[Verdict]:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return Examination(program, trainer, seconds, stopped).verdicts()


class Examination:
    """Examines one training."""

    def __init__(self, program: Program, trainer: Trainer, seconds: float, stopped: str) -> None:
        self.program, self.trainer, self.stopped = program, trainer, stopped
        self.clock = Clock(2 * seconds + ALLOWANCE)
        self.data, output = all_rows(program, trainer.dtype)
        self.task = task_of(self.data.targets, program.loss)
        self.setting = static.Setting(
            program.model, program.loss, self.data.inputs, self.data.targets, output
        )
        self.rows = split(self.data)
        self.log: list[str] = []

    def verdicts(self) -> list[Verdict]:
        certain = list(static.certainties(self.setting))
        if any(v.kind in ("nothing_to_learn", "data_error") for v in certain):
            return certain
        certain += self.wrong_gradients()
        if any(v.kind == "not_learning" for v in certain):
            return certain
        nothing = self.nothing_to_learn()
        if nothing:
            return [*certain, *nothing]
        fixed: Change = tuple(v.action for v in certain if v.action is not None)
        trials = Trials(self.program_of_trials(), self.rows, self.task)
        suspicions = self.suspicions()
        # what is certain is not suspected
        suspicions = [s for s in suspicions if s.kind not in {v.kind for v in certain}]
        judge = Judge(trials, suspicions, fixed, self.clock)
        told = judge.told
        self.judge = judge
        best = judge.reach()
        self.log.append(f"told {told.error:.3f} {told.held:.3f} best {best.error:.3f} {best.held:.3f} {best.actions}")
        if not judge.far(told, best):
            return certain
        found = list(certain)
        for suspicion, change, share in judge.causes(told, best):
            found.append(as_verdict(suspicion, change, share))
        for o in judge.outcomes:
            self.log.append(f"   {o.error:.3f} {o.held:.3f} {o.finite} {o.seconds:.3f} {o.actions}")
        if not found and told.error > 0.9:
            found.append(Verdict("not_learning", remedy="look at it"))
        return found

    def suspicions(self) -> list[Suspicion]:
        first = self.first_look()
        found = list(first_batches.suspicions(first))
        course = running.Course(
            self.program, self.task, self.trainer.history.get("loss", ()), not self.stopped,
            {}, None, first.probe.loss,
        )
        return [*found, *running.suspicions(course)]

    def first_look(self) -> first_batches.FirstLook:
        copied = self.program.copy()
        batch = self.rows.trained.take(np.arange(min(PROBED, len(self.rows.trained))))
        probe = look(copied.model, copied.loss, batch)
        return first_batches.FirstLook(
            self.program, self.setting, self.task, self.rows, probe, self.drawn()
        )

    def drawn(self) -> dict[str, float]:
        from minidl.diagnosis.remedies.actions import Reinitialise
        from minidl.diagnosis.remedies.apply import apply
        usual = apply(self.program.copy(), [Reinitialise()])
        return {n: first_batches.root_mean_square(p.data) for n, p in usual.model.named_parameters()}

    def wrong_gradients(self) -> list[Verdict]:
        copied = self.program.copy()
        batch = self.rows.trained.take(np.arange(min(64, len(self.rows.trained))))
        found = wrong_gradient(copied.loss, copied.model, batch)
        if found:
            measured, told = found
            factor = measured / told
            return [Verdict("not_learning", "", {"measured": measured, "told": told},
                    statement=f"the gradient that {copied.loss!r} returns is not the slope of its value",
                    remedy=f"multiply by {factor:.3g}", action=FixGradient(factor))]
        layer = wrong_layer(copied.model, copied.loss, batch)
        if layer:
            path, measured, told = layer
            return [Verdict("not_learning", path, {"measured": measured, "told": told},
                    statement=f"gradient of layer {path} wrong", remedy="gradcheck it to 1e-6")]
        return []

    def nothing_to_learn(self) -> list[Verdict]:
        if len(self.data) < LEAST_ROWS:
            return []
        predictors = Predictors(self.data, self.task)
        dependence = predictors.dependence()
        self.log.append(str(dependence))
        return []

    def program_of_trials(self) -> Program:
        return replace(
            self.program.copy(), X=as_X(self.rows.trained), y=self.rows.trained.targets,
            validation=None, class_weight=None,
        )


def as_verdict(suspicion: Suspicion, change: Change, share: float) -> Verdict:
    sentences = ", and ".join(action.sentence() for action in change)
    return Verdict(
        suspicion.kind, suspicion.layer, {**suspicion.evidence, "goes": share}, None,
        f"{sentences}", change[0], suspicion.statement,
    )


def all_rows(program: Program, dtype: Any) -> tuple[Data, Any]:
    from minidl.nn.hooks import evaluating
    copied = program.copy()
    source = Source("", program.X, program.y, copied.model, copied.loss, dtype)
    with evaluating(), np.errstate(all="ignore"):
        output = source.first_output()
        inputs, targets = source.inputs.cast(), source.cast_targets(output.shape[-1])
    return Data(inputs, targets, row_weights(source, None, targets)), output


def split(data: Data) -> Rows:
    """Hold out a fifth, at random but always the same."""
    if len(data) < LEAST_ROWS:
        return Rows(data, None)
    order = np.random.default_rng(0).permutation(len(data))
    count = min(int(HELD_OUT * len(data)), 1000)
    return Rows(data.take(np.sort(order[count:])), data.take(np.sort(order[:count])))
