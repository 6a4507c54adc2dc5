"""What tests of every layer share: inputs for its examples, and outputs that may be several."""

from __future__ import annotations

from typing import Any

import numpy as np


def inputs_of(
    shapes: tuple[Any, ...], rng: np.random.Generator, dtype: Any = np.float32
) -> list[np.ndarray]:
    """Inputs of these shapes; those that are integers are given as they are."""
    return [rng.normal(size=x).astype(dtype) if isinstance(x, tuple) else x for x in shapes]


def as_tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def as_dtype(inputs: list[np.ndarray], dtype: Any) -> list[np.ndarray]:
    """All but integers in this dtype."""
    return [x.astype(dtype) if x.dtype.kind == "f" else x for x in inputs]


def ones_like(outputs: Any) -> list[np.ndarray]:
    return [np.ones_like(y) for y in as_tuple(outputs)]


def assert_same(got: Any, expected: Any) -> None:
    for a, b in zip(as_tuple(got), as_tuple(expected), strict=True):
        assert np.array_equal(a, b)
