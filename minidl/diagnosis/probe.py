"""A look into a model at one batch: what every layer puts out, and which gradient reaches it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl import nn
from minidl.nn import Layer, Loss
from minidl.nn.recurrent.sequence import Recurrent
from minidl.training.data import Data
from minidl.typing import Array

RECTIFIERS = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.PReLU)


@dataclass(frozen=True)
class LayerProbe:
    """What one layer puts out, and the gradient that reaches it.

    Attributes
    ----------
    path, layer
        Which layer.
    mean, deviation
        Of its outputs.
    zero_units
        Share of its units that are 0 for all rows.
    saturation
        Share of its derivative that is lost: 1 - mean of the derivative / its maximum; NaN for
        layers that have no flat ends.
    gradient
        Root mean square over rows of the norm of dL/d output.
    weight_gradient
        Norm of the gradient of its own parameters; NaN without any.
    over_time
        For a recurrent layer, the norm of dL/dh_t for every t; else None.
    """

    path: str
    layer: Layer
    mean: float
    deviation: float
    zero_units: float
    saturation: float
    gradient: float
    weight_gradient: float
    over_time: Array | None = None


@dataclass(frozen=True)
class Probe:
    """A look into a model at one batch.

    Attributes
    ----------
    layers
        Its layers of weights, activations and normalizations, in forward order.
    loss
        The loss of the batch.
    output
        The model's output.
    """

    layers: tuple[LayerProbe, ...]
    loss: float
    output: Array

    @property
    def finite(self) -> bool:
        """Whether loss and output are."""
        return bool(np.isfinite(self.loss) and np.isfinite(self.output).all())

    def of(self, *kinds: type[Layer]) -> list[LayerProbe]:
        """Return those of these classes."""
        return [probe for probe in self.layers if isinstance(probe.layer, kinds)]


def look(model: Layer, loss: Loss, batch: Data) -> Probe:
    """Compute loss and gradients of a batch, watching every layer; parameters stay as they are.

    Gradients are left in the model, and its state has seen the batch: look into a copy.
    """
    leaves = list(leaves_of(model))
    outputs: dict[int, Any] = {}
    gradients: dict[int, Any] = {}
    with np.errstate(all="ignore"), _seen([layer for _, layer in leaves], outputs, gradients):
        output = model(*batch.inputs)
        value = float(loss(output, *batch.targets_and_weights))
        model.zero_grad()
        if np.isfinite(value):
            model.backward(loss.backward())
        layers = tuple(
            _probe(path, layer, outputs.get(id(layer)), gradients.get(id(layer)))
            for path, layer in leaves
        )
    return Probe(layers, value, output)


def leaves_of(model: Layer) -> Iterator[tuple[str, Layer]]:
    """Yield (path, layer) of the layers that compute themselves: recurrent, or without layers."""
    inside: set[int] = set()
    for path, layer in model.layers():
        if isinstance(layer, Recurrent):
            inside |= {id(inner) for _, inner in layer.layers()} - {id(layer)}
        if id(layer) not in inside and (
            isinstance(layer, Recurrent) or not any(True for _ in layer.children())
        ):
            yield path, layer


@contextmanager
def _seen(
    layers: list[Layer], outputs: dict[int, Any], gradients: dict[int, Any]
) -> Iterator[None]:
    """Keep what every layer returns, and the gradient that it is given."""

    def keeping(layer: Layer, method: str, kept: dict[int, Any]) -> Callable[..., Any]:
        call = getattr(layer, method)

        def call_and_keep(*inputs: Any, **options: Any) -> Any:
            result = call(*inputs, **options)
            kept[id(layer)] = result if method == "forward" else inputs[0]
            return result

        return call_and_keep

    for layer in layers:
        vars(layer)["forward"] = keeping(layer, "forward", outputs)
        vars(layer)["backward"] = keeping(layer, "backward", gradients)
    try:
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)
            vars(layer).pop("backward", None)


def _probe(path: str, layer: Layer, output: Any, gradient: Any) -> LayerProbe:
    nan = float("nan")
    y = output[0] if isinstance(output, tuple) else output
    own = [parameter.grad for parameter in layer.parameters()]
    weight_gradient = float(np.sqrt(sum(float((g.astype(float) ** 2).sum()) for g in own)))
    over_time = None
    if isinstance(layer, Recurrent) and gradient is not None:
        over_time = layer.state_gradient_norms().astype(np.float64)
    if y is None or not np.issubdtype(y.dtype, np.floating):
        return LayerProbe(path, layer, nan, nan, nan, nan, nan, weight_gradient, over_time)
    rows = y.reshape(-1, y.shape[-1]).astype(np.float64)
    norm = nan if gradient is None else float(np.sqrt((gradient.astype(float) ** 2).sum() / len(y)))
    return LayerProbe(
        path,
        layer,
        float(rows.mean()),
        float(rows.std()),
        float((rows == 0).all(axis=0).mean()),
        _saturation(layer, rows),
        norm,
        weight_gradient if own else nan,
        over_time,
    )


def _saturation(layer: Layer, y: Array) -> float:
    """The share of the derivative of a sigmoid or a tanh that is lost to its flat ends."""
    if isinstance(layer, nn.Sigmoid):
        return float(1 - (4 * y * (1 - y)).mean())
    if isinstance(layer, nn.Tanh) or (isinstance(layer, Recurrent) and not is_linear(layer)):
        return float(1 - (1 - np.minimum(y * y, 1)).mean())
    return float("nan")


def is_linear(layer: Recurrent) -> bool:
    """Return whether the states of a recurrent layer are not bounded by a tanh."""
    return getattr(layer.cells[0], "nonlinearity", "tanh") != "tanh"
