"""Activations and optimizers by the names that the command line has for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from minidl import nn, optim

ACTIVATIONS: dict[str, Callable[[], nn.Layer]] = {
    "linear": nn.Identity,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
}
OPTIMIZERS: dict[str, Callable[..., optim.Optimizer]] = {
    "sgd": optim.SGD,
    "momentum": lambda parameters, lr=1e-2, **options: optim.SGD(
        parameters, lr, momentum=0.9, **options
    ),
    "rmsprop": optim.RMSprop,
    "adam": optim.Adam,
}


def activation(name: str) -> nn.Layer:
    """Make the activation of this name.

    Raises
    ------
    ValueError
        For an unknown name.
    """
    return _found("activation", ACTIVATIONS, name)()


def optimizer(
    name: str, parameters: Any, rates: Mapping[str, float], **options: Any
) -> optim.Optimizer:
    """Make the optimizer of this name, at its rate; ``momentum`` is SGD with a momentum of 0.9.

    Raises
    ------
    ValueError
        For an unknown name.
    """
    make = _found("optimizer", OPTIMIZERS, name)
    made = make(parameters, lr=rates[name], **options)
    assert isinstance(made, optim.Optimizer)
    return made


def _found(kind: str, known: dict[str, Callable[..., Any]], name: str) -> Callable[..., Any]:
    if name not in known:
        raise ValueError(f"no {kind} is called {name!r}; there are {', '.join(known)}")
    return known[name]
