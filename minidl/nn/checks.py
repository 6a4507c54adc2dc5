"""Checks of hyper-parameters, for a clear error in the constructor and no strange one later."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np


def check_count(owner: str, name: str, value: Any, least: int = 1) -> int:
    """Return the value as an int if it is a whole number >= ``least``, else raise."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{owner}: {name} must be a whole number, got {value!r}")
    if value < least:
        raise ValueError(f"{owner}: {name} must be >= {least}, got {value}")
    return int(value)


def check_number(owner: str, name: str, value: Any, lowest: float, beyond: float) -> float:
    """Return the value as a float if it is finite and lowest <= value < beyond, else raise."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(
        value, (int, float, np.integer, np.floating)
    ):
        raise TypeError(f"{owner}: {name} must be a number, got {value!r}")
    if not lowest <= value < beyond or math.isinf(value):
        allowed = f"in [{lowest:g}, {beyond:g})"
        if math.isinf(lowest):
            allowed = "finite"
        elif math.isinf(beyond):
            allowed = "finite and >= 0" if lowest == 0 else "finite and > 0"
            if 0 < value < lowest:
                allowed = f"finite and >= {lowest:.3g}, the least normal float32"
        raise ValueError(f"{owner}: {name} must be {allowed}, got {value}")
    return float(value)


def check_part(name: str, part: Any, kind: type, example: str) -> None:
    """Raise TypeError unless a part of a training, such as its loss, is an object of its kind."""
    if isinstance(part, kind):
        return
    got = repr(part) if isinstance(part, str) else f"an instance of {type(part).__name__}"
    if isinstance(part, type):
        got = f"the class {part.__name__} itself"
    raise TypeError(f"{name} must be {example}, got {got}")


def check_parameters_of(model: Any, holder: str, parameters: Iterable[Any]) -> None:
    """Raise ValueError if an optimizer, or whatever holds these, holds what is not the model's."""
    known = {id(parameter) for parameter in model.parameters()}
    if any(id(parameter) not in known for parameter in parameters):
        raise ValueError(
            f"{holder} holds parameters that are not the model's; build it from model.parameters()"
        )


def check_keys(
    name: str, given: Mapping[Any, Any], known: Iterable[str], expected: str, partly: bool = False
) -> None:
    """Raise ValueError, with what is missing and what is unknown, unless these are the keys known.

    ``expected`` says them in words. With ``partly``, some may be left out.
    """
    known = list(known)
    wrong = [f"{key!r} is missing" for key in known if not partly and key not in given]
    wrong += [f"{key!r} is unknown" for key in given if key not in known]
    if wrong:
        got = ", ".join(map(str, given)) or "none"
        raise ValueError(f"{name}: expected {expected}, got {got}: {', '.join(wrong)}")


def check_choice(owner: str, name: str, value: Any, *choices: str) -> str:
    """Return the value if it is one of the choices, else raise."""
    if not isinstance(value, str) or value not in choices:
        words = " or ".join(f'"{choice}"' for choice in choices)
        raise ValueError(f"{owner}: {name} must be {words}, got {value!r}")
    return str(value)


# The smallest value that counts as "> 0": smaller ones would be subnormal or zero in float32.
POSITIVE = float(np.finfo(np.float32).tiny)
