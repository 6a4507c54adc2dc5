"""Tables of the layers of a model: what follows what, output shapes, numbers of parameters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from minidl.nn.layer import Layer
from minidl.nn.tuples import is_several

# The shape of an array, such as ("batch", 64), or a tuple of shapes; None where it is not known.
Shape = tuple[Any, ...] | None
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
    if len(input_shapes) == 1 and isinstance(input_shapes[0], tuple) and is_several(*input_shapes):
        (input_shapes,) = input_shapes  # summary((shape, shape)), as model((a, b))
    for given in input_shapes:
        if not isinstance(given, (tuple, list)) or not all(
            isinstance(n, (int, str)) for n in given
        ):
            raise TypeError(
                "summary: expected the shape of a row of each input, a tuple such as (64,) or "
                f"(28, 28, 1), got {given!r}"
            )
    shapes = tuple(("batch", *shape) for shape in input_shapes)
    shape: Shape = shapes[0] if len(shapes) == 1 else shapes or None
    for _, layer, given in model.members(shape):
        _check_width(layer, given)
    rows = (row for m in model.members(shape) for row in _rows(m, "", "", everything=True))
    return _table(model, rows)


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


def _check_width(layer: Layer, shape: Shape) -> None:
    """Raise ValueError if a layer cannot take an input of this width."""
    width = shape[-1] if shape else None
    if isinstance(width, int) and layer.in_features not in (None, width):
        raise ValueError(
            f"summary: {layer.label} takes {layer.in_features} features, and its input would be "
            f"{shape_in_words(shape)}"
        )


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
