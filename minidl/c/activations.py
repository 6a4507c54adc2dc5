"""Emitters of activations."""

from __future__ import annotations

from typing import Any

from minidl import nn
from minidl.c.emitters import emits
from minidl.c.functions import literal
from minidl.c.program import Program, Value
from minidl.nn.layer import Layer

PLAIN: dict[type[Layer], str] = {
    nn.HardSigmoid: "hard_sigmoid",
    nn.HardSwish: "hard_swish",
    nn.Mish: "mish",
    nn.ReLU: "relu",
    nn.SELU: "selu",
    nn.Sigmoid: "sigmoid",
    nn.SiLU: "silu",
    nn.Softsign: "softsign",
    nn.Tanh: "hyperbolic_tangent",
}
# The function in C, and the attribute of the layer that it takes.
WITH_NUMBER: dict[type[Layer], tuple[str, str]] = {
    nn.CELU: ("celu", "alpha"),
    nn.ELU: ("elu", "alpha"),
    nn.LeakyReLU: ("leaky_relu", "slope"),
    nn.Softplus: ("softplus", "beta"),
}


@emits(*PLAIN)
def plain(layer: Layer, x: Value, program: Program) -> Value:
    """y = f(x)."""
    return _each(PLAIN[_kind_in(PLAIN, layer)], x, program)


@emits(*WITH_NUMBER)
def with_number(layer: Layer, x: Value, program: Program) -> Value:
    """y = f(x, a), with one number a of the layer's."""
    function, name = WITH_NUMBER[_kind_in(WITH_NUMBER, layer)]
    return _each(function, x, program, literal(getattr(layer, name)))


@emits(nn.GELU)
def gelu(layer: nn.GELU, x: Value, program: Program) -> Value:
    """y = x · Φ(x), or its approximation by tanh."""
    return _each("gelu" if layer.approximate == "none" else "gelu_tanh", x, program)


@emits(nn.PReLU)
def prelu(layer: nn.PReLU, x: Value, program: Program) -> Value:
    """y = x where x > 0, else a · x."""
    slopes = layer.weight.data
    if slopes.size == 1:
        return _each("leaky_relu", x, program, literal(slopes[0]))
    table, y = program.table("slope", slopes), program.new(*x.shape)
    line = f"prelu({x.rows}, {x.columns}, {table}, $x, $y);"
    program.run(line, x=x, y=y, shares=("x", "y"))
    return y


@emits(nn.Softmax, nn.LogSoftmax)
def softmax(layer: Layer, x: Value, program: Program) -> Value:
    """Probabilities of a row, or their logarithms."""
    function, y = (
        "softmax" if isinstance(layer, nn.Softmax) else "log_softmax",
        program.new(*x.shape),
    )
    program.run(f"{function}({x.rows}, {x.columns}, $x, $y);", x=x, y=y, shares=("x", "y"))
    return y


def _each(function: str, x: Value, program: Program, *numbers: str) -> Value:
    """Apply a function to each element; return the result."""
    y = program.new(*x.shape)
    words = ", ".join((str(x.size), *numbers, "$x", "$y"))
    program.run(f"{function}({words});", x=x, y=y, shares=("x", "y"))
    return y


def _kind_in(table: dict[type[Layer], Any], layer: Layer) -> type[Layer]:
    """Return the class of a layer that the table has, its own or that of which it is a subclass."""
    return next(kind for kind in type(layer).__mro__ if kind in table)
