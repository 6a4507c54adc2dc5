"""The same things in PyTorch, where it is installed: modules, losses, optimizers.

``peer_of``, ``peer_of_loss`` and ``peer_of_optimizer`` return None for what PyTorch has not.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minidl import nn, optim

try:
    import torch
except ImportError:
    torch = None  # type: ignore[assignment]
else:
    torch.set_num_threads(1)


def peer_of(layer: nn.Layer | None) -> Any:
    """The PyTorch module of the same parameters and state, in the same mode."""
    match layer:
        case None:
            return None
        case nn.Sequential():
            parts = [peer_of(child) for _, child in layer.children()]
            return None if None in parts else torch.nn.Sequential(*parts)
        case nn.Residual():
            body, shortcut = peer_of(layer.body), peer_of(layer.shortcut)
            missing = body is None or (shortcut is None and layer.shortcut is not None)
            return None if missing else _residual(body, shortcut)
        case nn.ChannelsFirst():
            inner = peer_of(layer.inner)
            return None if inner is None else _ChannelsOnAxisOne(inner)
        case nn.Parallel():
            made = {branch: peer_of(branch) for branch in layer.branches.values()}
            branches = {name: made[branch] for name, branch in layer.branches.items()}
            return None if None in branches.values() else PeerParallel(branches, layer.join)
        case nn.Concat() | nn.Add() | nn.Multiply() | nn.Stack() | nn.Split() | nn.Select():
            return _Joining(layer)
        case nn.Linear():
            peer = torch.nn.Linear(layer.in_features, layer.out_features, layer.bias is not None)
            fill(peer.weight, layer.weight.data.T)
            if layer.bias is not None:
                fill(peer.bias, layer.bias.data)
        case nn.Conv1d() | nn.Conv2d():
            peer = _Convolution(layer)
        case nn.BatchNorm():
            peer = _BatchNormOfLast(layer.in_features, layer.eps, layer.momentum).double()
            fill(peer.weight, layer.gamma.data)
            fill(peer.bias, layer.beta.data)
            peer.running_mean.copy_(torch.tensor(layer.running_mean))
            peer.running_var.copy_(torch.tensor(layer.running_var))
        case nn.LayerNorm():
            peer = torch.nn.LayerNorm(layer.in_features, layer.eps)
            fill(peer.weight, layer.gamma.data)
            fill(peer.bias, layer.beta.data)
        case nn.RMSNorm():
            peer = torch.nn.RMSNorm(layer.in_features, layer.eps)
            fill(peer.weight, layer.gamma.data)
        case nn.PReLU():
            peer = _PReLUOfLast(layer.in_features or 1)
            fill(peer.weight, layer.weight.data)
        case nn.LeakyReLU():
            peer = torch.nn.LeakyReLU(layer.slope)
        case nn.ELU():
            peer = torch.nn.ELU(layer.alpha)
        case nn.CELU():
            peer = _CELU(layer.alpha)
        case nn.GELU():
            peer = torch.nn.GELU(layer.approximate)
        case nn.HardSigmoid():
            peer = _HardSigmoid()
        case nn.HardSwish():
            peer = torch.nn.Hardswish()
        case nn.Softplus():
            peer = torch.nn.Softplus(layer.beta, threshold=50)  # theirs is not smooth there
        case nn.Softmax() | nn.LogSoftmax():
            peer = getattr(torch.nn, type(layer).__name__)(dim=-1)
        case nn.MaxPool1d() | nn.MaxPool2d() | nn.AvgPool1d() | nn.AvgPool2d():
            if not has_symmetric_padding(layer):
                return None
            padding = tuple(before for before, _ in layer.padding)
            options = {"ceil_mode": layer.ceil_mode}
            if isinstance(layer, nn.AvgPool1d | nn.AvgPool2d):
                options["count_include_pad"] = layer.count_include_pad
                if set(layer.dilation) != {1}:
                    return None
            else:
                options["dilation"] = layer.dilation
            kind = getattr(torch.nn, type(layer).__name__)
            peer = _ChannelsLast(kind(layer.kernel_size, layer.stride, padding, **options))
        case nn.GlobalAvgPool():
            peer = _Pixels(lambda pixels: pixels.mean(dim=1), layer.keepdims)
        case nn.GlobalMaxPool():
            peer = _Pixels(lambda pixels: pixels.max(dim=1).values, layer.keepdims)
        case nn.Upsample():
            peer = _ChannelsLast(torch.nn.Upsample(scale_factor=layer.scale_factor))
        case nn.Dropout() if not layer.training:
            peer = torch.nn.Dropout(layer.p)
        case nn.Standardize():
            peer = _Standardize(layer.mean, layer.std)
        case nn.RNNCell() | nn.LSTMCell() | nn.GRUCell():
            return _cell(layer)
        case nn.RNN() | nn.LSTM() | nn.GRU():
            return _CellsOverTime(layer)
        case nn.Flatten():
            peer = torch.nn.Flatten(layer.start_dim, layer.end_dim)
            peer = _RowsFirst(peer) if layer.channels_first else peer
        case nn.Embedding():
            peer = _EmbeddingOfColumns(layer.weight.data)
        case _ if type(layer).__name__ in PLAIN:
            peer = getattr(torch.nn, type(layer).__name__)()
        case _:
            return None
    return peer.double().train(layer.training)


def has_symmetric_padding(layer: Any) -> bool:
    """Whether PyTorch can pad so: as much before as after."""
    return not isinstance(layer.padding, str) and all(b == a for b, a in layer.padding)


PLAIN = ("ReLU", "Sigmoid", "Tanh", "SiLU", "SELU", "Mish", "Softsign", "Identity")


def _cell(layer: Any) -> Any:
    kind, options = getattr(torch.nn, type(layer).__name__), {}
    if isinstance(layer, nn.RNNCell):
        options["nonlinearity"] = layer.nonlinearity
    peer = kind(layer.in_features, layer.hidden_size, **options).double()
    fill(peer.weight_ih, layer.input_weight.data.T)
    fill(peer.weight_hh, layer.recurrent_weight.data.T)
    fill(peer.bias_ih, layer.bias.data)
    if isinstance(layer, nn.GRUCell):
        fill(peer.bias_hh, layer.recurrent_bias.data)
    else:
        fill(peer.bias_hh, np.zeros(layer.bias.shape))
        peer.bias_hh.requires_grad_(False)  # theirs has two, where one is enough
    return _StateApart(peer) if isinstance(layer, nn.LSTMCell) else peer


def _residual(body: Any, shortcut: Any) -> Any:
    return PeerResidual(body, shortcut)


if torch is not None:

    class PeerResidual(torch.nn.Module):
        def __init__(self, body: Any, shortcut: Any) -> None:
            super().__init__()
            self.body, self.shortcut = body, shortcut

        def forward(self, x: Any) -> Any:
            return self.body(x) + (x if self.shortcut is None else self.shortcut(x))

    JOINED: dict[str | None, Any] = {
        "concat": lambda parts: torch.cat(parts, dim=-1),
        "add": sum,
        "multiply": math.prod,
        "stack": lambda parts: torch.stack(tuple(parts), dim=-2),
        None: tuple,
    }

    class PeerParallel(torch.nn.Module):
        def __init__(self, branches: dict[str, Any], join: str | None) -> None:
            super().__init__()
            self.join, self.names = join, list(branches)
            for name, branch in branches.items():
                self.add_module(name, branch)

        def forward(self, *inputs: Any) -> Any:
            if isinstance(inputs[0], tuple):  # from a Split before it
                (inputs,) = inputs
            given = inputs if len(inputs) > 1 else inputs * len(self.names)
            parts = [getattr(self, n)(x) for n, x in zip(self.names, given, strict=True)]
            return JOINED[self.join](parts)

    class _Joining(torch.nn.Module):
        def __init__(self, layer: Any) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, *parts: Any) -> Any:
            match self.layer:
                case nn.Split():
                    return torch.split(parts[0], self.layer.sizes, dim=-1)
                case nn.Select():
                    # Zeros of all others, whose gradient is None here.
                    return parts[self.layer.index] + sum(0 * part.sum() for part in parts)
            return JOINED[type(self.layer).__name__.lower()](parts)

    class _StateApart(torch.nn.Module):
        """An LSTMCell whose state is two arguments, and not a pair."""

        def __init__(self, cell: Any) -> None:
            super().__init__()
            for name, parameter in cell.named_parameters():
                setattr(self, name, parameter)
            self.weights = [cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh]

        def forward(self, x: Any, h: Any, c: Any) -> Any:
            return torch.lstm_cell(x, (h, c), *self.weights)

    class _CellsOverTime(torch.nn.Module):
        """RNN, LSTM and GRU as PyTorch's cells, step by step.

        test_recurrent_torch.py compares with its layers over whole sequences, and has lengths.
        """

        def __init__(self, layer: Any) -> None:
            super().__init__()
            self.cells = torch.nn.ModuleList(peer_of(cell) for cell in layer.cells)
            self.directions = 1 + layer.bidirectional
            self.states = layer.state_size // len(layer.cells)
            self.hidden, self.whole = layer.hidden_size, layer.return_sequences

        def forward(self, x: Any, *state: Any) -> Any:
            ends, outputs = [], [x]
            for index, cell in enumerate(self.cells):
                reverse = index % self.directions == 1
                if not reverse:
                    x, outputs = torch.cat(outputs, dim=-1), []
                zeros = [x.new_zeros(len(x), self.hidden)] * self.states
                now = list(state[index * self.states :][: self.states]) or zeros
                steps = []
                for t in reversed(range(x.shape[1])) if reverse else range(x.shape[1]):
                    new = cell(x[:, t], *now)
                    now = list(new) if isinstance(new, tuple) else [new]
                    steps.append(now[0])
                if not self.whole and index >= len(self.cells) - self.directions:
                    outputs.append(steps[-1])
                else:
                    outputs.append(torch.stack(steps[::-1] if reverse else steps, dim=1))
                ends += now
            y = torch.cat(outputs, dim=-1)
            return (y, *ends) if state else y

    class _ChannelsLast(torch.nn.Module):
        """A module for images whose channels come first."""

        def __init__(self, module: Any) -> None:
            super().__init__()
            self.module = module

        def forward(self, x: Any) -> Any:
            return self.module(x.movedim(-1, 1)).movedim(1, -1)

    class _ChannelsOnAxisOne(torch.nn.Module):
        """A module for images whose channels come last, given those with the channels first."""

        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Any) -> Any:
            y = self.inner(x.movedim(1, -1))
            return y if y.ndim < 3 else y.movedim(-1, 1)

    class _RowsFirst(torch.nn.Module):
        """A module that takes the channels first, given images with the channels last."""

        def __init__(self, module: Any) -> None:
            super().__init__()
            self.module = module

        def forward(self, x: Any) -> Any:
            return self.module(x.movedim(-1, 1))

    class _Pixels(torch.nn.Module):
        """A function of all pixels (batch, pixels, channels)."""

        def __init__(self, function: Any, keepdims: bool) -> None:
            super().__init__()
            self.function, self.keepdims = function, keepdims

        def forward(self, x: Any) -> Any:
            y = self.function(x.flatten(1, -2))
            return y.reshape(len(x), *(1 for _ in x.shape[1:-1]), -1) if self.keepdims else y

    class _EmbeddingOfColumns(torch.nn.Module):
        """With the weight turned, as that of a Linear layer is."""

        def __init__(self, weight: np.ndarray) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.tensor(weight.T.copy()))

        def forward(self, x: Any) -> Any:
            return torch.nn.functional.embedding(x, self.weight.T)

    class _HardSigmoid(torch.nn.Module):
        """By their ReLU6: the derivative of theirs is 1/6 in float32, whatever the dtype."""

        def forward(self, x: Any) -> Any:
            return torch.nn.functional.relu6(x + 3) / 6

    class _CELU(torch.nn.Module):
        """By its formula: their derivative takes alpha in float32, whatever the dtype."""

        def __init__(self, alpha: float) -> None:
            super().__init__()
            self.alpha = alpha

        def forward(self, x: Any) -> Any:
            below = self.alpha * torch.expm1(x.clamp(max=0) / self.alpha)
            return torch.where(x > 0, x, below)

    class _Standardize(torch.nn.Module):
        def __init__(self, mean: np.ndarray, std: np.ndarray) -> None:
            super().__init__()
            self.mean, self.std = torch.tensor(mean), torch.tensor(std)

        def forward(self, x: Any) -> Any:
            return (x - self.mean) / self.std

    class _Convolution(torch.nn.Module):
        """Channels last, with the weight turned as that of a Linear layer is."""

        def __init__(self, layer: Any) -> None:
            super().__init__()
            self.layer, self.flat = layer, torch.nn.functional
            self.weight = torch.nn.Parameter(torch.tensor(layer.weight.data.T.copy()))
            bias = None if layer.bias is None else torch.tensor(layer.bias.data.copy())
            self.bias = None if bias is None else torch.nn.Parameter(bias)

        def forward(self, x: Any) -> Any:
            layer = self.layer
            padding = layer.window.padding_for(tuple(x.shape[1:-1]))
            x = self.flat.pad(x.movedim(-1, 1), [n for pair in padding[::-1] for n in pair])
            if layer.DIMENSIONS == 1:
                weight, convolve = self.weight, self.flat.conv1d
            else:
                weight, convolve = self.weight.transpose(2, 3), self.flat.conv2d
            options = {"stride": layer.stride, "dilation": layer.dilation, "groups": layer.groups}
            return convolve(x, weight, self.bias, **options).movedim(1, -1)

    # PyTorch has the features of (batch, features, time) in the middle.
    class _BatchNormOfLast(torch.nn.BatchNorm1d):
        def forward(self, x: Any) -> Any:
            return super().forward(x.transpose(1, -1)).transpose(1, -1)

    class _PReLUOfLast(torch.nn.PReLU):
        def forward(self, x: Any) -> Any:
            return super().forward(x.transpose(1, -1)).transpose(1, -1)


def fill(parameter: Any, values: np.ndarray) -> None:
    parameter.data = torch.tensor(values.astype(np.float64))


def their_name(name: str) -> str:
    """A parameter's name in PyTorch."""
    for ours, theirs in (
        ("gamma", "weight"),
        ("beta", "bias"),
        ("input_weight", "weight_ih"),
        ("recurrent_weight", "weight_hh"),
        ("recurrent_bias", "bias_hh"),
    ):
        name = name.replace(ours, theirs)
    return name


