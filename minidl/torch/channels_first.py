"""The modules of a ``ChannelsFirst``: PyTorch's own, which have the channels on axis 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from minidl import nn
from minidl.nn.layer import Layer
from minidl.torch import branch_modules, image_modules
from minidl.torch.making import Modules

# Makes the module of a layer for images of so many dimensions, 1 for sequences.
Maker = Callable[[Any, int], Any]

# Layers whose module is the same wherever the channels are.
SAME = (
    *(nn.ReLU, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus),
    *(nn.Sigmoid, nn.Tanh, nn.Softsign, nn.HardSigmoid, nn.HardSwish, nn.Identity),
    *(nn.Add, nn.Multiply, nn.Select),
)


def _of_dimensions(name: str, dimensions: int) -> Any:
    """Return a class of PyTorch's, whose name ends in the number of dimensions."""
    return getattr(torch.nn, f"{name}{dimensions}d")


def _padding(window: Any) -> Any:
    """Return what PyTorch calls this padding; None if it has no such padding."""
    if isinstance(window.padding, str):
        strided = any(step > 1 for step in window.stride)
        return window.padding if window.padding != "causal" and not strided else None
    symmetric = all(before == after for before, after in window.padding)
    return tuple(before for before, _ in window.padding) if symmetric else None


def _convolution(layer: Any, dimensions: int) -> Any:
    padding = _padding(layer.window)
    if padding is None:
        ours = image_modules.Conv1d if dimensions == 1 else image_modules.Conv2d
        return ours(layer, channels_first=True)
    options = image_modules.convolution_options(layer)
    return _of_dimensions("Conv", dimensions)(**options, padding=padding)


def _pool(layer: Any, dimensions: int) -> Any:
    window, counts = layer.window, getattr(layer, "count_include_pad", None)
    kind = "max" if counts is None else "avg"
    padding = (0,) * dimensions if window.padding == "valid" else _padding(window)
    options: dict[str, Any] = {"ceil_mode": True} if window.ceil_mode else {}
    if kind == "avg":
        options["count_include_pad"] = counts
    elif max(window.dilation) > 1:
        options["dilation"] = _one_if_equal(window.dilation)
    is_dilated_mean = kind == "avg" and max(window.dilation) > 1
    if padding is None or isinstance(padding, str) or is_dilated_mean:
        return image_modules.Pool(kind, window, bool(counts), channels_first=True)
    theirs = _of_dimensions("MaxPool" if kind == "max" else "AvgPool", dimensions)
    places = map(_one_if_equal, (window.kernel, window.stride, padding))
    return theirs(*places, **options)


def _one_if_equal(numbers: tuple[int, ...]) -> Any:
    """Return one number for all dimensions, if it is the same for each."""
    return numbers[0] if len(set(numbers)) == 1 else numbers


def _global_pool(layer: Any, dimensions: int) -> Any:
    kind = "max" if isinstance(layer, nn.GlobalMaxPool) else "avg"
    if not layer.keepdims:
        return image_modules.GlobalPool(kind, channels_first=True)
    return _of_dimensions(f"Adaptive{kind.capitalize()}Pool", dimensions)(1)


def _upsample(layer: Any, dimensions: int) -> Any:
    factors = layer.scale_factor
    theirs = tuple(map(float, factors)) if isinstance(factors, tuple) else float(factors)
    return torch.nn.Upsample(scale_factor=theirs)


def _batch_norm(layer: Any, dimensions: int) -> Any:
    kind = _of_dimensions("BatchNorm", dimensions)
    return kind(layer.in_features, layer.eps, layer.momentum)


def _dropout(layer: Any, dimensions: int) -> Any:
    return (_of_dimensions("Dropout", dimensions) if layer.whole_channels else torch.nn.Dropout)(
        layer.p
    )


