"""Networks of fully connected layers, built from the parameters of an estimator."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from minidl import nn
from minidl.nn.checks import check_choice, check_count, check_number
from minidl.sklearn.made import made
from minidl.typing import DType

Activation = str | nn.Layer | Callable[[], nn.Layer]

ACTIVATIONS: dict[str, Callable[[], nn.Layer]] = {
    "identity": nn.Identity,
    "logistic": nn.Sigmoid,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "prelu": nn.PReLU,
    "elu": nn.ELU,
    "celu": nn.CELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "softplus": nn.Softplus,
    "softsign": nn.Softsign,
    "hard_sigmoid": nn.HardSigmoid,
    "hard_swish": nn.HardSwish,
}
NORMS: dict[str, Callable[[int], nn.Layer]] = {
    "batch": nn.BatchNorm,
    "layer": nn.LayerNorm,
    "rms": nn.RMSNorm,
}


@dataclass(frozen=True)
class Hidden:
    """A hidden layer: its width, and what follows the products."""

    width: int
    activation: Callable[[], nn.Layer]
    dropout: float
    norm: Callable[[int], nn.Layer] | None
    gain: float  # the factor of scikit-learn's bound for weights and biases

    def layers(self, features: int, residual: bool) -> list[nn.Layer]:
        """Make Linear, [norm,] activation[, Dropout]; with ``residual``, in one ``Residual``."""
        block: list[nn.Layer] = [linear(features, self.width, self.gain)]
        if self.norm is not None:
            block.append(self.norm(self.width))
        block.append(self.activation())
        if self.dropout:
            block.append(nn.Dropout(self.dropout))
        if not residual:
            return block
        same = features == self.width
        shortcut = None if same else nn.Linear(features, self.width, bias=False)
        return [nn.Residual(nn.Sequential(*block), shortcut)]


def hidden_layers(owner: str, sizes: Any, activation: Any, dropout: Any, norm: Any) -> list[Hidden]:
    """Check the parameters that describe hidden layers; return a description of each.

    ``activation`` and ``dropout`` are one for all layers, or a list with one for each.

    Raises
    ------
    TypeError, ValueError
        For anything else, naming the parameter.
    """
    widths = [
        check_count(owner, "hidden_layer_sizes", width)
        for width in (sizes if hasattr(sizes, "__iter__") else [sizes])
    ]
    activations = one_each(owner, "activation", activation, len(widths))
    dropouts = one_each(owner, "dropout", dropout, len(widths))
    return [
        Hidden(
            width,
            activation_maker(owner, chosen),
            check_number(owner, "dropout", share, 0, 1),
            norm_maker(owner, norm),
            2.0 if chosen == "logistic" else 6.0,
        )
        for width, chosen, share in zip(widths, activations, dropouts, strict=True)
    ]


def one_each(owner: str, name: str, value: Any, count: int) -> Sequence[Any]:
    """Return a value for each hidden layer; a list or an array must have as many."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, (list, tuple)):
        return [value] * count
    if len(value) != count:
        raise ValueError(f"{owner}: {name} has {len(value)} entries for {count} hidden layers")
    return value


def activation_maker(owner: str, activation: Any) -> Callable[[], nn.Layer]:
    """Return a function that makes an activation, given its name, a class or a function."""
    if callable(activation) and not isinstance(activation, nn.Layer):
        return partial(made, owner, "activation", activation)
    return ACTIVATIONS[check_choice(owner, "activation", activation, *ACTIVATIONS)]


def norm_maker(owner: str, norm: Any) -> Callable[[int], nn.Layer] | None:
    """Return a function that makes a normalization of a width, given its name or a function."""
    if norm is None:
        return None
    if callable(norm):
        return partial(made, owner, "norm", norm)
    return NORMS[check_choice(owner, "norm", norm, *NORMS)]


def mlp(
    features: int, hidden: Sequence[Hidden], outputs: int, residual: bool, standardize: bool
) -> list[nn.Layer]:
    """Make the layers of a network: [Standardize,] the hidden ones, and a ``Linear`` at the end."""
    layers: list[nn.Layer] = [nn.Standardize(features)] if standardize else []
    for each in hidden:
        layers += each.layers(features, residual)
        features = each.width
    gain = hidden[-1].gain if hidden else 6.0
    return [*layers, linear(features, outputs, gain)]


def linear(features: int, outputs: int, gain: float) -> nn.Linear:
    """Make a ``Linear`` that is drawn as scikit-learn draws: U(±√(gain / (fan_in + fan_out)))."""
    bound = math.sqrt(gain / (features + outputs))
    drawn = nn.init.uniform(-bound, bound)
    return nn.Linear(features, outputs, init=drawn, bias_init=drawn)


def finished(layers: Sequence[nn.Layer], dtype: DType, rng: np.random.Generator) -> nn.Sequential:
    """Put layers into a network of this dtype, whose weights are drawn by ``rng``."""
    network = nn.Sequential(*layers, rng=rng)
    network.astype(dtype)
    return network


def linear_layers(network: nn.Layer) -> list[nn.Linear]:
    """Return the ``Linear`` layers of a network in order, without those of shortcuts."""
    found = (layer for path, layer in network.layers() if "shortcut" not in path.split("."))
    return [layer for layer in found if isinstance(layer, nn.Linear)]


def penalised(network: nn.Layer) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the parameters that a penalty shrinks, which are matrices, and all others."""
    parameters = network.parameters()
    return [p for p in parameters if len(p.shape) > 1], [p for p in parameters if len(p.shape) < 2]
