"""What a training step must not leave behind: a model half-way between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from minidl.nn import Layer
from minidl.typing import Array


class Snapshot:
    """``with snapshot:`` a step that raises leaves these arrays as ``take`` found them.

    Parameters need no copy: an optimizer changes them last of all, after all checks.
    """

    def __init__(self, arrays: Iterable[Array]) -> None:
        self._pairs = [(array, array.copy()) for array in arrays]
        self._taken = False

    def take(self) -> None:
        """Remember the values of now: a step begins."""
        for array, copy in self._pairs:
            copy[...] = array
        self._taken = True

    def drop(self) -> None:
        """The step is over: whatever happens from now on, its values stay."""
        self._taken = False

    def restore(self) -> None:
        """Go back to the values remembered."""
        for array, copy in self._pairs:
            array[...] = copy

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and self._taken:
            self.restore()
        self._taken = False


class InterruptBetweenSteps:
    """Inside this context Ctrl-C waits for ``check()``, called between two steps.

    An exception in the middle of a step could leave the moments of an optimizer changed
    and its parameters not. A second Ctrl-C does not wait. Python delivers signals to the
    main thread only, and a program may have its own ways with them: elsewhere, or where no
    Python function handles the signal, nothing is changed.
    """

    def __init__(self) -> None:
        self._handler: Callable[[int, Any], Any] | None = None
        self._waiting = False

    def __enter__(self) -> Self:
        handler = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is threading.main_thread() and callable(handler):
            self._handler = handler
            signal.signal(signal.SIGINT, self._note)
        return self

    def _note(self, number: int, frame: Any) -> None:
        if self._waiting:
            self._deliver()
        self._waiting = True

    def _deliver(self) -> None:
        self._waiting = False
        if self._handler is not None:
            self._handler(signal.SIGINT, None)

    def check(self) -> None:
        """Deliver a Ctrl-C that waits: as a rule, raise KeyboardInterrupt."""
        if self._waiting:
            self._deliver()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._handler)
        self.check()


@contextmanager
def mode(model: Layer, training: bool) -> Iterator[None]:
    """Switch the model to training or evaluation, and every layer back afterwards."""
    before = [(layer, layer.training) for _, layer in model.layers()]
    model.train(training)
    try:
        yield
    finally:
        for layer, was_training in before:
            layer.training = was_training
