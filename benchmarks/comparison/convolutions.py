"""Define convolutional networks that all libraries build alike, from the same list of layers.

Shapes are channels last: images (height, width, channels), sequences (steps, channels). The loss is
cross entropy. A step is that of ``networks.py``: forward, backward, clipping by the global norm,
and Adam.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np

from comparison.networks import CHECKED, Batched
from minidl.typing import Array

EPS = 1e-5  # of batch normalization

Weights = list[tuple[Array, Array | None]]


@dataclass(frozen=True)
class Convolution:
    """Convolution with stride 1; ``same`` pads the input so that its size stays."""

    inputs: int
    outputs: int
    kernel: tuple[int, ...]
    groups: int = 1
    same: bool = True
    bias: bool = True

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of its weight."""
        return *self.kernel, self.inputs // self.groups, self.outputs


@dataclass(frozen=True)
class Linear:
    """Affine map of a row."""

    inputs: int
    outputs: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of its weight."""
        return self.inputs, self.outputs


@dataclass(frozen=True)
class BatchNorm:
    """Batch normalization of every channel."""

    channels: int


@dataclass(frozen=True)
class ReLU:
    """max(x, 0)."""


@dataclass(frozen=True)
class MaxPool:
    """Maxima of windows of 2 x 2 pixels that lie side by side."""


@dataclass(frozen=True)
class Mean:
    """Mean of all pixels, or steps, of a channel."""


@dataclass(frozen=True)
class Flatten:
    """Make a row of an image of this shape."""

    shape: tuple[int, ...]


@dataclass(frozen=True)
class Residual:
    """x + body(x)."""

    body: tuple[Layer, ...]


Layer = Convolution | Linear | BatchNorm | ReLU | MaxPool | Mean | Flatten | Residual


@dataclass(frozen=True)
class Convolutional(Batched):
    """A convolutional network, and the batches it is trained on.

    Parameters
    ----------
    label
        What it is called.
    input_shape
        Shape of an image or sequence, channels last.
    layers
        Its layers, of which the last is linear.
    batch, batches
        Samples of a batch, and how many batches there are.
    trains
        Whether the task is a step of training, not a forward pass.
    """

    label: str
    input_shape: tuple[int, ...]
    layers: tuple[Layer, ...]
    batch: int
    batches: int = CHECKED
    trains: bool = True

    @property
    def name(self) -> str:
        """Label, batch, and whether it is a forward pass."""
        return f"{self.label}, batch {self.batch}" + ("" if self.trains else ", inference")

    @property
    def groups(self) -> list[str]:
        """What is done."""
        return ["training" if self.trains else "inference"]

    @property
    def classes(self) -> int:
        """How many labels there are."""
        return self.layers[-1].outputs

    @property
    def forward_flops(self) -> int:
        """Flops of the products of a forward pass; multiplications by padding count."""
        return sum(self._products())

    @property
    def step_flops(self) -> int:
        """Flops of the products of a step: three for each weight, without the input gradient."""
        first, *others = self._products()
        return 2 * first + 3 * sum(others)

    @property
    def flops(self) -> int:
        """Flops of the products of the task."""
        return self.step_flops if self.trains else self.forward_flops

    def _products(self) -> Iterator[int]:
        """Yield the flops of the forward product of each weight."""
        sizes = self.input_shape[:-1]
        for layer in flat(self.layers):
            match layer:
                case Convolution():
                    if not layer.same:
                        sizes = tuple(n - k + 1 for n, k in zip(sizes, layer.kernel, strict=True))
                    yield 2 * self.batch * prod(sizes) * prod(layer.shape)
                case MaxPool():
                    sizes = tuple(n // 2 for n in sizes)
                case Linear():
                    yield 2 * self.batch * prod(layer.shape)

    def weights(self) -> Weights:
        """Draw the parameters of the layers that have some, in order, the same ones each time.

        These are weight (window, inputs, outputs) and bias; of batch normalization γ and β.
        """
        rng = np.random.default_rng(0)
        found: Weights = []
        for layer in flat(self.layers):
            match layer:
                case Convolution() | Linear():
                    inputs = prod(layer.shape[:-1])
                    weight = rng.standard_normal(layer.shape) * np.sqrt(2 / inputs)
                    bias = rng.standard_normal(layer.outputs) * 0.1
                    without = isinstance(layer, Convolution) and not layer.bias
                    found.append((single(weight), None if without else single(bias)))
                case BatchNorm():
                    found.append(
                        (single(np.ones(layer.channels)), single(np.zeros(layer.channels)))
                    )
        return found


def single(array: Array) -> Array:
    """Round to float32."""
    return array.astype(np.float32)


def flat(layers: tuple[Layer, ...]) -> Iterator[Layer]:
    """Yield all layers in the order of the forward pass, those of residual bodies as well."""
    for layer in layers:
        yield from flat(layer.body) if isinstance(layer, Residual) else [layer]


def channels_first(weight: Array) -> Array:
    """Turn the weight of a convolution to (outputs, inputs, window)."""
    return np.ascontiguousarray(np.moveaxis(weight, (-1, -2), (0, 1)))


def rows_of_channels(weight: Array, image: tuple[int, ...]) -> Array:
    """Order the rows of a linear weight as pixels of an image that has its channels first."""
    return np.moveaxis(weight.reshape(*image, -1), -2, 0).reshape(weight.shape)


# --- the networks -----------------------------------------------------------------------


def lenet5(batch: int, batches: int = CHECKED, trains: bool = True) -> Convolutional:
    """Make LeNet-5 as SimpleChains trains it: ReLU and maxima, 44,426 parameters."""
    layers = (
        *(Convolution(1, 6, (5, 5), same=False), ReLU(), MaxPool()),
        *(Convolution(6, 16, (5, 5), same=False), ReLU(), MaxPool()),
        Flatten((4, 4, 16)),
        *(Linear(256, 120), ReLU(), Linear(120, 84), ReLU(), Linear(84, 10)),
    )
    return Convolutional("LeNet-5", (28, 28, 1), layers, batch, batches, trains)


def resnet8(batch: int, channels: int = 16) -> Convolutional:
    """Make a residual network of eight layers with weights: seven convolutions and a linear one."""

    def block(inputs: int = channels) -> tuple[Layer, ...]:
        convolution = Convolution(inputs, channels, (3, 3), bias=False)
        return convolution, BatchNorm(channels)

    residual = Residual((*block(), ReLU(), *block()))
    layers = (*block(), ReLU(), *[residual, ReLU()] * 3, Mean(), Linear(channels, 10))
    return Convolutional("ResNet-8 16x16x16", (16, 16, channels), layers, batch)


def stacked(label: str, input_shape: tuple[int, ...], *layers: Layer, batch: int) -> Convolutional:
    """Make a network of convolutions with ReLU after each, then means and a linear layer."""
    active = [part for layer in layers for part in (layer, ReLU())]
    ends = Mean(), Linear(input_shape[-1], 10)
    return Convolutional(label, input_shape, (*active, *ends), batch)


STEPS = Convolution(64, 64, (3,))
DEPTHWISE, POINTWISE = Convolution(32, 32, (3, 3), groups=32), Convolution(32, 32, (1, 1))
SEPARABLE = (DEPTHWISE, POINTWISE) * 2

CONVOLUTIONAL = [
    lenet5(32),
    lenet5(128),
    resnet8(32),
    stacked("Conv1d 64, 256 steps", (256, 64), STEPS, STEPS, batch=16),
    stacked("depthwise, 1x1 16x16x32", (16, 16, 32), *SEPARABLE, batch=32),
    stacked("1x1 16x16x32", (16, 16, 32), *[POINTWISE] * 3, batch=32),
    lenet5(1, batches=1, trains=False),
    lenet5(32, batches=1, trains=False),
]
