"""Networks that the command line keeps in files, with what predictions need beside the weights."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from minidl.cli import options, plot
from minidl.cli.options import usage_errors
from minidl.nn import Layer
from minidl.saving.model_file import contents
from minidl.saving.tensor_file import write_tensor_file
from minidl.signals import deferred


def add_save(output: Any, inputs: str) -> None:
    """Add ``--save``; ``inputs`` says what became the inputs."""
    help = f"keep the network in a file, and how {inputs} became inputs"
    output.add_argument("--save", type=Path, metavar="MODEL", help=help)


def check_outputs(arguments: argparse.Namespace) -> None:
    """Raise before the training, not after it, if a file could not be written."""
    with usage_errors(ImportError, OSError, ValueError):
        if arguments.plot is not None:
            plot.check(arguments.plot)
        if arguments.save is not None:
            options.check_writable(arguments.save, "save")
    options.check_distinct(arguments, outputs=("save", "plot"), inputs=("images", "labels", "file"))


def save(path: Path, model: Layer, words: Mapping[str, str]) -> str:
    """Write a network and words of minidl's own about its inputs; return a line that says so."""
    with options.writing(path):
        tensors, own = contents(model, None)
        write_tensor_file(path, tensors, {}, {**own, **words})
    return f"network saved to {path}"


@contextmanager
def saved_if_interrupted(
    path: Path | None, model: Layer, words: Mapping[str, str]
) -> Iterator[None]:
    """Save the network as it is when Ctrl-C ends the block, if there is a path."""
    try:
        yield
    except KeyboardInterrupt:
        if path is not None:
            with deferred():
                print(f"{save(path, model, words)}, as it was when interrupted", file=sys.stderr)
        raise
