"""Environment variables: the instruction set, the number of threads, and limits to remove."""

from __future__ import annotations

import os
from collections.abc import Mapping


class SettingError(ImportError, ValueError):
    """An environment variable has an impossible value."""


def instruction_set() -> str:
    """Return ``MINIDL_ISA``; empty for the best instruction set there is."""
    return os.environ.get("MINIDL_ISA", "")


def num_threads(most: int) -> int | None:
    """Return ``MINIDL_NUM_THREADS``, from 1 to ``most``; None if it is not set.

    Raises
    ------
    SettingError
        If it is no such whole number.
    """
    asked = os.environ.get("MINIDL_NUM_THREADS", "")
    if not asked:
        return None
    if not (asked.isascii() and asked.isdecimal()) or not 1 <= int(asked) <= most:
        raise SettingError(f"MINIDL_NUM_THREADS={asked}: expected a whole number from 1 to {most}")
    return int(asked)


def openmp_threads(most: int) -> int:
    """Return ``OMP_NUM_THREADS``; ``most`` if it is not set.

    joblib and batch systems set it to share the cores of a machine between processes. It may be a
    list, as for OpenMP, with a number for each level of nesting: the first one is returned. A value
    that OpenMP would ignore is ignored.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(asked) if asked.isascii() and asked.isdecimal() and int(asked) > 0 else most


# If these are set, OpenBLAS uses the kernels of an older machine, and NumPy, SciPy and scikit-learn
# look half as fast as they are: they should be unset for comparisons.
OPENBLAS_LIMITS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


def without_limits(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without variables that keep OpenBLAS from using the whole machine."""
    return {name: value for name, value in environment.items() if name not in OPENBLAS_LIMITS}
