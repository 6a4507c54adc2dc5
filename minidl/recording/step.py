"""A recorded function: which program serves a call, and when another must be recorded."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Hashable
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np

from minidl import _kernels
from minidl.nn.nonfinite import check_finite, is_finite
from minidl.recording.errors import NotFiniteError
from minidl.recording.guards import RecordingError
from minidl.recording.inputs import disjoint, kinds_of, places_of, prepared, traits
from minidl.recording.names import names_of
from minidl.recording.pytree import mapped
from minidl.recording.trace import ADVICE, NOT_THE_SAME, Recorder, Rehearsal
from minidl.signals import deferred
from minidl.threads import get_num_threads
from minidl.typing import Array

Inputs = tuple[Any, ...]
Check = Callable[[Any], object] | None  # of what the function returned

# One recording at a time, in whatever thread.
RECORDING = threading.RLock()


def _renew_lock() -> None:
    """In a forked child: whoever held the lock does not live there."""
    global RECORDING
    RECORDING = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


# What all values seem to be when a function runs again: is anything else done because of them?
LOOKS = (float("inf"), float("-inf"))

# How often a call looks for a program: once, unless other threads change something meanwhile.
TRIALS = 20

# Programs a step keeps: of shapes and constants beyond that, the oldest are recorded anew.
MOST_PROGRAMS = 64


class Step(_kernels.Replayer):
    """A recorded function; made by ``record``.

    One program serves one combination of the inputs' shapes and dtypes and the modes of the
    layers; another combination is recorded when it first comes.
    """

    def __init__(self, function: Callable[..., Any], copy: bool = False) -> None:
        functools.update_wrapper(self, function, updated=())
        self.function = function
        self.copy = copy
        self._places: dict[tuple[Any, ...], Any] = {}  # of arguments that are given by name
        self._lock: Any = None  # keeps two programs from running at the same time
        self.forget()

    def __reduce__(self) -> Any:
        # Programs point into the memory of these very layers: a copy records its own.
        return type(self), (self.function, self.copy)

    def forget(self) -> None:
        """Drop all programs: the next call records anew."""
        self._programs: dict[Hashable, Any] = {}
        self.names: Any = None  # what the function's names meant when it was recorded
        self._watched: list[Any] = []
        self._traits: tuple[Any, Hashable] = (None, ())  # as of when, of whom; and what they are
        self._latest: Any = None
        self._latest_kinds: Hashable = None
        self.program = None

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Step:
        # A recorded method: each object has a step of its own.
        if instance is None:
            return self
        step = Step(MethodType(self.function, instance), self.copy)
        vars(instance)[self._name] = step
        return step

    def by_place(self, inputs: Inputs, named: dict[str, Any]) -> Inputs:
        """The arguments of a call that named some of them, in the order of the parameters."""
        given: tuple[Any, ...] = (len(inputs), *named)
        if given not in self._places:
            self._places[given] = places_of(self.function, *given)
        return (*inputs, *(named.get(name, default) for name, default in self._places[given]))

    def otherwise(self, program: Any, failed: int, answer: Any, inputs: Inputs) -> Any:
        """Slow path of a call: no program fits these inputs, something changed since, or the
        replay failed.
        """
        if failed > 0:
            for recorded in self._programs.values():
                if recorded.program is program:
                    recorded.explain(failed, answer, inputs)
        return self._first(inputs)

    def _first(self, inputs: Inputs) -> Any:
        """The slow way: inputs not yet seen, or something may have changed since they were."""
        if _kernels.isa == "reference" or _kernels.recorder() is not None:
            return self.function(*inputs)
        given = inputs
        inputs = tuple(prepared(number, x) for number, x in enumerate(given))
        for _ in range(TRIALS):
            recorded = self.program_for(inputs)
            if recorded is None:
                recorded = self.record(inputs, given=given)
            used = tuple(recorded.apart(x) for x in inputs)
            if recorded.changed:
                used = disjoint(used)
                recorded.check_copies(given, used)
            failed, output = recorded.program.replay(used)
            if failed == 0:
                return output
            if failed > 0:
                recorded.explain(failed, output, used)
            if recorded.program.seen == _kernels.changes():  # such as an input that is a parameter
                self.record(inputs, given=given, anew=True)
        raise RecordingError(
            f"{self!r} could not be run: what it depends on is changed again and again, maybe by "
            "another thread"
        )

    def program_for(self, inputs: Inputs) -> Any:
        """The program that serves these inputs now; None if they must be recorded first."""
        if self.names is not None and not self.names.same():
            self.forget()
        latest, kinds = self._latest, kinds_of(inputs)
        unchanged = latest is not None and latest.program.seen == _kernels.changes()
        if unchanged and kinds == self._latest_kinds:
            return latest
        with RECORDING:
            for recorded in self._programs.values():
                if recorded.program.seen != _kernels.changes():
                    recorded.check()
            recorded = self._programs.get(self._key(inputs))
            if recorded is not None:
                if recorded.threads != get_num_threads():
                    recorded.plan()
                self._serve(recorded, kinds)
        return recorded

    def _serve(self, recorded: Any, kinds: Hashable) -> None:
        recorded.accept()
        self._latest, self._latest_kinds = recorded, kinds
        self.program = recorded.program

    def record(
        self,
        inputs: Inputs,
        check: Check = None,
        given: Inputs | None = None,
        anew: bool = False,
    ) -> Any:
        """Write down what the function does with these inputs; returns the program.

        Nothing but the step itself changes: neither the inputs, nor a layer or an optimizer.
        ``check`` may look at what the function returned, and raise. ``given`` is what the inputs
        were made from. Signals are heard while the function runs, and wait for the rest. Unless
        ``anew``, another thread may have recorded the same meanwhile.
        """
        if _kernels.recorder() is not None:
            raise RecordingError("a recorded function cannot record another, or run its epochs")
        given, inputs = given or inputs, disjoint(inputs)
        with deferred() as signals:
            lock = RECORDING  # a child that is forked meanwhile has another
            while not lock.acquire(timeout=0.05):
                signals.deliver()
            try:
                recorded = None if anew or check else self.program_for(inputs)
                if recorded is None:
                    recorder, recorded = self._recorded(inputs, check, given, signals)
                    self._add(inputs, recorder, recorded)
            finally:
                lock.release()
        return recorded

    def _add(self, inputs: Inputs, recorder: Recorder, recorded: Any) -> None:
        """Take a program in."""
        from minidl._kernels.executor.program import Names, ProgramLock  # needs compiled kernels

        if self._lock is None:
            self._lock = ProgramLock()
        recorded.join(self._lock)
        for root in recorder.watched:
            if not any(root is known for known in self._watched):
                self._watched.append(root)
        recorded.accept()
        self._programs[self._key(inputs)] = recorded
        if len(self._programs) > MOST_PROGRAMS:
            del self._programs[next(iter(self._programs))]
        self._serve(recorded, kinds_of(inputs))
        self.names = Names(names_of(self.function))

    def _recorded(
        self, inputs: Inputs, check: Check, given: Inputs, signals: deferred
    ) -> tuple[Recorder, Any]:
        """Run the function, rehearse it, and run the program, all on copies of all memory."""
        from minidl.recording.program import Recorded, homes_of  # needs compiled kernels

        recorder = Recorder(inputs)
        try:
            output = recorder.run(self.function, signals)
            if check is not None:
                check(mapped(output, recorder.shown))
        except FloatingPointError as error:
            recorder.put_back()
            place = recorder.first_not_finite()
            raise NotFiniteError(str(error), place, inputs) from None
        except BaseException:
            recorder.put_back()
            raise
        try:
            homes_of(recorder, output)
            for look in LOOKS:
                recorder.switch_back()
                self._rehearse(recorder, output, inputs, look, signals)
            recorded = Recorded(recorder, inputs, output, self.copy)
            recorded.check_copies(given, inputs)
        except BaseException:
            recorder.put_back()
            raise
        return recorder, recorded

    def _rehearse(
        self, recorder: Recorder, output: Any, inputs: Inputs, look: float, signals: deferred
    ) -> None:
        """Run the function once more, on other values, as far as Python can see them."""
        again = Rehearsal(inputs, recorder, look)
        try:
            with np.errstate(all="ignore"):
                other = again.run(self.function, signals)
            again.finish()
        except RecordingError:
            raise
        except Exception as error:
            raise RecordingError(
                f"{NOT_THE_SAME}: {type(error).__name__}: {error}. {ADVICE}"
            ) from error
        if recorder.described(output) != again.described(other):
            raise RecordingError(f"{NOT_THE_SAME}: its results differ. {ADVICE}")

    def _key(self, inputs: Inputs) -> Hashable:
        now = _kernels.changes(), len(self._watched)
        if self._traits[0] != now:
            self._traits = now, tuple(map(traits, self._watched))
        return _kernels.isa, kinds_of(inputs), self._traits[1]

    def epoch(
        self,
        X: Array | tuple[Array, ...],
        Y: Array | tuple[Array, ...] | None,
        batch_size: int,
        rng: Any = None,
        shuffle: bool = True,
        per_step: bool = False,
    ) -> Any:
        """Run the step over all rows of X and Y, a batch at a time, in one call.

        The batches are gathered in C, or read where they are if they are in order. The last one
        may be smaller: it is another recording. Ctrl-C is heeded between two steps.

        Parameters
        ----------
        X, Y
            Inputs of the step, for all rows: arrays, or tuples of arrays, with as many rows each.
            The function takes one after the other, ``function(x, y)``, or of
            ``epoch((X1, X2), Y, ...)`` batches as ``function(x1, x2, y)``; there need not be a Y
            (None). It returns the loss, or a tuple, list or dict that begins with it.
        batch_size
            Rows of a step, ≥ 1.
        rng
            Generator or seed of the order of the rows; the order is that of ``minidl.batches``.
        shuffle
            Whether the order is random.
        per_step
            Whether to return what every step returned: numbers as one array of as many as there
            were steps, arrays with a row for each of the batch as one array with a row for each of
            X, in the order in which they were taken.

        Shapes
        ------
        X (samples, ...), Y (samples, ...), and so for each array of a tuple.

        Returns
        -------
        float
            The mean of the losses, weighted with the rows of their batches; or what ``per_step``
            says.

        Raises
        ------
        FloatingPointError
            At the first step whose loss or gradient is not finite, naming the step and the layer;
            all parameters and state are as before this step. After the last one, if a parameter
            or a layer's state is not finite.
        """
        from minidl.recording.epoch import arrays_of, order_of, run_epoch

        if _kernels.recorder() is not None:
            raise RecordingError("a recorded function cannot run the epochs of another")
        arrays = arrays_of(X, Y)
        order = order_of(len(arrays[0]), batch_size, rng, shuffle)
        kept = run_epoch(self, arrays, batch_size, order, everything=per_step)
        if self._latest is None or not all(map(is_finite, self._latest.trained)):
            models = self._watched or [value for *_, value in names_of(self.function)]
            check_finite(models, "after the last step of the epoch")
        return kept.output() if per_step else kept.mean_loss()

    # --- look inside ---

    @property
    def programs(self) -> int:
        """How many there are: one for each combination of shapes, dtypes and modes seen."""
        return len(self._programs)

    @property
    def memory(self) -> int:
        """Bytes of the memory that all programs of this step work in, beyond parameters and
        state: what kernels return, and scratch memory.
        """
        return sum(r.memory.nbytes + r.scratch.nbytes for r in self._programs.values())

    def __str__(self) -> str:
        """The programs: every kernel with its operands, by layer and role."""
        from minidl.profiling.step_report import listing

        programs = "\n\n".join(listing(recorded) for recorded in self._programs.values())
        return programs or f"{self!r}: nothing recorded yet"

    def __repr__(self) -> str:
        name = getattr(self.function, "__qualname__", repr(self.function))
        return f"<recorded {name}, {len(self._programs)} programs>"

    def profile(self, *inputs: Any, rounds: int = 200) -> Any:
        """Time every kernel of the step on these inputs.

        The step is really run, ``rounds`` times: a training step trains.

        Parameters
        ----------
        *inputs
            As for a call.
        rounds
            How often; the median of each kernel is reported.

        Returns
        -------
        Profile
            Prints as a table: kernel, shape, microseconds, share, flops and bytes, and the fraction
            of what this machine can do at most; ``profile.plot(FILE)`` draws it.
        """
        from minidl.profiling.step_profile import take_profile

        self(*inputs)
        if self._latest is None:
            raise RecordingError("there is nothing to profile: the NumPy twin records nothing")
        inputs = tuple(prepared(number, x) for number, x in enumerate(inputs))
        return take_profile(self._latest, inputs, rounds)

    def plot(self, path: str | Path | None, *inputs: Any, rounds: int = 200) -> Any:
        """Draw the profile of the step on these inputs as bars, into a file if there is a path."""
        return self.profile(*inputs, rounds=rounds).plot(path)
