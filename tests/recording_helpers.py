"""What the tests of recorded steps share: a model with everything in it, and its state as bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import minidl
from minidl import nn, optim
from minidl._kernels.executor.program import Program
from minidl.recording import plan as planning
from minidl.recording import program as recorded


@contextmanager
def shared_by(threads: int) -> Iterator[None]:
    """Have every kernel that can be shared by so many threads shared, however small, and always:
    a program is not to try whether it would be faster alone.
    """
    costs, before = (planning.LEAST_WORK, planning.BARRIER), minidl.get_num_threads()
    planning.LEAST_WORK, planning.BARRIER = 1e-3, 0.0
    minidl.set_num_threads(threads)
    recorded.Program = _together
    try:
        yield
    finally:
        recorded.Program = Program
        planning.LEAST_WORK, planning.BARRIER = costs
        minidl.set_num_threads(before)


def _together(*args: Any) -> Program:
    program = Program(*args)
    program.always_team = True
    return program


class Training:
    """A model, a loss, an optimizer, and the step that trains them."""

    def __init__(self, model: nn.Layer, loss: nn.Loss, optimizer: optim.Optimizer) -> None:
        self.model, self.loss, self.optimizer = model, loss, optimizer

    def step(self, x: np.ndarray, y: np.ndarray, *weight: np.ndarray) -> Any:
        value = self.loss(self.model(x), y, *weight)
        self.optimizer.zero_grad()
        self.model.backward(self.loss.backward())
        self.optimizer.step()
        return value

    def arrays(self) -> dict[str, np.ndarray]:
        """All that a step may change."""
        found = {f"{n}.data": p.data for n, p in self.model.named_parameters()}
        found |= {f"{n}.grad": p.grad for n, p in self.model.named_parameters()}
        found |= self.model.state()
        return found | {n: a for n, a in vars(self.optimizer).items() if isinstance(a, np.ndarray)}

    def bits(self, but: tuple[str, ...] = ()) -> dict[str, bytes]:
        """The same, to compare. After a step that failed, gradients do not matter."""
        return {n: a.tobytes() for n, a in self.arrays().items() if not n.endswith(but or "\0")}

    def trained(self) -> dict[str, bytes]:
        return self.bits(but=(".grad",))


def everything(dtype: Any = np.float32, schedule: bool = True) -> Training:
    """A classifier of 6 features into 4 classes, with every kind of layer and option."""
    model = nn.Sequential(
        nn.Linear(6, 17),
        nn.BatchNorm(17),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Residual(nn.Sequential(nn.Linear(17, 17), nn.Tanh())),
        nn.Residual(nn.Linear(17, 9, bias=False), shortcut=nn.Linear(17, 9)),
        nn.Sigmoid(),
        nn.Linear(9, 4),
        rng=0,
    ).astype(dtype)
    optimizer = optim.Adam(
        model.parameters(),
        lr=(lambda step: 0.02 / (1 + step)) if schedule else 0.01,
        weight_decay=1e-3,
        max_norm=0.5,
    )
    return Training(model, nn.CrossEntropyLoss(), optimizer)


def classes(rows: int = 70, dtype: Any = np.float32) -> tuple[np.ndarray, np.ndarray]:
    """Data for ``everything``."""
    rng = np.random.default_rng(1)
    return rng.normal(size=(rows, 6)).astype(dtype), rng.integers(4, size=rows)


def plain_regression(features: int = 3, rows: int = 40) -> tuple[Training, np.ndarray, np.ndarray]:
    """A small model and data for it, where any will do."""
    rng = np.random.default_rng(2)
    model = nn.Sequential(nn.Linear(features, 8), nn.Tanh(), nn.Linear(8, 1), rng=0)
    training = Training(model, nn.MSELoss(), optim.Adam(model.parameters(), lr=0.01, max_norm=1.0))
    X = rng.normal(size=(rows, features)).astype(np.float32)
    return training, X, X[:, :1] * X[:, -1:]
