"""Finds the layer in which a number stopped being finite.

A training step checks two numbers only, the loss and the norm of the gradient, at hardly any
cost. When one of them is NaN or infinite, the step is repeated, and all that every layer returns
is checked.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.nn import Layer, Loss, MultiLoss
from minidl.nn.nonfinite import first_bad_of, is_finite
from minidl.nn.recurrent.sequence import Recurrent
from minidl.nn.watching import watching
from minidl.optim import Optimizer
from minidl.recording.pytree import tree_leaves
from minidl.training.data import Data

LARGE = 1e3  # features and targets beyond it had better be scaled


def first_not_finite(model: Layer, loss: Loss, batch: Data) -> str:
    """Say in which layer the first number that is not finite appears, or return "".

    Runs the forward and then the backward pass; the caller restores the state that these change.
    """
    found: list[str] = []
    layers = [layer for _, layer in model.layers()]

    def watch_output(layer: Layer, output: Any) -> None:
        if not found and not is_finite(output):
            found.append(f"the first output that is not finite is that of {layer.label}")

    def watch_gradient(layer: Layer, gradient: Any) -> None:
        own = [parameter.grad for parameter in layer.parameters()]
        if not found and not is_finite((gradient, *own)):
            found.append(
                "the first gradient that is not finite, going backward, is that of "
                + layer.label
                + _in_time(layer)
            )

    with watching(layers, "forward", watch_output):
        prediction = model(*batch.inputs)
    value = loss(prediction, *batch.targets_and_weights)
    if not found and not np.isfinite(value):
        return f"every layer's output is finite, the loss {_not_finite(loss)} is not"
    if not found:
        model.zero_grad()
        with watching(layers, "backward", watch_gradient):
            model.backward(loss.backward())
    return found[0] if found else ""


def _not_finite(loss: Loss) -> str:
    """Name the loss, of several heads the first one whose latest value is not finite."""
    if isinstance(loss, MultiLoss):
        for name, value in loss.values.items():
            if not np.isfinite(value):
                return f"of head {name}, {loss.heads[name]!r},"
    return repr(loss)


def advice(model: Layer, optimizer: Optimizer, rows: Data) -> str:
    """Say what may help after a step that was not finite, as far as the numbers show it."""
    if found := first_bad_of(model):
        name, bad = found
        return f"Before it, {name} held {bad} already: set it, load the model, or reset() it."
    cures = []
    for name, arrays in ("X", rows.inputs), ("y", tuple(tree_leaves(rows.targets))):
        largest = max((float(np.abs(a).max()) for a in arrays if a.dtype.kind == "f"), default=0.0)
        if largest > LARGE:
            how = (
                "nn.Standardize in front of the model" if name == "X" else "dividing by a constant"
            )
            cures.append(
                f"{name} holds numbers as large as {largest:.3g}: {how} brings them near 1"
            )
    if optimizer.steps > 0:
        clip = "" if optimizer.max_norm is not None else ", or max_norm,"
        cures.append(f"a lower learning rate than {optimizer.lr:g}{clip} may help")
    elif not cures:
        cures.append(
            "no step was made before it, so the learning rate is not the cause: look at the layer "
            "named, and at the scale of the initial weights"
        )
    text = "; ".join(cures)
    return f"{text[0].upper()}{text[1:]}."


def _in_time(layer: Layer) -> str:
    """Say at which step of a sequence the gradient of the recurrent state stopped being finite."""
    if not isinstance(layer, Recurrent):
        return ""
    norms = layer.state_gradient_norms()
    bad = np.flatnonzero(~np.isfinite(norms))
    if not len(bad):
        return ""
    return f", whose state's at step {bad[-1]} of {len(norms)} (the first is 0)"
