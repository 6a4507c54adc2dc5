"""What a recorded function does beside its kernels is found out, however it is done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minidl
from minidl import _kernels, kernels, nn, optim

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 3)).astype(np.float32)
Y = RNG.normal(size=(6, 2)).astype(np.float32)


class Parts:
    """A model, its loss and its optimizer."""

    def __init__(self) -> None:
        self.model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2), rng=0)
        self.loss = nn.MSELoss()
        self.optimizer = optim.Adam(self.model.parameters(), max_norm=1.0)
        self.counter = 0

    def step(self, x: Any, y: Any) -> Any:
        value = self.loss(self.model(x), y)
        self.optimizer.zero_grad()
        self.model.backward(self.loss.backward())
        self.optimizer.step()
        return value

    def everything(self) -> list[bytes]:
        arrays = [p.data for p in self.model.parameters()]
        arrays += [self.optimizer.moment1, self.optimizer.moment2, self.optimizer.state]
        return [array.tobytes() for array in arrays]


def decay_first(parts: Parts, x: Any, y: Any) -> Any:
    for parameter in parts.model.parameters():
        parameter.data *= np.float32(0.9)
    return parts.step(x, y)


def rate_first(parts: Parts, x: Any, y: Any) -> Any:
    parts.optimizer.lr *= 0.5
    return parts.step(x, y)


def ask_steps(parts: Parts, x: Any, y: Any) -> Any:
    if parts.optimizer.steps < 2:
        parts.optimizer.lr = 0.5
    return parts.step(x, y)


def through_asarray(parts: Parts, x: Any, y: Any) -> Any:
    prediction = parts.model(x)
    np.asarray(prediction)[...] *= 3
    return parts.loss(prediction, y)


def count(parts: Parts, x: Any, y: Any) -> Any:
    parts.counter += 1
    scaled = kernels.copy(x)
    kernels.scale(scaled, 1.0 / parts.counter)
    return parts.loss(parts.model(scaled), y)


def first_time(parts: Parts, x: Any, y: Any) -> Any:
    parts.counter += 1
    return parts.loss(parts.model(kernels.tanh(x) if parts.counter == 1 else x), y)


@pytest.mark.parametrize(
    "function", [decay_first, rate_first, ask_steps, through_asarray, count, first_time]
)
def test_deeds_of_python_are_found_out(isa: str, function: Callable[..., Any]) -> None:
    parts = Parts()
    before = parts.everything()
    with pytest.raises(minidl.RecordingError):
        minidl.record(lambda x, y: function(parts, x, y))(X, Y)
    assert parts.everything() == before
    assert _kernels.recorder() is None
    parts.step(X, Y)  # trains eagerly as ever


def test_a_state_that_is_set_to_another_array_is_found_out(isa: str) -> None:
    class Memory(nn.Layer):
        state_names = ("h",)

        def __init__(self) -> None:
            self.h = np.zeros((6, 3), np.float32)

        def forward(self, x: Any) -> Any:
            self.h = kernels.add(self.h, x)
            return kernels.tanh(self.h)

    layer = Memory()
    with pytest.raises(minidl.RecordingError, match="array"):
        minidl.record(lambda x: layer(x))(X)


def test_a_backward_of_an_instance_is_heard(isa: str) -> None:
    layer = nn.Linear(3, 2, rng=0)
    layer.backward = lambda dy: kernels.tanh(nn.Linear.backward(layer, dy))  # type: ignore[method-assign]

    def function(x: Any, dy: Any) -> Any:
        layer(x)
        return layer.backward(dy)

    step = minidl.record(function)
    for x in (X, 2 * X):
        assert np.array_equal(step(x, Y), function(x, Y))


def test_a_trainer_follows_its_loss(isa: str) -> None:
    parts = Parts()
    trainer = minidl.Trainer(parts.model, parts.loss, parts.optimizer, rng=0)
    trainer.fit(X, Y, 1, batch_size=3, progress=False)
    trainer.loss = nn.MSELoss("sum")
    recorded = trainer.fit(X, Y, 1, batch_size=3, progress=False)["loss"][-1]
    assert recorded > 2 * trainer.evaluate(X, Y)["loss"] / 12  # the sum, not the mean


def test_programs_are_not_kept_for_ever(isa: str) -> None:
    step = minidl.record(lambda x, factor: kernels.tanh(x))
    for factor in range(200):
        step(X, factor)
    assert len(step._programs) <= 64
