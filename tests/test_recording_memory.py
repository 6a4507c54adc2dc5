"""What a recorded step does with memory: its plan, its waits, and no allocation afterwards."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import tracemalloc
import weakref
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recording_helpers import Training, classes, everything, plain_regression, shared_by
from test_recording import optimizers, stacks

import minidl
from minidl import _kernels, kernels, nn, optim
from minidl._kernels.executor.calls import TEMPORARY, Buffer, KernelCall, Operand
from minidl._kernels.signature import KERNELS
from minidl.recording import plan as planning

LONG = os.environ.get("MINIDL_LONG_TESTS") == "1"

pytestmark = pytest.mark.skipif(_kernels.isa == "reference", reason="the twin records nothing")


def recorded_by(step: Any, *inputs: np.ndarray) -> Any:
    """The program of a step for these inputs."""
    step(*inputs)
    return step._latest


# --- the plan -------------------------------------------------------------------------------


def called(kernel: str, operands: list[Operand]) -> KernelCall:
    return KernelCall(KERNELS[kernel], 0, bytearray(256), operands, 0, "", "")


@st.composite
def programs(draw: st.DrawFn) -> tuple[list[KernelCall], list[Buffer]]:
    sizes = draw(st.lists(st.integers(1, 400), min_size=1, max_size=12))
    buffers = [Buffer(TEMPORARY, str(i), np.empty(n, np.uint8)) for i, n in enumerate(sizes)]
    used = st.lists(st.sampled_from(buffers), min_size=1, max_size=3, unique_by=id)
    calls = [
        called("add", [Operand("aby"[i], "u", r) for i, r in enumerate(chosen)])
        for chosen in draw(st.lists(used, min_size=1, max_size=12))
    ]
    return calls, draw(st.lists(st.sampled_from(buffers), max_size=2))


@given(program=programs())
@settings(max_examples=150)
def test_memory_of_what_is_needed_at_the_same_time_is_apart(
    program: tuple[list[KernelCall], list[Buffer]],
) -> None:
    calls, returned = program
    size = planning.place(calls, returned)
    # By brute force: which buffers are needed around each call.
    used = [{id(o.buffer): o.buffer for o in call.operands} for call in calls]
    kept = {id(buffer): buffer for buffer in returned}
    for i in range(len(calls)):
        before = {key: r for buffers in used[: i + 1] for key, r in buffers.items()}
        after = {key for buffers in used[i:] for key in buffers} | kept.keys()
        alive = sorted((r for key, r in before.items() if key in after), key=lambda r: r.place)
        assert all(r.place >= 0 and r.place % planning.LINE == 0 for r in alive)
        assert all(r.place + r.nbytes <= size for r in alive)
        for low, high in pairwise(alive):
            assert low.place + low.nbytes <= high.place
    assert planning.least_memory(calls, returned) <= size


@st.composite
def sequences(draw: st.DrawFn) -> tuple[list[KernelCall], list[Buffer]]:
    """Kernels that may write over what they read, in any order; each writes a new array."""
    buffers = [Buffer(TEMPORARY, "0", np.empty(64, np.uint8))]
    calls = [called("add", [Operand("y", "w", buffers[0])])]
    for i in range(draw(st.integers(1, 12))):
        kernel = draw(st.sampled_from(["lstm_sequence", "lstm_sequence", "add"]))
        names = [operand.name for operand in KERNELS[kernel].operands]
        operands = [Operand(name, "r", draw(st.sampled_from(buffers[-3:]))) for name in names[:2]]
        size = draw(st.sampled_from([64, 64, 64, 60, 200]))
        buffers.append(Buffer(TEMPORARY, str(i + 1), np.empty(size, np.uint8)))
        given = [
            *operands[: draw(st.integers(1, 2))],
            Operand("gates" if "gates" in names else "y", "w", buffers[-1]),
        ]
        calls.append(called(kernel, given))
    return calls, draw(st.lists(st.sampled_from(buffers[-4:]), max_size=2))


@given(program=sequences())
@settings(max_examples=500)
def test_nothing_is_written_over_before_it_was_read(
    program: tuple[list[KernelCall], list[Buffer]],
) -> None:
    calls, returned = program
    memory = np.zeros(planning.place(calls, returned), np.uint8)

    def part(buffer: Buffer) -> np.ndarray:
        return memory[buffer.place : buffer.place + buffer.nbytes]

    for call in calls:
        *reads, written = call.operands
        for operand in reads:
            assert (part(operand.buffer) == int(operand.buffer.name) + 1).all()
            # What a kernel writes over, it reads as the first of its operands only.
            assert operand is reads[0] or operand.buffer.place != written.buffer.place
        part(written.buffer)[:] = int(written.buffer.name) + 1
    for buffer in returned:
        assert (part(buffer) == int(buffer.name) + 1).all()
    assert planning.least_memory(calls, returned) <= len(memory)


def test_operands_may_lie_elsewhere_when_a_product_is_replayed() -> None:
    """Where B lies decides how it is packed, but not how much scratch memory there must be."""
    rng = np.random.default_rng(0)
    for m, k, n in ((30, 300, 256), (30, 1100, 1024), (60, 1100, 1024), (140, 40, 130)):
        step = minidl.record(kernels.matmul)
        a, b = rng.normal(size=(m, k)), rng.normal(size=(k, n))
        expected = kernels.matmul(a, b)
        for elements in (0, 1, 3, 0):
            memory = np.zeros(k * n + 8 + elements)
            start = -memory.ctypes.data % 64 // 8 + elements
            elsewhere = memory[start : start + k * n].reshape(k, n)
            elsewhere[...] = b
            assert np.array_equal(step(a, elsewhere), expected)


@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU])
def test_gates_and_their_gradients_take_the_place_of_what_they_come_from(layer: Any) -> None:
    net, loss = layer(3, 5, rng=0), nn.MSELoss()
    x, y = np.ones((4, 6, 3), np.float32), np.ones((4, 6, 5), np.float32)

    def step(x: np.ndarray, y: np.ndarray) -> Any:
        value = loss(net(x), y)
        net.backward(loss.backward())
        return value

    calls = recorded_by(minidl.record(step), x, y).calls
    found = [(call, o) for call in calls for o in call.kernel.operands if o.over]
    assert len(found) == 2
    for call, declared in found:
        over, written = (call.operand(name).buffer for name in (declared.over, declared.name))
        assert over is not written
        assert over.place == written.place


def networks() -> dict[str, tuple[Training, np.ndarray, np.ndarray]]:
    def perceptron(*sizes: int, batch: int, activation: type[nn.Layer] = nn.ReLU) -> Any:
        layers: list[nn.Layer] = []
        for a, b in pairwise(sizes):
            layers += [nn.Linear(a, b), activation()]
        model = nn.Sequential(*layers[:-1], rng=0)
        training = Training(model, nn.CrossEntropyLoss(), optim.Adam(model.parameters()))
        return training, np.zeros((batch, sizes[0]), np.float32), np.zeros(batch, np.intp)

    return {
        "small": perceptron(4, 64, 64, 2, batch=64, activation=nn.Tanh),
        "digits": perceptron(64, 128, 64, 10, batch=32),
        "wide": perceptron(784, 256, 128, 10, batch=64),
        "deep": perceptron(*[64] * 20, 10, batch=32, activation=nn.Tanh),
        "everything": (everything(), *classes(16)),
    }


@pytest.mark.parametrize("name", list(networks()))
def test_plan_needs_hardly_more_than_the_least(name: str) -> None:
    training, X, Y = networks()[name]
    recorded = recorded_by(minidl.record(training.step), X, Y)
    assert (
        recorded.workspace.least_nbytes
        <= recorded.workspace.memory.nbytes
        <= 1.1 * recorded.workspace.least_nbytes
    )
    total = sum(buffer.nbytes for buffer in recorded.buffers if buffer.kind == TEMPORARY)
    assert recorded.workspace.memory.nbytes < total


# --- who waits for whom ---------------------------------------------------------------------


def unguarded(recorded: Any) -> list[tuple[int, int]]:
    """Pairs of calls that touch the same memory on different threads, and no wait between."""
    base = _kernels.address_of(recorded.workspace.memory)

    def touches(call: KernelCall) -> list[tuple[int, int, bool]]:
        spans = []
        for operand in call.operands:
            buffer = operand.buffer
            begin = base + buffer.place if buffer.kind == TEMPORARY else buffer.begin
            spans.append((begin, begin + buffer.nbytes, operand.role != "r"))
        return spans

    found, calls = [], recorded.calls
    for j, later in enumerate(calls):
        for i, earlier in enumerate(calls[:j]):
            clash = any(
                a < d and c < b and (writes or wrote)
                for a, b, writes in touches(later)
                for c, d, wrote in touches(earlier)
            )
            alone = earlier.threads == later.threads == 1
            if clash and not alone and not any(e.wait for e in calls[i + 1 : j + 1]):
                found.append((i, j))
    return found


@given(data=st.data())
@settings(max_examples=40)
def test_every_clash_has_a_wait_between(data: st.DataObject) -> None:
    batch = data.draw(st.sampled_from([2, 33]))
    model, features, width = data.draw(stacks(batch))
    training = Training(model, nn.MSELoss(), data.draw(optimizers())(model.parameters()))
    X, Y = (np.ones((batch, n), np.float32) for n in (features, width))
    with shared_by(data.draw(st.sampled_from([2, 3, 8]))):
        recorded = recorded_by(minidl.record(training.step), X, Y)
        shared = [call for call in recorded.calls if call.threads > 1]
        assert shared
        assert unguarded(recorded) == []


def test_waits_are_as_few_as_can_be() -> None:
    """Without any one of them there would be a clash."""
    training, (X, Y) = everything(), classes(16)
    with shared_by(4):
        recorded = recorded_by(minidl.record(training.step), X, Y)
        waits = [call for call in recorded.calls if call.wait]
        assert 0 < len(waits) < len(recorded.calls)
        for call in waits:
            call.wait = False
            assert unguarded(recorded)
            call.wait = True


# --- what a call says of its operands is so -----------------------------------------------


def lasting_arrays(recorded: Any) -> list[np.ndarray]:
    arrays = {id(r.array): r.array for r in recorded.buffers if r.array.size}
    return [recorded.workspace.memory, *arrays.values()]


def spans(recorded: Any, call: KernelCall, inputs: tuple[np.ndarray, ...], kinds: str) -> list[Any]:
    """The bytes that a call reads, or writes."""
    chosen = []
    for operand in call.operands:
        buffer = operand.buffer
        if operand.role in kinds:
            if buffer.kind == TEMPORARY:
                place = slice(buffer.place, buffer.place + buffer.nbytes)
                chosen.append(recorded.workspace.memory[place])
            else:
                array = inputs[buffer.number] if buffer.kind == "input" else buffer.array
                chosen.append(array.reshape(-1).view(np.uint8))
    return chosen


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss, nn.MSELoss, nn.BCEWithLogitsLoss])
def test_operands_are_all_that_a_kernel_reads_and_writes(loss: type[nn.Loss]) -> None:
    training, (X, Y) = everything(schedule=False), classes(16)
    training.loss = loss()
    if loss is not nn.CrossEntropyLoss:
        Y = np.random.default_rng(0).uniform(size=(16, 4)).astype(np.float32)
        parameters = training.model.parameters()
        training.optimizer = optim.SGD(parameters, lr=0.1, momentum=0.9, max_norm=1.0)
    recorded = recorded_by(minidl.record(training.step), X, Y)
    rng = np.random.default_rng(0)
    arrays, inputs = lasting_arrays(recorded), (X, Y)
    recorded.program.prepare(inputs)
    for index, call in enumerate(recorded.calls):
        before = [array.copy() for array in arrays]
        reads = [span.copy() for span in spans(recorded, call, inputs, "ru")]
        recorded.program.run_one(index)
        after = [array.copy() for array in arrays]
        written = [span.copy() for span in spans(recorded, call, inputs, "wu")]
        # The same, where everything that the call does not read is noise.
        for array in arrays:
            noise = rng.integers(64, size=array.nbytes, dtype=np.uint8)
            array[...] = noise.view(array.dtype).reshape(array.shape)
        for span, values in zip(spans(recorded, call, inputs, "ru"), reads, strict=True):
            span[...] = values
        recorded.program.run_one(index)
        again = spans(recorded, call, inputs, "wu")
        for a, b in zip(again, written, strict=True):
            assert a.tobytes() == b.tobytes(), call.title
        # And nothing else has changed.
        for array, old in zip(arrays, before, strict=True):
            array[...] = old
        recorded.program.run_one(index)
        for span, values in zip(again, spans_of(before, arrays, again), strict=True):
            span[...] = values
        assert all(a.tobytes() == b.tobytes() for a, b in zip(arrays, before, strict=True))
        for array, new in zip(arrays, after, strict=True):
            array[...] = new


def spans_of(copies: list[np.ndarray], arrays: list[np.ndarray], views: list[Any]) -> list[Any]:
    """The bytes of these views of arrays, in copies of the arrays."""
    found = []
    for view in views:
        start = _kernels.address_of(view)
        for array, copy in zip(arrays, copies, strict=True):
            offset = start - _kernels.address_of(array)
            if offset >= 0 and offset + view.nbytes <= array.nbytes:
                found.append(copy.reshape(-1).view(np.uint8)[offset : offset + view.nbytes])
                break
    return found


# --- steady state ---------------------------------------------------------------------------


def steps_in_c(step: Any, X: np.ndarray, Y: np.ndarray, count: int) -> None:
    from minidl._kernels.executor.program import RowOrder  # needs compiled kernels

    recorded = step._latest
    losses = np.empty(count)
    batch = X[:1].copy(), Y[:1].copy()
    output = recorded.interface.result(batch)
    order = RowOrder(np.zeros(count, np.intp), len(X))
    tracemalloc.start()
    blocks, done = sys.getallocatedblocks(), 0
    while done < count:
        made, failed, _ = recorded.program.steps(
            (X, Y), batch, order, 1, done, count - done, [], [(output, losses)], 10.0
        )
        assert failed == 0
        done += made
    grown = sys.getallocatedblocks() - blocks
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 50
    assert peak < 10_000


@pytest.mark.parametrize("threads", [1, 2])
def test_steps_of_an_epoch_make_no_objects(threads: int) -> None:
    training, X, Y = plain_regression()
    with shared_by(threads):
        step = minidl.record(training.step)
        step(X[:1], Y[:1])
        steps_in_c(step, X, Y, 20_000 if threads == 1 else 2000)


def test_calls_make_no_objects_that_stay() -> None:
    training, X, Y = plain_regression()
    step = minidl.record(training.step)
    for _ in range(20):
        step(X, Y)
    gc.collect()
    blocks = sys.getallocatedblocks()
    for _ in range(5000):
        step(X, Y)
    assert abs(sys.getallocatedblocks() - blocks) < 20


def heap_in_use() -> int:
    """Bytes that malloc has handed out; 0 where the C library does not tell."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        return 0
    fields = [(str(i), ctypes.c_size_t) for i in range(10)]
    info = type("Info", (ctypes.Structure,), {"_fields_": fields})
    libc.mallinfo2.restype = info
    return int(getattr(libc.mallinfo2(), "7"))


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_stays_flat() -> None:
    training, X, Y = plain_regression(rows=1000)
    step = minidl.record(training.step)
    step.epoch(X, Y, 1)
    heap, pages = heap_in_use(), resident()
    for epoch in range(1000 if LONG else 20):
        step.epoch(X, Y, 1, rng=epoch)
    gc.collect()
    assert abs(heap_in_use() - heap) < 64 << 10
    assert resident() - pages < 4 << 20


def test_a_step_does_not_hold_the_data_it_was_recorded_with() -> None:
    training, X, Y = plain_regression()
    step = minidl.record(training.step)
    whole = X.copy()
    gone = weakref.ref(whole)
    step(whole[:4], Y[:4])
    step.epoch(whole, Y, 4)
    del whole
    gc.collect()
    assert gone() is None


def test_many_recordings_leave_nothing_behind() -> None:
    training, X, Y = plain_regression()
    step = minidl.record(training.step)
    step(X, Y)
    heap = 0
    for i in range(60):
        step.forget()
        step(X[: 1 + i % 8], Y[: 1 + i % 8])
        if i == 19:
            gc.collect()
            heap = heap_in_use()
    gc.collect()
    assert heap_in_use() - heap < 256 << 10
