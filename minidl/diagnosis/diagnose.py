"""``minidl.diagnose``: train as told, watch, and say what is wrong and why."""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np

from minidl.diagnosis.diagnosis import Diagnosis
from minidl.diagnosis.examination import examine
from minidl.diagnosis.program import Program
from minidl.nn import Layer, Loss
from minidl.optim import Optimizer
from minidl.training import Trainer
from minidl.typing import Seed


def diagnose(
    model: Layer,
    loss: Loss,
    optimizer: Optimizer,
    X: Any,
    y: Any,
    *,
    epochs: int,
    batch_size: int = 32,
    shuffle: bool = True,
    validation: Any = None,
    rng: Seed = 0,
    class_weight: Any = None,
) -> Diagnosis:
    """Train as told, and find out what is wrong.
    """
    program = Program(
        model, loss, optimizer, X, y, epochs, batch_size, shuffle, validation, rng, class_weight
    )
    untrained = program.copy()
    trainer = program.trainer()
    began = time.perf_counter()
    stopped = ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            trainer.fit(
                X, y, epochs, batch_size, validation, progress=False,
                shuffle=shuffle, class_weight=class_weight,
            )  # fmt: skip
        except FloatingPointError as error:
            stopped = str(error)
    seconds = time.perf_counter() - began
    verdicts = examine(untrained, trainer, seconds, stopped)
    return Diagnosis(tuple(verdicts), untrained, trainer, None)
