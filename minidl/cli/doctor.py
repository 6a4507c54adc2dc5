"""``minidl doctor``: what this installation runs on, and why."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np


def add_command(commands: Any) -> None:
    """Add ``doctor``."""
    parser = commands.add_parser(
        "doctor", help="say which instruction set is used and why, and what minidl runs on"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print a line for every fact; at a terminal, one that is too long goes on below."""
    facts = describe()
    width = 2 + max(map(len, facts))
    terminal = sys.stdout.isatty()
    for name, value in facts.items():
        line = f"{name:<{width}}{value}"
        print(_wrapped(line, " " * width) if terminal else line)
    return 0


def _wrapped(line: str, indent: str) -> str:
    columns = max(len(indent) + 20, shutil.get_terminal_size().columns)
    # Flags of the compiler begin with a hyphen, which must not be left at the end of a line.
    return textwrap.fill(
        line, columns, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def describe() -> dict[str, str]:
    """The facts by name: the compiled kernels first, then what they run on."""
    import minidl
    from minidl import _kernels

    return {
        "minidl": minidl.__version__,
        "folder": str(Path(minidl.__file__).parent),
        **_kernels.describe(),
        "cores": f"{usable_cores()} usable of {os.cpu_count()}",
        "NumPy": np.__version__,
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": platform.platform(),
    }


def usable_cores() -> int:
    """Count the cores that this process may use, if the system says so; else all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
