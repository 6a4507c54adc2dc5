"""Parameters: what training changes, and how their first values are drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import index
from typing import Any

import numpy as np

from minidl.nn.array_checks import float_dtype
from minidl.nn.foreign_names import PARAMETER_ATTRIBUTES, refuse_attribute
from minidl.nn.hooks import active_recorder, note_change
from minidl.nn.members import Member
from minidl.seeds import as_generator
from minidl.typing import Array, DType, Seed

Shape = tuple[int, ...]


@dataclass(frozen=True, repr=False)
class Initializer:
    """A way to draw an array: a distribution by name, and its arguments."""

    name: str
    draw: Callable[..., Any]
    arguments: tuple[Any, ...] = ()

    def __call__(self, shape: Shape, rng: Seed = None) -> Array:
        return np.asarray(self.draw(shape, as_generator(rng), *self.arguments))

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(map(str, self.arguments))})"


class Parameter(Member):
    """An array that training changes, and the gradient of the loss with respect to it.

    Its values are drawn from ``initializer`` when they are first read. The seed is taken from
    ``rng`` in the constructor, so the order in which parameters are read changes no value. Setting
    another initialiser draws the values anew from the same seed, unless they have been changed. A
    ``Sequential`` does so, because it knows which activation follows a layer.

    An optimizer moves ``data`` and ``grad`` into two flat vectors; from then on they are views of
    parts of these. Assigning to ``data`` copies into it.

    An optimizer that is built while the parameter is ``frozen`` neither changes it nor counts its
    gradient in the norm. Gradients still flow through it to the layers below.

    Parameters
    ----------
    shape
        Shape of the values and of the gradient.
    initializer
        What the values are drawn from.
    rng
        Generator or seed of the values.
    dtype
        float32 or float64.

    Examples
    --------
    >>> from minidl import nn
    >>> weight = nn.Parameter((2, 3), nn.init.constant(0.5))
    >>> weight.data
    array([[0.5, 0.5, 0.5],
           [0.5, 0.5, 0.5]], dtype=float32)
    """

    _frozen = False

    def __init__(
        self,
        shape: tuple[int, ...],
        initializer: Initializer,
        rng: Seed = None,
        dtype: DType = np.float32,
    ) -> None:
        self.shape = tuple(map(index, shape))
        self.dtype = self._drawn_as = float_dtype(dtype)
        self._initializer = initializer
        self.name = ""
        self.reset(rng)

    def __setattr__(self, name: str, value: Any) -> None:
        refuse_attribute(type(self).__name__, name, PARAMETER_ATTRIBUTES)
        object.__setattr__(self, name, value)

    @classmethod
    def from_values(
        cls, values: Array, initializer: Initializer, seed: int, drawn_as: DType
    ) -> Parameter:
        """Make a parameter of values that are known, such as those of a file.

        ``initializer``, ``seed`` and ``drawn_as`` (a dtype) are those of the parameter that had
        these values: what another initialiser would draw anew.
        """
        parameter = cls(values.shape, initializer, 0, values.dtype)
        parameter._seed, parameter._drawn_as = seed, float_dtype(drawn_as)
        parameter._data = values
        return parameter

    @property
    def seed(self) -> int:
        """The seed from which the values are drawn."""
        return self._seed

    @property
    def drawn_as(self) -> np.dtype[Any]:
        """The dtype of the constructor, in which the values are drawn."""
        return self._drawn_as

    @property
    def initializer(self) -> Initializer:
        """What the values are drawn from."""
        return self._initializer

    @initializer.setter
    def initializer(self, initializer: Initializer) -> None:
        as_drawn = self.drawn and np.array_equal(self._data, self._draw())
        self._initializer = initializer
        if as_drawn:
            self._data[...] = self._draw()

    def _draw(self) -> Array:
        """Draw the values that the initialiser gives for this parameter's seed."""
        values = self.initializer(self.shape, np.random.default_rng(self._seed))
        # In the dtype of the constructor first: astype() may come before or after the values are
        # drawn, and must not change them.
        return np.ascontiguousarray(np.asarray(values, self._drawn_as), self.dtype)

    def reset(self, rng: Seed = None) -> None:
        """Drop the values, so that they are drawn anew, seeded by ``rng`` (None: by the system)."""
        self._seed = int(as_generator(rng).integers(2**63))
        note_change()
        self.__dict__.pop("_data", None)
        self.__dict__.pop("_grad", None)

    @property
    def frozen(self) -> bool:
        """Whether optimizers that are built from now on leave the parameter as it is."""
        return self._frozen

    @frozen.setter
    def frozen(self, frozen: bool) -> None:
        self._frozen = bool(frozen)
        note_change()  # for recorded steps whose optimizer holds it

    @property
    def drawn(self) -> bool:
        """Whether the values exist already."""
        return "_data" in self.__dict__

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape))

    @property
    def data(self) -> Array:
        """The values; assigning copies into them."""
        try:
            data: Array = self._data
        except AttributeError:
            # setdefault: if two threads read at once, both get the array of the first.
            data = self.__dict__.setdefault("_data", self._draw())
        recorder = active_recorder()  # hooks.stand_in, written out here for speed
        return data if recorder is None else recorder.adopt("parameter", self.name, data)

    @data.setter
    def data(self, values: Any) -> None:
        self._copy(values, self.data)

    @property
    def grad(self) -> Array:
        """The gradient, to which backward passes add; assigning copies into it."""
        grad: Array | None = self.__dict__.get("_grad")
        if grad is None:
            grad = self.__dict__.setdefault("_grad", np.zeros(self.shape, self.dtype))
        recorder = active_recorder()
        return grad if recorder is None else recorder.adopt("gradient", f"{self.name}.grad", grad)

    @grad.setter
    def grad(self, values: Any) -> None:
        # `parameter.grad += g` ends here with the very array that was changed in place.
        if values is not self.grad:
            self._copy(values, self.grad)

    def _copy(self, values: Any, array: Array) -> None:
        values = np.asarray(values)
        if values.shape != self.shape or values.dtype.kind not in "fiu":
            raise ValueError(
                f"parameter {self.name} holds numbers of shape {self.shape}, "
                f"not {values.dtype} of shape {values.shape}"
            )
        array[...] = values

    def lies_in(self, data: Array, grad: Array) -> bool:
        """Return whether values and gradient are kept in these very arrays."""
        held = self.__dict__
        return held.get("_data") is data and held.get("_grad") is grad

    def move(self, data: Array, grad: Array) -> None:
        """Keep values and gradient in these two arrays from now on."""
        data[...], grad[...] = self.data, self.grad
        self._data, self._grad = data, grad
        note_change()

    def astype(self, dtype: DType) -> None:
        """Convert values and gradient to float32 or float64."""
        dtype = float_dtype(dtype)
        if dtype != self.dtype:
            self.dtype = dtype
            for name in ("_data", "_grad"):  # only those that exist: converting draws nothing
                if name in self.__dict__:
                    self.__dict__[name] = self.__dict__[name].astype(dtype)
            note_change()

    def __repr__(self) -> str:
        return f"Parameter({self.name!r}, shape={self.shape}, dtype={self.dtype})"
