"""Memory that suits the kernels: for the vectors of an optimizer and for recorded programs."""

from __future__ import annotations

import mmap
from contextlib import suppress

import numpy as np

from minidl._kernels.reference import Array

LINE = 64  # bytes of a cache line, and of an AVX-512 register
HUGE_PAGE = 1 << 21
LARGE = HUGE_PAGE // 4  # bytes that are worth a huge page, though most of it stay empty
STAGGER, PLACES = 4 * LINE, 16  # how far from the boundary of a page memory begins: 16 ways


def aligned_zeros(nbytes: int) -> Array:
    """So many bytes of zeros, beginning on a cache line; large memory in huge pages.

    A matrix in pages of 4 KiB, whose rows are as long, has each row in a page of its own, and
    more of them in one panel than the processor knows the addresses of: a product of 32x256x1024
    then takes 7 % longer. Linux gives huge pages to who asks for them (``madvise``); on other
    systems, and where it has none left, this is ordinary memory.

    Vectors of one size must not all begin on such a boundary: what is at the same place in each
    would be kept in the same few lines of a cache, and a pass over four of them, as Adam's, take
    more than twice as long. So neighbours begin at different distances from it.
    """
    if nbytes < LARGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return _from_boundary(np.zeros(nbytes + LINE, np.uint8), LINE)[:nbytes]
    room = -(-(nbytes + STAGGER * PLACES) // HUGE_PAGE) * HUGE_PAGE
    # Private: what a forked process writes is its own, as with any other memory.
    pages = mmap.mmap(-1, room + HUGE_PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a Linux without them
        pages.madvise(mmap.MADV_HUGEPAGE)
    memory = _from_boundary(np.frombuffer(pages, np.uint8), HUGE_PAGE)
    number = memory.ctypes.data // HUGE_PAGE
    start = (number + number // PLACES) % PLACES * STAGGER
    return memory[start : start + nbytes]


def _from_boundary(memory: Array, boundary: int) -> Array:
    return memory[-memory.ctypes.data % boundary :]
