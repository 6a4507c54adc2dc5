"""The inputs of a network from the columns of a table: which are used, how, and which are not."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np

from minidl.tables.encoders import (
    DTYPE,
    MISSING_WORD,
    RARE,
    Categories,
    Dates,
    Encoder,
    Numbers,
    from_dict,
    style_of_numbers,
)
from minidl.tables.reading import NO_NAME, Column
from minidl.tables.text_file import TableError
from minidl.tables.words import EPOCH, NOTHING, POINT, date_style, numbers
from minidl.typing import Array

MOST_CATEGORIES = 100
LEAST_ROWS_OF_IDENTIFIER = 20
IDENTIFIER = re.compile(r"(.*[^a-z])?(id|idx|index|key|row|uuid|guid)", re.IGNORECASE)
CAMEL_IDENTIFIER = re.compile(r".*[a-z]I[dD]")


@dataclass(frozen=True)
class Feature:
    """What becomes of a column: its encoder, or None if it is left out; and both in words."""

    name: str
    encoder: Encoder | None
    words: str

    @property
    def kind(self) -> str:
        """What the column holds, or that it is left out."""
        return "left out" if self.encoder is None else self.encoder.kind

    @property
    def width(self) -> int:
        """How many inputs it gives."""
        return 0 if self.encoder is None else self.encoder.width


@dataclass(frozen=True)
class Features:
    """What becomes of every column of a table but the target."""

    columns: tuple[Feature, ...]

    @classmethod
    def learn(cls, columns: Sequence[Column], rows: Array) -> Features:
        """Learn from the rows to train on.

        Raises
        ------
        TableError
            If no column is left to learn from, and for infinite numbers.
        """
        features = cls(tuple(learn_feature(column, rows) for column in columns))
        if not features.width:
            why = "; ".join(f"{feature.name!r}: {feature.words}" for feature in features.columns)
            raise TableError(f"no column is left to predict the target from ({why or 'no other'})")
        return features

    @property
    def width(self) -> int:
        """How many inputs all columns give."""
        return sum(feature.width for feature in self.columns)

    def encode(self, columns: Mapping[str, Column], rows: Array) -> Array:
        """Return the inputs (rows, width) of some rows of a table with these columns."""
        inputs, place = np.empty((len(rows), self.width), DTYPE), 0
        for feature in self.columns:
            if feature.encoder is not None:
                some = columns[feature.name].take(rows)
                inputs[:, place : place + feature.width] = feature.encoder.encode(some)
                place += feature.width
        return inputs

    def as_list(self) -> list[dict[str, Any]]:
        """Return what JSON can write: the columns that are used."""
        return [
            {"name": feature.name, "encoder": feature.encoder.as_dict()}
            for feature in self.columns
            if feature.encoder is not None
        ]

    @classmethod
    def from_list(cls, entries: Sequence[Mapping[str, Any]]) -> Features:
        """Return the features that ``as_list`` wrote."""
        return cls(tuple(Feature(e["name"], from_dict(e["encoder"]), "") for e in entries))


def learn_feature(column: Column, rows: Array) -> Feature:
    """Choose what becomes of a column, and learn it from some rows."""
    name, given = column.name, column.take(rows)
    if not (given.codes >= 0).any():
        return Feature(name, None, "empty")
    if is_identifier(column):
        return Feature(name, None, "numbers the rows: an identifier")
    encoder: Encoder
    if style := style_of_numbers(column):
        # Of all rows, so that infinity is found wherever it is.
        values = Numbers(style, 0, 0, 1, False).values(column)[rows]
        encoder = Numbers.learn(style, values)
    elif dated := date_style(column.words, column.counts()):
        encoder = Dates.learn(dated, given)
    else:
        if too_many := words_on_too_many(given):
            return Feature(name, None, too_many)
        encoder = Categories.learn(given)
    # A single category is in every row.
    if encoder.width == 0 or (encoder.kind == "category" and encoder.width == 1):
        return Feature(name, None, "constant")
    return Feature(name, encoder, words_on(encoder, given))


def words_on(encoder: Encoder, column: Column) -> str:
    """Say what became of a column."""
    if isinstance(encoder, Numbers):
        return words_on_numbers(encoder, column)
    if isinstance(encoder, Dates):
        return words_on_dates(encoder, column)
    return words_on_categories(encoder, column)


def is_identifier(column: Column) -> bool:
    """Return whether a column only tells the rows apart.

    No two of its entries are equal, and it has the name of an identifier and holds no fractions;
    or no name, and counts the rows.
    """
    rows = len(column.codes)
    present = np.flatnonzero(column.counts())
    if rows < LEAST_ROWS_OF_IDENTIFIER or len(present) < rows:
        return False
    values = numbers([column.words[place] for place in present], POINT)
    if column.name == NO_NAME:
        return bool(np.ptp(values) == rows - 1)
    named = IDENTIFIER.fullmatch(column.name) or CAMEL_IDENTIFIER.fullmatch(column.name)
    return bool(named and (np.isnan(values) | (values == np.floor(values))).all())


def words_on_too_many(column: Column) -> str:
    """Say that a column has too many different words; "" if it has not."""
    counts = column.counts()
    rare = int(counts[counts < RARE].sum())
    many, frequent = int((counts > 0).sum()), int((counts >= RARE).sum())
    if frequent > MOST_CATEGORIES:
        return f"{many:,} different words, {frequent:,} of them frequent: too many"
    if 2 * rare > counts.sum() and many > 2:  # of two words, each says what the other is not
        return f"{many:,} different words, most of them in fewer than {RARE} rows"
    return ""


def words_on_numbers(encoder: Numbers, column: Column) -> str:
    """Say what became of numbers."""
    words = f"mean {encoder.mean:.4g}, std {encoder.std:.4g}"
    if encoder.style != POINT:
        words += f", {encoder.style}"
    missing = np.isnan(encoder.values(column))
    if missing.any():
        words += f"; {missing.sum():,} missing become {encoder.median:.4g}"
    strange = missing & (column.codes >= 0)
    said = {column.words[code] for code in np.unique(column.codes[strange])}
    if said := {word for word in said if word.lower() not in NOTHING}:
        words += f", such as {min(said)!r}"
    return words


def words_on_categories(encoder: Categories, column: Column) -> str:
    """Say what became of categories."""
    counts = dict(zip(column.words, column.counts().tolist(), strict=True))
    counts[MISSING_WORD] = int((column.codes < 0).sum())
    words = ", ".join(f"{word} {counts[word]:,}" for word in encoder.words)
    rare = [count for word, count in counts.items() if count > 0 and word not in encoder.words]
    kinds = f"{len(rare):,} word{'s' * (len(rare) > 1)}"
    return words + (f", other {sum(rare):,} ({kinds})" if encoder.other else "")


def words_on_dates(encoder: Dates, column: Column) -> str:
    """Say what became of dates."""
    days = encoder.days(column)
    first, last = (
        f"{EPOCH + timedelta(day):%Y-%m-%d}" for day in (np.nanmin(days), np.nanmax(days))
    )
    words = f"{first} to {last}, {encoder.style.order}"
    missing = int(np.isnan(days).sum())
    return words + (f"; {missing:,} missing" if missing else "")
