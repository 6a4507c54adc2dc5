"""The residual block: a body, and a shortcut around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from minidl.nn.activations import ReLU, Tanh
from minidl.nn.container import Container, form_after, width_before
from minidl.nn.containers import Sequential
from minidl.nn.forms import Form, MisfitError, is_ours
from minidl.nn.layer import Examples, Layer
from minidl.nn.linear import Linear
from minidl.nn.normalization import BatchNorm
from minidl.nn.summary import Member, describe_branch, may_be_alike, shape_in_words
from minidl.nn.tuples import (
    Shape,
    added,
    backward_through,
    is_several,
    one_or_all,
    shapes_of,
    through,
    without_tuple_of_one,
)
from minidl.typing import Array, Seed

SAME_SHAPE = "give a shortcut that maps to the shape of the body, such as a Linear"
LARGE = 64  # the largest size of an image that is tried to see whether a body keeps it


class Residual(Container):
    """The sum of a body and a shortcut around it.

    y = body(x) + shortcut(x),  dx = dy · ∂body/∂x + dy · ∂shortcut/∂x

    With the identity as shortcut, dy also reaches the layers below directly, not only through the
    body: the remedy for gradients that vanish in depth. Source: He et al. 2016, eq. 1.

    Parameters
    ----------
    body
        Any layer.
    shortcut
        Any layer with output of the same shape, such as a ``Linear`` where the body changes
        the width; None for the identity.

    The ``lengths`` of padded sequences go to body and shortcut, where these take them.

    Raises
    ------
    TypeError
        For lengths that neither takes.
    ValueError
        Where body and shortcut give different shapes: when the block is built, if that is known.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> block = nn.Residual(nn.Sequential(nn.Linear(4, 4, init="zeros"), nn.ReLU()))
    >>> block(np.ones((1, 4), np.float32))
    array([[1., 1., 1., 1.]], dtype=float32)
    """

    def __init__(self, body: Layer, shortcut: Layer | None = None) -> None:
        self.body = body
        self.shortcut = shortcut
        self.check_forms()
        self._check_sizes()
        self.assign_paths()

    def _check_sizes(self) -> None:
        """Raise ValueError if the body changes the size of every image, or of every sequence.

        Such as a convolution without padding: a sum with the shortcut needs the same size.
        """
        ranks = self.form_after(Form()).ranks
        inside = [layer for _, layer in self.layers()]
        known = all(is_ours(type(layer)) and layer.keeps_axes for layer in inside)
        if not known or ranks not in ({3}, {4}):
            return
        (rank,) = ranks
        for axis in range(1, rank - 1):
            misfit = self._misfit_along(axis, rank)
            if misfit:
                raise ValueError(
                    f"Residual: {misfit}; {SAME_SHAPE}, or pad the convolutions of the body"
                )

    def _misfit_along(self, axis: int, rank: int) -> str:
        """Say how the body changes an axis of inputs of every size; "" if one may fit."""
        width, changes, misfit = self.width_before() or "features", [], ""
        for size in range(1, LARGE + 1):
            x: Shape = ("batch", *(size if i == axis else LARGE for i in range(1, rank - 1)), width)
            try:
                y = self.body.output_shape(x)
                around = x if self.shortcut is None else self.shortcut.output_shape(x)
            except ValueError:
                continue  # smaller than the window
            if y is None or around is None or is_several(y) or is_several(around):
                return ""
            if not len(y) == len(around) == rank:
                return ""
            changes.append(abs(y[axis] - around[axis]))
            before, after, beside = map(shape_in_words, (x, y, around))
            misfit = f"of {before} the body makes {after}, the shortcut {beside}"
            if not changes[-1]:
                return ""
        # Where larger inputs change less, still larger ones may fit.
        return misfit if changes and changes[-1] >= changes[0] else ""

    @property
    def takes_lengths(self) -> bool:  # type: ignore[override]
        """Whether the body or the shortcut takes lengths."""
        return any(layer.takes_lengths for _, layer in self.children())

    def forward(self, *inputs: Array, lengths: Array | None = None) -> Any:
        if lengths is not None and not self.takes_lengths:
            raise TypeError(f"{self.label}: got lengths, and no layer in it takes them")
        x = one_or_all(inputs)
        y = through(self.body, x, lengths)
        around = x if self.shortcut is None else through(self.shortcut, x, lengths)
        if shapes_of(y) != shapes_of(around):
            raise self._misfit(shapes_of(y), shapes_of(around))
        return added(y, around)

    def check_shapes(self, input_shape: Shape) -> None:
        y, around = self.output_shape(input_shape), without_tuple_of_one(input_shape)
        if self.shortcut is not None:
            around = self.shortcut.output_shape(around)
        if not may_be_alike(y, around):
            raise self._misfit(shape_in_words(y), shape_in_words(around))

    def _misfit(self, y: object, around: object) -> ValueError:
        return ValueError(f"{self.label}: the body gives {y}, the shortcut {around}; {SAME_SHAPE}")

    def backward(self, *dys: Array) -> Any:
        dy: Any = dys[0] if len(dys) == 1 else dys
        around = dy if self.shortcut is None else backward_through(self.shortcut, dy)
        return added(backward_through(self.body, dy), around)

    def output_shape(self, input_shape: Shape) -> Shape:
        return self.body.output_shape(without_tuple_of_one(input_shape))

    def members(self, input_shape: Shape) -> Iterator[Member]:
        for name, layer in self.children():
            yield name, layer, without_tuple_of_one(input_shape)

    def form_after(self, form: Form, place: str = "") -> Form:
        if form.width is None:
            form = form._replace(width=self.width_before())
        y, around = form_after(self.body, form, f" of the body{place}"), form
        if self.shortcut is not None:
            around = form_after(self.shortcut, form, f" of the shortcut{place}")
        gives, about = f"the body{place} gives", "the shortcut"
        if y.ranks.isdisjoint(around.ranks):
            raise MisfitError(
                f"{gives} {y.described()}, {about} {around.described()}; {SAME_SHAPE}"
            )
        if None not in (y.width, around.width) and y.width != around.width:
            raise MisfitError(f"{gives} {y.width} features, {about} {around.width}; {SAME_SHAPE}")
        return y._replace(maker=self, ranks=y.ranks & around.ranks)

    def width_before(self) -> int | None:
        width = width_before(self.body)
        return width_before(self.shortcut) if width is None and self.shortcut else width

    def __repr__(self) -> str:
        shortcut = "" if self.shortcut is None else f", shortcut={self.shortcut!r}"
        return f"{type(self).__name__}({describe_branch(self.body)}{shortcut})"

    @classmethod
    def examples(cls) -> Examples:
        yield cls(Sequential(Linear(3, 3), Tanh(), rng=0)), ((4, 3),)
        yield cls(Linear(3, 2, rng=1), shortcut=Linear(3, 2, rng=2)), ((1, 3),)


def pre_activation(
    features: int,
    hidden: int | None = None,
    norm: Callable[[int], Layer] = BatchNorm,
    activation: Callable[[], Layer] = ReLU,
    rng: Seed = None,
) -> Residual:
    """Make a residual block whose shortcut is the identity, with nothing after the sum.

    y = x + W₂ · φ(norm(W₁ · φ(norm(x))))

    Each of many blocks in a row passes the gradient on unchanged, and adds to it the gradient
    through its body. Source: He et al. 2016b, figure 4 (e).

    Parameters
    ----------
    features
        Width of input and output.
    hidden
        Width between the two ``Linear``; ``features`` by default.
    norm
        Makes a normalization of a width: ``BatchNorm``, ``LayerNorm`` or a function.
    activation
        Makes an activation; the weights get its preferred initialiser.
    rng
        Generator or seed of the weights.

    Examples
    --------
    >>> from minidl import nn
    >>> nn.pre_activation(64, norm=nn.LayerNorm, activation=nn.GELU)
    Residual(LayerNorm -> GELU -> Linear -> LayerNorm -> GELU -> Linear)
    """
    hidden = features if hidden is None else hidden
    first, last = Linear(features, hidden), Linear(hidden, features)
    preferred = activation().preferred_init  # of the activation before them: none follows
    for linear in (first, last):
        linear.choose_init(None if preferred == "skip" else preferred)
    body = (norm(features), activation(), first, norm(hidden), activation(), last)
    return Residual(Sequential(*body, rng=rng))
