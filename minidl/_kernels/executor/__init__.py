"""Run a list of recorded kernels in C, on one thread or a team of threads.

``calls.py`` describes a recorded call. ``program.pyx`` holds a list of them and enters the inputs
of a step; ``execute.pyx`` runs it with the threads of ``team.h``; ``autotune.pyx`` chooses between
one thread and the team; ``lock.pyx`` admits one run at a time. ``step_call.py`` is the call of a
recorded step.
"""

from __future__ import annotations

from typing import Any


class Unfinished:
    """The answer of a run without a result: it failed, or did not begin.

    Parameters
    ----------
    failed
        1 + the instruction that stopped the step; 0 if nothing ran, because the program does not
        serve this call.
    answer
        The answer of that instruction.
    program
        The program that ran, if any: it may be that of a watched step.
    """

    __slots__ = ("answer", "failed", "program")

    def __init__(self, failed: int, answer: int, program: Any = None) -> None:
        self.failed, self.answer, self.program = failed, answer, program
