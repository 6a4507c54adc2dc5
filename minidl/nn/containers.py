"""Layers one after the other, and the initialisers that suit what follows them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeGuard

from minidl.nn.activations import Tanh
from minidl.nn.affine import Affine
from minidl.nn.array_checks import is_lengths
from minidl.nn.branches import Parallel
from minidl.nn.container import Container, form_after, width_before
from minidl.nn.forms import Form
from minidl.nn.layer import Examples, Layer
from minidl.nn.lengths import steps_in, steps_of_last
from minidl.nn.linear import Linear
from minidl.nn.summary import (
    Member,
    table_of_layers,
)
from minidl.nn.tuples import (
    Shape,
    backward_through,
    one_or_all,
    without_tuple_of_one,
)
from minidl.typing import Array, Seed


class Sequential(Container):
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

    Several inputs, ``model(a, b)``, go to the first layer, such as a ``Parallel``. What a layer
    returns as a tuple are the inputs of the next one.

    The ``lengths`` of padded sequences, ``model(x, lengths)``, go to every layer whose ``forward``
    takes them, up to the layer that drops the time axis. Other layers do not see them: the
    statistics of ``BatchNorm`` include padded steps. Other options of a call go to the first layer.

    Raises
    ------
    TypeError
        For an argument that is no layer, and for lengths where no layer takes them.
    ValueError
        Where the output of a layer cannot be the next one's input, naming both: by its width, its
        dimensions, or because it is a tuple.

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
        self.check_forms()
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

    def forward(self, *inputs: Array, lengths: Array | None = None, **options: Any) -> Any:
        if len(inputs) != 1 or lengths is not None or options:
            return self._forward_with(inputs, lengths, options)
        (x,) = inputs
        for layer in self.stack:
            x = layer(x)
        return x

    def _forward_with(
        self, inputs: tuple[Any, ...], lengths: Array | None, options: dict[str, Any]
    ) -> Any:
        """Call the layers with the lengths, if they take them, and the first with the options."""
        self._check_inputs(inputs, lengths)
        x = one_or_all(inputs)
        steps = steps_of_last(inputs)
        changed_by: Layer | None = None
        for layer in self.stack:
            if lengths is not None and layer.takes_lengths:
                if changed_by is not None:
                    raise ValueError(
                        f"{self.label}: {changed_by.short_name()} makes other steps of {steps}, "
                        f"to which the lengths that {layer.short_name()} takes do not belong; keep "
                        'the steps, for example by padding="same" or "causal"'
                    )
                if layer is not self.stack[0] and _is_by_branch(layer, x):
                    x = layer.with_lengths(x, lengths, steps)
                else:
                    options = {**options, "lengths": lengths}
            x, options = layer(x, **options), {}
            if not (known := steps_in(x)):
                lengths = None  # the time axis is gone
            else:
                changed_by = None if steps in known else changed_by or layer
        return x

    def _check_inputs(self, inputs: tuple[Any, ...], lengths: Array | None) -> None:
        """Raise TypeError for lengths, or for several inputs, that no layer takes."""
        what = ""
        if lengths is not None and not self.takes_lengths:
            what = "got lengths, and no layer in it takes them"
        elif len(inputs) > 1 and (not self.stack or self.stack[0].most_inputs == 1):
            what = "got a second input, which is for the lengths of sequences; for several inputs "
            what += "begin with nn.Parallel, or with a Layer of your own"
            if is_lengths(inputs[-1]):
                what = "got lengths, and no layer in it takes them"
        if what or not inputs:
            raise TypeError(f"{self.label}: {what or 'got no input'}")

    def backward(self, *dys: Array) -> Any:
        dy: Any = dys[0] if len(dys) == 1 else dys
        for layer in reversed(self.stack):
            dy = backward_through(layer, dy)
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

    def output_shape(self, input_shape: Shape) -> Shape:
        input_shape = without_tuple_of_one(input_shape)
        for layer in self.stack:
            input_shape = layer.output_shape(input_shape)
        return input_shape

    def members(self, input_shape: Shape) -> Iterator[Member]:
        input_shape = without_tuple_of_one(input_shape)
        for name, layer in self.children():
            yield name, layer, input_shape
            input_shape = layer.output_shape(input_shape)

    def form_after(self, form: Form, place: str = "") -> Form:
        for layer in self.stack:
            form = form_after(layer, form, place)
        return form

    def width_before(self) -> int | None:
        return width_before(self.stack[0]) if self.stack else None

    def __repr__(self) -> str:
        return table_of_layers(self)

    def short_name(self) -> str:
        return type(self).__name__

    @classmethod
    def examples(cls) -> Examples:
        yield cls(Linear(3, 3), Tanh(), Linear(3, 3), rng=2), ((2, 3),)
        yield cls(Linear(3, 4), Tanh(), Linear(4, 2), rng=0), ((5, 3),)
        yield cls(Linear(2, 1), rng=1), ((1, 2),)


def _is_by_branch(layer: Layer, x: Any) -> TypeGuard[Parallel]:
    """Return whether an input is a tuple of one array for each of the branches of a layer."""
    if not isinstance(layer, Parallel) or type(x) is not tuple:
        return False
    return len(x) == len(layer.branches) > 1


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
