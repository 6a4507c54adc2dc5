"""Signals that wait until a stretch of code is over."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from minidl import signals
from minidl.signals import deferred

NUMBERS = [signal.SIGINT, signal.SIGTERM]


class TermError(Exception):
    """What the handler of SIGTERM raises."""


@pytest.fixture(autouse=True)
def handlers() -> Iterator[dict[int, Any]]:
    """Handlers of two signals, both of which raise; found again afterwards."""

    def on_term(number: int, frame: FrameType | None) -> None:
        raise TermError

    before = {number: signal.getsignal(number) for number in NUMBERS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, on_term)
    now = {number: signal.getsignal(number) for number in NUMBERS}
    yield now
    for number, handler in before.items():
        signal.signal(number, handler)


def in_place(handlers: dict[int, Any]) -> bool:
    return all(signal.getsignal(number) is handler for number, handler in handlers.items())


def test_a_signal_waits_until_the_end_of_the_block(handlers: dict[int, Any]) -> None:
    done = []

    def call() -> None:
        with deferred():
            for _ in range(3):  # a second and a third one wait as well
                signal.raise_signal(signal.SIGINT)
            done.append(1)

    with pytest.raises(KeyboardInterrupt):
        call()
    assert done == [1]
    assert in_place(handlers)


def test_two_signals_that_wait_are_both_delivered(handlers: dict[int, Any]) -> None:
    heard = []
    signal.signal(signal.SIGTERM, lambda *_: heard.append("term"))

    def call() -> None:
        with deferred():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            assert not heard

    with pytest.raises(KeyboardInterrupt):
        call()
    assert heard == ["term"]


def test_nested_blocks_wait_for_the_outermost(handlers: dict[int, Any]) -> None:
    done = []

    def call() -> None:
        with deferred():
            with deferred():
                signal.raise_signal(signal.SIGINT)
            done.append("outer")

    with pytest.raises(KeyboardInterrupt):
        call()
    assert done == ["outer"]
    assert in_place(handlers)


def test_an_error_of_the_block_is_not_lost(handlers: dict[int, Any]) -> None:
    def call(interrupt: bool) -> None:
        with deferred():
            if interrupt:
                signal.raise_signal(signal.SIGINT)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        call(False)
    with pytest.raises(KeyboardInterrupt) as caught:
        call(True)
    assert isinstance(caught.value.__context__, ZeroDivisionError)
    assert in_place(handlers)


def test_signals_that_no_python_function_handles_are_left_alone() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with deferred():
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def test_a_handler_set_inside_stays() -> None:
    def other(number: int, frame: FrameType | None) -> None:
        raise TermError

    with deferred():
        signal.signal(signal.SIGTERM, other)
    assert signal.getsignal(signal.SIGTERM) is other


def test_other_threads_are_left_alone(handlers: dict[int, Any]) -> None:
    seen = []

    def run() -> None:
        with deferred():
            seen.append(in_place(handlers))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [True]


def test_handlers_may_run_at_once_inside(handlers: dict[int, Any]) -> None:
    heard = []

    def run(handler: Any, number: int, frame: FrameType | None) -> None:
        heard.append(number)
        handler(number, frame)

    def call() -> None:
        with deferred() as signals:
            try:
                with signals.at_once(run):
                    signal.raise_signal(signal.SIGINT)
                    heard.append("not reached")
            finally:
                signal.raise_signal(signal.SIGINT)  # waits again
                heard.append("after it")

    with pytest.raises(KeyboardInterrupt):
        call()
    assert heard == [signal.SIGINT, "after it"]
    assert in_place(handlers)


def raised_at(line: int, numbers: list[int], call: Callable[[], Any]) -> tuple[bool, int]:
    """Raise the first signal before a line of ``signals.py``, counted as they run, and a second one
    at the next call or return after that.

    Returns whether there was such a line, and how many exceptions came out.
    """
    count, waiting, out = 0, list(numbers), 0

    def ours(frame: FrameType) -> bool:
        return frame.f_code.co_filename == signals.__file__

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        if event == "line" and ours(frame):
            count += 1
            if count == line:
                signal.raise_signal(waiting.pop(0))
        return trace if ours(frame) else None

    def profile(frame: FrameType, *_: object) -> None:
        if waiting and len(waiting) < len(numbers) and ours(frame):
            signal.raise_signal(waiting.pop(0))

    sys.setprofile(profile)
    sys.settrace(trace)
    try:
        call()
    except (KeyboardInterrupt, TermError):
        out += 1
    finally:
        sys.settrace(None)
        sys.setprofile(None)
    return len(waiting) < len(numbers), out


@pytest.mark.parametrize("numbers", [[2], [15], [2, 2], [15, 2], [2, 15], [15, 15]], ids=str)
def test_no_handler_is_lost_at_whatever_line_signals_come(
    handlers: dict[int, Any], numbers: list[int]
) -> None:
    def call() -> None:
        with deferred():
            signal.raise_signal(signal.SIGINT)

    line, reached = 1, True
    while reached:
        reached, out = raised_at(line, numbers, call)
        assert out == 1, line  # the Ctrl-C of the block, or what has come before it
        for number, error in ((signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, TermError)):
            with pytest.raises(error):
                signal.raise_signal(number)
        with deferred():
            pass
        assert in_place(handlers), line
        line += 1
    assert line > 50
