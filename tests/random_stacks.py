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


def disturbed(model: Any, rng: np.random.Generator) -> Any:
    """The model, after random changes of its parameters and running statistics."""
    for parameter in model.parameters():
        parameter.data += 0.2 * rng.normal(size=parameter.shape).astype(parameter.dtype)
    for name, array in model.state().items():
        if name.endswith(("running_mean", "running_var")):
            array += rng.uniform(0, 2, size=array.shape).astype(array.dtype)
    return model
