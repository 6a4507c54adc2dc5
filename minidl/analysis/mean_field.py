"""The mean squares by which an activation multiplies those of signals and of gradients."""

from __future__ import annotations

from typing import Any

from minidl.nn.checks import POSITIVE, check_number
from minidl.nn.criticality import mean_squares as _mean_squares


def mean_squares(activation: Any, variance: float = 1.0) -> tuple[float, float]:
    """Compute the mean squares of an activation and of its derivative under a Gaussian.

    E[φ(z)²]  and  κ = E[φ'(z)²],  z ~ N(0, variance)

    A layer of n inputs and independent weights of variance σ² multiplies the mean square of the
    signal by n · σ² · E[φ²] / variance, that of the gradient by n · σ² · κ. Both are computed by
    the midpoint rule on 20,000 points.

    Parameters and errors are those of ``kappa``.

    Source: Poole et al. 2016; Schoenholz et al. 2017, equation 5.

    Examples
    --------
    >>> from minidl import analysis
    >>> square, slope = analysis.mean_squares("relu")
    >>> f"{square:.3f} {slope:.3f}"
    '0.500 0.500'
    """
    variance = check_number("kappa", "variance", variance, POSITIVE, 1e300)
    return _mean_squares(activation, variance, "kappa")


def kappa(activation: Any, variance: float = 1.0) -> float:
    """Compute the mean square of the derivative of an activation under a Gaussian.

    κ = E[φ'(z)²],  z ~ N(0, variance)

    The activation multiplies the mean square of a gradient by κ. A gradient keeps its size in depth
    where n · σ² · κ = 1: that is ``xavier_normal`` for κ = 1, which tanh has only near zero, and
    ``he_normal`` for ReLU, whose κ is 1/2 at any variance.

    Parameters
    ----------
    activation
        A layer such as ``nn.Tanh()``, its name ("tanh"), or a function of an array.
    variance
        That of the activation's input, > 0.

    Raises
    ------
    TypeError
        For what is no activation, such as a class instead of a layer.
    ValueError
        If no activation has this name; for a layer whose outputs depend on several inputs; if the
        derivative is zero everywhere or not finite; and for a variance out of range.

    Source: Glorot and Bengio 2010; He et al. 2015, equation 14.

    Examples
    --------
    >>> from minidl import analysis
    >>> [f"{analysis.kappa('tanh', variance):.3f}" for variance in (0.01, 1.0, 100.0)]
    ['0.981', '0.464', '0.053']
    """
    return mean_squares(activation, variance)[1]
