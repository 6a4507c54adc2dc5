"""Recurrent cells: one step through time, with the state as an argument and a result.

``layers.py`` runs them over whole sequences.
"""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn

import numpy as np

from minidl import kernels
from minidl.nn import init as initializers
from minidl.nn.checks import check_choice, check_count, check_number
from minidl.nn.hooks import kept_by
from minidl.nn.layer import Examples, Layer
from minidl.nn.parameter import Initializer, Parameter
from minidl.nn.tuples import is_several
from minidl.seeds import as_generator
from minidl.typing import Array, DType, Seed


class RecurrentCell(Layer):
    """One step through time: new_state = cell(x, state), one array or several.

    This is what all cells share. A subclass names its state and its gates, and writes ``forward``
    and ``backward`` like any layer. Unlike other layers, a cell may be called many times before any
    backward pass, each call a forward pass of its own. Each ``backward`` takes one call back, the
    latest first.

    The last dimension of the weights holds the gates side by side; the weights of each gate are
    drawn by themselves.
    """

    state_of: ClassVar[tuple[str, ...]] = ("h",)
    gates: ClassVar[int] = 1
    gate_names: ClassVar[tuple[str, ...]] = ()

    in_features: int
    hidden_size: int
    input_weight: Parameter  # W_x (in_features, gates · hidden_size)
    recurrent_weight: Parameter  # W_h (hidden_size, gates · hidden_size)
    bias: Parameter  # b (gates · hidden_size)

    input_ranks = (2,)
    _undoes_earlier_passes = True

    def __init__(
        self,
        in_features: int,
        hidden_size: int,
        init: str | Initializer,
        recurrent_init: str | Initializer,
        bias_init: Initializer,
        rng: Seed,
        dtype: DType,
    ) -> None:
        name, rng, gates = type(self).__name__, as_generator(rng), self.gates
        self.in_features = in_features = check_count(name, "in_features", in_features)
        self.hidden_size = hidden_size = check_count(name, "hidden_size", hidden_size)
        inits = (initializers.by_name(init), initializers.by_name(recurrent_init))
        of_input, of_state = (initializers.by_gate(*[init] * gates) for init in inits)
        width = gates * hidden_size
        self.input_weight = Parameter((in_features, width), of_input, rng, dtype)
        self.recurrent_weight = Parameter((hidden_size, width), of_state, rng, dtype)
        self.bias = Parameter((width,), bias_init, 0, dtype)

    def check_input(self, *inputs: Array) -> None:
        names = ("x", *self.state_of)
        if len(inputs) != len(names):
            raise TypeError(
                f"{self.label}: expected {len(names)} arrays, {', '.join(names)}, got {len(inputs)}"
            )
        x, *state = inputs
        self.check_array(x, self.in_features)
        if x.ndim not in self.input_ranks:
            raise ValueError(
                f"{self.label}: expected input of shape (batch, {self.in_features}), one step of "
                f"every sequence, got {x.shape}"
            )
        for name, h in zip(self.state_of, state, strict=True):
            self.check_array(h, self.hidden_size, f"state {name}")
            if x.shape[:-1] != h.shape[:-1]:
                raise ValueError(
                    f"{self.label}: batch of x {x.shape} and of {name} {h.shape} differ"
                )

    # --- the calls that a backward pass may take back ---

    def _set_aside(self, kept: dict[str, Any]) -> None:
        if self.training:
            super()._set_aside(kept)
        else:
            kept.pop("_earlier", None)

    def saved(self, dy: Array, *more: Array) -> Any:
        """Return what the latest call saved that no backward pass has taken back."""
        kept = kept_by(self)
        if kept.get("_saved") is None and kept.get("_earlier"):  # the latest call has raised
            kept["_forward_pass"], kept["_saved"], kept["_output"] = kept["_earlier"].pop()
        return super().saved(dy, *more)

    def _refuse_backward(self, called: bool) -> NoReturn:
        raise RuntimeError(
            f"{self.label}: backward without a forward pass before it"
            + ("" if self.training else "; in evaluation mode only the latest one is kept")
        )

    def clear(self) -> None:
        """Drop the calls that no backward pass has taken back."""
        self.forget()

    # --- the two products of every step ---

    def from_input(self, x: Array) -> Array:
        """Return x · W_x + b."""
        return kernels.linear(x, self.input_weight.data, self.bias.data)

    def from_input_grad(self, x: Array, dz: Array) -> Array:
        """Add to the gradients of W_x and b; return dx."""
        kernels.linear_grad_params(x, dz, self.input_weight.grad, self.bias.grad)
        return kernels.linear_grad_input(dz, self.input_weight.data)

    def from_state(self, h: Array) -> Array:
        """Return h · W_h."""
        return kernels.linear(h, self.recurrent_weight.data)

    def from_state_grad(self, h: Array, dz: Array) -> Array:
        """Add to the gradient of W_h; return dh."""
        kernels.linear_grad_params(h, dz, self.recurrent_weight.grad)
        return kernels.linear_grad_input(dz, self.recurrent_weight.data)

    def output_shape(self, input_shape: tuple[Any, ...] | None) -> tuple[Any, ...]:
        if input_shape is not None and is_several(input_shape):
            input_shape = input_shape[0]
        state = (*(input_shape or ("batch", 0))[:-1], self.hidden_size)
        return state if len(self.state_of) == 1 else (state,) * len(self.state_of)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_features}, {self.hidden_size})"


