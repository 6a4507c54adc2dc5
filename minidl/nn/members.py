"""Finding layers and parameters among the attributes of a layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set, ValuesView
from types import GeneratorType, SimpleNamespace
from typing import Any

import numpy as np

# Iterators: they yield their items only once.
ONCE = (GeneratorType, map, filter, zip)
# Types that hold no layers, tested first because most attributes have one of them.
PLAIN = frozenset({int, float, bool, str, bytes, type(None), np.dtype, range})


class Member:
    """Base of layers and parameters. Only its subclasses are found; members are not searched."""


def found_in(path: str, value: Any, kind: Any) -> Iterator[tuple[str, Any]]:
    """Yield (path, item) of this kind: the value, or items of nested lists, tuples and dicts.

    Raises
    ------
    TypeError, ValueError
        If something of this kind is where it would not be found: items of a set have no path, and
        other objects are not searched.
    """
    if type(value) in PLAIN:
        return
    if isinstance(value, Member):
        if isinstance(value, kind):
            yield path, value
    elif isinstance(value, np.ndarray):
        if value.dtype == object:
            _refuse(path, value, value.flat, kind)
    elif isinstance(value, (list, tuple)) or (
        isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray, memoryview))
    ):
        for index, item in enumerate(value):
            yield from found_in(f"{path}.{index}", item, kind)
    elif isinstance(value, Mapping):
        yield from _found_in_mapping(path, value, kind)
    elif isinstance(value, (Set, ValuesView)):
        _refuse(path, value, value, kind)
    elif isinstance(value, ONCE):
        raise TypeError(
            f"{path}: a {type(value).__name__} can be gone through once only, so that layers in it "
            "are not found, and a second forward pass would not see them; write list(...)"
        )
    elif isinstance(value, SimpleNamespace) or (
        dataclasses.is_dataclass(value) and not isinstance(value, type)
    ):
        fields = getattr(value, "__dataclass_fields__", ())  # of slots, and of others
        names = dict.fromkeys((*fields, *getattr(value, "__dict__", ())))
        _refuse(path, value, [getattr(value, name, None) for name in names], kind)


def _found_in_mapping(path: str, value: Mapping[Any, Any], kind: Any) -> Iterator[tuple[str, Any]]:
    _refuse(path, value, value.keys(), kind, "as keys of")
    words: set[str] = set()
    for key, item in value.items():
        found = list(found_in(f"{path}.{key}", item, kind))
        if found and not isinstance(key, (str, int)):
            raise TypeError(
                f"{path}: a layer in a dict is found by its key, which must be a str or an int, "
                f"got {key!r}"
            )
        if found and str(key) in words:
            raise ValueError(f"{path}: two keys read {str(key)!r}, so two layers have one path")
        if found:
            words.add(str(key))
        yield from found


def _refuse(path: str, value: Any, items: Iterable[Any], kind: Any, place: str = "in") -> None:
    """Raise TypeError if any of the items is, or holds, something of this kind."""
    for item in items:
        if any(found_in(path, item, kind)):
            raise TypeError(
                f"{path}: layers and parameters {place} a {type(value).__name__} are not found, so "
                "they would not be trained, saved or switched to evaluation; keep them in a list, "
                "a tuple or as values of a dict, or make what holds them a Layer"
            )
