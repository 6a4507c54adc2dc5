"""What L-BFGS remembers: the latest steps, and how the gradient changed along them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minidl import kernels
from minidl.typing import Array

SMALLEST = float(np.finfo(np.float64).eps)


class CurvaturePairs:
    """The latest pairs of a step s and the change y of the gradient along it.

    They describe an inverse Hessian H with H · y = s for the latest pair, of which only products
    with a vector are ever computed. Pairs with s · y ≤ 0, empty ones among them, are left out.

    Parameters
    ----------
    count
        The number of pairs that are kept.
    zeros
        Makes a vector of zeros of the length of the parameters.
    """

    def __init__(self, count: int, zeros: Callable[[], Array]) -> None:
        self.pairs = [(zeros(), zeros()) for _ in range(count)]  # the oldest first

    def __len__(self) -> int:
        return len(self.pairs)

    def forget(self) -> None:
        """Drop all pairs."""
        for pair in self.pairs:
            for vector in pair:
                vector.fill(0)

    @property
    def is_empty(self) -> bool:
        """Whether no pair has been added since all were dropped."""
        return not self.pairs[-1][0].any()

    def add(self, step: Array, change: Array) -> None:
        """Add a pair in place of the oldest, unless the curvature along the step is not positive.

        The conditions of the line search make it positive, but for rounding errors.
        """
        if not float(kernels.dot(step, change)) > SMALLEST * float(kernels.dot(change, change)):
            return
        oldest = self.pairs.pop(0)
        oldest[0][...], oldest[1][...] = step, change
        self.pairs.append(oldest)

    def direction(self, gradient: Array) -> Array:
        """Compute -H · g, where H begins as (s · y / y · y) · 1 of the latest pair.

        Source: Nocedal and Wright 2006, algorithm 7.4, two loops over the pairs.
        """
        d = -gradient
        known = [
            (s, y, product) for s, y in self.pairs if (product := float(kernels.dot(s, y))) > 0
        ]
        if not known:
            return d
        shares = []
        for s, y, product in reversed(known):
            shares.append(float(kernels.dot(s, d)) / product)
            d -= shares[-1] * y
        _, y, product = known[-1]
        d *= product / float(kernels.dot(y, y))
        for (s, y, product), share in zip(known, reversed(shares), strict=True):
            d += (share - float(kernels.dot(y, d)) / product) * s
        return d
