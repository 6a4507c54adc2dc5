"""Recurrent cells over whole sequences: levels, directions, lengths, and a state that carries over.

``layers.py`` has what is particular to each kind. Kernels want time first, so that one step of the
whole batch is contiguous; users want the batch first. In this file arrays are
(time, batch, features).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, ClassVar

import numpy as np

from minidl import kernels
from minidl.nn.checks import check_count, check_number
from minidl.nn.dropout import Dropout
from minidl.nn.hooks import kept_by, register
from minidl.nn.layer import Layer
from minidl.nn.lengths import check_lengths
from minidl.nn.recurrent.cells import RecurrentCell
from minidl.nn.summary import shape_in_words
from minidl.nn.tuples import is_several
from minidl.seeds import as_generator
from minidl.typing import Array, DType, Seed

State = Sequence[Array | None]  # the arrays of one cell's state, or their gradients; None: zero


@dataclass
class Run:
    """One pass of a cell over the sequences, from the first step to the last or in reverse.

    ``features`` are its inputs: one array, or two where the layer below has two directions.
    ``sequences`` holds, for each array of the state, the state before the first step and after
    every step; ``kept`` is what else the gradient needs.
    """

    cell: Any  # a RecurrentCell
    features: list[Array]
    lengths: Array | None
    reverse: bool
    sequences: tuple[Array, ...] = ()
    kept: tuple[Array, ...] = ()
    dbegin: list[Array] = field(default_factory=list)  # gradients of the initial state
    squares: Any = None  # ‖∂L/∂h_t‖² of every step and sequence
    cell_squares: Any = None  # of LSTM ‖∂L/∂c_t‖², where a step is watched

    def before(self, sequence: Array) -> Array:
        """Return the state before every step."""
        return sequence[1:] if self.reverse else sequence[:-1]

    @property
    def outputs(self) -> Array:
        """h after every step."""
        return self.sequences[0][:-1] if self.reverse else self.sequences[0][1:]

    @property
    def end(self) -> list[Array]:
        """The state after the last step."""
        return [sequence[0 if self.reverse else -1] for sequence in self.sequences]

    def from_features(self) -> Array:
        """Return x · W_x + b of all steps at once."""
        bias: Array | None = self.cell.bias.data
        products = []
        for x, weight in zip(self.features, self._parts(self.cell.input_weight.data), strict=True):
            products.append(kernels.linear(x, weight, bias))
            bias = None
        return reduce(kernels.add, products)

    def from_features_grad(self, dz: Array) -> list[Array]:
        """Add to the gradients of W_x and b; return those of the features."""
        dbias: Array | None = self.cell.bias.grad
        for x, dweight in zip(self.features, self._parts(self.cell.input_weight.grad), strict=True):
            kernels.linear_grad_params(x, dz, dweight, dbias)
            dbias = None
        weights = self._parts(self.cell.input_weight.data)
        return [kernels.linear_grad_input(dz, weight) for weight in weights]

    def _parts(self, weight: Array) -> list[Array]:
        """Return the rows of W_x for each array of the features."""
        width = len(weight) // len(self.features)
        return [weight[begin : begin + width] for begin in range(0, len(weight), width)]


class Recurrent(Layer):
    """A recurrent cell over (batch, time, features): what ``RNN``, ``LSTM`` and ``GRU`` share.

    A subclass names its cell and writes two functions: ``scan(run, z, begin)`` runs the cell over
    the sequence, given the products of the input, z; ``scan_grad(run, dy, dend)`` is its backward
    pass.
    """

    cell_type: ClassVar[type[RecurrentCell]]

    in_features: int
    hidden_size: int
    num_layers: int
    bidirectional: bool
    return_sequences: bool
    stateful: int | None
    # Of the first layer forward and in reverse, of the second, and so on.
    cells: tuple[RecurrentCell, ...]
    dropouts: tuple[Dropout, ...]  # those before the second layer, before the third, ...
    carried: Array  # of a stateful layer: the last state (arrays, batch, hidden_size)

    input_ranks = (3,)
    pass_names = ("_squares", "_watched")

    _squares: Sequence[Array] = ()  # of the latest eager backward pass
    _watched = False  # whether the gradients of LSTM's cells are wanted, too

    def __init__(
        self,
        in_features: int,
        hidden_size: int,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        return_sequences: bool = True,
        stateful: int | None = None,
        rng: Seed = None,
        dtype: DType = np.float32,
        **cell_options: Any,
    ) -> None:
        name, rng = type(self).__name__, as_generator(rng)
        self.in_features = in_features = check_count(name, "in_features", in_features)
        self.hidden_size = hidden_size = check_count(name, "hidden_size", hidden_size)
        self.num_layers = check_count(name, "num_layers", num_layers)
        self.bidirectional, self.return_sequences = bool(bidirectional), bool(return_sequences)
        check_number(name, "dropout", dropout, 0, 1)
        if dropout and num_layers == 1:
            raise ValueError(f"{name}: dropout is between layers, and num_layers=1 is a single one")
        self._directions = 1 + self.bidirectional
        above = [hidden_size * self._directions] * (num_layers - 1)
        self.cells = tuple(
            self.cell_type(width, hidden_size, rng=rng, dtype=dtype, **cell_options)
            for width in (in_features, *above)
            for _ in range(self._directions)
        )
        between = len(above) * self._directions if dropout else 0
        self.dropouts = tuple(Dropout(dropout, rng) for _ in range(between))
        self.stateful = None if stateful is None else check_count(name, "stateful", stateful)
        if stateful and bidirectional:
            raise ValueError(f"{name}: in reverse, no state goes on; stateful has one direction")
        if self.stateful is not None:
            self.state_names = self.transient_state_names = ("carried",)
            self.carried = np.zeros((self.state_size, self.stateful, hidden_size), dtype)
        self.assign_paths()

    def scan(self, run: Run, z: Array, begin: State) -> None:
        """Run the cell over the sequences; set ``run.sequences`` and ``run.kept``."""
        raise NotImplementedError(f"{type(self).__name__} does not say how its cell goes over time")

    def scan_grad(self, run: Run, dy: Array | None, dend: State) -> tuple[Array, ...]:
        """Return the gradients of z and of the initial state, and ‖∂L/∂h_t‖² of every step.

        ``dy`` and ``dend`` are the gradients of the outputs and of the last state. The gradients
        of the recurrent weights are added to.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how its cell goes over time")

    # --- forward and backward ---

    def forward(self, x: Array, *state: Array, lengths: Array | None = None) -> Any:
        carry = self._carries and not state
        begins = iter(self._by_cell(self._carried() if carry else state))
        features, levels = [kernels.time_first(x, lengths)], []
        for level in range(self.num_layers):
            runs = [
                Run(cell, features, lengths, reverse=bool(direction))
                for direction, cell in enumerate(self.cells[self._level(level)])
            ]
            for run in runs:
                self.scan(run, run.from_features(), next(begins))
            features = [run.outputs for run in runs]
            if drops := self.dropouts[self._level(level)]:
                features = [drop(h) for drop, h in zip(drops, features, strict=True)]
            levels.append(runs)
        end = [h for runs in levels for run in runs for h in run.end]
        if carry:
            self._carry(end)
        self.save(levels, lengths, bool(state))
        y = self._joined(levels[-1], lengths)
        return (y, *map(kernels.copy, end)) if state else y

    def backward(self, dy: Array, *dend: Array) -> Any:
        self._check_state_gradient(dend)
        levels, lengths, with_state = self.saved(dy)
        dends = self._by_cell(dend)
        douts: list[Any] = self._joined_grad(dy, dends, lengths)
        for level in reversed(range(self.num_layers)):
            here = self._level(level)
            if drops := self.dropouts[here]:
                douts = [drop.backward(dh) for drop, dh in zip(drops, douts, strict=True)]
            dfeatures = []
            for run, dout, dlast in zip(levels[level], douts, dends[here], strict=True):
                dz, *run.dbegin, run.squares = self.scan_grad(run, dout, dlast)
                dfeatures.append(run.from_features_grad(dz))
            douts = [reduce(kernels.add, parts) for parts in zip(*dfeatures, strict=True)]
        runs = [run for level_runs in levels for run in level_runs]
        kept_by(self)["_squares"] = [run.squares for run in runs]
        dx = kernels.batch_first(douts[0])
        return (dx, *(dh for run in runs for dh in run.dbegin)) if with_state else dx

    def _level(self, level: int) -> slice:
        """Return the place of a layer's cells among all, or of the dropouts above it."""
        return slice(level * self._directions, (level + 1) * self._directions)

    def _by_cell(self, arrays: Sequence[Array]) -> list[State]:
        """Group the arrays of the state by cell; each is None if there are none."""
        size = len(self.cell_type.state_of)
        flat: State = arrays or [None] * self.state_size
        return [flat[begin : begin + size] for begin in range(0, self.state_size, size)]

    def _joined(self, runs: list[Run], lengths: Array | None) -> Array:
        """Return y: the features of the last layer, of both directions side by side."""
        if self.return_sequences:
            return kernels.batch_first(runs[0].outputs, lengths, *(run.outputs for run in runs[1:]))
        last = [run.end[0][None] for run in runs]  # a sequence of one step
        return kernels.batch_first(last[0], None, *last[1:])[:, 0]

    def _joined_grad(
        self, dy: Array, dends: list[State], lengths: Array | None
    ) -> list[Array | None]:
        """Return the gradient of the last layer's outputs, by direction.

        If only the last state is returned, add its gradient to ``dends`` instead.
        """
        begins = [direction * self.hidden_size for direction in range(self._directions)]
        if self.return_sequences:
            return [kernels.time_first(dy, lengths, begin, self.hidden_size) for begin in begins]
        for index, begin in zip(range(-len(begins), 0), begins, strict=True):
            dh = kernels.time_first(dy[:, None], None, begin, self.hidden_size)[0]
            known, *others = dends[index]
            dends[index] = [dh if known is None else kernels.add(dh, known), *others]
        return [None] * self._directions

    # --- the state ---

    @property
    def state_size(self) -> int:
        """The number of arrays in the state."""
        return len(self.cells) * len(self.cell_type.state_of)

    def zero_state(self, batch: int) -> tuple[Array, ...]:
        """Return an initial state of zeros, for ``layer(x, *state)``."""
        shape = (check_count(type(self).__name__, "batch", batch), self.hidden_size)
        return tuple(np.zeros(shape, self.dtype) for _ in range(self.state_size))

    def reset_state(self) -> None:
        """Have the next call of a stateful layer start from zeros."""
        if self.stateful is not None:
            register(self)
            kernels.clear(self.carried)

    @property
    def _carries(self) -> bool:
        return self.stateful is not None and self.training

    def _carried(self) -> list[Array]:
        return [self.carried[index] for index in range(self.state_size)]

    def _carry(self, end: list[Array]) -> None:
        """Copy the last state into the memory from which the next call starts."""
        kernels.clear(self.carried)
        for array, h in zip(self._carried(), end, strict=True):
            kernels.lerp(array, h, 1.0)  # 0 + 1 · (h - 0)

    def reset_own(self, rng: np.random.Generator) -> None:
        super().reset_own(rng)
        self.reset_state()

    def state_gradient_norms(self, layer: int = -1, reverse: bool = False) -> Array:
        """Return ‖∂L/∂h_t‖ over the batch for every step of the latest eager backward pass: (time).

        They tell how far back in time the loss has an influence. Recorded steps keep none.

        Parameters
        ----------
        layer
            Which of the layers, the last by default.
        reverse
            Which direction.

        Raises
        ------
        RuntimeError
            Without a backward pass before it.
        ValueError
            For a layer or a direction that does not exist.
        """
        if not self._squares:
            raise RuntimeError(f"{self.label}: state_gradient_norms without a backward pass")
        if not -self.num_layers <= layer < self.num_layers:
            raise ValueError(f"{self.label} has {self.num_layers} layers, and no layer {layer}")
        if reverse and not self.bidirectional:
            raise ValueError(f"{self.label} has no reverse direction")
        squares = self._squares[self._level(range(self.num_layers)[layer])][reverse]
        return np.sqrt(squares.sum(axis=1))

    def forget(self) -> None:
        super().forget()
        kept_by(self)["_squares"] = []

    # --- checks ---

    def check_input(self, x: Array, *state: Array, lengths: Array | None = None) -> None:
        self.check_array(x, self.in_features)
        if x.ndim not in self.input_ranks:
            raise ValueError(
                f"{self.label}: expected input of shape (batch, time, {self.in_features}), "
                f"got {x.shape}"
            )
        if state:
            self._check_state(x, state)
        elif self._carries and len(x) != self.stateful:
            raise ValueError(
                f"{self.label}: expected a batch of {self.stateful}, the sequences whose state "
                f"goes on, got {len(x)}"
            )
        if lengths is not None:
            check_lengths(self.label, x, lengths)

    def _check_state(self, x: Array, state: tuple[Array, ...]) -> None:
        if len(state) != self.state_size:
            raise TypeError(
                f"{self.label}: the state consists of {self.state_size} arrays "
                f"(zero_state({len(x)}) gives them), got {len(state)}"
            )
        for h in state:
            self.check_array(h, self.hidden_size, "state")
            if h.shape != (len(x), self.hidden_size):
                raise ValueError(
                    f"{self.label}: expected a state of shape {(len(x), self.hidden_size)}, "
                    f"got {h.shape}"
                )

    def _check_state_shapes(self, state: list[tuple[Any, ...]]) -> None:
        """Raise ValueError if this is known not to be the shapes of a state."""
        if state and len(state) != self.state_size:
            raise ValueError(
                f"{self.label}: the state consists of {self.state_size} arrays, got {len(state)}"
            )
        for shape in filter(None, state):  # those that are known
            fits = len(shape) == 2 and (isinstance(shape[1], str) or shape[1] == self.hidden_size)
            if not fits:
                raise ValueError(
                    f"{self.label}: expected a state of shape (batch, {self.hidden_size}), "
                    f"got {shape_in_words(shape)}"
                )

    def check_gradients(self, dys: tuple[Any, ...], outputs: tuple[Any, ...]) -> None:
        self.check_gradient(dys[0], outputs[0])  # those of the state are checked by backward

    def _check_state_gradient(self, dend: tuple[Array, ...]) -> None:
        output = kept_by(self).get("_output")
        state: tuple[Array, ...] = output[1:] if isinstance(output, tuple) else ()
        if not dend or output is None:
            return
        if len(dend) != len(state):
            raise TypeError(
                f"{self.label}: backward expected the gradients of y and of the {len(state)} "
                f"arrays of the state that the call returned, got {1 + len(dend)}"
            )
        for gradient, h in zip(dend, state, strict=True):
            self.check_gradient(gradient, h)

    # --- what a reader sees ---

    def output_shape(self, input_shape: tuple[Any, ...] | None) -> tuple[Any, ...]:
        if input_shape is not None and is_several(input_shape):
            first, *more = input_shape
            state = [shape for shape in more if shape is None or len(shape) != 1]  # no lengths
            self._check_state_shapes(state)
            return (self.output_shape(first), *state) if state else self.output_shape(first)
        width = self.hidden_size * self._directions
        lead = (input_shape or ("batch", "time"))[: 1 + self.return_sequences]
        return (*lead, width)

    def __repr__(self) -> str:
        options = {
            "num_layers": (self.num_layers, 1),
            "bidirectional": (self.bidirectional, False),
            "dropout": (self.dropouts[0].p if self.dropouts else 0, 0),
            "return_sequences": (self.return_sequences, True),
            "stateful": (self.stateful, None),
            "nonlinearity": (getattr(self.cells[0], "nonlinearity", "tanh"), "tanh"),
        }
        words = [str(self.in_features), str(self.hidden_size)]
        words += [f"{name}={value!r}" for name, (value, usual) in options.items() if value != usual]
        return f"{type(self).__name__}({', '.join(words)})"
