"""Gradient clipping: the remedy for gradients that explode."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from minidl import kernels
from minidl.nn.checks import POSITIVE, check_number
from minidl.nn.parameter import Parameter
from minidl.typing import Array


def clip_by_norm(parameters: Iterable[Parameter], max_norm: float) -> float:
    """Scale all gradients together so that their global norm is at most ``max_norm``.

    g ← g · max_norm / ‖g‖ where ‖g‖ > max_norm, ‖g‖² the sum of squares over all parameters.
    The direction stays. Source: Pascanu et al. 2013, algorithm 1.

    Parameters
    ----------
    parameters
        Parameters, with gradients.
    max_norm
        The largest norm allowed, > 0.

    Returns
    -------
    float
        The norm before clipping.

    Raises
    ------
    FloatingPointError
        If the norm is not finite; nothing is changed then.

    Examples
    --------
    >>> from minidl import nn, optim
    >>> layer = nn.Linear(2, 1, bias=False)
    >>> layer.weight.grad[:, 0] = 3, 4
    >>> optim.clip_by_norm(layer.parameters(), max_norm=1.0)
    5.0
    >>> layer.weight.grad[:, 0]
    array([0.6, 0.8], dtype=float32)
    """
    max_norm = check_number("clip_by_norm", "max_norm", max_norm, POSITIVE, np.inf)
    gradients = [parameter.grad for parameter in parameters]
    norm = _norm(gradients)
    if not np.isfinite(norm):
        raise FloatingPointError(f"clip_by_norm: the gradient norm is {norm}; nothing was changed")
    if norm > max_norm:
        # In two factors: for a norm 1e38 times max_norm one of float32 would have few digits left.
        root = float(np.sqrt(max_norm) / np.sqrt(norm))
        factors = (root, root) if root < 1e-15 else (max_norm / norm,)
        for gradient in gradients:
            for factor in factors:
                kernels.scale(gradient, factor)
    return norm


def _norm(gradients: list[Array]) -> float:
    """The norm of all together, also where float64 does not hold its square."""
    square = sum(float(kernels.squared_norm(gradient)) for gradient in gradients)
    if 1e-280 < square < np.inf or np.isnan(square):
        return float(np.sqrt(square))
    largest = max((float(np.abs(gradient).max(initial=0)) for gradient in gradients), default=0.0)
    if not 0 < largest < np.inf:
        return largest
    return largest * float(np.sqrt(sum(float(np.square(g / largest).sum()) for g in gradients)))


def clip_by_value(parameters: Iterable[Parameter], max_value: float) -> None:
    """Cut every gradient off at ``max_value``: g ← min(max(g, -max_value), max_value).

    The direction changes, unlike with ``clip_by_norm``. It can be recorded; an optimizer does the
    same, in the pass of its update, when it is given ``max_value``.

    Parameters
    ----------
    parameters
        Parameters, with gradients.
    max_value
        The largest gradient allowed, > 0.

    Raises
    ------
    ValueError
        If ``max_value`` is not positive.

    Examples
    --------
    >>> from minidl import nn, optim
    >>> layer = nn.Linear(2, 1, bias=False)
    >>> layer.weight.grad[:, 0] = 3, -4
    >>> optim.clip_by_value(layer.parameters(), max_value=3.5)
    >>> layer.weight.grad[:, 0]
    array([ 3. , -3.5], dtype=float32)
    """
    max_value = check_number("clip_by_value", "max_value", max_value, POSITIVE, np.inf)
    for parameter in parameters:
        kernels.clamp(parameter.grad, max_value)
