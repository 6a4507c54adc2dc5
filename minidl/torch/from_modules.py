"""From modules of PyTorch to layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn.parameter import is_lazy

from minidl import nn
from minidl.nn.convolution import Convolution
from minidl.nn.layer import Layer, joined
from minidl.nn.parameter import Parameter
from minidl.nn.recurrent.cells import RecurrentCell
from minidl.nn.windows import Pairs
from minidl.torch import branch_modules, from_images, image_modules, modules
from minidl.torch.feature_order import feature_orders
from minidl.torch.from_images import AMONG_IMAGES, IMAGES, Maker, takes_images
from minidl.torch.layouts import UnknownOrderError
from minidl.torch.names import slots
from minidl.torch.refusal import refuse
from minidl.torch.state_dict import as_array, fill, load_state_dict, state_dict
from minidl.torch.to_modules import PLAIN
from minidl.torch.zero_padding import PADS, paddings_of, refuse_pad

# A layer of the class and the options of a module. The second argument is its path.
MAKERS: dict[type[Any], Maker] = {}


def makes(*kinds: type[Any]) -> Callable[[Maker], Maker]:
    """Register a function for these classes of modules, and not for their subclasses."""

    def register(maker: Maker) -> Maker:
        MAKERS.update(dict.fromkeys(kinds, maker))
        return maker

    return register


def layer_of(module: Any) -> Layer:
    """Return the layer of a module, with its weights, state and modes."""
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"from_torch takes a module of PyTorch, got {type(module).__name__}")
    _check_untied(module)
    paddings = paddings_of(module)
    if not any(map(takes_images, module.modules())):
        walk = _Walk("none", paddings)
        return _with_own_order(walk.of(module, ""), walk.reordered)
    try:  # the channels last from the first layer on
        walk = _Walk("images", paddings)
        layer = nn.ChannelsFirst(walk.of(module, ""))
    except _OtherLayoutError:
        walk = _Walk("each", paddings)
        return _with_own_order(walk.of(module, ""), walk.reordered)
    layer.training = module.training
    return _with_own_order(layer, walk.reordered)


def _with_own_order(model: Layer, flattens: list[nn.Flatten]) -> Layer:
    """Return a model whose ``Flatten`` layers give features in minidl's order again.

    Where the weights behind them cannot follow, they still give them in PyTorch's.
    """
    if not flattens:
        return model
    tensors = state_dict(model)
    for flatten in flattens:
        flatten.channels_first = False
    try:
        followed = {*map(id, flattens)} == {*map(id, feature_orders(model).flattens)}
    except UnknownOrderError:
        followed = False
    if followed:
        load_state_dict(tensors, model)
    else:
        for flatten in flattens:
            flatten.channels_first = True
    return model


class _OtherLayoutError(Exception):
    """Raised for a module that needs images as PyTorch has them, amid layers with channels last."""


class _Walk:
    """The layers of modules, which are asked for in the order in which they are called.

    ``layout`` says how the layers take what is channels-first in PyTorch: ``"images"`` with the
    channels last, ``"each"`` as there, with transposes around each layer; ``"flat"`` says that
    images are rows (batch, features) by now, ``"none"`` that there are no images. ``paddings``
    are the zeros that convolutions add to their own.
    """

    def __init__(self, layout: str, paddings: dict[int, Pairs]) -> None:
        self.layout, self.paddings = layout, paddings
        self.done: dict[int, Layer] = {}
        self.reordered: list[nn.Flatten] = []  # minidl's own, in a module with PyTorch's order

    def of(self, module: Any, path: str) -> Layer:
        """Return the layer of a module, one for all places where the module is."""
        if id(module) in self.done:
            return self.done[id(module)]
        if any(map(is_lazy, module.parameters(recurse=False))):
            refuse(module, path, "does not know its sizes yet; call it once, then convert it")
        if getattr(module, "_forward_hooks", None) or getattr(module, "_forward_pre_hooks", None):
            refuse(module, path, "has hooks, which a layer cannot take over")
        layer = self._container(module, path) or self._leaf(module, path)
        layer.training = module.training
        self.done[id(module)] = layer
        return layer

    def _container(self, module: Any, path: str) -> Layer | None:
        """Return the layer of a module with modules in it; None for others."""
        named = module._modules.items()  # named_children() gives no module twice
        if branch_modules.is_sequence(module):
            return nn.Sequential(*(self.of(child, joined(path, name)) for name, child in named))
        if type(module) is branch_modules.Residual:
            return nn.Residual(*self._beside(module, path).values())  # type: ignore[arg-type]
        if type(module) is not branch_modules.Parallel:
            return None
        branches = self._beside(module, path)
        if module.join in ("concat", "stack"):
            self._check_layout(module, path)
        unnamed = [str(number) for number in range(len(branches))] == list(branches)
        if unnamed:
            return nn.Parallel(*branches.values(), join=module.join)  # type: ignore[arg-type]
        return nn.Parallel(join=module.join, **branches)  # type: ignore[arg-type]

    def _beside(self, module: Any, path: str) -> dict[str, Layer | None]:
        """Return the layers of modules that take the same input."""
        before, found, after = self.layout, {}, set()
        for name, child in module._modules.items():
            self.layout = before
            found[name] = child and self.of(child, joined(path, name))
            after.add(self.layout)
        if len(after) > 1:
            raise _OtherLayoutError
        return found

    def _check_layout(self, module: Any, path: str) -> None:
        """Refuse what concerns an axis that the arrays have elsewhere."""
        if self.layout == "images" and not module.channels_first:
            raise _OtherLayoutError
        if self.layout == "each" and module.channels_first:
            refuse(module, path, "has the channels on axis 1, in minidl they are last")

    def _leaf(self, module: Any, path: str) -> Layer:
        """Return the layer of a module that has no modules in it."""
        if type(module) in PADS and id(module) not in self.paddings:
            refuse_pad(module, path)
        maker, is_turned = self._maker(module, path)
        try:
            layer = maker(module, path)
        except ValueError as error:  # of the layer, which names its class first
            refuse(module, path, f"cannot be taken: {str(error).partition(': ')[2] or error}")
        fill_from(layer, module, path)
        if isinstance(layer, Convolution) and id(module) in self.paddings:
            pairs = zip(
                layer.window.padding_for(layer.kernel_size), self.paddings[id(module)], strict=True
            )
            layer.padding = tuple((a + c, b + d) for (a, b), (c, d) in pairs)
        if isinstance(layer, nn.Flatten) and getattr(module, "reordered", False):
            self.reordered.append(layer)
        if self.layout == "images" and _makes_rows(layer):
            self.layout = "flat"
        if is_turned:
            layer.training = module.training
            return nn.ChannelsFirst(layer)
        return layer

    def _maker(self, module: Any, path: str) -> tuple[Maker, bool]:
        """Return the maker of a layer, and whether that needs transposes around it."""
        kind = type(module)
        ours = MAKERS.get(kind) or IMAGES.get(kind)
        if ours is None:
            advice = (
                "build the model in minidl and fill it by minidl.torch.load_state_dict, or write "
                "the module by torch.onnx.export and read it by minidl.onnx.load"
            )
            refuse(module, path, f"has no counterpart; {advice}")
        if isinstance(module, branch_modules.Join | branch_modules.Split):
            if getattr(module, "how", "concat") in ("concat", "stack"):
                self._check_layout(module, path)
            return ours, False
        if takes_images(module):
            return IMAGES[kind], self.layout != "images"
        among = AMONG_IMAGES.get(kind)
        if self.layout == "flat" and among and _over_channels(module):
            return (ours if kind is torch.nn.Flatten else among), False
        if self.layout in ("flat", "none") or kind in ANYWHERE:
            return ours, False
        if self.layout == "each":
            turned = among is not None and kind is not torch.nn.Flatten
            return (among, True) if among and turned and _over_channels(module) else (ours, False)
        if among is None or not _over_channels(module):
            raise _OtherLayoutError
        return among, False


def _over_channels(module: Any) -> bool:
    """Return whether a module for any arrays is over the channels of images, on axis 1."""
    if isinstance(module, torch.nn.Flatten):
        return (module.start_dim, module.end_dim) in ((1, -1), (2, -1))
    return getattr(module, "dim", 1) == 1


def _makes_rows(layer: Layer) -> bool:
    """Return whether a layer makes rows of images."""
    if isinstance(layer, nn.Flatten):
        return layer.end_dim == -1
    return isinstance(layer, nn.GlobalAvgPool | nn.GlobalMaxPool) and not layer.keepdims


def fill_from(layer: Layer, module: Any, path: str) -> None:
    """Give a layer the weights, the state and the dtype of a module, and what of it is frozen."""
    tensors = {
        name: as_array(joined(path, name), tensor) for name, tensor in module.state_dict().items()
    }
    if any(tensor.dtype == np.float64 for tensor in tensors.values()):
        layer.astype(np.float64)
    for _, cell in layer.layers():
        if isinstance(cell, RecurrentCell):
            cell.bias.data[...] = 0  # for a module without biases
    wanted = list(slots(layer))
    fill(wanted, tensors)
    learned = dict(module.named_parameters())
    for slot in wanted:
        held = [learned[name].requires_grad for name in slot.names if name in learned]
        if isinstance(slot.place, Parameter):  # also one that the module does without
            slot.place.frozen = not any(held)


def _check_untied(module: Any) -> None:
    """Raise TypeError if two modules share a parameter: they would be trained apart here."""
    owners: dict[int, str] = {}
    for path, part in module.named_modules():
        for name, parameter in part.named_parameters(prefix=path, recurse=False):
            other = owners.setdefault(id(parameter), name)
            if other != name:
                raise TypeError(
                    f"from_torch: {other} and {name} are one parameter, which two layers cannot "
                    "share here; give each its own copy"
                )


@makes(*(getattr(torch.nn, name) for name in PLAIN.values()))
def plain(module: Any, path: str) -> Layer:
    """Make a layer without options."""
    return next(kind for kind, name in PLAIN.items() if type(module) is getattr(torch.nn, name))()


@makes(torch.nn.Linear)
def linear(module: Any, path: str) -> Layer:
    """Make an affine layer."""
    return nn.Linear(module.in_features, module.out_features, module.bias is not None)


@makes(torch.nn.Embedding)
def embedding(module: Any, path: str) -> Layer:
    """Make an embedding."""
    trained = ("padding_idx", "scale_grad_by_freq") if module.weight.requires_grad else ()
    for name in ("max_norm", *trained):
        value = getattr(module, name)
        if value is not None and value is not False:  # 0 is a row
            what = f"has {name}={value}, which would be lost: minidl has no such option"
            advice = (
                f"; set module.{name} = {'False' if value is True else 'None'} to do without it"
            )
            refuse(module, path, what + advice)
    return nn.Embedding(module.num_embeddings, module.embedding_dim)


MAKERS |= {
    **dict.fromkeys((torch.nn.BatchNorm1d, modules.BatchNorm), from_images.batch_norm),
    **dict.fromkeys((torch.nn.PReLU, modules.PReLU), from_images.prelu),
    # Those of images with the channels last.
    **{kind: IMAGES[kind] for kind in IMAGES if kind.__module__.startswith("minidl.")},
    # Their zeros are those of the convolution behind them.
    **dict.fromkeys(PADS, lambda module, path: nn.Identity()),
    image_modules.ChannelDropout: from_images.channel_dropout,
    branch_modules.Select: lambda module, path: nn.Select(module.index),
}


@makes(torch.nn.LayerNorm, torch.nn.RMSNorm)
def row_norm(module: Any, path: str) -> Layer:
    """Make a normalization of rows."""
    if len(module.normalized_shape) != 1:
        refuse(module, path, f"is over {len(module.normalized_shape)} axes, in minidl over one")
    kind = nn.LayerNorm if isinstance(module, torch.nn.LayerNorm) else nn.RMSNorm
    return kind(module.normalized_shape[0], module.eps)


@makes(modules.Standardize)
def standardize(module: Any, path: str) -> Layer:
    """Make a standardization of features."""
    return nn.Standardize(module.mean.numel())


@makes(torch.nn.LeakyReLU)
def leaky_relu(module: Any, path: str) -> Layer:
    """Make a rectifier with a slope below zero."""
    return nn.LeakyReLU(module.negative_slope)


@makes(torch.nn.ELU, torch.nn.CELU)
def elu(module: Any, path: str) -> Layer:
    """Make an exponential linear unit."""
    return (nn.ELU if isinstance(module, torch.nn.ELU) else nn.CELU)(module.alpha)


@makes(torch.nn.GELU)
def gelu(module: Any, path: str) -> Layer:
    """Make a Gaussian error linear unit."""
    return nn.GELU(module.approximate)


@makes(torch.nn.Softplus)
def softplus(module: Any, path: str) -> Layer:
    """Make a smooth rectifier."""
    if module.threshold < nn.Softplus.straight_from:
        what = f"is linear from threshold={module.threshold} on, and Softplus of minidl is not"
        refuse(module, path, what)
    return nn.Softplus(module.beta)


@makes(torch.nn.Softmax, torch.nn.LogSoftmax)
def softmax(module: Any, path: str) -> Layer:
    """Make probabilities of the last axis, or their logarithms."""
    if module.dim != -1:
        refuse(module, path, f"is over axis {module.dim}, in minidl over the last; write dim=-1")
    return nn.Softmax() if isinstance(module, torch.nn.Softmax) else nn.LogSoftmax()


@makes(torch.nn.Dropout)
def dropout(module: Any, path: str) -> Layer:
    """Make a dropout."""
    return nn.Dropout(module.p)


@makes(torch.nn.Flatten)
def flatten(module: Any, path: str) -> Layer:
    """Make a layer that puts axes into one."""
    return nn.Flatten(module.start_dim, module.end_dim)


@makes(torch.nn.RNNCell, torch.nn.LSTMCell, torch.nn.GRUCell)
def cell(module: Any, path: str) -> Layer:
    """Make a recurrent cell."""
    words = {"nonlinearity": module.nonlinearity} if type(module) is torch.nn.RNNCell else {}
    kind = getattr(nn, type(module).__name__)
    return kind(module.input_size, module.hidden_size, **words)


@makes(torch.nn.RNN, torch.nn.LSTM, torch.nn.GRU, modules.RNN, modules.LSTM, modules.GRU)
def recurrent(module: Any, path: str) -> Layer:
    """Make a recurrent layer."""
    if not module.batch_first:
        refuse(module, path, "takes time first, minidl the batch; build it with batch_first=True")
    if module.proj_size:
        refuse(module, path, f"has proj_size={module.proj_size}, which minidl has not")
    words = {"nonlinearity": module.nonlinearity} if isinstance(module, torch.nn.RNN) else {}
    return getattr(nn, type(module).__name__)(
        module.input_size,
        module.hidden_size,
        module.num_layers,
        bidirectional=module.bidirectional,
        dropout=module.dropout if module.num_layers > 1 else 0.0,
        return_sequences=getattr(module, "return_sequences", True),
        **words,
    )


# Modules that do the same wherever the channels are.
ANYWHERE = frozenset(
    {
        *(getattr(torch.nn, name) for name in PLAIN.values()),
        *(torch.nn.LeakyReLU, torch.nn.ELU, torch.nn.CELU, torch.nn.GELU, torch.nn.Softplus),
        *(torch.nn.Dropout, branch_modules.Select, *PADS),
    }
)
