"""From layers to modules of PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from minidl import nn
from minidl.nn.joining import Join
from minidl.nn.layer import Layer
from minidl.nn.parameter import Parameter
from minidl.nn.recurrent.cells import RecurrentCell
from minidl.nn.recurrent.sequence import Recurrent
from minidl.torch import branch_modules, channels_first, image_modules, modules
from minidl.torch.feature_order import FeatureOrders, feature_orders, is_reordered
from minidl.torch.layouts import UnknownOrderError
from minidl.torch.making import Modules
from minidl.torch.names import slots
from minidl.torch.state_dict import tensors_of

# Classes without arguments, by the names that PyTorch has for them.
PLAIN: dict[type[Layer], str] = {
    nn.HardSigmoid: "Hardsigmoid",
    nn.HardSwish: "Hardswish",
    nn.Identity: "Identity",
    nn.Mish: "Mish",
    nn.ReLU: "ReLU",
    nn.SELU: "SELU",
    nn.Sigmoid: "Sigmoid",
    nn.SiLU: "SiLU",
    nn.Softsign: "Softsign",
    nn.Tanh: "Tanh",
}


# A module of the class and the options of a layer, and of a layer with others in it; these are
# turned into modules by the second argument.
Maker = Callable[[Any], Any]
ContainerMaker = Callable[[Any, Maker], Any]

MAKERS: dict[type[Layer], Maker] = {
    nn.Linear: lambda layer: torch.nn.Linear(
        layer.in_features, layer.out_features, layer.bias is not None
    ),
    nn.Embedding: lambda layer: torch.nn.Embedding(layer.num_embeddings, layer.features),
    nn.BatchNorm: lambda layer: modules.BatchNorm(layer.in_features, layer.eps, layer.momentum),
    nn.LayerNorm: lambda layer: torch.nn.LayerNorm(layer.in_features, layer.eps),
    nn.RMSNorm: lambda layer: torch.nn.RMSNorm(layer.in_features, layer.eps),
    nn.Standardize: lambda layer: modules.Standardize(layer.in_features),
    nn.PReLU: lambda layer: modules.PReLU(layer.in_features or 1),
    nn.LeakyReLU: lambda layer: torch.nn.LeakyReLU(layer.slope),
    nn.ELU: lambda layer: torch.nn.ELU(layer.alpha),
    nn.CELU: lambda layer: torch.nn.CELU(layer.alpha),
    nn.GELU: lambda layer: torch.nn.GELU(layer.approximate),
    nn.Softplus: lambda layer: torch.nn.Softplus(layer.beta),
    nn.Softmax: lambda layer: torch.nn.Softmax(dim=-1),
    nn.LogSoftmax: lambda layer: torch.nn.LogSoftmax(dim=-1),
    nn.Dropout: lambda layer: (
        image_modules.ChannelDropout if layer.whole_channels else torch.nn.Dropout
    )(layer.p),
    nn.Flatten: lambda layer: (
        image_modules.Flatten(channels_first=False, rows_first=True)
        if layer.channels_first
        else torch.nn.Flatten(layer.start_dim, layer.end_dim)
    ),
    nn.Conv1d: image_modules.Conv1d,
    nn.Conv2d: image_modules.Conv2d,
    nn.MaxPool1d: lambda layer: image_modules.Pool("max", layer.window),
    nn.MaxPool2d: lambda layer: image_modules.Pool("max", layer.window),
    nn.AvgPool1d: lambda layer: image_modules.Pool("avg", layer.window, layer.count_include_pad),
    nn.AvgPool2d: lambda layer: image_modules.Pool("avg", layer.window, layer.count_include_pad),
    nn.GlobalMaxPool: lambda layer: image_modules.GlobalPool("max", layer.keepdims),
    nn.GlobalAvgPool: lambda layer: image_modules.GlobalPool("avg", layer.keepdims),
    nn.Upsample: lambda layer: image_modules.Upsample(layer.scale_factor),
    nn.Concat: lambda layer: branch_modules.Join("concat"),
    nn.Add: lambda layer: branch_modules.Join("add"),
    nn.Multiply: lambda layer: branch_modules.Join("multiply"),
    nn.Stack: lambda layer: branch_modules.Join("stack"),
    nn.Split: lambda layer: branch_modules.Split(layer.sizes),
    nn.Select: lambda layer: branch_modules.Select(layer.index),
}
CONTAINERS: dict[type[Layer], ContainerMaker] = {
    nn.Sequential: lambda layer, made: _kind_of_sequence(layer)(*map(made, layer.stack)),
    nn.Residual: lambda layer, made: branch_modules.Residual(
        made(layer.body), layer.shortcut and made(layer.shortcut)
    ),
    nn.Parallel: lambda layer, made: branch_modules.Parallel(
        {name: made(branch) for name, branch in layer.branches.items()}, layer.join
    ),
}


def _kind_of_sequence(layer: nn.Sequential) -> Any:
    """Return ``torch.nn.Sequential``, or where the first layer takes several inputs, ours."""
    first: Layer = layer
    while isinstance(first, nn.Sequential) and first.stack:
        first = first.stack[0]
    several = isinstance(first, nn.Parallel | Join | nn.Select)
    return branch_modules.Sequential if several else torch.nn.Sequential


def makes(*kinds: type[Layer]) -> Callable[[Maker], Maker]:
    """Register the function that makes modules of these classes of layers."""

    def register(maker: Maker) -> Maker:
        MAKERS.update(dict.fromkeys(kinds, maker))
        return maker

    return register


def module_of(model: Layer) -> Any:
    """Return the module of a model, with its weights, state and modes."""
    found = _orders(model)
    with torch.random.fork_rng(devices=[]):  # the weights that are drawn here are not kept
        module = _Modules(frozenset(map(id, found.flattens))).of(model)
    dtype = torch.float64 if model.dtype == np.float64 else torch.float32
    arrays = tensors_of(model, found.of)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    module.to(dtype).load_state_dict(tensors)
    for slot in slots(model):
        if isinstance(slot.place, Parameter) and slot.place.frozen:
            for name in slot.names:
                module.get_parameter(name).requires_grad_(False)
    return module


def _orders(model: Layer) -> FeatureOrders:
    """Return the orders that ``state_dict`` has; the model's own where these are not known.

    The modules have the channels last as the model has them, so that both compute the same.
    """
    try:
        found = feature_orders(model)
    except UnknownOrderError:
        return FeatureOrders()
    if is_reordered(found.output, found.flattens):
        raise ValueError(
            "to_torch: the model returns features of flattened images and has weights for them, "
            "which are in another order in PyTorch; write Flatten(channels_first=True)"
        )
    return found


class _Modules(Modules):
    """The modules of layers with the channels last."""

    def new(self, layer: Layer) -> Any:
        known = (*MAKERS, *CONTAINERS, nn.ChannelsFirst)
        kind: Any = next((kind for kind in type(layer).__mro__ if kind in known), Layer)
        if kind is Layer or type(layer).forward is not kind.forward:
            raise TypeError(
                f"to_torch: {layer.label} has no counterpart in PyTorch; write a module of your "
                "own, and fill it by minidl.torch.state_dict(layer)"
            )
        if kind is nn.ChannelsFirst:
            return channels_first.module_of(layer, self.of, self.reordered)  # type: ignore[arg-type]
        if id(layer) in self.reordered:
            return image_modules.Flatten(channels_first=False, rows_first=True, reordered=True)
        return CONTAINERS[kind](layer, self.of) if kind in CONTAINERS else MAKERS[kind](layer)


@makes(*PLAIN)
def _plain(layer: Layer) -> Any:
    """Make a module without options."""
    return getattr(torch.nn, next(PLAIN[kind] for kind in type(layer).__mro__ if kind in PLAIN))()


@makes(nn.RNNCell, nn.LSTMCell, nn.GRUCell)
def _cell(cell: RecurrentCell) -> Any:
    """Make a recurrent cell."""
    kind = {
        nn.RNNCell: torch.nn.RNNCell,
        nn.LSTMCell: torch.nn.LSTMCell,
        nn.GRUCell: torch.nn.GRUCell,
    }
    words = {"nonlinearity": cell.nonlinearity} if isinstance(cell, nn.RNNCell) else {}
    made: Any = next(kind[base] for base in type(cell).__mro__ if base in kind)
    return made(cell.in_features, cell.hidden_size, **words)


@makes(nn.RNN, nn.LSTM, nn.GRU)
def _recurrent(layer: Recurrent) -> Any:
    """Make a recurrent layer, with the batch first, that returns its output alone."""
    if layer.stateful is not None:
        raise ValueError(
            f"to_torch: {layer.label} carries its state from batch to batch, which no module of "
            "PyTorch does; build it with stateful=None"
        )
    cell = layer.cells[0]
    words = {"nonlinearity": cell.nonlinearity} if isinstance(cell, nn.RNNCell) else {}
    kind: Any = {"RNNCell": modules.RNN, "LSTMCell": modules.LSTM, "GRUCell": modules.GRU}[
        layer.cell_type.__name__
    ]
    module = kind(
        layer.in_features,
        layer.hidden_size,
        layer.num_layers,
        batch_first=True,
        dropout=layer.dropouts[0].p if layer.dropouts else 0.0,
        bidirectional=layer.bidirectional,
        **words,
    )
    module.return_sequences = layer.return_sequences
    return module
