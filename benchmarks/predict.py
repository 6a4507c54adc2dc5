"""Compare ``Trainer.predict`` with the same forward pass written in NumPy.

python benchmarks/predict.py

Both run in one process, in alternating rounds; it prints medians and the median of the ratios.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from minidl import Trainer, nn, optim

ROUNDS, CALLS = 31, 1000
ROWS = (1, 16, 64)


def seconds(function: Callable[[], object]) -> float:
    """Measure the seconds of one call, the mean of many."""
    begun = time.perf_counter()
    for _ in range(CALLS):
        function()
    return (time.perf_counter() - begun) / CALLS


def main() -> None:
    """Measure a 4-64-64-2 network."""
    model = nn.Sequential(
        nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 2), rng=0
    )
    trainer = Trainer(model, nn.MSELoss(), optim.SGD(model.parameters()))
    weights = [parameter.data.copy() for parameter in model.parameters()]

    def by_hand(x: np.ndarray) -> np.ndarray:
        h = np.tanh(x @ weights[0] + weights[1])
        h = np.tanh(h @ weights[2] + weights[3])
        return h @ weights[4] + weights[5]

    print("4-64-64-2 tanh, microseconds a call, and minidl's share of NumPy's time")
    for rows in ROWS:
        x = np.random.default_rng(0).normal(size=(rows, 4)).astype(np.float32)
        ours, theirs = lambda x=x: trainer.predict(x), lambda x=x: by_hand(x)
        np.testing.assert_allclose(ours(), theirs(), rtol=1e-4, atol=1e-5)
        pairs = [(seconds(ours), seconds(theirs)) for _ in range(ROUNDS)]
        mine, numpy = (float(np.median(times)) * 1e6 for times in zip(*pairs, strict=True))
        ratio = float(np.median([a / b for a, b in pairs]))
        print(f"batch {rows:>3}: predict {mine:6.2f}, NumPy {numpy:6.2f}, ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
