"""``minidl check``: every backward pass against finite differences."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from minidl.cli.options import UsageError
from minidl.nn import Layer, Loss

COLUMNS = ("layer or loss", "worst relative error", "checked", "kinks", "")


def add_command(commands: Any) -> None:
    """Add ``check``."""
    parser = commands.add_parser(
        "check", help="check every layer and loss against finite differences"
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="a layer or loss (all of them)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check, print a table, and return 1 if anything failed."""
    from minidl.gradient_check import gradcheck_all

    known = [kind.__name__ for kind in [*Layer.registry, *Loss.registry]]
    unknown = [name for name in arguments.names if name not in known]
    if unknown:
        raise UsageError(f"no layer or loss called {unknown[0]!r}; known: {', '.join(known)}")
    rows: list[tuple[str, ...]] = []
    failures = []
    for report in gradcheck_all(arguments.names or None):
        verdict = "ok" if report.ok else "FAILED"
        rows.append(
            (report.name, f"{report.worst:.1e}", f"{report.checked:,}", str(report.kinks), verdict)
        )
        if not report.ok:
            failures.append(report.message)
    print(_table(rows))
    for message in failures:
        print(message, file=sys.stderr)
    return 1 if failures else 0


def _table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(COLUMNS, *rows, strict=True)]
    lines = []
    for name, *numbers, verdict in [COLUMNS, *rows]:
        cells = [f"{cell:>{width}}" for cell, width in zip(numbers, widths[1:-1], strict=True)]
        lines.append("  ".join([f"{name:<{widths[0]}}", *cells, verdict]).rstrip())
    return "\n".join(lines)
