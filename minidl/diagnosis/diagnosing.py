"""``minidl.diagnose``: train as told, watching, and say what is wrong and why."""

from __future__ import annotations

import time
import warnings
from typing import Any

from minidl.diagnosis.diagnosis import Diagnosis
from minidl.diagnosis.examination import examine
from minidl.diagnosis.monitor import GradientMonitor
from minidl.diagnosis.program import Program
from minidl.diagnosis.remedies.apply import inputs_of
from minidl.nn import Layer, Loss, MultiLoss
from minidl.optim import Optimizer
from minidl.training.weights import ClassWeight
from minidl.typing import Seed
from minidl.warnings import TrainingWarning


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
    validation: tuple[Any, ...] | float | None = None,
    rng: Seed = 0,
    class_weight: ClassWeight | None = None,
) -> Diagnosis:
    """Train a model as told, watching, and find out what is wrong with the training.

    The model is trained as ``Trainer(model, loss, optimizer, rng=rng).fit(X, y, ...)`` trains it,
    to the last bit. Then rules look at data, first weights, gradients and the course of the
    training, and what they suspect is tried: the training is repeated on copies, from the same
    weights, with one thing changed. Only what makes a training much better is a verdict. A training
    that comes close to the best that is known for its rows and its model is healthy, however it
    looks.

    Altogether this takes about three times as long as the training, and less than a second more. A
    part of the rows, a fifth, is held out in the trials, unless ``validation`` says which.

    Parameters
    ----------
    model, loss, optimizer
        As of ``Trainer``, untrained.
    X, y, epochs, batch_size, shuffle, validation, class_weight
        As of ``Trainer.fit``.
    rng
        Generator or seed of the order of the rows, as of ``Trainer``.

    Returns
    -------
    Diagnosis
        Its ``verdicts``, causes before their effects; ``report()``, ``plot()`` and ``cure()``.

    Raises
    ------
    TypeError, ValueError
        For what ``fit`` refuses, and for a model that ``copy.deepcopy`` cannot copy.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import diagnose, nn, optim
    >>> x = np.linspace(1, 2, 100)[:, None]
    >>> model = nn.Sequential(nn.Linear(1, 1), rng=0)
    >>> rmsprop = optim.RMSprop(model.parameters(), lr=0.001)  # in 800 steps, a way of 0.8
    >>> diagnosis = diagnose(model, nn.MSELoss(), rmsprop, x, 5 * x, epochs=200)
    >>> diagnosis.verdicts[0].kind
    'learning_rate_too_low'
    """
    _check_known(loss, optimizer)
    if isinstance(validation, list):
        validation = tuple(validation)  # as ``fit`` takes it
    program = Program(
        model, loss, optimizer, X, y, epochs, batch_size, shuffle, validation, rng, class_weight
    )
    try:
        untrained = program.copy()
    except TypeError as error:
        raise TypeError(
            f"diagnose: trials need copies of model, loss and optimizer, and {error}"
        ) from error
    trainer, monitor, stopped = program.trainer(), GradientMonitor(), ""
    _check_inputs(program)
    began = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrainingWarning)  # verdicts say the same
        try:
            program.train(trainer, callbacks=[monitor])
        except FloatingPointError as error:
            stopped = str(error)
    seconds = time.process_time() - began
    findings = examine(untrained, trainer, seconds, stopped)
    trainer.diagnosis = findings.closing_sentence()
    return Diagnosis(findings, untrained, trainer, monitor, stopped)


def _check_inputs(program: Program) -> None:
    """Raise ValueError for inputs within inputs, which trials cannot change one by one."""
    if any(isinstance(place, tuple) for place in inputs_of(program).nest):
        raise ValueError(
            "diagnose judges inputs that are arrays, and a branch of this model takes several of "
            "its own: diagnose a model of that branch"
        )


def _check_known(loss: Any, optimizer: Any) -> None:
    """Raise ValueError for a loss or an optimizer with which no training can be judged."""
    if getattr(optimizer, "takes_closure", False):
        raise ValueError(
            f"diagnose knows steps of one gradient, and {optimizer!r} computes many in a step; "
            "diagnose the model with SGD or Adam"
        )
    if isinstance(loss, MultiLoss):
        raise ValueError(
            f"diagnose judges the predictions of one output, and {loss!r} has {len(loss.heads)} "
            "heads: diagnose a model of one of them"
        )
    if not getattr(loss, "predicts_targets", True):
        raise ValueError(
            "diagnose judges predictions by their distance from the targets, and those of "
            f"{loss!r} are something else; diagnose the model with MSELoss or L1Loss"
        )
