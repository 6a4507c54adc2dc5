"""Cases of the kernels that see images through windows: convolutions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Args = dict[str, Any]


def geometry(draw: Any) -> tuple[Args, tuple[int, ...], tuple[int, ...]]:
    """Where windows lie, as the kernels take it; the sizes of the window and of an image."""
    dimensions = int(draw.rng.integers(1, 3))
    kernel, stride, dilation = (
        tuple(int(n) for n in draw.rng.integers(1, most, dimensions)) for most in (6, 4, 4)
    )
    if draw.flag():
        stride = dilation = (1,) * dimensions
    padding = [tuple(int(n) for n in draw.rng.integers(0, 4, 2)) for _ in kernel]
    least = [
        max(1, d * (k - 1) + 1 - sum(pair))
        for k, d, pair in zip(kernel, dilation, padding, strict=True)
    ]
    sizes = tuple(int(n + draw.rng.integers(12)) for n in least)
    placed = {"stride": stride, "padding": tuple(padding), "dilation": dilation}
    return placed, kernel, sizes


def channels(draw: Any) -> tuple[int, int, int]:
    """Groups, channels of a group, outputs of a group; depthwise now and then."""
    if draw.rng.integers(5) == 0:
        return draw.size(), 1, 1
    groups = int(draw.rng.choice([1, 1, 2, 3]))
    return groups, int(draw.rng.choice([1, 3, 6, 17])), int(draw.rng.choice([1, 5, 7, 16, 20, 66]))


def conv(draw: Any) -> Args:
    placed, kernel, sizes = geometry(draw)
    groups, depth, outputs = channels(draw)
    return {
        "x": draw.array(int(draw.rng.choice([1, 2, 5, 19])), *sizes, groups * depth),
        "weight": draw.array(*kernel, depth, groups * outputs),
        "bias": draw.optional(groups * outputs),
        **placed,
        "groups": groups,
        "activation": draw.rng.choice([None, "relu", "sigmoid", "tanh"]),
    }


def _output_shape(args: Args) -> tuple[int, ...]:
    kernel = args["weight"].shape[:-2]
    counts = [
        (n + sum(pair) - d * (k - 1) - 1) // s + 1
        for n, k, s, pair, d in zip(
            args["x"].shape[1:-1],
            kernel,
            args["stride"],
            args["padding"],
            args["dilation"],
            strict=True,
        )
    ]
    return (len(args["x"]), *counts, args["weight"].shape[-1])


def conv_grad_input(draw: Any) -> Args:
    args = conv(draw)
    geometry = {name: args[name] for name in ("stride", "padding", "dilation", "groups")}
    dy = draw.array(*_output_shape(args))
    return {"dy": dy, "weight": args["weight"], "x_shape": args["x"].shape, **geometry}


def conv_grad_params(draw: Any) -> Args:
    args = conv(draw)
    geometry = {name: args[name] for name in ("stride", "padding", "dilation", "groups")}
    dy = draw.array(*_output_shape(args))
    dbias = draw.optional(dy.shape[-1])
    dweight = draw.array(*args["weight"].shape)
    return {"x": args["x"], "dy": dy, "dweight": dweight, "dbias": dbias, **geometry}


WINDOW_CASES: dict[str, Callable[[Any], Args]] = {
    "conv": conv,
    "conv_grad_input": conv_grad_input,
    "conv_grad_params": conv_grad_params,
}
