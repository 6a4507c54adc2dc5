"""The team of threads: the same bits under any load, no core left busy, forks, and Ctrl-C."""

from __future__ import annotations

import ctypes
import mmap
import multiprocessing
import os
import platform
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from recording_helpers import classes, everything, plain_regression, shared_by

import minidl
from minidl import _kernels, kernels, nn, optim
from minidl.recording import epoch as epochs_of_steps
from minidl.recording.shadow import Shadow
from minidl.threads import _quota

pytestmark = pytest.mark.skipif(_kernels.isa == "reference", reason="the twin has no threads")
unix = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
PATIENCE = 60  # seconds after which something hangs


def train(threads: int = 4, epochs: int = 2) -> dict[str, bytes]:
    """A training that threads share; what it arrives at."""
    training, (X, Y) = everything(), classes()
    with shared_by(threads):
        step = minidl.record(training.step)
        for epoch in range(epochs):
            step.epoch(X, Y, 16, rng=epoch)
        assert step._latest.program.threads == threads
    return training.bits()


@pytest.fixture(scope="module")
def expected() -> dict[str, bytes]:
    return train(threads=1)


# --- how many -----------------------------------------------------------------------------------


def test_number_of_threads_is_checked() -> None:
    before = minidl.get_num_threads()
    for bad in (0, -1, 65, 2.0, True, "2", None):
        with pytest.raises(ValueError, match="from 1 to 64"):
            minidl.set_num_threads(bad)  # type: ignore[arg-type]
    assert minidl.get_num_threads() == before
    minidl.set_num_threads(64)
    assert minidl.get_num_threads() == 64
    minidl.set_num_threads(before)


@pytest.mark.parametrize(
    ("value", "count"), [("1", "1"), ("7", "7"), ("64", "64"), ("0", ""), ("65", ""), ("x", "")]
)
def test_variable_of_the_environment(value: str, count: str) -> None:
    code = "import minidl; print(minidl.get_num_threads())"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"MINIDL_NUM_THREADS": value},
        capture_output=True,
        text=True,
    )
    assert run.stdout.strip() == count
    assert bool(count) or f"MINIDL_NUM_THREADS={value}: expected a whole number" in run.stderr


def threads_with(**environment: str) -> str:
    """How many a process has by default, with these variables."""
    kept = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    code = "import minidl; print(minidl.get_num_threads())"
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, env=kept | environment, capture_output=True, text=True)
    return run.stdout.strip()


def test_openmp_limits_threads_where_nothing_else_is_said() -> None:
    """As joblib and batch systems do, so that processes share the cores of a machine."""
    cores = threads_with()
    assert threads_with(OMP_NUM_THREADS="1") == "1"
    assert threads_with(OMP_NUM_THREADS="1,4") == "1"
    assert threads_with(OMP_NUM_THREADS="1", MINIDL_NUM_THREADS="3") == "3"
    for no_limit in ("1000", "", "0", "-1", "x", "²"):
        assert threads_with(OMP_NUM_THREADS=no_limit) == cores


def test_quota_of_a_container(tmp_path: Any) -> None:
    file = tmp_path / "cpu.max"
    assert _quota(str(file)) == 64
    for text, cores in [("max 100000", 64), ("150000 100000", 2), ("10000 100000", 1)]:
        file.write_text(text)
        assert _quota(str(file)) == cores


# --- under load -----------------------------------------------------------------------------------


