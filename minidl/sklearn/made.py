"""Layers that functions of users make."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

from minidl import nn


def made(
    owner: str, name: str, make: Callable[..., nn.Layer], *given: Any, **named: Any
) -> nn.Layer:
    """Call a function, or a class of layers, that makes a layer; return a copy of the layer.

    A function may return the same layer every time: without the copy, all networks of which it is
    a part would share its weights.

    Raises
    ------
    TypeError
        For what cannot be called so, and if the function returns no layer.
    """
    call = f"{name}({', '.join(map(repr, given))})"
    if not can_make(make, given, named):
        raise TypeError(
            f"{owner}: {name} must be a function that returns a layer from {call}, got {make!r}"
        )
    layer = make(*given, **named)
    if not isinstance(layer, nn.Layer):
        raise TypeError(f"{owner}: {call} must return a layer, got {layer!r}")
    return copy.deepcopy(layer)


def can_make(make: Any, given: tuple[Any, ...], named: dict[str, Any]) -> bool:
    """Return whether this is a function, or a class of layers, that takes such arguments."""
    if isinstance(make, nn.Layer) or (isinstance(make, type) and not issubclass(make, nn.Layer)):
        return False
    try:
        inspect.signature(make).bind(*given, **named)
    except (TypeError, ValueError):  # other arguments; none that Python could tell
        return False
    return True


def takes_rng(make: Callable[..., nn.Layer]) -> bool:
    """Return whether a function takes an argument ``rng``."""
    try:
        return "rng" in inspect.signature(make).parameters
    except (TypeError, ValueError):
        return False
