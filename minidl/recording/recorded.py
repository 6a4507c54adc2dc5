"""One recorded program: a step for inputs of one shape, in one mode."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np

from minidl import _kernels as kernels
from minidl._kernels import arguments
from minidl._kernels.program import Program
from minidl._kernels.reference import Array
from minidl.recording import planning
from minidl.recording.fusion import fuse
from minidl.recording.nest import leaves_of, mapped
from minidl.recording.recorder import (
    INPUT,
    STATE,
    TEMPORARY,
    RecordedArray,
    Recorder,
    RecordingError,
    Region,
)
from minidl.threads import get_num_threads

# What the answer of a kernel means (program.pyx): nothing; stop; stop if this is an epoch.
WATCH = {"softmax_cross_entropy": 1, "clip": 1, "total": 2}


class Recorded:
    """A program, the memory it works in, and what is known about both.

    Parameters
    ----------
    recorder
        That has heard the whole step.
    inputs, output
        Arguments and result of the call that was recorded.
    """

    def __init__(self, recorder: Recorder, inputs: tuple[Any, ...], output: Any) -> None:
        self.inputs = inputs
        self.watched, self.optimizers = recorder.watched, recorder.optimizers
        self.mode = _mode(recorder.watched)
        leaves = [leaf for leaf in leaves_of(output) if isinstance(leaf, np.ndarray)]
        homes = [_home(recorder, leaf) for leaf in leaves]
        self.entries = fuse(recorder.entries, homes)
        self.nbytes = planning.place(self.entries, homes)
        self.least_nbytes = planning.least_memory(self.entries, homes)
        self.memory = planning.aligned_memory(self.nbytes)
        self.regions = recorder.regions
        self._held: list[tuple[str, Array]] = []
        self._views = {
            id(leaf): self._lasting(leaf, home)
            for leaf, home in zip(leaves, homes, strict=True)
            if home.kind != INPUT
        }
        self._numbers = {
            id(leaf): (home.number, leaf, home)
            for leaf, home in zip(leaves, homes, strict=True)
            if home.kind == INPUT
        }
        self._output = output
        for region in homes:
            if region.kind == TEMPORARY:
                self.view(region)[...] = region.array
        for region in self.regions:
            if region.kind == TEMPORARY:
                region.array = np.empty(0)  # the recording's own memory is no longer needed
        self.plan()

    def plan(self) -> None:
        """Make the program, for as many threads as there may be now."""
        self.threads = get_num_threads()
        base = kernels.address_of(self.memory)
        planning.share(self.entries, base, self.threads)
        scratch = max((entry.scratch for entry in self.entries), default=0)
        team = max((entry.threads for entry in self.entries), default=1)
        self.scratch = planning.aligned_memory(scratch * team)
        instructions, patches = [], []
        for index, entry in enumerate(self.entries):
            pointers = np.frombuffer(entry.args, np.uintp)
            for operand in entry.operands:
                region = operand.region
                if region.kind == INPUT:
                    patches.append((region.number, index, operand.slot, operand.offset))
                else:
                    start = base + region.place if region.kind == TEMPORARY else region.begin
                    pointers[operand.slot] = start + operand.offset
            if entry.scratch:
                arguments.set_scratch(entry.args, kernels.address_of(self.scratch), scratch)
            watch = WATCH.get(entry.kernel, 0)
            args = bytes(entry.args)
            instructions.append((entry.function, args, entry.threads, entry.wait, watch))
        keep = self.memory, self.scratch, self.regions
        state = [r.array for r in self.regions if r.kind == STATE]
        self.program = Program(instructions, list(self.inputs), patches, state, keep)
        self.program.result = self.result(None)

    def accept(self) -> None:
        """Take things as they are now."""
        if not self._held:
            self._held = list(_held(self.watched))
        self.program.seen = kernels.changes()
        self._scheduled = [o for o in self.optimizers if o.schedule is not None]
        self.replay = self._turn_and_replay if self._scheduled else self.program.replay

    def _turn_and_replay(self, inputs: tuple[Any, ...]) -> int:
        for optimizer in self._scheduled:
            optimizer.set_rate()
        return self.program.replay(inputs)

    def dials(self, steps: int) -> list[tuple[Array, Array]]:
        """The numbers that schedules set in each of the steps to come, and where."""
        return [
            (optimizer.state["learning_rate"], optimizer.rates(steps))
            for optimizer in self._scheduled
        ]

    # --- outputs ---

    def result(self, inputs: tuple[Any, ...] | None) -> Any:
        """What a call returns: arrays of the program, which the next call overwrites. For
        functions that return an input, it depends on the inputs: None without them.
        """
        if self._numbers and inputs is None:
            return None
        return mapped(self._output, lambda leaf: self._out(leaf, inputs))

    def _out(self, leaf: Any, inputs: tuple[Any, ...] | None) -> Any:
        if id(leaf) in self._views:
            return self._views[id(leaf)]
        if id(leaf) in self._numbers and inputs is not None:
            number, leaf, home = self._numbers[id(leaf)]
            offset = kernels.address_of(leaf) - home.begin
            return np.ndarray(leaf.shape, leaf.dtype, inputs[number], offset, leaf.strides)
        return leaf

    def _lasting(self, leaf: Array, home: Region) -> Array:
        if home.kind != TEMPORARY:
            return leaf.view(np.ndarray)
        offset = home.place + kernels.address_of(leaf) - home.begin
        return np.ndarray(leaf.shape, leaf.dtype, self.memory, offset, leaf.strides)

    def view(self, region: Region) -> Array:
        """A temporary, where the program keeps it."""
        return np.ndarray(region.shape, region.dtype, self.memory, region.place)

    # --- is everything as it was? ---

    def check(self) -> None:
        """Raise RecordingError, naming it, if a parameter or an array of a layer or an optimizer
        was replaced.
        """
        now = list(_held(self.watched))
        for (name, array), (new_name, new_array) in zip(self._held, now, strict=False):
            if array is not new_array or name != new_name:
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

    # --- when a step failed ---

    def explain(self, failed: int, inputs: tuple[Any, ...], step: int | None = None) -> NoReturn:
        """Raise what the function itself would have raised, and say more."""
        entry = self.entries[failed - 1]
        when = "" if step is None else f"step {step} of the epoch (the first is 0): "
        if entry.kernel == "softmax_cross_entropy":
            row = self.program.answer - 1
            labels = entry.operands[1].region
            given = f"label {inputs[labels.number][row]}" if labels.kind == INPUT else "the label"
            raise ValueError(f"{when}{given} in row {row} of the batch is outside the classes")
        what = "the norm of the gradient" if entry.kernel == "clip" else "the loss"
        found = self.first_not_finite(inputs)
        where = f"; the first number that is not finite is in {found}" if found else ""
        raise FloatingPointError(
            f"{when}{what} is not finite{where}. Parameters and state are as before this step"
        )

    def first_not_finite(self, inputs: tuple[Any, ...]) -> str:
        """Run the step kernel by kernel, and say which one first writes a number that is not
        finite. The state is restored afterwards.
        """
        self.program.prepare(inputs)
        found = ""
        for index, entry in enumerate(self.entries):
            answer = self.program.run_one(index)
            for region in (o.region for o in entry.operands if o.writes):
                if region.kind == TEMPORARY and not found and not _finite(self.view(region)):
                    going = f", going {entry.phase}" if entry.phase else ""
                    found = f"what {entry.title} of {entry.label}{going} has written"
            if answer and entry.kernel in WATCH:
                break
        self.program.restore()
        return found


def _mode(watched: list[Any]) -> str:
    """Whether the layers train; empty where there are none."""
    modes = {
        layer.training for root in watched if hasattr(root, "layers") for _, layer in root.layers()
    }
    return "" if not modes else "training" if all(modes) else "in part " * any(modes) + "evaluating"


def _finite(array: Array) -> bool:
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def _home(recorder: Recorder, leaf: Array) -> Region:
    region = recorder.find(kernels.address_of(leaf))
    if region is None:
        raise RecordingError(
            "the recorded function returns an array that no kernel has written, so it was "
            "computed with NumPy; return what kernels and layers gave, and compute from that "
            "outside"
        )
    return region


def _held(watched: list[Any]) -> Iterator[tuple[str, Any]]:
    """(name, array) of all arrays that layers and optimizers hold between steps."""
    for root in watched:
        for path, layer in root.layers() if hasattr(root, "layers") else ():
            label = layer.label or path
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
