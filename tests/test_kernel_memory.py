"""Memory for kernels; and none reads or writes beyond its arrays: pages without access lie
before and behind.
"""

from __future__ import annotations

import gc
import mmap
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from minidl._kernels.memory import HUGE_PAGE, LARGE, LINE, aligned_zeros

# Runs in a process of its own, for a read too far ends the process.
PROGRAM = r"""
import ctypes, mmap, sys
import numpy as np
from kernel_cases import CASES, BLOCKED, Draw
from minidl import _kernels, kernels

PAGE = mmap.PAGESIZE
libc = ctypes.CDLL(None, use_errno=True)
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
keep = []


def fenced(x, at_end):
    '''A copy of x between two pages that must not be touched, close to one of them.'''
    room = -(-max(x.nbytes, 1) // PAGE) * PAGE
    memory = mmap.mmap(-1, room + 2 * PAGE)
    keep.append(memory)
    buffer = np.frombuffer(memory, np.uint8)
    for page in (0, PAGE + room):
        assert libc.mprotect(buffer.ctypes.data + page, PAGE, 0) == 0
    offset = PAGE + (room - x.nbytes if at_end else 0)
    y = np.ndarray(x.shape, x.dtype, memory, offset)
    y[...] = x
    return y


_kernels.select(sys.argv[1])
for name, case in CASES.items():
    products = BLOCKED[:4] if "linear" in name or name == "matmul" else ()
    for dtype in (np.float32, np.float64):
        draws = [Draw(seed, dtype) for seed in range(25)]
        draws += [Draw(0, dtype, product=product) for product in products]
        for draw in draws:
            args = case(draw)
            for at_end in (True, False):
                print(name, {k: getattr(v, "shape", v) for k, v in args.items()}, flush=True)
                getattr(kernels, name)(
                    **{k: fenced(v, at_end) if isinstance(v, np.ndarray) else v
                       for k, v in args.items()}
                )
                keep.clear()
print("done")
"""


def test_kernels_stay_inside_their_arrays(isa: str) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("page protection is done the Linux way")
    tests = Path(__file__).parent
    path = f"import sys; sys.path[:0] = [{str(tests)!r}, {str(tests.parent)!r}]\n"
    result = subprocess.run(
        [sys.executable, "-c", path + PROGRAM, isa], capture_output=True, text=True
    )
    last = result.stdout.strip().split("\n")[-1]
    assert last == "done", f"stopped in {last}\n{result.stderr}"


@pytest.mark.parametrize("nbytes", [1, 100, LARGE - 1, LARGE, HUGE_PAGE, HUGE_PAGE + 1])
def test_memory_of_any_size_begins_on_a_cache_line(nbytes: int) -> None:
    memory = aligned_zeros(nbytes)
    assert memory.dtype == np.uint8
    assert memory.shape == (nbytes,)
    assert not memory.any()
    assert memory.ctypes.data % LINE == 0
    memory[:] = 1  # all of it is there, and may be written


def test_vectors_of_one_size_do_not_begin_at_the_same_place_of_a_page() -> None:
    for pages in range(1, 33):
        vectors = [aligned_zeros(pages * HUGE_PAGE) for _ in range(7)]
        places = {vector.ctypes.data % HUGE_PAGE for vector in vectors}
        assert len(places) == 7 or not hasattr(mmap, "MADV_HUGEPAGE")


@pytest.mark.parametrize("error", [OSError, None])
def test_without_huge_pages_memory_is_ordinary(monkeypatch: Any, error: Any) -> None:
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        pytest.skip("this system has no huge pages to ask for")
    if error is None:
        monkeypatch.delattr(mmap, "MADV_HUGEPAGE")
    else:
        monkeypatch.setattr(mmap, "mmap", mock.Mock(side_effect=error))
    memory = aligned_zeros(HUGE_PAGE)
    assert memory.size == HUGE_PAGE
    assert memory.ctypes.data % LINE == 0
    with pytest.raises(MemoryError):
        aligned_zeros(1 << 60)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("nbytes", [LINE, HUGE_PAGE])
def test_what_a_forked_process_writes_is_its_own(nbytes: int) -> None:
    memory = aligned_zeros(nbytes)
    child = os.fork()
    if child == 0:
        memory[:] = 1
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert not memory.any()


def test_memory_stays_as_long_as_a_part_of_it() -> None:
    part = aligned_zeros(HUGE_PAGE).view(np.float32)[5:7]
    gc.collect()
    part[:] = 3
    assert part.tolist() == [3, 3]


def test_no_bytes_are_an_empty_array() -> None:
    assert aligned_zeros(0).shape == (0,)