class RNNCell(RecurrentCell):
    """One step of the plain recurrent network.

    h' = tanh(x · W_x + h · W_h + b), or relu in place of tanh

    The backward pass over T steps multiplies the gradient T times by W_hᵀ and the slopes of tanh:
    the largest singular value of W_h decides whether it vanishes or explodes.
    Source: Elman 1990.

    The cell may be called step after step before any backward pass. Each call is kept, and each
    ``backward`` takes back the latest call that is left:

        for x in steps:
            h = cell(x, h)
        for t in reversed(range(len(steps))):
            dx, dh = cell.backward(dh)

    ``clear()`` drops calls that need no backward pass. In evaluation mode only the latest call is
    kept.

    Parameters
    ----------
    in_features, hidden_size
        Widths of the input and of the state.
    nonlinearity
        ``"tanh"`` or ``"relu"``.
    init, recurrent_init
        Initialisers of W_x, by default Xavier uniform, and of W_h, by default orthogonal (Saxe et
        al. 2014): before training, no direction of the state grows or shrinks. b starts at zero.
    rng
        Generator or seed of the weights.

    Shapes
    ------
    x (batch, in_features), h and h' (batch, hidden_size); input_weight
    (in_features, hidden_size), recurrent_weight (hidden_size, hidden_size), bias (hidden_size).
    ``backward(dh')`` returns dx and dh.

    Raises
    ------
    RuntimeError
        In ``backward``, when no call is left to take back.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> cell = nn.RNNCell(3, 5, rng=0)
    >>> h = cell(np.ones((2, 3), np.float32), np.zeros((2, 5), np.float32))
    >>> dx, dh = cell.backward(np.ones_like(h))
    >>> dx.shape, dh.shape
    ((2, 3), (2, 5))
    """

    def __init__(
        self,
        in_features: int,
        hidden_size: int,
        nonlinearity: str = "tanh",
        init: str | Initializer = "xavier_uniform",
        recurrent_init: str | Initializer = "orthogonal",
        rng: Seed = None,
        dtype: DType = np.float32,
    ) -> None:
        zeros = initializers.zeros()
        super().__init__(in_features, hidden_size, init, recurrent_init, zeros, rng, dtype)
        self.nonlinearity = check_choice("RNNCell", "nonlinearity", nonlinearity, "tanh", "relu")

    def forward(self, x: Array, h: Array) -> Array:
        z = kernels.add(self.from_input(x), self.from_state(h))
        new_h = kernels.tanh(z) if self.nonlinearity == "tanh" else kernels.relu(z)
        self.save(x, h, new_h)
        return new_h

    def backward(self, dh: Array) -> tuple[Array, Array]:
        x, h, new_h = self.saved(dh)
        slope = kernels.tanh_grad if self.nonlinearity == "tanh" else kernels.relu_grad
        dz = slope(dh, new_h)
        return self.from_input_grad(x, dz), self.from_state_grad(h, dz)

    def __repr__(self) -> str:
        relu = "" if self.nonlinearity == "tanh" else f", nonlinearity={self.nonlinearity!r}"
        return f"RNNCell({self.in_features}, {self.hidden_size}{relu})"

    @classmethod
    def examples(cls) -> Examples:
        yield cls(3, 4, rng=0), ((5, 3), (5, 4))
        yield cls(2, 1, rng=1), ((1, 2), (1, 1))
        yield cls(3, 4, "relu", rng=2), ((5, 3), (5, 4))


