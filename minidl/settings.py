"""What environment variables ask for: the instruction set, and how many threads."""

from __future__ import annotations

import os


class SettingError(ImportError, ValueError):
    """An environment variable has a value that cannot be."""


def instruction_set() -> str:
    """``MINIDL_ISA``; empty if the best one is to serve."""
    return os.environ.get("MINIDL_ISA", "")


def num_threads(most: int) -> int | None:
    """``MINIDL_NUM_THREADS``, a whole number from 1 to ``most``; None if it is not set.

    Raises
    ------
    SettingError
        If it is something else.
    """
    asked = os.environ.get("MINIDL_NUM_THREADS", "")
    if not asked:
        return None
    if not (asked.isascii() and asked.isdecimal()) or not 1 <= int(asked) <= most:
        raise SettingError(f"MINIDL_NUM_THREADS={asked}: expected a whole number from 1 to {most}")
    return int(asked)


def openmp_threads(most: int) -> int:
    """``OMP_NUM_THREADS``, which joblib and batch systems set to share the cores of a machine
    between processes; ``most`` if it does not limit them.

    It belongs to OpenMP, where it may be a list, one number for each level of nesting: the first
    counts. A value that OpenMP would ignore is ignored.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(asked) if asked.isascii() and asked.isdecimal() and int(asked) > 0 else most
