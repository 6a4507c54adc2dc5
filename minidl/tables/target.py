"""The column that is to be predicted: the classes of its rows, or numbers."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl.tables.encoders import Numbers, style_of_numbers
from minidl.tables.reading import Column, Table
from minidl.tables.text_file import TableError
from minidl.tables.words import POINT, numbers
from minidl.typing import Array

TASKS = ("auto", "classification", "regression")
MOST_NUMBERED_CLASSES = 20  # different whole numbers that are taken for classes
LEAST_ROWS = 10
LEAST_OF_CLASS = 3  # rows: one to train on, one to validate on, one to test on
MOST_CLASSES = 1000
MOST_SHOWN = 8  # columns or classes in a message


@dataclass(frozen=True)
class Target:
    """What is to be predicted.

    Attributes
    ----------
    name
        The column.
    classes
        The names of the classes, in order; none for numbers.
    values
        (rows), the number of each row's class, or the number itself.
    why
        Why it is classification or regression, if that was chosen by itself.
    """

    name: str
    classes: tuple[str, ...]
    values: Array
    why: str

    @property
    def is_classes(self) -> bool:
        """Whether classes are predicted."""
        return bool(self.classes)

    def description(self) -> dict[str, Any]:
        """Return what JSON can write, apart from the values."""
        return {"name": self.name, "classes": list(self.classes)}


def find_column(table: Table, name: str) -> Column:
    """Return the column of this name; raise TableError with names that are near it."""
    if name in table.columns:
        return table.columns[name]
    names = list(table.columns)
    lower = {known.lower(): known for known in reversed(names)}
    near = difflib.get_close_matches(name.lower(), lower, n=1)
    if near:
        raise TableError(f"there is no column {name!r}; did you mean {lower[near[0]]!r}?")
    raise TableError(f"there is no column {name!r}; its columns are {listed(names)}")


def with_target(table: Table, name: str) -> tuple[Table, Column]:
    """Return the table without its target and without the rows that have none; and the target.

    Raises
    ------
    TableError
        For a column that is not there, and if too few rows are left.
    """
    column = find_column(table, name)
    known = np.flatnonzero(column.codes >= 0)
    dropped, notes = table.rows - len(known), list(table.notes)
    if not len(known):
        raise TableError(f"the target {name!r} is missing in every row")
    if dropped:
        notes.append(f"{dropped:,} of {table.rows:,} rows left out: {name!r} is missing there")
    if len(known) < LEAST_ROWS:
        has = f"{len(known)} row" + ("" if len(known) == 1 else "s")
        raise TableError(
            f"it has {has} with a target, and {LEAST_ROWS} are the least to learn from"
        )
    others = {label: c for label, c in table.columns.items() if label != name}
    if dropped:
        others = {label: c.take(known) for label, c in others.items()}
        column = column.take(known)
    return Table(others, notes), column


def read_target(column: Column, task: str) -> Target:
    """Read a column as classes or as numbers.

    By itself, words are classes, as are up to 20 different whole numbers.

    Raises
    ------
    TableError
        For a target that is constant, has classes with too few rows, or does not suit the task.
    """
    counts = column.counts()
    present = np.flatnonzero(counts)
    if len(present) == 1:
        only = column.words[present[0]]
        raise TableError(f"the target {column.name!r} is constant: {only!r} in all rows")
    style = style_of_numbers(column) or POINT
    of_words = numbers([column.words[place] for place in present], style)
    why = ""
    if task == "auto":
        task, why = choose_task(of_words)
    if task == "regression":
        values = Numbers(style, 0, 0, 1, False).values(column)
        check_numbers(column, values)
        return Target(column.name, (), values, why)
    return read_classes(column, style, why)


def choose_task(of_words: Array) -> tuple[str, str]:
    """Choose between classification and regression, by the numbers of the different words."""
    if np.isnan(of_words).any():
        return "classification", "words"
    whole = bool((of_words == np.floor(of_words)).all())
    different = len(np.unique(of_words))
    if different == 2 or (whole and different <= MOST_NUMBERED_CLASSES):
        return "classification", f"{different} different numbers; --task regression for numbers"
    kind = "whole " if whole else ""
    return "regression", f"{different:,} different {kind}numbers; --task classification for classes"


def check_numbers(column: Column, values: Array) -> None:
    """Raise TableError for a word in a target of numbers, and if all numbers are equal."""
    if np.isnan(values).any():
        word = column.words[column.codes[int(np.argmax(np.isnan(values)))]]
        raise TableError(f"the target {column.name!r} holds words that are no numbers: {word!r}")
    if np.ptp(values) == 0:
        raise TableError(f"the target {column.name!r} is constant: {values[0]:g} in all rows")


def read_classes(column: Column, style: str, why: str) -> Target:
    """Read the classes of a column; words of equal numbers, such as 1 and 1.0, are one class."""
    counts = column.counts()
    of_words = numbers(column.words, style)
    numeric = not np.isnan(of_words[counts > 0]).any()
    names = [f"{value:g}" for value in of_words] if numeric else list(column.words)
    rows_of: dict[str, int] = {}
    for name, count in zip(names, counts.tolist(), strict=True):
        if count:
            rows_of[name] = rows_of.get(name, 0) + count
    check_classes(column.name, rows_of)
    classes = sorted(rows_of, key=float) if numeric else sorted(rows_of)
    place = {name: number for number, name in enumerate(classes)}
    labels = column.spread(np.array([place.get(name, -1) for name in names], np.int64), -1)
    return Target(column.name, tuple(classes), labels, why)


def check_classes(name: str, rows_of: dict[str, int]) -> None:
    """Raise TableError for a single class, too many of them, and one that has too few rows."""
    if len(rows_of) == 1:
        raise TableError(f"the target {name!r} is constant: {next(iter(rows_of))!r} in all rows")
    small = [word for word, count in rows_of.items() if count < LEAST_OF_CLASS]
    if small:
        raise TableError(
            f"the target {name!r} has {len(rows_of):,} classes, and {len(small):,} of them fewer "
            f"than the {LEAST_OF_CLASS} rows that a class needs: {listed(small)}; "
            "leave these rows out, or choose --task regression if they are numbers"
        )
    if len(rows_of) > MOST_CLASSES:
        raise TableError(
            f"the target {name!r} has {len(rows_of):,} classes, {MOST_CLASSES:,} are the most"
        )


def listed(names: Collection[str]) -> str:
    """List some names."""
    some = ", ".join(map(repr, list(names)[:MOST_SHOWN]))
    return some + (f" and {len(names) - MOST_SHOWN:,} more" if len(names) > MOST_SHOWN else "")