class LSTMCell(RecurrentCell):
    """One step of long short-term memory.

    i, f, g, o = σ(z_i), σ(z_f), tanh(z_g), σ(z_o)   with z = x · W_x + h · W_h + b
    c' = f · c + i · g                               forget, write
    h' = o · tanh(c')                                read

    Backward, dc = dc' · f + …: along the cell state the gradient is multiplied by the forget gate
    only, not by a matrix. Where f is near 1, it neither vanishes nor explodes.
    Source: Hochreiter and Schmidhuber 1997; the forget gate: Gers et al. 2000.

    Calls are kept and taken back as in ``RNNCell``: ``h, c = cell(x, h, c)``, and
    ``dx, dh, dc = cell.backward(dh, dc)``.

    Parameters
    ----------
    in_features, hidden_size
        Widths of the input and of h and c.
    forget_bias
        First value of the forget gate's part of b, 1 by default, so that at first more is kept
        than forgotten (Jozefowicz et al. 2015); the rest of b starts at zero.
    init, recurrent_init
        Initialisers of each gate's part of W_x, by default Xavier uniform, and of W_h, by default
        orthogonal.
    rng
        Generator or seed of the weights.

    Shapes
    ------
    x (batch, in_features); h, c, h' and c' (batch, hidden_size); input_weight
    (in_features, 4 hidden_size), recurrent_weight (hidden_size, 4 hidden_size),
    bias (4 hidden_size), the gates in the order i, f, g, o.

    Raises
    ------
    RuntimeError
        In ``backward``, when no call is left to take back.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> cell = nn.LSTMCell(3, 5, rng=0)
    >>> zeros = np.zeros((2, 5), np.float32)
    >>> h, c = cell(np.ones((2, 3), np.float32), zeros, zeros)
    >>> dx, dh, dc = cell.backward(np.ones_like(h), np.zeros_like(c))
    >>> dx.shape, dh.shape, dc.shape
    ((2, 3), (2, 5), (2, 5))
    """

    state_of = ("h", "c")
    gates = 4
    gate_names = ("input", "forget", "candidate", "output")

    def __init__(
        self,
        in_features: int,
        hidden_size: int,
        forget_bias: float = 1.0,
        init: str | Initializer = "xavier_uniform",
        recurrent_init: str | Initializer = "orthogonal",
        rng: Seed = None,
        dtype: DType = np.float32,
    ) -> None:
        check_number("LSTMCell", "forget_bias", forget_bias, -np.inf, np.inf)
        zeros, forget = initializers.zeros(), initializers.constant(forget_bias)
        bias = initializers.by_gate(zeros, forget, zeros, zeros)
        super().__init__(in_features, hidden_size, init, recurrent_init, bias, rng, dtype)

    def forward(self, x: Array, h: Array, c: Array) -> tuple[Array, Array]:
        z = kernels.add(self.from_input(x), self.from_state(h))
        gates, new_c, new_h = kernels.lstm_gates(z, c)
        self.save(x, h, c, gates, new_c)
        return new_h, new_c

    def backward(self, dh: Array, dc: Array) -> tuple[Array, Array, Array]:
        x, h, c, gates, new_c = self.saved(dh, dc)
        dz, dc = kernels.lstm_gates_grad(dh, dc, gates, c, new_c)
        return self.from_input_grad(x, dz), self.from_state_grad(h, dz), dc

    @classmethod
    def examples(cls) -> Examples:
        yield cls(3, 4, rng=0), ((5, 3), (5, 4), (5, 4))
        yield cls(2, 1, rng=1), ((1, 2), (1, 1), (1, 1))


