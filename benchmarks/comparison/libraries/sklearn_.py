"""Run scikit-learn: one batch a call of partial_fit. It does not clip."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import sklearn
from sklearn.neural_network import MLPClassifier

from comparison.measuring import Contender
from comparison.networks import LEARNING_RATE, Network, first_loss, over


def about() -> str:
    """Return name and version."""
    return f"scikit-learn {sklearn.__version__}"


def steps(network: Network, threads: list[int]) -> Iterator[Contender]:
    """Make a step of Adam. Networks of two classes are left out: it has another loss for them."""
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
    del model._optimizer  # this one has made a step; the next call makes a new one

    def step(x: np.ndarray, y: np.ndarray) -> float:
        return model.partial_fit(x, y).loss_

    call = over(step, batches)
    yield Contender("scikit-learn", call, check=first_loss(call))
