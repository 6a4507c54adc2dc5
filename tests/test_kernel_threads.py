"""The threads that share a kernel write apart: no element is written by two of them."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest
from kernel_cases import CASES, Draw

from minidl import kernels
from minidl._kernels.signature import READ, WRITTEN, Kernel

hooks = pytest.importorskip("minidl._kernels.hooks")
LOOP = ctypes.CFUNCTYPE(ctypes.c_ssize_t, ctypes.c_void_p, ctypes.c_int, ctypes.c_int)
ALIGNMENT = 64


class Watcher:
    """A recorder that runs every share of a kernel alone, and counts which elements it writes."""

    def __init__(self, shares: int, arrays: list[np.ndarray]) -> None:
        self.shares, self.arrays = shares, arrays
        self.twice: list[str] = []  # operands of which two shares write an element

    def allocated(self, array: np.ndarray) -> np.ndarray:
        self.arrays.append(array)
        return array

    def called(self, kernel: Kernel, function: int, args: bytes, scratch: int) -> bool:
        words = bytearray(args)
        memory = np.zeros(scratch * self.shares + ALIGNMENT, np.uint8)
        if scratch:
            kernel.set(words, "scratch", memory.ctypes.data + -memory.ctypes.data % ALIGNMENT)
            kernel.set(words, "scratch_step", scratch)
        struct = (ctypes.c_char * len(words)).from_buffer(words)
        outputs = self.outputs(kernel, words)
        writes = {name: np.zeros(array.size, int) for name, _, array in outputs}
        before = [(array, array.copy()) for array in self.arrays if array.flags.writeable]
        for share in range(self.shares):
            for _, role, array in outputs:
                if role == WRITTEN:
                    array.view(np.uint8)[...] = 0xA5  # what no kernel writes
            found = [array.copy() for _, _, array in outputs]
            LOOP(function)(ctypes.addressof(struct), share, self.shares)
            for (name, _, array), old in zip(outputs, found, strict=True):
                writes[name] += differing(array, old)
            for array, old in before:
                array[...] = old
        self.twice += [f"{kernel.name}: {name}" for name, n in writes.items() if (n > 1).any()]
        return False  # now the call itself

    def outputs(self, kernel: Kernel, words: bytearray) -> list[tuple[str, str, np.ndarray]]:
        """Name, role and array of every operand that the kernel writes."""
        known = {array.ctypes.data: array for array in self.arrays if array.size and array.ndim}
        places = ((o.name, o.role, kernel.get(words, o.name)) for o in kernel.operands)
        return [(*o, known[at]) for *o, at in places if o[1] != READ and at in known]


def differing(array: np.ndarray, old: np.ndarray) -> np.ndarray:
    """Which elements have other bits than before."""
    bits = [np.frombuffer(x.tobytes(), np.uint8).reshape(x.size, -1) for x in (array, old)]
    return (bits[0] != bits[1]).any(axis=1)


def check(name: str, args: dict[str, Any], shares: int) -> None:
    watcher = Watcher(shares, [x for x in args.values() if isinstance(x, np.ndarray)])
    before = hooks.recorder()
    hooks.set_recorder(watcher)
    try:
        getattr(kernels, name)(**args)
    finally:
        hooks.set_recorder(before)
    assert not watcher.twice, f"{watcher.twice}, written by two of {shares} threads"


@pytest.mark.parametrize("name", CASES)
def test_no_element_is_written_by_two_threads(isa: str, name: str) -> None:
    for seed in range(3):
        for shares in (2, 3, 7):
            check(name, CASES[name](Draw(seed, np.float32)), shares)


@pytest.mark.parametrize(("channels", "outputs", "groups"), [(16, 16, 16), (3, 4, 1), (32, 32, 1)])
@pytest.mark.parametrize("images", [1, 3])
def test_each_sum_of_a_convolution_is_written_by_one_thread(
    isa: str, channels: int, outputs: int, groups: int, images: int
) -> None:
    """Depthwise, with few outputs and with many: each has loops of its own."""
    x = np.ones((images, 9, 8, channels), np.float32)
    for rows, columns in ((1, 3), (3, 3), (5, 5)):
        dweight = np.zeros((rows, columns, channels // groups, outputs), np.float32)
        dy = np.ones((images, 10 - rows, 9 - columns, outputs), np.float32)
        for shares in (2, 3, 7, 16):
            args = {"x": x, "dy": dy, "dweight": dweight, "groups": groups}
            check("conv_grad_params", args | {"dbias": np.zeros(outputs, np.float32)}, shares)
