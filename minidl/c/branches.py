"""Emitters of layers that branch. A network in C takes one array and gives one."""

from __future__ import annotations

from typing import NoReturn

from minidl import nn
from minidl.c.emitters import emit, emits
from minidl.c.program import Program, Value
from minidl.nn.layer import Layer


@emits(nn.Parallel)
def parallel(layer: nn.Parallel, x: Value, program: Program) -> Value:
    """Every branch of the same input, and their outputs joined."""
    if layer.join is None:
        raise ValueError(f"export: {layer.label} has several outputs, a function in C gives one")
    comment = program.comment
    outputs = [emit(branch, x, program) for branch in layer.branches.values()]
    program.comment = comment
    first, others = outputs[0], outputs[1:]
    is_wide = layer.join == "concat"
    for y in others:
        if y.shape[:-1] != first.shape[:-1] or (not is_wide and y.shape != first.shape):
            raise ValueError(f"export: {layer.label}: branches give {first.shape} and {y.shape}")
    if layer.join in ("add", "multiply"):
        for y in others:
            first = _combined(layer.join, first, y, program)
        return first
    widths = [y.columns for y in outputs]
    whole = program.new(*first.shape[:-1], sum(widths))
    for place, y in enumerate(outputs):
        begin = sum(widths[:place])
        call = f"put({y.rows}, {y.columns}, {begin}, {whole.columns}, $part, $whole);"
        program.run(call, part=y, whole=whole)
    if layer.join == "stack":
        return Value(whole.number, (*first.shape[:-1], len(outputs), first.columns))
    return whole


def _combined(function: str, a: Value, b: Value, program: Program) -> Value:
    """Call a function of two arrays, element by element; return y."""
    y = program.new(*a.shape)
    program.run(f"{function}({y.size}, $a, $b, $y);", a=a, b=b, y=y)
    return y


@emits(nn.Concat, nn.Add, nn.Multiply, nn.Stack, nn.Split, nn.Select)
def several(layer: Layer, x: Value, program: Program) -> NoReturn:
    """Refuse what takes or gives several arrays."""
    raise ValueError(
        f"export: {layer.label} takes or gives several arrays, a function in C one of each; "
        "branches of one input are a Parallel with a join"
    )
