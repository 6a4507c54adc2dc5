"""RNN, LSTM and GRU over whole sequences; what they share is in ``sequence.py``."""

from __future__ import annotations

from minidl import kernels
from minidl.nn.layer import Examples
from minidl.nn.recurrent.cells import GRUCell, LSTMCell, RNNCell
from minidl.nn.recurrent.sequence import Recurrent, Run, State
from minidl.typing import Array


class RNN(Recurrent):
    """The plain recurrent network over sequences.

    h_t = tanh(x_t · W_x + h_{t-1} · W_h + b), or relu in place of tanh
    dL/dh_{t-1} = (dL/dh_t · (1 - h_t²)) · W_hᵀ + dL/dy_{t-1}

    ``y = layer(x)`` starts from a state of zeros. ``y, *state = layer(x, *state)`` starts from a
    given state (the first is ``zero_state(batch)``) and returns the last; then
    ``dx, *dstate = layer.backward(dy, *dstate)``. Without dstate, the gradient of the last state is
    zero: the gradient is cut off there (truncated backpropagation through time, Williams and Peng
    1990). The state is one array, or for an LSTM h and c, for each direction of each layer, the
    first layer first. ``state_gradient_norms()`` tells how far back the latest gradient reached.

    Parameters
    ----------
    in_features, hidden_size
        Widths of the input and of the state.
    num_layers
        Recurrent layers one above the other.
    bidirectional
        Whether a second cell in each layer reads the sequence in reverse. The features of y are
        those of the first cell, then those of the second.
    dropout
        Probability with which an element between two layers is set to zero, in training.
    return_sequences
        Whether y is h_t for every t, or only the last state of each direction.
    stateful
        None, or the number of sequences in a batch, which continue from call to call: in training,
        a call without a state starts from the last state of the previous call, through which no
        gradient flows. After ``reset_state()``, and in evaluation, a call starts from zeros.
        Batches must come in order: ``step.epoch(..., shuffle=False)`` of a recorded step; a
        ``Trainer`` shuffles.
    rng
        Generator or seed of the weights.
    dtype
        float32 or float64.
    **cell_options
        Those of ``RNNCell``: nonlinearity, init, recurrent_init.

    Shapes
    ------
    x (batch, time, in_features); y (batch, time, hidden_size), or (batch, hidden_size) if only the
    last is returned, of twice that width with two directions; each array of the state
    (batch, hidden_size). Option of a call: ``lengths`` (batch), int64 from 1 to time, by name or as
    last argument. Beyond a sequence's length, y and gradients are zero and the state does not
    change; in reverse, the sequence begins at its own end. Weights are those of the cells,
    ``layer.cells``.

    Raises
    ------
    TypeError, ValueError
        For lengths out of range, a state of another shape, or a wrong number of arrays.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> layer = nn.RNN(3, 5, rng=0)
    >>> x = np.ones((2, 7, 3), np.float32)
    >>> layer(x).shape, layer(x, lengths=np.array([7, 4]))[1, 4:].any()
    ((2, 7, 5), np.False_)
    >>> y, h = layer(x, *layer.zero_state(2))
    >>> dx, dh = layer.backward(np.ones_like(y))
    >>> layer.state_gradient_norms().shape
    (7,)
    """

    cell_type = RNNCell

    def scan(self, run: Run, z: Array, begin: State) -> None:
        (h,), weight, nonlinearity = begin, run.cell.recurrent_weight.data, run.cell.nonlinearity
        states = kernels.rnn_sequence(z, weight, h, run.lengths, run.reverse, nonlinearity)
        run.sequences = (states,)

    def scan_grad(self, run: Run, dy: Array | None, dend: State) -> tuple[Array, ...]:
        (states,), (dh,) = run.sequences, dend
        weight, nonlinearity = run.cell.recurrent_weight, run.cell.nonlinearity
        dz, dh, squares = kernels.rnn_sequence_grad(
            dy, dh, states, weight.data, run.lengths, run.reverse, nonlinearity
        )
        kernels.linear_grad_params(run.before(states), dz, weight.grad)
        return dz, dh, squares

    @classmethod
    def examples(cls) -> Examples:
        yield cls(3, 4, rng=0), ((2, 5, 3),)
        yield cls(2, 1, rng=1), ((1, 1, 2), (1, 1))
        yield cls(3, 2, 2, bidirectional=True, nonlinearity="relu", rng=2), ((2, 3, 3),)


