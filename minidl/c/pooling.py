"""Emitters of pooling and upsampling. A sequence is an image of one row."""

from __future__ import annotations

from minidl import nn
from minidl.c.emitters import emits
from minidl.c.program import Program, Shape, Value
from minidl.nn.layer import Layer
from minidl.nn.windows import Window


@emits(nn.MaxPool1d, nn.MaxPool2d)
def max_pool(layer: nn.MaxPool2d, x: Value, program: Program) -> Value:
    """The largest pixel of each window."""
    return _pooled("max_pool", layer, layer.window, x, program)


@emits(nn.AvgPool1d, nn.AvgPool2d)
def avg_pool(layer: nn.AvgPool2d, x: Value, program: Program) -> Value:
    """The mean of each window."""
    if not layer.count_include_pad:
        return _pooled("avg_pool", layer, layer.window, x, program, pair((0, 0), 0))
    sizes = sizes_of(layer, x, program)
    padding = layer.window.padding_for(sizes)
    counted = (n + sum(pair) for n, pair in zip(sizes, padding, strict=True))
    return _pooled("avg_pool", layer, layer.window, x, program, pair(tuple(counted), 1))


@emits(nn.GlobalMaxPool, nn.GlobalAvgPool)
def global_pool(layer: nn.GlobalMaxPool | nn.GlobalAvgPool, x: Value, program: Program) -> Value:
    """The largest pixel of an image, or the mean of all: those of one window."""
    sizes = sizes_of(layer, x, program)
    window = Window(type(layer).__name__, len(sizes), sizes)
    if isinstance(layer, nn.GlobalMaxPool):
        y = _pooled("max_pool", layer, window, x, program)
    else:
        y = _pooled("avg_pool", layer, window, x, program, pair((0, 0), 0))
    return y if layer.keepdims else Value(y.number, (x.columns,))


@emits(nn.Upsample)
def upsample(layer: nn.Upsample, x: Value, program: Program) -> Value:
    """Every pixel several times."""
    sizes = sizes_of(layer, x, program)
    factors = layer.factors(len(sizes))
    y = program.new(*(n * times for n, times in zip(sizes, factors, strict=True)), x.columns)
    line = f"upsample({pair(sizes, 1)}, {x.columns}, {pair(factors, 1)}, $x, $y);"
    program.run(line, x=x, y=y)
    return y


def _pooled(
    function: str, layer: Layer, window: Window, x: Value, program: Program, *words: str
) -> Value:
    """Call a function on all windows; return y."""
    sizes = sizes_of(layer, x, program)
    counts = window.sizes_after(sizes)
    before = tuple(before for before, _ in window.padding_for(sizes))
    y = program.new(*counts, x.columns)
    places = (pair(window.kernel, 1), pair(window.stride, 1), pair(before, 0))
    program.run(
        f"{function}({pair(sizes, 1)}, {pair(counts, 1)}, {x.columns}, {', '.join(places)},",
        f"    {', '.join((pair(window.dilation, 1), *words))}, $x, $y);",
        x=x,
        y=y,
    )
    return y


def sizes_of(layer: Layer, x: Value, program: Program) -> Shape:
    """Return height and width of an image, or the steps of a sequence."""
    if program.steps:
        raise ValueError(
            f"export: {layer.label} sees several steps of a sequence at once, so that the network "
            "cannot run step by step; give input_shape=(steps, features)"
        )
    dimensions = getattr(layer, "dimensions", getattr(layer, "DIMENSIONS", len(x.shape) - 1))
    if len(x.shape) != dimensions + 1 or dimensions not in (1, 2):
        wanted = "(steps, channels)" if dimensions == 1 else "(height, width, channels)"
        raise ValueError(
            f"export: {layer.label} takes no samples of shape {x.shape}; give input_shape={wanted}"
        )
    return x.shape[:-1]


def pair(numbers: Shape, of_one_row: int) -> str:
    """Write two numbers in C; in front of a single one that of an image of one row."""
    first, second = numbers if len(numbers) == 2 else (of_one_row, *numbers)
    return f"(size_t[]){{{first}, {second}}}"
