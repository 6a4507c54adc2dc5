"""What runs a list of recorded kernels in C, on one thread or a team of them.

``program.pyx`` holds the list and gives it its inputs, ``execute.pyx`` runs it with the threads of
``team.h``, ``autotune.pyx`` chooses between one thread and the team, ``lock.pyx`` admits one run at
a time, and ``step_call.py`` is the call of a recorded step.
"""

from __future__ import annotations


class Unfinished:
    """What a run returns that has no result.

    Parameters
    ----------
    failed
        1 + the instruction that stopped the step; 0 if nothing ran, because the program does not
        serve this call.
    answer
        What that instruction answered.
    """

    __slots__ = ("answer", "failed")

    def __init__(self, failed: int, answer: int) -> None:
        self.failed, self.answer = failed, answer
