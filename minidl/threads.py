"""How many threads recorded steps may use."""

from __future__ import annotations

import os
from pathlib import Path

from minidl import _kernels, settings

MOST = 64  # threads of a team


def set_num_threads(count: int) -> None:
    """Let recorded steps use up to ``count`` threads, the calling one included.

    The default is ``MINIDL_NUM_THREADS``; where that is not set, the number of cores this process
    may use, but at most ``OMP_NUM_THREADS``. A kernel gets as many as its size is worth: small
    ones stay on one thread. Results do not depend on the number of threads, to the last bit.

    Parameters
    ----------
    count
        1 to 64.

    Raises
    ------
    ValueError
        For anything but a whole number from 1 to 64.

    Examples
    --------
    >>> import minidl
    >>> before = minidl.get_num_threads()
    >>> minidl.set_num_threads(1)
    >>> minidl.get_num_threads()
    1
    >>> minidl.set_num_threads(before)
    """
    global _count
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MOST:
        raise ValueError(
            f"set_num_threads: expected a whole number from 1 to {MOST}, got {count!r}"
        )
    _count = count
    _kernels.note_change()


def get_num_threads() -> int:
    """Return how many threads recorded steps may use."""
    return _count


def _default() -> int:
    if (asked := settings.num_threads(MOST)) is not None:
        return asked
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(cores or 1, _quota(), settings.openmp_threads(MOST), MOST))


def _quota(path: str = "/sys/fs/cgroup/cpu.max") -> int:
    """Return how many cores a Linux container may use; MOST without a limit."""
    try:
        quota, period = Path(path).read_text(encoding="ascii").split()
        return max(1, round(int(quota) / int(period)))
    except (OSError, ValueError):  # no such file, or "max"
        return MOST


_count = _default()
