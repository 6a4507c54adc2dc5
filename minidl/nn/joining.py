"""Layers that make one array of several, or several of one."""

from __future__ import annotations

from functools import reduce
from itertools import accumulate, pairwise
from typing import Any

from minidl import kernels
from minidl.nn.checks import check_count
from minidl.nn.layer import Examples, Layer
from minidl.nn.tuples import Shape, is_several
from minidl.typing import Array

MOST_PARTS = 4  # that the kernel puts side by side at once


class Join(Layer):
    """Base of layers that make one array of several."""

    to_the_last = False  # whether the last dimensions may differ

    def check_input(self, *parts: Any) -> None:
        super().check_input(*parts)
        if not parts:
            raise TypeError(f"{self.label}: expected at least one input, got none")
        for number, part in enumerate(parts):
            if not fits_beside(part, parts[0], self.to_the_last):
                raise ValueError(
                    f"{self.label}: input {number} is {described(part)}, input 0 is "
                    f"{described(parts[0])}; expected {self.expectation()}"
                )

    def expectation(self) -> str:
        """Return what the inputs must have in common, in words."""
        apart = ", the last dimension apart," if self.to_the_last else ""
        return f"the same shape{apart} and dtype"

    def output_shape(self, input_shape: Shape) -> Shape:
        if input_shape is None or not is_several(input_shape):
            return input_shape
        return next((shape for shape in input_shape if shape is not None), None)


class Concat(Join):
    """Put arrays side by side, along the last dimension.

    y = (x₁, x₂, …),  dx_i = the columns of dy that x_i has become

    Shapes
    ------
    x_i (batch, ..., features_i), y (batch, ..., features_1 + features_2 + ...).

    Raises
    ------
    ValueError
        For inputs whose shapes differ before the last dimension.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> nn.Concat()(np.array([[1.0, 2.0]]), np.array([[3.0]]))
    array([[1., 2., 3.]])
    """

    to_the_last = True

    def forward(self, *parts: Array) -> Array:
        self.save([part.shape[-1] for part in parts])
        return side_by_side(parts)

    def backward(self, dy: Array) -> Any:
        parts = columns_of(dy, self.saved(dy))
        return parts if len(parts) > 1 else parts[0]

    def output_shape(self, input_shape: Shape) -> Shape:
        if input_shape is None or not is_several(input_shape):
            return input_shape
        known = [shape for shape in input_shape if shape is not None]
        if len(known) < len(input_shape) or len({len(shape) for shape in known}) > 1:
            return None
        widths = [shape[-1] for shape in known]
        whole = all(isinstance(width, int) for width in widths)
        return (*known[0][:-1], sum(widths) if whole else "features")

    @classmethod
    def examples(cls) -> Examples:
        yield cls(), ((4, 3), (4, 2))
        yield cls(), ((1, 1), (1, 3), (1, 2), (1, 1), (1, 2))
        yield cls(), ((2, 3, 2), (2, 3, 1))
        yield cls(), ((3, 2),)


class Add(Join):
    """Add arrays, element by element.

    y = x₁ + x₂ + …,  dx_i = dy

    Shapes
    ------
    x_i and y of the same shape, (batch, ...).

    Raises
    ------
    ValueError
        For inputs of different shapes.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> nn.Add()(np.array([[1.0, 2.0]]), np.array([[3.0, 5.0]]))
    array([[4., 7.]])
    """

    def forward(self, *parts: Array) -> Array:
        self.save(len(parts))
        return reduce(kernels.add, parts)

    def backward(self, dy: Array) -> Any:
        count = self.saved(dy)
        return (dy,) * count if count > 1 else dy

    @classmethod
    def examples(cls) -> Examples:
        yield cls(), ((4, 3), (4, 3))
        yield cls(), ((1, 1), (1, 1), (1, 1))


class Multiply(Join):
    """Multiply arrays, element by element, such as values with gates.

    y = x₁ · x₂ · …,  dx_i = dy · Π x_j over all j ≠ i

    Shapes
    ------
    x_i and y of the same shape, (batch, ...).

    Raises
    ------
    ValueError
        For inputs of different shapes.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> nn.Multiply()(np.array([[1.0, 2.0]]), np.array([[3.0, 5.0]]))
    array([[ 3., 10.]])
    """

    def forward(self, *parts: Array) -> Array:
        self.save(parts)
        return reduce(kernels.multiply, parts)

    def backward(self, dy: Array) -> Any:
        parts = self.saved(dy)
        before = list(accumulate(parts[:-1], kernels.multiply, initial=dy))  # dy · x₁ · … · x_i₋₁
        after = list(accumulate(parts[:0:-1], kernels.multiply))[::-1]  # x_i₊₁ · x_i₊₂ · …
        gradients = [kernels.multiply(*both) for both in zip(before, after, strict=False)]
        gradients.append(before[-1])
        return tuple(gradients) if len(parts) > 1 else dy

    @classmethod
    def examples(cls) -> Examples:
        yield cls(), ((4, 3), (4, 3))
        yield cls(), ((1, 1), (1, 1), (1, 1))
        yield cls(), ((2, 3), (2, 3), (2, 3), (2, 3))


