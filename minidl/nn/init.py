r"""Initialisers: how the weights of a layer are drawn before training.

A signal that passes a layer of n inputs is multiplied in variance by n · Var(W) · E[φ'(z)²].
Below one over many layers the gradient vanishes, above one it explodes; an initialiser chooses
Var(W) so that the factor is near one.

Every function here returns an initialiser, a callable ``(shape, rng) -> array``; layers also
take its name: ``Linear(64, 128, init="he_normal")`` is ``init=nn.init.he_normal()``.
The weight of shape (in_features, out_features) has fan_in = in_features and
fan_out = out_features.

==================  ================================================  ====================
initialiser         distribution                                      source
==================  ================================================  ====================
``xavier_uniform``  U(-a, a), a = sqrt(6 / (fan_in + fan_out))         Glorot & Bengio 2010
``xavier_normal``   N(0, 2 / (fan_in + fan_out))                       Glorot & Bengio 2010
``he_uniform``      U(-a, a), a = sqrt(6 / fan_in)                     He et al. 2015, eq. 10
``he_normal``       N(0, 2 / fan_in)                                   He et al. 2015, eq. 10
==================  ================================================  ====================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Seed = int | np.random.Generator | None
Shape = tuple[int, ...]


def as_generator(rng: Seed) -> np.random.Generator:
    """A generator from a seed, a generator or None (seeded by the system)."""
    if isinstance(rng, (bool, np.bool_)) or not isinstance(
        rng, (int, np.integer, np.random.Generator, type(None))
    ):
        raise TypeError(f"rng must be a numpy.random.Generator, an int or None, got {rng!r}")
    return np.random.default_rng(rng)


@dataclass(frozen=True, repr=False)
class Initializer:
    """A way to draw an array: a distribution by name, and its arguments."""

    name: str
    draw: Callable[..., Any]
    arguments: tuple[float, ...] = ()

    def __call__(self, shape: Shape, rng: Seed = None) -> np.ndarray[Any, np.dtype[Any]]:
        return np.asarray(self.draw(shape, as_generator(rng), *self.arguments))

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(map(str, self.arguments))})"


def zeros() -> Initializer:
    """All zeros."""
    return Initializer("zeros", _constant)


def constant(value: float) -> Initializer:
    """All equal to ``value``."""
    return Initializer("constant", _constant, (float(value),))


def uniform(low: float, high: float) -> Initializer:
    """U(low, high)."""
    if not low < high:
        raise ValueError(f"uniform needs low < high, got low={low}, high={high}")
    return Initializer("uniform", _uniform, (low, high))


def normal(mean: float = 0.0, std: float = 1.0) -> Initializer:
    """N(mean, std²)."""
    if not std >= 0:
        raise ValueError(f"normal needs std >= 0, got {std}")
    return Initializer("normal", _normal, (mean, std))


def xavier_uniform() -> Initializer:
    """U(-a, a) with a = sqrt(6 / (fan_in + fan_out)): for tanh, sigmoid and linear layers."""
    return Initializer("xavier_uniform", _xavier_uniform)


def xavier_normal() -> Initializer:
    """N(0, 2 / (fan_in + fan_out)): for tanh, sigmoid and linear layers."""
    return Initializer("xavier_normal", _xavier_normal)


def he_uniform() -> Initializer:
    """U(-a, a) with a = sqrt(6 / fan_in): for ReLU, which lets half of the variance through."""
    return Initializer("he_uniform", _he_uniform)


def he_normal() -> Initializer:
    """N(0, 2 / fan_in): for ReLU, which lets half of the variance through."""
    return Initializer("he_normal", _he_normal)


def by_name(init: str | Initializer) -> Initializer:
    """The initialiser itself, or the one of that name with its default arguments."""
    if isinstance(init, str):
        if init not in NAMED:
            raise ValueError(f"unknown initialiser {init!r}; known: {', '.join(NAMED)}")
        return NAMED[init]()
    if not isinstance(init, Initializer):
        raise TypeError(
            f"init must be a name or an initialiser such as nn.init.he_normal(), got {init!r}"
        )
    return init


def _constant(shape: Shape, rng: np.random.Generator, value: float = 0.0) -> Any:
    return np.full(shape, value)


def _uniform(shape: Shape, rng: np.random.Generator, low: float, high: float) -> Any:
    return rng.uniform(low, high, shape)


def _normal(shape: Shape, rng: np.random.Generator, mean: float, std: float) -> Any:
    return rng.normal(mean, std, shape)


def _xavier_uniform(shape: Shape, rng: np.random.Generator) -> Any:
    limit = np.sqrt(6 / sum(_fans(shape)))
    return rng.uniform(-limit, limit, shape)


def _xavier_normal(shape: Shape, rng: np.random.Generator) -> Any:
    return rng.normal(0.0, np.sqrt(2 / sum(_fans(shape))), shape)


def _he_uniform(shape: Shape, rng: np.random.Generator) -> Any:
    limit = np.sqrt(6 / _fans(shape)[0])
    return rng.uniform(-limit, limit, shape)


def _he_normal(shape: Shape, rng: np.random.Generator) -> Any:
    return rng.normal(0.0, np.sqrt(2 / _fans(shape)[0]), shape)


def _fans(shape: Shape) -> tuple[int, int]:
    if len(shape) != 2:
        raise ValueError(f"needs a weight of shape (fan_in, fan_out), got {shape}")
    return shape[0], shape[1]


NAMED: dict[str, Callable[[], Initializer]] = {
    factory.__name__: factory
    for factory in (xavier_uniform, xavier_normal, he_uniform, he_normal, zeros)
}
