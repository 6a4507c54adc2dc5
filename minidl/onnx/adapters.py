"""Layers that only loaded graphs need: other axes, other shapes, sums of two values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from minidl import kernels, nn
from minidl.nn.layer import Layer
from minidl.onnx.adapter import Adapter
from minidl.typing import Array

Shape = tuple[int, ...]


class Add(Adapter):
    """y = a + b,  da = db = dy."""

    def check_input(self, *inputs: Array) -> None:
        super().check_input(*inputs)
        a, b = inputs
        if a.shape != b.shape:
            raise ValueError(f"{self.label}: the shapes {a.shape} and {b.shape} differ")

    def forward(self, a: Array, b: Array) -> Array:
        self.save(None)
        return kernels.add(a, b)

    def backward(self, dy: Array) -> tuple[Array, Array]:
        self.saved(dy)
        return dy, dy


class Multiply(Add):
    """y = a · b,  da = dy · b,  db = dy · a."""

    def forward(self, a: Array, b: Array) -> Array:
        self.save(a, b)
        return a * b

    def backward(self, dy: Array) -> tuple[Array, Array]:
        a, b = self.saved(dy)
        return dy * b, dy * a


class Affine(Adapter):
    """y = scale · x + shift,  dx = scale · dy, with constants that any axes may share."""

    holds = ("scale", "shift")

    def __init__(self, scale: Array | float = 1.0, shift: Array | float = 0.0) -> None:
        self.scale, self.shift = np.asarray(scale), np.asarray(shift)

    def forward(self, x: Array) -> Array:
        shape = np.broadcast_shapes(x.shape, self.scale.shape, self.shift.shape)
        if shape != x.shape:
            raise ValueError(f"{self.label}: a constant makes {shape} of an input {x.shape}")
        y = x if (self.scale == 1).all() else x * self.scale.astype(x.dtype)
        self.save(None)
        return y if (self.shift == 0).all() else y + self.shift.astype(x.dtype)

    def backward(self, dy: Array) -> Array:
        self.saved(dy)
        return dy * self.scale.astype(dy.dtype)

    def output_shape(self, input_shape: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        return input_shape


class Transpose(Adapter):
    """y = x with its axes in another order."""

    holds = ("order",)

    def __init__(self, order: Sequence[int]) -> None:
        self.order = tuple(order)

    def forward(self, x: Array) -> Array:
        self.save(None)
        return kernels.copy(x.transpose(self.order))

    def backward(self, dy: Array) -> Array:
        self.saved(dy)
        return kernels.copy(dy.transpose([int(place) for place in np.argsort(self.order)]))


class Reshaped(Adapter):
    """y = x in another shape, which a subclass computes from that of x."""

    def new_shape(self, shape: Shape) -> Shape:
        """Return the shape of y for one of x."""
        raise NotImplementedError(f"{type(self).__name__} does not say what shape it gives")

    def forward(self, x: Array) -> Array:
        self.save(x.shape)
        return x.reshape(self.new_shape(x.shape))

    def backward(self, dy: Array) -> Array:
        return dy.reshape(self.saved(dy))


class Reshape(Reshaped):
    """y = x in a given shape: 0 is the size of x at this place, -1 what is left."""

    holds = ("sizes",)

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = tuple(sizes)

    def new_shape(self, shape: Shape) -> Shape:
        return tuple(size or shape[place] for place, size in enumerate(self.sizes))


class Matrix(Reshaped):
    """y = x as a matrix whose rows are the elements of the axes before ``axis``."""

    holds = ("axis",)

    def __init__(self, axis: int) -> None:
        self.axis = axis

    def new_shape(self, shape: Shape) -> Shape:
        return math.prod(shape[: self.axis]), math.prod(shape[self.axis :])


class Squeeze(Reshaped):
    """y = x without these axes, whose size is 1; without any such axis for None."""

    holds = ("axes",)

    def __init__(self, axes: Sequence[int] | None) -> None:
        self.axes = None if axes is None else tuple(axes)

    def new_shape(self, shape: Shape) -> Shape:
        return np.squeeze(np.empty(shape, bool), self.axes).shape


class Unsqueeze(Reshaped):
    """y = x with new axes of size 1 at these places."""

    holds = ("axes",)

    def __init__(self, axes: Sequence[int]) -> None:
        self.axes = tuple(axes)

    def new_shape(self, shape: Shape) -> Shape:
        return np.expand_dims(np.empty(shape, bool), self.axes).shape


class Concat(Adapter):
    """y = several arrays side by side along an axis."""

    holds = ("axis",)

    def __init__(self, axis: int) -> None:
        self.axis = axis

    def forward(self, *parts: Array) -> Array:
        self.save([part.shape[self.axis] for part in parts])
        return np.concatenate(parts, self.axis)

    def backward(self, dy: Array) -> tuple[Array, ...]:
        places = np.cumsum(self.saved(dy))[:-1]
        return tuple(map(kernels.copy, np.split(dy, places, self.axis)))


class Split(Adapter):
    """y_1, …, y_n = parts of x along an axis."""

    holds = ("axis", "sizes", "count")

    def __init__(self, axis: int, sizes: Sequence[int] | None, count: int) -> None:
        self.axis, self.count = axis, count
        self.sizes = None if sizes is None else tuple(sizes)

    def sizes_of(self, width: int) -> list[int]:
        """Return the size of each part: the last is smaller where they cannot be the same."""
        each = -(-width // self.count)
        equal = [each] * (self.count - 1)
        sizes = list(self.sizes or (*equal, width - sum(equal)))
        if sum(sizes) != width or min(sizes) < 0:
            raise ValueError(f"{self.label}: an axis of {width} cannot be split into {sizes}")
        return sizes

    def forward(self, x: Array) -> Any:
        places = np.cumsum(self.sizes_of(x.shape[self.axis]))[:-1]
        parts = np.split(x, places, self.axis)
        self.save(parts[0].dtype, [part.shape for part in parts])
        copies = tuple(map(kernels.copy, parts))
        return copies if len(copies) > 1 else copies[0]

    def backward(self, *gradients: Array | None) -> Array:
        dtype, shapes = self.saved(*gradients)  # type: ignore[arg-type]
        dys = [
            np.zeros(shape, dtype) if dy is None else dy
            for dy, shape in zip(gradients, shapes, strict=True)
        ]
        return np.concatenate(dys, self.axis)

    def check_gradient(self, dy: Any, output: Any) -> None:
        """Check nothing: a part that nothing uses has no gradient."""


class Around(Adapter):
    """A layer with a change of the axes before it and the reverse after it."""

    holds: ClassVar[tuple[str, ...]] = ("inner",)

    def __init__(self, inner: Layer) -> None:
        self.inner = inner
        self.assign_paths()

    def children(self) -> Iterator[tuple[str, Layer]]:
        yield "inner", self.inner

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.inner.short_name()})"


class AsRows(Around):
    """A layer on the rows of a matrix that holds all axes from one on: axes 1, 2 of (n, a, b)."""

    holds = ("inner", "axis")

    def __init__(self, inner: Layer, axis: int) -> None:
        super().__init__(inner)
        self.axis = axis

    def forward(self, x: Array) -> Array:
        lead = x.shape[: self.axis] if self.axis else ()
        self.save(x.shape)
        y = self.inner(x.reshape(math.prod(lead), -1))
        return y.reshape(x.shape if y.size == x.size else (*lead, -1))

    def backward(self, dy: Array) -> Array:
        shape = self.saved(dy)
        rows = math.prod(shape[: self.axis]) if self.axis else 1
        return self.inner.backward(dy.reshape(rows, -1)).reshape(shape)


class OnAxis(Around):
    """A layer on another axis than the last."""

    holds = ("inner", "axis")

    def __init__(self, inner: Layer, axis: int) -> None:
        super().__init__(inner)
        self.axis = axis

    def forward(self, x: Array) -> Array:
        self.save(None)
        y = self.inner(kernels.copy(np.moveaxis(x, self.axis, -1)))
        return kernels.copy(np.moveaxis(y, -1, self.axis))

    def backward(self, dy: Array) -> Array:
        self.saved(dy)
        dx = self.inner.backward(kernels.copy(np.moveaxis(dy, self.axis, -1)))
        return kernels.copy(np.moveaxis(dx, -1, self.axis))


class NormWithStatistics(Adapter):
    """Layer normalization over the axes from one on, with the means and 1 / σ as more outputs."""

    holds = ("norm", "axis")

    def __init__(self, norm: nn.LayerNorm, axis: int) -> None:
        self.norm, self.axis = norm, axis
        self.assign_paths()

    def forward(self, x: Array) -> tuple[Array, Array, Array]:
        rows = x.reshape(-1, self.norm.in_features)
        y, mean, rstd = kernels.layer_norm(
            rows, self.norm.gamma.data, self.norm.beta.data, self.norm.eps
        )
        self.norm.save(rows, mean, rstd)
        axis = self.axis % x.ndim
        shape = (*x.shape[:axis], *[1] * (x.ndim - axis))
        self.save(x.shape)
        return y.reshape(x.shape), mean.reshape(shape), rstd.reshape(shape)

    def backward(self, dy: Array, *statistics: Array | None) -> Array:
        if any(gradient is not None and gradient.any() for gradient in statistics):
            raise ValueError(f"{self.label}: no gradient goes through its mean and deviation")
        shape = self.saved(dy)
        return self.norm.backward(dy.reshape(-1, self.norm.in_features)).reshape(shape)

    def check_gradient(self, dy: Array, output: Any) -> None:
        super().check_gradient(dy, output[0])


class DropoutWithMask(Adapter):
    """Dropout in evaluation, y = x, with a mask of what is kept: everything."""

    def forward(self, x: Array) -> tuple[Array, Array]:
        self.save(None)
        return x, np.ones(x.shape, bool)

    def backward(self, dy: Array, dmask: Array | None = None) -> Array:
        self.saved(dy)
        return dy

    def check_gradient(self, dy: Array, output: Any) -> None:
        super().check_gradient(dy, output[0])


class Take(Adapter):
    """y = x at one place of an axis, such as the last step of a sequence."""

    holds = ("place", "axis")

    def __init__(self, place: int, axis: int) -> None:
        self.place, self.axis = place, axis

    def forward(self, x: Array) -> Array:
        self.save(x.shape)
        return kernels.copy(np.moveaxis(x, self.axis, 0)[self.place])

    def backward(self, dy: Array) -> Array:
        dx = np.zeros(self.saved(dy), dy.dtype)
        np.moveaxis(dx, self.axis, 0)[self.place] = dy
        return dx


class Gather(Adapter):
    """Look up parts of a table along one of its axes; negative indices count from the end."""

    takes_indices = True
    holds = ("embedding", "rest", "axis")

    def __init__(self, table: Array, axis: int) -> None:
        moved = np.moveaxis(table, axis, 0)
        self.rest, self.axis = moved.shape[1:], axis % table.ndim
        width = math.prod(self.rest)
        self.embedding = nn.Embedding(len(moved), width, rng=0, dtype=table.dtype)
        self.embedding.weight.data = moved.reshape(len(moved), width)
        self.assign_paths()

    @property
    def table(self) -> Array:
        """The table, its axes in order."""
        moved = self.embedding.weight.data.reshape(-1, *self.rest)
        return np.moveaxis(moved, 0, self.axis)

    def forward(self, indices: Array) -> Array:
        count = self.embedding.num_embeddings
        rows = self.embedding(np.where(indices < 0, indices + count, indices))
        y = rows.reshape(*indices.shape, *self.rest)
        places = range(indices.ndim)
        self.save(indices.ndim)
        return np.ascontiguousarray(np.moveaxis(y, places, [self.axis + place for place in places]))

    def backward(self, dy: Array) -> None:
        places = range(self.saved(dy))
        moved = np.moveaxis(dy, [self.axis + place for place in places], places)
        shape = (*moved.shape[: len(places)], self.embedding.features)
        self.embedding.backward(np.ascontiguousarray(moved).reshape(shape))
