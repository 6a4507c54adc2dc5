"""The border of order and chaos: where signals and gradients keep their size in depth."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import numpy as np

from minidl.nn.layer import Layer
from minidl.nn.reshape import Identity
from minidl.typing import Array

# Midpoints of z with the weights of N(0, 1). They are symmetric about zero, so that means over
# rectifiers are exact, and fine enough for a sigmoid that is almost a step.
_NODES = (np.arange(20_000) + 0.5) / 1000 - 10
_WEIGHTS = np.exp(-(_NODES**2) / 2)
_WEIGHTS /= _WEIGHTS.sum()

# Variances between which fixed points are searched for. The first stands for zero.
_VARIANCES = np.geomspace(1e-10, 1e5, 151)


def critical_point(activation: Any, bias_variance: float = 0.0) -> tuple[float, float]:
    """Return (q, σ_w²): the fixed point q of the length map at which the gradient keeps its size.

    q = σ_w² · E[φ(√q z)²] + σ_b²  and  σ_w² · E[φ'(√q z)²] = 1,  z ~ N(0, 1)

    The second equation gives σ_w² for any q; inserted into the first, it leaves one equation in q.
    Of its solutions, the stable one is taken: the variance in a network converges to it and moves
    away from the others.

    Source: Poole et al. 2016 (the length map); Schoenholz et al. 2017, equation 5.

    Raises
    ------
    ValueError
        If there is no such point.

    Examples
    --------
    >>> from minidl.nn.criticality import critical_point
    >>> q, factor = critical_point("tanh", bias_variance=0.05)
    >>> f"{q:.2f} {factor:.2f}"
    '0.57 1.76'
    """
    moments = np.array([mean_squares(activation, variance) for variance in _VARIANCES])
    squares, slopes = moments.T
    excess = _VARIANCES - squares / slopes - bias_variance
    # Is zero a fixed point? It must map to zero, and no variance may grow.
    if abs(excess[0]) < 1e-3 * _VARIANCES[0]:
        factor = 1 / _slope_at_zero(activation)
        if (factor * squares <= _VARIANCES * (1 + 1e-9)).all():
            return 0.0, float(factor)
    for index in np.flatnonzero(np.sign(excess[1:]) != np.sign(excess[:-1])):
        low, high = _VARIANCES[index], _VARIANCES[index + 1]
        q = _bisected(activation, bias_variance, low, high)
        factor = 1 / mean_squares(activation, q)[1]
        below, above = (
            factor * mean_squares(activation, near)[0] + bias_variance - near
            for near in (q / 1.01, q * 1.01)
        )
        if below > 0 > above:
            return q, float(factor)
    raise ValueError(
        f"critical: with biases of variance {bias_variance:g}, {_shown(activation)} has no "
        "variance that stays and at which gradients keep their size. Give bias_variance (and draw "
        "the biases so), or the variance after a normalization: variance=1.0"
    )


def _slope_at_zero(activation: Any) -> float:
    """Return the limit of E[φ'(√q z)²] for q → 0.

    Its error falls like √q if the slope of φ has a kink, as ELU's has, else like q. Richardson
    extrapolation removes both. Source: Richardson 1911.
    """
    first, second, third = (
        mean_squares(activation, _VARIANCES[0] / 4**halvings)[1] for halvings in range(3)
    )
    first, second = 2 * second - first, 2 * third - second
    return (4 * second - first) / 3


def _bisected(activation: Any, bias_variance: float, low: float, high: float) -> float:
    """Return the variance between these two at which both equations hold, by bisection."""
    sign = _excess(activation, bias_variance, low) > 0
    for _ in range(50):
        middle = float(np.sqrt(low * high))
        if (_excess(activation, bias_variance, middle) > 0) == sign:
            low = middle
        else:
            high = middle
    return float(np.sqrt(low * high))


def _excess(activation: Any, bias_variance: float, variance: float) -> float:
    """Return what a variance exceeds its image by, for the σ_w² that makes χ = 1."""
    square, slope = mean_squares(activation, variance)
    return variance - square / slope - bias_variance


def mean_squares(activation: Any, variance: float, owner: str = "critical") -> tuple[float, float]:
    """Return E[φ(x)²] and E[φ'(x)²] for x ~ N(0, variance), by the midpoint rule.

    ``owner`` is the function that messages name.

    Raises
    ------
    TypeError
        For what is no layer, no name and no function of an array.
    ValueError
        If the activation is not known, or no function of one number; if E[φ'(x)²] is zero or not
        finite.
    """
    x = np.sqrt(variance) * _NODES
    function = _as_activation(owner, activation)
    values, slopes = _values_and_slopes(owner, function, x, 1e-5 * np.sqrt(variance))
    # Not by a product of vectors: a threaded BLAS makes one of this size slow on a busy machine.
    square, slope = (float((_WEIGHTS * y**2).sum()) for y in (values, slopes))
    if not (0 < slope < np.inf and square < np.inf):
        raise ValueError(f"{owner}: the derivative of {_shown(activation)} is zero or not finite")
    return square, slope


def _by_name(owner: str, name: str) -> Layer:
    """Return the activation of this class name, such as "leaky_relu"; "linear" is the identity."""
    known: dict[str, type[Layer]] = {"linear": Identity}
    for kind in Layer.registry:
        optional = (p.default is not p.empty for p in inspect.signature(kind).parameters.values())
        if all(optional) and kind().preferred_init not in (None, "skip"):
            known[kind.__name__.lower()] = kind
    plain = name.lower().replace("_", "")
    if plain not in known:
        usable = [k for k in sorted(known) if _acts_on_each_number(known[k]().astype(np.float64))]
        raise ValueError(f"{owner}: no activation is called {name!r}; known: {', '.join(usable)}")
    return known[plain]()


def _as_activation(owner: str, activation: Any) -> Any:
    """Return a layer, in float64, or a function; raise for what is no function of one number."""
    if isinstance(activation, str):
        activation = _by_name(owner, activation)
    if isinstance(activation, type) or not callable(activation):
        got = f"the class {activation.__name__}" if isinstance(activation, type) else activation
        raise TypeError(f"{owner}: expected a layer, a name or a function, got {got!s:.60}")
    if not isinstance(activation, Layer):
        return activation
    layer = copy.deepcopy(activation).astype(np.float64)
    if not _acts_on_each_number(layer):
        raise ValueError(
            f"{owner}: expected an activation, whose outputs depend on one input each, got "
            f"{_shown(layer)}"
        )
    return layer


def _acts_on_each_number(layer: Layer) -> bool:
    """Return whether the numbers of a row and of a column have the same outputs."""
    row = np.linspace(-2, 2, 64)[None]
    try:
        outputs = layer(row), layer(row.T).T
    except (TypeError, ValueError):  # of a layer of so many features, or for indices
        return False
    return all(y.shape == row.shape for y in outputs) and np.allclose(*outputs)


def _values_and_slopes(owner: str, function: Any, x: Array, step: float) -> tuple[Array, Array]:
    """Return an activation and its derivative at these points."""
    if isinstance(function, Layer):
        y = function(x[:, None])
        return y[:, 0], function.backward(np.ones_like(y))[:, 0]
    try:
        values, right, left = (np.asarray(function(z)) for z in (x, x + step, x - step))
    except TypeError as error:
        raise TypeError(f"{owner}: {function!r} is no function of an array: {error}") from None
    if values.shape != x.shape or values.dtype.kind not in "buif":
        raise ValueError(
            f"{owner}: {function!r} must return a real number for each of {x.size}, got "
            f"{values.dtype} of shape {values.shape}"
        )
    return values, (right - left) / (2 * step)


def _shown(activation: Any) -> str:
    """Return an activation in one line."""
    return activation.short_name() if isinstance(activation, Layer) else repr(activation)
