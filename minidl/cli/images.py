"""Networks for images, as ``--model`` names them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minidl import models, nn
from minidl.cli import network, options
from minidl.cli.options import UsageError
from minidl.cli.pixels import Pixels
from minidl.datasets import Dataset
from minidl.saving.contents import CLASSES, IMAGES
from minidl.typing import Array

MODELS = {
    "mlp": "linear layers",
    "cnn": "three convolutions",
    "lenet5": "two, and three linear layers",
    "resnet": "residual blocks",
}
DEPTH = 8  # of a residual network: trained in minutes


def add_options(parser: argparse.ArgumentParser, defaults: network.Defaults) -> Any:
    """Add ``--model``, ``--depth`` and the options of networks of linear layers.

    Returns the group of the output.
    """
    group = parser.add_argument_group("model")
    known = ", ".join(f"{name}: {what}" for name, what in MODELS.items())
    group.add_argument("--model", choices=MODELS, default="mlp", help=f"{known} [mlp]")
    help = f"layers with weights of resnet: 8, 14, 20, ..., 6n + 2 [{DEPTH}]"
    group.add_argument("--depth", type=options.count, metavar="N", help=help)
    output = network.add_options(parser, defaults)
    # None shows that an option was not given; ``network.build_model`` puts the default there.
    of_mlp = network.options_by_default(defaults)
    parser.set_defaults(of_mlp=of_mlp, **dict.fromkeys(of_mlp))
    return output


def build_model(data: Dataset, arguments: argparse.Namespace) -> tuple[Dataset, nn.Sequential]:
    """Build the network, and give the images the shape that it takes.

    Raises
    ------
    UsageError
        For options of another model.
    ValueError
        For images, or a depth, that the model cannot have.
    """
    name, seed = arguments.model, arguments.seed
    if name != "resnet" and arguments.depth is not None:
        raise UsageError(f"--depth belongs to --model resnet, not to {name}")
    if name == "mlp":
        return data, network.build_model(data.features, data.classes, arguments)
    for option in arguments.of_mlp:
        if getattr(arguments, option) is not None:
            raise UsageError(f"--{option} belongs to --model mlp, not to {name}")
    data = _as_images(data)
    if name == "resnet":
        channels = data.x_train.shape[-1]
        depth = DEPTH if arguments.depth is None else arguments.depth
        return data, models.resnet(depth, channels, data.classes, rng=seed)
    shape = data.x_train.shape[1:]
    if name == "cnn":
        return data, models.small_cnn(shape, data.classes, rng=seed)
    try:
        return data, models.lenet5(shape, data.classes, rng=seed)
    except ValueError as error:
        raise UsageError(f"{error}; --model cnn takes smaller images") from None


def words_of(data: Dataset) -> Mapping[str, str]:
    """Return what a file keeps of the images and classes that a network was trained on."""
    pixels = Pixels(data.image_shape, data.x_train.shape[1:], data.pixel_max)
    return {IMAGES: pixels.as_text(), CLASSES: json.dumps(list(range(data.classes)))}


def _as_images(data: Dataset) -> Dataset:
    """Return the data set with images (samples, height, width, channels)."""
    shape = data.image_shape if len(data.image_shape) == 3 else (*data.image_shape, 1)
    if len(shape) != 3:
        raise ValueError(
            f"a convolution takes images (height, width) or (height, width, channels), and "
            f"{data.name} has rows of shape {data.image_shape}"
        )

    def shaped(x: Array) -> Any:
        return x.reshape(len(x), *shape)

    return replace(data, x_train=shaped(data.x_train), x_test=shaped(data.x_test))
