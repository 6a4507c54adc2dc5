"""How recurrent layers are written as ONNX operators, one for each level.

ONNX has time first, all directions in one array, its own order of the gates, and two biases.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from minidl import nn
from minidl.nn.array_checks import is_lengths
from minidl.nn.recurrent.cells import RecurrentCell
from minidl.nn.recurrent.sequence import Recurrent
from minidl.onnx.layers import writes
from minidl.onnx.time_first import TimeFirst
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
    kinds = len(layer.cell_type.state_of)
    ends: list[str] = []
    y = ""
    for cells in _levels(layer):
        features = _between(writer, y) if y else features
        here = state[len(ends) : len(ends) + directions * kinds]
        begins = [_stacked(writer, here[kind::kinds]) for kind in range(kinds)]
        y, *end = _level(writer, cells, [features, lengths, *begins])
        ends += _by_cell(writer, end, directions) if state else []
    if layer.return_sequences:
        y = writer.one("Transpose", y, perm=BATCH_FIRST)
        return [writer.one("Reshape", y, writer.shape(0, 0, -1)), *ends]
    last_h = writer.one("Transpose", end[0], perm=TO_TIME_FIRST)
    return [writer.one("Reshape", last_h, writer.shape(0, -1)), *ends]


@writes(TimeFirst)
def _time_first(writer: Writer, layer: TimeFirst, inputs: list[Value]) -> list[str]:
    kinds = layer.inner.cell_type.state_of
    given = {name: value.name for name, value in zip(layer.options, inputs[1:], strict=True)}
    features, begins = inputs[0].name, [given.get(name, "") for name in kinds]
    if layer.batch_first:
        features, *begins = (
            name and writer.one("Transpose", name, perm=TO_TIME_FIRST)
            for name in (features, *begins)
        )
    outputs: list[str] = []
    for cells in _levels(layer.inner):
        features = _between(writer, outputs[0]) if outputs else features
        operands = [features, given.get("lengths", ""), *begins]
        outputs = _level(writer, cells, operands, layer.reverse)
    chosen = [outputs[index] for index in layer.results]
    if not layer.batch_first:
        return chosen
    return [
        writer.one("Transpose", name, perm=TO_TIME_FIRST if index else BATCH_FIRST)
        for name, index in zip(chosen, layer.results, strict=True)
    ]


def _levels(layer: Recurrent) -> Iterator[tuple[RecurrentCell, ...]]:
    """Yield the cells of each level, one for each direction."""
    directions = 1 + layer.bidirectional
    for begin in range(0, len(layer.cells), directions):
        yield layer.cells[begin : begin + directions]


def _between(writer: Writer, y: str) -> str:
    """Write the features for the next level: those of all directions in one axis."""
    across = writer.one("Transpose", y, perm=BETWEEN_LEVELS)
    return writer.one("Reshape", across, writer.shape(0, 0, -1))


def _level(
    writer: Writer, cells: tuple[RecurrentCell, ...], inputs: list[str], reverse: bool = False
) -> list[str]:
    """Write the operator of one level; return y and the last state, of all directions."""
    features, lengths, *begins = inputs
    writer.lengths.add(lengths)
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
    elif reverse:
        attributes["direction"] = "reverse"
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
