"""Split-k: threads partition the terms of sums over many rows, and not a bit is different."""

from __future__ import annotations

from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
from recording_helpers import shared_by
from training_helpers import compiled

import minidl
from minidl import kernels, nn

REDUCTION = "reduce_partials"

ROWS = 2048  # the fewest that are split
# Of x and dy: whole vectors and not, one row, few columns (whose product is computed as C', and
# transposed), and so many outputs that split-k would not pay.
WIDTHS = [(32, 16), (33, 17), (1, 40), (16, 4), (64, 1), (70, 3), (5, 64), (100, 130), (300, 200)]
SPLIT = {(32, 16), (33, 17), (16, 4), (64, 1), (70, 3), (5, 64), (100, 130)}


def gradients(
    rows: int, m: int, n: int, dtype: Any, threads: int, clears: bool
) -> tuple[list[bytes], list[str]]:
    """The gradients of a weight and a bias after two steps, and the kernels of a step.

    Each step adds to the gradients, or clears them first. With 0 threads it is not recorded.
    """
    rng = np.random.default_rng(rows + m + n)
    layer = nn.Linear(m, n, dtype=dtype, rng=0)
    optimizer = minidl.optim.SGD(layer.parameters())
    x, dy = rng.normal(size=(rows, m)).astype(dtype), rng.normal(size=(rows, n)).astype(dtype)

    def step(x: Any, dy: Any) -> Any:
        if clears:
            optimizer.zero_grad()
        kernels.linear_grad_params(x, dy, layer.weight.grad, layer.bias.grad)
        return kernels.relu(dy)

    with shared_by(max(threads, 1)):
        run: Any = minidl.record(step) if threads else step
        run(x, dy)
        layer.weight.grad[...], layer.bias.grad[...] = 0.5, -0.0
        for _ in range(2):
            run(x, dy)
    names = [call.kernel.name for call in run._latest.calls] if threads else []
    return [layer.weight.grad.tobytes(), layer.bias.grad.tobytes()], names


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("rows", [ROWS, 2 * ROWS + 37])
def test_gradients_are_the_same_to_the_bit(
    isa: str, rows: int, widths: tuple[int, int], dtype: Any
) -> None:
    if isa == "reference":
        pytest.skip("the twin has no threads")
    for clears in (True, False):
        expected, _ = gradients(rows, *widths, dtype, threads=0, clears=clears)
        for threads in (1, 2, 3, 33) if rows == ROWS else (2, 5):  # 33: more than blocks of k
            found, names = gradients(rows, *widths, dtype, threads=threads, clears=clears)
            assert found == expected, threads
            pairs = list(pairwise(names))
            assert ("column_sum", REDUCTION) in pairs
            if dtype is np.float32:
                assert (("matmul", REDUCTION) in pairs) == (widths in SPLIT)


@compiled
def test_few_rows_are_not_split() -> None:
    for rows, widths in product((1, 128, ROWS - 1), [(32, 16), (16, 4)]):
        _, names = gradients(rows, *widths, np.float32, threads=2, clears=False)
        assert REDUCTION not in names


def test_training_with_large_batches_is_the_same_on_any_number_of_threads() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3 * ROWS + 5, 4)).astype(np.float32)
    Y = rng.integers(3, size=len(X))
    bits = []
    for threads in (1, 2, 4):
        model = nn.Sequential(
            nn.Linear(4, 32), nn.Tanh(), nn.BatchNorm(32), nn.Linear(32, 16), nn.ReLU(),
            nn.Linear(16, 3), rng=0,
        )  # fmt: skip
        loss, optimizer = nn.CrossEntropyLoss(), minidl.optim.Adam(model.parameters(), max_norm=0.1)

        @minidl.record
        def step(x: Any, y: Any, model: Any = model, loss: Any = loss, opt: Any = optimizer) -> Any:
            value = loss(model(x), y)
            opt.zero_grad()
            model.backward(loss.backward())
            opt.step()
            return value

        with shared_by(threads):
            for epoch in range(2):
                step.epoch(X, Y, batch_size=ROWS, rng=epoch)
        bits.append([p.data.tobytes() for p in model.parameters()])
    assert bits[0] == bits[1] == bits[2]
