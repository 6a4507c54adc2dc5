"""Run convolutional networks in PyTorch: eager, scripted and compiled, in both layouts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch.nn import functional

from comparison import convolutions
from comparison.convolutions import Convolutional
from comparison.libraries.pytorch import (
    about,
    compiled,
    compiled_training,
    eager_training,
    frozen,
    predicting,
    scripted,
    whole,
)
from comparison.measuring import Contender
from comparison.networks import losses, over

__all__ = ["about", "convolution"]

NCHW, CHANNELS_LAST = "NCHW", "channels_last"


def convolution(network: Convolutional, threads: list[int]) -> Iterator[Contender]:
    """Make steps, or forward passes, in both layouts; eager and compiled."""
    torch.compiler.reset()
    x, y = map(torch.from_numpy, network.data)
    for layout in (NCHW, CHANNELS_LAST):
        laid = images(x, layout)
        model = partial(Model, network, layout)
        if not network.trains:
            yield from _inference(frozen(model()), laid)
            continue
        batches = network.split(laid, y)
        makers = {
            ("PyTorch", "fused Adam"): partial(eager_training, fused=True),
            ("PyTorch", "foreach Adam"): partial(eager_training, foreach=True),
            ("torch.compile", "forward and backward"): compiled_training,
            ("torch.compile", "the whole step"): _whole_convolutional,
        }
        for (name, setting), make in makers.items():
            call = over(make(model()), batches)
            yield Contender(name, call, f"{layout}, {setting}", check=losses(call))


def _inference(model: Model, x: Any) -> Iterator[Contender]:
    yield from predicting("PyTorch", model, x, f"{model.layout},")
    script = torch.jit.optimize_for_inference(scripted(model, x))
    yield from predicting("PyTorch", script, x, f"{model.layout}, scripted,")
    program = compiled(model, freezing=True)
    yield from predicting("torch.compile", program, x, f"{model.layout},")


def images(x: Any, layout: str) -> Any:
    """Lay out images or sequences; in channels_last a sequence is an image of one row."""
    if layout == NCHW:
        return x.movedim(-1, 1).contiguous()
    return (x[:, None] if x.ndim == 3 else x).permute(0, 3, 1, 2)


class Model(torch.nn.Module):
    """The layers of a network, in a layout."""

    def __init__(self, network: Convolutional, layout: str) -> None:
        super().__init__()
        self.layout, self._image = layout, None
        self.layers = self._made(network.layers, iter(network.weights()))
        if layout == CHANNELS_LAST:
            self.to(memory_format=torch.channels_last)

    def forward(self, x: Any) -> Any:
        return self.layers(x)

    def _made(self, layers: tuple[Any, ...], weights: Iterator[Any]) -> torch.nn.Sequential:
        made: list[torch.nn.Module] = []
        for layer in layers:
            match layer:
                case convolutions.Convolution():
                    made.append(self._convolution(layer, *next(weights)))
                case convolutions.Linear():
                    made.append(self._linear(*next(weights)))
                case convolutions.BatchNorm():
                    next(weights)  # those of a new layer
                    made.append(torch.nn.BatchNorm2d(layer.channels, convolutions.EPS))
                case convolutions.Residual():
                    made.append(_Residual(self._made(layer.body, weights)))
                case convolutions.Flatten():
                    self._image = layer.shape if self.layout == NCHW else None
                    made.append(torch.nn.Flatten() if self.layout == NCHW else _Rows())
                case convolutions.ReLU():
                    made.append(torch.nn.ReLU())
                case convolutions.MaxPool():
                    made.append(torch.nn.MaxPool2d(2))
                case convolutions.Mean():
                    made.append(_Mean())
        return torch.nn.Sequential(*made)

    def _convolution(self, layer: Any, weight: Any, bias: Any) -> torch.nn.Module:
        window = layer.kernel
        if self.layout == CHANNELS_LAST and len(window) == 1:
            window, weight = (1, *window), weight[None]
        kind = {1: torch.nn.Conv1d, 2: torch.nn.Conv2d}[len(window)]
        padding = tuple(size // 2 if layer.same else 0 for size in window)
        options = {"padding": padding, "groups": layer.groups, "bias": layer.bias}
        made = kind(layer.inputs, layer.outputs, window, **options)
        return _filled(made, convolutions.channels_first(weight), bias)

    def _linear(self, weight: Any, bias: Any) -> torch.nn.Module:
        if self._image is not None:
            weight, self._image = convolutions.rows_of_channels(weight, self._image), None
        return _filled(torch.nn.Linear(*weight.shape), weight.T.copy(), bias)


def _filled(layer: Any, weight: Any, bias: Any) -> Any:
    layer.weight.data = torch.from_numpy(weight)
    if bias is not None:
        layer.bias.data = torch.from_numpy(bias)
    return layer


class _Residual(torch.nn.Module):
    def __init__(self, body: torch.nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Any) -> Any:
        return x + self.body(x)


class _Mean(torch.nn.Module):
    def forward(self, x: Any) -> Any:
        return x.mean(tuple(range(2, x.ndim)))


class _Rows(torch.nn.Module):
    """Make rows of images as they lie in memory in channels_last."""

    def forward(self, x: Any) -> Any:
        return x.permute(0, 2, 3, 1).flatten(1)


def _whole_convolutional(model: Model) -> Callable[[Any, Any], Any]:
    """Compile the whole step, on weights that lie as the layout wants them."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # torch.func changes no running statistics
            module.track_running_stats, module.running_mean, module.running_var = False, None, None
    names, weights = zip(*model.named_parameters(), strict=True)

    def turns(weight: Any) -> bool:
        return model.layout == CHANNELS_LAST and weight.ndim == 4

    def loss_of(parts: list[Any], x: Any, y: Any) -> Any:
        parts = [part.permute(0, 3, 1, 2) if turns(part) else part for part in parts]
        used = dict(zip(names, parts, strict=True))
        return functional.cross_entropy(torch.func.functional_call(model, used, (x,)), y)

    laid = [w.detach().permute(0, 2, 3, 1) if turns(w) else w.detach() for w in weights]
    return whole(laid, loss_of)
