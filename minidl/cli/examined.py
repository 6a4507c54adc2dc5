"""Trainings of the command line: where one goes wrong, a diagnosis follows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from minidl.diagnosis.examination import examine
from minidl.diagnosis.program import Program
from minidl.diagnosis.report import as_text
from minidl.training import Callback, History, Trainer


def fit(
    trainer: Trainer,
    X: Any,
    y: Any,
    epochs: int,
    batch_size: int,
    quiet: bool,
    validation: Any,
    callbacks: Sequence[Callback] = (),
) -> tuple[History, str]:
    """Train, and examine the training if ``fit`` ends in a sentence about it.

    Parameters
    ----------
    trainer, X, y, epochs, batch_size, validation, callbacks
        As of ``Trainer.fit``.
    quiet
        Whether nothing is shown, and nothing examined.

    Returns
    -------
    history, report
        What ``fit`` returns, and the report of the diagnosis; "" without a verdict.

    Raises
    ------
    FloatingPointError
        As ``fit`` does, after the report is printed.
    """
    options: dict[str, Any] = {"progress": not quiet, "callbacks": callbacks}
    if quiet:
        return trainer.fit(X, y, epochs, batch_size, validation, **options), ""
    parts = trainer.model, trainer.loss, trainer.optimizer
    program = Program(*parts, X, y, epochs, batch_size, rng=trainer.rng).copy()
    began = time.process_time()
    try:
        history = trainer.fit(X, y, epochs, batch_size, validation, **options)
    except FloatingPointError as error:
        if text := report(program, trainer, time.process_time() - began, str(error)):
            print(text, flush=True)
        raise
    seconds = time.process_time() - began
    return history, report(program, trainer, seconds) if trainer.diagnosis else ""


def report(program: Program, trainer: Trainer, seconds: float, stopped: str = "") -> str:
    """Examine a training, and return the report; "" without a verdict."""
    findings = examine(program, trainer, seconds, stopped)
    if not findings.verdicts:
        return ""
    return as_text(findings, program, trainer.history, stopped)
