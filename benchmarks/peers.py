"""Compare minidl with other libraries at the same work.

    python benchmarks/peers.py                    # kernels
    python benchmarks/peers.py steps              # training steps
    python benchmarks/peers.py convolution        # those of convolutional networks
    python benchmarks/peers.py inference --rows "batch 1"
    python benchmarks/peers.py text --file FILE   # a whole training, of minidl and PyTorch
    python benchmarks/peers.py sklearn            # whole fits of estimators on ten sets

All contenders for a task run in alternating rounds of one process, with the same number of threads;
the fastest of a few bursts counts in each round. Reported is the median, over the rounds, of time
of the peer / time of minidl: above 1, minidl is faster. A library may have several settings, the
fastest of which counts. Before anything is timed, all must give the same answer. A library that is
not installed is left out. The FMA limit, beside the times of products and networks, is the time
that their multiply-adds alone take at the FMA peak.

The environment sets threads and instruction sets before a library is loaded, so each number of
threads is compared in a process of its own. Variables that hold OpenBLAS to an older machine are
removed, unless --isa holds all libraries to one instruction set.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from comparison import estimators, report, text
from comparison.measuring import Result
from comparison.running import Plan, run
from comparison.suites import OURS, SUITES

from minidl import _kernels
from minidl.cli.doctor import usable_cores
from minidl.cli.options import check_writable, count
from minidl.profiling.measuring import QUICK, Effort
from minidl.settings import without_limits

ROUNDS = 7
# The suites that are whole trainings, not tables of tasks.
TEXT = "text"
ESTIMATORS = "sklearn"
WHOLE = {TEXT: text, ESTIMATORS: estimators}
THREAD_VARIABLES = (
    "BLIS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NPROC",  # JAX
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
)
# Variables that hold libraries to an older instruction set: no machine has AVX2 for minidl and
# AVX-512 for its peers. NumPy 2.4 has changed its names of features, so both are given.
NUMPY_AVX512 = "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL X86_V4 AVX512_ICL AVX512_SPR"
HELD = {
    "baseline": {
        "MINIDL_ISA": "baseline",
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "NPY_DISABLE_CPU_FEATURES": f"AVX F16C FMA3 AVX2 X86_V3 {NUMPY_AVX512}",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "OPENBLAS_CORETYPE": "Nehalem",
    },
    "avx2": {
        "MINIDL_ISA": "avx2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "NPY_DISABLE_CPU_FEATURES": NUMPY_AVX512,
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
    },
    "avx512": {"MINIDL_ISA": "avx512"},
}


def parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    helps = {name: suite.help for name, suite in SUITES.items()}
    helps |= {name: module.__doc__.split("\n")[0] for name, module in WHOLE.items()}
    suites = "\n".join(f"  {name:<13}{help}" for name, help in helps.items())
    parser = argparse.ArgumentParser(
        description=f"minidl and other libraries at the same work.\n\nsuites:\n{suites}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("suite", nargs="?", choices=[*SUITES, *WHOLE], default="kernels", help="[kernels]")
    add("--rows", default="", metavar="TEXT", help="only tasks with this text in their name")
    add("--peers", nargs="+", default=[], metavar="NAME", help="only these columns of the table")
    add("--threads", nargs="+", type=count, metavar="N", help="numbers of threads to compare with")
    add("--isa", choices=HELD, help="instruction set, of peers as well [the best]")
    add("--dtype", choices=("float32", "float64"), default="float32", help="[float32]")
    add("--rounds", type=count, metavar="N", help=f"[{ROUNDS}; --quick {QUICK.rounds}]")
    add("--quick", action="store_true", help="measure less, and less exactly")
    add("--file", type=Path, metavar="FILE", help="text: what to read [the help topics of Python]")
    add("--epochs", type=count, default=3, metavar="N", help="text: how often [3]")
    add("--json", type=Path, metavar="FILE", help="save all rounds")
    add("--child", nargs=2, metavar=("THREADS", "FILE"), help=argparse.SUPPRESS)
    return parser


def main() -> int:
    """Compare with each number of threads, and print the best of each contender."""
    arguments = parser().parse_args()
    if arguments.suite in WHOLE:
        return _train(arguments)
    suite = SUITES[arguments.suite]
    _check(arguments)
    counts = arguments.threads or ([1, usable_cores()] if suite.every_thread_count else [1])
    arguments.threads = sorted(set(counts))
    if arguments.child:
        threads, file = arguments.child
        return _one_process(arguments, int(threads), Path(file))
    if suite.notes:
        print(suite.notes)
    about, results, code = _all_processes(arguments)
    if results:
        print("\n" + report.conclusion(suite, results))
    if arguments.json is not None:
        report.save(arguments.json, arguments.suite, about, results)
        print(f"\nsaved to {arguments.json}")
    return code


def _train(arguments: argparse.Namespace) -> int:
    """Run a suite of whole trainings in a process of its own, for its number of threads."""
    cores = 1 if arguments.suite == ESTIMATORS else usable_cores()
    threads = max(arguments.threads or [cores])
    if not arguments.child:
        return _start(threads, arguments.isa, Path(os.devnull))
    try:
        if arguments.suite == ESTIMATORS:
            estimators.run(arguments.rows, arguments.quick)
        else:
            text.run(arguments.file, arguments.epochs, threads)
    except (OSError, ValueError, ImportError) as error:
        parser().error(str(error))
    except KeyboardInterrupt:
        return 130
    return 0


def _all_processes(arguments: argparse.Namespace) -> tuple[dict[str, Any], list[Result], int]:
    """Collect the results of a process for each number of threads, up to the first that fails."""
    about: dict[str, Any] = {}
    results: list[Result] = []
    code = 0
    with tempfile.TemporaryDirectory() as folder:
        for threads in arguments.threads:
            file = Path(folder) / f"{threads}.json"
            code = code or _start(threads, arguments.isa, file)
            if file.exists():
                about, found = report.load(file)
                results += found
    return about, results, code


def _check(arguments: argparse.Namespace) -> None:
    """Exit with a message if an argument is wrong, before anything is measured."""
    suite = SUITES[arguments.suite]
    known = [column for column, library in suite.columns.items() if library != OURS]
    try:
        if arguments.isa is not None and arguments.isa not in _kernels.available():
            raise ValueError(f"{arguments.isa} is not available; there are {_kernels.available()}")
        if unknown := set(arguments.peers).difference(known):
            raise ValueError(f"no peer {unknown.pop()!r} here; there are {', '.join(known)}")
        if not any(arguments.rows in task.name for task in suite.tasks(arguments.dtype)):
            raise ValueError(f"no task has {arguments.rows!r} in its name")
        if arguments.json is not None:
            check_writable(arguments.json, "save")
    except (ValueError, OSError) as error:
        parser().error(str(error))


def _start(threads: int, isa: str | None, file: Path) -> int:
    """Run this command in a process whose environment has the settings of the libraries."""
    environment = {
        **without_limits(os.environ),
        **dict.fromkeys(THREAD_VARIABLES, str(threads)),
        **HELD.get(isa or "", {}),
    }
    if threads == 1:
        one = "--xla_cpu_multi_thread_eigen=false"
        environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {one}".strip()
    command = [sys.executable, __file__, *sys.argv[1:], "--child", str(threads), str(file)]
    print(flush=True)
    with subprocess.Popen(command, env=environment) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                pass  # the child was interrupted as well, and saves the results it has


def _one_process(arguments: argparse.Namespace, threads: int, file: Path) -> int:
    effort = QUICK if arguments.quick else Effort(ROUNDS)
    plan = Plan(
        arguments.suite,
        threads,
        arguments.threads,
        arguments.dtype,
        arguments.rows,
        arguments.peers,
        arguments.isa in ("baseline", "avx2"),
        Effort(arguments.rounds or effort.rounds, effort.seconds),
    )
    about, results, finished = run(plan)
    report.save(file, arguments.suite, about, results)
    return 0 if finished else 130


if __name__ == "__main__":
    sys.exit(main())
