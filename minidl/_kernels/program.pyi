from typing import Any

from minidl._kernels.reference import Array

def ways_taken(costs: list[tuple[int, int]]) -> list[int]: ...

class Replayer:
    program: Program | None
    def __call__(self, *inputs: Any, **named: Any) -> Any: ...

class Turn:
    def take(self) -> None: ...
    def give(self) -> None: ...

class Program:
    result: Any
    seen: int
    threads: int
    together: bool
    used: int
    answer: int
    turn: Turn
    def __init__(
        self,
        instructions: list[tuple[int, bytes, int, bool, int]],
        inputs: list[Any],
        patches: list[tuple[int, int, int, int]],
        state: list[Array],
        memory: Array,
        lasting: list[Array],
        keep: object,
        turn: Turn | None = None,
    ) -> None: ...
    def replay(self, inputs: tuple[Any, ...]) -> int: ...
    def steps(
        self,
        sources: tuple[Array, ...],
        targets: tuple[Array, ...],
        order: Array | None,
        rows: int,
        first: int,
        count: int,
        dials: list[tuple[Array, Array]],
        outputs: list[tuple[Array, Array]],
        seconds: float,
    ) -> tuple[int, int]: ...
    def time(self, inputs: tuple[Any, ...], stamps: Array) -> int: ...
    def prepare(self, inputs: tuple[Any, ...]) -> None: ...
    def run_one(self, index: int) -> int: ...
    def restore(self) -> None: ...
