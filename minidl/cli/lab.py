"""``minidl lab``: experiments that a page of docs explains."""

from __future__ import annotations

import argparse
from typing import Any

from minidl.cli import options
from minidl.cli.options import usage_errors


def add_command(commands: Any) -> None:
    """Add ``lab depth``."""
    parser = commands.add_parser("lab", help="run an experiment of docs/")
    experiments = parser.add_subparsers(title="experiments", metavar="NAME", required=True)
    depth = experiments.add_parser(
        "depth", help="deep networks that do not learn, and the remedies: docs/depth.md"
    )
    add = depth.add_argument
    add("names", nargs="*", metavar="NETWORK", help="these rows of the table only [all]")
    add("--depth", type=options.count, default=30, metavar="N", help="hidden layers [30]")
    add("--epochs", type=options.count, default=30, metavar="N", help="of training [30]")
    add("--seeds", type=options.count, default=5, metavar="N", help="trainings of each [5]")
    depth.set_defaults(run=run_depth)


def run_depth(arguments: argparse.Namespace) -> int:
    """Train the networks, and print the table row by row."""
    from minidl.lab import depth

    names = arguments.names or tuple(depth.NETWORKS)
    with usage_errors(ValueError):
        results = depth.run(names, arguments.depth, arguments.epochs, arguments.seeds)
        for line in depth.table(results):
            print(line, flush=True)
    return 0
