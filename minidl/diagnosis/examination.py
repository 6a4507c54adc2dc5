"""The examination of a training: rules in three layers, and trials of what they suspect."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from minidl.diagnosis.causes import Cause
from minidl.diagnosis.findings import Findings
from minidl.diagnosis.gradients import overlooks_rows, wrong_gradient, wrong_layer
from minidl.diagnosis.judge import Judge
from minidl.diagnosis.probe import Probe, look
from minidl.diagnosis.program import Program
from minidl.diagnosis.reach import NEAR, USELESS, Clock
from minidl.diagnosis.references import Predictors
from minidl.diagnosis.remedies.actions import FixGradient, Reinitialise, ReplaceHead
from minidl.diagnosis.remedies.apply import apply
from minidl.diagnosis.remedies.surgery import NotApplicableError
from minidl.diagnosis.rules import data, first_batches, running, static
from minidl.diagnosis.rules.suspicion import Change, Suspicion
from minidl.diagnosis.task import task_of
from minidl.diagnosis.trials import Outcome, Rows, Scaling, Trials, inputs_of
from minidl.diagnosis.verdict import Verdict, causes_first
from minidl.nn import CrossEntropyLoss
from minidl.nn.hooks import evaluating
from minidl.training import Trainer
from minidl.training.data import Data, Source
from minidl.training.preparation import for_training

TIMES, ALLOWANCE = 1.9, 0.7  # times the training, and seconds, that trials may take
# A trial of a training that takes longer than this is cut short, but not below a share of it.
LONG, LEAST_SHARE = 0.4, 0.1
UNASKED = 0.2  # an error of held-out rows up to which the data are surely well
SHARP = 0.5  # noise of an error of held-out rows, up to which they tell whether anything is learned
HELD_OUT = 0.2  # share of the rows
FEWEST_ROWS = 4  # below it, nothing is tried
LEAST_ROWS = 60  # from which on rows can be held out
MOST_HELD = 1000
PROBED = 256  # rows of a first batch
OF_DATA = ("nothing_to_learn", "data_error")
OF_ROWS = ("MSELoss", "CrossEntropyLoss")  # losses of each row, of numbers and of labels
SYMPTOMS = (
    "exploding_gradient",
    "vanishing_gradient",
    "saturated_units",
    "dead_units",
    "not_finite",
)


def examine(program: Program, trainer: Trainer, seconds: float, stopped: str = "") -> Findings:
    """Find out what is wrong with a training.

    Parameters
    ----------
    program
        As told, untrained; it stays so.
    trainer
        What has trained a copy of it.
    seconds
        How long that took: trials may take twice that, and a little more.
    stopped
        Why it was stopped, if it was.
    """
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return Examination(program, trainer, seconds, stopped).findings()


class Examination:
    """Examines one training."""

    def __init__(self, program: Program, trainer: Trainer, seconds: float, stopped: str) -> None:
        self.program, self.trainer, self.stopped = program, trainer, stopped
        self.clock = Clock(TIMES * seconds + ALLOWANCE)
        self.share = min(1.0, max(LONG / max(seconds, 1e-9), LEAST_SHARE))
        self.rows, output = rows_of(program, trainer)
        trained = self.rows.trained
        self.task = task_of(trained.targets, program.loss)
        self.setting = static.Setting(
            program.model, program.loss, trained.inputs, trained.targets, output
        )
        self.explained = 0.0  # by simple predictors, as far as they were asked

    def findings(self) -> Findings:
        """Return all verdicts, causes before symptoms, with the errors they rest on."""
        certain = list(static.certainties(self.setting))
        of_data = [verdict for verdict in certain if verdict.kind in OF_DATA]
        wrong = of_data or list(self.wrong_gradients())
        if wrong or len(self.rows.trained) < FEWEST_ROWS:
            return Findings((*(wrong or certain),))
        fixed: Change = tuple(v.action for v in certain if v.action is not None)
        trials = Trials(self.program_of_trials(), self.rows, self.task, self.share)
        judge = Judge(trials, fixed, self.clock, self.as_trained(trials))
        judge.suspicions = self.suspicions(judge, {v.kind for v in certain})
        judge.reach()
        verdicts = [*certain, *self.tried(judge, certain)]
        told, best = judge.told, judge.best
        error = told.error if fixed else judge.trained.error
        return Findings(
            tuple(causes_first(verdicts)), error, told.held, best.error, best.held,
            trials.count, self.task.counts,
        )  # fmt: skip

    def tried(self, judge: Judge, certain: list[Verdict]) -> list[Verdict]:
        """Return what trials show, on top of what is certain."""
        found = list(self.about_data(judge))
        if found:
            return found
        if judge.far or judge.idle(self.explained):
            return self.of_causes(judge, certain)
        if certain:
            return []
        noise = judge.noise(judge.told.held, judge.told.held)
        return (
            list(self.dead_logits(judge))
            or [as_verdict(cause) for cause in judge.rare_class()]
            or [as_verdict(cause) for cause in judge.overfitting()]
            or list(running.overfitted(judge.told.held_curve, noise))
        )

    def of_causes(self, judge: Judge, certain: list[Verdict]) -> list[Verdict]:
        """Return the verdicts on a training that is far from what can be reached."""
        found = [as_verdict(cause) for cause in judge.causes()]
        if not found and not certain:
            found = [as_verdict(cause) for cause in judge.by_evidence()]
        if not found and not certain and judge.told.error > USELESS:
            found = [running.does_not_learn(judge.told.error)]
        return [*found, *self.symptoms(judge.suspicions, [*certain, *found])]

    def suspicions(self, judge: Judge, certain: set[str]) -> list[Suspicion]:
        """Return what the rules suspect, beside what is certain."""
        first = self.first_look()
        course = running.Course(
            self.program, self.task, judge.told, self.stopped, first.probe.loss,
            self.last_look(), judge.unsteady,
        )  # fmt: skip
        at_first = list(first_batches.suspicions(first))
        known = {(s.kind, s.layer) for s in at_first if s.over_time}
        later = [s for s in running.suspicions(course) if (s.kind, s.layer) not in known]
        return [suspicion for suspicion in (*at_first, *later) if suspicion.kind not in certain]

    def as_trained(self, trials: Trials) -> Outcome:
        """What the training as told came to, on the rows that it has seen."""
        return trials.judged((), self.trainer.model, self.program.loss, Scaling(), not self.stopped)

    def symptoms(self, suspicions: list[Suspicion], found: list[Verdict]) -> Iterator[Verdict]:
        """Yield what is strongly suspected beside the causes found, as their effects."""
        kinds = {v.kind for v in found}
        for suspicion in suspicions:
            if (
                suspicion.kind in SYMPTOMS
                and suspicion.strength >= 1
                and suspicion.kind not in kinds
            ):
                kinds.add(suspicion.kind)
                effect = as_verdict(Cause(suspicion, suspicion.changes[0]))
                if found:
                    remedy = f"it goes with its cause; if not, {effect.remedy}"
                    effect = replace(effect, because=found[0], remedy=remedy)
                yield effect

    # --- looks ---

    def first_look(self) -> first_batches.FirstLook:
        """Look into the untrained model at a first batch."""
        copied = self.program.copy()
        probe = look(copied.model, copied.loss, self.batch(PROBED))
        return first_batches.FirstLook(
            self.program, self.setting, self.task, self.rows, probe, usual_sizes(self.program)
        )

    def last_look(self) -> Probe | None:
        """Look into a copy of the trained model."""
        if self.stopped:
            return None
        trained = replace(self.program, model=self.trainer.model).copy()
        return look(trained.model, trained.loss, self.batch(PROBED))

    def batch(self, count: int) -> Data:
        """Some rows, at random but always the same."""
        rows = self.rows.trained
        return rows.take(np.random.default_rng(0).permutation(len(rows))[:count])

    # --- what is asked of outputs, gradients and data ---

    def dead_logits(self, judge: Judge) -> Iterator[Verdict]:
        """Yield a verdict if rows are answered wrong, and the logit of a class has died."""
        if judge.trained.error > NEAR and isinstance(self.program.loss, CrossEntropyLoss):
            labels = self.batch(PROBED).targets.reshape(-1)
            yield from running.dead_logits(self.last_look(), labels, self.setting.head)

    def wrong_gradients(self) -> Iterator[Verdict]:
        """Yield a verdict if a loss or a layer of the user's own has wrong gradients."""
        copied, batch = self.program.copy(), self.batch(64)
        found = wrong_gradient(copied.loss, copied.model, batch)
        if found:
            measured, told = found
            factor = measured / told
            yield Verdict(
                "not_learning", "", {"slope": measured, "told": told},
                statement=f"the gradient that {copied.loss!r} returns is not the slope of its "
                f"value: {told:.3g}, where {measured:.3g} is measured",
                remedy=f"multiply the gradient that {type(copied.loss).__name__}.forward returns "
                f"by {factor:.3g}, or check it by gradcheck",
                action=FixGradient(factor),
            )  # fmt: skip
            return
        value = overlooks_rows(copied.loss, copied.model, batch)
        if value is not None:
            yield Verdict(
                "not_learning", "", {"value": value},
                statement=f"{copied.loss!r} does not tell which target belongs to which row: it is "
                f"{value:.3g} in whatever order the targets of a batch stand",
                remedy="compare each prediction with the target of its own row, and take the mean "
                f"of the {len(batch)} losses of a batch last",
                action=ReplaceHead(None, OF_ROWS[self.task.kind == "labels"]),
            )  # fmt: skip
            return
        layer = wrong_layer(copied.model, copied.loss, batch)
        if layer:
            path, measured, told = layer
            yield Verdict(
                "not_learning", path, {"slope": measured, "told": told},
                statement=f"the gradient of layer {path} is not the slope of the loss: {told:.3g}, "
                f"where {measured:.3g} is measured",
                remedy=f"check the backward pass of layer {path} with minidl.gradcheck, to 1e-6",
            )  # fmt: skip

    def about_data(self, judge: Judge) -> Iterator[Verdict]:
        """Yield a verdict if the targets do not depend on the inputs, or belong to other rows."""
        rows = self.rows.together
        steps = rows.targets.ndim > (1 if self.task.kind == "labels" else 2)
        if len(rows) < LEAST_ROWS or judge.told.held < UNASKED or steps:
            return  # of targets for each step of a sequence, simple predictors know nothing
        predictors = Predictors(rows, self.task)
        dependence = predictors.dependence()
        self.explained = dependence.explained if dependence.certain else 0.0
        held = min(o.held for o in judge.outcomes if not np.isnan(o.held))
        if dependence.certain or predictors.correlation > 1:
            yield from data.block_of_other_rows(predictors)
            yield from data.labels_drawn_anew(predictors, self.task)
        elif judge.asked and held > 1 - judge.noise(1.0, 1.0):
            found = list(data.targets_of_other_rows(predictors))
            if (
                not found
                and judge.noise(1.0, 1.0) < SHARP
                and not any(
                    s.kind == "vanishing_gradient" and s.strength >= 2 for s in judge.suspicions
                )
            ):
                found = list(data.no_dependence(predictors, held, len(rows)))
            yield from found

    def program_of_trials(self) -> Program:
        """The program as told, for the rows of trials."""
        trained = self.rows.trained
        return replace(
            self.program.copy(), X=inputs_of(trained), y=trained.targets, validation=None,
            class_weight=None, sample_weight=None,
        )  # fmt: skip


