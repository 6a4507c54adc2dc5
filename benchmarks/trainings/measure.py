"""Measuring a diagnosis: is its first verdict right, does its cure cure, how long does it take."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

import minidl
from minidl.diagnosis.program import Program
from minidl.training import Trainer

from .case import Case, Healthy

DIAGNOSE = minidl.diagnose  # loaded before anything is timed
CURED = 0.9  # of the gap between the faulty figure and the best one


@dataclass
class Result:
    """What one seed of a case gave.

    Attributes
    ----------
    name, seed
        The case.
    kinds
        Those of the verdicts, the most important first.
    right
        Whether the first is one of those that count.
    before, after, best
        The figure of the faulty program, of the cured one and of the best cure that is known.
    closed
        Which part of the gap between the first and the last the cure closes; None where naming the
        fault is all that is asked.
    plain, diagnosis, cure
        Seconds of the processor for a plain training, the diagnosis (which trains, too), the cure.
    change
        What the cure changed.
    """

    name: str
    seed: int
    kinds: list[str]
    right: bool
    before: float
    after: float = float("nan")
    best: float = float("nan")
    closed: float | None = None
    plain: float = 0.0
    diagnosis: float = 0.0
    cure: float = 0.0
    change: str = ""

    @property
    def cured(self) -> bool | None:
        """Whether enough of the gap is closed; None where there is nothing to cure."""
        return None if self.closed is None else self.closed >= CURED

    @property
    def in_time(self) -> bool:
        """Whether the diagnosis took at most three plain trainings and a second."""
        return self.diagnosis <= 3 * self.plain + 1


def measure_case(case: Case, seed: int, cure: bool = True) -> Result:
    """Diagnose one faulty program, cure it, and judge both from outside."""
    with _quietly():
        program = case.faulty(seed)
        plain, seconds = _timed(lambda: trained(program))
        before = case.score(plain, program, seed)
        told = case.faulty(seed)
        diagnosis, took = _timed(lambda: diagnose(told))
        names = [verdict.kind for verdict in diagnosis.verdicts]
        right = bool(names) and names[0] in case.right
        result = Result(case.name, seed, names, right, before, plain=seconds, diagnosis=took)
        if case.cure is None or not cure:
            return result
        known = case.cured(seed)
        result.best = case.score(trained(known), known, seed)
        cured, result.cure = _timed(diagnosis.cure)
        result.after = case.score(cured.trainer, told, seed)
        result.closed = case.gap_closed(before, result.after, result.best)
        result.change = str(cured.change)
    return result


def measure_healthy(healthy: Healthy, seed: int) -> Result:
    """Diagnose one training that is well: right is to say nothing."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", minidl.TrainingWarning)
        with np.errstate(all="ignore"):
            _, seconds = _timed(healthy.program(seed).train)
            diagnosis, took = _timed(lambda: diagnose(healthy.program(seed)))
    kinds = [verdict.kind for verdict in diagnosis.verdicts]
    kinds += [str(warning.message) for warning in caught]
    history = diagnosis.history["loss"]
    before = history[-1] if len(history) else float("nan")
    return Result(healthy.name, seed, kinds, not kinds, before, plain=seconds, diagnosis=took)


def trained(program: Program) -> Trainer:
    """Train a program as told, and as far as it goes."""
    trainer = program.trainer()
    try:
        return program.train(trainer)
    except FloatingPointError:
        return trainer


def diagnose(program: Program) -> Any:
    """Diagnose a program that is handed over as a user would."""
    options = {"class_weight": program.class_weight} if program.class_weight is not None else {}
    return DIAGNOSE(
        program.model,
        program.loss,
        program.optimizer,
        program.X,
        program.y,
        epochs=program.epochs,
        batch_size=program.batch_size,
        shuffle=program.shuffle,
        validation=program.validation,
        rng=program.rng,
        **options,
    )


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """Return a result, and the seconds that the processor took: others may use the machine, too."""
    begun = time.process_time()
    return call(), time.process_time() - begun


@contextmanager
def _quietly() -> Iterator[None]:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield
