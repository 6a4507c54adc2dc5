"""Choose the recorded program that serves a call of a function, or record another."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import MethodType
from typing import TYPE_CHECKING, Any, Self

from minidl import _kernels
from minidl._kernels.executor import Unfinished
from minidl._kernels.executor.step_call import StepCall
from minidl.nn.hooks import is_evaluating
from minidl.nn.watching import watches_around
from minidl.recording.guards import RecordingError
from minidl.recording.inputs import disjoint, kinds_of, places_of, prepared
from minidl.recording.names import names_of
from minidl.recording.traits import traits
from minidl.signals import deferred
from minidl.threads import get_num_threads

if TYPE_CHECKING:
    from minidl._kernels.executor.program import Names
    from minidl.recording.program import StepProgram
    from minidl.recording.verify import Check

Inputs = tuple[Any, ...]

# One recording at a time, in whatever thread.
RECORDING = threading.RLock()


def _renew_lock() -> None:
    """Make a new lock in a forked child: the thread that held the old one does not live there."""
    global RECORDING
    RECORDING = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


# How often a call looks for a program at most: once is enough unless other threads interfere.
TRIALS = 20

# Programs that a step keeps. When there are more, the oldest is dropped.
MOST_PROGRAMS = 64


class RecordedFunction(StepCall):
    """A function whose calls run recorded programs.

    One program serves one combination of the inputs' shapes and dtypes, the values of constants and
    the modes of the layers. A call that the latest program serves runs it without any Python
    (``StepCall``). Other calls look for their program, and record it if there is none.

    Parameters
    ----------
    function
        Computes with kernels only.
    copy
        Whether calls return copies.
    """

    def __init__(self, function: Callable[..., Any], copy: bool = False) -> None:
        functools.update_wrapper(self, function, updated=())
        self.function = function
        self.copy = copy
        self._places: dict[tuple[Any, ...], Any] = {}  # of arguments that are given by name
        self._lock: Any = None  # keeps two programs from running at the same time
        self.forget()
        if hasattr(_kernels, "changes"):  # kernels are compiled
            # Now, not at the first call: a child forked while a thread imports waits for ever.
            import_module("minidl.recording.verify")
            self._lock = import_module("minidl._kernels.executor.lock").ProgramLock()

    def __reduce__(self) -> Any:
        # Programs point into the memory of these very layers: a copy records its own.
        return type(self), (self.function, self.copy)

    def forget(self) -> None:
        """Drop all programs: the next call records anew."""
        self._programs: dict[Hashable, StepProgram] = {}
        self._names: Names | None = None  # what the function's names meant when it was recorded
        self._watched: list[Any] = []  # layers, losses and optimizers that take part
        # The traits of all that is watched; when they were read, and of how many.
        self._traits: tuple[Any, Hashable] = (None, ())
        self._latest: StepProgram | None = None
        self.program = None

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Self:
        # Each object has a recorded method of its own.
        if instance is None:
            return self
        step = type(self)(MethodType(self.function, instance), self.copy)
        vars(instance)[self._name] = step
        return step

    # --- a call that the latest program does not serve ---

    def by_place(self, inputs: Inputs, named: dict[str, Any]) -> Inputs:
        """Arrange all arguments in the order of the parameters."""
        given: tuple[Any, ...] = (len(inputs), *named)
        if given not in self._places:
            self._places[given] = places_of(self.function, *given)
        return (*inputs, *(named.get(name, default) for name, default in self._places[given]))

    def slow_call(self, why: Unfinished | None, inputs: Inputs) -> Any:
        """Make the call without the fast path.

        No program fits these inputs, or something changed since it was recorded, or the replay of
        a program failed, as ``why`` says.
        """
        if why is not None:
            for recorded in list(self._programs.values()):
                recorded.explain_end(why, inputs)
        if _kernels.isa == "reference" or _kernels.recorder() is not None:
            return self.function(*inputs)
        given = inputs
        inputs = tuple(prepared(number, x) for number, x in enumerate(given))
        for _ in range(TRIALS):
            recorded = self.find(inputs) or self.record(inputs, given=given)
            self.watch(recorded, _kernels.watch(), lambda: disjoint(inputs))
            used = tuple(recorded.interface.without_own(x) for x in inputs)
            if recorded.interface.changed:
                used = disjoint(used)
                recorded.interface.check_copies(given, used)
            output = recorded.program.replay(used)
            if type(output) is not Unfinished:
                return output
            recorded.explain_end(output, used)
            if recorded.program.seen == _kernels.changes():  # such as an input that is a parameter
                self.record(inputs, given=given, anew=True)
        raise RecordingError(
            f"{self!r} could not be run: what it depends on is changed again and again, maybe by "
            "another thread"
        )

    # --- programs ---

    def find(self, inputs: Inputs) -> StepProgram | None:
        """Find the program that serves these inputs now; None if they must be recorded first."""
        if self._names is not None and not self._names.same():
            self.forget()
        latest = self._latest
        if latest is not None and latest.program.serves(inputs):
            return latest
        with RECORDING:
            for recorded in self._programs.values():
                # Full batches and the smaller last one of every epoch take turns.
                if recorded.program.serves(inputs):
                    self._latest, self.program = recorded, recorded.program
                    return recorded
            for recorded in self._programs.values():
                if recorded.program.seen != _kernels.changes():
                    recorded.participants.check()
            found = self._programs.get(self._key(inputs))
            if found is not None:
                if found.threads != get_num_threads():
                    found.plan()
                self._serve(found)
        return found

    def _key(self, inputs: Inputs) -> Hashable:
        """Return the key of a program: shapes, dtypes, constants, and traits of layers."""
        now = _kernels.changes(), len(self._watched)
        if self._traits[0] != now:
            self._traits = now, tuple(map(traits, self._watched))
        return _kernels.isa, kinds_of(inputs), self._traits[1]

    def _serve(self, recorded: StepProgram) -> None:
        """Make this program the one that the next calls run."""
        recorded.accept(self._names)
        self._latest, self.program = recorded, recorded.program

    def record(
        self,
        inputs: Inputs,
        check: Check = None,
        given: Inputs | None = None,
        anew: bool = False,
    ) -> StepProgram:
        """Record what the function does with these inputs; returns the program.

        Inputs, layers and optimizers stay as they are. ``check`` may examine what the function
        returned, and raise. ``given`` is what the inputs were made from. Signals are handled while
        the function runs, and wait otherwise. Unless ``anew``, a program that another thread has
        recorded meanwhile is returned.
        """
        given, inputs = given or inputs, disjoint(inputs)
        with self._recording() as signals:
            recorded = None if anew or check else self.find(inputs)
            if recorded is None:
                recorded = self._record(inputs, given, check, signals)
                self._add(inputs, recorded)
        return recorded

    def watch(self, recorded: StepProgram, watch: Any, inputs: Callable[[], Inputs]) -> None:
        """Have the steps of a program watched; by None: by nobody.

        What a watched step does is recorded, with such inputs, when the next one is to be watched.
        The watch has an ``optimizer``, whose steps it counts by its ``clock``; a ``version`` of
        what it notes; a context ``noting(recording=True)``, in which layers and optimizer note what
        they see; ``make_room()``, for further notes; and ``outer``, the watch of a block around.
        """
        if watch is None or is_evaluating():
            return
        for other in watches_around():
            if other is not watch and recorded.makes_steps_of(other.optimizer):
                raise RecordingError(
                    f"steps of {other.optimizer!r} are watched by a block around another, and of "
                    "recorded steps only the innermost block knows: watch them in one block, or "
                    "run the function without minidl.record"
                )
        watch.make_room()
        if recorded.is_watched_by(watch):
            return
        watched = None
        if watch.clock.due:
            given = inputs()
            with self._recording() as signals, watch.noting(recording=True):
                watched = self._record(given, given, None, signals)
        recorded.watch_with(watch, watched)
        self._serve(recorded)

    def _record(
        self, inputs: Inputs, given: Inputs, check: Check, signals: deferred
    ) -> StepProgram:
        from minidl.recording.verify import record_program  # needs compiled kernels

        return record_program(self.function, inputs, given, self.copy, check, signals)

    @contextmanager
    def _recording(self) -> Iterator[deferred]:
        """Let no other thread record meanwhile, or run the programs there are, which change what
        is copied here. Signals wait, where they are not handled.
        """
        if _kernels.recorder() is not None:
            raise RecordingError("a recorded function cannot record another, or run its epochs")
        with self._lock.recording(), deferred() as signals:
            lock = RECORDING  # a child that is forked meanwhile has another
            while not lock.acquire(timeout=0.05):
                signals.deliver()
            try:
                yield signals
            finally:
                lock.release()

    def _add(self, inputs: Inputs, recorded: StepProgram) -> None:
        """Add a program, and make it the one that the next calls run."""
        from minidl._kernels.executor.program import Names  # needs compiled kernels

        recorded.join(self._lock)
        for root in recorded.participants.watched:
            if not any(root is known for known in self._watched):
                self._watched.append(root)
        self._names = Names(names_of(self.function))
        self._programs[self._key(inputs)] = recorded
        self._serve(recorded)
        if len(self._programs) > MOST_PROGRAMS:
            del self._programs[next(iter(self._programs))]
