"""What all layers share that only loaded graphs need."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from minidl import nn
from minidl.nn.layer import Layer
from minidl.saving.tensor_file import shortened
from minidl.typing import Array


def _is_tuple(kind: type[Any]) -> Callable[[Any], bool]:
    """Return whether a value is a tuple of this kind, as a function."""
    return lambda value: type(value) is tuple and all(isinstance(item, kind) for item in value)


def _is(*kinds: type[Any]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kinds)


# What the attributes of adapters may be: a model file is not trusted.
HELD: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("axis", "place", "count"), _is(int)),
    **dict.fromkeys(("batch_first", "reverse", "keepdims"), _is(bool)),
    "number": _is(float),
    **dict.fromkeys(("order", "rest", "results"), _is_tuple(int)),
    **dict.fromkeys(("sizes", "axes"), lambda value: value is None or _is_tuple(int)(value)),
    **dict.fromkeys(("options", "inputs", "outputs"), _is_tuple(str)),
    **dict.fromkeys(("scale", "shift"), _is(np.ndarray)),
    "inner": _is(Layer),
    "norm": _is(nn.LayerNorm, nn.RMSNorm),
    "embedding": _is(nn.Embedding),
    "stack": _is_tuple(Layer),
    "wiring": _is_tuple(tuple),
}


class Adapter(Layer):
    """A layer that takes arrays of any rank; the layers in it check what they get.

    A subclass names its attributes in ``holds``.
    """

    holds: ClassVar[tuple[str, ...]] = ()

    def check_held(self) -> None:
        """Raise TypeError if the layer, as a model file describes it, cannot be."""
        for name in self.holds:
            value = vars(self).get(name, "nothing")
            if not HELD[name](value):
                raise TypeError(f"{type(self).__name__} has {shortened(value)} as its {name}")

    def __repr__(self) -> str:
        values = [(name, vars(self)[name]) for name in self.holds]
        shown = [f"{name}={v}" for name, v in values if isinstance(v, (int, tuple, type(None)))]
        return f"{type(self).__name__}({', '.join(shown)})"

    def check_input(self, *inputs: Array) -> None:
        for x in inputs:
            if not isinstance(x, np.ndarray):
                raise TypeError(f"{self.label}: expected a NumPy array, got {type(x).__name__}")

    def output_shape(self, input_shape: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        """Return None: any axis may be another one."""
        return None
