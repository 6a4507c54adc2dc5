"""Layers that are several ONNX operators: written by ``export`` and recognised by ``load``.

A pattern is text in the syntax of Python. Names are inputs, constants (parameters of the layer) or
results; numbers are constants that must have this value.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

COMMUTATIVE = ("Add", "Mul")
SQRT_2, SQRT_2_OVER_PI = 2**0.5, 0.7978845608028654


@dataclass(frozen=True)
class Operator:
    """A line of a pattern: an operator with its operands, its results and its attributes."""

    kind: str
    operands: tuple[str | float, ...]
    results: tuple[str, ...]
    attributes: dict[str, Any] = field(default_factory=dict)


class Pattern:
    """A small graph of ONNX operators.

    Parameters
    ----------
    text
        The operators, one assignment a line; calls may be nested.
    inputs, outputs
        Names of what comes in and of what goes out; the first output is the last operator's.
    """

    def __init__(
        self, text: str, inputs: Sequence[str] = ("x",), outputs: Sequence[str] = ("y",)
    ) -> None:
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self.operators = tuple(_operators(text))
        self.producer = {name: op for op in self.operators for name in op.results}

    @property
    def last(self) -> str:
        """The kind of the operator that gives the first output."""
        return self.producer[self.outputs[0]].kind


def _operators(text: str) -> Iterator[Operator]:
    """Yield the operators of a pattern's text in the order in which they are computed."""
    for number, line in enumerate(ast.parse(text.replace("\n    ", "\n")).body):
        if not isinstance(line, ast.Assign) or not isinstance(line.value, ast.Call):
            raise ValueError(f"a line of a pattern assigns an operator, got {ast.unparse(line)}")
        results = tuple(ast.unparse(line.targets[0]).strip("()").split(", "))
        yield from _calls(line.value, results, f"{number}")


def _calls(call: ast.Call, results: tuple[str, ...], prefix: str) -> Iterator[Operator]:
    """Yield an operator after those that are nested in it."""
    operands: list[str | float] = []
    for index, argument in enumerate(call.args):
        if isinstance(argument, ast.Call):
            inner = f"{prefix}_{index}"
            yield from _calls(argument, (inner,), inner)
            operands.append(inner)
        else:
            operands.append(
                argument.id if isinstance(argument, ast.Name) else ast.literal_eval(argument)
            )
    attributes = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
    yield Operator(ast.unparse(call.func), tuple(operands), results, attributes)


GELU = Pattern(f"y = Mul(Mul(x, Add(Erf(Div(x, {SQRT_2})), 1.0)), 0.5)")

GELU_TANH = Pattern(f"""
    u = Mul(Add(x, Mul(Mul(Mul(x, x), x), 0.044715)), {SQRT_2_OVER_PI})
    y = Mul(Mul(x, Add(Tanh(u), 1.0)), 0.5)
""")

SILU = Pattern("y = Mul(x, Sigmoid(x))")

MISH = Pattern("y = Mul(x, Tanh(Softplus(x)))")

SOFTPLUS = Pattern("y = Div(Softplus(Mul(x, beta)), beta)")

# As PyTorch writes it: the identity where x is large.
SOFTPLUS_OR_X = Pattern("y = Where(Greater(x, threshold), x, Softplus(x))")

SOFTPLUS_OF_BETA_OR_X = Pattern("""
    u = Mul(x, beta)
    y = Where(Greater(u, threshold), x, Div(Softplus(u), beta))
""")

SOFTSIGN = Pattern("y = Div(x, Add(Abs(x), 1.0))")

STANDARDIZE = Pattern("y = Div(Sub(x, mean), std)")

LINEAR = Pattern("y = Add(MatMul(x, weight), bias)")

RMS_NORM = Pattern("""
    square = ReduceMean(Mul(x, x), axes=[-1], keepdims=1)
    y = Mul(Div(x, Sqrt(Add(square, eps))), gamma)
""")

# As PyTorch writes it: a product with the inverse of the root.
_ROOT = "Sqrt(Add(ReduceMean(Pow(x, 2.0), axes=[-1], keepdims=1), eps))"
RMS_NORM_BY_INVERSE = tuple(
    Pattern(f"y = Mul(Mul(x, {inverse}), gamma)")
    for inverse in (f"Reciprocal({_ROOT})", f"Div(1.0, {_ROOT})")
)

_SUM = "Add(Add(MatMul(x, input_weight), bias), MatMul(h, recurrent_weight))"

RNN_CELL = {
    "tanh": Pattern(f"y = Tanh({_SUM})", ("x", "h")),
    "relu": Pattern(f"y = Relu({_SUM})", ("x", "h")),
}

LSTM_CELL = Pattern(
    f"""
    i, f, g, o = Split({_SUM}, axis=-1)
    new_c = Add(Mul(Sigmoid(f), c), Mul(Sigmoid(i), Tanh(g)))
    new_h = Mul(Sigmoid(o), Tanh(new_c))
""",
    ("x", "h", "c"),
    ("new_h", "new_c"),
)

GRU_CELL = Pattern(
    """
    x_r, x_z, x_n = Split(Add(MatMul(x, input_weight), bias), axis=-1)
    h_r, h_z, h_n = Split(Add(MatMul(h, recurrent_weight), recurrent_bias), axis=-1)
    n = Tanh(Add(x_n, Mul(Sigmoid(Add(x_r, h_r)), h_n)))
    y = Add(n, Mul(Sigmoid(Add(x_z, h_z)), Sub(h, n)))
""",
    ("x", "h"),
)
