r"""Initialisers: how the weights of a layer are drawn before training.

Forward, a layer of n inputs turns an activation φ(z) into a z of variance n · Var(W) · E[φ(z)²].
Backward, one of n outputs multiplies the mean square of the gradient by n · Var(W) · E[φ'(z)²]. If
this factor is below one in many layers, the gradient vanishes; if it is above one, the gradient
explodes. An initialiser chooses Var(W) so that the factors are near one.

Every function here returns an initialiser, a callable ``(shape, rng) -> array``; layers also
take its name: ``Linear(64, 128, init="he_normal")`` is ``init=nn.init.he_normal()``.
The weight of shape (in_features, out_features) has fan_in = in_features and
fan_out = out_features; that of a convolution, (height, width, channels, outputs), has
fan_in = height · width · channels and fan_out = height · width · outputs.

==================  ================================================  ====================
initialiser         distribution                                      source
==================  ================================================  ====================
``xavier_uniform``  U(-a, a), a = sqrt(6 / (fan_in + fan_out))         Glorot & Bengio 2010
``xavier_normal``   N(0, 2 / (fan_in + fan_out))                       Glorot & Bengio 2010
``he_uniform``      U(-a, a), a = sqrt(6 / fan_in)                     He et al. 2015, eq. 10
``he_normal``       N(0, 2 / fan_in)                                   He et al. 2015, eq. 10
``lecun_uniform``   U(-a, a), a = sqrt(3 / fan_in)                     LeCun et al. 1998
``lecun_normal``    N(0, 1 / fan_in)                                   LeCun et al. 1998
``fan_in_uniform``  U(-a, a), a = scale / sqrt(fan_in)                PyTorch's default
``orthogonal``      gain · a random orthonormal matrix                 Saxe et al. 2014
``critical``        N(0, 1 / (fan_in · E[φ'(√q z)²]))                  Schoenholz et al. 2017
==================  ================================================  ====================

The docstring of ``Linear`` says which of them are its defaults, and docs/initialisation.md why.
``critical`` computes q, and with it the factor for any activation. ``nn.lsuv`` scales the layers of
a model until their outputs for given data have variance one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minidl.nn.criticality import critical_point, mean_squares
from minidl.nn.parameter import Initializer, Shape


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
    """U(-a, a) with a = sqrt(6 / fan_in): for ReLU, which halves the second moment."""
    return Initializer("he_uniform", _he_uniform)


def he_normal() -> Initializer:
    """N(0, 2 / fan_in): for ReLU, which halves the second moment."""
    return Initializer("he_normal", _he_normal)


def lecun_uniform() -> Initializer:
    """U(-a, a) with a = sqrt(3 / fan_in): for SELU and linear layers."""
    return Initializer("lecun_uniform", _lecun_uniform)


def lecun_normal() -> Initializer:
    """N(0, 1 / fan_in): for SELU and linear layers."""
    return Initializer("lecun_normal", _lecun_normal)


def fan_in_uniform(scale: float = 1.0, fan_in: int | None = None) -> Initializer:
    """U(-a, a) with a = scale / sqrt(fan_in): PyTorch's default for weights and biases.

    Parameters
    ----------
    scale
        A number > 0. PyTorch's is 1; sqrt(3) makes the variance 1 / fan_in.
    fan_in
        A number of inputs ≥ 1; None takes that of the weight, or for ``bias_init`` that of the
        layer.

    Raises
    ------
    ValueError
        For numbers outside these ranges.

    Examples
    --------
    >>> from minidl import nn
    >>> nn.Linear(4, 3, init="fan_in_uniform", bias_init="fan_in_uniform")
    Linear(4, 3)
    """
    if not 0 < scale < math.inf:
        raise ValueError(f"fan_in_uniform needs a finite scale > 0, got {scale}")
    if fan_in is None:
        return Initializer("fan_in_uniform", _fan_in_uniform, (scale,))
    if fan_in < 1:
        raise ValueError(f"fan_in_uniform needs fan_in >= 1, got {fan_in}")
    return Initializer("fan_in_uniform", _fan_in_uniform, (scale, fan_in))


def truncated_normal(std: float = 1.0, bound: float = 2.0) -> Initializer:
    """N(0, std²), where numbers farther than ``bound`` · std from zero are drawn again."""
    if not std > 0 or not bound > 0:
        raise ValueError(f"truncated_normal needs std > 0 and bound > 0, got {std}, {bound}")
    return Initializer("truncated_normal", _truncated_normal, (std, bound))


def orthogonal(gain: float = 1.0) -> Initializer:
    """gain · Q with orthonormal rows, or with orthonormal columns if there are fewer columns.

    All singular values are gain. So if Q is square, signals and gradients keep their length (times
    gain) in every direction, not only on average. From fewer to more features signals do, and from
    more to fewer gradients do; the other of the two loses what it has outside of the smaller space.
    Source: Saxe et al. 2014.
    """
    if not gain > 0:
        raise ValueError(f"orthogonal needs gain > 0, got {gain}")
    return Initializer("orthogonal", _orthogonal, (gain,))


def by_gate(*gates: Initializer) -> Initializer:
    """Initialise the gates of a cell: arrays of equal width side by side along the last axis.

    Examples
    --------
    >>> from minidl import nn
    >>> nn.init.by_gate(nn.init.zeros(), nn.init.constant(1.0))((4,))
    array([0., 0., 1., 1.])
    """
    return Initializer("by_gate", _by_gate, gates)


def gain(activation: str, slope: float = 0.01) -> float:
    """Return the factor for weights of variance 1 / fan_in before this activation.

    The values are those of PyTorch's ``calculate_gain``: 1 for "linear" and "sigmoid", 5/3 for
    "tanh", sqrt(2) for "relu", sqrt(2 / (1 + slope²)) for "leaky_relu", 3/4 for "selu".

    Examples
    --------
    >>> from minidl import nn
    >>> nn.init.gain("tanh")
    1.6666666666666667
    >>> nn.init.orthogonal(nn.init.gain("relu"))
    orthogonal(1.4142135623730951)
    """
    gains = {
        "linear": 1.0,
        "sigmoid": 1.0,
        "tanh": 5 / 3,
        "relu": math.sqrt(2),
        "leaky_relu": math.sqrt(2 / (1 + slope**2)),
        "selu": 3 / 4,
    }
    if activation not in gains:
        raise ValueError(f"no gain is known for {activation!r}; known: {', '.join(gains)}")
    return gains[activation]


def critical(
    activation: Any, variance: float | None = None, bias_variance: float = 0.0
) -> Initializer:
    """N(0, σ_w² / fan_in) at the border of order and chaos, where the gradient keeps its size.

    With weights N(0, σ_w² / fan_in) and biases N(0, σ_b²), every layer maps the variance q of the
    activation's input by the length map, and multiplies the squared norm of the gradient by χ:

    q ← σ_w² · E[φ(√q z)²] + σ_b²,  χ = σ_w² · E[φ'(√q z)²],  z ~ N(0, 1)

    σ_w² is chosen so that χ = 1 at the fixed point q to which the map converges; both are computed
    by quadrature. For tanh without biases, q → 0 and σ_w² = 1. For ReLU every q is a fixed point
    and σ_w² = 2. For the sigmoid, q = 46 and σ_w² = 103: its mean of ½ adds to q.

    GELU, SiLU, Mish, HardSwish and Softplus have no such point without biases: their q grows or
    tends to zero. GELU has one for σ_b² ≥ 0.173, SiLU for σ_b² ≥ 0.556.

    Source: Poole et al. 2016; Schoenholz et al. 2017, equation 5.

    Parameters
    ----------
    activation
        A layer such as ``nn.Tanh()``, its name ("tanh"), or a function of an array. A layer is
        copied: its own gradients and state stay as they are.
    variance
        A number q > 0 if another layer keeps the variance there, such as 1 after a normalization;
        None takes the fixed point.
    bias_variance
        σ_b² ≥ 0. A ``Linear`` with this ``init`` has biases of zero unless its ``bias_init`` says
        otherwise: ``nn.init.normal(std=σ_b)``.

    Raises
    ------
    ValueError
        If the activation is not known, is flat, or has no such point.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> nn.init.critical("relu")
    critical(2.0)
    >>> nn.init.critical(np.sin, variance=1.0)
    critical(1.761594156)
    >>> nn.Linear(64, 64, init=nn.init.critical(nn.Tanh()))
    Linear(64, 64)
    """
    if variance is not None and not 0 < variance < np.inf:
        raise ValueError(f"critical needs variance > 0 or None, got {variance}")
    if not 0 <= bias_variance < np.inf:
        raise ValueError(f"critical needs bias_variance >= 0, got {bias_variance}")
    if variance is None:
        _, factor = critical_point(activation, bias_variance)
    else:
        factor = 1 / mean_squares(activation, variance)[1]
    return critical_of(float(f"{factor:.10g}"))


def critical_of(factor: float) -> Initializer:
    """N(0, factor / fan_in), under the name of ``critical``, which computes the factor."""
    if not 0 <= factor < math.inf:
        raise ValueError(f"critical needs a finite factor >= 0, got {factor}")
    return Initializer("critical", _critical, (factor,))


def by_name(init: str | Initializer) -> Initializer:
    """Return the initialiser itself, or the one of that name with its default arguments."""
    if isinstance(init, str):
        if init not in NAMED:
            raise ValueError(f"unknown initialiser {init!r}; known: {', '.join(NAMED)}")
        return NAMED[init]()
    if not isinstance(init, Initializer):
        raise TypeError(
            f"init must be a name or an initialiser such as nn.init.he_normal(), got {init!r}"
        )
    return init


def for_bias(init: str | Initializer, fan_in: int) -> Initializer:
    """Return the initialiser for a bias, whose shape does not tell the layer's fan_in."""
    init = by_name(init)
    if init.draw is _fan_in_uniform and len(init.arguments) == 1:
        return fan_in_uniform(init.arguments[0], fan_in)
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


def _lecun_uniform(shape: Shape, rng: np.random.Generator) -> Any:
    limit = np.sqrt(3 / _fans(shape)[0])
    return rng.uniform(-limit, limit, shape)


def _lecun_normal(shape: Shape, rng: np.random.Generator) -> Any:
    return rng.normal(0.0, np.sqrt(1 / _fans(shape)[0]), shape)


def _fan_in_uniform(
    shape: Shape, rng: np.random.Generator, scale: float, fan_in: int | None = None
) -> Any:
    limit = scale / np.sqrt(fan_in or _fans(shape)[0])
    return rng.uniform(-limit, limit, shape)


def _truncated_normal(shape: Shape, rng: np.random.Generator, std: float, bound: float) -> Any:
    values = rng.normal(size=shape)
    while (outside := np.abs(values) > bound).any():
        values[outside] = rng.normal(size=np.count_nonzero(outside))
    return std * values


def _orthogonal(shape: Shape, rng: np.random.Generator, gain: float) -> Any:
    _fans(shape)  # refuses what is no weight
    rows, columns = math.prod(shape[:-1]), shape[-1]
    q, r = np.linalg.qr(rng.normal(size=(max(rows, columns), min(rows, columns))))
    q *= np.sign(np.diag(r))  # without this, Q is not uniform over all such matrices
    return gain * (q if rows >= columns else q.T).reshape(shape)


def _by_gate(shape: Shape, rng: np.random.Generator, *gates: Initializer) -> Any:
    one = (*shape[:-1], shape[-1] // len(gates))
    return np.concatenate([gate(one, rng) for gate in gates], axis=-1)


def _critical(shape: Shape, rng: np.random.Generator, factor: float) -> Any:
    return rng.normal(0.0, np.sqrt(factor / _fans(shape)[0]), shape)


def _fans(shape: Shape) -> tuple[int, int]:
    """Count the inputs of an output, and the outputs that an input reaches.

    In a convolution these are those of the window: its size times channels, and times outputs.
    """
    if len(shape) < 2:
        raise ValueError(
            f"needs a weight of shape (fan_in, fan_out), got {shape}; "
            "for a bias choose one that does not depend on them, or fan_in_uniform"
        )
    window = math.prod(shape[:-2])
    return window * shape[-2], window * shape[-1]


NAMED: dict[str, Callable[[], Initializer]] = {
    factory.__name__: factory
    for factory in (
        xavier_uniform,
        xavier_normal,
        he_uniform,
        he_normal,
        lecun_uniform,
        lecun_normal,
        fan_in_uniform,
        orthogonal,
        zeros,
    )
}
