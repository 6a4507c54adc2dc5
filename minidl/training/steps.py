"""One step of training: forward, loss, backward, update; eager, or recorded."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from minidl import _kernels, recording
from minidl.nn import Dropout, Layer, Loss, MultiLoss
from minidl.optim import EMA, Optimizer
from minidl.recording.pytree import tree_map
from minidl.typing import Array

Places = tuple[tuple[Any, ...], tuple[Any, ...]]  # of inputs; of targets, and maybe weights


class TrainingStep:
    """Makes steps of training for one model, loss, optimizer and average.

    Parameters
    ----------
    model, loss, optimizer, ema
        The parts of the step. If one is replaced, a new ``TrainingStep`` is made.
    places
        What the model and what the loss are called with, beside predictions, by the numbers of the
        arrays of a batch: (((0, 1), 2), (3, 4)) where the first branch takes two inputs, and there
        are targets and weights. None stays None.
    record
        Whether steps are to be recorded.

    Attributes
    ----------
    recorded
        The recordings of ``__call__``, ``gradient`` and ``update``; None where steps run eagerly.
    """

    def __init__(
        self,
        model: Layer,
        loss: Loss,
        optimizer: Optimizer,
        ema: EMA | None,
        places: Places = ((0,), (1,)),
        record: bool = True,
    ) -> None:
        self.model, self.loss, self.optimizer, self.ema = model, loss, optimizer, ema
        self.places = places
        self.heads = len(loss.heads) if isinstance(loss, MultiLoss) else 0
        self._averaged = _averaged(ema)
        self._state: tuple[int, list[Array]] = (-1, [])  # when it was looked for, and what it was
        self.recorded = RecordedStep(self) if record else None

    def state(self) -> list[Array]:
        """Return the arrays of the model's state; looks for them only if something has changed."""
        now = _kernels.changes()
        if self._state[0] != now:
            self._state = now, list(self.model.state().values())
        return self._state[1]

    def __call__(self, *batch: Array, check: bool = True) -> tuple[Any, Any]:
        """Make one step; return the loss before it, and the prediction; see ``gradient``."""
        result = self.gradient(*batch, check=check)
        self.update()
        return result

    def gradient(self, *batch: Array, check: bool = True, fresh: bool = True) -> tuple[Any, Any]:
        """Compute the gradients of a batch; return its loss and its prediction.

        Of a ``MultiLoss``, the loss is a tuple of the loss and those of all heads, and the
        prediction a tuple with one array for each head. The gradients replace those that are there
        if ``fresh``, and else are added to them.

        Raises
        ------
        FloatingPointError
            With ``check``, if the loss is not finite.
        """
        inputs, targets_and_weights = tree_map(
            self.places, lambda place: None if place is None else batch[place]
        )
        prediction = self.model(*inputs)
        value = self.loss(prediction, *targets_and_weights)
        if check and not math.isfinite(value):
            raise FloatingPointError(f"the loss is {value}")
        if fresh:
            self.optimizer.zero_grad()
        self.model.backward(self.loss.backward())
        if isinstance(self.loss, MultiLoss):
            return (value, *self.loss.values.values()), prediction
        return value, prediction

    def update(self) -> None:
        """Change the parameters by their gradients.

        Raises
        ------
        FloatingPointError
            Before a parameter changes, if the norm of the gradients is not finite.
        """
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update()

    def minimise(self, closure: Callable[[], Array]) -> None:
        """Change the parameters by an optimizer that calls this for loss and gradients."""
        self.optimizer.step(closure)
        if self.ema is not None:
            self.ema.update()

    def is_made_of(
        self, model: Layer, loss: Loss, optimizer: Optimizer, ema: EMA | None, places: Places
    ) -> bool:
        """Return whether these are the parts of this step, so that its recordings still hold."""
        return (
            self.model is model
            and self.loss is loss
            and self.optimizer is optimizer
            and self.ema is ema
            and self.places == places
            and self._averaged == _averaged(ema)
        )


class RecordedStep:
    """The recordings of a step: as a whole, and by its two parts for steps of several batches.

    ``step`` is a whole step of one batch. ``gradient`` adds the gradient of a batch, and ``update``
    changes the parameters.
    """

    def __init__(self, step: TrainingStep) -> None:
        self.step = recording.record(partial(step.__call__, check=False))
        self.gradient = recording.record(partial(step.gradient, check=False, fresh=False))
        self.update = recording.record(step.update)

    @property
    def empty(self) -> bool:
        """Whether nothing is recorded yet."""
        return not (self.step.programs + self.gradient.programs + self.update.programs)

    def forget(self) -> None:
        """Drop all recordings; the next steps are recorded anew."""
        for step in (self.step, self.gradient, self.update):
            step.forget()


@contextmanager
def watched_by(watch: Any) -> Iterator[None]:
    """Let steps of recorded functions be watched; by None: by nobody."""
    before = _kernels.watch()
    _kernels.set_watch(watch)
    try:
        yield
    finally:
        _kernels.set_watch(before)


@contextmanager
def eager_step(watch: Any) -> Iterator[None]:
    """Watch the step that is made inside the block, if it is due; else count it.

    Where the training is inside a block of its monitor, that does both.
    """
    if watch is None or watch.monitor is not None:
        yield
    elif watch.clock.due:
        with watch.noting(recording=False):
            yield
    else:
        yield
        watch.clock.count()


def draws_masks(model: Layer) -> bool:
    """Return whether the loss of the same rows differs from step to step, because of dropout."""
    return any(isinstance(layer, Dropout) and layer.training for _, layer in model.layers())


def _averaged(ema: Any) -> int:
    """Return how many arrays of state the average follows, which ``follow_state`` changes."""
    return 0 if ema is None else len(ema.state)
