"""Prove that a program does what the traced function did, before it is used.

1. The function is traced: its kernels run, on copies of all memory.
2. It is rehearsed twice without kernels, on arrays that hold +∞ everywhere, and then -∞. It must
   make the same kernel calls: if not, it reads values into Python, or counts its calls.
3. The program runs on second copies of all memory, and must leave the same bits as the function.

Modes and attributes that the function has set are put back if anything fails.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minidl._kernels.executor.calls import INPUT, Buffer
from minidl._kernels.signature import Kernel
from minidl.recording.errors import NotFiniteError
from minidl.recording.guards import ADVICE, RecordingError
from minidl.recording.program import StepProgram, homes_of
from minidl.recording.pytree import tree_leaves, tree_map
from minidl.recording.shadow import Shadow, fill
from minidl.recording.trace import Recorder
from minidl.signals import deferred
from minidl.typing import Array

NOT_THE_SAME = "the recorded function does not do the same when it runs again from the same state"

# The value of all array elements in each rehearsal: what the function does must not depend on it.
LOOKS = (float("inf"), float("-inf"))

Check = Callable[[Any], object] | None  # examines what the function returned, and may raise


def record_program(
    function: Callable[..., Any],
    inputs: tuple[Any, ...],
    given: tuple[Any, ...],
    copies: bool,
    check: Check,
    signals: deferred,
) -> StepProgram:
    """Trace a function, and return a program that was proved to do the same.

    ``given`` is what the inputs were made from; ``copies`` says whether calls return copies.
    """
    recorder = Recorder(inputs)
    output = _trace(recorder, function, inputs, check, signals)
    try:
        homes_of(recorder, output)  # raises if NumPy has computed a part of it
        for look in LOOKS:
            recorder.rewind.put_modes_back()
            _rehearse(recorder, function, output, inputs, look, signals)
        program = StepProgram(recorder, inputs, output, copies)
        _prove(program, recorder, output)
        program.release_recording()
        program.interface.check_copies(given, inputs)
    except BaseException:
        recorder.rewind.put_back()
        raise
    return program


def _trace(
    recorder: Recorder,
    function: Callable[..., Any],
    inputs: tuple[Any, ...],
    check: Check,
    signals: deferred,
) -> Any:
    """Run the function with its kernels, and check what it returned."""
    try:
        output = recorder.run(function, signals)
        if check is not None:
            check(tree_map(output, recorder.as_numpy))
    except FloatingPointError as error:
        recorder.rewind.put_back()
        place = recorder.first_not_finite()
        raise NotFiniteError(str(error), place, inputs) from None
    except BaseException:
        recorder.rewind.put_back()
        raise
    return output


# --- rehearsals -----------------------------------------------------------------------------


def _rehearse(
    recorder: Recorder,
    function: Callable[..., Any],
    output: Any,
    inputs: tuple[Any, ...],
    look: float,
    signals: deferred,
) -> None:
    """Run the function again without kernels, on arrays that hold ``look`` everywhere."""
    again = Rehearsal(inputs, recorder, look)
    try:
        with np.errstate(all="ignore"):
            other = again.run(function, signals)
        again.finish()
    except RecordingError:
        raise
    except Exception as error:
        raise RecordingError(
            f"{NOT_THE_SAME}: {type(error).__name__}: {error}. {ADVICE}"
        ) from error
    if recorder.described(output) != again.described(other):
        raise RecordingError(f"{NOT_THE_SAME}: its results differ. {ADVICE}")


class Rehearsal(Recorder):
    """Runs a traced function again, and compares its kernel calls with those of the first run.

    No kernel runs, and every array holds one number, ``look``. This detects a function that takes
    values into Python by some way that is not refused, and acts on them.
    """

    def __init__(self, inputs: tuple[Any, ...], first: Recorder, look: float) -> None:
        self._look, self._expected = look, first.calls
        super().__init__(inputs)

    def _make_shadow(self, buffer: Buffer) -> Shadow:
        return Shadow(buffer.array, self._look, alone=buffer.kind == INPUT)

    def _set_rates(self, optimizer: Any) -> None:
        pass

    def allocated(self, array: Array) -> Array:
        fill(array.reshape(-1).view(np.uint8), array.dtype, self._look)
        return super().allocated(array)

    def called(self, kernel: Kernel, function: int, args: bytes, scratch: int) -> bool:
        super().called(kernel, function, args, scratch)
        self._compare(len(self.calls) - 1)
        return True

    def _compare(self, index: int) -> None:
        runs = self._expected, self.calls
        first, now = (run[index] if index < len(run) else None for run in runs)
        if first is None or now is None or first.fingerprint != now.fingerprint:
            places = [call.place if call else "nothing" for call in (first, now)]
            raise RecordingError(f"{NOT_THE_SAME}: first {places[0]}, then {places[1]}. {ADVICE}")

    def finish(self) -> None:
        """Raise RecordingError if the function did less than the first time."""
        if len(self.calls) < len(self._expected):
            self._compare(len(self.calls))


# --- function and program -------------------------------------------------------------------


def _prove(program: StepProgram, recorder: Recorder, output: Any) -> None:
    """Run the program on a copy of all memory; raise RecordingError unless the bits that it leaves
    are those that the function has left.
    """
    inputs = list(recorder.inputs)
    for buffer in recorder.memory.buffers:
        if buffer.kind == INPUT:
            shadow, copy = recorder.memory.shadow_of(buffer), buffer.array
            if buffer.number in program.interface.changed:
                copy = shadow.of(buffer.array, shadow.copy_again())
            inputs[buffer.number] = copy
    on_copy = program.assemble(lambda b: recorder.memory.shadow_of(b).second_at(b), [])
    # `time` runs a program on any inputs, even if it is not valid yet.
    failed, _ = on_copy.time(tuple(inputs), np.empty(len(program.calls) + 1, np.int64))
    returned = zip(tree_leaves(output), tree_leaves(program.interface.output), strict=True)
    same = all(shadow.same() for shadow in recorder.memory.shadows) and all(
        np.asarray(leaf).tobytes() == own.tobytes()
        for leaf, own in returned
        if isinstance(own, np.ndarray) and np.may_share_memory(own, program.workspace.memory)
    )
    if failed or not same:
        raise RecordingError(
            "the recorded function does something that its replay does not: it changes an "
            f"array with NumPy, or takes an array's values into Python. {ADVICE}"
        )
