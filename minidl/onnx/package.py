"""Importing the onnx package, when it is first needed."""

from __future__ import annotations

from typing import Any


def onnx_package() -> Any:
    """Return the onnx package.

    Raises
    ------
    ImportError
        If it is not installed, with the command that installs it.
    """
    try:
        import onnx
        import onnx.checker
        import onnx.helper
        import onnx.numpy_helper
        import onnx.shape_inference
    except ImportError:
        raise ImportError("minidl.onnx needs onnx: pip install 'minidl[onnx]'") from None
    return onnx
