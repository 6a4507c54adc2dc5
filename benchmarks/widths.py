"""Time products of every width, to find those that take much longer than the next round width.

    python benchmarks/widths.py
    python benchmarks/widths.py --isa avx2 --dtype float64 --widths 64

Networks may have any width. Every width w is timed beside the next multiple W of the vector width,
which needs more work: a good kernel takes less time for w. A cliff is a width that takes more than
1.3 times the time of W. There are three forms of each product, ::

    A@B     (batch x w) @ (w x w)
    A.T@B   (batch x w).T @ (batch x w)
    A@B.T   (batch x w) @ (w x w).T

and then products of one row, which read a matrix once. They are compared with the bandwidth of the
level of memory that they fit in.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from minidl import _kernels, kernels
from minidl.profiling.ceilings import Probes, aligned, repeats_for
from minidl.profiling.measuring import in_c

FORMS = ("A@B", "A.T@B", "A@B.T")
BATCHES = (32, 128)
ROWS = (256, 512, 1024, 2048)  # sizes of matrix times vector
LANES = {"baseline": 16, "avx2": 32, "avx512": 64}  # bytes of a vector
CLIFF = 1.3
ROUNDS = 15
SECONDS = 2e-4  # seconds of one product in a round


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Times of matrix products of every width.")
    # Not the twin: it cannot be repeated inside C.
    isas = [isa for isa in _kernels.available() if isa in LANES]
    parser.add_argument("--isa", choices=isas, default=_kernels.isa)
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--widths", type=int, default=130, help="the largest (default: 130)")
    options = parser.parse_args()
    if options.widths < 1:
        parser.error("--widths must be at least 1")
    if options.isa not in isas:
        parser.error(f"choose one of the compiled instruction sets: {isas}")
    _kernels.select(options.isa)
    dtype = np.dtype(options.dtype)
    lanes = LANES[options.isa] // dtype.itemsize
    print(f"{options.isa}, {dtype}: widths 1 to {options.widths} beside multiples of {lanes}")
    for form in FORMS:
        for batch in BATCHES:
            _print_sweep(form, batch, _sweep(form, batch, options.widths, lanes, dtype))
    print("\nOne row, beside the bandwidth of reading")
    for size in ROWS:
        for form in FORMS:
            print(_one_row(form, size, dtype), flush=True)


def _product(form: str, m: int, k: int, n: int, dtype: Any) -> Callable[[], Any]:
    """Make a call of one form of an m x k x n product."""
    rng = np.random.default_rng(0)
    transpose_a, transpose_b = form == "A.T@B", form == "A@B.T"
    a, b = (
        aligned((k, m) if transpose_a else (m, k), dtype),
        aligned((n, k) if transpose_b else (k, n), dtype),
    )
    a[...], b[...] = rng.standard_normal(a.shape), rng.standard_normal(b.shape)
    return partial(kernels.matmul, a, b, aligned((m, n), dtype), transpose_a, transpose_b)


def _sweep(
    form: str, batch: int, widths: int, lanes: int, dtype: Any
) -> Iterator[tuple[float, int]]:
    """Yield the ratio time(w) / time(W) of every width w, with w.

    The rounds alternate, and the fastest of each counts, because slower ones were interrupted.
    """
    for width in range(1, widths + 1):
        whole = -(-width // lanes) * lanes
        if whole == width:
            continue
        calls, repeats = [], []
        for w in (width, whole):
            m, k, n = (w, batch, w) if form == "A.T@B" else (batch, w, w)
            calls.append(_product(form, m, k, n, dtype))
            repeats.append(repeats_for(partial(_total, calls[-1]), SECONDS))
        rounds = [
            [in_c(call, count) for call, count in zip(calls, repeats, strict=True)]
            for _ in range(ROUNDS)
        ]
        time, beside = map(min, zip(*rounds, strict=True))
        yield time / beside, width


def _total(call: Callable[[], Any], count: int) -> float:
    return in_c(call, count) * count


def _print_sweep(form: str, batch: int, found: Iterator[tuple[float, int]]) -> None:
    ratios = sorted(found, reverse=True)
    cliffs = [f"{width} ({ratio:.2f})" for ratio, width in ratios if ratio > CLIFF]
    line = f"{form:<6} batch {batch:<4}"
    if ratios:
        line += f" worst ratio {ratios[0][0]:.2f} at width {ratios[0][1]:<4}"
    print(line + (f" above {CLIFF}: {', '.join(cliffs)}" if cliffs else " no cliff"), flush=True)


def _one_row(form: str, size: int, dtype: Any) -> str:
    """Measure a batch of one through a layer of size x size: bytes per second, and the fraction."""
    m, k, n = (size, 1, size) if form == "A.T@B" else (1, size, size)
    call, probes = _product(form, m, k, n, dtype), Probes(dtype)
    nbytes = (m * k + k * n + m * n) * dtype.itemsize
    level = probes.level_of(nbytes)
    repeats = repeats_for(partial(_total, call), 10 * SECONDS)
    rounds = [(nbytes / in_c(call, repeats), probes.bandwidth(level)) for _ in range(ROUNDS)]
    speed, most = map(max, zip(*rounds, strict=True))
    return f"{form:<6}{f'{m}x{k}x{n}':>16} {speed / 1e9:7.1f} GB/s, {speed / most:4.0%} of {level}"


if __name__ == "__main__":
    main()