def as_verdict(cause: Cause) -> Verdict:
    """Make a verdict of a suspicion and of the change that has shown it."""
    suspicion, change, share = cause.suspicion, cause.change, cause.share
    sentences = ", and ".join(action.sentence() for action in change)
    evidence = dict(suspicion.evidence)
    if not np.isnan(share):
        evidence["gained"] = share
        sentences += f": that goes {min(share, 1):.0%} of the way to the best that was reached"
    elif not any(letter.isdigit() for letter in sentences):
        sentences += f" ({numbered(suspicion.evidence)})"
    return Verdict(
        suspicion.kind, suspicion.layer, evidence, None, sentences, change[0], suspicion.statement,
        change[1:],
    )  # fmt: skip


def numbered(evidence: Mapping[str, Any]) -> str:
    """Return the first number of the evidence, with its name."""
    name, value = next(iter(evidence.items()))
    shown = f"{value:.3g}" if isinstance(value, float) else value
    return f"{name.replace('_', ' ')}: {shown}"


def held_out(rows: int, batch_size: int) -> int:
    """Return how many rows to hold out, so that the others are whole batches where that is near."""
    count = min(int(HELD_OUT * rows), MOST_HELD)
    rest = (rows - count) % batch_size
    return count + rest if batch_size < count else count


def usual_sizes(program: Program) -> dict[str, float]:
    """Return by name the root mean square of parameters as minidl would draw them."""
    try:
        usual = apply(program.copy(), [Reinitialise()])
    except NotApplicableError:
        return {}
    return {
        name: first_batches.root_mean_square(parameter.data)
        for name, parameter in usual.model.named_parameters()
    }


def rows_of(program: Program, trainer: Trainer) -> tuple[Rows, Any]:
    """Return the rows to train trials on and those held out, as a model takes them; one output."""
    copied = program.copy()
    source = Source("", program.X, program.y, copied.model, copied.loss, trainer.dtype)
    with evaluating():
        output = source.first_output()
    trained, held = for_training(
        source, program.sample_weight, program.class_weight, program.validation, {},
        copied.optimizer.flat.parameters, diagnose=False,
    )  # fmt: skip
    if held is None and len(trained) >= LEAST_ROWS:
        order = np.random.default_rng(0).permutation(len(trained))
        count = held_out(len(trained), program.batch_size)
        parts = trained.take(np.sort(order[count:])), trained.take(np.sort(order[:count]))
        return Rows(*parts, trained), output
    return Rows(trained, held), output
