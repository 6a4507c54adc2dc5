"""The order in which PyTorch has the features that a model takes from flattened images.

``Flatten()`` puts the channels of one pixel side by side, PyTorch's the pixels of one channel,
because it has the channels on axis 1. So the parameters over such features are in another order
there, up to those of the first layer that mixes the features. ``feature_orders`` follows arrays
from layer to layer, as the model calls them, to find these orders.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from minidl import nn
from minidl.nn.convolution import Convolution
from minidl.nn.forms import computes_as_ours
from minidl.nn.global_pooling import GlobalPooling
from minidl.nn.joining import Join
from minidl.nn.layer import Layer
from minidl.nn.pooling import Pooling
from minidl.nn.recurrent.cells import RecurrentCell
from minidl.nn.recurrent.sequence import Recurrent
from minidl.torch.layouts import (
    Images,
    Layout,
    Part,
    Rows,
    Several,
    UnknownOrderError,
    beside,
    elementwise,
    leaves,
    of_unknown_order,
    order_in_pytorch,
    stacked,
    unknown_order,
)
from minidl.typing import Array

# Layers that do the same wherever channels and features are.
ANYWHERE = (
    *(nn.Identity, nn.Dropout, nn.Softmax, nn.LogSoftmax, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.CELU),
    *(nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus, nn.Sigmoid, nn.Tanh, nn.Softsign),
    *(nn.HardSigmoid, nn.HardSwish),
)
FOR_IMAGES = (Convolution, Pooling, nn.Upsample, GlobalPooling)
FOR_FEATURES = (nn.BatchNorm, nn.LayerNorm, nn.RMSNorm, nn.Standardize, nn.PReLU)


@dataclass
class FeatureOrders:
    """What ``feature_orders`` finds.

    ``of`` has, by the ``id`` of a layer, the order in PyTorch of the features that it takes, if it
    is another one; ``flattens`` are the layers that have made them; ``output`` is the layout of
    what the model returns.
    """

    of: dict[int, Array] = field(default_factory=dict)
    flattens: list[nn.Flatten] = field(default_factory=list)
    output: Layout = field(default_factory=Rows)


def feature_orders(model: Layer) -> FeatureOrders:
    """Return the orders in PyTorch of the features that the layers of a model take.

    Raises
    ------
    UnknownOrderError
        Where they do not follow from the model.
    """
    walk = _Walk()
    walk.found.output = walk.through(model, walk.input)
    walk.check_input()
    return walk.found


def is_reordered(layout: Layout, flattens: list[nn.Flatten]) -> bool:
    """Return whether an array holds what these layers give, in another order than PyTorch's."""
    return any(flatten in flattens for flatten in _turned(layout))


def _turned(layout: Layout) -> list[nn.Flatten]:
    """Return the layers behind all features that PyTorch may have in another order."""
    rows = (leaf for leaf in leaves(layout) if isinstance(leaf, Rows))
    return [flatten for leaf in rows for flatten in leaf.flattens]


