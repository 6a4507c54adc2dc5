"""Allocate aligned memory for the vectors of optimizers and for recorded programs."""

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
STAGGER, PLACES = 4 * LINE, 16  # memory begins at one of 16 distances from the start of a page
_allocations = itertools.count()


def aligned_zeros(nbytes: int) -> Array:
    """Allocate zeros that begin on a cache line; large memory lies in huge pages.

    A matrix whose rows are 4 KiB long has each row in another ordinary page. One panel then has
    more pages than the processor holds translations for (the TLB), and a product of 32x256x1024
    takes 7 % longer. Linux gives huge pages to a program that asks for them (``madvise``); on
    other systems, and where none are left, this is ordinary memory.

    Vectors of one size must not all begin at the start of a page: elements with the same index
    would compete for the same few lines of a cache, and a pass over the four vectors of Adam, of
    1.3 MB each, would take 2.5 times as long. So each begins at another distance from it.
    """
    if nbytes >= LARGE and hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # no such memory, or a Linux without huge pages
            return _from_boundary(_huge_pages(nbytes + STAGGER * PLACES), nbytes)
    return _from_boundary(np.zeros(nbytes + LINE, np.uint8), nbytes)


def aligned(shape: tuple[int, ...], dtype: Any) -> Array:
    """Make an array of zeros that begins on a cache line."""
    nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    buffer = np.empty(nbytes + LINE, np.uint8)
    buffer.fill(0)  # np.zeros maps all pages to one page of zeros, and reads would come from L1
    return _from_boundary(buffer, nbytes).view(dtype).reshape(shape)


def _huge_pages(nbytes: int) -> Array:
    """Allocate at least so many bytes that begin near the start of a huge page."""
    room = -(-nbytes // HUGE_PAGE) * HUGE_PAGE
    # Private: a forked process gets its own copy of what it writes, as of any other memory.
    pages = mmap.mmap(-1, room + HUGE_PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    pages.madvise(mmap.MADV_HUGEPAGE)
    memory = np.frombuffer(pages, np.uint8)
    boundary = -memory.ctypes.data % HUGE_PAGE
    return memory[boundary + next(_allocations) % PLACES * STAGGER :]


def _from_boundary(memory: Array, nbytes: int) -> Array:
    """Return ``nbytes`` of the memory that begin on a cache line."""
    start = -memory.ctypes.data % LINE
    return memory[start : start + nbytes]