def random_step(seed: int) -> list[bytes]:
    """A few steps of a small random network."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 60, size=rng.integers(2, 5)).tolist()
    layers: list[nn.Layer] = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), [nn.Tanh, nn.ReLU, nn.Sigmoid][seed % 3]()]
    model = nn.Sequential(*layers, nn.Linear(sizes[-1], 2), rng=seed)
    optimizer, loss = optim.Adam(model.parameters(), max_norm=1.0), nn.MSELoss()

    @minidl.record
    def step(x: np.ndarray, y: np.ndarray) -> Any:
        value = loss(model(x), y)
        optimizer.zero_grad()
        model.backward(loss.backward())
        optimizer.step()
        return value

    rows = int(rng.integers(1, 50))
    X = rng.normal(size=(rows, sizes[0])).astype(np.float32)
    Y = rng.normal(size=(rows, 2)).astype(np.float32)
    losses = [float(step(X, Y)) for _ in range(4)]
    losses.append(step.epoch(X, Y, 4, rng=0))
    return [np.array(losses).tobytes(), optimizer.flat.data.tobytes()]


def test_load_of_more_threads_than_cores() -> None:
    seeds = list(range(40))
    with shared_by(1):
        alone = [random_step(seed) for seed in seeds]
    begin = time.monotonic()
    for round in range(3):
        with shared_by(16):
            for seed in random.Random(round).sample(seeds, len(seeds)):
                assert random_step(seed) == alone[seed]
        if time.monotonic() - begin > 4:
            break
    assert time.monotonic() - begin < PATIENCE


def test_one_thread_and_the_team_are_both_tried() -> None:
    training, X, Y = plain_regression()
    used = set()
    with shared_by(2):
        step = minidl.record(training.step)
        step(X, Y)
        step._latest.program.always_team = False
        begin = time.monotonic()
        while used != {1, 2} and time.monotonic() - begin < PATIENCE:
            step(X, Y)
            used.add(step._latest.program.used)
    assert used == {1, 2}


def choices_made(milliseconds: list[list[int]]) -> list[int]:
    """0 alone, 1 together, of steps that take so long alone and together."""
    from minidl._kernels.executor import autotune  # needs compiled kernels

    return autotune.choices_made([(alone * 10**6, both * 10**6) for alone, both in milliseconds])


def test_the_faster_way_is_taken() -> None:
    """Where a sample is several steps, and where it is one."""
    for alone, together in ((1, 2), (2, 1), (30, 20), (20, 30)):
        ways = choices_made([[alone, together]] * 20000)
        faster = int(together < alone)
        assert ways.count(faster) > 0.98 * len(ways)
        assert 1 - faster in ways[10000:]  # it is still tried


def test_what_holds_up_single_steps_changes_no_way() -> None:
    rng = np.random.default_rng(0)
    held_up = 1 + 4 * (rng.random((20000, 2)) < 0.4)  # many steps take five times as long
    costs = (np.array([40, 20]) * held_up).tolist()
    assert choices_made(costs).count(1) > 0.97 * len(costs)


def test_another_way_when_the_machine_changes() -> None:
    calm, busy = [[40, 20]], [[50, 90]]
    ways = choices_made(3000 * calm + 3000 * busy + 3000 * calm)
    for begin, way in ((2500, 1), (5500, 0), (8500, 1)):
        assert ways[begin : begin + 500].count(way) > 450


def test_a_bad_beginning_is_soon_forgotten() -> None:
    """Such as threads of another library that still wait for work, in a busy loop."""
    ways = choices_made([[40, 60]] * 6 + [[40, 20]] * 400)
    assert ways[5:7] == [1, 0]  # misled by the end of the first trial
    assert ways[50:].count(1) > 0.9 * len(ways[50:])
    assert choices_made([[40, 20]] * 20000).count(0) < 220  # and trials become rare


def test_eight_python_threads_train_eight_models(expected: dict[str, bytes]) -> None:
    with shared_by(2), ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: train_shared(), range(16), timeout=PATIENCE))
    assert all(result == expected for result in results)


def train_shared() -> dict[str, bytes]:
    """``train``, with the settings of the caller."""
    training, (X, Y) = everything(), classes()
    step = minidl.record(training.step)
    for epoch in range(2):
        step.epoch(X, Y, 16, rng=epoch)
    return training.bits()


def test_a_step_shared_by_python_threads() -> None:
    """Calls come one after the other, whoever records first; no step is lost or torn."""
    training, X, Y = plain_regression()
    training.optimizer.lr = 0.0
    step = minidl.record(training.step, copy=True)
    batches = [(X[:n].copy(), Y[:n].copy()) for n in (1, 3, 8)]
    values = [float(training.loss(training.model(x), y)) for x, y in batches]
    barrier = threading.Barrier(6)

    def work(number: int) -> None:
        barrier.wait()
        for i in range(150):
            step(*batches[(number + i) % 3])

    with shared_by(2), ThreadPoolExecutor(6) as pool:
        for future in [pool.submit(work, number) for number in range(6)]:
            future.result(timeout=PATIENCE)
    assert training.optimizer.steps == 6 * 150
    for parameter in training.model.parameters():
        assert type(parameter.data) is np.ndarray
    assert [float(step(*batch)) for batch in batches] == values


def test_a_step_is_not_run_while_it_is_recorded() -> None:
    training, X, Y = plain_regression()
    weight = training.model.parameters()[0].data
    seen = []

    def function(x: Any, y: Any) -> Any:
        before = weight.tobytes()
        time.sleep(0.02)
        seen.append(weight.tobytes() == before)
        return training.step(x, y)

    step = minidl.record(function)
    step(X, Y)
    with runs(lambda: step(X, Y)):
        for n in (1, 3, 8):
            step(X[:n].copy(), Y[:n].copy())
    assert len(seen) > 4
    assert all(seen)


def test_a_function_is_recorded_while_another_changes_its_parameters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    training, X, Y = plain_regression()
    step, forward = minidl.record(training.step), minidl.record(training.model)
    step(X, Y)
    copy = Shadow._copy

    def slow(shadow: Shadow, memory: np.ndarray) -> np.ndarray:
        time.sleep(0.02)
        return copy(shadow, memory)

    monkeypatch.setattr(Shadow, "_copy", slow)
    with runs(lambda: step(X, Y)):
        for n in (1, 3, 8):
            forward(X[:n].copy())  # is proved on memory as it was when it was traced


@contextmanager
def runs(function: Callable[[], Any]) -> Iterator[None]:
    """Call a function again and again in another thread meanwhile."""
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            function()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(work)
        try:
            yield
        finally:
            done.set()
        running.result(timeout=PATIENCE)


def test_a_step_may_go_while_others_run(expected: dict[str, bytes]) -> None:
    with shared_by(2), ThreadPoolExecutor(4) as pool:
        running = [pool.submit(train_shared) for _ in range(8)]
        for seed in range(30):
            random_step(seed)  # made, run and dropped
        assert all(future.result(timeout=PATIENCE) == expected for future in running)


def test_no_core_is_kept_busy() -> None:
    train(threads=4)
    time.sleep(0.02)
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.005


# --- other processes --------------------------------------------------------------------------


def train_into(queue: Any) -> None:
    queue.put(train())


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_processes_of_all_kinds(method: str, expected: dict[str, bytes]) -> None:
    assert train() == expected  # so that there is a team to lose
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    children = [context.Process(target=train_into, args=(queue,)) for _ in range(2)]
    for child in children:
        child.start()
    assert [queue.get(timeout=PATIENCE) for _ in children] == [expected] * 2
    for child in children:
        child.join(PATIENCE)
        assert child.exitcode == 0
    assert train() == expected


@unix
def test_a_step_goes_on_in_a_forked_child() -> None:
    training, (X, Y) = everything(), classes()
    other = everything()
    step, same = minidl.record(training.step), minidl.record(other.step)
    with shared_by(4):
        step.epoch(X, Y, 16, rng=0)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:  # pragma: no cover
            status = 1
            try:
                step.epoch(X, Y, 16, rng=1)
                os.write(writer, training.optimizer.flat.data.tobytes())
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        os.close(writer)
        data = os.read(reader, 1 << 16)
        os.close(reader)
    for epoch in range(2):
        same.epoch(X, Y, 16, rng=epoch)
    assert data == other.optimizer.flat.data.tobytes()
    step.epoch(X, Y, 16, rng=1)
    assert training.bits() == other.bits()


@unix
def test_fork_while_another_thread_trains() -> None:
    stop = threading.Event()

    def go_on() -> None:
        while not stop.is_set():
            random_step(1)

    with shared_by(4):
        worker = threading.Thread(target=go_on)
        worker.start()
        try:
            for _ in range(5):
                child = os.fork()
                if child == 0:  # pragma: no cover
                    status = 1
                    try:
                        random_step(2)
                        status = 0
                    finally:
                        os._exit(status)
                assert waited_for(child) == 0
        finally:
            stop.set()
            worker.join(PATIENCE)


def waited_for(child: int) -> int:
    """The exit status of a child, which must come."""
    for _ in range(PATIENCE * 100):
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return status
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -1


@pytest.mark.parametrize("backend_of_joblib", ["loky", "threading", "multiprocessing"])
def test_joblib(backend_of_joblib: str) -> None:
    joblib = pytest.importorskip("joblib")
    with shared_by(1):
        alone = [random_step(seed) for seed in range(6)]
    with shared_by(2):
        pool = joblib.Parallel(n_jobs=2, backend=backend_of_joblib, timeout=PATIENCE)
        assert pool(joblib.delayed(random_step)(seed) for seed in range(6)) == alone


def test_processes_of_joblib_share_the_cores() -> None:
    joblib = pytest.importorskip("joblib")
    counts = joblib.Parallel(n_jobs=2, timeout=PATIENCE)(
        joblib.delayed(minidl.get_num_threads)() for _ in range(2)
    )
    assert counts == [max(1, (os.cpu_count() or 1) // 2)] * 2


# --- Ctrl-C -------------------------------------------------------------------------------------


@unix
@pytest.mark.parametrize("threads", [1, 2])
def test_an_interrupt_comes_between_two_steps(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An epoch of a fast machine takes hardly longer than C goes on before it looks for Ctrl-C.
    monkeypatch.setattr(epochs_of_steps, "SLICE", 0.005)
    training, X, Y = plain_regression(rows=50)
    other, _, _ = plain_regression(rows=50)
    epoch = 40_000  # steps, so many that an interrupt hardly ever finds the end of one
    many = np.tile(X, (epoch, 1)), np.tile(Y, (epoch, 1))
    made = []
    with shared_by(threads):
        step = minidl.record(training.step)
        for _ in range(3):
            started = threading.Event()

            def interrupt(started: threading.Event = started) -> None:
                started.wait(PATIENCE)
                time.sleep(0.15)
                os.kill(os.getpid(), signal.SIGINT)

            def train(started: threading.Event = started) -> None:
                started.set()  # earlier or later, the signal would hit whoever runs then
                deadline = time.monotonic() + PATIENCE
                while time.monotonic() < deadline:
                    step.epoch(*many, 50, shuffle=False)

            thread = threading.Thread(target=interrupt)
            thread.start()
            with pytest.raises(KeyboardInterrupt):
                train()
            thread.join()
            made.append(training.optimizer.steps)
    assert any(steps % epoch for steps in np.diff(made, prepend=0))
    same = minidl.record(other.step)
    for left in range(made[-1], 0, -epoch):
        rows = 50 * min(left, epoch)
        same.epoch(many[0][:rows], many[1][:rows], 50, shuffle=False)
    assert training.bits() == other.bits()


def test_two_threads_with_two_shapes_of_one_step_take_turns() -> None:
    model = nn.Linear(64, 64, init=nn.init.zeros(), rng=0)
    optimizer = optim.SGD(model.parameters(), lr=2.0**-10)

    @minidl.record
    def step(x: Any, dy: Any) -> Any:
        y = model(x)
        optimizer.zero_grad()
        model.backward(dy)
        optimizer.step()
        return y

    def batch(rows: int, sign: float) -> Any:
        return np.ones((rows, 64), np.float32), np.full((rows, 64), sign / rows, np.float32)

    batches = [batch(256, 1), batch(512, -1)]  # one goes up a step of lr, the other down

    def work(x: Any, dy: Any) -> None:
        for _ in range(1000):
            step(x, dy)

    threads = [threading.Thread(target=work, args=arrays) for arrays in batches]
    for arrays in batches:
        step(*arrays)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Nobody's gradient was cleared, or taken for its own, by the other.
    np.testing.assert_array_equal(model.weight.data, 0)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("rule", [optim.SGD, optim.Adam, optim.RMSprop])
def test_only_optimizers_take_subnormal_numbers_for_zero(rule: Any, threads: int) -> None:
    model = nn.Linear(200, 200, rng=0)
    optimizer = rule(model.parameters(), lr=0.1)
    tiny = np.full((1000, 200), 1e-40, np.float32)

    def step(x: Any) -> Any:
        optimizer.step()
        return kernels.add(x, x)

    with shared_by(threads):
        recorded = minidl.record(step)
        for f in (step, recorded, recorded):
            np.testing.assert_array_equal(f(tiny), 2 * tiny)
            assert tiny.min() / 2 > 0  # nor is the thread that called left in that mode
        assert recorded._latest.program.used == threads


# --- the mode of floating point -------------------------------------------------------------------

WITHOUT_SUBNORMALS = 1 << 15 | 1 << 6  # of results, of operands
TO_ZERO = 3 << 13  # rounding


class FloatMode:
    """MXCSR of the calling thread, which holds its mode; read and set by two instructions."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._memory.write(bytes.fromhex("0fae1fc3 0fae17c3"))  # stmxcsr [rdi]; ldmxcsr [rdi]
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        prototype = ctypes.CFUNCTYPE(None, ctypes.POINTER(ctypes.c_uint32))
        self._read, self._write = prototype(address), prototype(address + 4)

    @contextmanager
    def changed(self, bits: int) -> Iterator[None]:
        """In another mode for a while."""
        before = ctypes.c_uint32()
        self._read(before)
        self._write(ctypes.c_uint32(before.value | bits))
        try:
            yield
        finally:
            self._write(before)


@unix
@pytest.mark.skipif(platform.machine() != "x86_64", reason="writes instructions of x86-64")
@pytest.mark.parametrize("bits", [WITHOUT_SUBNORMALS, TO_ZERO])
def test_all_threads_compute_in_the_mode_of_the_caller(bits: int) -> None:
    mode = FloatMode()
    layer = nn.LeakyReLU(0.3)
    x = np.random.default_rng(0).normal(size=(4096, 64)).astype(np.float32)
    x[::2] *= 1e-39
    results: dict[bool, list[bytes]] = {False: [], True: []}
    for threads in (1, 4):
        with shared_by(threads):
            step = minidl.record(lambda x: layer(x), copy=True)
            for _ in range(3):
                results[False].append(step(x).tobytes())
                with mode.changed(bits):
                    results[True].append(step(x).tobytes())
            again = minidl.record(lambda x: layer(x), copy=True)
            with mode.changed(bits):  # a recording is compared with what the team makes of it
                results[True].append(again(x).tobytes())
            assert step._latest.program.used == threads
    assert [len(set(found)) for found in results.values()] == [1, 1]
    assert results[False][0] != results[True][0]
