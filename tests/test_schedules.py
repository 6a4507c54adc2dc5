"""Schedules: their formulas, PyTorch's values, and recorded steps that follow them."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minidl
from minidl import nn, optim
from minidl.optim import schedules

STEPS = 130
SCHEDULES: dict[str, Any] = {
    "step_decay": schedules.step_decay(0.1, 30, 0.5),
    "exponential": schedules.exponential(0.1, 0.97),
    "cosine": schedules.cosine(0.1, STEPS, 1e-3),
    "warmup": schedules.warmup(0.1, 40, start=0.25),
    "one_cycle": schedules.one_cycle(0.1, STEPS),
    "one_cycle, other settings": schedules.one_cycle(0.1, STEPS, 0.47, 7.0, 30.0),
    "warmup, then cosine": schedules.warmup(schedules.cosine(0.1, 90), 40),
}


def peer_of(name: str, optimizer: Any) -> Any:
    """PyTorch's scheduler with the same settings."""
    torch_schedulers = pytest.importorskip("torch.optim.lr_scheduler")
    match name:
        case "step_decay":
            return torch_schedulers.StepLR(optimizer, 30, 0.5)
        case "exponential":
            return torch_schedulers.ExponentialLR(optimizer, 0.97)
        case "cosine":
            return torch_schedulers.CosineAnnealingLR(optimizer, STEPS, 1e-3)
        case "warmup":
            return torch_schedulers.LinearLR(optimizer, 0.25, total_iters=40)
        case "one_cycle":
            return torch_schedulers.OneCycleLR(optimizer, 0.1, STEPS)
        case _:
            options = {"pct_start": 0.47, "div_factor": 7.0, "final_div_factor": 30.0}
            return torch_schedulers.OneCycleLR(optimizer, 0.1, STEPS, **options)


@pytest.mark.parametrize("name", [name for name in SCHEDULES if "then" not in name])
def test_rates_are_those_of_pytorch(name: str) -> None:
    torch = pytest.importorskip("torch")
    peer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = peer_of(name, peer)
    for step in range(STEPS):
        assert SCHEDULES[name](step) == pytest.approx(peer.param_groups[0]["lr"], abs=1e-12)
        peer.step()
        if step < STEPS - 1:
            scheduler.step()


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("options", [{}, {"patience": 2, "cooldown": 3, "smallest": 1e-3}])
def test_plateau_is_that_of_pytorch(mode: str, options: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    peer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    theirs = {"min_lr" if k == "smallest" else k: v for k, v in options.items()}
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(peer, mode, 0.5, **theirs)
    optimizer = optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)
    plateau = schedules.ReduceOnPlateau(optimizer, 0.5, mode=mode, **options)
    rng = np.random.default_rng(0)
    for epoch in range(150):
        value = 1 + 1 / (1 + epoch) + 0.1 * rng.normal()
        scheduler.step(value)
        assert plateau.observe(value) == pytest.approx(peer.param_groups[0]["lr"], abs=1e-12)
    assert optimizer.lr < 0.1


def test_warmup_leads_to_the_schedule_that_follows() -> None:
    rate = SCHEDULES["warmup, then cosine"]
    assert rate(0) == pytest.approx(0.001)
    assert rate(40) == 0.1
    assert rate(85) == pytest.approx(0.05)
    assert rate(130) == rate(10**6) == 0


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_can_be_pickled_and_read(name: str) -> None:
    schedule = SCHEDULES[name]
    copy = pickle.loads(pickle.dumps(schedule))
    assert copy == schedule
    assert copy(17) == schedule(17)
    assert eval(repr(schedule), vars(schedules).copy()) == schedule
    assert repr(schedule) in repr(optim.SGD(nn.Linear(1, 1).parameters(), lr=schedule))


def problem() -> tuple[nn.Sequential, Any, Any]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(100, 3)).astype(np.float32)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1), rng=0)
    return model, X, X[:, :1] * X[:, 1:2]


def trained(make: Callable[[nn.Layer], optim.Optimizer], recorded: bool) -> bytes:
    """The parameters after three epochs, the last batch of each a smaller one."""
    model, X, Y = problem()
    loss, optimizer = nn.MSELoss(), make(model)

    def step(x: Any, y: Any) -> Any:
        value = loss(model(x), y)
        optimizer.zero_grad()
        model.backward(loss.backward())
        optimizer.step()
        return value

    run = minidl.record(step)
    for _ in range(3):
        if recorded:
            run.epoch(X, Y, batch_size=8, shuffle=False)
        else:
            for i in range(0, 100, 8):
                step(X[i : i + 8], Y[i : i + 8])
    return optimizer.flat.data.tobytes() + repr(optimizer.lr).encode()


@pytest.mark.parametrize("name", SCHEDULES)
def test_recorded_steps_follow_the_schedule(backend: str, name: str) -> None:
    def make(model: nn.Layer) -> optim.Optimizer:
        return optim.Adam(model.parameters(), lr=SCHEDULES[name])

    assert trained(make, recorded=True) == trained(make, recorded=False)


def test_every_group_follows_its_own_schedule(backend: str) -> None:
    def make(model: Any) -> optim.Optimizer:
        slow = {"params": model[2].parameters(), "lr": schedules.exponential(0.01, 0.9)}
        return optim.SGD([{"params": model[0].parameters()}, slow], lr=schedules.cosine(0.1, 30))

    assert trained(make, recorded=True) == trained(make, recorded=False)


NAN = float("nan")
BAD: list[tuple[Callable[..., Any], tuple[Any, ...], str]] = [
    (schedules.step_decay, (-1, 3), "lr"),
    (schedules.step_decay, (0.1, 0), "every"),
    (schedules.step_decay, (0.1, 3, 1.5), "factor"),
    (schedules.exponential, (0.1, 0), "factor"),
    (schedules.exponential, (NAN, 0.5), "lr"),
    (schedules.cosine, (0.1, 0), "steps"),
    (schedules.cosine, (0.1, 5, -1), "final"),
    (schedules.warmup, (-1, 5), "lr"),
    (schedules.warmup, (0.1, 5, 2), "start"),
    (schedules.one_cycle, (0.1, 5, 1.0), "rise"),
    (schedules.one_cycle, (0.1, 5, 0.5, 0), "divide"),
]


@pytest.mark.parametrize(("make", "arguments", "words"), BAD)
def test_bad_arguments(make: Callable[..., Any], arguments: tuple[Any, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make(*arguments)


@pytest.mark.parametrize(
    "options", [{"factor": 1.0}, {"patience": -1}, {"threshold": 1}, {"cooldown": -1}, {"mode": ""}]
)
def test_bad_plateau(options: dict[str, Any]) -> None:
    optimizer = optim.SGD(nn.Linear(1, 1).parameters())
    with pytest.raises(ValueError, match=next(iter(options))):
        schedules.ReduceOnPlateau(optimizer, **options)


def test_plateau_needs_a_rate_that_is_a_number() -> None:
    optimizer = optim.SGD(nn.Linear(1, 1).parameters(), lr=schedules.cosine(0.1, 5))
    with pytest.raises(ValueError, match="schedule"):
        schedules.ReduceOnPlateau(optimizer)


def test_plateau_takes_nan_for_no_improvement() -> None:
    optimizer = optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    plateau = schedules.ReduceOnPlateau(optimizer, 0.5, patience=0)
    assert [plateau.observe(value) for value in (1.0, NAN, 0.5)] == [1.0, 0.5, 0.5]
    assert "patience=0" in repr(plateau)
