"""From layers to modules of PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from minidl import nn
from minidl.nn.layer import Layer
from minidl.nn.parameter import Parameter
from minidl.nn.recurrent.cells import RecurrentCell
from minidl.nn.recurrent.sequence import Recurrent
from minidl.torch import modules
from minidl.torch.names import slots
from minidl.torch.state_dict import state_dict

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


def module_of(model: Layer) -> Any:
    """Return the module of a model, with its weights, state and modes."""
    with torch.random.fork_rng(devices=[]):  # the weights that are drawn here are not kept
        module = _converted(model, {})
    dtype = torch.float64 if model.dtype == np.float64 else torch.float32
    tensors = {name: torch.from_numpy(array) for name, array in state_dict(model).items()}
    module.to(dtype).load_state_dict(tensors)
    for slot in slots(model):
        if isinstance(slot.place, Parameter) and slot.place.frozen:
            for name in slot.names:
                module.get_parameter(name).requires_grad_(False)
    return module


def _converted(layer: Layer, done: dict[int, Any]) -> Any:
    """Return the module of a layer, one for all places where the layer is."""
    if id(layer) not in done:
        module = done[id(layer)] = _made(layer, done)
        module.training = layer.uses_batch if isinstance(layer, nn.BatchNorm) else layer.training
    return done[id(layer)]


def _made(layer: Layer, done: dict[int, Any]) -> Any:
    """Return a module of the class and the options of a layer."""
    ours = next((kind for kind in type(layer).__mro__ if kind in nn.Layer.registry), Layer)
    if not ours.__module__.startswith("minidl.") or type(layer).forward is not ours.forward:
        raise TypeError(
            f"to_torch: {layer.label} has no counterpart in PyTorch; write a module of your own, "
            "and fill it by minidl.torch.state_dict(layer)"
        )
    match layer:
        case nn.Sequential():
            return torch.nn.Sequential(*(_converted(inner, done) for inner in layer.stack))
        case nn.Residual():
            shortcut = None if layer.shortcut is None else _converted(layer.shortcut, done)
            return modules.Residual(_converted(layer.body, done), shortcut)
        case Recurrent():
            return _recurrent(layer)
        case RecurrentCell():
            words = {"nonlinearity": layer.nonlinearity} if isinstance(layer, nn.RNNCell) else {}
            kind = getattr(torch.nn, ours.__name__)
            return kind(layer.in_features, layer.hidden_size, **words)
        case _ if ours in PLAIN:
            return getattr(torch.nn, PLAIN[ours])()
        case _:
            return _with_options(layer)


def _with_options(layer: Layer) -> Any:
    """Return the module of a layer that has options and no layers in it."""
    match layer:
        case nn.Linear():
            return torch.nn.Linear(layer.in_features, layer.out_features, layer.bias is not None)
        case nn.Embedding():
            return torch.nn.Embedding(layer.num_embeddings, layer.features)
        case nn.BatchNorm():
            return modules.BatchNorm(layer.in_features, layer.eps, layer.momentum)
        case nn.LayerNorm():
            return torch.nn.LayerNorm(layer.in_features, layer.eps)
        case nn.RMSNorm():
            return torch.nn.RMSNorm(layer.in_features, layer.eps)
        case nn.Standardize():
            return modules.Standardize(layer.in_features)
        case nn.PReLU():
            return modules.PReLU(layer.in_features or 1)
        case nn.LeakyReLU():
            return torch.nn.LeakyReLU(layer.slope)
        case nn.ELU() | nn.CELU():
            return getattr(torch.nn, type(layer).__name__)(layer.alpha)
        case nn.GELU():
            return torch.nn.GELU(layer.approximate)
        case nn.Softplus():
            return torch.nn.Softplus(layer.beta)
        case nn.Softmax():
            return torch.nn.Softmax(dim=-1)
        case nn.LogSoftmax():
            return torch.nn.LogSoftmax(dim=-1)
        case nn.Dropout():
            return (modules.ChannelDropout if layer.whole_channels else torch.nn.Dropout)(layer.p)
        case nn.Flatten():
            return torch.nn.Flatten(layer.start_dim, layer.end_dim)
    return _pooling(layer)


def _pooling(layer: Layer) -> Any:
    """Return the module of a layer that makes images smaller or larger."""
    match layer:
        case nn.MaxPool1d() | nn.MaxPool2d():
            return modules.Pool("max", layer.window)
        case nn.AvgPool1d() | nn.AvgPool2d():
            return modules.Pool("avg", layer.window, layer.count_include_pad)
        case nn.GlobalMaxPool():
            return modules.GlobalPool("max")
        case nn.GlobalAvgPool():
            return modules.GlobalPool("avg")
        case nn.Upsample():
            return modules.Upsample(layer.scale_factor)
    raise TypeError(f"to_torch: {layer.label} has no counterpart in PyTorch")


def _recurrent(layer: Recurrent) -> Any:
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
