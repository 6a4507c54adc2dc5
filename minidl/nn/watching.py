"""Watching what every layer of a model returns, for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from minidl import _kernels
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

    Each is replaced in the object itself, and put back at the end; of several replacements of one
    method, any may end first. Meanwhile the object can neither be copied nor pickled: its copy
    would call the methods of the object.

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
    made: list[Replacement] = []
    try:
        for owner, method, replace in changes:
            made.append(Replacement(owner, method, replace))
            vars(owner)[method] = made[-1]
        yield
    finally:
        for replacement in reversed(made):
            replacement.remove()


def watches_around() -> Iterator[Any]:
    """Yield what watches the steps of this thread: of the innermost block first, then further out.

    Each has the attributes ``optimizer``, whose steps it watches, and ``outer``, the next one.
    """
    watch = _kernels.watch()
    while watch is not None:
        yield watch
        watch = watch.outer


class Replacement:
    """A function in place of a method of an object, which can be neither copied nor pickled.

    Parameters
    ----------
    owner, method, replace
        As for ``replaced``.
    """

    def __init__(self, owner: Any, method: str, replace: Replace) -> None:
        self.owner, self.method, self.replace = owner, method, replace
        self._before = vars(owner).get(method)  # another replacement, for example; or None
        self._own = getattr(owner, method)
        self._function = replace(self._own)

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """Call the function."""
        return self._function(*inputs, **options)

    def remove(self) -> None:
        """Put back what was there before, below the replacements that came later."""
        held = vars(self.owner)
        above = held.get(self.method)
        if above is self and self._before is None:
            del held[self.method]
        elif above is self:
            held[self.method] = self._before
        while isinstance(above, Replacement) and above is not self:
            if above._before is self:
                above._before, above._own = self._before, self._own
                above._function = above.replace(self._own)
                return
            above = above._before

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Raise TypeError: copies of the object would call the object's own methods."""
        raise TypeError(
            f"{type(self.owner).__name__} is being watched, and can be neither copied nor pickled "
            "until that ends: leave the `with` block first"
        )