class _Walk:
    """The layouts of arrays on their way through layers, in the order of the calls."""

    def __init__(self) -> None:
        self.found = FeatureOrders()
        self.input = Rows()  # without layers for images, what PyTorch's module takes
        self.taken: dict[int, Array | None] = {}  # the order of the features that a layer takes
        self.flattened: dict[int, Layout] = {}  # what a Flatten takes
        self.input_is_image = False  # whether a layer for images takes the input of the model
        self.of_input: list[tuple[Part, Layer]] = []  # layers that take the input flattened

    def through(self, layer: Layer, layout: Layout) -> Layout:
        """Return the layout of what a layer gives for an array of this layout."""
        match layer:
            case _ if not computes_as_ours(layer):
                return self._through_own(layer, layout)
            case nn.Sequential():
                for inner in layer.stack:
                    layout = self.through(inner, layout)
                return layout
            case nn.Residual():
                body = self.through(layer.body, layout)
                shortcut = self.through(layer.shortcut, layout) if layer.shortcut else layout
                return elementwise((body, shortcut))
            case nn.Parallel():
                return self._through_branches(layer, layout)
            case nn.ChannelsFirst():
                return self._through_channels_first(layer, layout)
            case Join():
                parts = layout.layouts if isinstance(layout, Several) else (layout,)
                return _joined(layer, parts)
            case nn.Split():
                return _split(layer, layout)
            case nn.Select():
                return layout.layouts[layer.index] if isinstance(layout, Several) else layout
        return self._through_leaf(layer, layout)

    def _through_leaf(self, layer: Layer, layout: Layout) -> Layout:
        """Return the layout of what a layer gives that takes one array and gives one."""
        match layer:
            case nn.Linear() | nn.LayerNorm() | nn.RMSNorm() if isinstance(layout, Images):
                return Images(None, layout.axes)  # in PyTorch they are over columns, the last axis
            case nn.Linear():
                self._take(layer, layout)
                return Rows((Part(layer.out_features),))
            case RecurrentCell() | Recurrent():
                return self._through_recurrent(layer, layout)
            case nn.Embedding():
                return Rows((Part(layer.features),))
            case nn.Flatten():
                return self._flattened(layer, layout)
        if isinstance(layer, FOR_FEATURES):
            self._take(layer, layout)
            return layout
        if isinstance(layer, FOR_IMAGES):
            return self._through_images(layer, layout)
        return layout if isinstance(layer, ANYWHERE) else self._through_own(layer, layout)

    def _take(self, layer: Layer, layout: Layout) -> None:
        """Keep the order of the features that the parameters of a layer are over."""
        if not isinstance(layout, Rows) or layer.in_features is None:
            return
        order = order_in_pytorch(layout, layer, layer.in_features)
        before = self.taken.setdefault(id(layer), order)
        if order is not before and not np.array_equal(order, before):  # type: ignore[arg-type]
            raise UnknownOrderError(
                f"{layer.label}: it is called twice, with features that PyTorch has in different "
                "orders; write Flatten(channels_first=True)"
            )
        self.of_input += [(part, layer) for part in layout.parts if part.why]
        if order is not None:
            self.found.of[id(layer)] = order
            self.found.flattens += layout.flattens

    def _through_recurrent(self, layer: RecurrentCell | Recurrent, layout: Layout) -> Layout:
        """Return the layout of the output, and of the states if the layer is given any."""
        inputs = layout.layouts if isinstance(layout, Several) else (layout,)
        self._take(layer, inputs[0])
        for state in inputs[1:]:
            if turned := _turned(state):
                raise unknown_order(turned[0], layer, "they are the state that it begins with")
        directions = 1 + layer.bidirectional if isinstance(layer, Recurrent) else 1
        output = Rows((Part(directions * layer.hidden_size),))
        return Several((output,) * len(inputs)) if len(inputs) > 1 else output

    def _through_images(self, layer: Layer, layout: Layout) -> Layout:
        """Return the layout of what a layer for images or sequences gives."""
        self.input_is_image |= layout is self.input and not isinstance(layer, GlobalPooling)
        self._take(layer, layout)
        channels, axes = None, None
        if isinstance(layout, Images):
            channels, axes = layout.channels, layout.axes
        elif isinstance(layout, Rows):
            channels = layout.width
        match layer:
            case GlobalPooling() if not layer.keepdims:
                return Rows((Part(channels),))
            case Convolution():
                return Images(layer.out_features, layer.DIMENSIONS + 2)
            case Pooling():
                return Images(channels, layer.dimensions + 2)
        return Images(channels, axes)

    def _flattened(self, layer: nn.Flatten, layout: Layout) -> Layout:
        """Return the layout of what a Flatten gives."""
        if layer.channels_first:
            return Rows()  # who writes this wants PyTorch's order
        if self.flattened.setdefault(id(layer), layout) != layout:
            return of_unknown_order(layer, "it is called twice, with arrays of different layouts")
        if layout is self.input:
            return Rows((Part(None, 1, (layer,), "other layers take its input for images"),))
        if not isinstance(layout, Images):
            return layout if isinstance(layout, Rows) and not layout.are_alike else Rows()
        last = None if layout.axes is None else layout.axes - 1
        if layer.end_dim < -1 or (last and (0 < layer.end_dim < last or layer.start_dim == last)):
            return Images(layout.channels)
        if layer.start_dim > 1 or (last is None and layer.end_dim > 0):
            return of_unknown_order(layer, "it joins the channels to one of several axes")
        if layout.channels is None:
            return of_unknown_order(layer, "how many channels it takes is not known")
        return Rows((Part(None, layout.channels, (layer,)),))

    def _through_branches(self, layer: nn.Parallel, layout: Layout) -> Layout:
        """Return the layout of what branches give, joined or not."""
        branches = list(layer.branches.values())
        given = layout.layouts if isinstance(layout, Several) else ()
        each = given if len(given) == len(branches) else (layout,) * len(branches)
        results = tuple(self.through(*pair) for pair in zip(branches, each, strict=True))
        return Several(results) if layer.joint is None else _joined(layer.joint, results)

    def _through_channels_first(self, layer: nn.ChannelsFirst, layout: Layout) -> Layout:
        """Return the layout of what a layer between two transposes gives."""
        are_rows = isinstance(layout, Rows) and not layout.are_alike
        result = self.through(layer.inner, layout if are_rows else Images())
        if isinstance(result, Images):
            return Images() if isinstance(layout, Images) else Rows()
        return result

    def _through_own(self, layer: Layer, layout: Layout) -> Layout:
        """Return the layout of what a layer of the user's gives, which does what PyTorch's does.

        It is not known whether it takes and gives images, nor how it calls the layers in it.
        """
        inside = [inner for _, inner in layer.layers()]
        images = any(isinstance(inner, (*FOR_IMAGES, nn.ChannelsFirst)) for inner in inside)
        self.input_is_image |= images and layout is self.input
        images |= any(isinstance(leaf, Images) for leaf in leaves(layout))
        turned, learns = _turned(layout), bool(layer.parameters())
        why = f"{layer.label} may change it"
        if not turned:
            turned, learns = self._flattened_inside(layer, Images() if images else Rows())
            why = f"how {layer.label} calls its layers is not known"
        if turned and learns:
            raise unknown_order(turned[0], layer, why)
        if turned:
            return of_unknown_order(turned[0], why)
        _check_own_rows(layer, inside)
        return Images() if images else Rows()

    def _flattened_inside(self, layer: Layer, given: Layout) -> tuple[list[nn.Flatten], bool]:
        """Return what flattens images for other layers, and whether any of these has parameters.

        ``given`` is the layout of what each of the layers inside gets, as far as it is known.
        """
        children = dict.fromkeys(child for _, child in layer.children())
        found: dict[Layer, list[nn.Flatten]] = {}
        for child in children:
            if any(child.children()) or not computes_as_ours(child):
                flattens = _turned(self.through(child, given))
            else:
                is_plain = isinstance(child, nn.Flatten) and not child.channels_first
                flattens = [child] if is_plain and isinstance(given, Images) else []  # type: ignore[list-item]
            if flattens:
                found[child] = flattens
        others = (child for child in children if not isinstance(child, FOR_IMAGES))
        learns = any(child.parameters() for child in others if [child] != list(found))
        return [flatten for flattens in found.values() for flatten in flattens], learns

    def check_input(self) -> None:
        """Raise UnknownOrderError if the input is an image for one layer, and flattened at once."""
        if self.input_is_image and self.of_input:
            part, layer = self.of_input[0]
            raise unknown_order(part.flattens[0], layer, part.why)


