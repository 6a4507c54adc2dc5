"""One recorded program: a step for inputs of one shape, in one mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import numpy as np

from minidl import _kernels
from minidl._kernels.executor.program import InputView, Program, ProgramLock
from minidl._kernels.memory import aligned_zeros
from minidl._kernels.twins.errors import RowError
from minidl.nn.nonfinite import first_not_finite
from minidl.recording import plan as planning
from minidl.recording.calls import (
    INPUT,
    PARAMETER,
    STATE,
    TEMPORARY,
    VECTOR,
    Buffer,
    KernelCall,
)
from minidl.recording.errors import NotFiniteError
from minidl.recording.fuse import fuse
from minidl.recording.guards import RecordedArray, RecordingError
from minidl.recording.pytree import leaves_of, mapped
from minidl.recording.trace import ADVICE, Recorder
from minidl.signals import deferred
from minidl.threads import get_num_threads
from minidl.typing import Array

# What the answer of a kernel means (walk.pxi): nothing; stop; stop if this is an epoch.
IGNORE, STOP, STOP_EPOCH = range(3)

NOT_BY_KERNELS = (
    "the recorded function returns a value that no kernel has written, so it was computed with "
    "NumPy; return what kernels and layers gave, and compute from that outside"
)


class Recorded:
    """A program, the memory it works in, and what is known about both.

    Parameters
    ----------
    recorder
        That has heard the whole step.
    inputs, output
        Arguments and result of the call that was recorded.
    copies
        Whether a call returns copies.
    """

    def __init__(
        self, recorder: Recorder, inputs: tuple[Any, ...], output: Any, copies: bool = False
    ) -> None:
        self._copies, self._lock = copies, ProgramLock()
        operands = [operand for entry in recorder.entries for operand in entry.operands]
        self.changed = {operand.region.number for operand in operands if operand.changes_input}
        self.inputs = [
            _kind(x, number in self.changed) if isinstance(x, np.ndarray) else x
            for number, x in enumerate(inputs)
        ]
        self.watched, self.optimizers = recorder.watched, recorder.optimizers
        self.mode = _mode(recorder.watched)
        leaves = [leaf for leaf in leaves_of(output) if isinstance(leaf, np.ndarray)]
        found = homes_of(recorder, output)
        homes = [home for home, _ in found]
        self.entries = fuse(recorder.entries, homes)
        self.nbytes = planning.place(self.entries, homes)
        self.least_nbytes = planning.least_memory(self.entries, homes)
        self.memory = aligned_zeros(self.nbytes)
        self.regions = recorder.regions
        self._held: list[tuple[str, Array]] = []
        places = dict(zip(map(id, leaves), found, strict=True))
        lasting = {key: self._lasting(leaf, *places[key]) for key, leaf in _by_id(leaves)}
        self._numbers = {
            id(lasting[key]): (home.number, lasting[key], offset)
            for key, (home, offset) in places.items()
            if home.kind == INPUT
        }
        self._output = mapped(output, lambda leaf: lasting.get(id(leaf), leaf))
        self._watch = _watched_answers(self.entries)
        self.plan()
        self._prove(recorder, [(leaf, lasting[key]) for key, leaf in _by_id(leaves)])
        for region in self.regions:
            if region.kind in (TEMPORARY, INPUT):
                region.array = np.empty(0)  # the recording's own memory is no longer needed
        self.trained = _trained(self.entries)

    def _prove(self, recorder: Recorder, returned: list[tuple[Array, Array]]) -> None:
        """Run the program on a copy of all memory, and raise RecordingError if it does not do there
        what the function did. ``returned`` are the arrays that the function has returned, each with
        that of the program.
        """
        inputs = list(recorder.inputs)
        for region in recorder.regions:
            if region.kind == INPUT:
                shadow, copy = recorder.shadow_of(region), region.array
                if region.number in self.changed:
                    copy = shadow.of(region.array, shadow.copy_again())
                inputs[region.number] = copy
        program = self._program(lambda region: recorder.shadow_of(region).second_at(region), [])
        # As it is timed, because that is how any program runs on any inputs.
        failed, _ = program.time(tuple(inputs), np.empty(len(self.entries) + 1, np.int64))
        same = all(shadow.same() for shadow in recorder.shadows) and all(
            np.asarray(leaf).tobytes() == own.tobytes()
            for leaf, own in returned
            if np.may_share_memory(own, self.memory)
        )
        if failed or not same:
            raise RecordingError(
                "the recorded function does something that its replay does not: it changes an "
                f"array with NumPy, or takes an array's values into Python. {ADVICE}"
            )

    def plan(self) -> None:
        """Make the program, for as many threads as there may be now."""
        self.threads = get_num_threads()
        base = _kernels.address_of(self.memory)
        planning.share(self.entries, base, self.threads)
        scratch = max((entry.scratch for entry in self.entries), default=0)
        team = max((entry.threads for entry in self.entries), default=1)
        self.scratch = aligned_zeros(scratch * team)
        self._scratch_step = scratch
        state = _changed_before_the_last(self.entries, self._watch)
        self.program = self._program(lambda region: region.begin, state)
        self.program.copies = self._copies
        self.program.result = self.result(None)

    def _program(self, address: Callable[[Buffer], int], state: list[Array]) -> Program:
        """The program whose memory that lives on is where ``address`` says, and of which ``state``
        is brought back when a step fails.
        """
        base, scratch = _kernels.address_of(self.memory), self._scratch_step
        instructions, patches = [], []
        for index, entry in enumerate(self.entries):
            for operand in entry.operands:
                region = operand.region
                if region.kind == INPUT:
                    slot = entry.kernel.fields[operand.name][0] // 8
                    patches.append((region.number, index, slot, operand.offset))
                else:
                    start = base + region.place if region.kind == TEMPORARY else address(region)
                    entry.kernel.set(entry.args, operand.name, start + operand.offset)
            if entry.scratch:
                memory = _kernels.address_of(self.scratch)
                entry.kernel.set(entry.args, "scratch", memory)
                entry.kernel.set(entry.args, "scratch_step", scratch)
            args = bytes(entry.args)
            watch = self._watch[index]
            instructions.append((entry.function, args, entry.threads, entry.wait, watch))
        lasting = [r.array for r in self.regions if r.kind not in (INPUT, TEMPORARY)]
        keep = self.scratch, self.regions
        return Program(
            instructions, self.inputs, patches, state, self.memory, lasting, keep, self._lock
        )

    def join(self, lock: ProgramLock) -> None:
        """From now on, share the lock of the other programs of the step."""
        self._lock = self.program.lock = lock

    def accept(self) -> None:
        """Take things as they are now."""
        if not self._held:
            self._held = list(_held(self.watched))
        self.program.seen = _kernels.changes()
        self.scheduled = [group for o in self.optimizers for group in o.scheduled()]
        self.program.scheduled = self.scheduled

    def dials(self, steps: int) -> list[tuple[Array, Array]]:
        """The numbers that schedules set in each of the steps to come, and where: for as many
        steps as all schedules have a rate, at least one.
        """
        rates = [group.rates(steps) for group in self.scheduled]
        least = min(map(len, rates), default=0)
        places = (group.state["learning_rate"] for group in self.scheduled)
        return [(place, values[:least]) for place, values in zip(places, rates, strict=True)]

    # --- outputs ---

    def result(self, inputs: tuple[Any, ...] | None) -> Any:
        """The arrays of the program that hold what the step returns, which the next call
        overwrites. Of functions that return an input they depend on the inputs: without those,
        the program is told where in them.
        """
        return mapped(self._output, lambda leaf: self._out(leaf, inputs))

    def _out(self, leaf: Any, inputs: tuple[Any, ...] | None) -> Any:
        if id(leaf) in self._numbers:
            number, leaf, offset = self._numbers[id(leaf)]
            if inputs is None:
                return InputView(number, offset, leaf)
            return np.ndarray(leaf.shape, leaf.dtype, inputs[number], offset, leaf.strides)
        return leaf

    def _lasting(self, leaf: Array, home: Buffer, offset: int) -> Array:
        """The array that holds what the function returned here; like a part of an input."""
        if home.kind == INPUT:
            one = np.empty((), leaf.dtype)
            return np.lib.stride_tricks.as_strided(one, leaf.shape, leaf.strides)
        memory, begin = (self.memory, home.place) if home.kind == TEMPORARY else (home.array, 0)
        return np.ndarray(leaf.shape, leaf.dtype, memory, begin + offset, leaf.strides)

    def view(self, region: Buffer) -> Array:
        """A temporary, where the program keeps it."""
        return np.ndarray(region.shape, region.dtype, self.memory, region.place)

    def apart(self, x: Any) -> Any:
        """An input; a copy, if it is something that this program has returned."""
        if isinstance(x, np.ndarray) and np.may_share_memory(x, self.memory):
            return x.copy()
        return x

    def check_copies(self, given: tuple[Any, ...], used: tuple[Any, ...]) -> None:
        """Raise ValueError if the step changes an input in place, but works on a copy of it."""
        for number in self.changed:
            writeable = used[number].flags.writeable
            if not (writeable and np.may_share_memory(given[number], used[number])):
                raise ValueError(
                    f"argument {number + 1} of a recorded step is changed in place: it must be "
                    "C-contiguous and writeable, and share no memory with another argument or "
                    "with what the step returned"
                )

    # --- is everything as it was? ---

    def check(self) -> None:
        """Raise RecordingError, naming it, if a parameter or an array of a layer or an optimizer
        was replaced.
        """
        now = list(_held(self.watched))
        for (name, array), (_, new_array) in zip(self._held, now, strict=False):
            if array is not new_array:
                raise RecordingError(
                    f"{name} was replaced or moved since the step was recorded (by an optimizer "
                    "built later, reset() or astype(), or another layer in its place); call "
                    ".forget() on the step to record it anew"
                )
        if len(now) != len(self._held):
            raise RecordingError(
                f"there were {len(self._held)} arrays of parameters and state when the step was "
                f"recorded, now there are {len(now)}; call .forget() on the step to record anew"
            )
        for optimizer in self.optimizers:
            optimizer.flat.check()  # is a parameter frozen by now?

    # --- when a step failed ---

    def explain(self, failed: int, answer: int, inputs: tuple[Any, ...]) -> NoReturn:
        """Raise what the function itself would have raised, and say more."""
        entry = self.entries[failed - 1]
        if entry.kernel.is_checking:
            raise self._bad_number(entry, answer - 1, inputs)
        what = "the norm of the gradient" if entry.kernel.updates_parameters else "the loss"
        raise NotFiniteError(f"{what} is not finite", self.first_not_finite(inputs), inputs)

    def _bad_number(self, entry: KernelCall, row: int, inputs: tuple[Any, ...]) -> ValueError:
        """Which label, weight, index or length cannot be."""
        limited = entry.kernel.limited
        if limited is None:
            return ValueError(entry.kernel.problem)
        value, operand = None, entry.operand(limited.name)
        if operand is not None and operand.region.kind == INPUT:
            flat = inputs[operand.region.number].reshape(-1)
            value = flat[operand.offset // flat.itemsize + row]
        shape = () if operand is None or operand.offset else operand.region.shape
        return RowError(limited.singular, row, value, entry.values[limited.limit], shape)

    def first_not_finite(self, inputs: tuple[Any, ...]) -> str:
        """Run the step kernel by kernel, and say which one first writes a number that is not
        finite. The state is restored afterwards.
        """
        with deferred(), self.program.lock:
            self.program.prepare(inputs)
            found = first_not_finite(self._run_one_by_one())
            self.program.restore()
        return found

    def _run_one_by_one(self) -> Iterator[tuple[str, Any]]:
        """Run every kernel, until one stops the step: its place, and what it has written."""
        for index, entry in enumerate(self.entries):
            answer = self.program.run_one(index)
            regions = [o.region for o in entry.operands if o.writes]
            yield entry.place, tuple(self.view(r) for r in regions if r.kind == TEMPORARY)
            if answer and self._watch[index] != IGNORE:
                return


def _kind(x: Array, changed: bool) -> Array:
    """An array like an input, writeable if that is changed; but of a single number, as the input
    may be a part of a large data set.
    """
    one, strides = np.empty((), x.dtype), (0,) * x.ndim
    return np.lib.stride_tricks.as_strided(one, x.shape, strides, writeable=changed)


def _trained(entries: list[KernelCall]) -> list[Array]:
    """What of a model these calls change: its parameters, and the state of its layers."""
    changed = {id(o.region): o.region for entry in entries for o in entry.operands if o.writes}
    return [
        region.array
        for region in changed.values()
        if region.kind in (PARAMETER, STATE) or (region.kind, region.name) == (VECTOR, "parameters")
    ]


def _mode(watched: list[Any]) -> str:
    """Whether the layers train; empty where there are none."""
    modes = {
        layer.training for root in watched if hasattr(root, "layers") for _, layer in root.layers()
    }
    return "" if not modes else "training" if all(modes) else "in part " * any(modes) + "evaluating"


def _watched_answers(entries: list[KernelCall]) -> list[int]:
    """What the answer of each entry means."""
    squares: set[int] = set()  # sums of squares: of their total, `clip` is the judge
    watch = []
    for entry in entries:
        squares |= {id(o.region) for o in entry.operands if entry.kernel.may_be_infinite}
        if entry.kernel.is_checking or (entry.kernel.stops and entry.kernel.updates_parameters):
            watch.append(STOP)
        elif entry.kernel.stops and id(entry.operands[0].region) not in squares:
            watch.append(STOP_EPOCH)
        else:
            watch.append(IGNORE)
    return watch


def _changed_before_the_last(entries: list[KernelCall], watch: list[int]) -> list[Array]:
    """Memory to restore when a step is stopped: what lives on, and is changed before the last
    entry that may stop it. Gradients are not worth the copy.
    """
    last = max((index for index, kind in enumerate(watch) if kind != IGNORE), default=-1)
    changed = {}
    for entry in entries[: last + 1]:
        for operand in entry.operands:
            region = operand.region
            if operand.writes and region.kind in (STATE, PARAMETER, VECTOR) and not entry.clears:
                changed[id(region)] = region.array
    return list(changed.values())


def _by_id(leaves: list[Array]) -> Iterator[tuple[int, Array]]:
    return ((id(leaf), leaf) for leaf in leaves)


def homes_of(recorder: Recorder, output: Any) -> list[tuple[Buffer, int]]:
    """Of each array in what the function returned, the region it lies in, and where in it."""
    homes = []
    for leaf in leaves_of(output):
        if isinstance(leaf, np.ndarray):
            homes.append(recorder.find(_kernels.address_of(leaf)))
        if isinstance(leaf, np.generic) or (homes and homes[-1] is None):
            raise RecordingError(NOT_BY_KERNELS)
    return [home for home in homes if home is not None]


def _held(watched: list[Any]) -> Iterator[tuple[str, Any]]:
    """(name, array) of all arrays that layers and optimizers hold between steps."""
    for root in watched:
        for path, layer in root.layers() if hasattr(root, "layers") else ():
            label = f"{type(layer).__name__} {path}".rstrip()
            for parameter in layer.own_parameters():
                yield f"{label}: parameter {parameter.name}", parameter.data
                yield f"{label}: gradient of {parameter.name}", parameter.grad
            for name in layer.state_names:
                yield f"{label}: {name}", getattr(layer, name)
        if hasattr(root, "flat"):
            kind = type(root).__name__
            yield f"{kind}: vector of parameters", root.flat.data
            yield f"{kind}: vector of gradients", root.flat.grad
            for name, array in vars(root).items():
                if isinstance(array, np.ndarray) and not isinstance(array, RecordedArray):
                    yield f"{kind}: {name}", array
