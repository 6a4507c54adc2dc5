"""Nested values as JSON and tensors: what a training needs to go on, taken down and read back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from minidl.saving.tensor_file import DTYPES, shortened
from minidl.typing import Array

PLAIN = (bool, int, str, type(None))


def packed(value: Any, prefix: str) -> tuple[str, dict[str, Array]]:
    """Return a value as JSON, and the arrays in it by name; their names begin with ``prefix``.

    Values are numbers, words, None, arrays, and lists, tuples and dicts of these.

    Raises
    ------
    TypeError
        For anything else.
    """
    arrays: dict[str, Array] = {}

    def pack(value: Any) -> Any:
        if type(value) in PLAIN:
            return value
        if isinstance(value, (np.bool_, np.integer)):
            return value.item()
        if isinstance(value, (float, np.floating)):
            number = float(value)
            return number if math.isfinite(number) else {"float": repr(number)}
        if isinstance(value, np.ndarray):
            name = f"{prefix}{len(arrays)}"
            # Bits of types that the format has under other names are kept as whole numbers.
            known = value.dtype.newbyteorder("<") in DTYPES.values()
            arrays[name] = value if known else value.astype(_widened(value.dtype))
            return {"array": name, "dtype": value.dtype.str}
        if isinstance(value, (list, tuple)):
            return {"tuple" if isinstance(value, tuple) else "list": [pack(v) for v in value]}
        if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
            return {"dict": [[key, pack(item)] for key, item in value.items()]}
        raise TypeError(
            f"a file cannot keep {shortened(value)}: only numbers, words, arrays, and lists and "
            "dicts of these"
        )

    return json.dumps(pack(value), allow_nan=False), arrays


def unpacked(text: str, arrays: Mapping[str, Array]) -> Any:
    """Return the value that ``packed`` has made a text and arrays of.

    Raises
    ------
    ValueError
        If it has not.
    """

    def unpack(words: Any) -> Any:
        if not isinstance(words, dict):
            return words
        (kind, *_) = words
        content = words[kind]
        match kind:
            case "float":
                return float(content)
            case "array":
                return arrays[content].astype(np.dtype(words["dtype"]), copy=False)
            case "list":
                return [unpack(item) for item in content]
            case "tuple":
                return tuple(unpack(item) for item in content)
            case "dict":
                return {key: unpack(item) for key, item in content}
        raise ValueError(f"it is not known what {shortened(kind)} is")

    try:
        return unpack(json.loads(text))
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"what it says of the training is damaged ({error})") from None


def _widened(dtype: np.dtype[Any]) -> type[Any]:
    """Return the type of the format that holds all numbers of another type."""
    if dtype.kind in "bi":
        return np.int64
    if dtype.kind in "uf" and dtype.itemsize <= 8:
        return np.uint64 if dtype.kind == "u" else np.float64
    raise TypeError(f"a file cannot keep an array of {dtype}")
