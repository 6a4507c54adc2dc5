"""One pass over the data: recorded steps as far as can be, and eager ones for the rest."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from minidl import _kernels as kernels
from minidl import recording
from minidl._kernels.reference import Array
from minidl.recording import RecordingError
from minidl.recording.epoch import Kept, run_epoch
from minidl.training.callbacks import Callbacks
from minidl.training.diagnosis import advice, first_not_finite
from minidl.training.metrics import Tally
from minidl.training.preparing import Data
from minidl.training.progress import Progress
from minidl.training.safety import InterruptBetweenSteps, Snapshot

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
            self.order = trainer.rng.permutation(len(self.data))
        self.step_rows = plan.batch_size * plan.accumulate
        self.tally = Tally(trainer.loss, trainer.metrics)
        self.done = 0  # rows
        self.steps_before = trainer.optimizer.steps
        self.snapshot = Snapshot([*trainer.model.state().values(), trainer.optimizer.states])
        self.loss = 0.0  # of the latest step, if a callback wants to know

    def run(self) -> dict[str, float]:
        """Train; returns the loss and the metrics of the epoch."""
        tell, heard = self.plan.callbacks.tell, self.plan.callbacks.per_batch
        # NumPy's warnings would say less than the checks of the step, and twice.
        with np.errstate(all="ignore"), InterruptBetweenSteps() as self.interrupt:
            while self.done < len(self.order):
                batch = {"batch": self.done // self.step_rows}
                if heard:
                    tell("on_batch_begin", self.number, batch)
                try:
                    self._advance()
                except FloatingPointError:
                    raise FloatingPointError(self._explain()) from None
                if heard:
                    tell("on_batch_end", self.number, {**batch, "loss": self.loss})
                    if self.trainer._stopping is not None:
                        break
        return self.tally.read()

    # --- steps ---

    def _advance(self) -> None:
        """Make the next steps: as many as can be recorded ones, or one."""
        self.trainer._record_what_is_there()  # a callback may have replaced something
        while self.trainer._recorded is not None and kernels.isa != "reference":
            fresh = self.trainer._recorded.empty
            try:
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

    def _next(self, rows: int) -> Array:
        return self.order[self.done : self.done + rows]

    def _recorded_steps(self, recorded: RecordedSteps) -> None:
        if self.plan.accumulate > 1:
            return self._recorded_halves(recorded)
        steps = len(self.order)
        if self.plan.callbacks.per_batch:
            steps = 1
        elif self.trainer.metrics:
            steps = max(1, KEPT_ROWS // self.step_rows)
        rows = self._next(steps * self.step_rows)

        def progress(kept: Kept, first: int) -> None:
            new = slice(first * kept.batch_size, kept.done * kept.batch_size)
            losses, *rest = kept.arrays
            prediction = [rest[0][new]] if rest else []
            self._count(losses[first : kept.done].tolist(), prediction, rows[new])

        everything = bool(self.trainer.metrics)
        batch_size = self.plan.batch_size
        run_epoch(recorded.step, self.data.arrays, batch_size, rows, everything, progress)
        return None

    def _recorded_halves(self, recorded: RecordedSteps) -> None:
        """A step that takes many batches: their gradients, added up, then the update."""
        rows, size = self._next(self.step_rows), self.plan.batch_size
        shares, values, predictions = self._shares(rows), [], []
        everything = bool(self.trainer.metrics)
        with self.snapshot:
            self.trainer.optimizer.zero_grad()
            done = 0
            for _, alike in groupby(shares):
                self._weigh(shares, done)
                count = len(list(alike))
                some = rows[done * size : (done + count) * size]
                kept = run_epoch(recorded.gradient, self.data.arrays, size, some, everything)
                losses, *rest = kept.arrays
                values += losses.tolist()
                predictions += rest
                done += count
            self._weigh(shares, done)
            recorded.update()
        self._count(values, predictions, rows)

    def _shares(self, rows: Array) -> list[float]:
        """What each batch of a step counts in it: its rows, or the weights of its rows."""
        trainer, size = self.trainer, self.plan.batch_size
        starts = range(0, len(rows), size)
        if getattr(trainer.loss, "reduction", "mean") != "mean":
            return [1.0] * len(starts)
        target, *weight = (
            array.take(rows, axis=0) for array in self.data.arrays[len(self.data.inputs) :]
        )
        counts = trainer.loss.row_weights(target, *weight)
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
        rows, size = self._next(self.step_rows), self.plan.batch_size
        shares, values, predictions = self._shares(rows), [], []
        with self.snapshot:
            for number in range(len(shares)):
                self._weigh(shares, number)
                batch = self.data.take(rows[number * size : (number + 1) * size])
                value, prediction = self.trainer._gradient(*batch.arrays, fresh=number == 0)
                values.append(float(value))
                if self.trainer.metrics:
                    predictions.append(prediction)
            self._weigh(shares, len(shares))
            self.trainer._update()
        self._count(values, predictions, rows)

    def _count(self, values: list[float], predictions: list[Array], rows: Array) -> None:
        """These batches were trained: their losses, predictions one after the other, and rows."""
        size, loss = self.plan.batch_size, self.trainer.loss
        target, *weight = (
            array.take(rows, axis=0) for array in self.data.arrays[len(self.data.inputs) :]
        )
        counts = loss.row_weights(target, *weight)
        self.tally.add(values, size, len(rows), counts)
        if self.plan.callbacks.per_batch:
            step = Tally(loss, {})
            step.add(values, size, len(rows), counts)
            self.loss = step.read()["loss"]
        begin = 0
        for prediction in predictions:
            some = slice(begin, begin + len(prediction))
            self.tally.show(prediction, target[some], None if counts is None else counts[some])
            begin += len(prediction)
        self.done += len(rows)
        self.plan.shown.step(len(rows), self.tally.read_running)
        self.interrupt.check()

    # --- a step that failed ---

    def _explain(self) -> str:
        """Where in the next step a number is not finite."""
        trainer = self.trainer
        step = trainer.optimizer.steps - self.steps_before
        rows = self.order[step * self.step_rows : (step + 1) * self.step_rows]
        why = ""
        with self.snapshot:
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
