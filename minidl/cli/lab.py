"""``minidl lab``: experiments that the lessons explain."""

from __future__ import annotations

import argparse
import inspect
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minidl import lab
from minidl.cli import options, plot
from minidl.cli.options import UsageError, usage_errors

FORMAT = ".png"  # of the figures that --all makes

# The arguments that the experiments have: how each is parsed, and what it says.
ARGUMENTS: dict[str, tuple[Callable[[str], Any], str]] = {
    "activation": (str, "name of the activation"),
    "batch": (options.count, "rows of a batch"),
    "condition": (options.number("a number > 1", lambda value: value > 1), "ratio of curvatures"),
    "depth": (options.count, "layers"),
    "draws": (options.count, "how many networks are drawn"),
    "epochs": (options.count, "passes over the data"),
    "hidden": (options.count, "width of the recurrent state"),
    "max_norm": (options.rate, "longest gradient"),
    "optimizer": (str, "name of the optimizer"),
    "points": (options.count, "along each direction, odd"),
    "radius": (options.rate, "spectral radius"),
    "scale": (options.rate, "n Var(w)"),
    "seed": (options.seed, "of all that is random"),
    "seeds": (options.count, "trainings of each network"),
    "steps": (options.count, "of training, or of a sequence"),
    "width": (options.count, "units of a layer"),
}


class ExperimentParser(argparse.ArgumentParser):
    """The parser of one experiment, whose file is imported only if it is asked for."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Add the arguments of the experiment, those of its ``compute``, and parse.

        What is left is an error here, which can say what the experiment has.
        """
        name, had = self.get_default("experiment"), ["--plot"]
        for parameter in inspect.signature(lab.module(name).compute).parameters.values():
            kind, words = ARGUMENTS[parameter.name]
            option = f"--{parameter.name.replace('_', '-')}"
            shown = f"{words} [{parameter.default}]"
            metavar = "NAME" if kind is str else "N"
            self.add_argument(option, type=kind, metavar=metavar, help=shown)
            had.append(option)
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"{name} has no {unknown[0]}; it has {', '.join(had)}")
        return parsed, unknown


def add_command(commands: Any) -> None:
    """Add ``lab``, and a command below it for each experiment."""
    parser = commands.add_parser("lab", help="run an experiment of the lessons, docs/lessons/")
    parser.add_argument("--all", action="store_true", help="run all, and draw all figures")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the folder for the figures of all")
    parser.set_defaults(run=run_all, experiment=None)
    experiments = parser.add_subparsers(
        title="experiments", metavar="NAME", parser_class=ExperimentParser
    )
    for name, what in lab.EXPERIMENTS.items():
        one = experiments.add_parser(name, help=what, description=what)
        one.add_argument("--plot", type=Path, metavar="FILE", help="draw the figure: .png, .pdf")
        one.set_defaults(run=run_one, experiment=name)
        if name == "depth":
            help = "these rows of the table only [all]"
            one.add_argument("names", nargs="*", metavar="NETWORK", help=help)
            one.set_defaults(run=run_depth)


def run_all(arguments: argparse.Namespace) -> int:
    """List the experiments, or run all and draw their figures."""
    if not arguments.all:
        if arguments.out is not None:
            raise UsageError("lab --out DIR is for the figures of --all; one has --plot FILE")
        width = max(map(len, lab.EXPERIMENTS))
        for name, what in lab.EXPERIMENTS.items():
            print(f"minidl lab {name:<{width}}  {what}")
        print(
            "\nminidl lab NAME --help lists the options of one; --all --out DIR draws all figures"
        )
        return 0
    if arguments.out is None:
        raise UsageError("lab --all needs --out DIR, the folder for the figures")
    folder = arguments.out
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"lab --all --out {folder}: that is a file, and a folder is needed")
    with usage_errors(ImportError, OSError, ValueError):
        folder.mkdir(parents=True, exist_ok=True)
        plot.check(folder / f"any{FORMAT}")
    for name in lab.EXPERIMENTS:
        begin = time.perf_counter()
        path = folder / f"{name}{FORMAT}"
        with options.writing(path):
            lab.module(name).compute().plot(path)
        print(f"{path}: {time.perf_counter() - begin:.1f} s", flush=True)
    return 0


def run_one(arguments: argparse.Namespace) -> int:
    """Run an experiment: print its numbers, and draw its figure."""
    _check(arguments)
    with usage_errors(ValueError):
        result = lab.module(arguments.experiment).compute(**_given(arguments))
    for line in result.lines():
        print(line)
    return _draw(result, arguments)


def run_depth(arguments: argparse.Namespace) -> int:
    """Train the networks, and print the table row by row."""
    from minidl.lab import depth

    _check(arguments)
    results: list[depth.Result] = []
    names = arguments.names or tuple(depth.NETWORKS)
    with usage_errors(ValueError):
        for line in depth.table(_kept(depth.run(names, **_given(arguments)), results)):
            print(line, flush=True)
    return _draw(depth.DepthTable(results), arguments)


def _kept(results: Any, kept: list[Any]) -> Any:
    """Yield results, and keep each."""
    for result in results:
        kept.append(result)
        yield result


def _check(arguments: argparse.Namespace) -> None:
    """Refuse what could not be done, before any work."""
    if arguments.all or arguments.out is not None:
        raise UsageError("lab --all runs every experiment: leave out --all and --out, or the name")
    if arguments.plot is not None:
        with usage_errors(ImportError, OSError, ValueError):
            plot.check(arguments.plot)


def _given(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the options that were given."""
    values = ((name, getattr(arguments, name, None)) for name in ARGUMENTS)
    return {name: value for name, value in values if value is not None}


def _draw(result: Any, arguments: argparse.Namespace) -> int:
    if arguments.plot is not None:
        with options.writing(arguments.plot):
            result.plot(arguments.plot)
        print(f"\nplot written to {arguments.plot}")
    return 0
