"""Keep a traced function away from the real arrays.

The function gets arrays that kernels may use and NumPy may not (``RecordedArray``). Arrays that it
reads from a layer or an optimizer come from the recorder (``hook_arrays``), which runs backward
passes, too (``hook_backward``).
"""

from __future__ import annotations

import contextlib
import functools
from typing import Any, NoReturn

import numpy as np

from minidl import _kernels

ADVICE = (
    "Keep what changes from step to step in arrays that kernels change (state_names of a layer), "
    "compute with minidl's kernels only, or run the function without minidl.record."
)


class RecordingError(RuntimeError):
    """A function did something that cannot be recorded; the message says what, and which layer."""


class RecordedArray(np.ndarray[Any, np.dtype[Any]]):
    """An array of a step that is being recorded: kernels may compute with it, NumPy may not.

    A replay would miss what NumPy does. So only those attributes and methods are allowed that
    return shape or layout, or another recorded array of the same memory. All others of NumPy's
    arrays raise RecordingError, and so does a request for the buffer of its memory.
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
        """Return another recorded array of the same memory."""
        if any(isinstance(kind, type) and issubclass(kind, np.ndarray) for kind in kinds) or (
            "type" in named
        ):
            refuse(".view() as another kind of array")
        return super().view(*kinds, **named)

    def refuse_buffer(self) -> NoReturn:
        """Raise RecordingError: a buffer of the memory, such as ``memoryview``, was asked for."""
        refuse("the buffer of its memory")

    def __repr__(self) -> str:
        return f"<{self.dtype} array of shape {self.shape}, of a step being recorded>"


def refuse(what: str) -> NoReturn:
    """Raise RecordingError: ``what`` is not allowed with an array of a step that is recorded."""
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


# Allowed: shape and layout, and other arrays of the same memory.
ALLOWED = {
    *("T", "mT", "dtype", "shape", "ndim", "size", "itemsize", "nbytes", "strides", "flags"),
    *("reshape", "transpose", "swapaxes", "squeeze", "diagonal", "real"),
}
# Operators: NumPy hands them to __array_ufunc__, whose error names the function.
_SIGNS = (
    *("add", "sub", "mul", "truediv", "floordiv", "mod", "divmod", "pow", "lshift", "rshift"),
    *("and", "or", "xor", "matmul"),
)
_OPERATORS = {f"__{how}{sign}__" for sign in _SIGNS for how in ("", "r", "i")} | {
    *("__lt__", "__le__", "__eq__", "__ne__", "__gt__", "__ge__"),
    *("__neg__", "__pos__", "__abs__", "__invert__"),
}
# Python itself needs these of any object.
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
with contextlib.suppress(ImportError):  # where no kernels are compiled, nothing is recorded
    from minidl._kernels.hooks import refuse_buffers

    refuse_buffers(RecordedArray)


# --- hooks in the classes of layers, losses and optimizers ----------------------------------
#
# A class is changed for good when one of its objects first takes part in a recording. It behaves
# as before where no step is being recorded; eager training alone pays nothing.


def hook_arrays(owner: Any, *names: str) -> None:
    """Have the recorder asked whenever one of these attributes, which hold arrays, is read."""
    from minidl._kernels.hooks import ArrayAttribute  # needs compiled kernels

    cls = type(owner)
    for name in names:
        if name in vars(owner) and not isinstance(getattr(cls, name, None), ArrayAttribute):
            setattr(cls, name, ArrayAttribute(name))


def arrays_of(owner: Any) -> list[str]:
    """List the names of the attributes that hold arrays."""
    return [name for name, value in vars(owner).items() if type(value) is np.ndarray]


def hook_backward(layer: Any) -> None:
    """Have the recorder run the backward pass of layers of this class."""
    cls = next(cls for cls in type(layer).__mro__ if "backward" in vars(cls))
    own = vars(cls)["backward"]
    if hasattr(own, "of_recorder"):
        return

    @functools.wraps(own)
    def backward(self: Any, *inputs: Any, **options: Any) -> Any:
        recorder = _kernels.recorder()
        if recorder is None:
            return own(self, *inputs, **options)
        return recorder.backward(self, own, inputs, options)

    backward.of_recorder = True  # type: ignore[attr-defined]
    cls.backward = backward  # type: ignore[attr-defined]
