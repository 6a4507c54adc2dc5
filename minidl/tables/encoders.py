"""Columns of a table as inputs of a network, encoded as learned from the rows to train on.

    numbers     (x - mean) / std; what is missing becomes the median, and sets an indicator
    categories  one-hot; rare words together are "other", what is missing is a category
    dates       days, and the angle of the year, the week and the day on a circle, each as a number

An encoder takes columns with other words than those it learned from: it goes by the words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from minidl.tables.reading import Column
from minidl.tables.text_file import TableError
from minidl.tables.words import DateStyle, dates, number_style, numbers
from minidl.typing import Array

RARE = 5  # rows of a word in the training data; fewer are too few to learn from
MISSING_WORD = "(missing)"
PERIODS = {"year": 365.2425, "week": 7.0}  # in days; of the day where a column has times
DTYPE = np.float32


@dataclass(frozen=True)
class Numbers:
    """Standardised numbers: (x - mean) / std, and 1 in a second column where none is known.

    Attributes
    ----------
    style
        How words write the numbers.
    median, mean, std
        Of the known numbers; the median stands for the others. std is 0 where all are equal.
    indicator
        Whether numbers were missing in the rows learned from.
    """

    kind: ClassVar[str] = "number"
    style: str
    median: float
    mean: float
    std: float
    indicator: bool

    @classmethod
    def learn(cls, style: str, values: Array) -> Numbers:
        """Learn from values, NaN where they are missing."""
        known = values[~np.isnan(values)]
        if not len(known):
            return cls(style, 0.0, 0.0, 0.0, False)
        # Scaled, so that squares of large numbers are finite.
        scale = float(np.abs(known).max()) or 1.0
        scaled = known / scale
        std = float(scaled.std()) * scale
        if std <= 1e-12 * scale:
            std = 0.0
        mean = float(scaled.mean()) * scale
        return cls(style, float(np.median(known)), mean, std, len(known) < len(values))

    @property
    def width(self) -> int:
        """How many inputs a row has."""
        return (self.std > 0) + self.indicator

    def values(self, column: Column) -> Array:
        """Return the numbers of a column, NaN where none is known.

        Raises
        ------
        TableError
            For infinity.
        """
        values = column.spread(numbers(column.words, self.style))
        if np.isinf(values).any():
            word = column.words[column.codes[int(np.argmax(np.isinf(values)))]]
            raise TableError(f"column {column.name!r} holds {word!r}: numbers must be finite")
        return values

    def encode(self, column: Column) -> Array:
        """Return the inputs (rows, width) of a column."""
        return self.encode_values(self.values(column))

    def encode_values(self, values: Array) -> Array:
        """Return the inputs (rows, width) of numbers, NaN where none is known."""
        missing = np.isnan(values)
        parts = []
        if self.std:
            # Not (x - mean) / std, whose difference of two large numbers may be infinite.
            parts.append(np.where(missing, self.median, values) / self.std - self.mean / self.std)
        if self.indicator:
            parts.append(missing)
        return np.stack(parts, axis=1).astype(DTYPE) if parts else np.zeros((len(values), 0), DTYPE)

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON can write."""
        return {"kind": self.kind, **asdict(self)}


@dataclass(frozen=True)
class Categories:
    """One-hot categories: 1 for the word of a row, or for "other", 0 for all else.

    Attributes
    ----------
    words
        One for each input, ``(missing)`` among them if rows were missing.
    other
        Whether a last input stands for words that are rare. Without it, a word that was not
        learned sets no input.
    """

    kind: ClassVar[str] = "category"
    words: tuple[str, ...]
    other: bool

    @classmethod
    def learn(cls, column: Column) -> Categories:
        """Learn from a column."""
        counts = column.counts()
        frequent = [word for word, count in zip(column.words, counts, strict=True) if count >= RARE]
        missing = [MISSING_WORD] if (column.codes < 0).any() else []
        return cls(tuple(sorted(frequent) + missing), bool(((counts > 0) & (counts < RARE)).any()))

    @property
    def width(self) -> int:
        """How many inputs a row has."""
        return len(self.words) + self.other

    def encode(self, column: Column) -> Array:
        """Return the inputs (rows, width) of a column."""
        places = {word: place for place, word in enumerate(self.words)}
        nowhere = len(self.words)  # the input of "other", or one that is cut off
        of_words = np.array([places.get(word, nowhere) for word in column.words], np.int64)
        place = column.spread(of_words, places.get(MISSING_WORD, nowhere))
        inputs = np.zeros((len(place), nowhere + 1), DTYPE)
        inputs[np.arange(len(place)), place] = 1
        return inputs[:, : self.width]

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON can write."""
        return {"kind": self.kind, **asdict(self)}


@dataclass(frozen=True)
class Dates:
    """Dates as numbers: the days since 1970, and the sine and cosine of year, week and day.

    Attributes
    ----------
    style
        How words write the dates.
    parts
        The encoder of each of these numbers.
    """

    kind: ClassVar[str] = "date"
    style: DateStyle
    parts: tuple[Numbers, ...]

    @classmethod
    def learn(cls, style: DateStyle, column: Column) -> Dates:
        """Learn from a column."""
        first, *others = cls(style, ()).numbers(column)
        parts = [Numbers.learn("", first), *(Numbers.learn("", part) for part in others)]
        # One indicator is enough.
        again = [Numbers("", part.median, part.mean, part.std, False) for part in parts[1:]]
        return cls(style, (parts[0], *again))

    @property
    def width(self) -> int:
        """How many inputs a row has."""
        return sum(part.width for part in self.parts)

    def days(self, column: Column) -> Array:
        """Return the days since 1970, NaN where no date is known."""
        return column.spread(dates(column.words, self.style))

    def numbers(self, column: Column) -> list[Array]:
        """Return the numbers that stand for the dates of a column."""
        days = self.days(column)
        parts = [days]
        for period in [*PERIODS.values(), *([1.0] if self.style.times else [])]:
            angle = 2 * math.pi * (days / period)
            parts += [np.sin(angle), np.cos(angle)]
        return parts

    def encode(self, column: Column) -> Array:
        """Return the inputs (rows, width) of a column."""
        pairs = zip(self.parts, self.numbers(column), strict=True)
        return np.concatenate([part.encode_values(values) for part, values in pairs], axis=1)

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON can write."""
        parts = [part.as_dict() for part in self.parts]
        return {"kind": self.kind, "style": self.style._asdict(), "parts": parts}


Encoder = Numbers | Categories | Dates


def from_dict(entries: Mapping[str, Any]) -> Encoder:
    """Return the encoder that ``as_dict`` wrote."""
    values = {name: value for name, value in entries.items() if name != "kind"}
    match entries["kind"]:
        case "number":
            return Numbers(**values)
        case "category":
            return Categories(tuple(values["words"]), values["other"])
        case "date":
            parts = tuple(
                Numbers(**{k: v for k, v in part.items() if k != "kind"})
                for part in values["parts"]
            )
            return Dates(DateStyle(**values["style"]), parts)
    raise ValueError(f"there is no encoder of the kind {entries['kind']!r}")


def style_of_numbers(column: Column) -> str | None:
    """Return how a column writes numbers; None if it holds something else."""
    return number_style(column.words, column.counts(), column.comma)
