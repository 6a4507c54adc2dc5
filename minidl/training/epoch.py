"""One pass over the data: recorded steps as far as can be, and eager ones for the rest."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from minidl import _kernels, recording
from minidl.nn.nonfinite import check_finite, is_finite
from minidl.recording import RecordingError
from minidl.recording.epoch import Kept, run_epoch
from minidl.seeds import random_order
from minidl.training.callbacks import Callbacks
from minidl.training.data import Data
from minidl.training.interrupt import InterruptBetweenSteps, Snapshot
from minidl.training.metrics import Tally
from minidl.training.nonfinite import advice, first_not_finite
from minidl.training.progress import Progress
from minidl.typing import Array

if TYPE_CHECKING:
    from minidl.training.trainer import Trainer

# Rows of a recorded run whose predictions the metrics want: so many are kept at a time.
KEPT_ROWS = 8192


class RecordedSteps:
    """What a trainer records: a whole step, and the two halves of one that takes many batches."""

    def __init__(self, trainer: Trainer) -> None:
        self.step = recording.record(partial(trainer._step, check=False))
        self.gradient = recording.record(partial(trainer._gradient, check=False, fresh=False))
        self.update = recording.record(trainer._update)

    @property
    def empty(self) -> bool:
        """Whether nothing is recorded yet."""
        return not (self.step.programs + self.gradient.programs + self.update.programs)

    def forget(self) -> None:
        """Record anew what is needed next."""
        for step in (self.step, self.gradient, self.update):
            step.forget()


@dataclass
class Plan:
    """What is the same in all epochs of a ``fit``."""

    data: Data
    batch_size: int
    accumulate: int
    shuffle: bool
    callbacks: Callbacks
    shown: Progress


class Epoch:
    """One pass over the data.

    Parameters
    ----------
    trainer, plan
        Who trains, and on what.
    number
        Of the epoch, from 1.
    """

    def __init__(self, trainer: Trainer, plan: Plan, number: int) -> None:
        self.trainer, self.plan, self.number = trainer, plan, number
        self.data = plan.data
        self.order = np.arange(len(self.data))
        if plan.shuffle:
            self.order = random_order("fit", trainer.rng, len(self.data))
        self.tally = Tally(trainer.loss, trainer.metrics)
        self.done = 0  # rows
        self.steps_before = trainer.optimizer.steps
        self.state = list(trainer.model.state().values())
        self.snapshot = Snapshot([*self.state, trainer.optimizer.states])
        self.weighted = False  # whether rows count differently in the loss
        self.stopped = False  # by a callback that hears of steps
        self.callback_error: FloatingPointError | None = None

    @property
    def step_rows(self) -> int:
        """How many rows a step takes."""
        return self.plan.batch_size * self.plan.accumulate

    def run(self) -> dict[str, float]:
        """Train; returns the loss and the metrics of the epoch."""
        # NumPy's warnings would say less than the checks of the step, and twice.
        with np.errstate(all="ignore"), InterruptBetweenSteps() as self.interrupt:
            self._tell_begin()
            while self.done < len(self.order) and not self.stopped:
                try:
                    self._advance()
                except FloatingPointError as error:
                    if error is self.callback_error:
                        raise
                    raise FloatingPointError(self._explain()) from None
        if not is_finite((self.trainer.optimizer.flat.data, *self.state)):  # what has changed
            check_finite([self.trainer.model], f"after epoch {self.number}")
        return self.tally.read()

    # --- steps ---

    def _advance(self) -> None:
        """Make the next steps: as many as can be recorded ones, or one."""
        self.trainer._record_what_is_there()  # a callback may have replaced something
        row = self.data.take(np.zeros(1, np.intp)).targets_and_weights
        self.weighted = self.trainer.loss.row_weights(*row) is not None
        while self.trainer._recorded is not None and _kernels.isa != "reference":
            fresh = self.trainer._recorded.empty
            try:
                if self.plan.accumulate > 1:
                    return self._recorded_halves(self.trainer._recorded)
                return self._recorded_steps(self.trainer._recorded)
            except RecordingError as error:
                if fresh:
                    self._give_up(error)
                else:  # say, an array of a layer was replaced: perhaps it can be recorded anew
                    self.trainer._recorded.forget()
        return self._eager_step()

    def _give_up(self, error: RecordingError) -> None:
        self.trainer._recorded = None
        warnings.warn(
            f"training runs eagerly, which is slower: {error}", RuntimeWarning, stacklevel=6
        )

    def _next(self) -> Array:
        """The rows of the steps to come, as many as the predictions that are kept allow."""
        steps = max(1, KEPT_ROWS // self.step_rows) if self.trainer.metrics else len(self.order)
        return self.order[self.done : self.done + steps * self.step_rows]

    def _recorded_steps(self, recorded: RecordedSteps) -> None:
        rows = self._next()

        def progress(kept: Kept, first: int) -> bool:
            return self._count(kept, first, rows)

        everything = bool(self.trainer.metrics)
        batch_size, at_a_time = self.plan.batch_size, 1 if self.plan.callbacks.per_batch else None
        arrays = self.data.arrays
        run_epoch(recorded.step, arrays, batch_size, rows, everything, progress, at_a_time)

    def _recorded_halves(self, recorded: RecordedSteps) -> None:
        """Steps that take many batches each: the gradients of these, added up, then the update."""
        rows, accumulate = self._next(), self.plan.accumulate
        shares = self._shares(rows)
        begun = 0  # batches of the steps before this one

        def begin_step() -> None:
            self.snapshot.take()
            self.trainer.optimizer.zero_grad()

        def progress(kept: Kept, first: int) -> bool:
            nonlocal begun
            own = shares[begun : begun + accumulate]
            self._weigh(own, kept.done - begun)
            if kept.done - begun < len(own):
                return False
            recorded.update()
            self.snapshot.drop()
            begun, first = kept.done, begun
            stop = self._count(kept, first, rows)
            if not stop and begun < len(shares):
                begin_step()
            return stop

        everything, size = bool(self.trainer.metrics), self.plan.batch_size
        # Between batches that count alike there is nothing to do but to add up. A smaller last one
        # is a run of its own.
        alike = len(set(shares[: len(rows) // size])) <= 1
        with self.snapshot:
            begin_step()
            run_epoch(
                *(recorded.gradient, self.data.arrays, size, rows, everything, progress),
                accumulate if alike else 1,
            )

    def _shares(self, rows: Array) -> list[float]:
        """What each batch counts in its step: its rows, or the weights of its rows."""
        size = self.plan.batch_size
        starts = range(0, len(rows), size)
        if getattr(self.trainer.loss, "reduction", "mean") != "mean":
            return [1.0] * len(starts)
        counts = self._counts(rows)
        if counts is None:
            return [float(min(size, len(rows) - start)) for start in starts]
        return [float(counts[start : start + size].sum(dtype=np.float64)) for start in starts]

    def _weigh(self, shares: list[float], done: int) -> None:
        """Scale the gradients of these batches for the next one, which adds to them as one of
        share 1; in the end, to their mean. Between batches that count alike there is nothing to do.
        """
        if done == 0 or getattr(self.trainer.loss, "reduction", "mean") != "mean":
            return
        after = shares[done] if done < len(shares) else sum(shares)
        if after != shares[done - 1]:
            self.trainer.optimizer.scale_grad(shares[done - 1] / after)

    def _eager_step(self) -> None:
        rows, size = self.order[self.done : self.done + self.step_rows], self.plan.batch_size
        shares, values, predictions = self._shares(rows), [], []
        with self.snapshot:
            self.snapshot.take()
            for number in range(len(shares)):
                self._weigh(shares, number)
                batch = self.data.take(rows[number * size : (number + 1) * size])
                value, prediction = self.trainer._gradient(*batch.arrays, fresh=number == 0)
                values.append(float(value))
                if self.trainer.metrics:
                    predictions.append(prediction)
            self._weigh(shares, len(shares))
            self.trainer._update()
            self.snapshot.drop()
        self._made(values, predictions, rows)

    # --- what is known after steps ---

    def _count(self, kept: Kept, first: int, rows: Array) -> bool:
        """Batches from ``first`` to ``kept.done`` of these rows were trained; whether to stop."""
        new = slice(first * kept.batch_size, kept.done * kept.batch_size)
        losses, *rest = kept.arrays
        predictions = [rest[0][new]] if rest else []
        return self._made(losses[first : kept.done].tolist(), predictions, rows[new])

    def _made(self, values: list[float], predictions: list[Array], rows: Array) -> bool:
        """Steps were made: their losses, their predictions one after the other, and their rows.

        Whether the steps to come must be begun anew.
        """
        size, counts = self.plan.batch_size, self._counts(rows)
        self.tally.add(values, size, len(rows), counts)
        if predictions:
            target, begin = self.data.targets.take(rows, axis=0), 0
            for prediction in predictions:
                some = slice(begin, begin + len(prediction))
                self.tally.show(prediction, target[some], None if counts is None else counts[some])
                begin += len(prediction)
        self.done += len(rows)
        self.plan.shown.step(len(rows), self.tally.read_running)
        self.interrupt.check()
        return self.plan.callbacks.per_batch and self._tell_end(values, rows, counts)

    def _counts(self, rows: Array) -> Array | None:
        """What these rows count in the loss, if they have weights."""
        if not self.weighted:
            return None
        given = self.data.targets_and_weights
        return self.trainer.loss.row_weights(*(array.take(rows, axis=0) for array in given))

    def _tell_begin(self) -> None:
        """Tell callbacks that a step is about to be made, if they want to hear of it."""
        if self.plan.callbacks.per_batch:
            self._tell("on_batch_begin", {"batch": self.done // self.step_rows})

    def _tell_end(self, values: list[float], rows: Array, counts: Array | None) -> bool:
        """Tell callbacks that a step was made, and of the next one; whether to begin that anew."""
        trainer, loss = self.trainer, values[0]
        if len(values) > 1:
            step = Tally(trainer.loss, {})
            step.add(values, self.plan.batch_size, len(rows), counts)
            loss = step.read()["loss"]
        number = (self.done - 1) // self.step_rows
        self._tell("on_batch_end", {"batch": number, "loss": loss})
        self.stopped = trainer._stopping is not None
        if self.stopped or self.done == len(self.order):
            return True
        self._tell_begin()
        return trainer._parts != trainer._steps_depend_on()

    def _tell(self, event: str, values: dict[str, float]) -> None:
        try:
            self.plan.callbacks.tell(event, self.number, values)
        except FloatingPointError as error:
            self.callback_error = error  # which is not one of the step
            raise

    # --- a step that failed ---

    def _explain(self) -> str:
        """Where in the next step a number is not finite."""
        trainer = self.trainer
        step = trainer.optimizer.steps - self.steps_before
        rows = self.order[step * self.step_rows : (step + 1) * self.step_rows]
        why = ""
        with self.snapshot:
            self.snapshot.take()
            for begin in range(0, len(rows), self.plan.batch_size):
                batch = self.data.take(rows[begin : begin + self.plan.batch_size])
                why = first_not_finite(trainer.model, trainer.loss, batch)
                if why:
                    break
            self.snapshot.restore()
        cure = advice(trainer.model, trainer.optimizer, self.data.take(rows))
        return (
            f"training step {trainer.optimizer.steps + 1}: loss or gradient is not finite; "
            f"{why or 'every gradient is finite, their norm is not'}. Parameters and state are as "
            f"before this step. {cure}"
        )