class LSTM(Recurrent):
    """Long short-term memory over sequences.

    i, f, g, o = σ(z_i), σ(z_f), tanh(z_g), σ(z_o)   with z = x_t · W_x + h_{t-1} · W_h + b
    c_t = f · c_{t-1} + i · g
    h_t = o · tanh(c_t)

    From c_t to c_{t-1} the gradient is multiplied by f alone: see ``LSTMCell``.

    Parameters, shapes and calls are those of ``RNN``; the state is h, c of each direction of each
    layer. Cells have the options of ``LSTMCell``: forget_bias, init, recurrent_init.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> layer = nn.LSTM(3, 5, num_layers=2, rng=0)
    >>> y, *state = layer(np.ones((2, 7, 3), np.float32), *layer.zero_state(2))
    >>> y.shape, [array.shape for array in state]
    ((2, 7, 5), [(2, 5), (2, 5), (2, 5), (2, 5)])
    """

    cell_type = LSTMCell

    def scan(self, run: Run, z: Array, begin: State) -> None:
        (h, c), weight = begin, run.cell.recurrent_weight.data
        states, cells, gates = kernels.lstm_sequence(z, weight, h, c, run.lengths, run.reverse)
        run.sequences, run.kept = (states, cells), (gates,)

    def scan_grad(self, run: Run, dy: Array | None, dend: State) -> tuple[Array, ...]:
        (states, cells), (gates,), (dh, dc) = run.sequences, run.kept, dend
        weight = run.cell.recurrent_weight
        dz, dh, dc, squares, *of_cells = kernels.lstm_sequence_grad(
            dy, dh, dc, cells, gates, weight.data, run.lengths, run.reverse, self._watched
        )
        run.cell_squares = of_cells[0] if of_cells else None
        kernels.linear_grad_params(run.before(states), dz, weight.grad)
        return dz, dh, dc, squares

    @classmethod
    def examples(cls) -> Examples:
        yield cls(3, 4, rng=0), ((2, 5, 3),)
        yield cls(2, 1, rng=1), ((1, 1, 2), (1, 1), (1, 1))
        yield cls(3, 2, 2, bidirectional=True, return_sequences=False, rng=2), ((2, 3, 3),)


class GRU(Recurrent):
    """Gated recurrent units over sequences.

    r, z = σ(x_t · W_xr + b_r + h_{t-1} · W_hr + b'_r), σ(x_t · W_xz + b_z + h_{t-1} · W_hz + b'_z)
    n = tanh(x_t · W_xn + b_n + r · (h_{t-1} · W_hn + b'_n))
    h_t = (1 - z) · n + z · h_{t-1}

    Parameters, shapes and calls are those of ``RNN``. Cells have the options of ``GRUCell``:
    update_bias, init, recurrent_init. For long sequences, an ``update_bias`` of 2 to 5 keeps the
    gradient from vanishing, as LSTM's ``forget_bias`` does.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> layer = nn.GRU(3, 5, bidirectional=True, return_sequences=False, rng=0)
    >>> layer(np.ones((2, 7, 3), np.float32)).shape
    (2, 10)
    """

    cell_type = GRUCell

    def scan(self, run: Run, z: Array, begin: State) -> None:
        (h,), weight, bias = begin, run.cell.recurrent_weight, run.cell.recurrent_bias
        states, gates, u_n = kernels.gru_sequence(
            z, weight.data, bias.data, h, run.lengths, run.reverse
        )
        run.sequences, run.kept = (states,), (gates, u_n)

    def scan_grad(self, run: Run, dy: Array | None, dend: State) -> tuple[Array, ...]:
        (states,), (gates, u_n), (dh,) = run.sequences, run.kept, dend
        weight, bias = run.cell.recurrent_weight, run.cell.recurrent_bias
        dz, du, dh, squares = kernels.gru_sequence_grad(
            dy, dh, states, gates, u_n, weight.data, run.lengths, run.reverse
        )
        kernels.linear_grad_params(run.before(states), du, weight.grad, bias.grad)
        return dz, dh, squares

    @classmethod
    def examples(cls) -> Examples:
        yield cls(3, 4, rng=0), ((2, 5, 3),)
        yield cls(2, 1, rng=1), ((1, 1, 2), (1, 1))
        yield cls(3, 2, 2, bidirectional=True, rng=2), ((2, 3, 3),)
