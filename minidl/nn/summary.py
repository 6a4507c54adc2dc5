"""Tables of the layers of a model: what follows what, output shapes, numbers of parameters."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from minidl.nn.forms import Form, computes_as_ours, is_ours, takes_only_its_width
from minidl.nn.layer import Layer
from minidl.nn.tuples import Shape, is_several

Member = tuple[str, Layer, Shape]  # its name, the layer, and the shape of its input
Row = tuple[str, str, str]

# What a model may take whose input is not known.
INPUTS: tuple[Shape, ...] = (
    None,
    ("batch", "time", "features"),
    ("batch", "height", "width", "channels"),
)


def table_of_layers(model: Any) -> str:
    """Return a table of the layers of a container, and below those that branch, of their branches.

    ``model`` has the method ``members``, which yields the layers in it.
    """
    for shape in INPUTS:
        try:
            rows = [row for member in model.members(shape) for row in _rows(member, "", "")]
        except (TypeError, ValueError):
            continue  # the layers take inputs of other dimensions
        return _table(model, rows)
    layers = model.children()
    return _table(
        model, [_row(f"{name} ", layer, layer.short_name(), None) for name, layer in layers]
    )


def summary_of(model: Any, input_shapes: tuple[Any, ...]) -> str:
    """Return a table of all layers in a container, with the shapes for inputs of these shapes."""
    shapes = tuple(map(_with_batch, input_shapes))
    shape: Shape = shapes[0] if len(shapes) == 1 else shapes or None
    _check(model, shape)
    rows = (row for m in model.members(shape) for row in _rows(m, "", "", everything=True))
    return _table(model, rows)


def _check(model: Layer, shape: Shape) -> None:
    """Raise ValueError, naming the layer, if an input of this shape would not get through."""
    doubt = ""
    for layer, given in walk(model, shape):
        try:
            if hasattr(layer, "check_shapes"):
                if computes_as_ours(layer):
                    layer.check_shapes(given)
            elif given is not None:
                _check_layer(layer, given)
        except ValueError as error:
            raise ValueError(f"summary: {error}{doubt}") from None
        kind = type(layer)
        if not is_ours(kind) and kind.output_shape is Layer.output_shape:
            doubt = f"; {layer.label} keeps the shape, unless it defines output_shape"


def walk(layer: Any, shape: Shape) -> Iterator[tuple[Layer, Shape]]:
    """Yield all layers with the shapes of their inputs, in their order; a container at its end."""
    if hasattr(layer, "members") and computes_as_ours(layer):
        for _, inner, given in layer.members(shape):
            yield from walk(inner, given)
    yield layer, shape


def numbers_of_a_row(model: Layer, row: tuple[int, ...]) -> int:
    """Count the numbers that all layers give for a row of this shape, as far as that is known."""
    walked = walk(model, ("batch", *row))
    outputs = (layer.output_shape(shape) for layer, shape in walked if shape is not None)
    known = (shape[1:] for shape in outputs if shape is not None and not is_several(shape))
    return sum(math.prod(sizes) for sizes in known if not any(isinstance(n, str) for n in sizes))


def may_be_alike(a: Shape, b: Shape, to_the_last: bool = False) -> bool:
    """Return whether two shapes may be the same, as far as sizes are known.

    With ``to_the_last``, their last dimensions may differ.
    """
    if a is None or b is None:
        return True
    if len(a) != len(b) or is_several(a) != is_several(b):
        return False
    if is_several(a):
        return all(map(may_be_alike, a, b))
    pairs = list(zip(a, b, strict=True))[: -1 if to_the_last else None]
    return all(m == n or isinstance(m, str) or isinstance(n, str) for m, n in pairs)


def _with_batch(given: Any) -> tuple[Any, ...]:
    """Return the shape of an input, or of a tuple of inputs, with the batch before each."""
    if not isinstance(given, (tuple, list)):
        raise TypeError(
            "summary: expected the shape of a row of each input, a tuple such as (64,) or "
            f"(28, 28, 1), got {given!r}"
        )
    if given and all(isinstance(one, (tuple, list)) for one in given):
        return tuple(map(_with_batch, given))
    if not all(map(_is_size, given)):
        raise ValueError(
            "summary: the shape of a row, without the batch, holds whole numbers >= 1, and names "
            f'of sizes that are not known, such as ("steps", 8); got {given!r}'
        )
    return "batch", *(size if isinstance(size, str) else int(size) for size in given)


def _is_size(value: Any) -> bool:
    """Return whether this is the name of a size, or a whole number from 1 on."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return bool(value >= 1) if whole else isinstance(value, str)


