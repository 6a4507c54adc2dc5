"""Small trainings for the tests, and the comparison of what they leave behind."""

from __future__ import annotations

import numpy as np
import pytest

from minidl import _kernels, nn, optim
from minidl.training import Callback, Trainer, batches

compiled = pytest.mark.skipif(_kernels.isa == "reference", reason="the twin records nothing")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 4)).astype(np.float32)
LABELS = (X[:, 0] + X[:, 1] > 0).astype(np.int64) + (X[:, 2] > 0.5)
VALUES = (X @ RNG.normal(size=(4, 2))).astype(np.float32)


def classifier(seed=0, lr=1e-2, dtype=np.float32, metrics=None, **options):
    model = nn.Sequential(
        nn.Linear(4, 16),
        nn.BatchNorm(16),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Residual(nn.Sequential(nn.Linear(16, 16), nn.Tanh())),
        nn.Linear(16, 3),
        rng=seed,
    ).astype(dtype)
    optimizer = optim.Adam(model.parameters(), lr=lr, max_norm=1.0)
    loss = nn.CrossEntropyLoss()
    return Trainer(model, loss, optimizer, metrics=metrics, rng=seed, **options)


def regressor(seed=0, loss=None, lr=1e-2, outputs=2, **options):
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, outputs), rng=seed)
    optimizer = optim.SGD(model.parameters(), lr=lr)
    return Trainer(model, loss or nn.MSELoss(), optimizer, rng=seed, **options)


def everything(trainer):
    """Copies of all that training changes."""
    parts = {p.name: p.data.copy() for p in trainer.model.parameters()}
    parts |= {name: array.copy() for name, array in trainer.model.state().items()}
    parts |= {k: v.copy() for k, v in vars(trainer.optimizer).items() if k.startswith("moment")}
    return parts


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert np.array_equal(first[name], second[name]), name


def fit(trainer, epochs=2, **options):
    y = LABELS if isinstance(trainer.loss, nn.CrossEntropyLoss) else VALUES
    return trainer.fit(X, y, epochs, **{"batch_size": 16, "progress": False, **options})


def first_batches(rng, count):
    """The first batches of an epoch."""
    return [batch for batch, _ in zip(batches(X, LABELS, 16, rng), range(count), strict=False)]


class AfterEpoch(Callback):
    """Calls a function with the history after every epoch."""

    def __init__(self, function):
        self.function = function

    def on_epoch_end(self, trainer, epoch, values):
        self.function(trainer.history)
