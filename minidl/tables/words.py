"""What a word in a table means: a number, a date, or that nothing is known."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np

from minidl.typing import Array

# In lower case: entries that stand for nothing in every column, and words that do where a column
# holds numbers or dates. In other columns, the target's among them, these may be categories.
MISSING = frozenset(("", "?", "#n/a", "#na", "<na>", "n/a", "na", "nan", "null"))
NOTHING = frozenset(("-", "--", ".", "(missing)", "missing", "nil", "none", "unknown"))
MOST = 0.9  # of the rows must hold numbers in a column of numbers, or dates in one of dates
SAMPLE = 20  # words of which one must be a date before all are tried
EPOCH = datetime(1970, 1, 1)
DAY = 24 * 3600.0

POINT, DECIMAL_COMMA, THOUSANDS = "point", "decimal comma", "comma between thousands"
_WITH_COMMA = re.compile(r"[-+]?(\d{1,3}(\.\d{3})+|\d*)(,\d*)?(e[-+]?\d+)?", re.IGNORECASE)
_WITH_THOUSANDS = re.compile(r"[-+]?\d{1,3}(,\d{3})+(\.\d*)?")

_TIME = r"(?:[ T]+(\d{1,2}):(\d{2})(?::(\d{2})(?:[.,]\d+)?)?)?\s*(?:Z|UTC|[+-]\d{2}:?\d{2})?"
_YEAR_FIRST = re.compile(r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})" + _TIME)
_YEAR_LAST = re.compile(r"(\d{1,2})[-/.](\d{1,2})[-/.](\d{4})" + _TIME)


# --- numbers ----------------------------------------------------------------------------------


def number(word: str) -> float:
    """Return the number that a word writes with a decimal point; NaN for any other word."""
    try:
        return float(word) if "_" not in word and word.isascii() else np.nan
    except ValueError:
        return np.nan


def number_with_comma(word: str) -> float:
    """Return the number that a word writes with a decimal comma: ``1.234,5`` or ``0,5``."""
    if not _WITH_COMMA.fullmatch(word):
        return np.nan
    return number(word.replace(".", "").replace(",", "."))


def number_with_thousands(word: str) -> float:
    """Return the number that a word writes with commas between thousands: ``1,234.5``."""
    if not _WITH_THOUSANDS.fullmatch(word):
        return number(word)
    return number(word.replace(",", ""))


STYLES: dict[str, Callable[[str], float]] = {
    POINT: number,
    DECIMAL_COMMA: number_with_comma,
    THOUSANDS: number_with_thousands,
}


def numbers(words: Sequence[str], style: str) -> Array:
    """Return the numbers that words write in a style; NaN for words that are none."""
    return np.array([STYLES[style](word) for word in words], np.float64)


def number_style(words: Sequence[str], counts: Array, comma: bool) -> str | None:
    """Return the style in which nearly all rows write numbers; None if they do not.

    ``counts`` are the rows of each word, and ``comma`` whether 1,234 has a decimal comma.
    """
    counts = _without_nothing(words, counts)
    styles = [POINT, DECIMAL_COMMA, THOUSANDS] if comma else [POINT, THOUSANDS, DECIMAL_COMMA]
    best, most = None, MOST * counts.sum()
    for style in styles if any("," in word for word in words) else [POINT]:
        written = counts[~np.isnan(numbers(words, style))].sum()
        if written and written >= most and (best is None or written > most):
            best, most = style, max(most, written)
    return best


def _without_nothing(words: Sequence[str], counts: Array) -> Array:
    """Return the counts with 0 for words that say that there is nothing."""
    return np.where([word.lower() in NOTHING for word in words], 0, counts) if words else counts


# --- dates ------------------------------------------------------------------------------------


class DateStyle(NamedTuple):
    """How a column writes dates: the order of day, month and year, and whether with the time."""

    order: str  # "year-month-day", "day-month-year" or "month-day-year"
    times: bool


def date_style(words: Sequence[str], counts: Array) -> DateStyle | None:
    """Return how nearly all rows write dates; None if they do not.

    Of 3/4/2025 it is not known which is the month: it is the first number between slashes, unless
    another row excludes that, and the second between points.
    """
    counts = _without_nothing(words, counts)
    first = [words[place] for place in np.flatnonzero(counts)[:SAMPLE]]
    if not first or not any(map(_parts, first)):
        return None
    parts = [_parts(word) for word in words]
    found = [(order, fields) for order, fields in filter(None, parts)]
    orders = {order for order, _ in found}
    order = "year-month-day"
    if orders == {"year last"}:
        one, two = (max(fields[place] for _, fields in found) for place in (0, 1))
        month_first = two > 12 or (one <= 12 and not any("." in word for word in first))
        order = "month-day-year" if month_first else "day-month-year"
    elif orders != {"year first"}:
        return None
    style = DateStyle(order, any(any(fields[3:]) for _, fields in found))
    written = counts[~np.isnan(dates(words, style))].sum()
    return style if written >= MOST * counts.sum() else None


def dates(words: Sequence[str], style: DateStyle) -> Array:
    """Return the days since 1970 of dates written in a style, in any time zone; NaN for others."""
    return np.array([_days(word, style) for word in words], np.float64)


def _parts(word: str) -> tuple[str, list[int]] | None:
    """Return whether the year is first or last, and all fields of a date in the order written."""
    for order, pattern in (("year first", _YEAR_FIRST), ("year last", _YEAR_LAST)):
        if match := pattern.fullmatch(word):
            return order, [int(field or 0) for field in match.groups()]
    return None


def _days(word: str, style: DateStyle) -> float:
    parts = _parts(word)
    if parts is None or (parts[0] == "year first") != (style.order == "year-month-day"):
        return np.nan
    first, second, third, hour, minute, seconds = parts[1]
    if style.order == "year-month-day":
        year, month, day = first, second, third
    else:
        month, day = (first, second) if style.order == "month-day-year" else (second, first)
        year = third
    try:
        return (datetime(year, month, day, hour, minute, seconds) - EPOCH).total_seconds() / DAY
    except ValueError:  # no day of the calendar
        return np.nan
