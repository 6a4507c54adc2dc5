"""Keeps failed and interrupted steps from leaving a model between two steps."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from types import FrameType
from typing import Self

from minidl.signals import Handler, deferred
from minidl.typing import Array


class Snapshot:
    """Restores arrays to their values at ``take()`` if the block ``with snapshot:`` raises.

    Before a step it copies the state of layers and optimizer. Parameters need no copy: an optimizer
    changes them last, after all checks.
    """

    def __init__(self, arrays: Iterable[Array]) -> None:
        self._arrays = list(arrays)
        self._copies: list[Array] = []  # allocated by the first `take`: recorded steps need none
        self._taken = False

    def take(self) -> None:
        """Copy the current values, at the beginning of a step."""
        if not self._copies:
            self._copies = [array.copy() for array in self._arrays]
        else:
            for array, copy in zip(self._arrays, self._copies, strict=True):
                copy[...] = array
        self._taken = True

    def drop(self) -> None:
        """Forget the copies, at the end of a step: from now on an error restores nothing."""
        self._taken = False

    def restore(self) -> None:
        """Put back the values that ``take`` copied."""
        for array, copy in zip(self._arrays, self._copies, strict=True):
            array[...] = copy

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and self._taken:
            self.restore()
        self._taken = False


class deferred_to_step_end(deferred):  # noqa: N801  (used like a function)
    """Defer Ctrl-C, inside ``with deferred_to_step_end() as signals:``, to ``signals.deliver()``.

    That is called between two steps: an exception in the middle of one could leave the moments of
    an optimizer changed and its parameters not. A second Ctrl-C does not wait, so that a step that
    hangs can be ended.
    """

    def __init__(self) -> None:
        super().__init__(signal.SIGINT)

    def _note(self, handler: Handler, number: int, frame: FrameType | None) -> None:
        if self._waiting.pop(number, None) is not None:
            handler(number, frame)
        super()._note(handler, number, frame)
