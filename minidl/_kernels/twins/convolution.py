"""The NumPy twins of convolutions, channels last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from minidl._kernels.signature import KERNELS, declare, kernel
from minidl._kernels.twins.activations import _Activation
from minidl._kernels.twins.normalization import column_sum
from minidl._kernels.twins.windows import Padding, Sizes, _padded, _windows, _without
from minidl.typing import Array

_GEOMETRY = (
    "scratch_step:int row_stride:int column_stride:int rows_before:int columns_before:int "
    "row_step:int column_step:int groups:int"
)
_X = "[images,height,width,channels]"
_WEIGHT = "[rows,columns,depth,outputs]"
_Y = "[images,out_height,out_width,outputs]"


def _work(size: Mapping[str, Any]) -> tuple[int, ...]:
    """Pixels of the output, elements of the window before each, outputs: as a product's m, k, n."""
    pixels = size["images"] * size["out_height"] * size["out_width"]
    return pixels, size["rows"] * size["columns"] * size["depth"], size["outputs"]


def _flops(size: Mapping[str, Any]) -> int:
    pixels, window, outputs = _work(size)
    return 2 * pixels * window * outputs


@kernel(
    f"x{_X} weight{_WEIGHT} bias[outputs]? !y{_Y} $scratch[*] {_GEOMETRY} activation:int",
    composite=True,
    fuses=True,
    work=_work,
    products=_flops,
)
def conv(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Sizes = (1, 1),
    padding: Padding = ((0, 0), (0, 0)),
    dilation: Sizes = (1, 1),
    groups: int = 1,
    activation: _Activation | None = None,
) -> Array:
    """y = activation(Σ over the window of x · W, + b), for every window of x.

    x is (images, height, width, channels), or (images, steps, channels); each of the ``groups`` of
    outputs sees its share of the channels. The weight has the window's sizes first, then those
    channels, then the outputs.
    """
    size = weight.ndim - 2
    seen = _windows(_padded(x, padding), weight.shape[:size], stride, dilation)
    axes = tuple(range(-size - 1, 0)), (size, *range(size))  # channels, then the window
    parts = zip(
        np.split(seen, groups, axis=1 + size), np.split(weight, groups, axis=-1), strict=True
    )
    y = np.concatenate([np.tensordot(part, w, axes) for part, w in parts], axis=-1)
    y = y if bias is None else y + bias
    return y if activation is None else KERNELS[activation].apply(y)


@kernel("", composite=True)
def conv_grad_params(
    x: Array,
    dy: Array,
    dweight: Array,
    dbias: Array | None = None,
    stride: Sizes = (1, 1),
    padding: Padding = ((0, 0), (0, 0)),
    dilation: Sizes = (1, 1),
    groups: int = 1,
) -> None:
    """dW += Σ over all windows of x' · dy, and db += Σ dy."""
    size = dweight.ndim - 2
    seen = _windows(_padded(x, padding), dweight.shape[:size], stride, dilation)
    axes = tuple(range(1 + size))
    parts = zip(np.split(seen, groups, axis=1 + size), np.split(dy, groups, axis=-1), strict=True)
    sums = [np.tensordot(part, d, (axes, axes)) for part, d in parts]  # channels, window, outputs
    dweight += np.moveaxis(np.concatenate(sums, axis=-1), 0, size)
    if dbias is not None:
        dbias += column_sum(dy)


@kernel(
    f"!dx{_X} weight{_WEIGHT} dy{_Y} $scratch[*] {_GEOMETRY} parts:int",
    composite=True,
    work=_work,
    products=_flops,
)
def conv_grad_input(
    dy: Array,
    weight: Array,
    x_shape: tuple[int, ...],
    stride: Sizes = (1, 1),
    padding: Padding = ((0, 0), (0, 0)),
    dilation: Sizes = (1, 1),
    groups: int = 1,
) -> Array:
    """dx = Σ over the windows that an element of x is in, of dy · W'."""
    size = weight.ndim - 2
    dx = _padded(np.zeros(x_shape, dy.dtype), padding)
    # For each place in the window, a view of the elements of x that lie there.
    views = _windows(dx, weight.shape[:size], stride, dilation, writeable=True)
    for place in np.ndindex(weight.shape[:size]):
        parts = zip(
            np.split(dy, groups, axis=-1), np.split(weight[place], groups, axis=-1), strict=True
        )
        views[(..., *place)] += np.concatenate([d @ w.T for d, w in parts], axis=-1)
    return _without(dx, padding)


# Partial sums of dW, each over some of the images; `column_sum` adds them up.
declare(
    "conv_grad_weight",
    f"x{_X} !sums{_WEIGHT} dy{_Y} $scratch[*] {_GEOMETRY} parts:int",
    work=_work,
    products=_flops,
)
