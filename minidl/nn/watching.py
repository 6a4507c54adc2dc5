"""Watching what every layer of a model returns, for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from minidl.nn.layer import Layer

Watcher = Callable[[Layer, Any], None]
# Makes of a method the function that takes its place.
Replace = Callable[[Callable[..., Any]], Callable[..., Any]]


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

    with replaced([(layer, method, partial(watched, layer)) for layer in layers]):
        yield


@contextmanager
def replaced(changes: Iterable[tuple[Any, str, Replace]]) -> Iterator[None]:
    """Replace methods of objects for a while.

    Each is replaced in the object itself, and put back at the end. Meanwhile the object can neither
    be copied nor pickled: its copy would call the methods of the object.

    Parameters
    ----------
    changes
        (object, method, replace) each: a layer, a loss or an optimizer; the name of its method; and
        a function of that method, bound, which returns what is to be called in its place.

    Examples
    --------
    >>> from minidl import nn
    >>> from minidl.nn.watching import replaced
    >>> layer = nn.Tanh()
    >>> with replaced([(layer, "short_name", lambda name: lambda: name().upper())]):
    ...     print(layer.short_name())
    TANH()
    >>> layer.short_name()
    'Tanh()'
    """
    before = []
    try:
        for owner, method, replace in changes:
            held = vars(owner)
            before.append((held, method, held.get(method)))
            held[method] = Replacement(owner, replace(getattr(owner, method)))
        yield
    finally:
        for held, method, old in reversed(before):
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
