"""Check the arguments of a recorded step, put them in order, and tell them apart."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np


def prepared(number: int, x: Any) -> Any:
    """Convert an input to what kernels take: a contiguous array, labels as machine integers."""
    if isinstance(x, np.ndarray):
        if x.dtype.kind in "iu":
            return np.asarray(x, np.intp, order="C")
        if x.dtype.kind != "f":
            raise TypeError(
                f"argument {number + 1} of a recorded step: expected floats, or integers for "
                f"labels, got dtype {x.dtype}"
            )
        x = x if type(x) is np.ndarray else np.asarray(x)
        return x if x.flags.carray or (x.flags.c_contiguous and x.flags.aligned) else x.copy()
    if isinstance(x, (list, tuple)) or not isinstance(x, Hashable):
        raise TypeError(
            f"argument {number + 1} of a recorded step must be an array or a constant, got "
            f"{type(x).__name__}; write np.asarray(x, dtype=np.float32)"
        )
    return x


def places_of(function: Callable[..., Any], count: int, *names: str) -> list[tuple[str, Any]]:
    """List (name, default) of parameters after ``count`` arguments, to the last of ``names``.

    Raises
    ------
    TypeError
        As a call of the function would, and if a name has no place among the arguments.
    """
    signature = inspect.signature(function, follow_wrapped=False)
    signature.bind(*range(count), **dict.fromkeys(names))
    either, unnamed = (
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.POSITIONAL_ONLY,
    )
    places = [p for p in signature.parameters.values() if p.kind in (either, unnamed)]
    # `bind` accepts the name of a positional-only parameter where there are **options.
    known = [parameter.name if parameter.kind is either else "" for parameter in places]
    for name in names:
        if name not in known:
            called = getattr(function, "__qualname__", repr(function))
            raise TypeError(
                f"a recorded step takes its arguments by place, and {called}{signature} has none "
                f"for {name}"
            )
    last = max(map(known.index, names))
    return [(parameter.name, parameter.default) for parameter in places[count : last + 1]]


def disjoint(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Copy inputs that share memory with another: a recording tells inputs by their addresses."""
    found: list[Any] = []
    for x in inputs:
        arrays = [other for other in found if isinstance(other, np.ndarray)]
        shared = isinstance(x, np.ndarray) and any(np.may_share_memory(x, y) for y in arrays)
        found.append(x.copy() if shared else x)
    return tuple(found)


def kinds_of(inputs: tuple[Any, ...]) -> Hashable:
    """Return what a program depends on: shapes and dtypes of arrays, and values of constants."""
    return tuple(
        (x.dtype, x.shape) if isinstance(x, np.ndarray) else (type(x), constant(x)) for x in inputs
    )


def constant(x: Any) -> Hashable:
    """Return a key that differs between constants that may mean different things.

    It is made of the bits of a number; for what is no plain value, it is the identity of the
    object. ``same_constant`` in program.pyx follows the same rule.
    """
    if type(x) in (int, bool, str, bytes, type(None)):
        return x
    if type(x) in (float, complex):
        return np.array(x).tobytes()
    return (x.dtype, x.tobytes()) if isinstance(x, np.generic) else id(x)