def _flatten(layer: Any, dimensions: int) -> Any:
    axes = layer.start_dim, layer.end_dim
    if axes == (1, -1):
        return (
            torch.nn.Flatten()
            if layer.channels_first
            else image_modules.Flatten(channels_first=True, rows_first=False)
        )
    if axes == (1, -2) or axes == (1, dimensions):  # all pixels in a sequence
        return torch.nn.Flatten(2)
    raise TypeError(f"to_torch: {layer.label} has no counterpart with the channels first")


MAKERS: dict[type[Layer], Maker] = {
    **dict.fromkeys((nn.Conv1d, nn.Conv2d), _convolution),
    **dict.fromkeys((nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d), _pool),
    **dict.fromkeys((nn.GlobalMaxPool, nn.GlobalAvgPool), _global_pool),
    nn.Upsample: _upsample,
    nn.BatchNorm: _batch_norm,
    nn.Dropout: _dropout,
    nn.Flatten: _flatten,
    nn.PReLU: lambda layer, dimensions: torch.nn.PReLU(layer.in_features or 1),
    nn.Softmax: lambda layer, dimensions: torch.nn.Softmax(dim=1),
    nn.LogSoftmax: lambda layer, dimensions: torch.nn.LogSoftmax(dim=1),
    nn.Concat: lambda layer, dimensions: branch_modules.Join("concat", channels_first=True),
    nn.Split: lambda layer, dimensions: branch_modules.Split(layer.sizes, channels_first=True),
}


def module_of(
    layer: nn.ChannelsFirst, made: Callable[[Layer], Any], reordered: frozenset[int]
) -> Any:
    """Return the module of the layer inside; ``made`` makes those of rows.

    ``reordered`` has the ``id`` of each Flatten that gives features in PyTorch's order there.
    """
    sizes = (
        getattr(inner, "DIMENSIONS", getattr(inner, "dimensions", None))
        for _, inner in layer.layers()
    )
    dimensions = next((size for size in sizes if size), 2)
    return _Modules(made, dimensions, reordered).of(layer.inner)


class _Modules(Modules):
    """The modules of layers in a ``ChannelsFirst``."""

    def __init__(
        self, made: Callable[[Layer], Any], dimensions: int, reordered: frozenset[int]
    ) -> None:
        super().__init__(reordered)
        self.made, self.dimensions = made, dimensions
        self.rows = False  # whether the pixels are in rows now

    def new(self, layer: Layer) -> Any:
        match layer:
            case nn.Sequential():
                return torch.nn.Sequential(*map(self.of, layer.stack))
            case nn.Residual():
                body, shortcut = self._beside(layer.body, layer.shortcut)
                return branch_modules.Residual(body, shortcut)
            case nn.Parallel() if layer.join != "stack" and not self.rows:
                branches = self._beside(*layer.branches.values())
                named = dict(zip(layer.branches, branches, strict=True))
                return branch_modules.Parallel(named, layer.join, channels_first=not self.rows)
        known: Any = {*MAKERS, *SAME}
        kind: Any = next((kind for kind in type(layer).__mro__ if kind in known), None)
        ours = kind is not None and type(layer).forward is kind.forward
        if self.rows and kind in (nn.BatchNorm, nn.PReLU):
            return MAKERS[kind](layer, 1)
        if self.rows or (ours and kind in SAME):
            return self.made(layer)
        if not ours:
            raise TypeError(f"to_torch: {layer.label} has no counterpart with the channels first")
        self.rows = isinstance(layer, nn.Flatten) and layer.end_dim == -1
        self.rows |= isinstance(layer, nn.GlobalMaxPool | nn.GlobalAvgPool) and not layer.keepdims
        if id(layer) in self.reordered:
            return image_modules.Flatten(channels_first=True, rows_first=True, reordered=True)
        return MAKERS[kind](layer, self.dimensions)

    def _beside(self, *layers: Layer | None) -> list[Any]:
        """Return the modules of layers that take the same input."""
        before, modules = self.rows, []
        for layer in layers:
            self.rows = before
            modules.append(layer and self.of(layer))
        return modules
