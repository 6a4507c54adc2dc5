"""Reshape arrays of any dimensions to matrices, for twins that work on rows."""

from __future__ import annotations

from minidl.typing import Array


def _matrix(x: Array) -> Array:
    """Reshape x to the matrix whose columns are its last dimension."""
    return x.reshape(-1, x.shape[-1])
