"""Print a comparison as tables of times, ratios and means, and save it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from comparison.measuring import Result
from comparison.suites import OURS, Suite
from minidl.profiling.measuring import geometric_mean

FORMAT = "minidl peers 1"
BEST = "the best peer"
LIMIT = "FMA limit"  # the column of the least time that is possible
LEAST = 7  # characters of the narrowest column
GAP = "  "
Results = Sequence[Result]


class Table:
    """Formats lines of a table: a name, and a cell for each column.

    Parameters
    ----------
    what
        Heading of the names.
    names
        All names that the table will have.
    columns
        Headings of the cells.
    """

    def __init__(self, what: str, names: Iterable[str], columns: Sequence[str]) -> None:
        self._what, self._columns = what, list(columns)
        self._name = max(map(len, [what, *names]))

    def heading(self) -> str:
        """Format the headings."""
        return self.line(self._what, self._columns)

    def line(self, name: str, cells: Iterable[str]) -> str:
        """Format a name and its cells."""
        widths = [max(LEAST, len(column)) for column in self._columns]
        texts = [f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)]
        return GAP.join([f"{name:<{self._name}}", *texts]).rstrip()


def microseconds(seconds: float | None) -> str:
    """Format a time with at least three digits; as a dash if it was not measured."""
    if seconds is None:
        return "-"
    value = seconds * 1e6
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


def times(ratio: float | None) -> str:
    """Format a ratio; as a dash if it was not measured."""
    return "-" if ratio is None else f"{ratio:.2f}x"


# --- one task, of one process or of several ---------------------------------------------


def base_of(suite: Suite, results: Results) -> str:
    """Choose the first column of minidl that has results."""
    return next(base for base in suite.bases if any(base in r.rounds for r in results))


def ours(base: str) -> str:
    """Name a column of minidl in a heading."""
    return base if base == "minidl" else f"minidl, {base}"


def best(results: Results, column: str, base: str) -> Result | None:
    """Choose the result of a task in which a column comes closest to ``base``."""
    known = [result for result in results if column in result.rounds and base in result.rounds]
    if column == base:
        return min(known, key=lambda result: result.seconds(column), default=None)
    return min(known, key=lambda result: result.ratio(column, base), default=None)


def ratio(results: Results, column: str, base: str) -> float | None:
    """Return the least ratio to ``base`` in the results of a task."""
    found = best(results, column, base)
    return None if found is None else found.ratio(column, base)


def seconds(results: Results, column: str, base: str) -> float | None:
    """Return the seconds in the result with the least ratio."""
    found = best(results, column, base)
    return None if found is None else found.seconds(column)


def limit(results: Results) -> float | None:
    """Return the least seconds possible for a task, with the best number of threads."""
    return min((r.limit for r in results if r.limit is not None), default=None)


def by_task(results: Results) -> dict[str, list[Result]]:
    """Group results by the name of their task, in order."""
    found: dict[str, list[Result]] = {}
    for result in results:
        found.setdefault(result.task, []).append(result)
    return found


# --- all tasks --------------------------------------------------------------------------


def tables(suite: Suite, columns: Sequence[str], results: Results) -> str:
    """Format microseconds and ratios of all tasks, each column at its best number of threads."""
    tasks = by_task(results)
    bases = {name: base_of(suite, found) for name, found in tasks.items()}

    def cells(
        show: Callable[..., str], of: Callable[..., Any], columns: Sequence[str] = columns
    ) -> list[str]:
        table = Table(suite.what, tasks, columns)
        lines = [
            table.line(name, [show(of(found, column, bases[name])) for column in columns])
            for name, found in tasks.items()
        ]
        return [table.heading(), *lines]

    def of_column(found: Results, column: str, base: str) -> float | None:
        return limit(found) if column == LIMIT else seconds(found, column, base)

    limited = [LIMIT] * any(limit(found) is not None for found in tasks.values())
    lines = ["microseconds", *cells(microseconds, of_column, [*columns, *limited])]
    if len({result.threads for result in results}) > 1:
        named = " or ".join(dict.fromkeys(bases.values()))
        lines += ["", f"ratio to {ours(named)}", *cells(times, ratio)]
    return "\n".join(lines)


def means(suite: Suite, columns: Sequence[str], results: Results) -> str:
    """Format geometric means of the ratios of each peer and of the best one, and the least ratio.

    A second table gives the time of the fastest peer / the time that the products take at the FMA
    peak: the ratio of the best peer if minidl were as fast as the machine allows.
    """
    tasks = by_task(results)
    peers = [column for column in columns if suite.columns[column] != OURS]
    groups = list(dict.fromkeys(group for result in results for group in result.groups))
    blocks = []
    for base in suite.bases if peers else []:
        found: dict[str, dict[str, float]] = {peer: {} for peer in [*peers, BEST]}
        for name, of_task in tasks.items():
            ratios = {peer: ratio(of_task, peer, base) for peer in peers}
            known = {peer: value for peer, value in ratios.items() if value is not None}
            for peer, value in known.items():
                found[peer][name] = value
            if known:
                found[BEST][name] = min(known.values())
        if found[BEST]:
            title = f"time of a peer / time of {ours(base)}"
            blocks.append(_means_of(title, found, groups, tasks))
    at_limit = {name: _at_limit(of_task, peers) for name, of_task in tasks.items()}
    found = {BEST: {name: value for name, value in at_limit.items() if value is not None}}
    if found[BEST]:
        blocks.append(_means_of(f"time of the fastest peer / {LIMIT}", found, groups, tasks))
    return "\n\n".join(blocks)


def _at_limit(results: Results, peers: Sequence[str]) -> float | None:
    """Return the ratio of the fastest peer, at any number of threads, to the limit."""
    least = limit(results)
    fastest = min((r.seconds(p) for r in results for p in peers if p in r.rounds), default=None)
    return None if least is None or fastest is None else fastest / least


def _means_of(
    title: str,
    found: dict[str, dict[str, float]],
    groups: list[str],
    tasks: dict[str, list[Result]],
) -> str:
    table = Table(title, found, ["all", *groups, "least", "tasks"])
    lines = ["geometric means", table.heading() + GAP + "least in"]
    for peer, ratios in found.items():
        if not ratios:
            continue
        least = min(ratios, key=lambda name: ratios[name])
        cells = [times(geometric_mean(list(ratios.values())))]
        for group in groups:
            chosen = [value for name, value in ratios.items() if group in tasks[name][0].groups]
            cells.append(times(geometric_mean(chosen) if chosen else None))
        cells += [times(ratios[least]), str(len(ratios))]
        lines.append(table.line(peer, cells) + GAP + least)
    return "\n".join(lines)


def settings(results: Results) -> str:
    """Count how often each setting was the fastest, by the name of the contender."""
    counts: dict[str, dict[str, int]] = {}
    for result in results:
        for name, setting in result.settings.items():
            of_name = counts.setdefault(name, {})
            of_name[setting] = of_name.get(setting, 0) + 1
    lines = []
    for name, of_name in counts.items():
        ordered = sorted(of_name.items(), key=lambda item: -item[1])
        lines.append(f"{name}: " + ", ".join(f"{text} ({count})" for text, count in ordered))
    return "\n".join(["settings that were the fastest", *lines]) if lines else ""


def conclusion(suite: Suite, results: Results) -> str:
    """Format all tables that are printed at the end."""
    columns = [name for name in suite.columns if any(name in r.rounds for r in results)]
    parts = [tables(suite, columns, results), means(suite, columns, results), settings(results)]
    return "\n\n".join(part for part in parts if part)


# --- files ------------------------------------------------------------------------------


def save(path: Path, suite: str, about: dict[str, Any], results: Results) -> None:
    """Write all rounds as JSON, with a description of machine and libraries."""
    document = {
        "format": FORMAT,
        "suite": suite,
        "about": about,
        "results": [asdict(result) for result in results],
    }
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def load(path: Path) -> tuple[dict[str, Any], list[Result]]:
    """Read what ``save`` wrote."""
    document = json.loads(path.read_text(encoding="utf-8"))
    return document["about"], [Result(**result) for result in document["results"]]
