"""Layers made of layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from minidl import kernels
from minidl.nn.activations import ReLU, Tanh
from minidl.nn.affine import Affine
from minidl.nn.array_checks import is_lengths
from minidl.nn.layer import Examples, Layer
from minidl.nn.linear import Linear
from minidl.nn.normalization import BatchNorm
from minidl.typing import Array, Seed


class Sequential(Layer):
    """Layers one after the other.

    y = layer_n(… layer_2(layer_1(x)))

    Parameters
    ----------
    *layers
        The layers, first to last. A ``Linear`` that is neither the first nor the last of this
        ``Sequential`` (with those inside it), and was given no initialiser, gets the one that suits
        the activation after it. The body of a ``Residual`` counts as a network of its own (see
        ``Linear``).
    rng
        Generator or seed. If given, all parameters and generators of the layers start anew
        from it, so that one number makes the whole model repeatable.

    The ``lengths`` of padded sequences, ``model(x, lengths)``, go to every layer whose ``forward``
    takes them, up to the layer that drops the time axis. Other layers do not see them: the
    statistics of ``BatchNorm`` include padded steps. Other options of a call go to the first layer.

    Raises
    ------
    TypeError
        For an argument that is no layer, and for lengths where no layer takes them.
    ValueError
        Where the width of a layer's output cannot be the next one's input, naming both.

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
        check_widths(self)
        if rng is not None:
            self.reset(rng)
        choose_inits(self)
        self.assign_paths()

    @property
    def takes_indices(self) -> bool:  # type: ignore[override]
        """Whether the first layer takes indices."""
        return bool(self.stack) and self.stack[0].takes_indices

    @property
    def index_limit(self) -> int | None:  # type: ignore[override]
        """The ``index_limit`` of the first layer."""
        return self.stack[0].index_limit if self.stack else None

    @property
    def takes_lengths(self) -> bool:  # type: ignore[override]
        """Whether any layer takes lengths."""
        return any(layer.takes_lengths for layer in self.stack)

    def check_input(self, *args: Any, **kwargs: Any) -> None:
        """Check nothing: every layer checks its own input."""

    def forward(self, x: Array, lengths: Array | None = None, **options: Any) -> Array:
        if lengths is not None or options:
            return self._forward_with(x, lengths, options)
        for layer in self.stack:
            x = layer(x)
        return x

    def _forward_with(self, x: Array, lengths: Array | None, options: dict[str, Any]) -> Array:
        """Call the layers with the lengths, if they take them, and the first with the options."""
        if lengths is not None and not self.takes_lengths:
            what = "got lengths, and no layer in it takes them"
            if not is_lengths(lengths):
                what = "got a second input, which is for the lengths of sequences; a Layer of your "
                what += "own may have several"
            raise TypeError(f"{self.label}: {what}")
        steps = getattr(x, "shape", ())[1:2]
        for layer in self.stack:
            if lengths is not None and layer.takes_lengths:
                options = {**options, "lengths": lengths}
            x, options = layer(x, **options), {}
            if x.ndim < 3 or x.shape[1:2] != steps:
                lengths = None  # the time axis is gone
        return x

    def backward(self, dy: Array) -> Array:
        for layer in reversed(self.stack):
            dy = layer.backward(dy)
        return dy

    def children(self) -> Iterator[tuple[str, Layer]]:
        """Yield the layers by their numbers, and those that a subclass has as other attributes."""
        return ((name.removeprefix("stack."), layer) for name, layer in super().children())

    def __len__(self) -> int:
        return len(self.stack)

    def __getitem__(self, index: int | slice) -> Layer:
        """Return one layer, or for a slice a ``Sequential`` of the same layers."""
        chosen = self.stack[index]
        if not isinstance(chosen, tuple):
            return chosen
        part = Sequential()
        part.stack = chosen  # the layers keep their paths and their initialisers
        return part

    def output_shape(self, input_shape: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        for layer in self.stack:
            input_shape = layer.output_shape(input_shape)
        return input_shape

    def __repr__(self) -> str:
        return table_of_layers(self)

    def short_name(self) -> str:
        return type(self).__name__

    @classmethod
    def examples(cls) -> Examples:
        yield cls(Linear(3, 3), Tanh(), Linear(3, 3), rng=2), ((2, 3),)
        yield cls(Linear(3, 4), Tanh(), Linear(4, 2), rng=0), ((5, 3),)
        yield cls(Linear(2, 1), rng=1), ((1, 2),)


class Residual(Layer):
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
        self.assign_paths()

    def check_input(self, *args: Any, **kwargs: Any) -> None:
        """Check nothing: body and shortcut check their own input."""

    @property
    def takes_lengths(self) -> bool:  # type: ignore[override]
        """Whether the body or the shortcut takes lengths."""
        return any(layer.takes_lengths for _, layer in self.children())

    def forward(self, x: Array, lengths: Array | None = None) -> Array:
        y = self._through(self.body, x, lengths)
        around = x if self.shortcut is None else self._through(self.shortcut, x, lengths)
        if y.shape != around.shape:
            raise ValueError(
                f"{self.label}: the body gives {y.shape}, the shortcut {around.shape}; "
                "give a shortcut that maps to the shape of the body, such as a Linear"
            )
        return kernels.add(y, around)

    def _through(self, layer: Layer, x: Array, lengths: Array | None) -> Any:
        """Return the output of a layer, called with the lengths if it takes them."""
        return (
            layer(x, lengths=lengths) if lengths is not None and layer.takes_lengths else layer(x)
        )

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


def in_order(layer: Layer) -> Iterator[Layer]:
    """Yield the layers in the order in which they compute, entering every ``Sequential``."""
    waiting = [layer]  # the next one last: no recursion
    while waiting:
        layer = waiting.pop()
        if isinstance(layer, Sequential) and type(layer).forward is Sequential.forward:
            waiting += reversed(layer.stack)
        else:
            yield layer


def choose_inits(model: Layer) -> None:
    """Choose initialisers for each affine layer between the first and the last, by its activation.

    A ``Sequential`` in a ``Residual`` has done so when it was built.
    """
    layers = list(in_order(model))
    linears = [(i, layer) for i, layer in enumerate(layers) if isinstance(layer, Affine)]
    for index, hidden in linears[1:-1]:
        preferences = (follower.preferred_init for follower in layers[index + 1 :])
        hidden.choose_init(next((name for name in preferences if name != "skip"), None))


def check_widths(model: Layer) -> None:
    """Raise ValueError, naming both layers, if one's output has a width that the next refuses."""
    width, before = None, ""
    for layer in in_order(model):
        expected = layer.in_features if takes_only_its_width(layer) else None
        if None not in (width, expected) and width != expected:
            raise ValueError(
                f"{model.short_name()}: {before} gives {width} features, and {layer.short_name()} "
                f"after it takes {expected}"
            )
        width, before = output_width(layer, width), layer.short_name()


def output_width(layer: Layer, width: int | None) -> int | None:
    """Return the width of a layer's output for an input of this width; None if not known."""
    if isinstance(layer, Residual) and type(layer).forward is Residual.forward:
        return output_width(layer.body, width)
    if isinstance(layer, Sequential) and type(layer).forward is Sequential.forward:
        for inner in layer.stack:
            width = output_width(inner, width)
        return width
    kind = type(layer)
    if not (is_ours(kind) or "output_shape" in vars(kind)):
        return None  # a user's layer may change the width without saying so in output_shape
    shape = layer.output_shape(("batch", "...", "features" if width is None else width))
    last = shape[-1] if shape else None
    return last if isinstance(last, int) else None


def takes_only_its_width(layer: Layer) -> bool:
    """Return whether a layer refuses inputs of another width than ``in_features``."""
    kind = type(layer)
    return is_ours(kind) or kind.check_input is Layer.check_input


def is_ours(kind: type[Layer]) -> bool:
    """Return whether a class of layers is one of minidl's."""
    return kind.__module__.startswith("minidl.")


def table_of_layers(model: Layer) -> str:
    """Return a table of a model's layers, their output shapes and parameter counts."""
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
