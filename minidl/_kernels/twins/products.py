"""The NumPy twins of matrix products."""

from __future__ import annotations

import numpy as np

from minidl._kernels.signature import KERNELS, declare, kernel
from minidl._kernels.twins.activations import _Activation
from minidl._kernels.twins.matrix import _matrix
from minidl._kernels.twins.normalization import column_sum
from minidl.typing import Array


@kernel(
    "a[m,k] b[k,n] bias[n]? gate[m,n]? +c[m,n] a2[m2,k]? ~c2[m2,n]? !partials[*]? $scratch[*] "
    "scratch_step:int a_row:int a_col:int b_row:int b_col:int c_row:int a2_col:int "
    "activation:int",
    composite=True,
    fuses=True,
    work=lambda size: (size["m"] + size["m2"], size["k"], size["n"]),
    products=lambda size: 2 * (size["m"] + size["m2"]) * size["k"] * size["n"],
)
def matmul(
    a: Array,
    b: Array,
    out: Array | None = None,
    transpose_a: bool = False,
    transpose_b: bool = False,
) -> Array:
    """C = op(A) · op(B), where op transposes if asked to."""
    return np.matmul(a.T if transpose_a else a, b.T if transpose_b else b, out=out)


@kernel("", composite=True)
def linear(
    x: Array, weight: Array, bias: Array | None = None, activation: _Activation | None = None
) -> Array:
    """y = activation(x · W + b)."""
    y = x @ weight if bias is None else x @ weight + bias
    return y if activation is None else KERNELS[activation].apply(y)


@kernel("", composite=True)
def linear_grad_input(dy: Array, weight: Array) -> Array:
    """dx = dy · Wᵀ."""
    return dy @ weight.T


@kernel("", composite=True)
def linear_grad_params(x: Array, dy: Array, dweight: Array, dbias: Array | None = None) -> None:
    """dW += xᵀ · dy and db += Σ dy over the batch."""
    dweight += _matrix(x).T @ _matrix(dy)
    if dbias is not None:
        dbias += column_sum(dy)


# Split-k: each thread leaves partial sums; after a barrier, reduce_partials adds them up.
declare(
    "reduce_partials",
    "~out[*] ~partials[*] n:int count:int columns:int accumulate:int",
    work=lambda size: (size["count"], size["n"]),
    threads="one",
)
# The most that a machine can do: one runs multiply-adds only, the other reads memory only.
declare("fma_peak", "~x[n] repetitions:int")
declare("read_peak", "~x[n] repetitions:int")
