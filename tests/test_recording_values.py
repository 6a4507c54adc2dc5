"""Values of a step that is being recorded: every way to read one is refused, or found out."""

from __future__ import annotations

import copy
import ctypes
import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minidl
from minidl import RecordingError, _kernels, kernels

pytestmark = pytest.mark.skipif(_kernels.isa == "reference", reason="the twin records nothing")

Door = Callable[[np.ndarray], Any]


def by_ctypes(w: np.ndarray) -> float:
    return ctypes.cast(_kernels.address_of(w), ctypes.POINTER(ctypes.c_float))[0]


def dumped(w: np.ndarray) -> Any:
    file = io.BytesIO()
    np.save(file, w)
    return file.getvalue()[-8:]


def ufunc_of_a_view(w: np.ndarray) -> Any:
    return np.add.reduce(np.asarray(w))


DOORS: dict[str, Door] = {
    "element": lambda w: w[0],
    "empty index": lambda w: w[:1].reshape(())[()],
    "bool": lambda w: bool(w[:1]),
    "float": lambda w: float(w[:1].reshape(())),
    "int": lambda w: int(w[:1].reshape(())),
    "complex": lambda w: complex(w[:1].reshape(())),
    "str": lambda w: float(str(w).strip("[]").split()[0]),
    "format": lambda w: float(f"{w}".strip("[]").split()[0]),
    "iteration": lambda w: next(iter(w)),
    "list": lambda w: list(w)[1],
    "contains": lambda w: 1.0 in w,
    "comparison": lambda w: (w > 0)[0],
    "equality": lambda w: (w == 1)[0],
    "arithmetic": lambda w: (w + 1)[0],
    "in place": lambda w: w.__iadd__(0)[0],
    "negative": lambda w: (-w)[0] * -1,
    "matmul": lambda w: w @ w,
    "divmod": lambda w: divmod(w, 1)[0][0],
    "np.asarray": lambda w: np.asarray(w)[0],
    "np.array": lambda w: np.array(w)[0],
    "np.asanyarray": lambda w: np.asarray(np.asanyarray(w))[0],
    "np.ascontiguousarray": lambda w: np.ascontiguousarray(w)[0],
    "np.require": lambda w: np.require(w)[0],
    "np.copy": lambda w: np.copy(w)[0],
    "np.frombuffer": lambda w: np.frombuffer(w, np.float32)[0],
    "np.nditer": lambda w: float(next(np.nditer(w))),
    "np.ndenumerate": lambda w: next(np.ndenumerate(w))[1],
    "np.broadcast": lambda w: next(np.broadcast(w, w))[0],
    "np.lib.stride_tricks": lambda w: np.lib.stride_tricks.as_strided(w)[0],
    "np.ndarray of it": lambda w: np.ndarray(2, np.float32, w)[0],
    "np.ndarray.view": lambda w: np.ndarray.view(w, np.ndarray)[0],
    "np.ndarray.item": lambda w: np.ndarray.item(w, 0),
    "np.ndarray.tolist": lambda w: np.ndarray.tolist(w)[0],
    "np.float32": lambda w: np.float32(w)[0],
    "np.max": lambda w: np.max(w),
    "np.where": lambda w: np.where(w, 1, -1)[0],
    "np.save": lambda w: np.frombuffer(dumped(w), np.float32)[0],
    "np.fromiter": lambda w: np.fromiter(w, np.float32)[0],
    "ufunc of a view": ufunc_of_a_view,
    "memoryview": lambda w: memoryview(w)[0],
    "asarray of memoryview": lambda w: np.asarray(memoryview(w))[0],
    "bytes": lambda w: np.frombuffer(bytes(w), np.float32)[0],
    "bytearray": lambda w: np.frombuffer(bytearray(w), np.float32)[0],
    "view of the base class": lambda w: w.view(np.ndarray)[0],
    "view by keyword": lambda w: w.view(type=np.ndarray)[0],
    "view as integers": lambda w: np.asarray(w.view(np.int32))[0],
    "ctypes": by_ctypes,
    "pickle": lambda w: pickle.loads(pickle.dumps(w))[0],
    "copy.copy": lambda w: np.asarray(copy.copy(w))[0],
    "copy.deepcopy": lambda w: np.asarray(copy.deepcopy(w))[0],
    "slots of the base": lambda w: w.base[0],
    "array interface": lambda w: w.__array_interface__["data"][0],
    "array struct": lambda w: w.__array_struct__,
    "dlpack": lambda w: np.from_dlpack(w)[0],
    "buffer": lambda w: w.data[0],
    "flat": lambda w: w.flat[0],
    "imaginary": lambda w: w.imag[0] + 1,
}
# Every method and attribute that NumPy's arrays have, whatever its arguments.
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("take", "repeat", "partition", "argpartition", "item", "compress"), (0,)),
    **dict.fromkeys(("searchsorted", "dot", "astype"), (np.float32,)),
}
OF_SHAPE = {
    *("T", "mT", "dtype", "shape", "ndim", "size", "itemsize", "nbytes", "strides", "flags"),
    *("reshape", "transpose", "swapaxes", "squeeze", "diagonal", "real", "view"),
}
METHODS = sorted({name for name in dir(np.ndarray) if not name.startswith("_")} - OF_SHAPE)


