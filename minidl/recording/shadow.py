"""Memory of a recording, in the place of memory that lives on between steps."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl import _kernels
from minidl._kernels.memory import LINE, aligned_zeros
from minidl.recording.calls import Buffer
from minidl.typing import Array


class Shadow:
    """Two copies of the memory that an array lies in: all of it, as others may lie there, too.

    The recorded function works on the first; then the program, to be compared, on the second.

    Parameters
    ----------
    array
        It, or what it is a view of, is copied.
    look
        If given, there is one copy, and it holds this number everywhere.
    alone
        Whether nothing else that counts lies in what it is a view of. As an input it needs a second
        copy only if the program changes it.
    """

    def __init__(self, array: Array, look: float | None = None, alone: bool = False) -> None:
        while not alone and isinstance(array.base, np.ndarray):
            array = array.base
        self.begin, self.end = np.lib.array_utils.byte_bounds(array)
        self.regions: list[Buffer] = []  # of the arrays in it
        self._memory = np.asarray(_Bytes(self.begin, self.end, array))
        self.first = self._copy()
        self.second = None if alone or look is not None else self._copy()
        if look is not None:
            fill(self.first, array.dtype, look)
        self._address = _kernels.address_of(self.first)

    def _copy(self) -> Array:
        shift = self.begin % LINE  # so that arrays in it are aligned as they are
        copy = aligned_zeros(shift + len(self._memory))[shift:]
        copy[...] = self._memory
        return copy

    def covers(self, region: Buffer) -> bool:
        """Whether an array lies in the memory this stands in for."""
        return self.begin <= region.begin and region.end <= self.end

    def of(self, array: Array, copy: Array | None = None) -> Array:
        """The array in a copy, by default the first, that has the place of this one."""
        offset = _kernels.address_of(array) - self.begin
        copy = self.first if copy is None else copy
        return np.ndarray(array.shape, array.dtype, copy, offset, array.strides)

    def find(self, address: int) -> tuple[Buffer, int] | None:
        """The smallest array at this address of the first copy, and where in it that is."""
        if not self._address <= address < self._address + len(self.first):
            return None
        real = address - self._address + self.begin
        holding = [region for region in self.regions if region.begin <= real < region.end]
        region = min(holding, key=lambda region: region.nbytes, default=None)
        return None if region is None else (region, real - region.begin)

    def second_at(self, region: Buffer) -> int:
        """The address in the second copy that has the place of an array."""
        assert self.second is not None
        return _kernels.address_of(self.second) + region.begin - self.begin

    def copy_again(self) -> Array:
        """Have a second copy, of memory that nobody has changed since the first."""
        self.second = self._copy()
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
    """Have memory hold a number everywhere: integers and flags one that they can hold."""
    kind = dtype.kind if not dtype.names else "f"  # the structs of optimizers are all float64
    number: Any = look if kind == "f" else np.array(1_000_003 if look > 0 else -1_000_003)
    item = np.dtype(np.float64) if dtype.names else dtype
    if kind in "fiub":
        memory.view(item)[...] = np.asarray(number).astype(item)
