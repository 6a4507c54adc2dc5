"""Tables and their columns as arrays: frames and series of pandas, polars and their likes.

Neither library is imported. A table has ``columns`` and gives a column by its name; a column has a
``dtype`` and counts what is missing in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from minidl.typing import Array

Columns = tuple[str, ...] | None  # the names of a table's columns, None where it has no names

PIPELINE = "docs/tables.md shows the pipeline"
ENCODE = f"one-hot encode it ({PIPELINE})"
NUMBERS = (int, float, np.integer, np.floating, np.bool_)
MOST_NAMED = 5  # columns in a message


def is_table(data: Any) -> bool:
    """Return whether this is a frame: something with columns that is no array."""
    if isinstance(data, (np.ndarray, type)):
        return False
    return _is_lazy(data) or (hasattr(data, "columns") and hasattr(data, "__getitem__"))


def _is_lazy(data: Any) -> bool:
    """Return whether these are rows that are yet to be computed; asking for columns is costly."""
    return hasattr(data, "collect") and not hasattr(data, "__array__")


def is_column(data: Any) -> bool:
    """Return whether this is a series: one column, with a dtype and a name."""
    counts = hasattr(data, "isna") or hasattr(data, "null_count")
    return counts and hasattr(data, "dtype") and hasattr(data, "name")


def in_code(name: str, data: Any) -> str:
    """Return what the user writes for the array in ``data``: the indices of tables are others."""
    return f"np.asarray({name})" if is_table(data) or is_column(data) else name


def column_names(data: Any) -> Columns:
    """Return the names of the columns; None for what is no table, and names that are no strings."""
    if not is_table(data) or _is_lazy(data):
        return None
    names = tuple(data.columns)
    return names if names and all(isinstance(name, str) for name in names) else None


def table_array(name: str, table: Any) -> Array:
    """Return a table of numbers and booleans as an array (rows, columns).

    Raises
    ------
    TypeError
        For a column of something else, naming it.
    ValueError
        For missing values in a column whose dtype is no float, naming it and the row.
    """
    if _is_lazy(table):
        kind = type(table).__name__
        raise TypeError(f"{name}: a {kind} holds no rows yet; write {name.split()[-1]}.collect()")
    dtypes = list(getattr(table, "dtypes", ()))
    if dtypes and all(isinstance(dtype, np.dtype) and dtype.kind in "uif" for dtype in dtypes):
        return np.asarray(table)
    arrays = [_numbers(name, label, column) for label, column in _columns(table)]
    if not arrays:
        return np.asarray(table)
    together = np.empty((len(arrays[0]), len(arrays)), np.result_type(*arrays))
    for number, array in enumerate(arrays):
        together[:, number] = array
    return together


def column_array(name: str, column: Any) -> Array:
    """Return a series as an array; raise ValueError, naming the row, if a value is missing."""
    _check_complete(name, column, "leave such rows out")
    return _without_extension(column)


def check_columns(name: str, given: Columns, known: Columns) -> None:
    """Raise ValueError if a table has other columns than ``fit`` was given, or another order.

    Arrays, which have no names, agree with any.
    """
    if given is None or known is None or given == known:
        return
    unknown = [label for label in given if label not in known]
    missing = [label for label in known if label not in given]
    if unknown or missing:
        parts = (("unknown", unknown), ("missing", missing))
        words = "; ".join(f"{kind}: {_listed(labels)}" for kind, labels in parts if labels)
        raise ValueError(f"{name}: its columns are not those that fit was given; {words}")
    if len(given) != len(known):
        twice = [label for label in set(known) if given.count(label) != known.count(label)]
        raise ValueError(f"{name}: fit was given {_listed(sorted(twice))} another number of times")
    place = next(i for i, (new, old) in enumerate(zip(given, known, strict=True)) if new != old)
    raise ValueError(
        f"{name}: its columns are in another order than fit was given, column {place} is "
        f"{given[place]!r} and was {known[place]!r}; select them in the order of trainer.columns"
    )


# --- columns ----------------------------------------------------------------------------------


def _columns(table: Any) -> Iterator[tuple[Any, Any]]:
    """Yield names and columns; by place where the table can, since two may share a name."""
    for number, label in enumerate(table.columns):
        yield label, table.iloc[:, number] if hasattr(table, "iloc") else table[label]


def _numbers(name: str, label: Any, column: Any) -> Array:
    """Return a column of numbers or booleans as an array, or raise with what it is."""
    dtype = getattr(column, "dtype", None)
    array, categories = _without_extension(column), hasattr(dtype, "categories")
    numbers = array.dtype.kind in "buif"
    if not numbers or not isinstance(dtype, np.dtype):  # else NaN is found with infinity, later
        cure = f"fill them ({PIPELINE}), or leave these rows out"
        _check_complete(f"{name}: column {label!r}", column, cure)
    if categories or not numbers:
        what, cure = ("categories", ENCODE) if categories else _what_it_is(label, array, name)
        raise TypeError(
            f"{name}: expected real numbers; column {label!r} holds {what}: {cure}, or leave it out"
        )
    return array


def _without_extension(column: Any) -> Array:
    """Return a column as an array; one of a nullable dtype has its numbers, not objects."""
    array = np.asarray(column)
    dtype = getattr(getattr(column, "dtype", None), "numpy_dtype", None)
    # pandas before 3 makes objects of nullable numbers.
    if array.dtype == object and isinstance(dtype, np.dtype) and not column.isna().any():
        return np.asarray(column.to_numpy(dtype=dtype))
    return array


def _check_complete(where: str, column: Any, cure: str) -> None:
    """Raise ValueError if values of a column are missing: null, NA, None, and NaN in pandas."""
    if hasattr(column, "null_count"):
        missing = np.asarray(column.is_null()) if column.null_count() else np.zeros(0, bool)
    else:
        missing = np.asarray(column.isna()) if hasattr(column, "isna") else np.zeros(0, bool)
    if missing.any():
        count, row = int(missing.sum()), int(missing.argmax())
        values = "1 missing value" if count == 1 else f"{count:,} missing values"
        first = "in" if count == 1 else "the first in"
        raise ValueError(f"{where} has {values}, {first} row {row}: {cure}")


def _what_it_is(label: Any, array: Array, name: str) -> tuple[str, str]:
    """Return what a column holds that are no numbers, and the cure."""
    if array.dtype.kind in "Mm":
        what = "dates" if array.dtype.kind == "M" else "durations"
        return what, f"make them numbers ({PIPELINE})"
    values = [*array.flat[:100], *array.flat[-100:]]
    if array.dtype.kind in "UST" or any(isinstance(value, str) for value in values):
        return "words", ENCODE
    if hasattr(values[0], "strftime"):
        return "dates", f"make them numbers ({PIPELINE})"
    if all(isinstance(value, NUMBERS) for value in values):
        return "numbers as objects", f"write {name.split()[-1]}.astype({{{label!r}: float}})"
    return f"objects of type {type(values[0]).__name__}", "convert it to numbers"


def _listed(labels: Sequence[str]) -> str:
    """List some names of columns."""
    some = ", ".join(repr(label) for label in labels[:MOST_NAMED])
    return some + (f" and {len(labels) - MOST_NAMED} more" if len(labels) > MOST_NAMED else "")
