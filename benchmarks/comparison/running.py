"""Run one suite in one process, with one number of threads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from types import ModuleType
from typing import Any

from comparison import report
from comparison.measuring import Contender, Result, agreeing, fastest, in_one_line, measure
from comparison.report import Table
from comparison.suites import NOT_HELD, OURS, SUITES, Suite, Task
from minidl import _kernels
from minidl.profiling.ceilings import Probes
from minidl.profiling.kernel_report import machine
from minidl.profiling.measuring import Effort

LOOKS = 9  # measurements of the FMA peak, of which the best counts


@dataclass(frozen=True)
class Plan:
    """What to compare.

    Parameters
    ----------
    suite
        Name of the suite.
    threads
        Threads that the libraries may use; the environment has set this number.
    our_threads
        Numbers of threads of minidl, of which the best counts.
    dtype
        float32 or float64.
    rows
        Text that the names of the tasks to run contain.
    peers
        Columns of peers to compare with; if empty, all that are installed.
    held
        Whether all are held to an older instruction set; libraries that cannot be are left out.
    effort
        How long to measure.
    """

    suite: str
    threads: int
    our_threads: list[int]
    dtype: str
    rows: str
    peers: list[str]
    held: bool
    effort: Effort


def run(plan: Plan) -> tuple[dict[str, Any], list[Result], bool]:
    """Run a plan; returns facts about the machine, the results, and False if Ctrl-C ended it."""
    suite = SUITES[plan.suite]
    peak = _peak(plan)
    libraries, columns = _libraries(suite, plan)
    about = machine() | {"libraries": [library.about() for library in libraries.values()]}
    tasks = [task for task in suite.tasks(plan.dtype) if plan.rows in task.name]
    print(f"{about['processor']}, {about['cores']} cores; Python {about['Python']}")
    print(", ".join(about["libraries"]))
    count = "1 thread" if plan.threads == 1 else f"{plan.threads} threads"
    print(f"{plan.dtype}, {count}; ratios to minidl, median of {plan.effort.rounds} rounds")
    if peak:
        print(f"FMA peak {peak / 1e9:.0f} GFLOP/s")
    ours = [column for column in columns if suite.columns[column] == OURS]
    shown = [column for column in columns if column not in ours[:1]]
    table = Table(suite.what, [task.name for task in tasks], ["minidl us", *shown])
    print("\n" + table.heading(), flush=True)
    results: list[Result] = []
    try:
        for task in tasks:
            limit = suite.flops(task) / peak or None if peak else None
            results.append(replace(_measure(task, libraries, columns, plan), limit=limit))
            print(_line(table, suite, shown, results[-1]), flush=True)
    except KeyboardInterrupt:
        print("stopped")
        return about, results, False
    return about, results, True


def _peak(plan: Plan) -> float:
    """Measure the flops per second of only multiply-adds; 0 without compiled kernels."""
    if _kernels.isa == "reference":
        return 0.0
    probes = Probes(plan.dtype, threads=plan.threads)
    return max(probes.flops() for _ in range(LOOKS))


def _libraries(suite: Suite, plan: Plan) -> tuple[dict[str, ModuleType], list[str]]:
    """Import the libraries that are installed; returns their modules and columns."""
    found: dict[str, ModuleType] = {}
    columns = []
    for column, name in suite.columns.items():
        if plan.peers and name != OURS and column not in plan.peers:
            continue
        if plan.held and name in NOT_HELD:
            print(f"{column} is left out: it cannot be held to an instruction set")
            continue
        try:
            found[name] = import_module(f"comparison.libraries.{name}")
        except ImportError as error:
            print(f"{column} is left out: {error}")
            continue
        columns.append(column)
    return found, columns


def _measure(
    task: Task, libraries: dict[str, ModuleType], columns: list[str], plan: Plan
) -> Result:
    def leave_out(who: str, why: str) -> None:
        print(f"{who} is left out of {task.name}: {why}", flush=True)

    def send() -> Iterator[Contender]:
        for name, library in libraries.items():
            try:
                yield from getattr(library, plan.suite)(task, plan.our_threads)
            except Exception as error:
                if name == OURS:
                    raise
                leave_out(library.about(), in_one_line(error))

    sent = (contender for contender in send() if contender.name in columns)
    contenders = agreeing(
        sent, lambda who, why: leave_out(f"{who.name} {who.setting}".rstrip(), why)
    )
    seconds = measure(contenders, plan.effort)
    chosen = fastest(contenders, seconds)
    rounds = {name: seconds[index] for name, index in chosen.items()}
    settings = {
        name: contenders[index].setting
        for name, index in chosen.items()
        if contenders[index].setting
    }
    return Result(task.name, task.groups, plan.threads, rounds, settings)


def _line(table: Table, suite: Suite, shown: Sequence[str], result: Result) -> str:
    base = report.base_of(suite, [result])
    ratios = [report.times(report.ratio([result], column, base)) for column in shown]
    return table.line(result.task, [report.microseconds(result.seconds(base)), *ratios])
