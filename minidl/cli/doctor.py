"""``minidl doctor``: what this installation runs on, and why."""

from __future__ import annotations

import argparse
import os
import platform
from typing import Any

import numpy as np


def add_command(commands: Any) -> None:
    """Add ``doctor``."""
    parser = commands.add_parser(
        "doctor", help="say which instruction set is used and why, and what minidl runs on"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print a line for every fact."""
    facts = describe()
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:<{width}}  {value}")
    return 0


def describe() -> dict[str, str]:
    """The facts by name: the compiled kernels first, then what they run on."""
    import minidl
    from minidl import _kernels

    return {
        "minidl": minidl.__version__,
        **_kernels.describe(),
        "cores": f"{usable_cores()} usable of {os.cpu_count()}",
        "NumPy": np.__version__,
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": platform.platform(),
    }


def usable_cores() -> int:
    """Cores that this process may use, where the system tells; else all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
