"""The cases of kernel_cases.py that belong to pooling, upsampling and dropout by channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl._kernels import twins

if TYPE_CHECKING:
    from kernel_cases import Draw

Args = dict[str, Any]


def windows(draw: Draw) -> tuple[Args, tuple[int, ...]]:
    """Windows of one or two dimensions, and sizes that they fit into; often those of 2 by 2."""
    words: Args = {}
    dimensions = 1 + draw.flag()
    if draw.flag():
        kernel = stride = (2,) * dimensions
        padding = ((0, 0),) * dimensions
    else:
        kernel, stride = (tuple(map(int, draw.rng.integers(1, 5, dimensions))) for _ in range(2))
        dilation = tuple(map(int, draw.rng.integers(1, 4, dimensions)))
        words = {"dilation": dilation} if draw.flag() else {}
        reach = _reach(kernel, **words)
        padding = tuple(tuple(map(int, draw.rng.integers(0, r, 2))) for r in reach)
    least = _reach(kernel, **words)
    if draw.flag():
        words["ceil_mode"] = True
        least = tuple(
            max(1, r - sum(pair) - s + 1) for r, pair, s in zip(least, padding, stride, strict=True)
        )
    sizes = tuple(n + int(draw.rng.integers(0, 9)) for n in least)
    return {"kernel": kernel, "stride": stride, "padding": padding, **words}, sizes


def _reach(kernel: tuple[int, ...], dilation: tuple[int, ...] = (1, 1)) -> tuple[int, ...]:
    return tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=False))


def lengths(draw: Draw, batch: int, sizes: tuple[int, ...]) -> np.ndarray | None:
    """None, or of every image the columns that are no padding."""
    return draw.rng.integers(1, sizes[-1] + 1, batch) if draw.flag() and draw.flag() else None


def images(draw: Draw, sizes: tuple[int, ...]) -> np.ndarray:
    """Often with equal pixels, as behind a ReLU."""
    x = draw.array(int(draw.rng.integers(1, 6)), *sizes, draw.size())
    return np.maximum(x, 0) if draw.flag() else x


def max_pool(draw: Draw) -> Args:
    where, sizes = windows(draw)
    x = images(draw, sizes)
    if draw.flag() and draw.flag():
        x[draw.rng.uniform(size=x.shape) < 0.1] = draw.rng.choice([np.nan, np.inf, -np.inf])
    return {"x": x, **where, "lengths": lengths(draw, len(x), sizes)}


def max_pool_grad(draw: Draw) -> Args:
    args = max_pool(draw)
    y = twins.max_pool(**args)
    return {"dy": draw.array(*y.shape), "x": args.pop("x"), "y": y, **args}


def avg_pool(draw: Draw) -> Args:
    where, sizes = windows(draw)
    x = images(draw, sizes)
    more = {"count_include_pad": draw.flag(), "lengths": lengths(draw, len(x), sizes)}
    return {"x": x, **where, **more}


def avg_pool_grad(draw: Draw) -> Args:
    args = avg_pool(draw)
    y = twins.avg_pool(**args)
    return {"dy": draw.array(*y.shape), "sizes": args.pop("x").shape[1:-1], **args}


def upsample(draw: Draw) -> Args:
    where, sizes = windows(draw)
    return {"x": images(draw, sizes), "scale": where["kernel"]}


def upsample_grad(draw: Draw) -> Args:
    args = upsample(draw)
    return {"dy": draw.array(*twins.upsample(**args).shape), "scale": args["scale"]}


def dropout_channels(draw: Draw) -> Args:
    key = draw.rng.integers(2**32, size=2, dtype=np.uint32)
    sizes = tuple(draw.rng.integers(1, 9, draw.rng.integers(3)))
    return {"x": images(draw, sizes), "key": key, "p": draw.rng.uniform()}


POOLING_CASES: dict[str, Callable[[Draw], Args]] = {
    "max_pool": max_pool,
    "max_pool_grad": max_pool_grad,
    "avg_pool": avg_pool,
    "avg_pool_grad": avg_pool_grad,
    "upsample": upsample,
    "upsample_grad": upsample_grad,
    "dropout_channels": dropout_channels,
}
