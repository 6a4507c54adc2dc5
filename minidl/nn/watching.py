"""Watching what every layer of a model returns, for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from minidl.nn.layer import Layer

Watcher = Callable[[Layer, Any], None]


@contextmanager
def watching(layers: list[Layer], method: str, watcher: Watcher) -> Iterator[None]:
    """Call ``watcher(layer, result)`` whenever a layer's ``method`` returns, innermost first.

    The method is replaced in the layer itself and put back at the end, so that a model that nobody
    watches pays nothing.

    Parameters
    ----------
    layers
        The layers to watch.
    method
        ``"forward"`` or ``"backward"``.
    watcher
        Function of a layer and of what its method has returned.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn
    >>> from minidl.nn.watching import watching
    >>> model = nn.Sequential(nn.Linear(3, 2), nn.Tanh())
    >>> layers = [layer for _, layer in model.layers()]
    >>> with watching(layers, "forward", lambda layer, y: print(layer.short_name(), y.shape)):
    ...     _ = model(np.ones((5, 3), np.float32))
    Linear(3, 2) (5, 2)
    Tanh() (5, 2)
    Sequential (5, 2)
    """

    def watched(layer: Layer, call: Callable[..., Any]) -> Callable[..., Any]:
        def call_and_show(*inputs: Any, **options: Any) -> Any:
            result = call(*inputs, **options)
            watcher(layer, result)
            return result

        return call_and_show

    for layer in layers:
        vars(layer)[method] = watched(layer, getattr(layer, method))
    try:
        yield
    finally:
        for layer in layers:
            vars(layer).pop(method, None)
