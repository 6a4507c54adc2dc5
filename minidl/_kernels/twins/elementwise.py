"""The NumPy twins of elementwise kernels and of dropout."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl._kernels.signature import EXP, kernel
from minidl.typing import Array


@kernel(
    "x[n] dimensions:int shape:int*8 strides:int*8 -> y[n]",
    composite=True,
    work=lambda size: size["shape"][: size["dimensions"]] or (1,),
)
def copy(x: Array) -> Array:
    """y = x, C-contiguous."""
    return np.array(x, order="C")


@kernel(
    "a[rows,first] b[rows,second] c[rows,third]? d[rows,fourth]? -> y[rows,*]",
    composite=True,
)
def concat(a: Array, b: Array, c: Array | None = None, d: Array | None = None) -> Array:
    """y = (a, b, c, d), side by side along the last dimension."""
    return np.concatenate([part for part in (a, b, c, d) if part is not None], axis=-1)


@kernel("!x[n]")
def clear(x: Array) -> None:
    """x ← 0, in place."""
    x[...] = 0


@kernel("a[n] b[n] -> y[n]", flops=1)
def add(a: Array, b: Array) -> Array:
    """y = a + b."""
    return a + b


@kernel("a[n] b[n] -> y[n]", flops=1)
def multiply(a: Array, b: Array) -> Array:
    """y = a · b, element by element."""
    return a * b


@kernel("~x[n] factor", flops=1)
def scale(x: Array, factor: float) -> None:
    """x ← factor · x, in place."""
    x *= x.dtype.type(factor)


@kernel("x[n] -> y[n]", flops=EXP)
def exp(x: Array) -> Array:
    """y = exp(x)."""
    return np.exp(x)


@kernel("x[n] -> y[n]", flops=EXP)
def log(x: Array) -> Array:
    """y = log(x), the natural logarithm."""
    return np.log(x)


@kernel("~state:uint64[2] -> key:uint32[2]", threads="one")
def dropout_key(state: Array) -> Array:
    """Draw the two 32-bit words that decide a mask; ``state`` is uint64 {seed, calls so far}."""
    state[1] += np.uint64(1)
    word = _splitmix64(int(state[0]) + int(state[1]) * 0x9E3779B97F4A7C15)
    return np.array([word & 0xFFFFFFFF, word >> 32], dtype=np.uint32)


@kernel("x[n] key:uint32[2] p:[0,1) -> y[n]", flops=2, integers=14)
def dropout(x: Array, key: Array, p: float) -> Array:
    """y = x / (1 - p) with probability 1 - p, else 0.

    The same key gives the same mask, so the gradient is the same function of dy.
    """
    index = np.arange(x.size, dtype=np.uint64)
    block = (index >> np.uint64(32)).astype(np.uint32)
    bits = _mix32(index.astype(np.uint32) ^ _mix32(block, key[0]), key[1])
    keep = (bits >= np.uint32(p * 2.0**32)).reshape(x.shape)
    return np.where(keep, x * x.dtype.type(1 / (1 - p)), x.dtype.type(0))


@kernel(
    "x[images,pixels,channels] key:uint32[2] p:[0,1) -> y[images,pixels,channels]",
    composite=True,
    flops=2,
)
def dropout_channels(x: Array, key: Array, p: float) -> Array:
    """y = x / (1 - p) in channels that are kept, with probability 1 - p, else 0.

    Every sample has channels of its own: one element of the mask is for all pixels of a channel.
    """
    batch, channels = len(x), x.shape[-1]
    kept = dropout(np.ones((batch, channels), x.dtype), key, p) > 0
    kept = kept.reshape(batch, *[1] * (x.ndim - 2), channels)
    return np.where(kept, x * x.dtype.type(1 / (1 - p)), x.dtype.type(0))


def _splitmix64(z: int) -> int:
    """Return what SplitMix64 outputs for a state (Steele, Lea and Flood 2014)."""
    z &= 2**64 - 1
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & 2**64 - 1
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & 2**64 - 1
    return z ^ (z >> 31)


def _mix32(h: Any, key: Any) -> Any:
    """Mix h and the key, so that every bit of both changes the upper bits of the result.

    The multipliers are those of MurmurHash3. Its last step is left out: it changes no upper bit.
    """
    h = (h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B) ^ key
    return (h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35)
