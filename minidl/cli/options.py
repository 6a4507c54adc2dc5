"""Arguments of the command line, parsed to values or to clear errors."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from minidl import files
from minidl.nn import init
from minidl.nn.parameter import Initializer

INITIALIZERS = {"he": "he_normal", "xavier": "xavier_uniform", **{n: n for n in init.NAMED}}


class UsageError(Exception):
    """The user asked for something impossible; the message says what and why."""


def add_option(group: Any, name: str, default: Any, help: str, **options: Any) -> None:
    """Add an option whose help ends with its default."""
    shown = {True: "on", False: "off"}[default] if isinstance(default, bool) else default
    group.add_argument(name, default=default, help=f"{help} [{shown}]", **options)


@contextmanager
def usage_errors(*kinds: type[Exception]) -> Iterator[None]:
    """Turn errors of these kinds into a ``UsageError``: one line, without a traceback."""
    try:
        yield
    except kinds as error:
        text = str(error)
        if isinstance(error, OSError) and error.filename and error.strerror:
            text = f"{os.fsdecode(error.filename)}: {error.strerror}"
        raise UsageError(text) from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name the file in errors of writing it: the system does not, if the disk is full."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def whole_number(lowest: int) -> Callable[[str], int]:
    """An argument type: a whole number of at least ``lowest``."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = lowest - 1
        if value < lowest:
            raise argparse.ArgumentTypeError(f"expected a whole number >= {lowest}, got {text!r}")
        return value

    return parse


count = whole_number(1)
seed = whole_number(0)


def widths(text: str) -> list[int]:
    """Widths of hidden layers: ``128,64``; ``none`` for no hidden layer."""
    if text == "none":
        return []
    try:
        return [count(part) for part in text.split(",")]
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"expected widths such as 128,64 (or none), got {text!r}"
        ) from None


def number(words: str, accept: Callable[[float], bool]) -> Callable[[str], float]:
    """An argument type: a finite number that ``accept`` accepts, ``words`` saying which."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or not accept(value):
            raise argparse.ArgumentTypeError(f"expected {words}, got {text!r}")
        return value

    return parse


rate = number("a number > 0", lambda value: value > 0)
probability = number("a number in [0, 1)", lambda value: 0 <= value < 1)


def initializer(text: str) -> Initializer | None:
    """An initialiser by name, ``normal:STD`` for N(0, STD²), or None for ``auto``."""
    name, _, std = text.partition(":")
    if name == "normal" and std:
        return init.normal(std=number("normal:STD with STD >= 0", lambda value: value >= 0)(std))
    if text == "auto":
        return None
    if text not in INITIALIZERS:
        known = ", ".join(["auto", *INITIALIZERS])
        raise argparse.ArgumentTypeError(f"expected one of {known} or normal:STD, got {text!r}")
    return init.by_name(INITIALIZERS[text])


def norm_limit(text: str) -> float | None:
    """A number above zero, or ``none``."""
    if text == "none":
        return None
    return number("a number > 0 or none", lambda value: value > 0)(text)


def check_distinct(
    arguments: argparse.Namespace, outputs: Sequence[str], inputs: Sequence[str]
) -> None:
    """Raise UsageError if a file would be written over another one that these arguments name."""
    given = vars(arguments)
    paths = {name: given[name].resolve() for name in (*inputs, *outputs) if given.get(name)}
    for output in outputs:
        if [*paths.values()].count(paths.get(output)) > 1:
            raise UsageError(
                f"--{output}: {given[output]} is given elsewhere, and would be overwritten"
            )


def check_writable(path: Path, verb: str) -> None:
    """Raise OSError before the work, not after it, if its result could not be written."""
    try:
        files.check_writable(path)
    except OSError as error:
        raise type(error)(f"cannot {verb} {path}: {error.strerror}") from None
