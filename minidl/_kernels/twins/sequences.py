"""The NumPy twin of the recurrent kernels.

Sequences are (time, batch, features) here, so that one step of the whole batch is contiguous.
``states`` holds the initial state and the state after every step: the initial one comes first, or
last if the sequence is read in reverse. After its length the state of a sequence stays as it is.

Gates follow one another along the last axis: LSTM i, f, g, o; GRU r, z, n. The argument ``z`` is
the sum before the gates that the input contributes, z = x · W + b. A subscript names the part of it
that belongs to a gate: z_i, z_r; the update gate z of a GRU is called ``update`` in the code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from minidl._kernels.signature import EXP, Function, kernel
from minidl._kernels.twins.activations import relu, relu_grad, sigmoid, tanh, tanh_grad
from minidl._kernels.twins.errors import RowError
from minidl.typing import Array

# --- gates: one step, behind its products -----------------------------------------------


@kernel(
    "z[rows,4*hidden] c[rows,hidden] -> gates[rows,4*hidden] new_c[rows,hidden] h[rows,hidden]",
    flops=5 * EXP + 16,
)
def lstm_gates(z: Array, c: Array) -> tuple[Array, Array, Array]:
    """i, f, o = σ(z_i), σ(z_f), σ(z_o); g = tanh(z_g); c' = f · c + i · g; h' = o · tanh(c').

    Returns the gates, c' and h'.
    """
    i, f, g, o = np.split(z, 4, axis=-1)
    i, f, g, o = sigmoid(i), sigmoid(f), tanh(g), sigmoid(o)
    new_c = f * c + i * g
    return np.concatenate([i, f, g, o], axis=-1), new_c, o * tanh(new_c)


@kernel(
    "dh[rows,hidden] dc[rows,hidden] gates[rows,4*hidden] c[rows,hidden] new_c[rows,hidden] "
    "-> dz[rows,4*hidden] dc_before[rows,hidden]",
    flops=EXP + 24,
)
def lstm_gates_grad(
    dh: Array, dc: Array, gates: Array, c: Array, new_c: Array
) -> tuple[Array, Array]:
    """Return the gradients of z and of c, given those of h' and of c'."""
    i, f, g, o = np.split(gates, 4, axis=-1)
    t = tanh(new_c)
    dc = dc + dh * o * (1 - t * t)
    dz = dc * g * i * (1 - i), dc * c * f * (1 - f), dc * i * (1 - g * g), dh * t * o * (1 - o)
    return np.concatenate(dz, axis=-1), dc * f


@kernel(
    "z[rows,3*hidden] u[rows,3*hidden] h[rows,hidden] -> gates[rows,3*hidden] "
    "new_h[rows,hidden] u_n[rows,hidden]?",
    flops=3 * EXP + 14,
)
def gru_gates(z: Array, u: Array, h: Array) -> tuple[Array, Array]:
    """r, update = σ(z_r + u_r), σ(z_update + u_update); n = tanh(z_n + r · u_n).

    h' = n + update · (h - n). The sums before the gates are z, from the input, and u, from the
    state. Returns the gates and h'. A compiled sequence has u_n stored as well, which its backward
    pass needs: ``gru_sequence`` takes it from u.
    """
    z_r, z_update, z_n = np.split(z, 3, axis=-1)
    u_r, u_update, u_n = np.split(u, 3, axis=-1)
    r, update = sigmoid(z_r + u_r), sigmoid(z_update + u_update)
    n = tanh(z_n + r * u_n)
    return np.concatenate([r, update, n], axis=-1), n + update * (h - n)


@kernel(
    "dh[rows,hidden] gates[rows,3*hidden] u_n[rows,hidden] h[rows,hidden] -> "
    "dz[rows,3*hidden] du[rows,3*hidden] dh_before[rows,hidden]",
    flops=16,
)
def gru_gates_grad(dh: Array, gates: Array, u_n: Array, h: Array) -> tuple[Array, Array, Array]:
    """Return the gradients of z, of u, and of h (the part not through u), given that of h'."""
    r, update, n = np.split(gates, 3, axis=-1)
    dn = dh * (1 - update) * (1 - n * n)
    dr, dupdate = dn * u_n * r * (1 - r), dh * (h - n) * update * (1 - update)
    dz = np.concatenate([dr, dupdate, dn], axis=-1)
    return dz, np.concatenate([dr, dupdate, dn * r], axis=-1), dh * update


# --- whole sequences --------------------------------------------------------------------

_FORWARD = (
    "z[steps,batch,*] weight[hidden,*] bias[*]? h[batch,hidden]? c[batch,hidden]? "
    "lengths:index[batch]?<steps scratch_step:int reverse:flag activation:int -> "
    "states[*,batch,hidden] cells[*,batch,hidden]? gates[steps,batch,*]?@z "
    "u_n[steps,batch,hidden]? $scratch[*]"
)
_BACKWARD = (
    "dy[steps,batch,hidden]? dh[batch,hidden]? dc[batch,hidden]? states[*,batch,hidden]? "
    "cells[*,batch,hidden]? gates[steps,batch,*]? u_n[steps,batch,hidden]? weight[hidden,*] "
    "lengths:index[batch]? scratch_step:int reverse:flag activation:int -> dz[steps,batch,*]@gates "
    "du[steps,batch,*]? dh0[batch,hidden] dc0[batch,hidden]? norms:double[*] "
    "cell_norms:double[*]? $scratch[*]"
)


def _sequence(signature: str, gates: int, flops: int) -> Callable[[Function], Function]:
    """Declare a kernel over whole sequences: at each step a product, then the gates."""

    def products(size: Mapping[str, Any]) -> float:
        return 2 * gates * size["steps"] * size["batch"] * size["hidden"] ** 2

    return kernel(signature, composite=True, flops=flops, products=products, threads="batch")


@_sequence(_FORWARD, gates=1, flops=EXP + 4)
def rnn_sequence(
    z: Array,
    weight: Array,
    h: Array | None = None,
    lengths: Array | None = None,
    reverse: bool = False,
    activation: str = "tanh",
) -> Array:
    """h_t = activation(z_t + h_{t-1} · W). Returns the states; h is the initial one, or zero."""
    states = _begin(z, weight, h, reverse)
    for t, before, after, on in _steps(z, lengths, reverse):
        new_h = (tanh if activation == "tanh" else relu)(z[t] + states[before] @ weight)
        states[after] = np.where(on, new_h, states[before])
    return states


@_sequence(_BACKWARD, gates=1, flops=6)
def rnn_sequence_grad(
    dy: Array | None,
    dh: Array | None,
    states: Array,
    weight: Array,
    lengths: Array | None = None,
    reverse: bool = False,
    activation: str = "tanh",
) -> tuple[Array, Array, Array]:
    """Return the gradients of z and of the initial state, and ‖∂L/∂h_t‖².

    dy and dh are the gradients of the outputs and of the last state; None stands for zero. The
    norms are of every step and sequence, in float64.
    """
    dz, norms = np.empty_like(states[1:]), np.zeros(states[1:, :, 0].shape)
    dh = np.zeros_like(states[0]) if dh is None else dh
    for t, _, after, on in reversed(list(_steps(dz, lengths, reverse))):
        dh = _arriving(dh, dy, t, on, norms)
        grad = (tanh_grad if activation == "tanh" else relu_grad)(dh, states[after])
        dz[t] = np.where(on, grad, 0)
        dh = np.where(on, dz[t] @ weight.T, dh)
    return dz, dh, norms


@_sequence(_FORWARD, gates=4, flops=5 * EXP + 20)
def lstm_sequence(
    z: Array,
    weight: Array,
    h: Array | None = None,
    c: Array | None = None,
    lengths: Array | None = None,
    reverse: bool = False,
) -> tuple[Array, Array, Array]:
    """``lstm_gates`` of z_t + h_{t-1} · W, step after step. Returns states, cells and gates."""
    states, cells = _begin(z, weight, h, reverse), _begin(z, weight, c, reverse)
    gates = np.empty_like(z)
    for t, before, after, on in _steps(z, lengths, reverse):
        new = lstm_gates(z[t] + states[before] @ weight, cells[before])
        gates[t] = np.where(on, new[0], 0)
        cells[after] = np.where(on, new[1], cells[before])
        states[after] = np.where(on, new[2], states[before])
    return states, cells, gates


@_sequence(_BACKWARD, gates=4, flops=EXP + 27)
def lstm_sequence_grad(
    dy: Array | None,
    dh: Array | None,
    dc: Array | None,
    cells: Array,
    gates: Array,
    weight: Array,
    lengths: Array | None = None,
    reverse: bool = False,
    cell_norms: bool = False,
) -> tuple[Array, ...]:
    """Return the gradients of z and of the initial h and c, and ‖∂L/∂h_t‖².

    dy, dh and dc are the gradients of the outputs and of the last h and c; None stands for zero.
    The norms are of every step and sequence, in float64. With ``cell_norms`` also ‖∂L/∂c_t‖².
    """
    dz, norms = np.empty_like(gates), np.zeros(gates[:, :, 0].shape)
    of_cells = np.zeros_like(norms)
    dh = np.zeros_like(cells[0]) if dh is None else dh
    dc = np.zeros_like(cells[0]) if dc is None else dc
    for t, before, after, on in reversed(list(_steps(dz, lengths, reverse))):
        dh = _arriving(dh, dy, t, on, norms)
        grad, new_dc = lstm_gates_grad(dh, dc, gates[t], cells[before], cells[after])
        at_cell = dc + dh * np.split(gates[t], 4, axis=-1)[3] * (1 - np.tanh(cells[after]) ** 2)
        squares = np.square(at_cell, dtype=np.float64).sum(axis=-1)
        of_cells[t] = np.where(on[:, 0], squares, 0)
        dz[t] = np.where(on, grad, 0)
        dh, dc = np.where(on, dz[t] @ weight.T, dh), np.where(on, new_dc, dc)
    return (dz, dh, dc, norms, of_cells) if cell_norms else (dz, dh, dc, norms)


@_sequence(_FORWARD, gates=3, flops=3 * EXP + 17)
def gru_sequence(
    z: Array,
    weight: Array,
    bias: Array | None = None,
    h: Array | None = None,
    lengths: Array | None = None,
    reverse: bool = False,
) -> tuple[Array, Array, Array]:
    """``gru_gates`` of z_t and u_t = h_{t-1} · W + b, step after step.

    Returns states, gates, and of u the last third, u_n.
    """
    states, gates = _begin(z, weight, h, reverse), np.empty_like(z)
    u_n = np.empty_like(states[1:])
    for t, before, after, on in _steps(z, lengths, reverse):
        u = states[before] @ weight if bias is None else states[before] @ weight + bias
        new_gates, new_h = gru_gates(z[t], u, states[before])
        gates[t], u_n[t] = np.where(on, new_gates, 0), np.where(on, np.split(u, 3, axis=-1)[2], 0)
        states[after] = np.where(on, new_h, states[before])
    return states, gates, u_n


@_sequence(_BACKWARD, gates=3, flops=19)
def gru_sequence_grad(
    dy: Array | None,
    dh: Array | None,
    states: Array,
    gates: Array,
    u_n: Array,
    weight: Array,
    lengths: Array | None = None,
    reverse: bool = False,
) -> tuple[Array, Array, Array, Array]:
    """Return the gradients of z, of u and of the initial state, and ‖∂L/∂h_t‖².

    dy and dh are the gradients of the outputs and of the last state; None stands for zero. The
    norms are of every step and sequence, in float64.
    """
    dz, du, norms = np.empty_like(gates), np.empty_like(gates), np.zeros(gates[:, :, 0].shape)
    dh = np.zeros_like(states[0]) if dh is None else dh
    for t, before, _, on in reversed(list(_steps(dz, lengths, reverse))):
        dh = _arriving(dh, dy, t, on, norms)
        *grads, kept = gru_gates_grad(dh, gates[t], u_n[t], states[before])
        dz[t], du[t] = (np.where(on, grad, 0) for grad in grads)
        dh = np.where(on, du[t] @ weight.T + kept, dh)
    return dz, du, dh, norms


def _begin(z: Array, weight: Array, h: Array | None, reverse: bool) -> Array:
    """Allocate the states and fill in the initial one."""
    states = np.zeros((len(z) + 1, z.shape[1], len(weight)), z.dtype)
    states[len(z) if reverse else 0] = 0 if h is None else h
    return states


def _steps(z: Array, lengths: Array | None, reverse: bool) -> Iterator[tuple[int, int, int, Array]]:
    """Yield (time, before, after, on) of every step.

    ``before`` and ``after`` are the places in ``states`` of the states before and after the step;
    ``on`` says which sequences of the batch are not over yet.
    """
    for t in range(len(z))[:: -1 if reverse else 1]:
        on = np.ones((z.shape[1], 1), bool) if lengths is None else (t < lengths)[:, None]
        yield t, t + reverse, t + (not reverse), on


def _arriving(dh: Array, dy: Array | None, t: int, on: Array, norms: Array) -> Array:
    """Return the gradient of the state after step t, and store its squared norm.

    It is the sum of what comes back from the later steps and from the output of this step.
    """
    if dy is not None:
        dh = np.where(on, dh + dy[t], dh)
    norms[t] = np.where(on[:, 0], np.square(dh, dtype=np.float64).sum(axis=-1), 0)
    return dh


# --- between (batch, time, features) and (time, batch, features) -------------------------


@kernel(
    "x[batch,steps,features] lengths:index[batch]? begin:int -> y[steps,batch,width]",
    composite=True,
)
def time_first(
    x: Array, lengths: Array | None = None, begin: int = 0, width: int | None = None
) -> Array:
    """y_tbj = x_bt(begin + j), and 0 from the length of sequence b on.

    ``width`` is the number of features; None takes all from ``begin`` on.
    """
    end = x.shape[-1] if width is None else begin + width
    return _within(x, lengths)[..., begin:end].swapaxes(0, 1).copy()


@kernel(
    "x[steps,batch,width] lengths:index[batch]? other[steps,batch,other_width]? -> "
    "y[batch,steps,*]",
    composite=True,
)
def batch_first(x: Array, lengths: Array | None = None, other: Array | None = None) -> Array:
    """y_btj = x_tbj, then the features of ``other``; 0 from the length of sequence b on."""
    both = x if other is None else np.concatenate([x, other], axis=-1)
    return _within(both.swapaxes(0, 1), lengths).copy()


def _within(x: Array, lengths: Array | None) -> Array:
    """Return x (batch, time, features) with 0 in all steps after the length of a sequence."""
    if lengths is None:
        return x
    return np.where((np.arange(x.shape[1]) < lengths[:, None])[:, :, None], x, x.dtype.type(0))


# --- embedding --------------------------------------------------------------------------


@kernel("indices:index[count]<rows weight[rows,features] -> y[count,features]")
def embedding(indices: Array, weight: Array) -> Array:
    """y_i = W[index_i], a row of W."""
    _check_indices(indices, len(weight))
    return weight[indices]


@kernel("indices:index[count]<rows dy[count,features] ~dweight[rows,features]", flops=1)
def embedding_grad(indices: Array, dy: Array, dweight: Array) -> None:
    """dW[index_i] += dy_i, for every row of dy in order."""
    _check_indices(indices, len(dweight))
    np.add.at(dweight, indices, dy)


def _check_indices(indices: Array, rows: int) -> None:
    """Raise RowError for the first index that is no row, before anything is changed."""
    bad = np.flatnonzero((indices < 0) | (indices >= rows))
    if len(bad):
        index = indices.reshape(-1)[bad[0]]
        raise RowError("index", bad[0], index, rows, indices.shape)