class Stack(Join):
    """Put arrays one upon another, along a new dimension before the last.

    y_...ij = the j-th feature of x_i,  dx_i = dy_...i

    ``CosineEmbeddingLoss`` takes such pairs of vectors.

    Shapes
    ------
    x_i of the same shape, (batch, ..., features), y (batch, ..., number of inputs, features).

    Raises
    ------
    ValueError
        For inputs of different shapes.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> nn.Stack()(np.array([[1.0, 2.0]]), np.array([[3.0, 5.0]]))
    array([[[1., 2.],
            [3., 5.]]])
    """

    def forward(self, *parts: Array) -> Array:
        self.save(len(parts))
        *lead, features = parts[0].shape
        return side_by_side(parts).reshape(*lead, len(parts), features)

    def backward(self, dy: Array) -> Any:
        count = self.saved(dy)
        parts = tuple(kernels.copy(dy[..., number, :]) for number in range(count))
        return parts if count > 1 else parts[0]

    def output_shape(self, input_shape: Shape) -> Shape:
        shape = super().output_shape(input_shape)
        if shape is None:
            return None
        count = len(input_shape) if input_shape is not None and is_several(input_shape) else 1
        return (*shape[:-1], count, shape[-1])

    @classmethod
    def examples(cls) -> Examples:
        yield cls(), ((4, 3), (4, 3))
        yield cls(), ((2, 3, 2), (2, 3, 2), (2, 3, 2))
        yield cls(), ((1, 2),)


class Split(Layer):
    """Part an array along its last dimension.

    y_i = the columns of x that belong to part i,  dx = (dy₁, dy₂, …)

    Parameters
    ----------
    sizes
        How many columns each part has.

    Shapes
    ------
    x (batch, ..., sizes_1 + sizes_2 + ...), y_i (batch, ..., sizes_i).

    Raises
    ------
    ValueError
        For a size below one, and for an input of another width than all sizes together.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> nn.Split((2, 1))(np.array([[1.0, 2.0, 3.0]]))
    (array([[1., 2.]]), array([[3.]]))
    """

    sizes: tuple[int, ...]

    def __init__(self, sizes: tuple[int, ...]) -> None:
        if not isinstance(sizes, (tuple, list)) or not sizes:
            raise ValueError(f"Split: sizes must be a tuple of column counts, got {sizes!r}")
        self.sizes = tuple(check_count("Split", "each of sizes", size) for size in sizes)
        self.in_features = sum(self.sizes)

    def forward(self, x: Array) -> tuple[Array, ...]:
        self.save(None)  # nothing is needed, but backward is allowed now, once
        return columns_of(x, self.sizes)

    def backward(self, *dys: Array) -> Array:
        self.saved(*dys)
        return side_by_side(dys)

    def output_shape(self, input_shape: Shape) -> Shape:
        lead = ("batch",) if input_shape is None else input_shape[:-1]
        return tuple((*lead, size) for size in self.sizes)

    def __repr__(self) -> str:
        return f"Split({self.sizes})"

    @classmethod
    def examples(cls) -> Examples:
        yield cls((2, 3)), ((4, 5),)
        yield cls((1, 1, 2)), ((1, 4),)
        yield cls((1, 2)), ((2, 3, 3),)


class Select(Layer):
    """Choose one of several arrays.

    y = x_index,  dx_index = dy, and 0 for all others

    Parameters
    ----------
    index
        Which of the inputs, from 0 on.

    Shapes
    ------
    x_i of any shape, y as x_index.

    Raises
    ------
    ValueError
        For an index below zero, and for fewer inputs than it needs.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> nn.Select(1)(np.array([[1.0, 2.0]]), np.array([[3.0]]))
    array([[3.]])
    """

    index: int

    def __init__(self, index: int) -> None:
        self.index = check_count("Select", "index", index, 0)

    def check_input(self, *parts: Any) -> None:
        super().check_input(*parts)
        if len(parts) <= self.index:
            raise ValueError(
                f"{self.label}: expected at least {self.index + 1} inputs, got {len(parts)}"
            )

    def forward(self, *parts: Array) -> Array:
        self.save(parts)
        return parts[self.index]

    def backward(self, dy: Array) -> Any:
        parts = self.saved(dy)
        gradients = [dy if i == self.index else zeros_like(x) for i, x in enumerate(parts)]
        return tuple(gradients) if len(parts) > 1 else dy

    def output_shape(self, input_shape: Shape) -> Shape:
        if input_shape is None or not is_several(input_shape):
            return input_shape
        return input_shape[self.index] if self.index < len(input_shape) else None

    def __repr__(self) -> str:
        return f"Select({self.index})"

    @classmethod
    def examples(cls) -> Examples:
        yield cls(1), ((4, 3), (4, 2))
        yield cls(0), ((1, 2), (1, 1), (1, 3))


# --- arrays beside arrays ---------------------------------------------------------------------


def side_by_side(parts: tuple[Array, ...]) -> Array:
    """Put arrays side by side along the last dimension."""
    if len(parts) > MOST_PARTS:
        step = MOST_PARTS
        parts = tuple(side_by_side(parts[i : i + step]) for i in range(0, len(parts), step))
        return side_by_side(parts)
    return kernels.concat(*parts) if len(parts) > 1 else parts[0]


def columns_of(x: Array, widths: Any) -> tuple[Array, ...]:
    """Return copies of the columns of x, so many for each part."""
    if len(widths) == 1:
        return (x,)
    places = pairwise(accumulate(widths, initial=0))
    return tuple(kernels.copy(x[..., begin:end]) for begin, end in places)


def zeros_like(x: Array) -> Array:
    """Return zeros of the shape of an input, as its gradient."""
    zeros = kernels.copy(x)
    kernels.clear(zeros)
    return zeros


def fits_beside(x: Any, first: Any, to_the_last: bool) -> bool:
    """Return whether two outputs have one dtype and shape, the last dimension maybe apart."""
    if type(x) is tuple or type(first) is tuple or x.dtype != first.dtype:
        return False
    if to_the_last:
        return bool(x.ndim == first.ndim and x.shape[:-1] == first.shape[:-1])
    return bool(x.shape == first.shape)


def described(x: Any) -> str:
    """Return shape and dtype of an array, or how many there are in a tuple."""
    return f"a tuple of {len(x)}" if type(x) is tuple else f"{x.dtype} {x.shape}"
