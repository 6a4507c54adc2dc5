"""Deferring signals while code runs that must not be interrupted.

Python runs the handler of a signal between any two operations of the main thread, and a handler
may raise, as that of Ctrl-C does. ``deferred()`` lets handlers wait until a block is over.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # what `signal` wraps, without looking up names
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import FrameType
from typing import Any, Self

Handler = Callable[[int, FrameType | None], Any]
Run = Callable[[Handler, int, FrameType | None], object]


class deferred:  # noqa: N801  (used like a function)
    """Let signals wait until the end of the block, ``with deferred():``.

    All signals that a Python function handles wait, a second Ctrl-C too; one that comes several
    times is delivered once. At the end their handlers run, and may raise. In threads other than the
    main one, where Python delivers no signals, this does nothing. It may be nested. Handlers that
    are set inside the block stay.

    Inside the block, a stand-in replaces every handler. If an exception of another handler keeps a
    stand-in from being removed, it passes signals on to the handler, so that none is lost.

    Parameters
    ----------
    numbers
        Of the signals, such as ``signal.SIGINT``; all without any.

    Examples
    --------
    >>> import signal
    >>> from minidl.signals import deferred
    >>> done = []
    >>> try:
    ...     with deferred():
    ...         signal.raise_signal(signal.SIGINT)  # Ctrl-C
    ...         done.append("all of the block")
    ... except KeyboardInterrupt:
    ...     done.append("then the interrupt")
    >>> done
    ['all of the block', 'then the interrupt']
    """

    def __init__(self, *numbers: int) -> None:
        self._numbers = numbers or _numbers()
        self.run: Run | None = self._note  # called by stand-ins; None outside of the block
        self._waiting: dict[int, Handler] = {}
        self._stand_ins: list[_StandIn] = []

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            try:
                for number in self._numbers:
                    self._stand_in(number)
            except BaseException:  # raised by a handler that has no stand-in yet
                self.run = None
                self._leave()
                raise
        return self

    def _stand_in(self, number: int) -> None:
        handler = _handler_of(number)
        while isinstance(handler, _StandIn) and handler.block.run is None:  # left behind
            handler = handler.handler
        if callable(handler):
            stand_in = _StandIn(number, handler, self)
            self._stand_ins.append(stand_in)
            _signal.signal(number, stand_in)

    def _note(self, handler: Handler, number: int, frame: FrameType | None) -> None:
        self._waiting[number] = handler

    def __exit__(self, *_: object) -> None:
        self.run = None
        self._leave()

    def _leave(self) -> None:
        try:
            try:
                self._remove_stand_ins()
            finally:  # again, if a restored handler has raised
                self._remove_stand_ins()
        finally:
            self.deliver()

    def _remove_stand_ins(self) -> None:
        while self._stand_ins:
            stand_in = self._stand_ins[-1]
            if _handler_of(stand_in.number) is stand_in:
                _signal.signal(stand_in.number, stand_in.handler)
            self._stand_ins.pop()

    # --- inside the block ---

    def deliver(self) -> None:
        """Run the handlers of the signals that wait."""
        if self._waiting:
            number, handler = self._waiting.popitem()
            try:
                handler(number, sys._getframe())
            finally:  # the others, though this one has raised
                self.deliver()

    @contextmanager
    def at_once(self, run: Run) -> Iterator[None]:
        """Inside this block, call ``run(handler, number, frame)`` for a signal at once.

        When one call has raised, later signals wait again.
        """

        def run_or_wait(handler: Handler, number: int, frame: FrameType | None) -> None:
            try:
                run(handler, number, frame)
            except BaseException:
                self.run = self._note
                raise

        try:
            self.run = run_or_wait
            self.deliver()
            yield
        finally:
            self.run = self._note


class _StandIn:
    """Replaces a handler; after the block it calls the handler."""

    def __init__(self, number: int, handler: Handler, block: deferred) -> None:
        self.number, self.handler, self.block = number, handler, block

    def __call__(self, number: int, frame: FrameType | None) -> None:
        run = self.block.run
        if run is None:
            self.handler(number, frame)
        else:
            run(self.handler, number, frame)


@cache
def _numbers() -> tuple[int, ...]:
    return tuple(sorted(signal.valid_signals()))


def _handler_of(number: int) -> Any:
    return _signal.getsignal(number)
