"""What is known of an array between two layers: where PyTorch has its channels and features."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from minidl.nn.layer import Layer
from minidl.nn.reshape import Flatten
from minidl.typing import Array


class UnknownOrderError(ValueError):
    """Raised for features whose order in PyTorch does not follow from the model."""


@dataclass(frozen=True)
class Images:
    """Images or sequences with the channels last, which PyTorch has with the channels on axis 1.

    ``channels`` is how many there are, ``axes`` how many axes the array has; None: not known.
    """

    channels: int | None = None
    axes: int | None = None


@dataclass(frozen=True)
class Part:
    """Features that are side by side.

    Attributes
    ----------
    width
        How many there are; None where it is not known.
    channels
        Those of the images that the features come from, pixel by pixel; 1 for features in PyTorch's
        order, None for an unknown one.
    flattens
        The layers that have flattened these images, several where results of them are added up.
    why
        Why the order is not known, in words.
    """

    width: int | None = None
    channels: int | None = 1
    flattens: tuple[Flatten, ...] = ()
    why: str = ""


@dataclass(frozen=True)
class Rows:
    """An array that has the same axes in PyTorch, and on the last one these features."""

    parts: tuple[Part, ...] = (Part(),)

    @property
    def are_alike(self) -> bool:
        """Whether PyTorch has the features in the same order."""
        return all(part.channels == 1 for part in self.parts)

    @property
    def width(self) -> int | None:
        """How many features there are; None where it is not known."""
        widths = [part.width for part in self.parts if part.width is not None]
        return sum(widths) if len(widths) == len(self.parts) else None

    @property
    def flattens(self) -> list[Flatten]:
        """The layers behind those features that PyTorch may have in another order."""
        turned = [part for part in self.parts if part.channels != 1]
        return [flatten for part in turned for flatten in part.flattens]


@dataclass(frozen=True)
class Several:
    """A tuple of arrays."""

    layouts: tuple[Layout, ...]


Layout = Images | Rows | Several


def leaves(layout: Layout) -> Iterator[Images | Rows]:
    """Yield the layouts of all arrays in a tuple, or of the one array."""
    if isinstance(layout, Several):
        for inner in layout.layouts:
            yield from leaves(inner)
    else:
        yield layout


def of_unknown_order(flatten: Flatten, why: str) -> Rows:
    """Return features whose order in PyTorch is not known, for this reason."""
    return Rows((Part(None, None, (flatten,), why),))


def order_in_pytorch(rows: Rows, layer: Layer, width: int) -> Array | None:
    """Return which of these features is PyTorch's first, second, ...; None for the same order.

    Of flattened images with c channels, PyTorch's feature k · pixels + p is p · c + k here.

    Raises
    ------
    UnknownOrderError
        Where it does not follow from the model, naming the layer that takes the features.
    """
    if rows.are_alike:
        return None
    for part in rows.parts:
        if part.channels is None:
            raise unknown_order(part.flattens[0], layer, part.why)
    if sum(part.width is None for part in rows.parts) > 1:
        why = "several widths of what is side by side are not known"
        raise unknown_order(rows.flattens[0], layer, why)
    rest = width - sum(part.width or 0 for part in rows.parts)
    order, start = [np.arange(0)], 0
    for part in rows.parts:
        size, channels = rest if part.width is None else part.width, part.channels or 1
        if size < 0 or size % channels:
            why = f"{max(size, 0)} features are no pixels of {channels} channels"
            raise unknown_order(rows.flattens[0], layer, why)
        order.append(start + np.arange(size).reshape(-1, channels).T.ravel())
        start += size
    found = np.concatenate(order)
    return None if np.array_equal(found, np.arange(start)) else found


def unknown_order(flatten: Flatten, layer: Layer, why: str) -> UnknownOrderError:
    """Return the error for a layer that takes features of an unknown order."""
    return UnknownOrderError(
        f"{flatten.label}: it is not known in which order PyTorch has the features that "
        f"{layer.label} takes from it, because {why}; write Flatten(channels_first=True) for "
        "images that PyTorch flattens with the channels on axis 1, or go by to_torch(model), which "
        "has them last as the model"
    )


def beside(layouts: tuple[Layout, ...]) -> Layout:
    """Return the layout of arrays that are put side by side, along the last axis."""
    rows = [layout for layout in layouts if isinstance(layout, Rows)]
    if len(rows) == len(layouts):
        return Rows(tuple(part for layout in rows for part in layout.parts))
    channels = [layout.channels for layout in layouts if isinstance(layout, Images)]
    known = [number for number in channels if number is not None]
    axes = next((layout.axes for layout in layouts if isinstance(layout, Images)), None)
    return Images(sum(known) if len(known) == len(layouts) else None, axes)


def elementwise(layouts: tuple[Layout, ...]) -> Layout:
    """Return the layout of arrays of one shape that are added or multiplied."""
    images = [layout for layout in layouts if isinstance(layout, Images)]
    if images:
        return max(images, key=lambda layout: layout.channels is not None)
    if all(isinstance(layout, Several) for layout in layouts):
        each = (layout.layouts for layout in layouts if isinstance(layout, Several))
        return Several(tuple(map(elementwise, zip(*each, strict=True))))
    rows = [layout for layout in layouts if isinstance(layout, Rows)]
    if all(layout.are_alike for layout in rows):
        return max(rows, key=lambda layout: layout.width is not None)
    orders = [[part.channels for part in layout.parts] for layout in rows]
    if all(None not in order and order == orders[0] for order in orders):
        return Rows(tuple(map(_of_one_shape, zip(*(layout.parts for layout in rows), strict=True))))
    flatten = next(flatten for layout in rows for flatten in layout.flattens)
    return of_unknown_order(flatten, "they are combined with features of another order")


def _of_one_shape(parts: tuple[Part, ...]) -> Part:
    """Return the features of the same images, added up or multiplied."""
    flattens = tuple(flatten for part in parts for flatten in part.flattens)
    width = next((part.width for part in parts if part.width is not None), None)
    return Part(width, parts[0].channels, flattens)


def stacked(layouts: tuple[Layout, ...]) -> Layout:
    """Return the layout of arrays of one shape that are put on a new axis before the last."""
    if not all(isinstance(layout, Rows) for layout in layouts):
        return Images()
    joined = elementwise(layouts)
    if isinstance(joined, Rows) and joined.flattens:
        return of_unknown_order(joined.flattens[0], "they are stacked")
    return joined
