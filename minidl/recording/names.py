"""Find the objects that names in a recorded function refer to: models, losses, optimizers ...

A recorded step belongs to the very objects that it was recorded with. When a name refers to another
object, as after a notebook's cell ran again, the step must be recorded anew.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from minidl._kernels.executor.step_call import StepCall
from minidl.nn.hooks import InvalidatesRecordings
from minidl.nn.parameter import Parameter
from minidl.optim.optimizer import Optimizer

# (holder, key, value): a dict with a key, a list with an index, or the cell of a closure.
Name = tuple[Any, Any, Any]

DEEPEST = 4  # from a function to an object, to its attribute, ...
MOST = 200  # names, which every call compares


def names_of(function: Any) -> list[Name]:
    """Find the names that a function depends on, and what they refer to now.

    They are its globals and closures; those of the functions among these; attributes of the object
    whose method it is; and the items of lists and dicts of layers in any of them.
    """
    found: list[Name] = []
    seen: set[int] = set()

    def visit(value: Any, depth: int) -> bool:
        """Find the names in an object; returns whether there are any."""
        before = len(found)
        if id(value) not in seen and depth <= DEEPEST:
            seen.add(id(value))
            for holder, key, inner in _held_by(value):
                holds = visit(inner, depth + 1)
                counts = isinstance(
                    inner, (InvalidatesRecordings, Optimizer, Parameter, FunctionType)
                )
                if (counts or holds) and type(holder) is not tuple:
                    found.append((holder, key, inner))
        return len(found) > before

    visit(function, 0)
    return found[:MOST]


def _held_by(value: Any) -> Iterator[Name]:
    """Yield what a function may reach by name from an object."""
    if isinstance(value, MethodType):
        yield from _held_by(value.__func__)
        yield from _attributes(value.__self__)
    elif isinstance(value, functools.partial):
        for part in (value.func, *value.args, *value.keywords.values()):
            yield from _held_by(part)
    elif isinstance(value, FunctionType):
        if not (value.__module__ or "").startswith("minidl."):
            yield from _named_in(value)
    elif type(value) is dict and len(value) <= MOST:
        yield from ((value, key, item) for key, item in value.items())
    elif type(value) in (list, tuple) and len(value) <= MOST:
        yield from ((value, index, item) for index, item in enumerate(value))
    else:
        yield from _attributes(value)


def _named_in(function: FunctionType) -> Iterator[Name]:
    known = function.__globals__
    for name in _names_in(function.__code__):
        if name in known:
            yield known, name, known[name]
    for cell in function.__closure__ or ():
        try:
            yield cell, None, cell.cell_contents
        except ValueError:  # it has no value yet
            continue


def _names_in(code: CodeType) -> set[str]:
    """Collect the names of globals in a function, and in functions inside it."""
    inner = [_names_in(const) for const in code.co_consts if isinstance(const, CodeType)]
    return set(code.co_names).union(*inner)


def _attributes(value: Any) -> Iterator[Name]:
    # Layers, losses and optimizers report by themselves when something in them is replaced, and
    # other recorded steps compare the names in their own functions.
    if not isinstance(
        value, (InvalidatesRecordings, Optimizer, Parameter, StepCall, type, ModuleType)
    ):
        attributes = getattr(value, "__dict__", None)
        if type(attributes) is dict:
            yield from ((attributes, name, item) for name, item in attributes.items())
