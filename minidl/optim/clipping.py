"""Gradient clipping: the remedy for gradients that explode."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from minidl import kernels
from minidl.nn.checks import POSITIVE, check_number
from minidl.nn.parameter import Parameter
from minidl.typing import Array


def clip_by_norm(parameters: Iterable[Parameter], max_norm: float) -> float:
    """Scale all gradients by one factor so that their global norm is at most ``max_norm``.

    g ← g · max_norm / ‖g‖ where ‖g‖ > max_norm; ‖g‖² is the sum of squares over all parameters.
    The direction of the gradient stays. Source: Pascanu et al. 2013, algorithm 1.

    A step that calls this function cannot be recorded, because Python compares the norm; the
    argument ``max_norm`` of an optimizer does the same in a kernel, and can.

    Parameters
    ----------
    parameters
        Parameters, with gradients.
    max_norm
        The largest norm that is allowed, > 0.

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
        # In two factors: for a norm of 1e38 · max_norm, a single float32 factor would be subnormal
        # and have few digits left.
        root = float(np.sqrt(max_norm) / np.sqrt(norm))
        factors = (root, root) if root < 1e-15 else (max_norm / norm,)
        for gradient in gradients:
            for factor in factors:
                kernels.scale(gradient, factor)
    return norm


def _norm(gradients: list[Array]) -> float:
    """Return the norm of all gradients, also if its square is beyond float64."""
    square = sum(float(kernels.squared_norm(gradient)) for gradient in gradients)
    if 1e-280 < square < np.inf or np.isnan(square):
        return float(np.sqrt(square))
    largest = max((float(np.abs(gradient).max(initial=0)) for gradient in gradients), default=0.0)
    if not 0 < largest < np.inf:
        return largest
    return largest * float(np.sqrt(sum(float(np.square(g / largest).sum()) for g in gradients)))


def clip_by_value(parameters: Iterable[Parameter], max_value: float) -> None:
    """Clip every element of a gradient: g ← min(max(g, -max_value), max_value).

    Unlike ``clip_by_norm``, this changes the direction of the gradient, and can be recorded. The
    argument ``max_value`` of an optimizer does the same as part of the update.

    Parameters
    ----------
    parameters
        Parameters, with gradients.
    max_value
        The largest absolute value that is allowed, > 0.

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
