from typing import Any

from minidl.typing import Array

def ways_taken(costs: list[tuple[int, int]]) -> list[int]: ...

class Names:
    def __init__(self, found: list[tuple[Any, Any, Any]]) -> None: ...
    def same(self) -> bool: ...

class Replayer:
    program: Program | None
    names: Names | None
    def __call__(self, *inputs: Any, **named: Any) -> Any: ...

class ProgramLock:
    waiting: list[Any]
    def acquire(self) -> None: ...
    def release(self) -> None: ...
    def __enter__(self) -> ProgramLock: ...
    def __exit__(self, *error: object) -> None: ...

class RowOrder:
    rows: int
    def __init__(self, order: Array, rows: int) -> None: ...

class InputView:
    def __init__(self, number: int, offset: int, like: Array) -> None: ...

class Program:
    result: Any
    copies: bool
    scheduled: list[Any]
    seen: int
    threads: int
    together: bool
    used: int
    lock: ProgramLock
    def __init__(
        self,
        instructions: list[tuple[int, bytes, int, bool, int]],
        inputs: list[Any],
        patches: list[tuple[int, int, int, int]],
        state: list[Array],
        memory: Array,
        lasting: list[Array],
        keep: object,
        lock: ProgramLock | None = None,
    ) -> None: ...
    def replay(self, inputs: tuple[Any, ...]) -> tuple[int, Any]: ...
    def output(self, inputs: tuple[Any, ...]) -> Any: ...
    def steps(
        self,
        sources: tuple[Array, ...],
        targets: tuple[Array, ...],
        order: RowOrder | None,
        rows: int,
        first: int,
        count: int,
        dials: list[tuple[Array, Array]],
        outputs: list[tuple[Array, Array]],
        seconds: float,
    ) -> tuple[int, int, int]: ...
    def time(self, inputs: tuple[Any, ...], stamps: Array) -> tuple[int, int]: ...
    def prepare(self, inputs: tuple[Any, ...]) -> None: ...
    def run_one(self, index: int) -> int: ...
    def restore(self) -> None: ...
