from typing import Any

from minidl._kernels.executor.lock import ProgramLock
from minidl.typing import Array

class Names:
    def __init__(self, found: list[tuple[Any, Any, Any]]) -> None: ...
    def same(self) -> bool: ...

class RowOrder:
    rows: int
    def __init__(self, order: Array, rows: int) -> None: ...

class InputView:
    def __init__(self, number: int, offset: int, like: Array) -> None: ...
    def of(self, inputs: tuple[Any, ...]) -> Array: ...

class Program:
    result: Any
    copies: bool
    scheduled: list[Any]
    names: Names | None
    seen: int
    threads: int
    always_team: bool
    used: int
    lock: ProgramLock
    watch: Any
    clock: Array | None
    advance: int
    watched: Program | None
    latest: Program
    def __init__(
        self,
        instructions: list[tuple[int, bytes, int, bool, int]],
        inputs: list[Any],
        patches: list[tuple[int, int, int, int]],
        state: list[Array],
        memory: Array,
        persistent: list[Array],
        keep: object,
        lock: ProgramLock | None = None,
    ) -> None: ...
    def serves(self, inputs: tuple[Any, ...]) -> bool: ...
    def replay(self, inputs: tuple[Any, ...]) -> Any: ...
    def steps(
        self,
        sources: tuple[Array, ...],
        targets: tuple[Array, ...],
        order: RowOrder | None,
        rows: int,
        first: int,
        count: int,
        scalars: list[tuple[Array, Array]],
        outputs: list[tuple[Array, Array]],
        seconds: float,
        watched_outputs: list[tuple[Array, Array]] | None = None,
    ) -> tuple[int, int, int]: ...
    def time(self, inputs: tuple[Any, ...], stamps: Array) -> tuple[int, int]: ...
    def prepare(self, inputs: tuple[Any, ...]) -> None: ...
    def run_one(self, index: int) -> int: ...
    def restore(self) -> None: ...
