"""Run a kernel on several threads as recorded steps do: on the team, inside C."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minidl import _kernels, kernels
from minidl._kernels.executor.program import Program
from minidl._kernels.memory import LINE, aligned
from minidl._kernels.signature import Kernel
from minidl.typing import Array

# How often a program repeats its kernels: so few that their arguments stay in the nearest cache.
COPIES = 4
FOREVER = 1e6  # seconds


class TeamCall:
    """The kernels behind a call, each shared by all threads, with a barrier before each.

    Parameters
    ----------
    call
        Call of a kernel with its arguments. It is made once, to record what it runs.
    threads
        How many threads share each kernel.
    """

    def __init__(self, call: Callable[[], Any], threads: int) -> None:
        recorder = _Recorder(threads)
        _kernels.set_recorder(recorder)
        try:
            recorder.keep.append((call, call()))
        finally:
            _kernels.set_recorder(None)
        self.instructions = recorder.instructions
        instructions = COPIES * recorder.instructions
        self._program = Program(instructions, [], [], [], np.empty(0), [], recorder.keep)
        self._program.always_team = True

    def __call__(self, count: int) -> int:
        """Run the kernels at least ``count`` times; returns how many times they ran."""
        rounds = -(-count // COPIES)
        self._program.steps((), (), None, 1, 0, rounds, [], [], FOREVER)
        return rounds * COPIES


class _Recorder:
    """Records what a call allocates and runs, as the recorder of a step does."""

    def __init__(self, threads: int) -> None:
        self.instructions: list[tuple[int, bytes, int, bool, int]] = []
        self.keep: list[Any] = []
        self._threads = threads

    def allocated(self, array: Array) -> Array:
        self.keep.append(array)
        return array

    def called(self, kernel: Kernel, function: int, args: bytes, scratch: int) -> None:
        own = bytearray(args)
        if scratch:
            memory = aligned((scratch * self._threads,), np.uint8)
            self.keep.append(memory)
            kernel.set(own, "scratch", _kernels.address_of(memory))
            kernel.set(own, "scratch_step", scratch)
        self.instructions.append((function, bytes(own), self._threads, True, 0))


def stamp_seconds(threads: int, rounds: int = 21) -> float:
    """Measure the seconds that noting the time between two kernels takes with so many threads."""
    line = aligned((LINE,), np.uint8).view(np.float32)
    function, args, *_ = TeamCall(lambda: kernels.clear(line), threads).instructions[0]
    nothing = (function, args, 0, False, 0)  # shared by no thread
    instructions = [(function, args, threads, True, 0), *[nothing] * 16]
    program = Program(instructions, [], [], [], line, [], None)
    program.always_team = True
    stamps = np.empty(18, np.int64)
    times = []
    for _ in range(rounds):
        program.time((), stamps)
        times.append(np.diff(stamps)[1:])
    return float(np.median(times)) * 1e-9
