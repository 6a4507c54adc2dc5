"""One pass over the data: recorded steps as far as possible, eager ones for the rest."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from minidl import _kernels
from minidl.nn.nonfinite import check_finite, is_finite
from minidl.recording import RecordingError
from minidl.recording.epoch import Kept, run_epoch
from minidl.recording.pytree import tree_leaves
from minidl.seeds import random_order
from minidl.training.data import Data, part_of
from minidl.training.interrupt import Snapshot, deferred_to_step_end
from minidl.training.nonfinite import advice, first_not_finite
from minidl.training.plan import Place, Plan
from minidl.training.steps import (
    RecordedStep,
    TrainingStep,
    draws_masks,
    eager_step,
    watched_by,
)
from minidl.training.tally import HeadTally, Tally, is_mean, tally_of
from minidl.training.transforms import draw_seed, transformed
from minidl.training.weights import alike_in_all_heads
from minidl.typing import Array, Seed

# How many rows of predictions recorded steps keep at a time, if metrics need them.
KEPT_ROWS = 8192
TRANSFORMED_BYTES = 2**25  # of inputs that are changed at a time, if that is more than a step


class Epoch:
    """Trains on all rows once.

    Parameters
    ----------
    plan
        What to train on, and how.
    number
        Number of the epoch, from 1.
    current_step
        Returns the step for the current model, loss, optimizer and average: callbacks may replace
        these between two steps.
    tally
        Sums of loss and metrics, still empty.
    rng
        Draws the order of the rows, and the seed of a transform.
    place
        Where an epoch that was saved goes on; None: at its beginning.
    """

    def __init__(
        self,
        plan: Plan,
        number: int,
        current_step: Callable[[], TrainingStep],
        tally: Tally | HeadTally,
        rng: Seed,
        place: Place | None = None,
    ) -> None:
        self.plan, self.number, self.tally = plan, number, tally
        self.done = 0  # the number of rows that were trained on
        self.stopped = False  # whether a callback that is notified of every step has ended `fit`
        if place is not None:
            self.order, self.done = place.order, place.done
            self.stopped = plan.callbacks.per_step and plan.stop.why is not None
            tally.resume(place.tally)
        elif plan.shuffle:
            self.order = random_order("fit", rng, len(plan.data))
        else:
            self.order = np.arange(len(plan.data))
        self.seed = None if place is None else place.seed
        if plan.transform is not None and self.seed is None:
            self.seed = draw_seed(rng)
        self.weighted = False  # whether rows have different weights in the loss
        self.current_step = current_step
        self._use(current_step())

    def place(self) -> Place:
        """Return where the epoch is, between two of its steps."""
        return Place(self.order, self.done, self.tally.resume_state(), self.seed)

    def _use(self, step: TrainingStep) -> None:
        """Use the model, loss, optimizer and average of this step for the steps to come."""
        self.step = step
        self.steps_before = step.optimizer.steps - self.done // self.plan.step_rows
        self.snapshot = Snapshot([*step.state(), step.optimizer.states])
        self.watch = self.plan.callbacks.step_watch(step.model, step.optimizer, step.loss)

    def run(self) -> dict[str, float]:
        """Train on all rows; return the loss and the metrics of the epoch."""
        # NumPy's warnings are switched off: the errors of a step that is not finite say more.
        with np.errstate(all="ignore"), deferred_to_step_end() as self.signals:
            if self.done < len(self.order) and not self.stopped:
                self._notify_begin()
            while self.done < len(self.order) and not self.stopped:
                try:
                    self._advance()
                except BaseException as error:
                    if self.watch is not None:
                        self.watch.clear()
                    if not isinstance(error, FloatingPointError):
                        raise
                    if error is self.plan.callbacks.error:
                        raise
                    raise FloatingPointError(self._explain()) from None
        if not is_finite((self.step.optimizer.flat.data, *self.step.state())):  # what has changed
            check_finite([self.step.model], f"after epoch {self.number}")
        return self.tally.read()

    # --- steps ---

    def _advance(self) -> None:
        """Make the next steps: as many as possible with a recorded step, else one."""
        if (step := self.current_step()) is not self.step:
            self._use(step)
        row = self.plan.data.targets_and_weights_of(np.zeros(1, np.intp))
        self.weighted = step.loss.row_weights(*row) is not None
        if step.optimizer.takes_closure:
            return self._run_closure()
        while step.recorded is not None and _kernels.isa != "reference":
            fresh = step.recorded.empty
            try:
                if self.plan.accumulate > 1:
                    return self._run_recorded_accumulating(step.recorded)
                return self._run_recorded(step.recorded)
            except RecordingError as error:
                if fresh:
                    self._give_up_recording(error)
                else:  # an array of a layer was replaced, for example: try to record it anew
                    step.recorded.forget()
        return self._run_eagerly()

    def _give_up_recording(self, error: RecordingError) -> None:
        """Make all steps eagerly from now on, after a warning that says why."""
        self.step.recorded = None
        warnings.warn(
            f"training runs eagerly, which is slower: {error}", RuntimeWarning, stacklevel=6
        )

    def _next_rows(self) -> Array:
        """Return the rows of the next steps: with metrics or a transform, not too many."""
        step_rows, left = self.plan.step_rows, len(self.order) - self.done
        most = KEPT_ROWS if self.tally.has_metrics else left
        if self.plan.transform is not None:
            row_bytes = sum(array[:1].nbytes for array in tree_leaves(self.plan.data.inputs))
            most = min(most, TRANSFORMED_BYTES // row_bytes)
        if most < left:  # whole steps
            most = max(1, most // step_rows) * step_rows
        return self.order[self.done : self.done + most]

    def _take(self, begin: int, rows: Array) -> Data:
        """Return copies of rows of the order, from ``begin`` on, as the transform changes them."""
        plan = self.plan
        if plan.transform is None or self.seed is None:
            return plan.data.take(rows)
        first = begin // plan.batch_size
        return transformed(plan.transform, self.seed, plan.data, rows, plan.batch_size, first)

    def _arrays(self, rows: Array) -> tuple[tuple[Array, ...], Array | None]:
        """Return the arrays of the next steps, and the order of their rows, for ``run_epoch``."""
        if self.plan.transform is None:
            return self.plan.data.arrays, rows
        return self._take(self.done, rows).arrays, None

    def _run_recorded(self, recorded: RecordedStep) -> None:
        """Make the next steps, of one batch each."""
        rows = self._next_rows()
        arrays, order = self._arrays(rows)

        def progress(kept: Kept, first: int) -> bool:
            return self._count_kept(kept, first, rows)

        run_epoch(
            recorded.step,
            arrays,
            self.plan.batch_size,
            order,
            None if self.tally.has_metrics else self._losses,
            progress,
            1 if self.plan.callbacks.per_step else None,
            self.watch,
        )

    def _run_recorded_accumulating(self, recorded: RecordedStep) -> None:
        """Make the next steps, of several batches each.

        ``recorded.gradient`` adds up the gradients of the batches of a step, ``recorded.update``
        makes the update.
        """
        rows, accumulate = self._next_rows(), self.plan.accumulate
        arrays, order = self._arrays(rows)
        batch_weights = self._batch_weights(rows)

        def begin_step() -> None:
            self.snapshot.take()
            self.step.optimizer.zero_grad()

        def progress(kept: Kept, _: int) -> bool:
            """Rescale the gradient; after the last batch of a step, update and count it."""
            first = (kept.done - 1) // accumulate * accumulate  # the first batch of this step
            own = batch_weights[first : first + accumulate]
            self._rescale_gradient(own, kept.done - first)
            if kept.done - first < len(own):
                return False
            with watched_by(self.watch):
                recorded.update()
            self.snapshot.drop()
            stop = self._count_kept(kept, first, rows)
            if not stop and kept.done < len(batch_weights):
                begin_step()
            return stop

        size = self.plan.batch_size
        # Batches of equal weight only add up, so `progress` may wait for the last of a step.
        # run_epoch runs a smaller last batch by itself.
        equal = len(set(batch_weights[: len(rows) // size])) <= 1
        with self.snapshot:
            begin_step()
            run_epoch(
                recorded.gradient,
                arrays,
                size,
                order,
                None if self.tally.has_metrics else self._losses,
                progress,
                accumulate if equal else 1,
                self.watch,
            )

    def _run_eagerly(self) -> None:
        """Make the next step."""
        rows = self.order[self.done : self.done + self.plan.step_rows]
        size, batch_weights = self.plan.batch_size, self._batch_weights(rows)
        losses, predictions = [], []
        with self.snapshot, eager_step(self.watch):
            self.snapshot.take()
            for number in range(len(batch_weights)):
                self._rescale_gradient(batch_weights, number)
                some = rows[number * size : (number + 1) * size]
                batch = self._take(self.done + number * size, some)
                value, prediction = self.step.gradient(*batch.arrays, fresh=number == 0)
                losses.append(self._as_numbers(value))
                if self.tally.has_metrics:
                    predictions.append(prediction)
            self._rescale_gradient(batch_weights, len(batch_weights))
            self.step.update()
            self.snapshot.drop()
        self._count(losses, predictions, rows)

    def _run_closure(self) -> None:
        """Make the step of an optimizer that computes loss and gradient as often as it needs.

        Every time the layers begin in the same state, so that masks of dropout stay the same, and
        running statistics are updated once. What counts are loss and predictions after the step.
        Ctrl-C waits for the end of one computation: the optimizer then keeps its best point.
        """
        step, optimizer = self.step, self.step.optimizer
        if self.watch is not None:
            raise ValueError(
                f"a monitor of gradients watches steps of one gradient, and {optimizer!r} computes "
                "many in a step: train without the monitor"
            )
        batch = self.plan.data.take(self.order).arrays
        state = Snapshot(step.state())
        state.take()

        def closure() -> tuple[Any, Any]:
            state.restore()
            try:
                self.signals.deliver()
            except BaseException:
                self.snapshot.drop()  # the optimizer's state belongs to its best point
                raise
            return self._gradient(batch)

        with self.snapshot:
            self.snapshot.take()
            step.minimise(lambda: next(tree_leaves(closure()[0])))
            loss, prediction = closure()
            self.snapshot.drop()
        if optimizer.finished and not draws_masks(step.model):
            self.plan.stop.why = self.plan.stop.why or f"{optimizer!r}: {optimizer.reason}"
        self._count(
            [self._as_numbers(loss)], [prediction] if self.tally.has_metrics else [], self.order
        )

    def _gradient(self, batch: tuple[Array, ...]) -> tuple[Any, Any]:
        """Compute loss, prediction and gradient of a batch, recorded if possible."""
        recorded = self.step.recorded
        if recorded is not None and _kernels.isa != "reference":
            self.step.optimizer.zero_grad()
            try:
                value, prediction = recorded.gradient(*batch)
            except RecordingError as error:
                self._give_up_recording(error)
            else:
                return value, prediction
        return self.step.gradient(*batch)

    def _batch_weights(self, rows: Array) -> list[float]:
        """Return each batch's weight in its step: its number of rows, or the sum of weights."""
        size = self.plan.batch_size
        starts = range(0, len(rows), size)
        if not is_mean(self.step.loss):
            return [1.0] * len(starts)
        weights = self._row_weights(rows)
        if isinstance(weights, tuple):
            weights = alike_in_all_heads(weights, self.step.loss) if len(starts) > 1 else None
        if weights is None:
            return [float(min(size, len(rows) - start)) for start in starts]
        return [float(weights[start : start + size].sum(dtype=np.float64)) for start in starts]

    def _rescale_gradient(self, batch_weights: list[float], done: int) -> None:
        """Rescale the gradient accumulated over the first ``done`` batches of a step.

        The next batch can then be added with weight 1; after the last, the sum becomes the mean.
        Between batches of equal weight the factor is 1, and nothing is done.
        """
        if done == 0 or not is_mean(self.step.loss):
            return
        after = batch_weights[done] if done < len(batch_weights) else sum(batch_weights)
        if after != batch_weights[done - 1]:
            self.step.optimizer.scale_grad(batch_weights[done - 1] / after)

    # --- counting, and notifying callbacks ---

    @property
    def _losses(self) -> int:
        """How many losses a step returns: that of all, and those of the heads."""
        return 1 + self.step.heads

    def _as_numbers(self, value: Any) -> Any:
        """Return the loss of a batch as a number, of several heads theirs as a tuple of numbers."""
        return tuple(map(float, value[1:])) if self.step.heads else float(value)

    def _count_kept(self, kept: Kept, first: int, rows: Array) -> bool:
        """Count the batches from ``first`` to ``kept.done`` of these rows; see ``_count``."""
        new, heads = slice(first * kept.batch_size, kept.done * kept.batch_size), self.step.heads
        columns = [kept.arrays[i][first : kept.done].tolist() for i in range(self._losses)]
        losses = list(zip(*columns[1:], strict=True)) if heads else columns[0]
        rest = tuple(array[new] for array in kept.arrays[self._losses :])
        return self._count(losses, [rest if heads else rest[0]] if rest else [], rows[new])

    def _count(self, losses: list[Any], predictions: list[Any], rows: Array) -> bool:
        """Count steps that were made, by the losses and predictions of their batches, in order.

        Return True to end this run: the next steps need new rows or a new program.
        """
        data, weights = self.plan.data, self._row_weights(rows)
        self.tally.add(losses, self.plan.batch_size, len(rows), weights)
        begin = 0
        for prediction in predictions:
            end = begin + len(next(tree_leaves(prediction)))
            target = part_of(data.targets, rows[begin:end])
            weight = part_of(data.weights, rows[begin:end])
            loss_weight = part_of(weights, slice(begin, end))
            self.tally.add_predictions(prediction, target, weight, loss_weight)
            begin = end
        self.done += len(rows)
        self.plan.callbacks.notify_rows(self.number, len(rows), self.tally.read_running)
        self.signals.deliver()
        if self.plan.callbacks.per_step:
            return self._notify_end(losses, rows, weights)
        self.plan.callbacks.between_steps(self.number)
        return False

    def _row_weights(self, rows: Array) -> Any:
        """Return the weights of these rows in the loss, or in all heads; None if all are equal."""
        if not self.weighted:
            return None
        return self.step.loss.row_weights(*self.plan.data.targets_and_weights_of(rows))

    def _notify_begin(self) -> None:
        """Notify callbacks that a step begins, if one of them asks for every step."""
        if self.plan.callbacks.per_step:
            values = {"batch": self.done // self.plan.step_rows}
            self.plan.callbacks.notify("on_batch_begin", self.number, values)

    def _notify_end(self, losses: list[Any], rows: Array, weights: Any) -> bool:
        """Notify callbacks that a step has ended, and that the next begins.

        Return True to end this run: the next steps need new rows or a new program, or there are
        none.
        """
        loss = losses[0]
        if len(losses) > 1 or self.step.heads:
            tally = tally_of(self.step.loss, {})
            tally.add(losses, self.plan.batch_size, len(rows), weights)
            loss = tally.read()["loss"]
        number = (self.done - 1) // self.plan.step_rows
        self.plan.callbacks.notify("on_batch_end", self.number, {"batch": number, "loss": loss})
        self.plan.callbacks.between_steps(self.number)
        self.stopped = self.plan.stop.why is not None
        if self.stopped or self.done == len(self.order):
            return True
        self._notify_begin()
        return self.current_step() is not self.step

    # --- a step that failed ---

    def _explain(self) -> str:
        """Say where in the next step a number is not finite, and what may help."""
        step, plan = self.step, self.plan
        begin = (step.optimizer.steps - self.steps_before) * plan.step_rows
        rows = self.order[begin : begin + plan.step_rows]
        why = ""
        with self.snapshot:
            self.snapshot.take()
            for start in range(0, len(rows), plan.batch_size):
                batch = self._take(begin + start, rows[start : start + plan.batch_size])
                why = first_not_finite(step.model, step.loss, batch)
                if why:
                    break
            self.snapshot.restore()
        cure = advice(step.model, step.optimizer, self._take(begin, rows))
        return (
            f"training step {step.optimizer.steps + 1}: loss or gradient is not finite; "
            f"{why or 'every gradient is finite, their norm is not'}. Parameters and state are as "
            f"before this step. {cure}"
        )
