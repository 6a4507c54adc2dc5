"""A text as columns: its delimiter, its header, its rows."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from minidl.tables.text_file import TableError, read_text
from minidl.tables.words import MISSING, number
from minidl.typing import Array

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
ONE_COLUMN = "it has one column only: fields must lie between commas, semicolons or tabs"
NO_NAME = "column 0"  # of the first column, where programs write the numbers of the rows
LINES = 50  # that tell the delimiter
LONGEST_FIELD = 100_000  # characters
MOST_COLUMNS = 10_000
LIMIT = csv.field_size_limit()


@dataclass(frozen=True)
class Column:
    """A column of words: each row has the number of one of the distinct words, or -1.

    Attributes
    ----------
    name
        As in the header.
    words
        The distinct words that are not missing, without blanks around them.
    codes
        (rows), the index of each row's word; -1 where the word is missing.
    comma
        Whether a number such as 1,234 has a decimal comma, as in tables without commas between
        their fields; else it is one thousand and more.
    """

    name: str
    words: tuple[str, ...]
    codes: Array
    comma: bool = False

    def take(self, rows: Array) -> Column:
        """Return the same column with some of its rows."""
        return replace(self, codes=self.codes[rows])

    def counts(self) -> Array:
        """Count the rows of each word."""
        return np.bincount(self.codes[self.codes >= 0], minlength=len(self.words))

    def spread(self, values: Array, missing: float = np.nan) -> Array:
        """Return for each row the value of its word."""
        return np.append(values, missing)[self.codes]


@dataclass(frozen=True)
class Table:
    """A table of words: its columns by name, and notes on how it was read."""

    columns: dict[str, Column]
    notes: list[str]

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(next(iter(self.columns.values())).codes)


def read_table(path: Path) -> Table:
    """Read a file of text with a header, whose fields lie between commas, semicolons or tabs.

    Raises
    ------
    TableError
        For a file that holds no such table, naming the line.
    ImportError
        Without pandas.
    OSError
        If the file cannot be read.
    """
    text, notes = read_text(path)
    delimiter, text = split_off_delimiter(text)
    names, lines = read_names(text, delimiter)
    if not (rows := "".join(text.split("\n", lines)[lines:])).strip():
        raise TableError("it has a header and no rows")
    frame = parse(rows, delimiter, len(names), lines)
    comma = delimiter != ","
    columns = [column_of(name, frame[place], comma) for place, name in enumerate(names)]
    return Table(dict(zip(names, columns, strict=True)), notes)


# --- delimiter and header ---------------------------------------------------------------------


def split_off_delimiter(text: str) -> tuple[str, str]:
    """Return the delimiter, and the text with ``sep=;``, which names it for Excel, blanked out.

    It is the one that splits the first lines into most fields, of those that split all of them
    into as many.
    """
    if named := re.match(r"sep=([,;\t])\n", text):
        return named[1], text[named.end() - 1 :]  # an empty line, so that lines keep their numbers
    head = "\n".join(text.split("\n", LINES)[:LINES])
    scores = {}
    for delimiter in DELIMITERS:
        # Not strict: the last of these lines may end within a quotation.
        rows = csv.reader(io.StringIO(head, newline=""), delimiter=delimiter)
        with suppress(csv.Error):
            widths = [len(row) for row in rows if row]
            agreeing = sum(width == widths[0] for width in widths)
            scores[delimiter] = (widths[0] > 1, agreeing == len(widths), agreeing, widths[0])
    best = max(scores, key=lambda delimiter: scores[delimiter], default=",")
    if best not in scores or not scores[best][0]:
        check_rows(text, best)
        raise TableError(ONE_COLUMN)
    return best, text


def read_names(text: str, delimiter: str) -> tuple[list[str], int]:
    """Return the names of the columns, the first row; and the number of lines it takes."""
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    header = next(row for row in rows if row)
    names = [name.strip() for name in header]
    if names and not names[-1]:
        names.pop()  # after a delimiter at the end of every line
    if not any(names):
        raise TableError("its first row is blank: it should name the columns")
    if len(names) == 1:
        raise TableError(ONE_COLUMN)
    if len(names) > MOST_COLUMNS:
        raise TableError(f"it has {len(names):,} columns, and {MOST_COLUMNS:,} are read at most")
    if all(np.isfinite(number(name)) for name in names):
        raise TableError(
            f"its first row holds numbers only ({', '.join(names[:3])}, ...): "
            "it should name the columns"
        )
    names = [name or (f"column {place}" if place else NO_NAME) for place, name in enumerate(names)]
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise TableError(f"{count} columns are called {name!r}: give each a name of its own")
    return names, rows.line_num


# --- rows -------------------------------------------------------------------------------------


def parse(rows: str, delimiter: str, width: int, above: int) -> Any:
    """Return a frame of words whose columns are numbered.

    Raises
    ------
    TableError
        For a row that has not ``width`` fields, naming the line; ``above`` are the lines above.
    """
    try:
        import pandas as pd
    except ImportError:
        raise ImportError("tables need pandas: pip install 'minidl[tables]'") from None

    def frame_of(columns: int) -> Any:
        options: dict[str, Any] = {"dtype": str, "na_filter": False, "skipinitialspace": True}
        names = range(columns)
        return pd.read_csv(io.StringIO(rows), sep=delimiter, header=None, names=names, **options)

    try:
        frame = frame_of(width)
        # Where a row is too short its last field is empty; one that is too long may be taken for
        # one that begins with a label.
        labelled = not isinstance(frame.index, pd.RangeIndex)
        if labelled or (frame[width - 1].fillna("") == "").any():
            check_rows(rows, delimiter, width, above)
        # A delimiter at the end of a line makes one more column, which is empty.
        return frame_of(width + 1) if labelled else frame
    except ValueError as error:
        check_rows(rows, delimiter, width, above)
        try:
            return frame_of(width + 1)
        except ValueError:
            raise TableError(f"it cannot be read: {error}") from None


def check_rows(text: str, delimiter: str, width: int | None = None, above: int = 0) -> None:
    """Raise TableError for the first row that cannot be read, or has not ``width`` fields."""
    file = io.StringIO(text, newline="")
    rows = csv.reader(file, delimiter=delimiter, skipinitialspace=True, strict=True)
    line = above + 1
    try:
        for row in rows:
            fields = row[:-1] if len(row) == (width or 0) + 1 and not row[-1].strip() else row
            blank = not any(field.strip() for field in row) and len(row) < 2
            if not blank and len(fields) != (width or len(fields)):
                has = "1 field" if len(row) == 1 else f"{len(row)} fields"
                raise TableError(f"line {line} has {has}, the header has {width}")
            line = above + rows.line_num + 1
    except csv.Error as error:
        why = f"cannot be read: {error}"
        if "end of data" in str(error) or "field limit" in str(error):
            why = f"has a quotation that is never closed, or a field of over {LIMIT:,} characters"
        raise TableError(f"the row that begins in line {line} {why}") from None


def column_of(name: str, series: Any, comma: bool) -> Column:
    """Number the distinct words of a column; entries such as NA and ? are missing."""
    codes, given = series.factorize()
    words: dict[str, int] = {}
    of_given = np.empty(len(given) + 1, np.int64)
    for place, entry in enumerate(given.tolist()):
        word = entry.strip()
        if len(word) > LONGEST_FIELD:
            row = int(np.argmax(codes == place)) + 1
            raise TableError(
                f"column {name!r}, row {row}: a field has {len(word):,} characters, "
                f"{LONGEST_FIELD:,} are read at most; is a quotation never closed?"
            )
        of_given[place] = -1 if word.lower() in MISSING else words.setdefault(word, len(words))
    of_given[-1] = -1
    return Column(name, tuple(words), of_given[codes], comma)
