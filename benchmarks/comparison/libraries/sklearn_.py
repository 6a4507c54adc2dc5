"""scikit-learn: one batch a call of partial_fit. There is no clipping in it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import sklearn
from sklearn.neural_network import MLPClassifier

from comparison.measuring import Contender
from comparison.networks import LEARNING_RATE, Network, first_loss, over


def about() -> str:
    """Version."""
    return f"scikit-learn {sklearn.__version__}"


def steps(network: Network, threads: list[int]) -> Iterator[Contender]:
    """A step of Adam on the batch. Two classes are another loss to it, and so left out."""
    if network.classes == 2 or network.batch == 1:
        return
    model = MLPClassifier(
        network.widths[1:-1],
        activation=network.activation,
        alpha=0.0,
        batch_size=network.batch,
        learning_rate_init=LEARNING_RATE,
        shuffle=False,
    )
    batches = network.split(*network.data)
    model.partial_fit(*batches[0], classes=np.arange(network.classes))  # makes the weights
    for layer, (weight, bias) in enumerate(network.weights()):
        model.coefs_[layer][...], model.intercepts_[layer][...] = weight, bias
    del model._optimizer  # it has made a step already, and is made anew

    def step(x: np.ndarray, y: np.ndarray) -> float:
        return model.partial_fit(x, y).loss_

    call = over(step, batches)
    yield Contender("scikit-learn", call, check=first_loss(call))
