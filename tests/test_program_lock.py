"""Recorded steps that several Python threads share: one run at a time, first come, first served."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import minidl
from minidl import _kernels, kernels, nn, optim

pytestmark = pytest.mark.skipif(_kernels.isa == "reference", reason="the twin records nothing")
unix = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and signals")
PATIENCE = 60  # seconds after which something hangs


def new_lock() -> Any:
    from minidl._kernels.executor.lock import ProgramLock  # needs compiled kernels

    return ProgramLock()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def waiting_thread(lock: Any, then: Callable[[], object]) -> threading.Thread:
    """A thread that waits for the lock by now, and does something once it has it."""
    before = len(lock.waiting)

    def work() -> None:
        with lock:
            then()

    thread = threading.Thread(target=work)
    thread.start()
    wait_until(lambda: len(lock.waiting) > before)
    return thread


def forked(work: Callable[[], bool]) -> bool:
    """Whether this is true in a forked child."""
    child = os.fork()
    if child == 0:  # pragma: no cover
        status = 1
        try:
            status = 0 if work() else 1
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1] == 0


# --- the lock ---------------------------------------------------------------------------------


def test_threads_are_served_in_the_order_in_which_they_came() -> None:
    lock, served = new_lock(), []
    with lock:
        threads = [waiting_thread(lock, lambda n=n: served.append(n)) for n in range(6)]
        assert served == []
    for thread in threads:
        thread.join(PATIENCE)
    assert served == list(range(6))
    assert lock.waiting == []


def test_who_has_it_to_record_may_run_programs() -> None:
    lock, served = new_lock(), []
    with lock.recording():
        with lock, pytest.raises(RuntimeError, match="in this very thread"):
            lock.acquire()
        with lock.recording(), lock:
            thread = waiting_thread(lock, lambda: served.append(1))
        time.sleep(0.01)
        assert served == []
    thread.join(PATIENCE)
    assert served == [1]


def test_who_comes_back_at_once_waits_behind_the_others() -> None:
    lock, rounds, stop = new_lock(), [0], threading.Event()

    def busy() -> None:
        while not stop.is_set():
            with lock:
                rounds[0] += 1
                time.sleep(0.001)

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        wait_until(lambda: rounds[0] > 0)
        for _ in range(20):
            before = rounds[0]
            with lock:
                assert rounds[0] - before <= 2
    finally:
        stop.set()
        thread.join(PATIENCE)


def test_a_thread_that_has_the_lock_is_told_so_instead_of_waiting_for_itself() -> None:
    lock = new_lock()
    with lock, pytest.raises(RuntimeError, match="under way in this very thread"):
        lock.acquire()
    with lock:
        pass


@unix
@pytest.mark.parametrize("calls", [False, True])
def test_who_waits_hears_signals(calls: bool) -> None:
    """Ctrl-C ends the waiting; a handler may itself wait for the lock."""
    lock, heard, release = new_lock(), [], threading.Event()

    def hold() -> None:
        with lock:
            ready.set()
            wait_until(lambda: bool(lock.waiting))
            signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)
            release.wait(PATIENCE)

    def handler(*_: object) -> None:
        heard.append(len(lock.waiting))
        release.set()
        if not calls:
            raise KeyboardInterrupt
        with lock:
            heard.append(-1)

    ready = threading.Event()
    before = signal.signal(signal.SIGALRM, handler)
    holder = threading.Thread(target=hold)
    try:
        holder.start()
        assert ready.wait(PATIENCE)
        if calls:
            lock.acquire()
            lock.release()
        else:
            with pytest.raises(KeyboardInterrupt):
                lock.acquire()
    finally:
        release.set()
        holder.join(PATIENCE)
        signal.signal(signal.SIGALRM, before)
    assert heard == [1, -1] if calls else [1]
    assert lock.waiting == []
    with lock:  # nobody has it
        pass


@unix
def test_a_forked_child_forgets_who_had_the_lock_or_waited() -> None:
    lock, done = new_lock(), threading.Event()
    holder = waiting_thread_that_holds(lock, done)

    def child() -> bool:
        with lock:
            return lock.waiting == []

    waiter = waiting_thread(lock, lambda: None)
    assert forked(child)
    done.set()
    holder.join(PATIENCE)
    waiter.join(PATIENCE)
    with lock:  # in the parent all went on
        assert forked(lambda: not lock.release() and child())


def waiting_thread_that_holds(lock: Any, done: threading.Event) -> threading.Thread:
    """A thread that has the lock until something is done."""
    ready = threading.Event()

    def work() -> None:
        with lock:
            ready.set()
            done.wait(PATIENCE)

    thread = threading.Thread(target=work)
    thread.start()
    assert ready.wait(PATIENCE)
    return thread


# --- steps that threads share ------------------------------------------------------------------


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3), rng=0)


@pytest.mark.parametrize("rows", [[512] * 8, [64, 512] * 4], ids=["one program", "two programs"])
def test_each_thread_gets_what_it_asked_for(rows: list[int]) -> None:
    """Of a step that returns copies; whatever it returns."""
    model = network()

    @minidl.record(copy=True)
    def predict(x: Any) -> Any:
        y = model(x)
        return {"y": [y], "both": (y, kernels.relu(y)), "sum": kernels.squared_norm(y)}

    data = [
        np.random.default_rng(i).normal(size=(n, 6)).astype(np.float32) for i, n in enumerate(rows)
    ]
    right = [model(x) for x in data]
    barrier = threading.Barrier(len(data))

    def wrong(i: int) -> int:
        barrier.wait()
        found = 0
        for _ in range(300):
            got = predict(data[i])
            found += not np.array_equal(got["y"][0], right[i])
            found += not np.array_equal(got["both"][0], right[i])
            found += not np.array_equal(got["both"][1], np.maximum(right[i], 0))
            found += got["sum"] != kernels.squared_norm(right[i])
        return found

    with ThreadPoolExecutor(len(data)) as pool:
        futures = [pool.submit(wrong, i) for i in range(len(data))]
        assert [future.result(PATIENCE) for future in futures] == [0] * len(data)


def test_numbers_are_copies() -> None:
    """So that a list of losses is one; arrays are those of the program, as a rule."""
    loss = nn.MSELoss()

    @minidl.record
    def step(x: Any, y: Any) -> Any:
        return {"loss": loss(x, y)}, loss.backward()

    zeros = np.zeros((4, 2), np.float32)
    results = [step(np.full((4, 2), i, np.float32), zeros) for i in range(5)]
    assert [float(numbers["loss"]) for numbers, _ in results] == [0, 1, 4, 9, 16]
    assert len({id(numbers["loss"]) for numbers, _ in results}) == 5
    assert np.shares_memory(results[-1][1], results[-2][1])


def test_each_step_of_threads_has_a_rate_of_its_schedule() -> None:
    layer = nn.Linear(1, 1, init=nn.init.zeros(), bias=False, rng=0)

    def rate(step: int) -> float:
        time.sleep(1e-5)  # so that other threads come in between
        return 2.0**-step

    optimizer = optim.SGD(layer.parameters(), lr=rate)

    @minidl.record
    def step(x: Any, dy: Any) -> Any:
        layer(x)
        optimizer.zero_grad()
        layer.backward(dy)
        return optimizer.step()

    one = np.ones((1, 1), np.float32)
    step(one, -one)
    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(step, one, -one) for _ in range(19)]:
            future.result(PATIENCE)
    assert layer.weight.data == np.float32(2 - 2.0**-19)


def test_a_schedule_cannot_call_the_step_whose_rate_it_gives() -> None:
    layer = nn.Linear(2, 1, rng=0)
    calls = []

    def rate(number: int) -> float:
        if number == 2:
            calls.append(1)
            step(x)
        return 0.1

    optimizer = optim.SGD(layer.parameters(), lr=rate)

    @minidl.record
    def step(x: Any) -> Any:
        y = layer(x)
        optimizer.zero_grad()
        layer.backward(y)
        optimizer.step()
        return y

    x = np.ones((3, 2), np.float32)
    for _ in range(2):
        step(x)
    with pytest.raises(RuntimeError, match="under way in this very thread"):
        step(x)
    assert calls == [1]
    optimizer.lr = 0.1
    step(x)


def test_a_call_that_waited_sees_what_names_mean_by_then() -> None:
    """A thread may set a name while another one waits for the lock."""
    models = {"now": network()}
    other = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3), rng=1)
    expected = other(np.ones((4, 6), np.float32))
    step = minidl.record(lambda x: models["now"](x), copy=True)
    x = np.ones((4, 6), np.float32)
    step(x)
    found = []
    thread = threading.Thread(target=lambda: found.append(step(x)))
    with step.program.lock:
        thread.start()
        wait_until(lambda: bool(step.program.lock.waiting))
        models["now"] = other
    thread.join(PATIENCE)
    np.testing.assert_array_equal(found[0], expected)


@unix
def test_what_a_recording_needs_is_imported_before_the_first_call() -> None:
    """A child that is forked while another thread imports would wait for ever."""
    code = "import sys, minidl; minidl.record(abs); assert 'minidl.recording.verify' in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