def _check_own_rows(layer: Layer, inside: list[Layer]) -> None:
    """Raise UnknownOrderError if a layer of the user's seems to flatten images by itself.

    It does if a ``Linear`` takes a multiple of the channels of a convolution, and no layer gives as
    many features.
    """
    channels = [inner.out_features for inner in inside if isinstance(inner, Convolution)]
    linears = [inner for inner in inside if isinstance(inner, nn.Linear)]
    widths = {*channels, *(linear.out_features for linear in linears)}
    for linear in linears:
        width = linear.in_features
        multiple = any(width % count == 0 for count in channels if count > 1)
        if multiple and width not in widths and not any(isinstance(i, nn.Flatten) for i in inside):
            raise UnknownOrderError(
                f"{layer.label}: it is not known in which order PyTorch has the {width} features "
                f"that {linear.label} takes, which seem to be flattened images; call a layer "
                "Flatten(channels_first=True) in it, or fill the layers in it one by one"
            )


def _joined(layer: Join, parts: tuple[Layout, ...]) -> Layout:
    """Return the layout of one array that a layer makes of several."""
    if isinstance(layer, nn.Concat):
        return beside(parts)
    return stacked(parts) if isinstance(layer, nn.Stack) else elementwise(parts)


def _split(layer: nn.Split, layout: Layout) -> Layout:
    """Return the layouts of the parts of an array along its last axis."""
    if isinstance(layout, Images):
        return Several(tuple(Images(size, layout.axes) for size in layer.sizes))
    if isinstance(layout, Rows) and layout.flattens:
        part = of_unknown_order(layout.flattens[0], "they are split")
        return Several((part,) * len(layer.sizes))
    return Several(tuple(Rows((Part(size),)) for size in layer.sizes))