class GRUCell(RecurrentCell):
    """One step of the gated recurrent unit.

    r, z = σ(x · W_xr + b_r + h · W_hr + b'_r), σ(x · W_xz + b_z + h · W_hz + b'_z)
    n = tanh(x · W_xn + b_n + r · (h · W_hn + b'_n))
    h' = (1 - z) · n + z · h

    One state and three gates instead of two and four: z decides how much of h stays, and so how
    much of the gradient passes unchanged; r decides how much of h enters the candidate n.
    Source: Cho et al. 2014, with the reset after the product as in PyTorch and in Keras
    (``reset_after=True``).

    Calls are kept and taken back as in ``RNNCell``.

    Parameters
    ----------
    in_features, hidden_size
        Widths of the input and of the state.
    init, recurrent_init
        Initialisers of each gate's part of W_x, by default Xavier uniform, and of W_h, by default
        orthogonal. b and b' start at zero.
    rng
        Generator or seed of the weights.
    dtype
        float32 or float64.
    update_bias
        First value of the update gate's part of b, 0 by default. Above zero, more of the state is
        kept at first than replaced, and the gradient reaches farther back: after 100 steps 3e-14
        of it is left with 0, 7e-4 with 2, half of it with 5.

    Shapes
    ------
    x (batch, in_features), h and h' (batch, hidden_size); input_weight
    (in_features, 3 hidden_size), recurrent_weight (hidden_size, 3 hidden_size), bias b and
    recurrent_bias b' (3 hidden_size), the gates in the order r, z, n.

    Raises
    ------
    RuntimeError
        In ``backward``, when no call is left to take back.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> cell = nn.GRUCell(3, 5, rng=0)
    >>> h = cell(np.ones((2, 3), np.float32), np.zeros((2, 5), np.float32))
    >>> dx, dh = cell.backward(np.ones_like(h))
    >>> dx.shape, dh.shape
    ((2, 3), (2, 5))
    """

    gates = 3
    gate_names = ("reset", "update", "candidate")

    recurrent_bias: Parameter  # b' (3 · hidden_size)

    def __init__(
        self,
        in_features: int,
        hidden_size: int,
        init: str | Initializer = "xavier_uniform",
        recurrent_init: str | Initializer = "orthogonal",
        rng: Seed = None,
        dtype: DType = np.float32,
        update_bias: float = 0.0,
    ) -> None:
        check_number("GRUCell", "update_bias", update_bias, -np.inf, np.inf)
        zeros, update = initializers.zeros(), initializers.constant(update_bias)
        bias = initializers.by_gate(zeros, update, zeros)
        super().__init__(in_features, hidden_size, init, recurrent_init, bias, rng, dtype)
        self.recurrent_bias = Parameter((3 * self.hidden_size,), zeros, 0, dtype)

    def from_state(self, h: Array) -> Array:
        """Return h · W_h + b'."""
        return kernels.linear(h, self.recurrent_weight.data, self.recurrent_bias.data)

    def from_state_grad(self, h: Array, dz: Array) -> Array:
        """Add to the gradients of W_h and b'; return dh."""
        kernels.linear_grad_params(h, dz, self.recurrent_weight.grad, self.recurrent_bias.grad)
        return kernels.linear_grad_input(dz, self.recurrent_weight.data)

    def forward(self, x: Array, h: Array) -> Array:
        u = self.from_state(h)
        gates, new_h = kernels.gru_gates(self.from_input(x), u, h)
        self.save(x, h, gates, u[..., 2 * self.hidden_size :])
        return new_h

    def backward(self, dh: Array) -> tuple[Array, Array]:
        x, h, gates, u_n = self.saved(dh)
        dz, du, past_u = kernels.gru_gates_grad(dh, gates, u_n, h)
        return self.from_input_grad(x, dz), kernels.add(self.from_state_grad(h, du), past_u)

    @classmethod
    def examples(cls) -> Examples:
        yield cls(3, 4, rng=0), ((5, 3), (5, 4))
        yield cls(2, 1, rng=1), ((1, 2), (1, 1))
