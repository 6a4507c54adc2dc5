"""Check every gradient against finite differences."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from minidl.nn.layer import Layer
from minidl.nn.losses import Loss
from minidl.recording.pytree import tree_leaves, tree_map
from minidl.typing import Array


class GradcheckError(AssertionError):
    """A gradient that differs from its finite difference."""


@dataclass
class GradcheckReport:
    """The result of a gradient check.

    Attributes
    ----------
    name
        The layer or loss.
    worst
        Largest relative error over all elements that were compared.
    checked, kinks
        Numbers of elements compared, and of elements at a kink of the function, where no
        derivative exists and the gradient only has to lie between the two one-sided ones.
    tensors
        Largest relative error by tensor.
    message
        What failed first; empty if nothing did.
    """

    name: str
    worst: float = 0.0
    checked: int = 0
    kinks: int = 0
    tensors: dict[str, float] = field(default_factory=dict)
    message: str = ""

    @property
    def ok(self) -> bool:
        """Whether every gradient passed."""
        return not self.message

    def __str__(self) -> str:
        kinks = f", {self.kinks} at kinks" if self.kinks else ""
        outcome = "ok" if self.ok else "FAILED"
        return f"{self.name}: {outcome}, worst error {self.worst:.1e} of {self.checked}{kinks}"


def gradcheck(
    layer_or_loss: Layer | Loss,
    *inputs: Any,
    eps: float = 1e-5,
    rtol: float = 1e-6,
    atol: float = 1e-9,
    raise_error: bool = True,
) -> GradcheckReport:
    """Compare ``backward`` with central differences, for the inputs and all parameters.

    dL/dx_i ≈ (L(x_i + ε) - L(x_i - ε)) / 2ε in float64, where L is the loss itself (the sum of the
    losses for ``reduction="none"``), or for a layer the sum of its outputs times fixed random
    weights. The error of a gradient a
    against the difference n is |a - n| / max(|a|, |n|, atol / rtol): relative, except for
    gradients so small that the rounding of L hides them.

    The check works on a float64 copy: the layer and its gradients stay as they are. State that
    a forward pass changes (running statistics, dropout masks) is restored before each pass.
    Gradients of parameters start at one, so that a backward pass that overwrites them fails.
    Parameters and state that are exactly 0, 1 or -1 are moved a little first: there, a gradient
    without a factor of one or a term of zero would seem right.
    Where a difference does not agree, it is taken again with smaller steps. Where the one-sided
    differences disagree at every step size, the function has a kink, and the gradient must lie
    between them.

    Parameters
    ----------
    layer_or_loss
        A layer in the mode (train or eval) to be checked, or a loss.
    *inputs
        The layer's inputs; for a loss, prediction and target, for a ``MultiLoss`` in tuples.
        Integer inputs, such as labels, indices and lengths, are not differentiated, nor is a
        target.
    eps, rtol, atol
        Step, allowed relative error, and absolute difference that is always allowed.
    raise_error
        If False, a failure appears only in the report.

    Returns
    -------
    GradcheckReport

    Raises
    ------
    GradcheckError
        Naming layer, tensor, index and both values of the first failure.

    Examples
    --------
    >>> import numpy as np
    >>> import minidl
    >>> report = minidl.gradcheck(minidl.nn.Linear(3, 2, rng=0), np.ones((4, 3)))
    >>> report.ok, report.checked
    (True, 20)
    """
    if not (0 < eps < 1 and rtol > 0 and atol > 0):
        raise ValueError(f"gradcheck: eps in (0, 1), rtol > 0, atol > 0; got {eps}, {rtol}, {atol}")
    subject = copy.deepcopy(layer_or_loss)
    arrays = [tree_map(x, _as_float64) if isinstance(x, tuple) else _as_float64(x) for x in inputs]
    if isinstance(subject, Layer):
        function, tensors = _layer_problem(subject.astype(np.float64), arrays)
    else:
        function, tensors = _loss_problem(subject, arrays)
    report = GradcheckReport(_name_of(layer_or_loss))
    for name, (values, gradient) in tensors.items():
        _check_tensor(report, name, function, values, gradient, eps, rtol, atol)
    if raise_error and not report.ok:
        raise GradcheckError(report.message)
    return report


def gradcheck_all(names: list[str] | None = None) -> Iterator[GradcheckReport]:
    """Check the examples of every registered layer and loss (or of those named).

    Raises
    ------
    ValueError
        For a name that is not registered.
    """
    classes: dict[str, Any] = {c.__name__: c for c in [*Layer.registry, *Loss.registry]}
    unknown = [name for name in names or [] if name not in classes]
    if unknown:
        raise ValueError(f"no layer or loss {', '.join(unknown)}; there are {', '.join(classes)}")
    for name in names or classes:
        for seed, (subject, *rest) in enumerate(classes[name].examples()):
            rng = np.random.default_rng(seed)
            inputs = rest
            if isinstance(subject, Layer):  # of integer inputs, not the shapes but themselves
                inputs = [rng.normal(size=x) if isinstance(x, tuple) else x for x in rest[0]]
            yield gradcheck(subject, *inputs, raise_error=False)


Tensors = dict[str, tuple[Array, Array]]  # name: (values, gradient by backward)


def _layer_problem(layer: Layer, inputs: list[Array]) -> tuple[Callable[[], float], Tensors]:
    """Return Σ outputs · weights as a function, and the arrays it depends on with gradients."""
    _disturb([p.data for p in layer.parameters()] + list(layer.state().values()))
    state = {name: array.copy() for name, array in layer.state().items()}

    def forward() -> list[Array]:
        for name, array in layer.state().items():
            array[...] = state[name]
        outputs = layer(*inputs)
        return list(outputs) if isinstance(outputs, tuple) else [outputs]

    rng = np.random.default_rng(0)
    outputs = forward()
    weights = [rng.normal(size=output.shape) for output in outputs]
    for parameter in layer.parameters():
        parameter.grad[...] = 1  # backward must add to it
    gradients = layer.backward(*[np.array(weight) for weight in weights])
    tensors = {
        f"input {i}" if len(inputs) > 1 else "input": (inputs[i], np.array(gradient))
        for i, gradient in _by_input(_name_of(layer), inputs, gradients)
    }
    for name, parameter in layer.named_parameters():
        tensors[name] = parameter.data, parameter.grad - 1

    def function() -> float:
        return float(sum((w * y).sum() for w, y in zip(weights, forward(), strict=True)))

    return function, tensors


def _disturb(arrays: list[Array]) -> None:
    """Move numbers that are exactly 0, 1 or -1 a little: there, wrong gradients may seem right."""
    rng = np.random.default_rng(1)
    for array in arrays:
        if array.dtype == np.float64:
            moved = array + rng.choice([-1.0, 1.0], array.shape) * rng.uniform(
                0.1, 0.3, array.shape
            )
            array[...] = np.where(np.isin(array, (0.0, 1.0, -1.0)), moved, array)


def _by_input(name: str, inputs: list[Array], gradients: Any) -> list[tuple[int, Array]]:
    """Return (number of an input, its gradient) for the inputs that are differentiated.

    A backward pass returns a gradient for each of these, or a value for every input.
    """
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    if any(gradient is None for gradient in gradients) and len(gradients) != len(inputs):
        gradients = tuple(gradient for gradient in gradients if gradient is not None)
    real = [i for i, x in enumerate(inputs) if x.dtype == np.float64]
    if not real or len(gradients) == len(inputs):
        return [(i, gradients[i]) for i in real]
    if len(gradients) != len(real):
        raise GradcheckError(
            f"{name}: backward returns {len(gradients)} gradients, one for each of the "
            f"{len(real)} inputs that are no integers was expected"
        )
    return list(zip(real, gradients, strict=True))


def _loss_problem(loss: Loss, inputs: list[Any]) -> tuple[Callable[[], float], Tensors]:
    """Return the loss, or the sum of losses without reduction, as a function of the prediction,
    and the prediction with its gradient; of several predictions, each with its own.
    """
    loss(*inputs)
    pairs = zip(tree_leaves(inputs[0]), tree_leaves(loss.backward()), strict=True)
    several = isinstance(inputs[0], tuple)
    tensors = {f"prediction {n}" if several else "prediction": p for n, p in enumerate(pairs)}
    return lambda: float(np.sum(loss(*inputs))), tensors


def _check_tensor(
    report: GradcheckReport,
    name: str,
    function: Callable[[], float],
    values: Array,
    gradient: Array,
    eps: float,
    rtol: float,
    atol: float,
) -> None:
    """Compare one gradient, element by element, and enter the result in the report."""
    report.tensors[name] = 0.0
    if gradient.shape != values.shape:
        message = f"{report.name}, {name}: gradient {gradient.shape}, values {values.shape}"
        report.message = report.message or message
        return
    for index in np.ndindex(values.shape):
        analytic = float(gradient[index])
        error, numeric, kink = _best_error(function, values, index, analytic, eps, rtol, atol)
        report.kinks += kink
        report.checked += not kink
        report.tensors[name] = max(report.tensors[name], error)
        report.worst = max(report.worst, error)
        if not error <= rtol and report.ok:
            report.message = (
                f"{report.name}, gradient of {name} at {list(index)}: backward gives "
                f"{analytic:.9g}, finite differences {numeric:.9g} (relative error {error:.1e})"
            )
            # The gradient of a parameter began at one, which was subtracted again.
            if abs(analytic + 1 - numeric) <= rtol * max(abs(numeric), 1) and name != "input":
                report.message += (
                    "; that is one too little: backward replaces the gradient, write "
                    "parameter.grad += ..., which adds to it"
                )


def _best_error(
    function: Callable[[], float],
    values: Array,
    index: tuple[int, ...],
    analytic: float,
    eps: float,
    rtol: float,
    atol: float,
) -> tuple[float, float, bool]:
    """Return (relative error, numeric derivative, whether at a kink), best of three steps."""
    best = (np.inf, np.nan, False)
    slopes = []
    for step in (eps, eps / 8, eps / 64):
        left, right = _one_sided(function, values, index, step)
        slopes.append((left, right))
        numeric = (left + right) / 2
        error = abs(analytic - numeric) / max(abs(analytic), abs(numeric), atol / rtol)
        if not np.isfinite(error):
            error = np.inf
        if error < best[0] or np.isnan(best[1]):
            best = (error, numeric, False)
        if error <= rtol:
            return best
    # With smaller steps, the one-sided slopes of a smooth function approach each other, until
    # rounding errors separate them. Only at a kink their distance stays the same.
    gaps = [abs(right - left) for left, right in slopes]
    stays = any(0.5 * wide < gap < 2 * wide for wide, gap in pairwise(gaps))
    left, right = slopes[-1]
    if stays and max(gaps) > 1e-4 * max(abs(left), abs(right)):
        slack = rtol * max(abs(left), abs(right)) + atol
        if min(left, right) - slack <= analytic <= max(left, right) + slack:
            return 0.0, analytic, True
    return best


def _one_sided(
    function: Callable[[], float], values: Array, index: tuple[int, ...], step: float
) -> tuple[float, float]:
    """Return the slopes to the left and to the right of the current value, which is restored."""
    centre = values[index]
    middle = function()
    values[index] = centre + step
    right = (function() - middle) / step
    values[index] = centre - step
    left = (middle - function()) / step
    values[index] = centre
    return left, right


def _as_float64(x: Any) -> Array:
    """Return a float64 copy to differentiate; integers (labels) keep their dtype."""
    array = np.array(x)
    return array if array.dtype.kind in "iu" else array.astype(np.float64)


def _name_of(subject: Layer | Loss) -> str:
    text = repr(subject)
    return type(subject).__name__ if "\n" in text else text
