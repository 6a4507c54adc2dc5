"""Trainer.predict and evaluate from eight threads over models as ``fit`` leaves them.

``make stress`` makes 100,000 calls; ``make test`` a small sample of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import numpy as np

from minidl import nn, optim
from minidl.training import Trainer

THREADS = 8
CALLS = 100_000
RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 6)).astype(np.float32)
SEQUENCES = RNG.normal(size=(64, 9, 6)).astype(np.float32)
LABELS = RNG.integers(3, size=64)
ROWS = (1, 5, 64)  # of a call


def models() -> dict[str, Callable[[], tuple[Trainer, np.ndarray]]]:
    """Makers of a trained trainer and its data, by name."""
    return {"batch norm": _batch_norm, "dropout": _dropout, "recurrent": _recurrent}


def _batch_norm() -> tuple[Trainer, np.ndarray]:
    return _trained(X, nn.Linear(6, 16), nn.BatchNorm(16), nn.ReLU(), nn.Linear(16, 3))


def _dropout() -> tuple[Trainer, np.ndarray]:
    return _trained(X, nn.Linear(6, 16), nn.Tanh(), nn.Dropout(0.5), nn.Linear(16, 3))


def _recurrent() -> tuple[Trainer, np.ndarray]:
    gru = nn.GRU(6, 8, num_layers=2, dropout=0.3, return_sequences=False)
    return _trained(SEQUENCES, gru, nn.BatchNorm(8), nn.Linear(8, 3))


def _trained(x: np.ndarray, *layers: nn.Layer) -> tuple[Trainer, np.ndarray]:
    model = nn.Sequential(*layers, rng=0)
    trainer = Trainer(model, nn.CrossEntropyLoss(), optim.Adam(model.parameters()), rng=0)
    trainer.fit(x, LABELS, 2, 16, progress=False)
    return trainer, x


def hammer(name: str, make: Callable[[], tuple[Trainer, np.ndarray]], calls: int) -> list[str]:
    """Call from eight threads; what was wrong, in words."""
    trainer, x = make()
    state = {path: array.copy() for path, array in trainer.model.state().items()}
    modes = [layer.training for _, layer in trainer.model.layers()]
    outputs = {rows: trainer.predict(x[:rows]) for rows in ROWS}
    scores = {rows: trainer.evaluate(x[:rows], LABELS[:rows]) for rows in ROWS}
    numbers, wrong = count(), []

    def work(_: int) -> None:
        while (number := next(numbers)) < calls:
            rows = ROWS[number % len(ROWS)]
            try:
                if number % 4 == 3:
                    good = trainer.evaluate(x[:rows], LABELS[:rows]) == scores[rows]
                else:
                    good = np.array_equal(trainer.predict(x[:rows]), outputs[rows])
            except Exception as error:
                good = False
                wrong.append(f"{name}: call {number} raised {error!r}")
            if not good:
                wrong.append(f"{name}: call {number} of {rows} rows is wrong")

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(THREADS) as threads:
            list(threads.map(work, range(THREADS)))
    finally:
        sys.setswitchinterval(interval)
    for path, array in trainer.model.state().items():
        if not np.array_equal(array, state[path]):
            wrong.append(f"{name}: {path} was moved")
    if [layer.training for _, layer in trainer.model.layers()] != modes:
        wrong.append(f"{name}: modes were changed")
    return wrong


def main() -> int:
    """Make all calls and report."""
    wrong = []
    for name, make in models().items():
        calls = -(-CALLS // len(models()))
        found = hammer(name, make, calls)
        print(f"{name}: {calls:,} calls of predict and evaluate from {THREADS} threads, ", end="")
        print(f"{len(found)} wrong")
        wrong += found
    print("\n".join(wrong[:20]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
