"""Checks of the arrays that layers get, and what is wrong with those that are refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from minidl.typing import Array, DType

ONE_OF_SEVERAL = "join them before it, such as by nn.Concat(), or choose one by nn.Select(index)"
FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)


def float_dtype(dtype: DType) -> np.dtype[Any]:
    """Return the dtype if minidl computes in it, else raise TypeError."""
    result = np.dtype(dtype)
    if result not in (np.float32, np.float64):
        raise TypeError(f"dtype must be float32 or float64, got {result}")
    return result


def is_float(x: Array) -> bool:
    """Return whether an array is of a dtype that minidl computes in."""
    return x.dtype in (FLOAT32, FLOAT64)


def is_lengths(x: Any) -> bool:
    """Return whether an input is the lengths of sequences: one whole number for each."""
    return isinstance(x, np.ndarray) and x.ndim == 1 and x.dtype.kind in "iu"


def is_path(value: Any) -> bool:
    """Return whether a value names a file."""
    return isinstance(value, str) or hasattr(value, "__fspath__")


def refuse_array(
    label: str, x: Any, dtype: np.dtype[Any] | None, features: int | None, name: str
) -> NoReturn:
    """Raise TypeError or ValueError for an input that a layer cannot use.

    Parameters
    ----------
    label
        The layer, as messages name it.
    x
        The input.
    dtype, features
        What the layer expects; None: any.
    name
        What the input is called.
    """
    if isinstance(x, tuple):
        raise TypeError(f"{label}: expected one {name}, got a tuple of {len(x)}; {ONE_OF_SEVERAL}")
    if not isinstance(x, np.ndarray):
        cure = "write np.asarray(x, dtype=np.float32)"
        if isinstance(x, Mapping):
            cure = "write model(a, b); a Trainer takes several inputs as a dict"
        raise TypeError(
            f"{label}: expected {name} to be a NumPy array, got {type(x).__name__}; {cure}"
        )
    if x.dtype != dtype if dtype is not None else not is_float(x):
        expected = FLOAT32 if dtype is None else dtype
        raise TypeError(
            f"{label}: expected {expected} {name}, got {x.dtype}; write x.astype(np.{expected})"
        )
    width = "features" if features is None else features
    raise ValueError(
        f"{label}: expected {name} of shape (batch, ..., {width}) with no empty "
        f"dimension, got {x.shape}"
    )


def refuse_gradient(label: str, dy: Any, output: Array) -> NoReturn:
    """Raise TypeError or ValueError for what is no gradient of this output of a layer."""
    if not isinstance(dy, np.ndarray) or dy.dtype != output.dtype:
        got = dy.dtype if isinstance(dy, np.ndarray) else type(dy).__name__
        raise TypeError(f"{label}: backward expected a {output.dtype} gradient, got {got}")
    raise ValueError(
        f"{label}: backward expected a gradient of the shape of the output, "
        f"{output.shape}, got {dy.shape}"
    )
