"""The interface of a recorded program: which inputs it takes, and what its calls return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl._kernels.executor.calls import INPUT, TEMPORARY, Buffer, KernelCall
from minidl._kernels.executor.program import InputView
from minidl.recording.pytree import tree_leaves, tree_map
from minidl.typing import Array


@dataclass
class Interface:
    """What a program takes and returns.

    Parameters
    ----------
    inputs
        For each argument, an array of its dtype and shape, writeable if the step changes it; or the
        constant itself.
    changed
        Numbers of the arguments that the step changes in place.
    memory
        The memory that the program works in.
    output
        What calls return: arrays of the program, which the next call overwrites, and an InputView
        for each part of an input.
    """

    inputs: list[Any]
    changed: set[int]
    memory: Array
    output: Any

    def result(self, inputs: tuple[Any, ...]) -> Any:
        """Return what a call on these inputs returns, with parts of the inputs themselves."""
        return tree_map(
            self.output, lambda leaf: leaf.of(inputs) if isinstance(leaf, InputView) else leaf
        )

    def without_own(self, x: Any) -> Any:
        """Copy an input if it is something that this program has returned."""
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


def interface_of(
    calls: list[KernelCall],
    inputs: tuple[Any, ...],
    output: Any,
    homes: list[tuple[Buffer, int]],
    memory: Array,
) -> Interface:
    """Derive the interface from a recorded call: its inputs, its output, and the buffer of each
    array in the output, with the offset in it.
    """
    operands = [operand for call in calls for operand in call.operands]
    changed = {o.buffer.number for o in operands if o.writes and o.buffer.kind == INPUT}
    kinds = [
        _kind(x, number in changed) if isinstance(x, np.ndarray) else x
        for number, x in enumerate(inputs)
    ]
    leaves = [leaf for leaf in tree_leaves(output) if isinstance(leaf, np.ndarray)]
    own = {id(leaf): _own(leaf, *home, memory) for leaf, home in zip(leaves, homes, strict=True)}
    return Interface(kinds, changed, memory, tree_map(output, lambda leaf: own.get(id(leaf), leaf)))


def _kind(x: Array, changed: bool) -> Array:
    """Make an array of an input's dtype and shape, writeable if the step changes it.

    It holds a single number, because the input may be a part of a large data set.
    """
    one, strides = np.empty((), x.dtype), (0,) * x.ndim
    return np.lib.stride_tricks.as_strided(one, x.shape, strides, writeable=changed)


def _own(leaf: Array, home: Buffer, offset: int, memory: Array) -> Any:
    """Make what the program returns where the function returned ``leaf``."""
    if home.kind == INPUT:
        return InputView(home.number, offset, leaf)
    owner, begin = (memory, home.place) if home.kind == TEMPORARY else (home.array, 0)
    return np.ndarray(leaf.shape, leaf.dtype, owner, begin + offset, leaf.strides)