def _check_layer(layer: Layer, shape: tuple[Any, ...]) -> None:
    """Raise ValueError, naming the layer, if it cannot take an input of this shape."""
    words, first = shape_in_words(shape), shape
    if is_several(shape):
        most = layer.most_inputs
        if most is not None and most - layer.takes_lengths <= 1:
            raise ValueError(f"{layer.label} takes one input, and would get {words}")
        if not layer.input_ranks or shape[0] is None:
            return
        first = shape[0]  # the others are the state of a recurrent layer
    takes, ranks = "", layer.input_ranks if computes_as_ours(layer) else ()
    if ranks and len(first) not in ranks:
        takes = Form(ranks=frozenset(ranks)).described()
    elif layer.in_features is not None and takes_only_its_width(layer):
        fits = len(first) > 1 and (isinstance(first[-1], str) or first[-1] == layer.in_features)
        takes = "" if fits else f"{layer.in_features} features"
    if takes:
        raise ValueError(f"{layer.label} takes {takes}, and its input would be {words}")
    try:
        layer.output_shape(shape)
    except ValueError as error:  # now with the layer's place in the model
        why = str(error).removeprefix(f"{layer.label}: ").removeprefix(f"{type(layer).__name__}: ")
        raise ValueError(f"{layer.label}: {why}") from None


def _rows(member: Member, lead: str, below: str, everything: bool = False) -> Iterator[Row]:
    """Yield the row of a layer, after ``lead``, and those of the layers in it, after ``below``."""
    name, layer, shape = member
    everything = everything or any(hasattr(inner, "branches") for _, inner in layer.layers())
    inner = list(layer.members(shape)) if everything and hasattr(layer, "members") else []
    text = repr(layer)
    if inner:
        text = type(layer).__name__ + getattr(layer, "headline", "")
    elif "\n" in text:
        text = f"{type(layer).__name__} of {len(list(layer.children()))} layers"
    yield _row(f"{lead}{name} ", layer, text, layer.output_shape(shape))
    for number, one in enumerate(inner, 1):
        last = number == len(inner)
        yield from _rows(one, below + "├└"[last] + " ", below + "│ "[last] + " ", everything)


def _row(lead: str, layer: Layer, text: str, output: Shape) -> Row:
    return lead + text, shape_in_words(output), f"{count_parameters(layer):,}"


def _table(model: Layer, rows: Iterable[Row]) -> str:
    """Return the rows in columns, below a headline and above the totals."""
    total = (str(model.dtype or ""), "", f"{count_parameters(model):,}")
    table = [("layer", "output", "parameters"), *rows, total]
    widths = [max(len(row[column]) for row in table) for column in range(3)]
    lines = [
        f"{layer:<{widths[0]}}   {output:<{widths[1]}}   {count:>{widths[2]}}"
        for layer, output, count in table
    ]
    rule = "-" * len(lines[0])
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def shape_in_words(shape: Shape) -> str:
    """Return a shape such as ``(batch, 64)``, or several with "and" between; "" if not known."""
    if shape is None:
        return ""
    if is_several(shape):
        return " and ".join(shape_in_words(size) or "?" for size in shape)
    return f"({', '.join(map(str, shape))})"


def count_parameters(layer: Layer) -> int:
    """Return how many numbers a layer learns."""
    return sum(parameter.size for parameter in layer.parameters())


def describe_branch(layer: Layer) -> str:
    """Return the classes of a layer's layers in their order: ``Linear -> ReLU``."""
    return " -> ".join(type(inner).__name__ for inner in getattr(layer, "stack", [layer]))
