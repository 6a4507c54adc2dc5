"""Where a number stopped being finite.

A training step looks at two numbers only, the loss and the norm of the gradient: that costs
next to nothing. When one of them is NaN or infinite, the step is gone through once more with
a look at everything that every layer returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from minidl.nn import Layer, Loss
from minidl.nn.sequences import Recurrent
from minidl.training.preparing import Data

Watcher = Callable[[Layer, Any], None]


def first_not_finite(model: Layer, loss: Loss, batch: Data) -> str:
    """In which layer the first number that is not finite appears, forward then backward; or "".

    Runs the forward and the backward pass; the caller restores the state they change.
    """
    found: list[str] = []

    def watch_output(layer: Layer, output: Any) -> None:
        if not found and not _finite(output):
            found.append(f"the first output that is not finite is that of {layer.label}")

    def watch_gradient(layer: Layer, gradient: Any) -> None:
        own = [parameter.grad for parameter in layer.parameters()]
        if not found and not _finite((gradient, *own)):
            found.append(
                "the first gradient that is not finite, going backward, is that of "
                + layer.label
                + _in_time(layer)
            )

    with watching(model, "forward", watch_output):
        prediction = model(*batch.inputs)
    value = loss(prediction, *batch.arrays[len(batch.inputs) :])
    if not found and not np.isfinite(value):
        return f"every layer's output is finite, the loss {loss!r} is not"
    if not found:
        model.zero_grad()
        with watching(model, "backward", watch_gradient):
            model.backward(loss.backward())
    return found[0] if found else ""


@contextmanager
def watching(model: Layer, name: str, watcher: Watcher) -> Iterator[None]:
    """Show ``watcher`` what the method ``name`` of every layer returns, innermost first."""
    layers = [layer for _, layer in model.layers()]

    def watched(layer: Layer, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*inputs: Any, **options: Any) -> Any:
            result = method(*inputs, **options)
            watcher(layer, result)
            return result

        return call

    for layer in layers:
        vars(layer)[name] = watched(layer, getattr(layer, name))
    try:
        yield
    finally:
        for layer in layers:
            vars(layer).pop(name, None)


def _in_time(layer: Layer) -> str:
    """At which step of a sequence, going backward, the gradient of a recurrent state ceased to be
    finite.
    """
    if not isinstance(layer, Recurrent):
        return ""
    norms = layer.state_gradient_norms()
    bad = np.flatnonzero(~np.isfinite(norms))
    if not len(bad):
        return ""
    return f", whose state's at step {bad[-1]} of {len(norms)} (the first is 0)"


def _finite(values: Any) -> bool:
    if isinstance(values, tuple):
        return all(map(_finite, values))
    return not isinstance(values, np.ndarray) or bool(np.isfinite(values).all())
