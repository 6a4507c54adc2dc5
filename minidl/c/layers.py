"""Emitters of all layers that are neither activations nor recurrent."""

from __future__ import annotations

import math

import numpy as np

from minidl import nn
from minidl.c.emitters import emit, emits
from minidl.c.functions import literal
from minidl.c.program import Program, Value
from minidl.nn.layer import Layer

# --- layers of layers, and those that compute nothing -----------------------------------------


@emits(nn.Sequential)
def sequential(layer: nn.Sequential, x: Value, program: Program) -> Value:
    """One layer after the other."""
    for inner in layer.stack:
        x = emit(inner, x, program)
    return x


@emits(nn.Residual)
def residual(layer: nn.Residual, x: Value, program: Program) -> Value:
    """y = body(x) + shortcut(x)."""
    comment = program.comment
    body = emit(layer.body, x, program)
    around = x if layer.shortcut is None else emit(layer.shortcut, x, program)
    program.comment = comment
    if body.shape != around.shape:
        raise ValueError(
            f"export: {layer.label}: the body gives {body.shape}, the shortcut {around.shape}"
        )
    y = program.new(*body.shape)
    shares = ("body", "y")
    program.run(f"add({y.size}, $body, $around, $y);", body=body, around=around, y=y, shares=shares)
    return y


@emits(nn.Identity, nn.Dropout)
def identity(layer: Layer, x: Value, program: Program) -> Value:
    """y = x; in evaluation, nothing is dropped."""
    return x


@emits(nn.Flatten)
def flatten(layer: nn.Flatten, x: Value, program: Program) -> Value:
    """The same numbers in another shape."""
    shape = layer.output_shape((1, *x.shape))
    if program.steps and len(x.shape) > 1:
        raise ValueError(
            f"export: {layer.label} puts the steps of a sequence into one row, so that the "
            "network cannot run step by step; give input_shape=(steps, features)"
        )
    if shape is None:
        raise ValueError(f"export: {layer.label}: a sample of shape {x.shape} has no such axes")
    if layer.channels_first and len(x.shape) > 1:
        y = program.new(x.columns, *x.shape[:-1])
        program.run(f"transpose({x.rows}, {x.columns}, $x, $y);", x=x, y=y)
        x = y
    return Value(x.number, shape[1:])


# --- layers with weights ----------------------------------------------------------------------


@emits(nn.Linear)
def linear(layer: nn.Linear, x: Value, program: Program) -> Value:
    """y = x · W + b. W is kept by columns, so that each y is a product of two rows."""
    weight = program.table("weight", layer.weight.data.T)
    bias = "NULL" if layer.bias is None else program.table("bias", layer.bias.data)
    y = program.new(*x.shape[:-1], layer.out_features)
    program.run(f"linear({x.rows}, {x.columns}, {y.columns}, {weight}, {bias}, $x, $y);", x=x, y=y)
    program.multiply_adds += x.rows * x.columns * y.columns
    return y


@emits(nn.Embedding)
def embedding(layer: nn.Embedding, x: Value, program: Program) -> Value:
    """A row of W for every index."""
    if x.number != program.input.number:
        raise ValueError(f"export: {layer.label} must come first, its input are integers")
    weight, y = program.table("weight", layer.weight.data), program.new(*x.shape, layer.features)
    program.run(
        f"if (embedding({x.size}, {layer.num_embeddings}, {y.columns}, {weight}, $x, $y) != 0) {{",
        "    return -1;",
        "}",
        x=x,
        y=y,
    )
    program.takes_indices = True
    return y


# --- normalization ----------------------------------------------------------------------------


@emits(nn.BatchNorm)
def batch_norm(layer: nn.BatchNorm, x: Value, program: Program) -> Value:
    """y = γ / sqrt(σ² + ε) · (x - μ) + β, with the running statistics."""
    variance = layer.running_var.astype(np.float64)
    scale = layer.gamma.data / np.sqrt(variance + layer.eps)
    tables = (
        program.table("mean", layer.running_mean),
        program.table("scale", scale),
        program.table("beta", layer.beta.data),
    )
    return _by_column("batch_norm", tables, x, program)


@emits(nn.Standardize)
def standardize(layer: nn.Standardize, x: Value, program: Program) -> Value:
    """y = (x - μ) / σ."""
    tables = program.table("mean", layer.mean), program.table("std", layer.std)
    return _by_column("standardize", tables, x, program)


@emits(nn.LayerNorm)
def layer_norm(layer: nn.LayerNorm, x: Value, program: Program) -> Value:
    """y = γ · (x - μ) / sqrt(σ² + ε) + β, with μ and σ² of the row."""
    tables = program.table("gamma", layer.gamma.data), program.table("beta", layer.beta.data)
    return _by_column("layer_norm", (*tables, literal(layer.eps)), x, program)


@emits(nn.RMSNorm)
def rms_norm(layer: nn.RMSNorm, x: Value, program: Program) -> Value:
    """y = γ · x / sqrt(mean(x²) + ε)."""
    eps = literal(layer.epsilon(np.dtype(np.float32)))
    tables = program.table("gamma", layer.gamma.data), eps
    return _by_column("rms_norm", tables, x, program)


def _by_column(function: str, words: tuple[str, ...], x: Value, program: Program) -> Value:
    """Call a function that takes rows, columns and a constant for each column; return y."""
    y = program.new(*x.shape)
    call = ", ".join((f"{function}({x.rows}", str(x.columns), *words, "$x", "$y);"))
    program.run(call, x=x, y=y, shares=("x", "y"))
    program.multiply_adds += math.prod(x.shape)
    return y
