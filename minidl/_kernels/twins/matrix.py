"""Arrays of any dimensions as matrices of their last one."""

from __future__ import annotations

from minidl.typing import Array


def matrix(x: Array) -> Array:
    """x as the matrix whose columns are its last dimension."""
    return x.reshape(-1, x.shape[-1])
