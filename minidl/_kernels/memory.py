"""Memory that suits the kernels: for the vectors of an optimizer and for recorded programs."""

from __future__ import annotations

import itertools
import mmap
from contextlib import suppress
from typing import Any

import numpy as np

from minidl.typing import Array

LINE = 64  # bytes of a cache line, and of an AVX-512 register
HUGE_PAGE = 1 << 21
LARGE = HUGE_PAGE // 4  # bytes that are worth a huge page, even if most of it stays empty
STAGGER, PLACES = 4 * LINE, 16  # how far from the boundary of a page memory begins: 16 ways
_turns = itertools.count()


def aligned_zeros(nbytes: int) -> Array:
    """So many bytes of zeros, beginning on a cache line; large memory in huge pages.

    A matrix whose rows are 4 KiB long has each row in an ordinary page of its own, and more rows
    in one panel than the processor knows the addresses of pages: a product of 32x256x1024 then
    takes 7 % longer. Linux gives huge pages to a program that asks for them (``madvise``); on
    other systems, and where it has none left, this is ordinary memory.

    Vectors of one size must not all begin on the boundary of a page: what is at the same place in
    each would be kept in the same few lines of a cache, and a pass over four vectors of 1.3 MB, as
    Adam's, would take 2.5 times as long. So each begins at another distance from it.
    """
    if nbytes >= LARGE and hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # no such memory, or a Linux without huge pages
            return _from_boundary(_huge_pages(nbytes + STAGGER * PLACES), nbytes)
    return _from_boundary(np.zeros(nbytes + LINE, np.uint8), nbytes)


def aligned(shape: tuple[int, ...], dtype: Any) -> Array:
    """Make an array of zeros, in pages of its own, that begins on a cache line."""
    nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    buffer = np.empty(nbytes + LINE, np.uint8)
    buffer.fill(0)  # np.zeros would map all pages to one, which then is read from L1
    return _from_boundary(buffer, nbytes).view(dtype).reshape(shape)


def _huge_pages(nbytes: int) -> Array:
    """At least so many bytes, from somewhere in a huge page on."""
    room = -(-nbytes // HUGE_PAGE) * HUGE_PAGE
    # Private: what a forked process writes is its own, as with any other memory.
    pages = mmap.mmap(-1, room + HUGE_PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    pages.madvise(mmap.MADV_HUGEPAGE)
    memory = np.frombuffer(pages, np.uint8)
    boundary = -memory.ctypes.data % HUGE_PAGE
    return memory[boundary + next(_turns) % PLACES * STAGGER :]


def _from_boundary(memory: Array, nbytes: int) -> Array:
    """So many of the bytes, beginning on a cache line."""
    start = -memory.ctypes.data % LINE
    return memory[start : start + nbytes]
