"""``minidl bench``: how close every kernel is to what this machine can do."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from minidl import _kernels
from minidl.cli import options
from minidl.cli import plot as pictures
from minidl.cli.doctor import usable_cores
from minidl.cli.options import UsageError, usage_errors
from minidl.profiling import kernel_plot as plot
from minidl.profiling import kernel_report as report
from minidl.profiling.cases import cases
from minidl.profiling.ceilings import Probes
from minidl.profiling.kernel_report import Run, Table
from minidl.profiling.measuring import QUICK, Effort, call_costs, geometric_mean, measure
from minidl.settings import OPENBLAS_LIMITS, without_limits
from minidl.threads import MOST

# Environment variables that hold NumPy's products to one thread, by what NumPy was built with.
ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
Saved = Mapping[tuple[str, str], Mapping[str, float]]


def add_command(commands: Any) -> None:
    """Add ``bench``."""
    parser = commands.add_parser(
        "bench", help="measure every kernel against what this machine can do at most"
    )
    add = parser.add_argument
    add("--isa", metavar="NAME", help="instruction set, or all [the one that serves]")
    add("--dtype", choices=("float32", "float64"), default="float32", help="[float32]")
    help = "that share each kernel, as in a recorded step [1]"
    add("--threads", type=options.count, default=1, metavar="N", help=help)
    add("--kernel", nargs="+", metavar="NAME", help="these kernels only [all]")
    rounds = f"times that everything is measured [{Effort().rounds}; --quick {QUICK.rounds}]"
    add("--rounds", type=options.count, metavar="N", help=rounds)
    add("--quick", action="store_true", help="measure less, and less exactly")
    add("--json", type=Path, metavar="FILE", help="save the figures")
    add("--compare", type=Path, metavar="FILE", help="compare with figures saved before")
    add("--plot", type=Path, metavar="FILE", help="draw the roofline: .png, .pdf, .svg")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure kernels as the arguments say; print, save, compare and draw the results."""
    if arguments.own_process and _is_held_back(arguments.isa):
        return _run_without_limits()
    if arguments.threads > MOST:
        raise UsageError(f"--threads: there can be {MOST} at most, not {arguments.threads}")
    isas, names = _instruction_sets(arguments.isa), _chosen_kernels(arguments.kernel)
    with usage_errors(ImportError, OSError, ValueError):
        saved = (
            None if arguments.compare is None else report.load(arguments.compare, arguments.threads)
        )
        if arguments.json is not None:
            options.check_writable(arguments.json, "save")
        if arguments.plot is not None:
            pictures.check(arguments.plot)
    if saved is not None:
        _check_comparable(saved, isas, arguments)
    effort = QUICK if arguments.quick else Effort()
    effort = Effort(arguments.rounds or effort.rounds, effort.seconds)
    _print_conditions()
    probes = Probes(arguments.dtype, threads=arguments.threads)
    runs = []
    for isa in isas:
        with _using(isa):
            runs.append(_measure(isa, arguments.dtype, names, probes, effort, saved))
    if arguments.json is not None:
        with options.writing(arguments.json):
            report.save(arguments.json, runs)
        print(f"\nsaved to {arguments.json}")
    if arguments.plot is not None:
        with options.writing(arguments.plot):
            plot.draw(arguments.plot, runs)
        print(f"\nplot written to {arguments.plot}")
    return 0


def _is_held_back(isa: str | None) -> bool:
    """Whether NumPy is held to an older machine, and the kernels are not."""
    limited = any(name in os.environ for name in OPENBLAS_LIMITS)
    return limited and isa not in ("baseline", "avx2")


def _run_without_limits() -> int:
    """Run this command in a process in which NumPy, too, uses all that the machine has."""
    command = [sys.executable, *sys.orig_argv[1:]]
    with subprocess.Popen(command, env=without_limits(os.environ)) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                pass  # the other process gets it as well


def _instruction_sets(asked: str | None) -> list[str]:
    """The instruction sets to measure."""
    compiled = [name for name in _kernels.available() if name != "reference"]
    if not compiled:
        raise UsageError("no compiled kernels here, and so nothing to measure; see minidl doctor")
    if asked == "all":
        return compiled
    name = asked or _kernels.isa
    if name not in compiled:
        known = ", ".join([*compiled, "all"])
        raise UsageError(f"instruction set {name!r} cannot be measured; choose --isa {known}")
    return [name]


def _chosen_kernels(asked: list[str] | None) -> list[str]:
    unknown = [name for name in asked or () if name not in _kernels.NAMES]
    if unknown:
        raise UsageError(f"no kernel called {unknown[0]!r}; known: {', '.join(_kernels.NAMES)}")
    return list(asked or _kernels.NAMES)


def _check_comparable(saved: Saved, isas: list[str], arguments: argparse.Namespace) -> None:
    """Raise before measuring, not after it, if there is nothing to compare with."""
    for isa in isas:
        if not saved.get((isa, arguments.dtype)):
            threads = "" if arguments.threads == 1 else f" by {arguments.threads} threads"
            raise UsageError(
                f"{arguments.compare} has no figures of {isa} and {arguments.dtype}{threads}"
            )


@contextmanager
def _using(isa: str) -> Iterator[None]:
    """Run all kernels with this instruction set inside the block."""
    before = _kernels.isa
    _kernels.select(isa)
    try:
        yield
    finally:
        _kernels.select(before)


def _print_conditions() -> None:
    about = report.machine()
    print(f"{about['processor']}; minidl {about['minidl']}, NumPy {about['NumPy']}")
    several = usable_cores() > 1
    if several and not any(os.environ.get(name) == "1" for name in ONE_THREAD):
        print(f"NumPy may use several threads; {ONE_THREAD[0]}=1 holds the twins to one")
    for name in OPENBLAS_LIMITS:
        if name in os.environ:
            print(f"{name}={os.environ[name]} may hold the twins to an older machine")


def _measure(
    isa: str, dtype: str, names: list[str], probes: Probes, effort: Effort, saved: Saved | None
) -> Run:
    """Measure with one instruction set, and print each line as soon as it is known."""
    threads = probes.threads
    title = report.title(isa, dtype, threads)
    print(f"\n{title}; median of {effort.rounds} rounds", flush=True)
    run = Run(isa, dtype, probes.best(effort.rounds), call_costs(dtype, effort), [], threads)
    print(report.ceilings_text(run.ceilings, run.call_costs), end="\n\n")
    chosen = cases(np.dtype(dtype), names)
    old = None if saved is None else saved[isa, dtype]
    table = Table(chosen, old)
    print(table.heading(), flush=True)
    for case in chosen:
        run.results.append(measure(case, probes, effort))
        print(table.line(run.results[-1]), flush=True)
    if old is not None:
        ratios = [old[r.name] / r.seconds for r in run.results if r.name in old]
        mean = f"{geometric_mean(ratios):.2f}x" if ratios else "-"
        print(f"\ngeometric mean of old/new over {len(ratios)} cases: {mean}")
    return run
