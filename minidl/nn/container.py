"""What the layers that are made of layers have in common."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from minidl.nn.forms import (
    Form,
    MisfitError,
    computes_as_ours,
    form_after_layer,
    takes_only_its_width,
)
from minidl.nn.layer import Layer
from minidl.nn.summary import Member, summary_of
from minidl.nn.tuples import Shape


class Container(Layer):
    """Base of layers that are made of layers, each of which checks its own input."""

    def check_input(self, *args: Any, **kwargs: Any) -> None:
        """Check nothing: the layers inside check their own input."""

    def members(self, input_shape: Shape) -> Iterator[Member]:
        """Yield (name, layer, shape of its input) of the layers inside, in their order."""
        raise NotImplementedError(f"{type(self).__name__} does not say how its layers follow")

    def check_shapes(self, input_shape: Shape) -> None:
        """Raise ValueError if layers inside do not fit together, for an input of this shape."""

    def form_after(self, form: Form, place: str = "") -> Form:
        """Return the form of the output for an input of this form (see ``form_after`` below)."""
        raise NotImplementedError(f"{type(self).__name__} does not say what its output is like")

    def width_before(self) -> int | None:
        """Return the width that the input must have; None where any fits, or it is not known."""
        return None

    def check_forms(self) -> None:
        """Raise ValueError if it is known already that layers inside do not fit together."""
        try:
            self.form_after(Form())
        except MisfitError as misfit:
            raise ValueError(f"{type(self).__name__}: {misfit}") from None

    def summary(self, *input_shapes: tuple[int, ...]) -> str:
        """Return a table of all layers inside, with output shapes and parameter counts.

        Parameters
        ----------
        *input_shapes
            The shape of a row of each input, without the batch; none where they are not known.

        Raises
        ------
        TypeError
            For what is no shape.
        ValueError
            For sizes that are none, and where an input of this shape would not get through, naming
            the layer.

        Examples
        --------
        >>> from minidl import nn
        >>> body = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
        >>> print(nn.Sequential(nn.Residual(body), nn.Linear(8, 2)).summary((8,)))
        layer                output       parameters
        --------------------------------------------
        0 Residual           (batch, 8)           72
        └ body Sequential    (batch, 8)           72
          ├ 0 Linear(8, 8)   (batch, 8)           72
          └ 1 ReLU()         (batch, 8)            0
        1 Linear(8, 2)       (batch, 2)           18
        --------------------------------------------
        float32                                   90
        """
        return summary_of(self, input_shapes)


def form_after(layer: Layer, form: Form, place: str = "") -> Form:
    """Return the form of a layer's output for an input of this form.

    ``place`` is where the layer is, in words that stand after its name.

    Raises
    ------
    MisfitError
        If the layer refuses the input, or one inside it refuses what it would get.
    """
    if form.parts and len(form.parts) == 1:
        (form,) = form.parts  # a container takes a tuple of one array as the array
    if not isinstance(layer, Container):
        return form_after_layer(layer, form, place)
    return layer.form_after(form, place) if computes_as_ours(layer) else Form(layer)


def width_before(layer: Layer) -> int | None:
    """Return the width that the input of a layer must have; None where any fits, or not known."""
    if isinstance(layer, Container):
        return layer.width_before() if computes_as_ours(layer) else None
    return layer.in_features if takes_only_its_width(layer) else None
