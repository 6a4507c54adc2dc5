"""How close the matrix product comes to the multiply-adds this machine can do at most.

    python benchmarks/fma.py [--dtype float32] [--rounds 15]

For every instruction set, on one thread: the rate of a loop of nothing but multiply-adds, and
the rate of A · B at several sizes, both repeated inside C. The two alternate round by round, so
that a change of clock rate between rounds cancels; the fractions are the median and the best of
the rounds'. Where they differ much, something else uses the core: a second hardware thread
slows the product, which loads from the cache, more than the loop that it is compared with.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from time import perf_counter

import numpy as np

from minidl import _kernels as kernels
from minidl._kernels import dispatch

SIZES = (32, 64, 128, 256, 512, 1024)


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Seconds of one run of the kernel behind a call, of `repeats` in a row."""
    dispatch.set_repeats(repeats)
    try:
        start = perf_counter()
        call()
        return (perf_counter() - start) / repeats
    finally:
        dispatch.set_repeats(1)


def peak(dtype: str) -> float:
    """GFLOP/s of multiply-adds alone."""
    x = np.ones(64, dtype)
    start = perf_counter()
    flops = dispatch.fma_peak(x, 100_000)
    return flops / (perf_counter() - start) / 1e9


def aligned(size: int, dtype: str, rng: np.random.Generator) -> np.ndarray:
    """A square matrix that begins on a cache line."""
    spare = 64 // np.dtype(dtype).itemsize
    buffer = np.empty(size * size + spare, dtype)
    start = -buffer.ctypes.data % 64 // buffer.itemsize
    matrix = buffer[start : start + size * size].reshape(size, size)
    matrix[...] = rng.normal(size=matrix.shape)
    return matrix


def measure(size: int, dtype: str, rounds: int) -> tuple[float, float, float, float]:
    """(GFLOP/s of the product, GFLOP/s at most, fraction), medians, and the best fraction."""
    a, b, c = (aligned(size, dtype, np.random.default_rng(seed)) for seed in range(3))
    gflops = 2 * size**3 / 1e9
    repeats = max(1, round(0.05 / gflops))
    rows = []
    for _ in range(rounds):
        ceiling = peak(dtype)
        rate = gflops / seconds(lambda: kernels.matmul(a, b, out=c), repeats)
        rows.append((rate, ceiling, rate / ceiling))
    rate, ceiling, fraction = np.median(rows, axis=0).tolist()
    return rate, ceiling, fraction, max(row[2] for row in rows)


def main() -> None:
    """Print one table per instruction set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    chosen = kernels.isa
    for isa in [name for name in kernels.available() if name != "reference"]:
        kernels.select(isa)
        print(f"\n{isa}, {options.dtype}, one thread")
        print("size    GFLOP/s  at most  fraction  best round")
        for size in SIZES:
            rate, ceiling, fraction, best = measure(size, options.dtype, options.rounds)
            print(f"{size:<6}{rate:9.1f}{ceiling:9.1f}{fraction:10.0%}{best:12.0%}", flush=True)
    kernels.select(chosen)


if __name__ == "__main__":
    main()
