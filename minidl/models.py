"""Convolutional networks for small images, built of the layers of ``minidl.nn``.

All take images channels last, (batch, height, width, channels), and give logits (batch, classes).
"""

from __future__ import annotations

import numpy as np

from minidl import nn
from minidl.nn.checks import check_count
from minidl.typing import Seed

Shape = tuple[int, int, int]  # of one image: height, width, channels

__all__ = ["lenet5", "resnet", "small_cnn"]


def lenet5(shape: Shape = (28, 28, 1), classes: int = 10, rng: Seed = None) -> nn.Sequential:
    """Build LeNet-5: two convolutions, each halved by a maximum, and three linear layers.

    Source: LeCun et al. 1998, with ReLU and maxima as it is built today; 44,426 parameters for
    images of MNIST.

    Parameters
    ----------
    shape
        Height and width of the images, at least 16, and their channels.
    classes
        Width of the logits.
    rng
        Generator or seed of the weights.

    Raises
    ------
    ValueError
        For smaller images.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import models
    >>> models.lenet5(rng=0)(np.zeros((5, 28, 28, 1), np.float32)).shape
    (5, 10)
    """
    height, width, channels = _checked("lenet5", shape, smallest=16)
    classes = check_count("lenet5", "classes", classes)
    # A window of 5 takes 4 pixels from each side length, a maximum halves what is left.
    rows, columns = (((size - 4) // 2 - 4) // 2 for size in (height, width))
    return nn.Sequential(
        *(nn.Conv2d(channels, 6, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Flatten(),
        *(nn.Linear(rows * columns * 16, 120), nn.ReLU()),
        *(nn.Linear(120, 84), nn.ReLU()),
        nn.Linear(84, classes),
        rng=rng,
    )


def small_cnn(
    shape: Shape = (8, 8, 1), classes: int = 10, width: int = 16, rng: Seed = None
) -> nn.Sequential:
    """Build a network for very small images: three convolutions, a maximum, a linear layer.

    Parameters
    ----------
    shape
        Height and width of the images, at least 2, and their channels.
    classes
        Width of the logits.
    width
        Channels of the first convolution; the others have twice as many.
    rng
        Generator or seed of weights and masks.

    Raises
    ------
    ValueError
        For smaller images.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import models
    >>> models.small_cnn(rng=0)(np.zeros((5, 8, 8, 1), np.float32)).shape
    (5, 10)
    """
    rows, columns, channels = _checked("small_cnn", shape, smallest=2)
    classes = check_count("small_cnn", "classes", classes)
    width = check_count("small_cnn", "width", width)
    return nn.Sequential(
        *_convolution(channels, width),
        nn.ReLU(),
        *_convolution(width, 2 * width),
        nn.ReLU(),
        nn.MaxPool2d(2),
        *_convolution(2 * width, 2 * width),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(rows // 2 * (columns // 2) * 2 * width, classes),
        rng=rng,
    )


def resnet(
    depth: int = 20,
    channels: int = 1,
    classes: int = 10,
    width: int = 16,
    residual: bool = True,
    rng: Seed = None,
) -> nn.Sequential:
    """Build a residual network: three stages of blocks, y = ReLU(F(x) + x).

    F is a convolution of 3 × 3, BatchNorm, ReLU, another convolution and BatchNorm. The first block
    of the second and the third stage halves height and width, and doubles the channels; its
    shortcut is a convolution of 1 × 1. At the end stand the means of all channels, and the logits.
    Source: He et al. 2016, section 4.2.

    Parameters
    ----------
    depth
        Layers with weights, 6n + 2 for n blocks in each stage: 8, 14, 20, ..., 56, ...
    channels
        Those of the images, which may have any height and width.
    classes
        Width of the logits.
    width
        Channels of the first stage.
    residual
        Whether there are shortcuts; without them it is the plain network of the same layers.
    rng
        Generator or seed of the weights.

    Raises
    ------
    ValueError
        For a depth that is not 6n + 2 with n ≥ 1.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import models
    >>> model = models.resnet(8, channels=3, rng=0)
    >>> model(np.zeros((5, 32, 32, 3), np.float32)).shape
    (5, 10)
    """
    blocks = blocks_of(depth)
    channels = check_count("resnet", "channels", channels)
    classes = check_count("resnet", "classes", classes)
    width = check_count("resnet", "width", width)
    layers: list[nn.Layer] = [*_convolution(channels, width), nn.ReLU()]
    before = width
    for stage in range(3):
        after = width * 2**stage
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            layers += [_block(before, after, stride, residual), nn.ReLU()]
            before = after
    return nn.Sequential(*layers, nn.GlobalAvgPool(), nn.Linear(before, classes), rng=rng)


def blocks_of(depth: int) -> int:
    """Return how many blocks each stage of a residual network of this depth has.

    Raises ValueError for a depth that is not 6n + 2 with n ≥ 1.
    """
    blocks, rest = divmod(check_count("resnet", "depth", depth) - 2, 6)
    if blocks < 1 or rest:
        raise ValueError(
            f"resnet: depth must be 6n + 2, such as 8, 14, 20 or 56, for n blocks of two layers "
            f"in each of three stages; got {depth}"
        )
    return blocks


def _block(before: int, after: int, stride: int, residual: bool) -> nn.Layer:
    """Make two convolutions, and a way around them if the network is residual."""
    body = nn.Sequential(
        *_convolution(before, after, stride=stride), nn.ReLU(), *_convolution(after, after)
    )
    if not residual:
        return body
    if before == after and stride == 1:
        return nn.Residual(body)
    return nn.Residual(body, nn.Sequential(*_convolution(before, after, 1, stride)))


def _convolution(
    before: int, after: int, kernel_size: int = 3, stride: int = 1
) -> tuple[nn.Layer, nn.Layer]:
    """Make a convolution for ReLU and its normalization, whose β is the bias."""
    padding = kernel_size // 2
    convolution = nn.Conv2d(
        before, after, kernel_size, stride, padding, bias=False, init="he_normal"
    )
    return convolution, nn.BatchNorm(after)


def _checked(owner: str, shape: Shape, smallest: int) -> Shape:
    """Return the shape of an image; raise ValueError if it is none, or too small."""
    sizes = isinstance(shape, tuple | list) and all(isinstance(n, int | np.integer) for n in shape)
    if not sizes or len(shape) != 3 or min(shape[:2]) < smallest or shape[2] < 1:
        raise ValueError(
            f"{owner}: shape must be that of images of at least {smallest} x {smallest} pixels, "
            f"(height, width, channels); got {shape!r}"
        )
    height, width, channels = map(int, shape)
    return height, width, channels
