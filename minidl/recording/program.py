"""A recorded program: a step for inputs of one shape, in one mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from minidl import _kernels
from minidl._kernels.executor import Unfinished
from minidl._kernels.executor.calls import (
    INPUT,
    PARAMETER,
    STATE,
    TEMPORARY,
    VECTOR,
    Buffer,
    KernelCall,
    Operand,
)
from minidl._kernels.executor.lock import ProgramLock
from minidl._kernels.executor.program import Names, Program
from minidl._kernels.memory import aligned_zeros
from minidl._kernels.twins.errors import RowError, WeightError
from minidl.nn.nonfinite import first_not_finite
from minidl.recording.errors import NotFiniteError
from minidl.recording.fuse import fuse
from minidl.recording.guards import RecordingError
from minidl.recording.interface import interface_of
from minidl.recording.participants import Participants
from minidl.recording.plan import assign_threads, least_memory, place
from minidl.recording.pytree import tree_leaves
from minidl.recording.trace import Recorder
from minidl.signals import deferred
from minidl.threads import get_num_threads
from minidl.typing import Array

# What a kernel's answer > 0 means, as in execute.pxd: nothing; stop; stop if this is an epoch.
IGNORE, STOP, STOP_EPOCH = range(3)

NOT_BY_KERNELS = (
    "the recorded function returns a value that no kernel has written, so it was computed with "
    "NumPy; return what kernels and layers gave, and compute from that outside"
)


@dataclass
class Workspace:
    """The memory that a program works in, beyond parameters and state.

    Parameters
    ----------
    memory
        Memory of temporaries, each at its ``place``.
    least_nbytes
        Bytes of temporaries that are alive at the same time: no plan needs less.
    scratch, scratch_nbytes
        Memory that kernels use while they run, and how much of it each thread has.
    """

    memory: Array
    least_nbytes: int
    scratch: Array
    scratch_nbytes: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes of temporaries and scratch memory."""
        return self.memory.nbytes + self.scratch.nbytes

    def view(self, buffer: Buffer) -> Array:
        """Return a temporary as an array of the program's memory."""
        return np.ndarray(buffer.shape, buffer.dtype, self.memory, buffer.place)


