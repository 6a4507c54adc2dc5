"""Arrays of a step that is being recorded: kernels may use them, NumPy may not."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from minidl import _kernels, kernels


class RecordingError(RuntimeError):
    """A function did something that cannot be recorded; it says what, and in which layer."""


class RecordedArray(np.ndarray[Any, np.dtype[Any]]):
    """An array of a step that is being recorded. Kernels compute with it, NumPy must not:
    what NumPy does would be missing when the step is replayed.

    Only what tells of shape and layout may be asked of it, and what gives another such array of
    the same memory. All else that NumPy's arrays have is refused, as are buffers of its memory.
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

    def view(self, *kinds: Any, **named: Any) -> Any:
        """The same memory, as another array of the recording."""
        if any(isinstance(kind, type) and issubclass(kind, np.ndarray) for kind in kinds) or (
            "type" in named
        ):
            refuse(".view() as another kind of array")
        return super().view(*kinds, **named)

    def refuse_buffer(self) -> NoReturn:
        """Somebody asks for the memory as a buffer, such as ``memoryview``."""
        refuse("the buffer of its memory")

    def __repr__(self) -> str:
        return f"<{self.dtype} array of shape {self.shape}, of a step being recorded>"


def refuse(what: str) -> NoReturn:
    """Raise: this array is of a step that is being recorded."""
    recorder = _kernels.recorder()
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


# What may be asked: of shape and layout, and arrays of the same memory.
ALLOWED = {
    *("T", "mT", "dtype", "shape", "ndim", "size", "itemsize", "nbytes", "strides", "flags"),
    *("reshape", "transpose", "swapaxes", "squeeze", "diagonal", "real"),
}
# Operators, all of which NumPy has done by __array_ufunc__: this names the function.
_SIGNS = (
    *("add", "sub", "mul", "truediv", "floordiv", "mod", "divmod", "pow", "lshift", "rshift"),
    *("and", "or", "xor", "matmul"),
)
_OPERATORS = {f"__{how}{sign}__" for sign in _SIGNS for how in ("", "r", "i")} | {
    *("__lt__", "__le__", "__eq__", "__ne__", "__gt__", "__ge__"),
    *("__neg__", "__pos__", "__abs__", "__invert__"),
}
# What Python itself needs of any object.
_OBJECT = {
    *("__new__", "__init__", "__class__", "__getattribute__", "__setattr__", "__delattr__"),
    *("__dir__", "__doc__", "__len__", "__hash__", "__sizeof__", "__init_subclass__"),
    *("__subclasshook__", "__class_getitem__", "__array_finalize__", "__array_priority__"),
}


def _refusing(name: str) -> Any:
    def method(self: RecordedArray, *_: Any, **__: Any) -> NoReturn:
        refuse(name)

    return method


def _close(name: str) -> None:
    """Refuse a method or an attribute."""
    if callable(getattr(np.ndarray, name)):
        what = f".{name}()".replace(".__", "").replace("__()", "()")
        setattr(RecordedArray, name, _refusing(what))
    else:
        setattr(RecordedArray, name, property(*[_refusing(f".{name}")] * 2))


for _name in {*dir(np.ndarray), "__format__", "__copy__", "__deepcopy__"} - (
    ALLOWED | _OPERATORS | _OBJECT | vars(RecordedArray).keys()
):
    _close(_name)
if hasattr(kernels, "changes"):  # they are compiled
    from minidl._kernels.hooks import refuse_buffers

    refuse_buffers(RecordedArray)
