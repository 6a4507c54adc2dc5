"""What tests of every layer share: inputs for its examples, and outputs that may be several."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from minidl import nn

# Layers that branch, and those that join and part arrays: minidl's alone, no file format has them.
BRANCHES = (nn.Parallel, nn.Concat, nn.Add, nn.Multiply, nn.Stack, nn.Split, nn.Select)


def plain_layers() -> dict[str, type[nn.Layer]]:
    """Those layers of minidl that anyone can build and call: new ones are found by themselves.

    They need no arguments, have no parameters, state or random numbers, and keep the shape of any
    input of floats: activations without parameters, and the identity.
    """
    found: dict[str, type[nn.Layer]] = {}
    for cls in nn.Layer.registry:
        needed = [p for p in inspect.signature(cls).parameters.values() if p.default is p.empty]
        if not cls.__module__.startswith("minidl.") or needed:
            continue
        layer = cls()
        keeps = layer.output_shape((2, 3, 4)) == (2, 3, 4) and not layer.takes_indices
        if keeps and not layer.parameters() and not layer.state():
            found[cls.__name__] = cls
    return found


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