class StepProgram:
    """A planned list of kernel calls, with its memory and all that it needs to run.

    Parameters
    ----------
    recorder
        The recorder that has traced the whole step.
    inputs, output
        Arguments and result of the call that was traced.
    copies
        Whether calls return copies.
    """

    def __init__(
        self, recorder: Recorder, inputs: tuple[Any, ...], output: Any, copies: bool
    ) -> None:
        homes = homes_of(recorder, output)
        returned = [buffer for buffer, _ in homes]
        self.calls = fuse(recorder.calls, returned)
        self.buffers = recorder.memory.buffers
        self.participants = Participants(recorder.watched, recorder.optimizers)
        memory = aligned_zeros(place(self.calls, returned))
        least_nbytes = least_memory(self.calls, returned)
        self.workspace = Workspace(memory, least_nbytes, np.empty(0, np.uint8))
        self.interface = interface_of(recorder.calls, inputs, output, homes, memory)
        self.answers = meanings_of_answers(self.calls)
        self.trained = _trained(self.calls)
        self._copies, self._lock = copies, ProgramLock()
        self.watched: StepProgram | None = None  # of a step that is watched
        self._watch: tuple[Any, int] = (None, 0)  # what watches, and its version then
        self.plan()

    def plan(self) -> None:
        """Make the compiled program, for the present limit of threads."""
        self.threads = get_num_threads()
        space = self.workspace
        assign_threads(self.calls, _kernels.address_of(space.memory), self.threads)
        space.scratch_nbytes = max((call.scratch for call in self.calls), default=0)
        team = max((call.threads for call in self.calls), default=1)
        space.scratch = aligned_zeros(space.scratch_nbytes * team)
        state = _changed_before_the_last(self.calls, self.answers)
        self.program = self.assemble(lambda buffer: buffer.begin, state)
        self.program.copies = self._copies
        self.program.result = self.interface.output
        if self.watched is not None:
            self.watched.plan()
        self._tell_of_watch()

    # --- steps that are watched ---

    def makes_steps_of(self, optimizer: Any) -> bool:
        """Whether an optimizer makes a step in it."""
        return steps_of(self.calls, optimizer) > 0

    def is_watched_by(self, watch: Any) -> bool:
        """Whether all is known of how its steps are watched that is needed for the next one."""
        known = self._watch[0] is watch and self._watch[1] == watch.version
        return known and (self.program.clock is None or not watch.clock.due or bool(self.watched))

    def watch_with(self, watch: Any, watched: StepProgram | None) -> None:
        """From now on, let this program of a watched step run where the watch says so.

        None: it is recorded when it is first needed.
        """
        self._watch, self.watched = (watch, watch.version), watched
        if watched is not None:
            watched.join(self._lock)
        self._tell_of_watch()

    def _tell_of_watch(self) -> None:
        (watch, _), program, watched = self._watch, self.program, self.watched
        program.watch, program.clock, program.watched = watch, None, None
        if watch is None:
            return
        program.advance = steps_of(self.calls, watch.optimizer)
        if program.advance or any(call.phase == "backward" for call in self.calls):
            program.clock = watch.clock.numbers
        if watched is not None:
            program.watched, watched.program.watch = watched.program, watch

    def assemble(self, address: Callable[[Buffer], int], state: list[Array]) -> Program:
        """Fill the argument structs, and make the compiled program of them.

        ``address`` says where each buffer that lives on between steps is. When a step fails,
        ``state`` is restored.
        """
        space = self.workspace
        base, scratch = _kernels.address_of(space.memory), _kernels.address_of(space.scratch)
        instructions, patches = [], []
        for index, call in enumerate(self.calls):
            for operand in call.operands:
                buffer = operand.buffer
                if buffer.kind == INPUT:
                    slot = call.kernel.fields[operand.name][0] // 8
                    patches.append((buffer.number, index, slot, operand.offset))
                else:
                    start = base + buffer.place if buffer.kind == TEMPORARY else address(buffer)
                    call.kernel.set(call.args, operand.name, start + operand.offset)
            if call.scratch:
                call.kernel.set(call.args, "scratch", scratch)
                call.kernel.set(call.args, "scratch_step", space.scratch_nbytes)
            instruction = call.function, bytes(call.args), call.threads, call.wait
            instructions.append((*instruction, self.answers[index]))
        persistent = [b.array for b in self.buffers if b.kind not in (INPUT, TEMPORARY)]
        keep = space.scratch, self.buffers
        inputs = self.interface.inputs
        return Program(
            instructions, inputs, patches, state, space.memory, persistent, keep, self._lock
        )

    def release_recording(self) -> None:
        """Free the memory that was used while the step was traced and proved."""
        for buffer in self.buffers:
            if buffer.kind in (TEMPORARY, INPUT):
                buffer.array = np.empty(0)

    def join(self, lock: ProgramLock) -> None:
        """Share the lock of the step's other programs from now on."""
        self._lock = self.program.lock = lock
        if self.watched is not None:
            self.watched.join(lock)

    def accept(self, names: Names | None) -> None:
        """Mark this program as valid for the present layers, optimizers and names."""
        self.participants.accept()
        self.program.scheduled = self.participants.scheduled
        self.program.names = names
        self.program.seen = _kernels.changes()
        if self.watched is not None:
            self.watched.accept(names)

    # --- one run at a time, for a profile ---

    def run(self, inputs: tuple[Any, ...]) -> None:
        """Run once on these inputs; raise an error if the step fails."""
        output = self.program.replay(inputs)
        if type(output) is Unfinished:
            if not output.failed:
                raise RecordingError(
                    "something was changed since the step was recorded: profile anew"
                )
            self.explain_end(output, inputs)

    def time(self, inputs: tuple[Any, ...], stamps: Array) -> None:
        """Run once, and note the time before every kernel and at the end, in nanoseconds."""
        failed, answer = self.program.time(inputs, stamps)
        if failed:
            self.explain(failed, answer, inputs)

    # --- when a step failed ---

    def that_ran(self, program: Program) -> StepProgram | None:
        """Return this program, or that of a watched step, whichever has run; None: another one."""
        found = self, self.watched
        return next((one for one in found if one is not None and one.program is program), None)

    def explain_end(self, end: Unfinished, inputs: tuple[Any, ...]) -> None:
        """Raise the error for a run that failed, of this program or of that of a watched step."""
        if end.failed and (failed := self.that_ran(end.program)) is not None:
            failed.explain(end.failed, end.answer, inputs)

    def explain(self, failed: int, answer: int, inputs: tuple[Any, ...]) -> NoReturn:
        """Raise the error that the function itself would have raised, with more about the cause."""
        call = self.calls[failed - 1]
        if call.kernel.is_checking:
            raise self._bad_number(call, answer - 1, inputs)
        what = "the norm of the gradient" if call.kernel.updates_parameters else "the loss"
        raise NotFiniteError(f"{what} is not finite", self.first_not_finite(inputs), inputs)

    def _bad_number(self, call: KernelCall, row: int, inputs: tuple[Any, ...]) -> ValueError:
        """Make the error for a label, weight, index or length that is not allowed."""
        limited = call.kernel.limited
        if limited is None:
            return self._wrong_weights(call, inputs)
        value, operand = None, call.operand(limited.name)
        if (flat := _input_of(operand, inputs)) is not None:
            value = flat[row]
        shape = () if operand is None or operand.offset else operand.buffer.shape
        limit = call.values[limited.limit]
        return RowError(limited.singular, row, value, limit, shape, call.label)

    def _wrong_weights(self, call: KernelCall, inputs: tuple[Any, ...]) -> ValueError:
        """Make the error for weights; where all labels are ignored, it says that."""
        labels = _input_of(call.operand("labels"), inputs)
        values = call.values
        if labels is not None and (labels[: values["rows"]] == values["ignore_index"]).all():
            return WeightError.all_ignored(int(values["ignore_index"]), call.label)
        return WeightError(f"{call.label}: {call.kernel.problem}")

    def first_not_finite(self, inputs: tuple[Any, ...]) -> str:
        """Run the step kernel by kernel; returns the first that writes a number that is not finite.

        The state is restored afterwards.
        """
        with deferred(), self.program.lock:
            self.program.prepare(inputs)
            found = first_not_finite(self._run_one_by_one())
            self.program.restore()
        return found

    def _run_one_by_one(self) -> Iterator[tuple[str, Any]]:
        """Run kernels until one stops the step; yield the place of each and what it wrote."""
        for index, call in enumerate(self.calls):
            answer = self.program.run_one(index)
            buffers = [o.buffer for o in call.operands if o.writes]
            yield call.place, tuple(self.workspace.view(r) for r in buffers if r.kind == TEMPORARY)
            if answer and self.answers[index] != IGNORE:
                return