def peer_of_loss(loss: nn.Loss) -> Any:
    """PyTorch's loss with the same settings."""
    reduction = loss.reduction
    classes = getattr(loss, "class_weight", None)
    classes = None if classes is None else torch.tensor(classes, dtype=torch.float64)
    ignored = {} if loss.ignore_index is None else {"ignore_index": loss.ignore_index}
    match loss:
        case nn.MSELoss() | nn.L1Loss():
            return getattr(torch.nn, type(loss).__name__)(reduction=reduction)
        case nn.BCEWithLogitsLoss():
            ones = None if loss.pos_weight is None else torch.tensor(loss.pos_weight)
            return torch.nn.BCEWithLogitsLoss(reduction=reduction, pos_weight=ones)
        case nn.HuberLoss():
            return torch.nn.HuberLoss(reduction, loss.delta)
        case nn.PoissonNLLLoss():
            given = {"log_input": loss.log_input, "full": loss.full, "eps": loss.eps}
            return torch.nn.PoissonNLLLoss(**given, reduction=reduction)
        case nn.GaussianNLLLoss():
            peer = torch.nn.GaussianNLLLoss(full=loss.full, eps=loss.eps, reduction=reduction)
            return lambda p, t: _gaussian(peer, p, t)
        case nn.CosineEmbeddingLoss():
            peer = torch.nn.CosineEmbeddingLoss(loss.margin, reduction=reduction)
            return lambda p, t: peer(p[:, 0], p[:, 1], torch.where(t > 0, 1.0, -1.0))
        case nn.NLLLoss():
            return torch.nn.NLLLoss(classes, reduction=reduction, **ignored)
        case nn.CrossEntropyLoss():
            return torch.nn.CrossEntropyLoss(
                classes, reduction=reduction, label_smoothing=loss.label_smoothing, **ignored
            )
    return None


def _gaussian(peer: Any, prediction: Any, target: Any) -> Any:
    """PyTorch's loss of means and variances, one after the other in a prediction."""
    mean, log_variance = prediction.chunk(2, dim=-1)
    value = peer(mean, target.reshape(mean.shape), log_variance.exp())
    return value.reshape(target.shape) if value.ndim else value


THEIR_OPTIMIZERS = {"AdaGrad": "Adagrad", "Nadam": "NAdam"}


def peer_of_optimizer(cls: type[optim.Optimizer]) -> Any:
    """PyTorch's optimizer, which takes the same settings; those of clipping it has not."""
    return getattr(torch.optim, THEIR_OPTIMIZERS.get(cls.__name__, cls.__name__), None)
