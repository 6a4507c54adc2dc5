"""Orders of rows that somebody else's generator makes, and what C checks of rows and addresses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from recording_helpers import plain_regression

import minidl
from minidl import _kernels, kernels, nn, optim

compiled = pytest.mark.skipif(_kernels.isa == "reference", reason="needs compiled kernels")
X = np.arange(48, dtype=np.float32).reshape(16, 3)


class Sampler(np.random.Generator):
    """A generator whose permutation is an order of rows of its own."""

    def __init__(self, order: Any) -> None:
        super().__init__(np.random.PCG64(0))
        self.order = order

    def permutation(self, n: Any, axis: int = 0) -> Any:
        return self.order(np.arange(n))


def with_last(row: int) -> Any:
    """The last of the rows replaced."""
    return lambda rows: np.append(rows[:-1], row)


WRONG = {
    "behind": (with_last(16), ValueError, "16 at place 15; rows are 0 to 15"),
    "before": (with_last(-1), ValueError, "-1 at place 15; rows are 0 to 15"),
    "far away": (with_last(2_000_000_000), ValueError, "2000000000 at place 15"),
    "too few": (
        lambda rows: rows[:-1],
        TypeError,
        r"16 whole numbers, got int\d+ of shape \(15,\)",
    ),
    "floats": (lambda rows: rows / 1.0, TypeError, "16 whole numbers, got float64"),
    "a table": (lambda rows: rows.reshape(4, 4), TypeError, r"of shape \(4, 4\)"),
}


def epoch(rng: Any) -> Any:
    training, _, _ = plain_regression()
    return minidl.record(training.step).epoch(X, X[:, :1].copy(), 4, rng=rng)


def batches(rng: Any) -> Any:
    return minidl.batches(X, X, 4, rng=rng)  # at the call, before any batch


def fit(rng: Any) -> Any:
    model = nn.Linear(3, 1, rng=0)
    trainer = minidl.Trainer(model, nn.MSELoss(), optim.SGD(model.parameters(), 1e-3), rng=rng)
    return trainer.fit(X, X[:, :1].copy(), epochs=1, batch_size=4)


@pytest.mark.parametrize("use", [epoch, batches, fit])
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_order_is_refused_before_any_step(backend: str, use: Any, wrong: str) -> None:
    order, error, words = WRONG[wrong]
    with pytest.raises(error, match=words):
        use(Sampler(order))


def test_rows_may_come_more_than_once(backend: str) -> None:
    loss = nn.MSELoss()
    zeros = np.zeros_like(X)
    twice = Sampler(lambda rows: (rows // 2 * 2).astype(np.int32))
    losses = minidl.record(lambda x, y: loss(x, y)).epoch(X, zeros, 1, rng=twice, per_step=True)
    np.testing.assert_allclose(losses, (X[np.arange(16) // 2 * 2] ** 2).mean(1), rtol=1e-6)
    assert [x[0, 0] for x, _ in minidl.batches(X, X, 1, rng=twice)][:4] == [0, 0, 6, 6]


# --- what C is given ----------------------------------------------------------------------------


@compiled
@pytest.mark.parametrize("order", [[0, 4], [-1], [2**40]])
def test_an_order_for_c_is_checked(order: list[int]) -> None:
    from minidl._kernels.executor.program import RowOrder  # needs compiled kernels

    with pytest.raises(ValueError, match="but there are 4 rows"):
        RowOrder(np.array(order), 4)
    for strange in (np.zeros((2, 2), int), np.zeros(3)):
        with pytest.raises(TypeError, match="a vector of whole numbers"):
            RowOrder(strange, 4)


@compiled
def test_an_order_for_c_is_a_copy() -> None:
    from minidl._kernels.executor.program import RowOrder  # needs compiled kernels

    program, batch, losses = program_of_losses()
    order = np.arange(4)
    checked = RowOrder(order, 16)
    order[:] = 2_000_000_000
    zeros = np.zeros_like(X)
    program.steps((X, zeros), batch, checked, 1, 0, 4, [], [losses], 10.0)
    np.testing.assert_allclose(losses[1][:4], (X[:4] ** 2).mean(1), rtol=1e-6)


def program_of_losses() -> Any:
    """A program of one row, its inputs, and where its loss lies, with room for 16 of them."""
    loss = nn.MSELoss()
    step = minidl.record(lambda x, y: loss(x, y))
    batch = X[:1].copy(), X[:1].copy()
    step(*batch)
    recorded = step._latest
    return recorded.program, batch, (recorded.interface.result(batch), np.empty(16))


@compiled
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"count": 17}, "does not hold these steps"),
        ({"first": 10, "count": 7}, "does not hold these steps"),
        ({"first": -1}, "no steps of 1 rows"),
        ({"rows": 0}, "no steps of 0 rows"),
        ({"rows": 2, "count": 1}, "does not hold these steps"),
        ({"sources": (X, X[:8])}, "does not hold these steps"),
        ({"sources": (X, X[:, :2].copy())}, "does not hold these steps"),
        ({"sources": (X, X.astype(float))}, "does not hold these steps"),
        ({"sources": (X, X[:, ::-1])}, "does not hold these steps"),
        ({"targets": (X[:1].copy(), X[:2].copy())}, "not the inputs"),
        ({"targets": (X[:1].copy(),)}, "not the inputs"),
        ({"order": range(16), "sources": (X, X[:15])}, "does not hold these steps"),
        ({"order": range(15)}, "16 rows are more than the order has"),
        ({"room": 15}, "with room for all steps"),
        ({"scalars": [(np.zeros(()), np.zeros(15))]}, "a value for each of 16 steps"),
        ({"scalars": [(np.zeros(()), np.zeros(16, np.float32))]}, "contiguous float64"),
    ],
)
def test_steps_in_c_stay_within_their_arrays(change: dict[str, Any], words: str) -> None:
    from minidl._kernels.executor.program import RowOrder  # needs compiled kernels

    program, batch, (place, losses) = program_of_losses()
    usual = {"sources": (X, X), "targets": batch, "rows": 1, "first": 0, "count": 16, "scalars": []}
    given: dict[str, Any] = usual | {"order": None, "room": 16} | change
    order = None if given["order"] is None else RowOrder(np.array(given["order"]), 16)
    arrays = given["sources"], given["targets"], order
    numbers = given["rows"], given["first"], given["count"]
    outputs = [(place, losses[: given["room"]])]
    with pytest.raises(ValueError, match=words):
        program.steps(*arrays, *numbers, given["scalars"], outputs, 10.0)


@compiled
def test_a_program_is_not_run_on_other_arrays_in_parts_either() -> None:
    program, batch, _ = program_of_losses()
    longer = X[:2].copy(), X[:2].copy()
    stamps = np.empty(program_length(program, batch) + 1, np.int64)
    for run in (lambda x: program.time(x, stamps), program.prepare):
        run(batch)
        for other in (longer, batch[:1], (batch[0], None)):
            with pytest.raises(ValueError, match="not the inputs"):
                run(other)
    for index in (-1, 1000):
        with pytest.raises(IndexError, match=f"no instruction {index}"):
            program.run_one(index)


def program_length(program: Any, batch: Any) -> int:
    """How many kernels a program has, as it says itself."""
    with pytest.raises(ValueError, match="stamps must be") as error:
        program.time(batch, np.empty(0, np.int64))
    return int(str(error.value).split()[3]) - 1


# --- inputs that overlap ------------------------------------------------------------------------


def scales_the_second(x: Any, y: Any) -> Any:
    kernels.scale(y, 2.0)
    return kernels.relu(x)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("copy", [False, True])
def test_a_changed_input_that_overlaps_another_is_refused_in_any_call(
    isa: str, threads: int, copy: bool
) -> None:
    before = minidl.get_num_threads()
    minidl.set_num_threads(threads)
    try:
        step = minidl.record(scales_the_second, copy=copy)
        whole = np.arange(5000, dtype=np.float32)
        step(whole[:2000], whole[2000:4000])
        after = whole.copy()
        for x, y in ((whole[1000:3000], whole[:2000]), (whole[:2000], whole[:2000])):
            with pytest.raises(ValueError, match=r"argument 2 .* is changed in place"):
                step(x, y)
        np.testing.assert_array_equal(whole, after)
        step(whole[2000:4000], whole[:2000])  # neighbours do not overlap
        np.testing.assert_array_equal(whole[:2000], 2 * after[:2000])
    finally:
        minidl.set_num_threads(before)


def test_no_input_lies_in_a_parameter_in_any_call(isa: str) -> None:
    layer = nn.Linear(3, 3, rng=0)
    optimizer = optim.SGD(layer.parameters(), lr=0.1)

    @minidl.record
    def step(x: Any) -> Any:
        y = layer(x)
        optimizer.zero_grad()
        layer.backward(y)
        optimizer.step()
        return y

    step(X[:3].copy())
    before = layer.weight.data.copy()
    for memory in (layer.weight.data, layer.weight.grad):
        with pytest.raises(minidl.RecordingError, match=r"argument 1 .* shares memory with"):
            step(memory)
    np.testing.assert_array_equal(layer.weight.data, before)
    step(X[:3].copy())
