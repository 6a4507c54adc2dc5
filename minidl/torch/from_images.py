"""Layers of modules for images and sequences, which PyTorch has with the channels on axis 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from minidl import nn
from minidl.nn.layer import Layer
from minidl.torch import branch_modules, image_modules
from minidl.torch.refusal import refuse

# A layer, with the channels last, of the class and the options of a module, whose path is second.
Maker = Callable[[Any, str], Layer]
# Those of modules that take images only, and those that do so in a network with images.
IMAGES: dict[type[Any], Maker] = {}
AMONG_IMAGES: dict[type[Any], Maker] = {}


def makes(*kinds: type[Any], table: dict[type[Any], Maker] = IMAGES) -> Callable[[Maker], Maker]:
    """Register a function for these classes of modules, and not for their subclasses."""

    def register(maker: Maker) -> Maker:
        table.update(dict.fromkeys(kinds, maker))
        return maker

    return register


def takes_images(module: Any) -> bool:
    """Return whether a module takes images with the channels on axis 1, and nothing else."""
    return type(module) in IMAGES and getattr(module, "channels_first", True)


def _refuse_options(module: Any, path: str, **usual: Any) -> None:
    """Refuse a module for an option that is none of the usual ones, and that minidl has not."""
    for name, value in usual.items():
        given = getattr(module, name, value)
        numbers = given if isinstance(given, tuple) else (given,)
        if any(number != value for number in numbers):
            refuse(module, path, f"has {name}={given!r}, which minidl has not")


@makes(torch.nn.Conv1d, torch.nn.Conv2d)
def convolution(module: Any, path: str) -> Layer:
    """Make a convolution."""
    _refuse_options(module, path, padding_mode="zeros")
    return _convolution(module, module.padding)


@makes(image_modules.Conv1d, image_modules.Conv2d)
def padded_convolution(module: Any, path: str) -> Layer:
    """Make a convolution that is padded as in minidl."""
    return _convolution(module, module.window.padding)


def _convolution(module: Any, padding: Any) -> Layer:
    kind = nn.Conv1d if isinstance(module, torch.nn.Conv1d) else nn.Conv2d
    return kind(
        module.in_channels,
        module.out_channels,
        module.kernel_size,
        module.stride,
        padding,
        module.dilation,
        module.groups,
        module.bias is not None,
    )


@makes(torch.nn.MaxPool1d, torch.nn.MaxPool2d)
def max_pool(module: Any, path: str) -> Layer:
    """Make a layer that takes maxima of windows."""
    _refuse_options(module, path, return_indices=False)
    kind = nn.MaxPool1d if type(module) is torch.nn.MaxPool1d else nn.MaxPool2d
    places = module.kernel_size, module.stride, module.padding, module.dilation
    return kind(*places, ceil_mode=module.ceil_mode)


@makes(torch.nn.AvgPool1d, torch.nn.AvgPool2d)
def avg_pool(module: Any, path: str) -> Layer:
    """Make a layer that takes means of windows."""
    _refuse_options(module, path, divisor_override=None)
    kind = nn.AvgPool1d if type(module) is torch.nn.AvgPool1d else nn.AvgPool2d
    places = module.kernel_size, module.stride, module.padding
    options = {"ceil_mode": module.ceil_mode, "count_include_pad": module.count_include_pad}
    return kind(*places, **options)


@makes(image_modules.Pool)
def pool(module: Any, path: str) -> Layer:
    """Make a layer that pools windows, padded as in minidl."""
    window = module.window
    places = window.kernel, window.stride, window.padding
    options = {"dilation": window.dilation, "ceil_mode": window.ceil_mode}
    if module.kind == "max":
        return (nn.MaxPool1d if len(window.kernel) == 1 else nn.MaxPool2d)(*places, **options)
    kind = nn.AvgPool1d if len(window.kernel) == 1 else nn.AvgPool2d
    return kind(*places, **options, count_include_pad=module.count_include_pad)


@makes(
    *(torch.nn.AdaptiveAvgPool1d, torch.nn.AdaptiveAvgPool2d),
    *(torch.nn.AdaptiveMaxPool1d, torch.nn.AdaptiveMaxPool2d),
)
def adaptive_pool(module: Any, path: str) -> Layer:
    """Make a layer that pools whole images into one pixel; other sizes depend on the image."""
    _refuse_options(module, path, output_size=1, return_indices=False)
    is_max = isinstance(module, torch.nn.AdaptiveMaxPool1d | torch.nn.AdaptiveMaxPool2d)
    return (nn.GlobalMaxPool if is_max else nn.GlobalAvgPool)(keepdims=True)


@makes(image_modules.GlobalPool)
def global_pool(module: Any, path: str) -> Layer:
    """Make a layer that pools whole images or sequences."""
    return (nn.GlobalMaxPool if module.kind == "max" else nn.GlobalAvgPool)(module.keepdims)


@makes(torch.nn.Upsample, torch.nn.UpsamplingNearest2d)
def resize(module: Any, path: str) -> Layer:
    """Make a layer that repeats pixels."""
    if module.size is not None or not module.mode.startswith("nearest"):
        option = f"size={module.size!r}" if module.size is not None else f"mode={module.mode!r}"
        refuse(module, path, f"has {option}; minidl repeats pixels by a scale_factor")
    factors = module.scale_factor
    several = isinstance(factors, tuple)
    numbers = factors if several else (factors,)
    if any(number != int(number) for number in numbers):
        refuse(module, path, f"has scale_factor={factors}, and minidl has whole numbers")
    return nn.Upsample(tuple(map(int, factors)) if several else int(factors))


@makes(image_modules.Upsample)
def upsample(module: Any, path: str) -> Layer:
    """Make a layer that repeats pixels."""
    return nn.Upsample(module.scale_factor)


@makes(torch.nn.Dropout1d, torch.nn.Dropout2d)
def channel_dropout(module: Any, path: str) -> Layer:
    """Make a dropout of whole channels."""
    return nn.Dropout(module.p, whole_channels=True)


@makes(torch.nn.BatchNorm2d)
@makes(torch.nn.BatchNorm1d, table=AMONG_IMAGES)
def batch_norm(module: Any, path: str) -> Layer:
    """Make a batch normalization."""
    if module.momentum is None or module.running_mean is None:
        option = "momentum=None" if module.running_mean is not None else "no running statistics"
        refuse(module, path, f"has {option}, which minidl has not")
    return nn.BatchNorm(module.num_features, module.momentum, module.eps)


@makes(torch.nn.PReLU, table=AMONG_IMAGES)
def prelu(module: Any, path: str) -> Layer:
    """Make a rectifier whose slopes are learned."""
    return nn.PReLU(None if module.num_parameters == 1 else module.num_parameters)


@makes(torch.nn.Softmax, torch.nn.LogSoftmax, table=AMONG_IMAGES)
def softmax(module: Any, path: str) -> Layer:
    """Make probabilities of the channels, or their logarithms."""
    if module.dim != 1:
        refuse(module, path, f"is over axis {module.dim}, in minidl over the channels; write dim=1")
    return nn.Softmax() if isinstance(module, torch.nn.Softmax) else nn.LogSoftmax()


@makes(torch.nn.Flatten, table=AMONG_IMAGES)
def flatten(module: Any, path: str) -> Layer:
    """Make a layer that puts all numbers of an image in a row, or with axes 2 to -1 its pixels."""
    axes = module.start_dim, module.end_dim
    if axes == (1, -1):
        return nn.Flatten(channels_first=True)
    return nn.Flatten(1, -2)


@makes(image_modules.Flatten)
def flatten_pixels(module: Any, path: str) -> Layer:
    """Make a layer that puts all numbers of an image in a row, in the order that it says."""
    return nn.Flatten(channels_first=module.rows_first)


@makes(branch_modules.Join)
def join(module: Any, path: str) -> Layer:
    """Make a layer that makes one array of several."""
    kinds = {"concat": nn.Concat, "add": nn.Add, "multiply": nn.Multiply, "stack": nn.Stack}
    made: Layer = kinds[module.how]()
    return made


@makes(branch_modules.Split)
def split(module: Any, path: str) -> Layer:
    """Make a layer that parts the channels."""
    return nn.Split(module.sizes)
