"""Emitters of recurrent layers: whole sequences, or one step from a state that the caller keeps."""

from __future__ import annotations

from minidl import nn
from minidl.c.emitters import emits
from minidl.c.program import Program, Value
from minidl.nn.recurrent.cells import RecurrentCell
from minidl.nn.recurrent.sequence import Recurrent


@emits(nn.RNNCell, nn.LSTMCell, nn.GRUCell)
def cell(layer: RecurrentCell, x: Value, program: Program) -> Value:
    """One step; y is h, and the caller keeps the state."""
    y, state = program.new(layer.hidden_size), program.kept(_state_size(layer))
    line, work = _step(layer, program, "$x")
    copy = f"copy({y.size}, $h, $y);"
    program.run(line, copy, x=x, h=state, work=work, y=y)
    program.multiply_adds += _multiply_adds(layer)
    return y


@emits(nn.RNN, nn.LSTM, nn.GRU)
def recurrent(layer: Recurrent, x: Value, program: Program) -> Value:
    """Every layer of cells over all steps, in one direction or in both."""
    if len(x.shape) != 2:
        raise ValueError(
            f"export: {layer.label} takes (steps, {layer.in_features}), got a sample of {x.shape}; "
            f"give input_shape=(steps, {layer.in_features}), or none to run step by step"
        )
    if program.steps and layer.bidirectional:
        raise ValueError(
            f"export: {layer.label} reads sequences in reverse, too, so that the network cannot "
            "run step by step; give input_shape=(steps, features)"
        )
    directions = 1 + layer.bidirectional
    width = directions * layer.hidden_size
    for level in range(layer.num_layers):
        whole = layer.return_sequences or level + 1 < layer.num_layers
        y = program.new(x.shape[0], width) if whole else program.new(width)
        for direction, inner in enumerate(layer.cells[level * directions :][:directions]):
            _run(inner, x, y, direction, program)
        x = y
    return x


def _run(cell: RecurrentCell, x: Value, y: Value, direction: int, program: Program) -> None:
    """Append the steps of a cell over a sequence, which write their features of y."""
    steps, hidden, size = x.shape[0], cell.hidden_size, _state_size(cell)
    program.multiply_adds += steps * _multiply_adds(cell)
    place = f"$y + {direction * hidden}" if direction else "$y"
    if program.steps:
        line, work = _step(cell, program, "$x")
        copy = f"copy({hidden}, $h, {place});"
        program.run(line, copy, x=x, h=program.kept(size), work=work, y=y)
        return
    line, work = _step(cell, program, f"$x + t * {x.columns}")
    order = f"size_t t = {steps}; t-- > 0;" if direction else f"size_t t = 0; t < {steps}; t++"
    lines = [f"clear({size}, $h);", f"for ({order}) {{", f"    {line}"]
    if len(y.shape) == 2:
        lines += [f"    copy({hidden}, $h, {place} + t * {y.columns});", "}"]
    else:
        lines += ["}", f"copy({hidden}, $h, {place});"]
    program.run(*lines, x=x, h=program.new(size), work=work, y=y)


def _step(cell: RecurrentCell, program: Program, x: str) -> tuple[str, Value]:
    """Return the call of one step, which changes the state at $h, and the memory for its gates."""
    input_weight = program.table("input_weight", cell.input_weight.data.T)
    recurrent_weight = program.table("recurrent_weight", cell.recurrent_weight.data.T)
    tables = [input_weight, recurrent_weight, program.table("bias", cell.bias.data)]
    function = ""
    match cell:
        case nn.GRUCell():
            function = "step_gru"
            tables.append(program.table("recurrent_bias", cell.recurrent_bias.data))
        case nn.LSTMCell():
            function = "step_lstm"
        case nn.RNNCell():
            function = f"step_rnn_{cell.nonlinearity}"
    words = (cell.in_features, cell.hidden_size, *tables, x, "$h", "$work")
    line = f"{function}({', '.join(map(str, words))});"
    return line, program.new(2 * cell.gates * cell.hidden_size)


def _state_size(cell: RecurrentCell) -> int:
    return len(cell.state_of) * cell.hidden_size


def _multiply_adds(cell: RecurrentCell) -> int:
    return cell.gates * cell.hidden_size * (cell.in_features + cell.hidden_size)