def steps_of(calls: list[KernelCall], optimizer: Any) -> int:
    """How many steps an optimizer makes in these calls."""
    begun = [call for call in calls if call.kernel.stops and call.kernel.updates_parameters]
    states = [state for call in begun if (state := call.operand("state")) is not None]
    return sum(state.buffer.array is optimizer.states for state in states)


def _trained(calls: list[KernelCall]) -> list[Array]:
    """Collect the parameters and the state of layers that these calls change."""
    changed = {id(o.buffer): o.buffer for call in calls for o in call.operands if o.writes}
    return [
        buffer.array
        for buffer in changed.values()
        if buffer.kind in (PARAMETER, STATE) or (buffer.kind, buffer.name) == (VECTOR, "parameters")
    ]


def meanings_of_answers(calls: list[KernelCall]) -> list[int]:
    """Decide for each kernel what its answer means."""
    squares: set[int] = set()  # sums of squares: `clip` judges their total
    watch = []
    for call in calls:
        squares |= {id(o.buffer) for o in call.operands if call.kernel.may_be_infinite}
        if call.kernel.is_checking or (call.kernel.stops and call.kernel.updates_parameters):
            watch.append(STOP)
        elif call.kernel.stops and id(call.operands[0].buffer) not in squares:
            watch.append(STOP_EPOCH)
        else:
            watch.append(IGNORE)
    return watch


def _changed_before_the_last(calls: list[KernelCall], watch: list[int]) -> list[Array]:
    """Collect the arrays to restore when a step is stopped.

    These live on between steps, and are changed before the last call that may stop the step.
    Gradients are left out, because the next step clears them.
    """
    last = max((index for index, kind in enumerate(watch) if kind != IGNORE), default=-1)
    changed = {}
    for call in calls[: last + 1]:
        for buffer in (operand.buffer for operand in call.operands if operand.writes):
            if buffer.kind in (STATE, PARAMETER, VECTOR) and not call.clears:
                changed[id(buffer)] = buffer.array
    return list(changed.values())


def homes_of(recorder: Recorder, output: Any) -> list[tuple[Buffer, int]]:
    """Find the buffer of each array that the function returned, and the offset in it.

    Raises RecordingError if no kernel has written an array.
    """
    homes = []
    for leaf in tree_leaves(output):
        if isinstance(leaf, np.ndarray):
            homes.append(recorder.home_of(leaf))
        if isinstance(leaf, np.generic) or (homes and homes[-1] is None):
            raise RecordingError(NOT_BY_KERNELS)
    return [home for home in homes if home is not None]


def _input_of(operand: Operand | None, inputs: tuple[Any, ...]) -> Array | None:
    """Return the elements of the input from where an operand points on; None if it is no input."""
    if operand is None or operand.buffer.kind != INPUT:
        return None
    flat: Array = inputs[operand.buffer.number].reshape(-1)
    return flat[operand.offset // flat.itemsize :]
