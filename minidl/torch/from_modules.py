"""From modules of PyTorch to layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
import torch
from torch.nn.parameter import is_lazy

from minidl import nn
from minidl.nn.layer import Layer, joined
from minidl.nn.parameter import Parameter
from minidl.nn.recurrent.cells import RecurrentCell
from minidl.torch import modules
from minidl.torch.names import slots
from minidl.torch.state_dict import as_array, fill
from minidl.torch.to_modules import PLAIN

# A layer of the class and the options of a module. The second argument is its path.
Maker = Callable[[Any, str], Layer]
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
    return _converted(module, "", {})


def _converted(module: Any, path: str, done: dict[int, Layer]) -> Layer:
    """Return the layer of a module, one for all places where the module is."""
    if id(module) in done:
        return done[id(module)]
    if any(map(is_lazy, module.parameters(recurse=False))):
        refuse(module, path, "does not know its sizes yet; call it once, then convert it")
    if getattr(module, "_forward_hooks", None) or getattr(module, "_forward_pre_hooks", None):
        refuse(module, path, "has hooks, which a layer cannot take over")
    match module:
        case torch.nn.Sequential() if type(module) is torch.nn.Sequential:
            named = module._modules.items()  # named_children() gives no module twice
            inner = [_converted(child, joined(path, name), done) for name, child in named]
            layer: Layer = nn.Sequential(*inner)
        case modules.Residual():
            body = _converted(module.body, joined(path, "body"), done)
            around = module.shortcut
            shortcut = around and _converted(around, joined(path, "shortcut"), done)
            layer = nn.Residual(body, shortcut)
        case _:
            layer = _leaf(module, path)
    layer.training = module.training
    done[id(module)] = layer
    return layer


def _leaf(module: Any, path: str) -> Layer:
    """Return the layer of a module that has no modules in it."""
    maker = MAKERS.get(type(module))
    if maker is None:
        advice = "build the model in minidl and fill it by minidl.torch.load_state_dict"
        refuse(module, path, f"has no counterpart; {advice}")
    try:
        layer = maker(module, path)
    except ValueError as error:  # of the layer, which names its class first
        refuse(module, path, f"cannot be taken: {str(error).partition(': ')[2] or error}")
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
    return layer


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


def refuse(module: Any, path: str, why: str) -> NoReturn:
    """Raise TypeError for a module, named by its path."""
    place = f"module {path} " if path else "module "
    raise TypeError(f"from_torch: {place}{type(module).__name__} {why}")


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
    for name in ("max_norm", "padding_idx", "scale_grad_by_freq"):
        value = getattr(module, name)
        if value is not None and value is not False:  # 0 is a row
            refuse(
                module, path, f"has {name}={value}, which would be lost: minidl has no such option"
            )
    return nn.Embedding(module.num_embeddings, module.embedding_dim)


@makes(torch.nn.BatchNorm1d, modules.BatchNorm)
def batch_norm(module: Any, path: str) -> Layer:
    """Make a batch normalization."""
    if module.momentum is None or module.running_mean is None:
        option = "momentum=None" if module.running_mean is not None else "no running statistics"
        refuse(module, path, f"has {option}, which minidl has not")
    return nn.BatchNorm(module.num_features, module.momentum, module.eps)


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


@makes(torch.nn.PReLU, modules.PReLU)
def prelu(module: Any, path: str) -> Layer:
    """Make a rectifier whose slopes are learned."""
    return nn.PReLU(None if module.num_parameters == 1 else module.num_parameters)


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
        refuse(module, path, f"is a line from {module.threshold} on, in minidl nowhere")
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


@makes(modules.ChannelDropout)
def channel_dropout(module: Any, path: str) -> Layer:
    """Make a dropout of whole channels."""
    return nn.Dropout(module.p, whole_channels=True)


@makes(modules.Pool)
def pool(module: Any, path: str) -> Layer:
    """Make a layer that pools windows."""
    window = module.window
    places = window.kernel, window.stride, window.padding
    if module.kind == "max":
        return (nn.MaxPool1d if len(window.kernel) == 1 else nn.MaxPool2d)(*places)
    kind = nn.AvgPool1d if len(window.kernel) == 1 else nn.AvgPool2d
    return kind(*places, module.count_include_pad)


@makes(modules.GlobalPool)
def global_pool(module: Any, path: str) -> Layer:
    """Make a layer that pools whole images or sequences."""
    return nn.GlobalMaxPool() if module.kind == "max" else nn.GlobalAvgPool()


@makes(modules.Upsample)
def upsample(module: Any, path: str) -> Layer:
    """Make a layer that repeats pixels."""
    return nn.Upsample(module.scale_factor)


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
