"""Run Thinc's layers and its Adam, which clips each parameter by its own norm."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import thinc
from thinc.api import Adam, Model, Relu, Softmax, chain

from comparison.measuring import Contender
from comparison.networks import LEARNING_RATE, MAX_NORM, Network, first_loss, over


def about() -> str:
    """Return name and version."""
    return f"Thinc {thinc.__version__}"


def steps(network: Network, threads: list[int]) -> Iterator[Contender]:
    """Make a step as in its documentation. It has no tanh."""
    if network.activation != "relu":
        return
    model = _model(network)
    adam = Adam(LEARNING_RATE, L2=0.0, grad_clip=MAX_NORM, use_averages=False)
    rows = np.arange(network.batch)
    share = np.float32(1 / network.batch)

    def step(x: np.ndarray, y: np.ndarray) -> Any:
        probabilities, backward = model.begin_update(x)
        loss = -np.log(probabilities[rows, y]).mean()
        probabilities[rows, y] -= 1
        probabilities *= share
        backward(probabilities)
        model.finish_update(adam)
        return loss

    call = over(step, network.split(*network.data))
    yield Contender("Thinc", call, check=first_loss(call))


def _model(network: Network) -> Model:
    shapes = network.layers
    layers = [Relu(n_out, n_in) for n_in, n_out in shapes[:-1]]
    layers.append(Softmax(shapes[-1][1], shapes[-1][0]))
    model = chain(*layers)
    model.initialize()
    for layer, (weight, bias) in zip(layers, network.weights(), strict=True):
        layer.set_param("W", np.ascontiguousarray(weight.T))
        layer.set_param("b", bias)
    return model
