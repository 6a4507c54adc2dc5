"""Arrays of a step that is being recorded: kernels may use them, NumPy may not."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from minidl import _kernels as kernels


class RecordingError(RuntimeError):
    """A function did something that cannot be recorded; it says what, and in which layer."""


class RecordedArray(np.ndarray[Any, np.dtype[Any]]):
    """An array of a step that is being recorded. Kernels compute with it, NumPy must not:
    what NumPy does would be missing when the step is replayed.
    """

    def __array_ufunc__(self, ufunc: Any, *_: Any, **__: Any) -> NoReturn:
        refuse(f"np.{ufunc.__name__}")

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> NoReturn:
        refuse(f"np.{func.__name__}")

    def __getitem__(self, index: Any) -> Any:
        part = super().__getitem__(index)
        if not isinstance(part, np.ndarray):
            refuse("one element, x[i]")
        return part

    def __repr__(self) -> str:
        return f"<{self.dtype} array of shape {self.shape}, of a step being recorded>"


def refuse(what: str) -> NoReturn:
    """Raise: this array is of a step that is being recorded."""
    recorder = kernels.recorder()
    if recorder is None:
        raise RecordingError(
            f"{what} on an array that was used while a step was recorded and kept beyond it; "
            "take what the step returns instead"
        )
    raise RecordingError(
        f"{recorder.where()} computes with {what} on an array of the step that is being recorded. "
        "Only kernels are written down, and values are not known to Python. Use minidl's "
        "kernels and layers, or run the function without minidl.record."
    )


def _refusing(name: str) -> Any:
    def method(self: RecordedArray, *_: Any, **__: Any) -> NoReturn:
        refuse(name)

    return method


# What reads values into Python, or changes them, without asking __array_ufunc__ first.
for _name in (
    *("__str__", "__format__", "__reduce_ex__", "__dlpack__", "byteswap", "resize", "tofile"),
    *("__bool__", "__float__", "__int__", "__index__", "__complex__", "__setitem__", "__iter__"),
    *("__contains__", "__reduce__", "__copy__", "__deepcopy__", "item", "tolist", "tobytes"),
    *("copy", "astype", "fill", "sort", "argsort", "argmax", "argmin", "dot", "round", "clip"),
    *("cumsum", "cumprod", "nonzero", "take", "put", "choose", "compress", "partition"),
    *("argpartition", "searchsorted", "repeat", "trace", "ptp", "flatten", "dump", "dumps"),
):
    setattr(RecordedArray, _name, _refusing(f".{_name}()".replace(".__", "").replace("__()", "()")))
