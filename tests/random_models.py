"""Models drawn at random: layers of all families, nested, recurrent, residual, shared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from layer_helpers import plain_layers

from minidl import nn
from minidl.typing import Array


def random_model(rng: np.random.Generator) -> tuple[nn.Layer, Array]:
    """A model, and an input for it."""
    dtype = np.float32 if rng.integers(4) else np.float64
    width = int(rng.integers(1, 6))
    is_sequence = bool(rng.integers(3) == 0)
    shape = (4, 5, width) if is_sequence else (4, width)
    layers, width = _stack(rng, width, int(rng.integers(1, 6)), 2)
    if is_sequence:
        recurrent, width = _recurrent(rng, width)
        layers.append(recurrent)
    layers.append(nn.Linear(width, int(rng.integers(1, 4)), init=_init(rng)))
    if not rng.integers(4):
        layers.append(nn.Identity())
    model = nn.Sequential(*layers, rng=int(rng.integers(99)) if rng.integers(2) else None)
    model.astype(dtype)
    _vary(model, rng)
    return model, rng.normal(size=shape).astype(dtype)


def _stack(
    rng: np.random.Generator, width: int, count: int, depth: int
) -> tuple[list[nn.Layer], int]:
    """Layers, and the width of what the last of them gives."""
    layers: list[nn.Layer] = []
    plain = list(plain_layers().values())
    for _ in range(count):
        match int(rng.integers(10 if depth else 6)):
            case 0 | 1:
                after = int(rng.integers(1, 6))
                bias = bool(rng.integers(2))
                layers.append(nn.Linear(width, after, bias=bias, init=_init(rng)))
                width = after
            case 2:
                layers.append(plain[int(rng.integers(len(plain)))]())
            case 3:
                layers.append(nn.Dropout(float(rng.uniform(0, 0.9))))
            case 4:
                layers.append(_norm(rng, width))
            case 5:
                layers.append(_rectifier(rng, width))
            case 6:
                body, after = _stack(rng, width, 2, depth - 1)
                layers.append(nn.Residual(nn.Sequential(*body), nn.Linear(width, after)))
                width = after
            case 7:
                body, after = _stack(rng, width, 2, depth - 1)
                other = [nn.Linear(width, after), nn.Identity()]
                join = ("add", "concat", "multiply")[int(rng.integers(3))]
                layers.append(
                    nn.Parallel(nn.Sequential(*body), named=other[join == "concat"], join=join)
                )
                width = after + width * (join == "concat")
            case 8 if width > 1:
                parts = nn.Split((1, width - 1))
                twice = nn.Linear(width - 1, 1, init=_init(rng))
                inside = nn.Parallel(nn.Tanh(), twice, join=("add", "concat")[int(rng.integers(2))])
                layers.append(nn.Sequential(parts, inside))
                width = 2 if inside.join == "concat" else 1
            case _:
                inner = nn.Linear(width, width)  # the same one twice
                layers.append(nn.Sequential(inner, nn.Tanh(), inner))
    return layers, width


def _norm(rng: np.random.Generator, width: int) -> nn.Layer:
    makers: list[Callable[[], nn.Layer]] = [
        lambda: nn.BatchNorm(width, momentum=float(rng.uniform(0.1, 1.0))),
        lambda: nn.LayerNorm(width, eps=1e-3),
        lambda: nn.RMSNorm(width),
        lambda: nn.RMSNorm(width, 0.1),
        lambda: nn.Standardize(width).adapt(rng.normal(size=(9, width))),
    ]
    return makers[int(rng.integers(len(makers)))]()


def _rectifier(rng: np.random.Generator, width: int) -> nn.Layer:
    makers: list[Callable[[], nn.Layer]] = [
        lambda: nn.LeakyReLU(0.2),
        lambda: nn.PReLU(width),
        lambda: nn.PReLU(),
        lambda: nn.ELU(0.7),
        lambda: nn.CELU(1.5),
        lambda: nn.Softplus(2.0),
        lambda: nn.GELU("tanh"),
    ]
    return makers[int(rng.integers(len(makers)))]()


def _recurrent(rng: np.random.Generator, width: int) -> tuple[nn.Layer, int]:
    kind: Any = (nn.RNN, nn.LSTM, nn.GRU)[int(rng.integers(3))]
    hidden, both = int(rng.integers(1, 5)), bool(rng.integers(2))
    options: dict[str, Any] = {"bidirectional": both, "return_sequences": bool(rng.integers(2))}
    if rng.integers(2):
        options |= {"num_layers": 2, "dropout": 0.3}
    if not both and rng.integers(2):
        options["stateful"] = 4
    if kind is nn.RNN and rng.integers(2):
        options["nonlinearity"] = "relu"
    return kind(width, hidden, **options), hidden * (1 + both)


def _init(rng: np.random.Generator) -> Any:
    choices = [
        *(None, None, "he_normal", "orthogonal", nn.init.normal(std=0.3)),
        nn.init.truncated_normal(0.5),
    ]
    return choices[int(rng.integers(len(choices)))]


def _vary(model: nn.Layer, rng: np.random.Generator) -> None:
    """Freeze, switch and change what can be, after the model was built."""
    for _, layer in model.layers():
        if not rng.integers(6):
            layer.training = False
        if isinstance(layer, nn.Dropout) and not rng.integers(3):
            layer.p = 0.25
    parameters = model.parameters()
    if len(parameters) > 2 and not rng.integers(3):
        parameters[0].frozen = True
