"""Schedules: their formulas, PyTorch's values, and recorded steps that follow them."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minidl
from minidl import nn, optim
from minidl.optim import schedules
from minidl.training import Trainer

STEPS = 130
every_schedule = pytest.mark.parametrize("schedule", schedules.EXAMPLES, ids=repr)
THEN_COSINE = next(s for s in schedules.EXAMPLES if repr(s).startswith("warmup(cosine"))


def test_every_schedule_has_an_example() -> None:
    functions = {
        name
        for name, function in vars(schedules).items()
        if inspect.isfunction(function)
        and not name.startswith("_")
        and inspect.signature(function).return_annotation == "Schedule"
    }
    assert functions == {schedule.name for schedule in schedules.EXAMPLES}


def peer_of(schedule: schedules.Schedule, optimizer: Any) -> Any:
    """PyTorch's scheduler with the same settings, if there is one."""
    theirs = pytest.importorskip("torch.optim.lr_scheduler")
    lr, *rest = schedule.arguments
    match schedule.name:
        case "step_decay":
            return theirs.StepLR(optimizer, *rest)
        case "exponential":
            return theirs.ExponentialLR(optimizer, *rest)
        case "cosine":
            return theirs.CosineAnnealingLR(optimizer, *rest)
        case "warmup" if not callable(lr):
            return theirs.LinearLR(optimizer, rest[1], total_iters=rest[0])
        case "one_cycle":
            steps, rise, divide, final_divide = rest
            options = {"pct_start": rise, "div_factor": divide, "final_div_factor": final_divide}
            return theirs.OneCycleLR(optimizer, lr, steps, **options)
        case _:
            pytest.skip(f"PyTorch has nothing like {schedule!r}")


@every_schedule
def test_rates_are_those_of_pytorch(schedule: schedules.Schedule) -> None:
    torch = pytest.importorskip("torch")
    peer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = peer_of(schedule, peer)
    for step in range(STEPS):
        assert schedule(step) == pytest.approx(peer.param_groups[0]["lr"], abs=1e-12)
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
    rate = THEN_COSINE
    assert rate(0) == pytest.approx(0.001)
    assert rate(40) == 0.1
    assert rate(85) == pytest.approx(0.05)
    assert rate(130) == rate(10**6) == 0


@every_schedule
def test_schedule_can_be_pickled_and_read(schedule: schedules.Schedule) -> None:
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


@every_schedule
def test_recorded_steps_follow_the_schedule(backend: str, schedule: schedules.Schedule) -> None:
    def make(model: nn.Layer) -> optim.Optimizer:
        return optim.Adam(model.parameters(), lr=schedule)

    assert trained(make, recorded=True) == trained(make, recorded=False)


def test_every_group_follows_its_own_schedule(backend: str) -> None:
    def make(model: Any) -> optim.Optimizer:
        slow = {"params": model[2].parameters(), "lr": schedules.exponential(0.01, 0.9)}
        return optim.SGD([{"params": model[0].parameters()}, slow], lr=schedules.cosine(0.1, 30))

    assert trained(make, recorded=True) == trained(make, recorded=False)


def cut_short(step: int) -> float:
    return [0.1, 0.2, 0.3, 0.2, 0.1, 0.05, 0.01, float("nan")][step]


def falls_below_zero(step: int) -> float:
    return 0.1 - 0.02 * step


@pytest.mark.parametrize("schedule", [cut_short, falls_below_zero])
def test_a_schedule_that_fails_ends_training_at_that_step(
    backend: str, schedule: Callable[[int], float]
) -> None:
    found = []
    for record in (True, False):
        model, X, Y = problem()
        constant = {"params": model[0].parameters(), "lr": schedules.exponential(0.1, 0.9)}
        optimizer = optim.SGD([constant, {"params": model[2].parameters(), "lr": schedule}])
        trainer = Trainer(model, nn.MSELoss(), optimizer, rng=0, record=record)
        with pytest.raises(ValueError, match=r"learning_rate must be .* after \d steps"):
            trainer.fit(X, Y, 3, 8, progress=False)
        found.append((optimizer.steps, optimizer.flat.data.tobytes()))
    assert found[0] == found[1]
    assert found[0][0] == (7 if schedule is cut_short else 6)


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


def test_plateau_knows_which_values_are_good_by_their_name() -> None:
    optimizer = optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    names = ["val_loss", "val_accuracy", "top_3", "val_r2", "mae"]
    modes = [schedules.ReduceOnPlateau(optimizer, monitor=name).mode for name in names]
    assert modes == ["min", "max", "max", "max", "min"]
    assert schedules.ReduceOnPlateau(optimizer, mode="min", monitor="accuracy").mode == "min"
    with pytest.raises(ValueError, match=r'is a large .val_gain. good\? Give mode="max"'):
        schedules.ReduceOnPlateau(optimizer, monitor="val_gain")


@pytest.mark.parametrize(("mode", "values"), [("min", (-1, -2, -1.5)), ("max", (-2, -1, -1.5))])
def test_plateau_sees_one_below_zero(mode: str, values: tuple[float, ...]) -> None:
    optimizer = optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    plateau = schedules.ReduceOnPlateau(optimizer, 0.5, patience=0, mode=mode)
    assert [plateau.observe(value) for value in values] == [1.0, 1.0, 0.5]


def test_plateau_takes_nan_for_no_improvement() -> None:
    optimizer = optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    plateau = schedules.ReduceOnPlateau(optimizer, 0.5, patience=0)
    assert [plateau.observe(value) for value in (1.0, NAN, 0.5)] == [1.0, 0.5, 0.5]
    assert "patience=0" in repr(plateau)
