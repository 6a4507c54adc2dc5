"""Diagnoses of programs that fail and of programs that are well.

    python benchmarks/diagnosis.py                    # the programs from questions, and the mutants
    python benchmarks/diagnosis.py --cases own        # further ones, of every kind
    python benchmarks/diagnosis.py --cases all --name softmax
    python benchmarks/diagnosis.py --healthy          # where any verdict is a false alarm
    python benchmarks/diagnosis.py --kinds --seeds 20 # a program built for each kind of verdict

What is asked: is the first verdict one of those that count, does the cure come 90 % of the way to
the best that is known, judged by its predictions alone, and does the diagnosis take no longer than
three plain trainings and a second. The data are generated, or come with scikit-learn; a folder with
the test pictures of MNIST and with tinyshakespeare.txt, if there is one, is named by MINIDL_DATA.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

from trainings import healthy, kinds, mutants, own, questions, report
from trainings.case import Case, Healthy
from trainings.measure import Result, measure_case, measure_healthy

SETS = {
    "known": questions.CASES + mutants.CASES,
    "own": own.CASES,
    "all": questions.CASES + mutants.CASES + own.CASES,
}
Task = tuple[str, str, int, bool]  # set, name, seed, whether to cure


def chosen(arguments: argparse.Namespace) -> tuple[str, list[Case] | list[Healthy]]:
    """Return the name of the set that was asked for, and what is in it."""
    if arguments.healthy:
        return "healthy", list(healthy.programs())
    if arguments.kinds:
        return "kinds", kinds.cases()
    return arguments.cases, SETS[arguments.cases]


def run(task: Task) -> Result:
    """Measure one seed of one program."""
    group, name, seed, cure = task
    if group == "healthy":
        return measure_healthy(next(h for h in healthy.programs() if h.name == name), seed)
    cases = kinds.cases() if group == "kinds" else SETS[group]
    result = measure_case(next(c for c in cases if c.name == name), seed, cure)
    if group == "kinds":  # wherever it stands among the verdicts
        result.right = name in result.kinds
    return result


def results(tasks: list[Task], jobs: int) -> Iterator[Result]:
    """Measure all, and say of each as soon as it is done."""
    with get_context("spawn").Pool(jobs) as pool:
        for result in pool.imap(run, tasks):
            closed = "" if result.closed is None else f", {100 * result.closed:.0f} % closed"
            said = " ".join(result.kinds) or "no verdict"
            verdict = "right" if result.right else "WRONG"
            print(f"{result.name}, seed {result.seed}: {verdict}, {said}{closed}", file=sys.stderr)
            if result.change and not result.cured:
                print(f"    {result.change}", file=sys.stderr)
            yield result


def main() -> None:
    """Run what the command line asks for, and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", choices=SETS, default="known", help="which faulty programs")
    parser.add_argument("--healthy", action="store_true", help="programs that are well")
    parser.add_argument("--kinds", action="store_true", help="one program for each kind")
    parser.add_argument("--name", default="", help="only those whose name contains this")
    parser.add_argument("--seeds", type=int, default=0, help="3; of healthy programs 5")
    parser.add_argument("--no-cure", action="store_true", help="diagnose only")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--out", type=Path, help="write the tables to this file, too")
    arguments = parser.parse_args()
    group, programs = chosen(arguments)
    seeds = arguments.seeds or (5 if arguments.healthy else 3)
    tasks = [
        (group, program.name, seed, not arguments.no_cure)
        for program in programs
        if arguments.name in program.name
        for seed in range(seeds)
    ]
    found = list(results(tasks, arguments.jobs))
    lines = list((report.alarms if arguments.healthy else report.table)(found))
    lines += ["", *report.summary(found), "", report.PUBLISHED]
    print("\n".join(lines))
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
