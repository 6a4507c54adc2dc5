"""Compare L-BFGS with SciPy's: how often must the loss be computed until it is small enough?

    python benchmarks/lbfgs.py             # ten starts of each problem, and Adam on one of them
    python benchmarks/lbfgs.py --starts 3

Both minimise the same functions from the same starts, with ten pairs and without tolerances, until
the loss is first at or below a target. What counts is the number of evaluations of loss and
gradient until then: its median over the starts. Starts from which neither arrives, because they
lead to another minimum, are left out and counted.

Adam then gets as many seconds for the sine as L-BFGS has taken, from the same starts, in recorded
steps on all rows, with the best of several learning rates.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

import minidl
from minidl import datasets, nn, optim
from minidl.nn.parameter import Parameter

MOST = 20_000  # evaluations, of either
RATES = (1e-3, 3e-3, 1e-2, 3e-2)

Vector = Any
Objective = Callable[[], float]  # computes the loss of the parameters, and their gradient


@dataclass
class Problem:
    """A loss to minimise from one start: its parameters, and a closure for ``LBFGS``."""

    parameters: list[Parameter]
    closure: Callable[[Any], Objective]  # of an optimizer: clears, computes, returns the loss
    target: float

    def counted(self, optimizer: optim.Optimizer) -> tuple[Objective, Callable[[], int | None]]:
        """Return the closure, and a function that says when it was first at the target."""
        inner = self.closure(optimizer)
        calls, reached = 0, None

        def evaluate() -> float:
            nonlocal calls, reached
            calls += 1
            loss = float(inner())
            if loss <= self.target and reached is None:
                reached = calls
                raise Reached
            return loss

        return evaluate, lambda: reached


class Reached(Exception):  # noqa: N818  (it ends a search that was successful)
    """The loss is at its target."""


# --- the problems --------------------------------------------------------------------------------


def rosenbrock(size: int, seed: int) -> Problem:
    """Σ 100 (w₊ - w²)² + (1 - w)², a curved valley, from a start within ±2."""
    w = Parameter((size,), nn.init.zeros(), 0, np.float64)
    w.data = np.random.default_rng(seed).uniform(-2, 2, size)

    def closure(optimizer: optim.Optimizer) -> Objective:
        def compute() -> float:
            x, rest = w.data[:-1], w.data[1:] - w.data[:-1] ** 2
            gradient = np.zeros(size)
            gradient[:-1] = -400 * x * rest - 2 * (1 - x)
            gradient[1:] += 200 * rest
            w.grad = gradient
            return float((100 * rest**2 + (1 - x) ** 2).sum())

        return compute

    return Problem([w], closure, 1e-10)


def network(model: nn.Layer, loss: nn.Loss, x: Vector, y: Vector, target: float) -> Problem:
    """The loss of a network on all rows."""

    def closure(optimizer: optim.Optimizer) -> Objective:
        @minidl.record
        def gradient(x: Vector, y: Vector) -> Vector:
            value = loss(model(x), y)
            optimizer.zero_grad()
            model.backward(loss.backward())
            return value

        return lambda: gradient(x, y)

    return Problem(list(model.parameters()), closure, target)


def digits(dtype: Any, seed: int) -> Problem:
    """Handwritten digits, 64-32-10 with tanh."""
    data = datasets.digits()
    model = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10), rng=seed).astype(dtype)
    return network(model, nn.CrossEntropyLoss(), data.x_train.astype(dtype), data.y_train, 1e-2)


def sine(seed: int) -> Problem:
    """One and a half waves of a sine at 200 points, 1-20-20-1 with tanh, in float64."""
    x = np.linspace(-1, 1, 200)[:, None]
    layers = nn.Linear(1, 20), nn.Tanh(), nn.Linear(20, 20), nn.Tanh(), nn.Linear(20, 1)
    model = nn.Sequential(*layers, rng=seed).astype(np.float64)
    return network(model, nn.MSELoss(), x, np.sin(1.5 * np.pi * x), 1e-6)


PROBLEMS: dict[str, Callable[[int], Problem]] = {
    "Rosenbrock, 2": lambda seed: rosenbrock(2, seed),
    "Rosenbrock, 10": lambda seed: rosenbrock(10, seed),
    "digits, float32": lambda seed: digits(np.float32, seed),
    "digits, float64": lambda seed: digits(np.float64, seed),
    "sine, float64": sine,
}

# --- who minimises -------------------------------------------------------------------------------


def by_minidl(problem: Problem) -> int | None:
    """Minimise by ``optim.LBFGS``; return the evaluations to the target."""
    tolerances = {"tolerance_grad": 0.0, "tolerance_change": 0.0}
    optimizer = optim.LBFGS(problem.parameters, max_iter=MOST, max_eval=MOST, **tolerances)
    closure, reached = problem.counted(optimizer)
    with suppress(Reached):
        optimizer.step(closure)
    return reached()


def by_scipy(problem: Problem) -> int | None:
    """Minimise by SciPy's L-BFGS-B; return the evaluations to the target."""
    from scipy.optimize import minimize
    from threadpoolctl import threadpool_limits

    optimizer = optim.SGD(problem.parameters)
    flat = optimizer.flat
    closure, reached = problem.counted(optimizer)

    def objective(w: Vector) -> tuple[float, Vector]:
        flat.data[...] = w
        loss = closure()
        return loss, flat.grad.astype(np.float64)

    options = {"maxcor": 10, "maxiter": MOST, "maxfun": MOST, "ftol": 0.0, "gtol": 0.0}
    start = flat.data.astype(np.float64)
    with suppress(Reached), threadpool_limits(1):
        minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
    return reached()


