"""Checks of what a monitor is given, for a clear error at once and no strange one later."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from minidl.nn import Layer
from minidl.nn.checks import check_count
from minidl.training.checks import check_kind


def as_selection(layers: Any) -> tuple[str | Layer, ...] | None:
    """Return the layers to watch as they were chosen; None: all."""
    if layers is None:
        return None
    if isinstance(layers, (str, bytes, Layer)) or not isinstance(layers, Iterable):
        got = layers.short_name() if isinstance(layers, Layer) else repr(layers)
        raise TypeError(f"GradientMonitor: layers must be a list of paths or layers, got {got}")
    chosen = tuple(layers)
    for layer in chosen:
        if not isinstance(layer, (str, Layer)):
            raise TypeError(
                f'GradientMonitor: layers must be paths such as "0", or layers, got {layer!r} '
                "among them"
            )
    return chosen


def as_epochs(epochs: Any) -> list[int]:
    """Return the numbers of epochs as a list."""
    if isinstance(epochs, (str, bytes)) or not isinstance(epochs, Iterable):
        raise TypeError(f"plot: epochs must be a list of whole numbers, got {epochs!r}")
    found = [check_count("plot", "an epoch", epoch, least=0) for epoch in epochs]
    if not found:
        raise ValueError("plot: epochs is empty; name at least one, such as 0, or leave it out")
    return found


def as_given(layer: str | Layer) -> str:
    """Name a layer as it was chosen."""
    return repr(layer) if isinstance(layer, str) else layer.short_name()


def check_watched(model: Any, optimizer: Any, loss: Any) -> None:
    """Raise unless these are a model, an optimizer of it, and a loss or None."""
    owner = "GradientMonitor.watch(model, optimizer, loss)"
    check_kind(owner, "model", model)
    check_kind(owner, "optimizer", optimizer)
    if loss is not None:
        check_kind(owner, "loss", loss)
    trained = {id(parameter) for parameter in optimizer.flat.parameters}
    if not any(id(parameter) in trained for parameter in model.parameters()):
        raise ValueError(
            f"{owner}: the optimizer trains none of the model's parameters; build it from "
            "model.parameters()"
        )