def branching(door: Door, positive: bool = True) -> Callable[[np.ndarray], np.ndarray]:
    """A function that does something else for what it has seen through the door."""

    def function(x: np.ndarray) -> np.ndarray:
        w = kernels.copy(x)
        seen = door(w)
        kernels.scale(w, 2.0 if (seen > 0) == positive else 5.0)
        return w

    return function


@pytest.mark.parametrize("door", DOORS)
def test_no_way_to_a_value_freezes_a_branch(door: str) -> None:
    x = np.array([1.0, 1.0], np.float32)
    for positive in (True, False):
        step = minidl.record(branching(DOORS[door], positive))
        with pytest.raises(RecordingError):
            step(x)
        assert step.programs == 0
    assert x.tolist() == [1.0, 1.0]


def test_the_buffer_of_an_array_is_refused() -> None:
    """Even where no value is taken from it: a replay would miss what is written through it."""

    def function(x: np.ndarray) -> np.ndarray:
        w = kernels.copy(x)
        memoryview(w)
        return w

    with pytest.raises(RecordingError, match="the buffer of its memory"):
        minidl.record(function)(np.ones(2, np.float32))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_and_attribute_is_refused(name: str) -> None:
    def function(x: np.ndarray) -> np.ndarray:
        w = kernels.copy(x)
        found = getattr(w, name)
        if callable(found):
            found(*ARGUMENTS.get(name, ()))
        return w

    with pytest.raises(RecordingError, match=rf"\.{name}"):
        minidl.record(function)(np.ones(2, np.float32))


@pytest.mark.parametrize("limit", [-1e6, -5.0, -0.5, 0.0, 0.5, 5.0, 1e6])
def test_a_limit_anywhere_is_found_out(limit: float) -> None:
    """Whatever side of it the value is on when the step is recorded."""

    def function(x: np.ndarray) -> np.ndarray:
        w = kernels.tanh(x)
        return kernels.relu(w) if np.asarray(w).max() > limit else w

    with pytest.raises(RecordingError, match="does not do the same"):
        minidl.record(function)(np.array([0.1, -2.0], np.float32))


def test_reads_of_inputs_labels_parameters_and_state_are_found_out() -> None:
    model = minidl.nn.Sequential(minidl.nn.Linear(2, 2), minidl.nn.BatchNorm(2), rng=0)
    optimizer = minidl.optim.Adam(model.parameters())
    labels = np.array([0, 1])
    x = np.ones((2, 2), np.float32)

    def made(read: Callable[[], Any]) -> Callable[..., Any]:
        def function(x: np.ndarray, y: np.ndarray) -> np.ndarray:
            z = model(x)
            optimizer.zero_grad()
            return kernels.relu(z) if np.asarray(read(x, y)).ravel()[0] > 0 else z  # type: ignore[call-arg]

        return function

    reads: list[Callable[..., Any]] = [
        lambda x, y: x,
        lambda x, y: y,
        lambda x, y: model[0].weight.data,
        lambda x, y: model[0].weight.grad,
        lambda x, y: model[1].running_var,
        lambda x, y: optimizer.flat.data,
        lambda x, y: optimizer.moment1,
    ]
    for read in reads:
        with pytest.raises(RecordingError, match="does not do the same"):
            minidl.record(made(read))(x, labels)


def test_what_may_be_asked_of_an_array() -> None:
    def function(x: np.ndarray) -> np.ndarray:
        assert (x.shape, x.ndim, x.size, len(x), x.dtype) == ((2, 3), 2, 6, 2, np.float32)
        return kernels.relu(x.reshape(3, 2).T[1:])

    step = minidl.record(function)
    x = np.arange(6, dtype=np.float32).reshape(2, 3) - 2
    for _ in range(2):
        assert np.array_equal(step(x), np.maximum(x.reshape(3, 2).T[1:], 0))


def test_a_number_that_changes_from_run_to_run_is_found_out() -> None:
    count = [0]

    def function(x: np.ndarray) -> np.ndarray:
        count[0] += 1
        w = kernels.copy(x)
        kernels.scale(w, count[0])
        return w

    with pytest.raises(RecordingError, match="does not do the same"):
        minidl.record(function)(np.ones(2, np.float32))


def test_numpy_that_writes_through_a_view_is_found_out() -> None:
    def function(x: np.ndarray) -> np.ndarray:
        w = kernels.copy(x)
        np.asarray(w)[...] *= 2
        return w

    with pytest.raises(RecordingError, match="its replay does not"):
        minidl.record(function)(np.ones(2, np.float32))
