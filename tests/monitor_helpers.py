"""A training by hand that stores all arrays, and what NumPy makes of them: for a GradientMonitor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from minidl import nn, optim
from minidl.diagnosis.records import QUANTITIES

LARGEST_SLOPE = {nn.Sigmoid: 0.25, nn.Tanh: 1.0, nn.HardSigmoid: 1 / 6, nn.Softsign: 1.0}


def network(rng: int = 0) -> nn.Sequential:
    """A network of leaves in a row, with a layer of every kind that is watched in its own way."""
    layers = [
        *(nn.Linear(6, 40), nn.BatchNorm(40), nn.ReLU(), nn.Linear(40, 7), nn.Sigmoid()),
        *(nn.Linear(7, 130), nn.Softsign(), nn.Dropout(0.3), nn.Linear(130, 5), nn.Tanh()),
        *(nn.Linear(5, 9), nn.HardSigmoid(), nn.PReLU(9), nn.Linear(9, 3)),
    ]
    model = nn.Sequential(*layers, rng=rng)
    model[0].bias.data[:10] = -9.0  # after the ReLU, these units are dead
    model[1].gamma.data[:10], model[1].beta.data[:10] = 0, -1
    model[8].weight.data *= 9  # tanh saturates
    return model


def data(rows: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """Rows, and their labels."""
    rng = np.random.default_rng(1)
    return rng.normal(size=(rows, 6)).astype(np.float32), rng.integers(3, size=rows)


def train(
    model: nn.Sequential, loss: nn.Loss, optimizer: optim.Optimizer, x: Any, y: Any, batch: int
) -> Iterator[dict[str, np.ndarray]]:
    """Make a step for each batch; yields the quantities of each, one number for every layer.

    Of the layers, those that only pass on (``Dropout``) are run and left out.
    """
    layers = list(model.stack)
    alive: dict[int, Any] = {}
    for begin in range(0, len(x), batch):
        # Passes inside one call of a layer would be one pass, so each is a pass of its own.
        outputs, gradients, slopes = [], [], []
        h = x[begin : begin + batch]
        for layer in layers:
            h = layer(h)
            outputs.append(h.astype(np.float64))
            slopes.append(slope_of(layer, h, outputs))
        value = loss(h, y[begin : begin + batch])
        optimizer.zero_grad()
        dy = loss.backward()
        for layer in reversed(layers):
            gradients.insert(0, dy.astype(np.float64))
            dy = layer.backward(dy)
        grads = [[p.grad.astype(np.float64) for p in layer.parameters()] for layer in layers]
        before = [[p.data.astype(np.float64) for p in layer.parameters()] for layer in layers]
        norm = optimizer.step()
        after = [[p.data.astype(np.float64) for p in layer.parameters()] for layer in layers]
        rows = []
        for place, layer in enumerate(layers):
            if isinstance(layer, nn.Dropout):
                continue
            out = outputs[place]
            active = alive.setdefault(place, np.zeros(out.shape[-1], bool))
            active |= (out != 0).any(axis=0)
            trained = bool(layer.parameters())
            changes = [a - b for a, b in zip(after[place], before[place], strict=True)]
            is_activation = not trained or isinstance(layer, nn.PReLU)
            rows.append(
                {
                    "gradient": norm_of([gradients[place]]),
                    "weight_gradient": norm_of(grads[place]) if trained else np.nan,
                    "weight": norm_of(after[place]) if trained else np.nan,
                    "update": norm_of(changes) if trained else np.nan,
                    "mean": out.mean(),
                    "deviation": out.std(),
                    "zeros": (out == 0).mean(),
                    "saturation": 1 - slopes[place],
                    "dead": 1 - active.mean() if is_activation else np.nan,
                }
            )
        found = {name: np.array([row[name] for row in rows]) for name in rows[0]}
        found["gradient_ratio"] = found["gradient"] / found["gradient"][-1]
        found["update_ratio"] = found["update"] / found["weight"]
        assert found.keys() == QUANTITIES.keys()
        yield found | {"norm": np.array(norm), "loss": np.array(float(value))}


def slope_of(layer: nn.Layer, y: np.ndarray, outputs: list[np.ndarray]) -> float:
    """The mean derivative of an activation / the largest, by its formula; NaN for others."""
    y = y.astype(np.float64)
    x = outputs[-2] if len(outputs) > 1 else y
    slope: Any = {
        nn.Sigmoid: lambda: y * (1 - y),
        nn.Tanh: lambda: 1 - y * y,
        nn.Softsign: lambda: (1 - abs(y)) ** 2,
        nn.HardSigmoid: lambda: ((x > -3) & (x < 3)) / 6,
    }.get(type(layer), lambda: np.nan)()
    return float(np.mean(slope)) / LARGEST_SLOPE.get(type(layer), np.nan)


def norm_of(arrays: list[np.ndarray]) -> float:
    return float(np.sqrt(sum((a * a).sum() for a in arrays)))
