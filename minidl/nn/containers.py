"""Layers made of layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from minidl import _kernels as kernels
from minidl._kernels.reference import Array
from minidl.nn.activations import ReLU, Tanh
from minidl.nn.init import Initializer, Seed
from minidl.nn.layer import Examples, Layer
from minidl.nn.linear import Linear
from minidl.nn.normalization import BatchNorm


class Sequential(Layer):
    """Layers one after the other.

    y = layer_n(… layer_2(layer_1(x)))

    Parameters
    ----------
    *layers
        The layers, first to last. Between the first and the last ``Linear``, each one without an
        initialiser of its own gets the one that suits the activation after it (see ``Linear``).
    rng
        Generator or seed. If given, all parameters and generators of the layers start anew
        from it, so that one number makes the whole model repeatable.

    Options of a call, such as the ``lengths`` of a recurrent layer, go to the first layer.

    Examples
    --------
    >>> from minidl import nn
    >>> nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10), rng=0)
    layer              output        parameters
    -------------------------------------------
    0 Linear(64, 32)   (batch, 32)        2,080
    1 ReLU()           (batch, 32)            0
    2 Linear(32, 10)   (batch, 10)          330
    -------------------------------------------
    float32                               2,410
    """

    def __init__(self, *layers: Layer, rng: Seed = None) -> None:
        for layer in layers:
            if not isinstance(layer, Layer):
                raise TypeError(f"Sequential takes layers, got {layer!r}")
        self.stack = layers
        if rng is not None:
            self.reset(rng)
        linears = [(i, layer) for i, layer in enumerate(layers) if isinstance(layer, Linear)]
        for index, hidden in linears[1:-1]:
            hidden.suit(self._preferred_init_after(index) or "xavier_uniform")
        self.adopt_children()

    def _preferred_init_after(self, index: int) -> str | Initializer | None:
        preferences = (layer.preferred_init for layer in self.stack[index + 1 :])
        return next((name for name in preferences if name != "skip"), None)

    @property
    def takes_indices(self) -> bool:  # type: ignore[override]
        """Whether the first layer does."""
        return bool(self.stack) and self.stack[0].takes_indices

    def check_input(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: every layer checks its own input."""

    def forward(self, x: Array, **options: Any) -> Array:
        for layer in self.stack:
            x, options = layer(x, **options), {}
        return x

    def backward(self, dy: Array) -> Array:
        for layer in reversed(self.stack):
            dy = layer.backward(dy)
        return dy

    def children(self) -> Iterator[tuple[str, Layer]]:
        return ((str(index), layer) for index, layer in enumerate(self.stack))

    def __len__(self) -> int:
        return len(self.stack)

    def __getitem__(self, index: int | slice) -> Layer:
        """One layer, or for a slice a Sequential of the same layers."""
        chosen = self.stack[index]
        if isinstance(chosen, tuple):
            chosen = Sequential(*chosen)
            self.adopt_children()  # the layers keep the paths they have here
        return chosen

    def output_shape(self, input_shape: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        for layer in self.stack:
            input_shape = layer.output_shape(input_shape)
        return input_shape

    def __repr__(self) -> str:
        return table_of_layers(self)

    @classmethod
    def examples(cls) -> Examples:
        yield cls(Linear(3, 3), Tanh(), Linear(3, 3), rng=2), ((2, 3),)
        yield cls(Linear(3, 4), Tanh(), Linear(4, 2), rng=0), ((5, 3),)
        yield cls(Linear(2, 1), rng=1), ((1, 2),)


class Residual(Layer):
    """A body and a way around it.

    y = body(x) + shortcut(x),  dx = bodyᵀ(dy) + shortcutᵀ(dy)

    With the identity as shortcut, dy reaches the layers below undiminished whatever the body
    does to it: the remedy for gradients that vanish in depth. Source: He et al. 2016, eq. 1.

    Parameters
    ----------
    body
        Any layer.
    shortcut
        Any layer with output of the same shape, such as a ``Linear`` where the body changes
        the width; None for the identity.

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
        self.adopt_children()

    def check_input(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: body and shortcut check theirs."""

    def forward(self, x: Array) -> Array:
        y = self.body(x)
        around = x if self.shortcut is None else self.shortcut(x)
        if y.shape != around.shape:
            raise ValueError(
                f"{self.label}: the body gives {y.shape}, the shortcut {around.shape}; "
                "give a shortcut that maps to the shape of the body, such as a Linear"
            )
        return kernels.add(y, around)

    def backward(self, dy: Array) -> Array:
        around = dy if self.shortcut is None else self.shortcut.backward(dy)
        return kernels.add(self.body.backward(dy), around)

    def output_shape(self, input_shape: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        return self.body.output_shape(input_shape)

    def __repr__(self) -> str:
        names = [type(layer).__name__ for layer in getattr(self.body, "stack", [self.body])]
        shortcut = "" if self.shortcut is None else f", shortcut={self.shortcut!r}"
        return f"Residual({' -> '.join(names)}{shortcut})"

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
    """A residual block whose way around is the identity, with nothing after the sum.

    y = x + W₂ · φ(norm(W₁ · φ(norm(x))))

    However many blocks follow one another, every one of them hands the gradient on as it is, plus
    what comes through its body. Source: He et al. 2016b, figure 4 (e).

    Parameters
    ----------
    features
        Width of input and output.
    hidden
        Width between the two ``Linear``; as many as ``features`` by default.
    norm
        Makes a normalization of a width: ``BatchNorm``, ``LayerNorm`` or a function.
    activation
        Makes an activation, which also decides the initialiser of the weights.
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
    preferred = activation().preferred_init  # it is the activation before them that counts here
    for linear in (first, last):
        linear.suit("xavier_uniform" if preferred in (None, "skip") else preferred)
    body = (norm(features), activation(), first, norm(hidden), activation(), last)
    return Residual(Sequential(*body, rng=rng))


def table_of_layers(model: Layer) -> str:
    """The layers of a model with their output shapes and parameter counts."""
    rows = [("layer", "output", "parameters")]
    shape: tuple[Any, ...] | None = None
    for name, layer in model.children():
        shape = layer.output_shape(shape)
        text = repr(layer)
        if "\n" in text:
            text = f"{type(layer).__name__} of {len(list(layer.children()))} layers"
        output = "" if shape is None else f"({', '.join(map(str, shape))})"
        rows.append((f"{name} {text}", output, f"{_count(layer):,}"))
    rows.append((str(model.dtype or ""), "", f"{_count(model):,}"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        f"{layer:<{widths[0]}}   {output:<{widths[1]}}   {count:>{widths[2]}}"
        for layer, output, count in rows
    ]
    rule = "-" * len(lines[0])
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def _count(layer: Layer) -> int:
    return sum(parameter.size for parameter in layer.parameters())
