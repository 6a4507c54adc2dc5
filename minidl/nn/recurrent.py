"""Recurrent cells: one step through time, with the state in the open."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl import _kernels as kernels
from minidl._kernels.reference import Array
from minidl.nn import init as initializers
from minidl.nn.checks import check_width
from minidl.nn.init import Initializer, Seed, as_generator
from minidl.nn.layer import DType, Examples, Layer, Parameter


class RNNCell(Layer):
    """One step of the plain recurrent network.

    h' = tanh(x · W_x + h · W_h + b)

    Going back over T steps multiplies the gradient T times with W_hᵀ and the slopes of tanh:
    the largest singular value of W_h decides whether it vanishes or explodes.
    Source: Elman 1990.

    The cell may be called step after step before any backward pass. Each call is kept, and
    ``backward`` undoes the latest that is left:

        for x in steps:
            h = cell(x, h)
        for t in reversed(range(len(steps))):
            dx, dh = cell.backward(dh)

    ``clear()`` forgets calls that need no backward pass; in evaluation mode only the latest
    call is kept.

    Parameters
    ----------
    in_features, hidden_size
        Widths of the input and of the state.
    init, recurrent_init
        Initialisers of W_x and W_h, by default Xavier uniform; b starts at zero.
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
        In ``backward``, when no call is left to undo.

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
        init: str | Initializer = "xavier_uniform",
        recurrent_init: str | Initializer = "xavier_uniform",
        rng: Seed = None,
        dtype: DType = np.float32,
    ) -> None:
        rng = as_generator(rng)
        self.in_features = in_features = check_width("RNNCell", "in_features", in_features)
        self.hidden_size = hidden_size = check_width("RNNCell", "hidden_size", hidden_size)
        self.input_weight = Parameter(
            (in_features, hidden_size), initializers.by_name(init), rng, dtype
        )
        self.recurrent_weight = Parameter(
            (hidden_size, hidden_size), initializers.by_name(recurrent_init), rng, dtype
        )
        self.bias = Parameter((hidden_size,), initializers.zeros(), 0, dtype)
        self.calls: list[tuple[Array, Array, Array]] = []

    def check_input(self, x: Array, h: Array) -> None:
        self.check_array(x, self.in_features)
        self.check_array(h, self.hidden_size, "state h")
        if x.shape[:-1] != h.shape[:-1]:
            raise ValueError(f"{self.label}: batch of x {x.shape} and of h {h.shape} differ")

    def forward(self, x: Array, h: Array) -> Array:
        from_input = kernels.linear(x, self.input_weight.data, self.bias.data)
        from_state = kernels.linear(h, self.recurrent_weight.data)
        new_h = kernels.tanh(kernels.add(from_input, from_state))
        if not self.training:
            self.clear()
        self.calls.append((x, h, new_h))
        return new_h

    def backward(self, dh: Array) -> tuple[Array, Array]:
        if not self.calls:
            raise RuntimeError(
                f"{self.label}: backward without a forward pass before it"
                + ("" if self.training else "; in evaluation mode only the latest one is kept")
            )
        x, h, new_h = self.calls[-1]
        self.check_gradient(dh, new_h)
        self.calls.pop()
        dz = kernels.tanh_grad(dh, new_h)
        kernels.linear_grad_params(x, dz, self.input_weight.grad, self.bias.grad)
        kernels.linear_grad_params(h, dz, self.recurrent_weight.grad)
        return (
            kernels.linear_grad_input(dz, self.input_weight.data),
            kernels.linear_grad_input(dz, self.recurrent_weight.data),
        )

    def clear(self) -> None:
        """Forget the calls that no backward pass has undone."""
        self.calls.clear()

    def forget(self) -> None:
        super().forget()
        self.clear()

    def output_shape(self, input_shape: tuple[Any, ...] | None) -> tuple[Any, ...]:
        return (*(input_shape or ("batch", 0))[:-1], self.hidden_size)

    def __repr__(self) -> str:
        return f"RNNCell({self.in_features}, {self.hidden_size})"

    @classmethod
    def examples(cls) -> Examples:
        yield cls(3, 4, rng=0), ((5, 3), (5, 4))
        yield cls(2, 1, rng=1), ((1, 2), (1, 1))
