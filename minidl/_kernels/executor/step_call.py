"""Call a recorded step. This file is Python, and is compiled where there is a compiler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minidl._kernels.executor import Unfinished

if TYPE_CHECKING:
    from minidl._kernels.executor.program import Program


class StepCall:
    """A function whose calls run ``program`` if it serves them; subclasses make other calls."""

    if TYPE_CHECKING:
        program: Program | None  # declared in step_call.pxd

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """Run the step on these inputs."""
        program = self.program  # read once: another thread may set another one
        if named:
            inputs = self.by_place(inputs, named)
        why = None
        if program is not None:
            output = program.replay(inputs)
            if type(output) is not Unfinished:
                return output
            why = output
        return self.slow_call(why, inputs)

    def by_place(self, inputs: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
        """Arrange all arguments in the order of the parameters."""
        raise NotImplementedError

    def slow_call(self, why: Unfinished | None, inputs: tuple[Any, ...]) -> Any:
        """Make the call without the fast path; ``why`` is the answer of the program that ran."""
        raise NotImplementedError
