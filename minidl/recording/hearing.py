"""How a recorder hears of what a class does: of arrays that are read, and of backward passes.

Classes are changed for good when an object of theirs first takes part in a recording. Where no
step is being recorded, they do what they did; eager training alone pays nothing.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from minidl import _kernels


def hear_arrays(owner: Any, *names: str) -> None:
    """Have the recorder asked whenever one of these attributes, which hold arrays, is read."""
    from minidl._kernels.hooks import ArrayAttribute  # needs compiled kernels

    cls = type(owner)
    for name in names:
        if name in vars(owner) and not isinstance(getattr(cls, name, None), ArrayAttribute):
            setattr(cls, name, ArrayAttribute(name))


def arrays_of(owner: Any) -> list[str]:
    """The names of the attributes that hold arrays."""
    return [name for name, value in vars(owner).items() if type(value) is np.ndarray]


def hear_backward(layer: Any) -> None:
    """Have the recorder asked to run the backward pass of layers of this class."""
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
