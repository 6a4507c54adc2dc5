"""Every float32 through exp, log, sigmoid and tanh, on every instruction set: the worst error.

    make exhaustive

The error is counted in units in the last place of the right result, which float64 gives. The
tests of the suite do the same for a dense sample.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from minidl import _kernels, kernels

CHUNK = 2**22
CHUNKS = 2**32 // CHUNK
LIMIT = 2.0


def sigmoid(x: np.ndarray) -> np.ndarray:
    """The logistic function in float64."""
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


EXACT: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "exp": np.exp,
    "log": np.log,
    "sigmoid": sigmoid,
    "tanh": np.tanh,
}
Worst = dict[tuple[str, str], tuple[float, float]]  # (set, function): (ulp, x)


def wrong(got: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Infinity where got is not right, be that infinity or NaN; else 0."""
    same = (got == right) | (np.isnan(got) & np.isnan(right))
    return np.where(same, 0.0, np.inf)


def worst_of(chunk: int) -> Worst:
    """The worst errors among the float32 of one stretch of bit patterns."""
    np.seterr(all="ignore")  # exp overflows, and log of a negative number is NaN, rightly
    x = np.arange(chunk * CHUNK, (chunk + 1) * CHUNK, dtype=np.uint32).view(np.float32)
    x = x[np.isfinite(x)]
    worst: Worst = {}
    for name, exact in EXACT.items():
        right = exact(x.astype(np.float64))
        rounded = right.astype(np.float32)
        unit = np.spacing(np.abs(rounded)).astype(np.float64)
        for isa in _kernels.available()[1:]:
            _kernels.select(isa)
            got = getattr(kernels, name)(x)
            error = np.where(np.isfinite(rounded), np.abs(got - right) / unit, wrong(got, rounded))
            place = int(error.argmax()) if len(error) else -1
            worst[isa, name] = (error[place], x[place]) if place >= 0 else (0.0, 0.0)
    return worst


def main() -> int:
    """Print the worst error of every function on every set; 1 if one is over the limit."""
    worst: Worst = {}
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for done, found in enumerate(pool.map(worst_of, range(CHUNKS)), 1):
            for key, value in found.items():
                worst[key] = max(worst.get(key, (0.0, 0.0)), value)
            if done % (CHUNKS // 16) == 0:
                print(f"{done / CHUNKS:4.0%} of all float32", flush=True)
    for (isa, name), (error, x) in sorted(worst.items()):
        print(f"{isa:<9} {name:<8} at most {error:.3f} ulp, at {x!r}")
    return int(any(error > LIMIT for error, _ in worst.values()))


if __name__ == "__main__":
    raise SystemExit(main())
