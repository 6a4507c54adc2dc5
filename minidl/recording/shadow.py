"""Copies of memory that stand in for what lives on between steps, while a step is recorded."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import Any

import numpy as np

from minidl import _kernels
from minidl._kernels.executor.calls import INPUT, TEMPORARY, Buffer
from minidl._kernels.memory import LINE, aligned_zeros
from minidl.recording.guards import RecordedArray, RecordingError
from minidl.typing import Array


class Shadow:
    """Two copies of the memory block that an array lies in, with all other arrays in it.

    The traced function works on the first copy. The program works on the second, and must leave
    the same bits.

    Parameters
    ----------
    array
        The array whose memory is copied, with all of the array that it is a view of.
    look
        If given, only one copy is made and filled with this number.
    alone
        Copy the array alone, without the array that it is a view of. This is for inputs, which
        need a second copy only if the program changes them.
    """

    def __init__(self, array: Array, look: float | None = None, alone: bool = False) -> None:
        while not alone and isinstance(array.base, np.ndarray):
            array = array.base
        self.begin, self.end = np.lib.array_utils.byte_bounds(array)
        self.buffers: list[Buffer] = []  # of the arrays in the block
        self._memory = np.asarray(_Bytes(self.begin, self.end, array))
        self.first = self._copy(self._memory)
        # Of the first, not of the memory, which another thread may change meanwhile.
        self.second = None if alone or look is not None else self._copy(self.first)
        if look is not None:
            fill(self.first, array.dtype, look)
        self.address = _kernels.address_of(self.first)

    def _copy(self, memory: Array) -> Array:
        shift = self.begin % LINE  # so that arrays keep their alignment
        copy = aligned_zeros(shift + len(memory))[shift:]
        copy[...] = memory
        return copy

    def covers(self, buffer: Buffer) -> bool:
        """Whether an array lies in this block."""
        return self.begin <= buffer.begin and buffer.end <= self.end

    def of(self, array: Array, copy: Array | None = None) -> Array:
        """Return the array at the same place in a copy, by default the first."""
        offset = _kernels.address_of(array) - self.begin
        copy = self.first if copy is None else copy
        return np.ndarray(array.shape, array.dtype, copy, offset, array.strides)

    def find(self, address: int) -> tuple[Buffer, int] | None:
        """Find the smallest array at an address of the first copy, and the offset in that array."""
        if not self.address <= address < self.address + len(self.first):
            return None
        real = address - self.address + self.begin
        holding = [buffer for buffer in self.buffers if buffer.begin <= real < buffer.end]
        buffer = min(holding, key=lambda buffer: buffer.nbytes, default=None)
        return None if buffer is None else (buffer, real - buffer.begin)

    def second_at(self, buffer: Buffer) -> int:
        """Return the address of an array in the second copy."""
        assert self.second is not None
        return _kernels.address_of(self.second) + buffer.begin - self.begin

    def copy_again(self) -> Array:
        """Make the second copy now; the memory has not changed since the first."""
        self.second = self._copy(self._memory)
        return self.second

    def same(self) -> bool:
        """Whether function and program have left the same bits."""
        return bool((self.first == (self._memory if self.second is None else self.second)).all())


class _Bytes:
    """Memory as an array of bytes, whatever the layout of the array that owns it."""

    def __init__(self, begin: int, end: int, owner: Array) -> None:
        self.owner = owner
        self.__array_interface__ = {
            "data": (begin, True),
            "shape": (end - begin,),
            "typestr": "|u1",
            "version": 3,
        }


def fill(memory: Array, dtype: np.dtype[Any], look: float) -> None:
    """Fill memory with a number, or for integers and flags with one that they can hold."""
    kind = dtype.kind if not dtype.names else "f"  # the structs of optimizers are all float64
    number: Any = look if kind == "f" else np.array(1_000_003 if look > 0 else -1_000_003)
    item = np.dtype(np.float64) if dtype.names else dtype
    if kind in "fiub":
        memory.view(item)[...] = np.asarray(number).astype(item)


class TracedMemory:
    """All memory that a traced function can reach, and which buffer an address belongs to.

    Parameters
    ----------
    make_shadow
        Function that makes the copy which stands in for the memory of a buffer.
    """

    def __init__(self, make_shadow: Callable[[Buffer], Shadow]) -> None:
        self.buffers: list[Buffer] = []
        self.shadows: list[Shadow] = []
        self._make_shadow = make_shadow
        self._inputs: list[Buffer] = []
        self._stand_ins: dict[int, Array] = {}  # of arrays that live on, by their id
        self._temporaries: list[Buffer] = []  # by address; no two of them overlap
        self._begins: list[int] = []  # their addresses
        self._by_place: list[Shadow] = []  # by the address of their first copy
        self._places: list[int] = []

    def add_input(self, number: int, array: Array) -> Array:
        """Add an argument of the step; returns the array that the function gets."""
        self._inputs.append(Buffer(INPUT, f"input {number}", array, number))
        return self._stand_in(self._inputs[-1])

    def add_temporary(self, array: Array) -> Array:
        """Add an array that a kernel call has allocated; returns the one that the function gets."""
        number = len(self._temporaries)
        buffer = Buffer(TEMPORARY, f"t{number}", array, number)
        place = bisect_right(self._begins, buffer.begin)
        self._begins.insert(place, buffer.begin)
        self._temporaries.insert(place, buffer)
        self.buffers.append(buffer)
        return array.view(RecordedArray)

    def adopt(self, kind: str, name: str, array: Array) -> Array:
        """Add an array that lives on between steps; returns the array that stands in for it."""
        if id(array) not in self._stand_ins:
            buffer = Buffer(kind, name, array)
            for other in self._inputs:
                if other.begin < buffer.end and buffer.begin < other.end:
                    raise RecordingError(
                        f"argument {other.number + 1} of the recorded function shares memory with "
                        f"{name}; pass a copy of it"
                    )
            self._stand_ins[id(array)] = self._stand_in(buffer)
        return self._stand_ins[id(array)]

    def find(self, address: int) -> tuple[Buffer, int] | None:
        """Find the smallest buffer at an address, and the offset in it."""
        place = bisect_right(self._begins, address) - 1
        if place >= 0 and address < self._temporaries[place].end:
            return self._temporaries[place], address - self._begins[place]
        place = bisect_right(self._places, address) - 1
        return self._by_place[place].find(address) if place >= 0 else None

    def shadow_of(self, buffer: Buffer) -> Shadow:
        """Return the shadow of the memory that a buffer lies in."""
        shadow = next((shadow for shadow in self.shadows if shadow.covers(buffer)), None)
        if shadow is None:
            shadow = self._make_shadow(buffer)
            self.shadows.append(shadow)
            place = bisect_right(self._places, shadow.address)
            self._places.insert(place, shadow.address)
            self._by_place.insert(place, shadow)
        return shadow

    def _stand_in(self, buffer: Buffer) -> Array:
        shadow = self.shadow_of(buffer)
        shadow.buffers.append(buffer)
        self.buffers.append(buffer)
        array = shadow.of(buffer.array)
        array.flags.writeable = buffer.array.flags.writeable
        return array.view(RecordedArray)
