"""Emitters of convolutions, and of layers that put the channels elsewhere."""

from __future__ import annotations

import math

from minidl import nn
from minidl.c.emitters import emit, emits
from minidl.c.pooling import pair, sizes_of
from minidl.c.program import Program, Value


@emits(nn.Conv1d, nn.Conv2d)
def convolution(layer: nn.Conv2d, x: Value, program: Program) -> Value:
    """y = b + the sum of all pixels of a window times W. W is kept as outputs x pixels x depth."""
    sizes = sizes_of(layer, x, program)
    window = layer.window
    counts = window.sizes_after(sizes)
    before = tuple(before for before, _ in window.padding_for(sizes))
    *pixels, depth, outputs = layer.weight.shape
    turned = layer.weight.data.reshape(math.prod(pixels) * depth, outputs).T
    weight = program.table("weight", turned)
    bias = "NULL" if layer.bias is None else program.table("bias", layer.bias.data)
    y = program.new(*counts, outputs)
    places = (pair(window.kernel, 1), pair(window.stride, 1), pair(before, 0))
    program.run(
        f"convolution({pair(sizes, 1)}, {pair(counts, 1)}, {x.columns}, {depth}, {outputs},",
        f"    {', '.join((*places, pair(window.dilation, 1)))},",
        f"    {weight}, {bias}, $x, $y);",
        x=x,
        y=y,
    )
    program.multiply_adds += math.prod(counts) * layer.weight.size
    return y


@emits(nn.ChannelsFirst)
def channels_first(layer: nn.ChannelsFirst, x: Value, program: Program) -> Value:
    """A layer between two transposes."""
    comment, (channels, *sizes) = program.comment, x.shape
    if sizes:
        last = program.new(*sizes, channels)
        program.run(f"transpose({channels}, {math.prod(sizes)}, $x, $y);", x=x, y=last)
        x = last
    y = emit(layer.inner, x, program)
    program.comment = comment
    return with_channels_first(y, program)


def with_channels_first(x: Value, program: Program) -> Value:
    """Return x with its last axis before the others."""
    *sizes, channels = x.shape
    if not sizes:
        return x
    y = program.new(channels, *sizes)
    program.run(f"transpose({x.rows}, {channels}, $x, $y);", x=x, y=y)
    return y
