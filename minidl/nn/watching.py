"""Watching what every layer of a model returns, for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from minidl.nn.layer import Layer

Watcher = Callable[[Layer, Any], None]
# Makes, of an object and one of its methods, the function that takes the method's place.
Replace = Callable[[Any, Callable[..., Any]], Callable[..., Any]]


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

    with replaced(layers, method, watched):
        yield


@contextmanager
def replaced(objects: Iterable[Any], method: str, replace: Replace) -> Iterator[None]:
    """Have ``replace(object, method)`` run in place of a method of each object, for a while.

    It is replaced in the object itself, and put back at the end. Meanwhile the object can neither
    be copied nor pickled: its copy would call the methods of the object.

    Parameters
    ----------
    objects
        Layers, losses or optimizers.
    method
        Name of the method.
    replace
        Function of the object and of its method, bound; returns what is to be called.

    Examples
    --------
    >>> from minidl import nn
    >>> from minidl.nn.watching import replaced
    >>> layer = nn.Tanh()
    >>> with replaced([layer], "short_name", lambda layer, name: lambda: name().upper()):
    ...     print(layer.short_name())
    TANH()
    >>> layer.short_name()
    'Tanh()'
    """
    before = []
    try:
        for owner in objects:
            held = vars(owner)
            before.append((held, held.get(method)))
            held[method] = Replacement(owner, replace(owner, getattr(owner, method)))
        yield
    finally:
        for held, old in reversed(before):
            if old is None:
                held.pop(method, None)
            else:
                held[method] = old


class Replacement:
    """A function in place of a method of an object, which can be neither copied nor pickled."""

    def __init__(self, owner: Any, function: Callable[..., Any]) -> None:
        self.owner, self.function = owner, function

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """Call the function."""
        return self.function(*inputs, **options)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Raise TypeError: copies of the object would call the object's own methods."""
        raise TypeError(
            f"{type(self.owner).__name__} is being watched, and can be neither copied nor pickled "
            "until that ends: leave the `with` block first"
        )
