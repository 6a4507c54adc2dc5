"""A check of gradients that are not minidl's own: is what a loss returns the slope of its value?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minidl.nn import Layer, Loss, Parameter
from minidl.training.data import Data
from minidl.typing import Array

# The loss is followed along its own gradient for a step that changes it by about this share.
SHARE = 1e-2
# How far the measured slope may be from that of the gradient: a kink of an absolute value,
# rounding.
TOLERANCE, TOLERANCE_OF_LAYERS = 0.2, 0.5
SAME = 1e-4  # relative difference of two values up to which rounding explains it


def is_own(part: object) -> bool:
    """Return whether a layer or a loss was written by the user."""
    return not type(part).__module__.startswith("minidl.")


def slope_of_loss(loss: Loss, output: Array, batch: Data) -> tuple[float, float] | None:
    """Return the slope of the loss along its gradient, as measured and as the gradient tells.

    Slope = (L(p + ε·u) - L(p - ε·u)) / 2ε for u = g / ‖g‖, which should be ‖g‖. None where the loss
    or its gradient is not finite, or zero.
    """
    others = batch.targets_and_weights
    with np.errstate(all="ignore"):
        value = float(loss(output, *others))
        gradient = loss.backward().astype(np.float64)
        norm = float(np.sqrt((gradient**2).sum()))
        if not np.isfinite(value) or not np.isfinite(norm):
            return None
        if norm == 0:
            return None
        size = float(np.sqrt(np.square(output, dtype=np.float64).mean())) + 1e-3
        direction = gradient / np.abs(gradient).max()
        slopes = []
        for share in (SHARE, SHARE / 10):
            step = direction * size * share
            up, down = (
                float(loss((output + sign * step).astype(output.dtype), *others))
                for sign in (1, -1)
            )
            loss.forget()
            slopes.append((up - down) / (2 * np.sqrt((step**2).sum())))
    slope = min(slopes, key=lambda s: abs(s - norm))
    return (float(slope), norm) if np.isfinite(slope) else None


def wrong_gradient(loss: Loss, model: Layer, batch: Data) -> tuple[float, float] | None:
    """Return (measured, told) slopes of a loss of the user's own if they differ, else None."""
    if not is_own(loss):
        return None
    with np.errstate(all="ignore"):
        output = model(*batch.inputs)
        model_forget(model)
    slopes = slope_of_loss(loss, output, batch)
    if slopes is None:
        return None
    measured, told = slopes
    return slopes if abs(measured - told) > TOLERANCE * max(abs(measured), told) else None


def overlooks_rows(loss: Loss, model: Layer, batch: Data) -> float | None:
    """Return the value of a loss of the user's own if it is the same whosever the targets are.

    A mean that is taken before the square, say, compares the mean of all predictions with that of
    all targets. The targets of a batch are given to other rows, three times: if the loss does not
    change, it does not tell which target belongs to which row. None if it does.
    """
    if not is_own(loss) or (batch.targets == batch.targets[:1]).all() or batch.weights is not None:
        return None
    rng = np.random.default_rng(0)
    with np.errstate(all="ignore"):
        output = model(*batch.inputs)
        model_forget(model)
        value = float(loss(output, batch.targets))
        others = [float(loss(output, rng.permutation(batch.targets))) for _ in range(3)]
        loss.forget()
    same = np.isfinite(value) and np.allclose(others, value, rtol=SAME, atol=0)
    return value if same and np.ptp(output, axis=0).max() > 0 else None


def model_forget(model: Layer) -> None:
    """Drop what the layers keep for a backward pass that does not come."""
    for _, layer in model.layers():
        layer.forget()


def wrong_layer(model: Layer, loss: Loss, batch: Data) -> tuple[str, float, float] | None:
    """Return path, measured and told slope of the first layer whose gradients are wrong.

    Only asked of models with layers of the user's own. The loss is followed along the gradient of
    one parameter at a time; where that is zero, along a direction drawn at random.
    """
    if not any(is_own(layer) for _, layer in model.layers()):
        return None
    arrays = list(model.state().values())
    before = [array.copy() for array in arrays]

    def value() -> float:
        for array, old in zip(arrays, before, strict=True):  # dropout drops the same units
            array[...] = old
        return float(loss(model(*batch.inputs), *batch.targets_and_weights))

    with np.errstate(all="ignore"):
        first = value()
        model.zero_grad()
        model.backward(loss.backward())
        gradients = [
            (path, parameter, parameter.grad.astype(np.float64))
            for path, layer in model.layers()
            for parameter in layer.own_parameters()
        ]
        for path, parameter, gradient in gradients:
            told = float(np.sqrt((gradient**2).sum()))
            direction = gradient if told else np.random.default_rng(0).normal(size=gradient.shape)
            slope = measured_slope(value, parameter, direction / np.abs(direction).max(), told)
            limit = TOLERANCE_OF_LAYERS * max(abs(slope), told, SHARE * abs(first))
            if np.isfinite(slope) and np.isfinite(told) and abs(slope - told) > limit:
                return path, slope, told
    return None


def measured_slope(
    value: Callable[[], float], parameter: Parameter, direction: Array, expected: float
) -> float:
    """Return the slope of a loss along a direction of a parameter, by central differences.

    Of two lengths of the step, the one that comes closer to what is expected: the longer one may
    cross the kink of a rectifier, the shorter one suffers more from rounding.
    """
    old = parameter.data.copy()
    size = float(np.sqrt(np.square(old, dtype=np.float64).mean())) + 1e-3
    slopes = []
    for share in (SHARE, SHARE / 10):
        step = direction * size * share
        values = []
        for sign in (1, -1):
            parameter.data = old + sign * step
            values.append(value())
        slopes.append((values[0] - values[1]) / (2 * float(np.sqrt((step**2).sum()))))
    parameter.data = old
    return min(slopes, key=lambda slope: abs(slope - expected))