def by_adam(problem: Problem, rate: float, seconds: float) -> float:
    """Minimise by Adam for so many seconds; return the least loss."""
    optimizer = optim.Adam(problem.parameters, lr=rate)
    closure = problem.closure(optimizer)
    closure(), optimizer.step()  # the first call records
    least, end = np.inf, time.perf_counter() + seconds
    while time.perf_counter() < end:
        least = min(least, float(closure()))
        optimizer.step()
    return least


# --- the tables ----------------------------------------------------------------------------------


def rows(starts: int) -> Iterator[str]:
    """Yield the table of evaluations, line by line."""
    yield f"{'problem':<17}{'minidl':>8}{'SciPy':>8}{'ratio':>8}   evaluations, starts"
    for name, make in PROBLEMS.items():
        found = [(by_minidl(make(seed)), by_scipy(make(seed))) for seed in range(starts)]
        both = np.array([pair for pair in found if None not in pair], float)
        ours, theirs = np.median(both, axis=0) if len(both) else (np.nan, np.nan)
        missed = [sum(pair[side] is None for pair in found) for side in (0, 1)]
        tail = f"   {len(both)}" + (f"; missed {missed[0]}, {missed[1]}" if any(missed) else "")
        yield f"{name:<17}{ours:8.1f}{theirs:8.1f}{ours / theirs:8.2f}{tail}"


def adam(starts: int) -> Iterator[str]:
    """Yield what Adam reaches in the time of L-BFGS."""
    least, spent = [], []
    for seed in range(starts):
        by_minidl(sine(seed))  # so that nothing is slow for the first time
        began = time.perf_counter()
        by_minidl(sine(seed))
        spent.append(time.perf_counter() - began)
        least.append([by_adam(sine(seed), rate, spent[-1]) for rate in RATES])
    best = np.min(least, axis=1)
    yield (
        f"sine: L-BFGS is at 1e-6 after {np.median(spent):.2f} s; Adam is then at "
        f"{np.median(best):.1e}, in the best case {best.min():.1e} ({starts} starts, the best of "
        f"{len(RATES)} rates)"
    )


def main() -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--starts", type=int, default=10, metavar="N", help="starts (10)")
    starts = parser.parse_args().starts
    for line in chain(rows(starts), [""], adam(starts)):
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
