"""How recurrent layers are written as ONNX operators, one for each level.

ONNX has time first, all directions in one array, its own order of the gates, and two biases.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl import nn
from minidl.nn.array_checks import is_lengths
from minidl.nn.recurrent.cells import RecurrentCell
from minidl.nn.recurrent.sequence import Recurrent
from minidl.onnx.layers import writes
from minidl.onnx.writer import Value, Writer
from minidl.typing import Array

# The places of ONNX's gates among minidl's: LSTM i, o, f, c of i, f, g, o; GRU z, r, h of r, z, n.
GATES = {"RNN": (0,), "LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2)}

TO_TIME_FIRST = [1, 0, 2]
BATCH_FIRST = [2, 0, 1, 3]  # (time, directions, batch, features) to (batch, time, directions, ...)
BETWEEN_LEVELS = [0, 2, 1, 3]  # to (time, batch, directions, features)


@writes(nn.RNN)
@writes(nn.LSTM)
@writes(nn.GRU)
def _recurrent(writer: Writer, layer: Recurrent, inputs: list[Value]) -> list[str]:
    *arrays, last = inputs
    lengths = last.name if is_lengths(last.array) else ""
    x, *state = arrays if lengths else inputs
    features = writer.one("Transpose", x.name, perm=TO_TIME_FIRST)
    directions = 1 + layer.bidirectional
    ends: list[str] = []
    y = ""
    for level in range(layer.num_layers):
        if level:
            across = writer.one("Transpose", y, perm=BETWEEN_LEVELS)
            features = writer.one("Reshape", across, writer.shape(0, 0, -1))
        cells = layer.cells[level * directions : (level + 1) * directions]
        kinds = len(cells[0].state_of)
        here = state[len(ends) : len(ends) + directions * kinds]
        begins = [_stacked(writer, here[kind::kinds]) for kind in range(kinds)]
        y, *end = _level(writer, cells, [features, lengths, *begins])
        ends += _by_cell(writer, end, directions) if state else []
    if layer.return_sequences:
        y = writer.one("Transpose", y, perm=BATCH_FIRST)
        return [writer.one("Reshape", y, writer.shape(0, 0, -1)), *ends]
    last_h = writer.one("Transpose", end[0], perm=TO_TIME_FIRST)
    return [writer.one("Reshape", last_h, writer.shape(0, -1)), *ends]


def _level(writer: Writer, cells: tuple[RecurrentCell, ...], inputs: list[str]) -> list[str]:
    """Write the operator of one level; return y and the last state, of all directions."""
    features, lengths, *begins = inputs
    kind = type(cells[0]).__name__.removesuffix("Cell")
    arrays = [
        np.stack(weights)
        for weights in zip(*(onnx_weights(kind, cell) for cell in cells), strict=True)
    ]
    names = [
        writer.constant(name, array) for name, array in zip(("W", "R", "B"), arrays, strict=True)
    ]
    operands = [features, *names, lengths, *begins]
    while not operands[-1]:
        operands.pop()
    attributes: dict[str, Any] = {"hidden_size": cells[0].hidden_size}
    if len(cells) == 2:
        attributes["direction"] = "bidirectional"
    if getattr(cells[0], "nonlinearity", "tanh") == "relu":
        attributes["activations"] = ["Relu"] * len(cells)
    if kind == "GRU":
        attributes["linear_before_reset"] = 1
    return writer.node(kind, operands, 1 + len(begins), **attributes)


def onnx_weights(kind: str, cell: Any) -> tuple[Array, Array, Array]:
    """Return W (gates · hidden, in), R (gates · hidden, hidden) and B (2 · gates · hidden)."""
    order = GATES[kind]
    biases = [cell.bias.data, getattr(cell, "recurrent_bias", cell.bias).data]
    if not hasattr(cell, "recurrent_bias"):
        biases[1] = np.zeros_like(biases[0])
    return (
        _reordered(cell.input_weight.data, order).T,
        _reordered(cell.recurrent_weight.data, order).T,
        np.concatenate([_reordered(bias, order) for bias in biases]),
    )


def _reordered(array: Array, order: tuple[int, ...]) -> Array:
    """Return an array whose last axis holds the gates in another order."""
    gates = np.split(array, len(order), axis=-1)
    return np.concatenate([gates[place] for place in order], axis=-1)


def _stacked(writer: Writer, state: list[Value]) -> str:
    """Write (directions, batch, hidden) of the state of each direction; "" for none."""
    rows = [writer.one("Unsqueeze", value.name, axes=[0]) for value in state]
    if len(rows) == 2:
        return writer.one("Concat", *rows, axis=0)
    return rows[0] if rows else ""


def _by_cell(writer: Writer, end: list[str], directions: int) -> list[str]:
    """Write the state of each direction (batch, hidden): h, c of the first, then of the second."""
    parts = [
        writer.node("Split", [name], directions, axis=0) if directions > 1 else [name]
        for name in end
    ]
    return [
        writer.one("Squeeze", name, axes=[0]) for cell in zip(*parts, strict=True) for name in cell
    ]
