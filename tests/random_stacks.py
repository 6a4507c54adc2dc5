"""Random models of the layers that other libraries and languages have, too."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl import nn

ACTIVATIONS = (
    *(nn.ReLU, nn.Sigmoid, nn.Tanh, nn.SiLU, nn.SELU, nn.Mish, nn.Softsign, nn.Identity),
    *(nn.LeakyReLU, nn.ELU, nn.CELU, nn.GELU, nn.HardSigmoid, nn.HardSwish, nn.Softplus, nn.PReLU),
)


def random_stack(rng: np.random.Generator, *, recurrent: bool = False) -> tuple[Any, Any]:
    """A model in evaluation mode, no number of which is that of a new layer; and a batch for it."""
    width = start = int(rng.integers(1, 12))
    layers: list[nn.Layer] = []
    if rng.random() < 0.3:
        layers.append(nn.Standardize(width).adapt(rng.normal(2, 3, size=(9, width))))
    if recurrent:
        kind = (nn.RNN, nn.LSTM, nn.GRU)[rng.integers(3)]
        both, whole = bool(rng.integers(2)), bool(rng.integers(2))
        hidden, levels = int(rng.integers(1, 8)), int(rng.integers(1, 3))
        options = {"bidirectional": both, "return_sequences": whole}
        layers.append(kind(width, hidden, levels, **options))
        width = hidden * (1 + both)
    for _ in range(rng.integers(1, 6)):
        more, width = _some(rng, width)
        layers += more
    if rng.random() < 0.3:
        layers.append(nn.Softmax() if rng.integers(2) else nn.LogSoftmax())
    model = disturbed(nn.Sequential(*layers, rng=int(rng.integers(99))), rng).eval()
    shape = (3, int(rng.integers(1, 6)), start) if recurrent else (3, start)
    return model, rng.normal(size=shape).astype(np.float32)


def _some(rng: np.random.Generator, width: int) -> tuple[list[nn.Layer], int]:
    """Some layers for inputs of this width, and the width of their outputs."""
    activation = ACTIVATIONS[rng.integers(len(ACTIVATIONS))]()
    match rng.integers(4):
        case 0:
            inner = nn.Sequential(nn.Linear(width, width), activation, nn.Linear(width, width))
            shortcut = None if rng.integers(2) else nn.Linear(width, width)
            return [nn.Residual(inner, shortcut)], width
        case 1:
            norm = (nn.BatchNorm, nn.LayerNorm, nn.RMSNorm)[rng.integers(3)](width)
            return [norm, activation, nn.Dropout(0.3)], width
        case _:
            out = int(rng.integers(1, 12))
            return [nn.Linear(width, out, bias=bool(rng.integers(2))), activation], out


def random_images(rng: np.random.Generator) -> tuple[Any, Any]:
    """A convolutional model in evaluation mode, and a batch of images or sequences for it."""
    dimensions = int(rng.integers(1, 3))
    channels = start = int(rng.integers(1, 5))
    sizes = tuple(int(size) for size in rng.integers(6, 10, size=dimensions))
    layers: list[nn.Layer] = []
    for _ in range(rng.integers(1, 5)):
        more, channels = _some_of_images(rng, channels, dimensions)
        layers += more
    end = rng.integers(4)
    if end == 0:
        layers.append((nn.GlobalAvgPool, nn.GlobalMaxPool)[rng.integers(2)](bool(rng.integers(2))))
    elif end == 1:
        layers.append(nn.Flatten(channels_first=bool(rng.integers(2))))
        shape = nn.Sequential(*layers).output_shape((1, *sizes, start))
        layers.append(nn.Linear(int(shape[-1] if shape else 0), 3))
    elif end == 2:
        layers.append(nn.Softmax())
    model = disturbed(nn.Sequential(*layers, rng=int(rng.integers(99))), rng).eval()
    return model, rng.normal(size=(2, *sizes, start)).astype(np.float32)


def _some_of_images(
    rng: np.random.Generator, channels: int, dimensions: int
) -> tuple[list[nn.Layer], int]:
    """Some layers for images with so many channels, and the channels of their outputs."""
    convolution = (nn.Conv1d, nn.Conv2d)[dimensions - 1]
    activation = ACTIVATIONS[rng.integers(len(ACTIVATIONS))]()
    match rng.integers(5):
        case 0:
            inner = [nn.BatchNorm(channels), convolution(channels, channels, 3, padding="same")]
            shortcut = None if rng.integers(2) else convolution(channels, channels, 1)
            return [nn.Residual(nn.Sequential(*inner, activation), shortcut)], channels
        case 1:
            kinds: Any = ((nn.MaxPool1d, nn.AvgPool1d), (nn.MaxPool2d, nn.AvgPool2d))
            pool = kinds[dimensions - 1][rng.integers(2)]
            padding: Any = ("same", 1, ((1, 0),) * dimensions)[rng.integers(3)]
            kernel, stride, up = 2 + int(rng.integers(2)), 1 + int(rng.integers(2)), rng.integers(2)
            more: Any = {"ceil_mode": bool(up)}
            if issubclass(pool, nn.MaxPool1d | nn.MaxPool2d):
                more["dilation"] = 1 + int(rng.integers(2))
            return [pool(kernel, stride, padding, **more), nn.Upsample(2)], channels
        case 2:
            branches = convolution(channels, 2, 1), nn.Sequential(nn.BatchNorm(channels))
            return [nn.Parallel(*branches), nn.Dropout(0.2, whole_channels=True)], channels + 2
        case _:
            groups = channels if rng.random() < 0.3 else 1
            out = groups * int(rng.integers(1, 4))
            words = ["same", 1, ((1, 2),) * dimensions, *["causal"] * (2 - dimensions)]
            options: dict[str, Any] = {
                "stride": int(rng.integers(1, 3)),
                "padding": words[rng.integers(len(words))],
                "dilation": int(rng.integers(1, 3)),
                "groups": groups,
                "bias": bool(rng.integers(2)),
            }
            size = int(rng.integers(1, 4)), int(rng.integers(1, 3))
            layer = convolution(channels, out, size[:dimensions], **options)
            return [layer, activation, nn.Upsample(2)], out


def disturbed(model: Any, rng: np.random.Generator) -> Any:
    """The model, after random changes of its parameters and running statistics."""
    for parameter in model.parameters():
        parameter.data += 0.2 * rng.normal(size=parameter.shape).astype(parameter.dtype)
    for name, array in model.state().items():
        if name.endswith(("running_mean", "running_var")):
            array += rng.uniform(0, 2, size=array.shape).astype(array.dtype)
    return model
