"""What environment variables ask for: the instruction set, how many threads, and what to ignore."""

from __future__ import annotations

import os
from collections.abc import Mapping


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


# Where an environment sets these, OpenBLAS takes the machine for an older one, and NumPy, SciPy
# and scikit-learn look half as fast as they are: no comparison should be made with them.
OPENBLAS_LIMITS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


def without_limits(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment in which OpenBLAS takes the machine for what it is."""
    return {name: value for name, value in environment.items() if name not in OPENBLAS_LIMITS}
