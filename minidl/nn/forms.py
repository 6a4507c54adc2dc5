"""What is known of an array before a model is called, and which layers take it.

A ``Form`` says how many dimensions an array may have, and how wide the last one is. Containers hand
forms from layer to layer when they are built, so that layers that cannot follow one another are
refused there.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from minidl.nn.array_checks import ONE_OF_SEVERAL
from minidl.nn.layer import Layer
from minidl.nn.tuples import Shape, is_several

ANY = frozenset(range(2, 9))  # numbers of dimensions of an input, the batch among them
IN_WORDS = {
    2: "rows (batch, features)",
    3: "sequences (batch, steps, features)",
    4: "images (batch, height, width, channels)",
}


class Form(NamedTuple):
    """What is known of the input of a layer: of an array, or of a tuple of arrays."""

    maker: Layer | None = None  # whose output it is; None: the input of the model
    ranks: frozenset[int] = ANY  # the numbers of dimensions that it may have
    width: int | None = None  # of the last dimension; None: not known
    parts: tuple[Form, ...] | None = None  # of a tuple; (): one array; None: not known

    def described(self) -> str:
        """Return what messages call it, such as ``rows (batch, features)``."""
        least = min(self.ranks)
        if least > 2 and self.ranks == {rank for rank in ANY if rank >= least}:
            return f"arrays of at least {least} dimensions"
        words = (IN_WORDS.get(rank, f"arrays of {rank} dimensions") for rank in sorted(self.ranks))
        return " or ".join(words)


class MisfitError(ValueError):
    """A layer refuses what it would get. The container that is being built adds its own name."""


def form_after_layer(layer: Layer, form: Form, place: str = "") -> Form:
    """Return the form of the output of a layer with none inside, for an input of this form.

    ``place`` is where the layer is, in words that stand after its name.

    Raises
    ------
    MisfitError
        If the layer refuses the input.
    """
    if form.maker is not None:
        _check_form(layer, form, f"{form.maker.short_name()} gives", place)
    known = _form_of(layer, _shapes_after(layer, form))
    if form.parts is None and layer.most_inputs != 1:
        if not layer.input_ranks:
            return Form(layer)  # such as Select, of a tuple or not
        known = known._replace(parts=None)  # an LSTM also gives a state, if it gets one
    return known


def is_ours(kind: type[Layer]) -> bool:
    """Return whether a class of layers is one of minidl's."""
    return kind.__module__.startswith("minidl.")


def computes_as_ours(layer: Layer) -> bool:
    """Return whether a layer has the forward pass of one of minidl's classes."""
    return is_ours(next(kind for kind in type(layer).__mro__ if "forward" in vars(kind)))


def takes_only_its_width(layer: Layer) -> bool:
    """Return whether a layer refuses inputs of another width than ``in_features``."""
    kind = type(layer)
    return is_ours(kind) or kind.check_input is Layer.check_input


def _check_form(layer: Layer, form: Form, given: str, place: str) -> None:
    """Raise MisfitError if a layer refuses an input of this form; ``given`` says whose it is."""
    takes = f"and {layer.short_name()}{place} after it takes"
    if form.parts and is_ours(type(layer)) and layer.most_inputs == 1:
        count = len(form.parts)
        raise MisfitError(f"{given} a tuple of {count}, {takes} one input; {ONE_OF_SEVERAL}")
    ranks = frozenset(layer.input_ranks)
    if ranks and computes_as_ours(layer) and form.ranks.isdisjoint(ranks):
        raise MisfitError(f"{given} {form.described()}, {takes} {Form(ranks=ranks).described()}")
    width = layer.in_features if takes_only_its_width(layer) else None
    if form.width is not None and width is not None and form.width != width:
        raise MisfitError(f"{given} {form.width} features, {takes} {width}")


def _shapes_after(layer: Layer, form: Form) -> list[Shape]:
    """Return the shapes of the output for each of the shapes that an input of this form may have.

    Sizes that are not known have names.
    """
    kind = type(layer)
    if not (is_ours(kind) or "output_shape" in vars(kind)):
        return []  # a user's layer may change its input without saying so in output_shape
    inputs = _shapes_of(layer, form)
    try:
        return [layer.output_shape(shape) for shape in inputs]
    except Exception as error:
        if is_ours(kind) and isinstance(error, ValueError):
            raise MisfitError(str(error)) from None
        if is_ours(kind):
            raise
        return []  # a user's output_shape may compute with sizes, of which here are names


def _shapes_of(layer: Layer, form: Form) -> list[tuple[Any, ...]]:
    """Return the shapes that an input of this form may have if the layer takes it."""
    if form.parts:
        if layer.most_inputs is not None or any(part.parts is None for part in form.parts):
            return []
        first, *more = form.parts  # input_ranks are those of the first input
        each = [_shapes_of(layer, first), *map(_shapes_in, more)]
        return [tuple(shapes[0] for shapes in each)] if all(len(s) == 1 for s in each) else []
    ranks = form.ranks
    if layer.input_ranks:
        ranks &= frozenset(layer.input_ranks)
    elif layer.takes_indices and ranks == ANY:
        ranks |= {1}
    return _shapes_in(form._replace(ranks=ranks))


def _shapes_in(form: Form) -> list[tuple[Any, ...]]:
    """Return the shapes that an array of this form may have; none for a tuple."""
    if form.parts:
        return []
    width: Any = "features" if form.width is None else form.width
    return [("batch", *("size",) * (rank - 2), width)[-rank:] for rank in sorted(form.ranks)]


def _form_of(maker: Layer, shapes: list[Shape]) -> Form:
    """Return the form of an array that has one of these shapes; no shape: nothing is known."""
    known = [shape for shape in shapes if shape is not None]
    if not known or len(known) < len(shapes):
        return Form(maker)
    counts = {len(shape) for shape in known}
    if any(map(is_several, known)):
        if len(counts) > 1 or not all(map(is_several, known)):
            return Form(maker)
        columns = zip(*known, strict=True)  # the shapes of each of the arrays
        return Form(maker, parts=tuple(_form_of(maker, list(shapes)) for shapes in columns))
    widths = {shape[-1] for shape in known}
    width = widths.pop() if len(widths) == 1 else None
    return Form(maker, frozenset(counts), width if isinstance(width, int) else None, ())
