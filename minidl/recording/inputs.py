"""What a step is called with."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np

from minidl.nn.layer import Layer
from minidl.nn.losses import Loss
from minidl.optim.base import Optimizer
from minidl.recording.arrays import RecordingError
from minidl.recording.recorder import parts_of, plain_attributes


def prepared(number: int, x: Any) -> Any:
    """An input as kernels take it: contiguous, labels as machine integers."""
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
    """After so many arguments, the name and the default of each up to the last of ``names``.

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
    # `bind` lets **options take a name whose place has none.
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


def plain(leaf: Any) -> Any:
    """An array of the recording as one that NumPy may use."""
    return np.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf


def disjoint(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """The inputs, none in the memory of another: a kernel tells them by their addresses."""
    apart: list[Any] = []
    for x in inputs:
        arrays = [other for other in apart if isinstance(other, np.ndarray)]
        shared = isinstance(x, np.ndarray) and any(np.may_share_memory(x, y) for y in arrays)
        apart.append(x.copy() if shared else x)
    return tuple(apart)


def kinds_of(inputs: tuple[Any, ...]) -> Hashable:
    """What a program is made for: shapes and dtypes of arrays, values of constants."""
    return tuple((x.dtype, x.shape) if isinstance(x, np.ndarray) else (type(x), x) for x in inputs)


def named_by(function: Callable[..., Any]) -> dict[str, Any]:
    """The layers, losses and optimizers that are globals of a function, or in its closure."""
    try:
        found = inspect.getclosurevars(function)
    except TypeError:  # an object that is called
        return {}
    known = {**found.globals, **found.nonlocals}
    return {name: x for name, x in known.items() if isinstance(x, (Layer, Loss, Optimizer))}


def check_names(function: Callable[..., Any], named: dict[str, Any]) -> None:
    """Refuse to mix programs of one model with those of another of the same name."""
    now = named_by(function) if named else {}
    for name, thing in named.items():
        if now.get(name) is not thing:
            raise RecordingError(
                f"{name} is not the {type(thing).__name__} that it was when this step was "
                "recorded; call .forget() on the step to record it anew"
            )


def traits(root: Any) -> Hashable:
    """What Python code may have asked a layer, a loss or an optimizer: modes, which parameters are
    frozen, and plain numbers.
    """
    return tuple(
        (
            type(part),
            getattr(part, "training", None),
            tuple(parameter.frozen for parameter in part.own_parameters())
            if isinstance(part, Layer)
            else (),
            tuple(plain_attributes(part).items()),
        )
        for part in parts_of(root)
    )
