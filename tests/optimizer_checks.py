"""What holds for every optimizer and schedule: one function for each property, as in checks.py."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import oracles
import pytest
from checks import ISAS, NoOracleError, assert_close, assert_same
from recording_helpers import Training

import minidl
from minidl import _kernels, nn, optim
from minidl.nn.parameter import Parameter

Settings = dict[str, Any]
LIMITS: list[Settings] = [{}, {"max_norm": 1.5, "max_value": 0.4, "l1": 0.05}]


def parameters(dtype: Any = np.float64) -> list[Parameter]:
    """Of odd sizes, the last of them a group of its own."""
    shapes = [(7, 3), (3,), (2, 2)]
    return [Parameter(s, nn.init.normal(), i, dtype) for i, s in enumerate(shapes)]


def built(cls: type[optim.Optimizer], settings: Settings, dtype: Any = np.float64) -> Any:
    """(optimizer in two groups, its parameters)"""
    own = parameters(dtype)
    groups = [{"params": own[:2]}, {"params": own[2:], "lr": 0.02, "weight_decay": 0.05}]
    return cls(groups, **settings), own


def advance(optimizer: optim.Optimizer, own: list[Parameter], steps: int, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        for parameter in own:
            parameter.grad = rng.normal(size=parameter.shape)
        optimizer.step()


def optimizer_oracle(cls: type[optim.Optimizer], settings: Settings) -> None:
    """Ten steps are those of the formula, parameter by parameter, in two groups."""
    plain = oracles.OPTIMIZERS.get(cls.__name__)
    if plain is None:
        raise NoOracleError(cls.__name__)
    optimizer, own = built(cls, settings)
    limits = {name: settings[name] for name in ("max_norm", "max_value") if name in settings}
    rest = {name: value for name, value in settings.items() if name not in limits}
    last = {**rest, "lr": 0.02, "weight_decay": 0.05}
    formulas = [plain(**rest), plain(**rest), plain(**last)]
    expected = [parameter.data.copy() for parameter in own]
    rng = np.random.default_rng(0)
    for step in range(10):
        grads = [rng.normal(size=parameter.shape) for parameter in own]
        for parameter, gradient in zip(own, grads, strict=True):
            parameter.grad = gradient
        norm = optimizer.step()
        np.testing.assert_allclose(norm, np.sqrt(sum((g**2).sum() for g in grads)))
        cut = oracles.clipped(grads, **limits)
        expected = [f.step(w, g) for f, w, g in zip(formulas, expected, cut, strict=True)]
        assert_close([p.data for p in own], expected, f"step {step}", rtol=1e-9, atol=1e-10)
    assert optimizer.steps == 10
    optimizer.zero_grad()
    assert not any(parameter.grad.any() for parameter in own)


def optimizer_round_trip(cls: type[optim.Optimizer], settings: Settings) -> None:
    """A copy in the middle of a training goes on as the original does."""
    optimizer, own = built(cls, settings)
    advance(optimizer, own, 5)
    other, others = copy.deepcopy((optimizer, own))
    advance(optimizer, own, 5, seed=1)
    advance(other, others, 5, seed=1)
    assert_same([p.data for p in others], [p.data for p in own], "a copy goes on otherwise")
    assert other.steps == optimizer.steps == 10


def optimizer_twin(cls: type[optim.Optimizer], settings: Settings) -> None:
    before = _kernels.isa
    try:
        for dtype, tolerance in ((np.float64, 1e-11), (np.float32, 1e-4)):
            outcomes = []
            for isa in ["reference", *ISAS]:
                _kernels.select(isa)
                optimizer, own = built(cls, settings, dtype)
                advance(optimizer, own, 7)
                outcomes.append([parameter.data.copy() for parameter in own])
            for found in outcomes[1:]:
                assert_close(found, outcomes[0], "twin", rtol=tolerance, atol=tolerance)
    finally:
        _kernels.select(before)


def optimizer_recorded(cls: type[optim.Optimizer], settings: Settings) -> None:
    results = []
    for record in (True, False):
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2), rng=0)
        optimizer = cls(model.parameters(), **settings)
        training = Training(model, nn.MSELoss(), optimizer)
        step: Any = minidl.record(training.step) if record else training.step
        rng = np.random.default_rng(0)
        found = []
        for _ in range(8):
            x = rng.normal(size=(5, 3)).astype(np.float32)
            found.append(np.array(step(x, x[:, :2])))
        vectors = [v for v in vars(optimizer).values() if isinstance(v, np.ndarray)]
        results.append([*found, *vectors, *(p.data for p in model.parameters())])
    assert_same(*results, "recorded is not eager")


def optimizer_settles(cls: type[optim.Optimizer], settings: Settings) -> None:
    """Where a gradient is zero for good, nothing is left among the subnormal numbers."""
    before = _kernels.isa
    try:
        for isa in ("reference", *ISAS):
            _kernels.select(isa)
            own = parameters(np.float32)
            optimizer: Any = cls(own, **{**settings, "weight_decay": 0.0, "l1": 0.0})
            advance(optimizer, own, 3)
            optimizer.zero_grad()
            for _ in range(2500):
                optimizer.step()
            moments = [v for v in vars(optimizer).values() if isinstance(v, np.ndarray)]
            for moment in (v for v in moments if v.dtype == np.float32):
                size = np.abs(moment)
                assert not ((size > 0) & (size < np.finfo(np.float32).tiny)).any(), isa
    finally:
        _kernels.select(before)


def optimizer_limits(cls: type[optim.Optimizer], settings: Settings) -> None:
    """A gradient whose square is beyond the dtype: moments stay finite, and weights go where the
    formula takes them, in numbers of a wider range.
    """
    plain = oracles.OPTIMIZERS.get(cls.__name__)
    if plain is None or np.finfo(np.longdouble).maxexp < 16000:
        raise NoOracleError(f"{cls.__name__} in long doubles")
    limits = {name: settings[name] for name in ("max_norm", "max_value") if name in settings}
    rest = {name: value for name, value in settings.items() if name not in limits}
    for dtype, spike in ((np.float32, 1e20), (np.float32, 2e38), (np.float64, 1e200)):
        own = Parameter((37,), nn.init.normal(), 0, dtype)
        optimizer: Any = cls([own], **settings)
        formula, rng = plain(**rest), np.random.default_rng(0)
        w = own.data.astype(np.longdouble)
        for step in range(6):
            g = (1 + rng.uniform(size=37)).astype(dtype)
            g[[3, 36]] = (spike, -spike) if step == 2 else g[[3, 36]]
            own.grad = g
            w = formula.step(w, oracles.clipped([g.astype(np.longdouble)], **limits)[0])
            try:
                optimizer.step()
            except FloatingPointError as error:
                raise AssertionError("a finite gradient is refused") from error
        arrays = [a for a in vars(optimizer).values() if isinstance(a, np.ndarray)]
        assert all(np.isfinite(a).all() for a in arrays if not a.dtype.names)
        # Plain gradient descent goes where the spike takes it, farther than the dtype tells apart.
        far = [3, 36] if cls.__name__ == "SGD" and not limits else []
        found, expected = (np.delete(x, far) for x in (own.data, w))
        assert_close([found], [expected], "a spike", rtol=1e-4, atol=1e-4)


def optimizer_complains(cls: type[optim.Optimizer], settings: Settings) -> None:
    """Hyper-parameters outside their ranges, in the constructor and later; unknown groups."""
    fit = {name for name in cls.names if not name.startswith("beta")}
    attempts: list[Settings] = [{name: -1.0} for name in ("lr", "weight_decay", "l1", *fit)]
    attempts += [{name: np.nan} for name in ("lr", *fit)]
    attempts += [{name: 0.0} for name in ("max_norm", "max_value")]
    attempts += [{"betas": (1.0, 0.5)}, {"betas": (0.5, -1)}] if "beta1" in cls.names else []
    for bad in attempts:
        with pytest.raises(ValueError, match=cls.__name__):
            built(cls, {**settings, **bad})
    optimizer, own = built(cls, settings)
    for name in ("lr", *cls.names):
        before = getattr(optimizer, name)
        with pytest.raises(ValueError, match=cls.__name__):
            setattr(optimizer, name, -1.0)
        assert getattr(optimizer, name) == before
    for parameter in own:
        parameter.grad = np.full(parameter.shape, np.nan)
    before_step = [parameter.data.copy() for parameter in own]
    with pytest.raises(FloatingPointError, match=cls.__name__):
        optimizer.step()
    assert_same([parameter.data for parameter in own], before_step, "a bad step")


def optimizer_readable(cls: type[optim.Optimizer], settings: Settings) -> None:
    optimizer, _ = built(cls, settings)
    text = repr(optimizer)
    assert text.startswith(f"{cls.__name__}(lr={settings['lr']:g}")
    assert all(f"{name}=" in text for name in cls.names)


OPTIMIZER_CHECKS: dict[str, Callable[[type[optim.Optimizer], Settings], None]] = {
    check.__name__.removeprefix("optimizer_"): check
    for check in (
        *(optimizer_oracle, optimizer_round_trip, optimizer_twin, optimizer_recorded),
        *(optimizer_settles, optimizer_limits, optimizer_complains, optimizer_readable),
    )
}

# --- schedules ------------------------------------------------------------------------------------


def schedule_oracle(schedule: Any, functions: dict[str, Any]) -> None:
    """The rate of every step, and beyond the end; and its repr, read by these, is itself."""
    assert eval(repr(schedule), dict(functions)) == schedule
    formula = oracles.SCHEDULES.get(schedule.name)
    if formula is None:
        raise NoOracleError(schedule.name)
    for step in (*range(140), 1000):
        expected = formula(step, *schedule.arguments)
        np.testing.assert_allclose(schedule(step), expected, rtol=1e-9, atol=1e-15)


def plateau_oracle(cls: Any, **settings: Any) -> None:
    """The rates of ReduceOnPlateau over losses that fall, stop and fall again, below zero too.

    In three groups; the rate of the last is below ``smallest`` where there is one.
    """
    defaults = {"factor": 0.1, "patience": 10, "threshold": 1e-4}
    settings = {**defaults, "cooldown": 0, "smallest": 0.0, "mode": "min", **settings}
    rng = np.random.default_rng(0)
    values = [1 + 1 / (1 + t) + 0.02 * rng.normal() for t in range(120)]
    values[20:28] = [1.2] * 8
    for shift in (0.0, -3.0):
        rates = [0.1, 0.04, 0.002]
        groups = zip(parameters(), rates, strict=True)
        optimizer = optim.SGD([{"params": [p], "lr": rate} for p, rate in groups])
        watcher = cls(optimizer, **settings)
        found = []
        for value in values:
            assert watcher.observe(value + shift) == optimizer.lr
            found.append([group["lr"] for group in optimizer.groups])
        shifted = [value + shift for value in values]
        np.testing.assert_allclose(found, oracles.plateau(shifted, rates, settings))
