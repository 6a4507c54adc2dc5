"""Second derivatives of the loss, from differences of gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.analysis.arguments import as_vector
from minidl.analysis.objective import Objective
from minidl.nn import Layer, Loss
from minidl.nn.checks import POSITIVE, check_count, check_number
from minidl.seeds import as_generator
from minidl.typing import Array, Seed

STEP = np.finfo(np.float64).eps ** (1 / 3)  # where truncation and rounding are equally small


def hessian_vector_product(model: Layer, loss: Loss, x: Any, y: Any, vector: Any) -> Array:
    """Multiply the Hessian of the loss by a vector, without forming the Hessian.

    H · v ≈ (∇L(w + ε v) - ∇L(w - ε v)) / 2ε

    Gradients are computed in float64, so that about nine digits hold, unless a kink of the loss
    lies between the two points.

    Parameters
    ----------
    model, loss
        Both are copied. Layers keep their modes: in training mode, dropout is part of L.
    x, y
        The rows for which L is the loss; a tuple x is several inputs, a tuple y targets and
        weights of the rows.
    vector
        v: one number for every parameter that is not frozen, in the order of
        ``model.parameters()``.

    Shapes
    ------
    vector and result (parameters,), float64.

    Raises
    ------
    ValueError
        For a vector of another length, for numbers that are not finite, and for unequal numbers
        of rows.

    Source: Pearlmutter 1994, equation 1.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import analysis, nn
    >>> model = nn.Linear(2, 1, bias=False)
    >>> x, y = np.array([[3.0, 0.0], [0.0, 1.0]]), np.zeros((2, 1))
    >>> product = analysis.hessian_vector_product(model, nn.MSELoss(), x, y, [1, 1])
    >>> product.round(6)  # H = 2 Xᵀ X / n, with 9 and 1 on its diagonal
    array([9., 1.])
    """
    objective = Objective(model, loss, x, y)
    v = as_vector("hessian_vector_product: the vector", vector)
    if v.shape != objective.start.shape:
        raise ValueError(
            f"hessian_vector_product: the vector must have a number for each of the "
            f"{objective.start.size} parameters, got shape {v.shape}"
        )
    return times_hessian(objective, v)


def times_hessian(objective: Objective, v: Array) -> Array:
    """Multiply the Hessian of an objective, at its start, by a vector.

    Raises
    ------
    ValueError
        If the gradient is not finite there.
    """
    w, length = objective.start, float(np.linalg.norm(v))
    if length == 0:
        return np.zeros_like(v)
    step = STEP * max(1.0, float(np.linalg.norm(w))) / length
    ahead, behind = objective.gradient(w + step * v), objective.gradient(w - step * v)
    product = (ahead - behind) / (2 * step)
    if not np.isfinite(product).all():
        raise ValueError("the gradient of the loss is not finite at the weights of the model")
    return product


def largest_curvature(
    model: Layer,
    loss: Loss,
    x: Any,
    y: Any,
    *,
    steps: int = 100,
    tolerance: float = 1e-3,
    rng: Seed = 0,
) -> float:
    """Compute the largest eigenvalue of the Hessian, the curvature in the sharpest direction.

    λ_max = max_v  vᵀ H v / vᵀ v

    By power iteration: v ← H v / ‖H v‖, two gradients a step. Gradient descent at a rate beyond
    2 / λ_max runs away from a minimum, since its error along v is multiplied by 1 - η · λ_max.

    Parameters
    ----------
    model, loss, x, y
        As for ``hessian_vector_product``.
    steps
        The most products H · v, and as many again if the eigenvalue of the largest modulus is
        negative. If they are used up, the result is a lower bound.
    tolerance
        Stop when ‖H v - λ v‖ ≤ tolerance · |λ|. The error of λ is then at most that, and as a rule
        of the order of its square.
    rng
        Generator or seed of the first v.

    Raises
    ------
    ValueError
        For settings out of range, and if the gradient is not finite.

    Source: von Mises and Pollaczek-Geiringer 1929; LeCun, Simard and Pearlmutter 1993.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import analysis, nn
    >>> model = nn.Linear(2, 1, bias=False)
    >>> x, y = np.array([[3.0, 0.0], [0.0, 1.0]]), np.zeros((2, 1))
    >>> f"{analysis.largest_curvature(model, nn.MSELoss(), x, y):.4f}"
    '9.0000'
    """
    value, _ = sharpest_direction(model, loss, x, y, steps=steps, tolerance=tolerance, rng=rng)
    return value


def sharpest_direction(
    model: Layer,
    loss: Loss,
    x: Any,
    y: Any,
    *,
    steps: int = 100,
    tolerance: float = 1e-3,
    rng: Seed = 0,
) -> tuple[float, Array]:
    """Compute the largest eigenvalue of the Hessian and its eigenvector.

    H v = λ_max v,  ‖v‖ = 1

    Parameters and errors are those of ``largest_curvature``.

    Shapes
    ------
    v (parameters,), float64, in the order of ``model.parameters()``.

    Source: von Mises and Pollaczek-Geiringer 1929.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import analysis, nn
    >>> model = nn.Linear(2, 1, bias=False)
    >>> x, y = np.array([[3.0, 0.0], [0.0, 1.0]]), np.zeros((2, 1))
    >>> value, direction = analysis.sharpest_direction(model, nn.MSELoss(), x, y)
    >>> abs(direction).round(2)
    array([1., 0.])
    """
    steps = check_count("curvature", "steps", steps)
    tolerance = check_number("curvature", "tolerance", tolerance, POSITIVE, 1.0)
    objective, rng = Objective(model, loss, x, y), as_generator(rng)
    value, v = _dominant(objective, 0.0, steps, tolerance, rng)
    if value < 0:
        # The eigenvalue of the largest modulus is a negative one, λ₋. All those of H - λ₋ I
        # are ≥ 0, so the dominant one is now at the other end.
        value, v = _dominant(objective, value, steps, tolerance, rng)
    return value, v


def _dominant(
    objective: Objective, shift: float, steps: int, tolerance: float, rng: np.random.Generator
) -> tuple[float, Array]:
    """Find the eigenvalue farthest from ``shift``, and its vector, by power iteration."""
    ahead = rng.normal(size=objective.start.shape)
    for _ in range(steps):
        v = ahead / np.linalg.norm(ahead)
        product = times_hessian(objective, v)
        value = float(v @ product)
        ahead = product - shift * v
        settled = np.linalg.norm(product - value * v) <= tolerance * abs(value)
        if settled or not ahead.any():
            break
    return value, v
