"""Print the figures of kernels as a table, save them, and compare them with an earlier file."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minidl._version import __version__
from minidl.files import open_regular, replacing
from minidl.profiling.cases import Case
from minidl.profiling.ceilings import FMA, Ceilings
from minidl.profiling.measuring import Result

FORMAT = "minidl bench 1"
LARGEST_FILE = 16 << 20  # bytes; a whole run takes some tens of thousands
HEADINGS = ("us", "rate", "at most", "bound by", "fraction", "best", "twin")
WIDTHS = (10, 15, 9, 10, 10, 6, 8)
ABOVE = "fraction above 100%: part of the data was found in a nearer level of memory"
OLD_NEW = 10  # the width of the column that a comparison adds


@dataclass(frozen=True)
class Run:
    """All that was measured with one instruction set, dtype and number of threads."""

    isa: str
    dtype: str
    ceilings: Ceilings
    call_costs: dict[str, float]
    results: list[Result]
    threads: int = 1

    @property
    def title(self) -> str:
        """Instruction set, dtype and threads, in words."""
        return title(self.isa, self.dtype, self.threads)


def title(isa: str, dtype: str, threads: int) -> str:
    """Describe what is measured."""
    return f"{isa}, {dtype}, {'one thread' if threads == 1 else f'{threads} threads'}"


# --- the table --------------------------------------------------------------------------


def ceilings_text(ceilings: Ceilings, call_costs: Mapping[str, float]) -> str:
    """Describe the ceilings of the machine, and the cost of a call from Python."""
    lines = [f"{'multiply-adds':<15}{ceilings.flops / 1e9:8.1f} GFLOP/s"]
    for name, bandwidth in ceilings.bandwidths.items():
        lines.append(f"{f'reads of {name}':<15}{bandwidth / 1e9:8.1f} GB/s")
    costs = ", ".join(f"{name} {cost * 1e6:.2f} us" for name, cost in call_costs.items())
    lines.append(f"one call from Python, beyond its kernel: {costs}")
    return "\n".join([*lines, ABOVE])


class Table:
    """Formats a table line by line, as cases are measured.

    Parameters
    ----------
    cases
        All cases of the table: they decide how wide it is.
    saved
        Seconds of an earlier run, by the name of the case, for one more column.
    """

    def __init__(self, cases: Iterable[Case], saved: Mapping[str, float] | None = None) -> None:
        known = list(cases)
        self._kernel = max(len(name) for name in ("kernel", *(case.kernel for case in known)))
        self._shape = max(len(name) for name in ("shape", *(case.shape for case in known)))
        self._saved = saved

    def heading(self) -> str:
        """Format the names of the columns."""
        cells = [f"{text:>{width}}" for text, width in zip(HEADINGS, WIDTHS, strict=True)]
        names = f"{'kernel':<{self._kernel}}  {'shape':<{self._shape}}"
        return (
            names + "".join(cells) + (f"{'old/new':>{OLD_NEW}}" if self._saved is not None else "")
        )

    def line(self, result: Result) -> str:
        """Format one result."""
        unit = "GFLOP/s" if result.bound == FMA else "GB/s   "
        time = result.seconds * 1e6
        cells = [f"{time:.{3 if time < 100 else 0}f}", f"{result.rate / 1e9:.1f} {unit}"]
        if result.bound:
            cells += [f"{result.ceiling / 1e9:.1f}", result.bound]
            cells += [f"{result.fraction:.0%}", f"{result.best:.0%}"]
        else:
            cells += ["", "", "", ""]
        cells.append(f"{result.speedup:.1f}x")
        if self._saved is not None:
            old = self._saved.get(result.name)
            cells.append("" if old is None else f"{old / result.seconds:.2f}x")
        widths = (*WIDTHS, OLD_NEW)
        numbers = "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=False))
        return f"{result.kernel:<{self._kernel}}  {result.shape:<{self._shape}}{numbers}".rstrip()


# --- files ------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """Describe the machine, and the versions of Python, NumPy and minidl."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "platform": platform.platform(),
        "minidl": __version__,
        "NumPy": np.__version__,
        "Python": platform.python_version(),
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except (OSError, ValueError):
        pass
    return platform.processor() or platform.machine()


def save(path: Path, runs: list[Run]) -> None:
    """Write runs as JSON, with the machine they come from."""
    document = {"format": FORMAT, "machine": machine(), "runs": [asdict(run) for run in runs]}
    with replacing(path) as file:
        file.write((json.dumps(document, indent=1) + "\n").encode())


def load(path: Path, threads: int = 1) -> dict[tuple[str, str], dict[str, float]]:
    """Read the seconds of each case in a file that ``save`` wrote.

    Returns those that were measured with so many threads, by (instruction set, dtype) and by the
    name of the case.

    Raises
    ------
    ValueError
        If ``save`` has not written this file. No other error, whatever the file holds.
    OSError
        If it cannot be read.
    """
    with open_regular(path) as file:
        text = file.read(LARGEST_FILE + 1)
    if len(text) > LARGEST_FILE:
        raise ValueError(f"{path} is too large for a file that minidl bench saved")
    try:
        return _timings(json.loads(text), threads)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        raise ValueError(f"{path} is damaged, or not a file that minidl bench saved") from None


def _timings(document: Any, threads: int) -> dict[tuple[str, str], dict[str, float]]:
    """Extract what a comparison needs from a document; raises any error if that is missing."""
    if document["format"] != FORMAT:
        raise ValueError
    found: dict[tuple[str, str], dict[str, float]] = {}
    for run in document["runs"]:
        if run.get("threads", 1) != threads:
            continue
        timings = found.setdefault((_text(run["isa"]), _text(run["dtype"])), {})
        for result in run["results"]:
            timings[f"{_text(result['kernel'])} {_text(result['shape'])}"] = _time(result)
    return found


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _time(result: Any) -> float:
    seconds = result["seconds"]
    if type(seconds) not in (int, float) or not 0 < seconds < math.inf:
        raise ValueError
    return float(seconds)
