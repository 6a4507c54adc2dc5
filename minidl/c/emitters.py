"""From layers to statements in C: the table of emitters, one for each kind of layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minidl.c.program import Program, Value
from minidl.nn.layer import Layer

# Appends the statements of a layer to the program; returns its output.
Emitter = Callable[[Any, Value, Program], Value]

EMITTERS: dict[type[Layer], Emitter] = {}


def emits(*kinds: type[Layer]) -> Callable[[Emitter], Emitter]:
    """Register a function as the emitter of these kinds of layers."""

    def register(emitter: Emitter) -> Emitter:
        EMITTERS.update(dict.fromkeys(kinds, emitter))
        return emitter

    return register


def emit(layer: Layer, x: Value, program: Program) -> Value:
    """Append the statements of a layer to a program, in evaluation mode; return its output.

    Raises
    ------
    TypeError
        For a layer that has no emitter, or computes something else than the class that has.
    ValueError
        For an input of another width than the layer takes.
    """
    kind: Any = next((kind for kind in type(layer).__mro__ if kind in EMITTERS), None)
    if kind is not None and type(layer).forward is kind.forward:
        if layer.in_features not in (None, x.columns):
            raise ValueError(
                f"export: {layer.label} takes {layer.in_features} features, got {x.columns}; "
                f"input_shape is {program.input.shape}"
            )
        program.comment = layer.label.removeprefix("layer ").replace("*/", "* /")
        return EMITTERS[kind](layer, x, program)
    raise TypeError(
        f"export: {layer.label} cannot be written in C, only layers of minidl's; those of your own "
        "get an emitter with minidl.c.emitters.emits"
    )
