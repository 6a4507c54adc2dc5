"""Optimizers against PyTorch; groups, frozen parameters, clipping by value, averages."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from recording_helpers import Training
from torch_peers import peer_of_optimizer

import minidl
from minidl import nn, optim

Settings = dict[str, Any]
EVERY = [(cls, settings) for cls in optim.Optimizer.registry for settings in cls.examples()]
every_setting = pytest.mark.parametrize(
    ("cls", "settings"), EVERY, ids=lambda x: getattr(x, "__name__", None)
)
ALL = optim.Optimizer.registry
every_optimizer = pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)


def model(dtype: Any = np.float64) -> nn.Sequential:
    net = nn.Sequential(nn.Linear(3, 7), nn.Tanh(), nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 1))
    return net.reset(0).astype(dtype)


def gradients(net: nn.Layer, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=parameter.shape) for parameter in net.parameters()]


def values(net: nn.Layer) -> list[np.ndarray]:
    return [parameter.data.copy() for parameter in net.parameters()]


def assert_close(ours: list[np.ndarray], theirs: list[Any], rtol: float = 1e-6) -> None:
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b.detach(), rtol=rtol, atol=1e-9)


# --- against PyTorch --------------------------------------------------------------------


@every_setting
@pytest.mark.parametrize("limits", [{}, {"max_norm": 1.0}, {"max_value": 0.3}, "both"])
def test_hundred_steps_are_those_of_pytorch(
    backend: str, cls: type[optim.Optimizer], settings: Settings, limits: Any
) -> None:
    torch = pytest.importorskip("torch")
    limits = {"max_norm": 1.0, "max_value": 0.1} if limits == "both" else limits
    net = model()
    theirs = [torch.nn.Parameter(torch.tensor(p.data)) for p in net.parameters()]
    optimizer = cls(net.parameters(), **settings, **limits)
    if peer_of_optimizer(cls) is None:
        pytest.skip(f"PyTorch has no {cls.__name__}")
    peer = peer_of_optimizer(cls)(theirs, **settings)
    for seed in range(100):
        grads = gradients(net, seed)
        norm = np.sqrt(sum((g * g).sum() for g in grads))
        scale = min(1, limits.get("max_norm", np.inf) / norm)
        for ours, their, g in zip(net.parameters(), theirs, grads, strict=True):
            ours.grad = g
            their.grad = torch.tensor(scale * g)
        if "max_value" in limits:
            torch.nn.utils.clip_grad_value_(theirs, limits["max_value"])
        assert optimizer.step() == pytest.approx(norm)
        peer.step()
    assert_close(values(net), theirs)
    assert optimizer.steps == 100


def test_groups_are_those_of_pytorch(backend: str) -> None:
    torch = pytest.importorskip("torch")
    net = model()
    theirs = [torch.nn.Parameter(torch.tensor(p.data)) for p in net.parameters()]

    def grouped(parameters: list[Any]) -> list[Settings]:
        return [
            {"params": parameters[:3], "weight_decay": 0.0},
            {"params": parameters[3:5], "lr": 0.003, "betas": (0.5, 0.9)},
            {"params": parameters[5:], "eps": 1e-3},
        ]

    optimizer = optim.Adam(grouped(net.parameters()), lr=0.01, weight_decay=0.1, max_norm=1.0)
    peer = torch.optim.Adam(grouped(theirs), lr=0.01, weight_decay=0.1)
    for seed in range(100):
        grads = gradients(net, seed)
        norm = np.sqrt(sum((g * g).sum() for g in grads))  # over all groups
        for ours, their, g in zip(net.parameters(), theirs, grads, strict=True):
            ours.grad, their.grad = g, torch.tensor(g / max(1, norm))
        assert optimizer.step() == pytest.approx(norm)
        peer.step()
    assert_close(values(net), theirs)
    assert [group["lr"] for group in optimizer.groups] == [0.01, 0.003, 0.01]
    assert "groups=3" in repr(optimizer)


# --- recorded ---------------------------------------------------------------------------


def trained(
    make: Callable[[nn.Sequential], optim.Optimizer],
    recorded: bool,
    extra: Callable[[nn.Sequential], None] | None = None,
) -> list[bytes]:
    """All parameters and vectors after two epochs."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(100, 3)).astype(np.float32)
    Y, net, loss = X[:, :1] * X[:, 1:2], model(np.float32), nn.MSELoss()
    optimizer = make(net)

    def step(x: Any, y: Any) -> Any:
        value = loss(net(x), y)
        optimizer.zero_grad()
        net.backward(loss.backward())
        if extra is not None:
            extra(net)
        optimizer.step()
        return value

    run = minidl.record(step)
    for _ in range(2):
        if recorded:
            run.epoch(X, Y, batch_size=8, shuffle=False)
        else:
            for i in range(0, 100, 8):
                step(X[i : i + 8], Y[i : i + 8])
    arrays = [v for v in vars(optimizer).values() if isinstance(v, np.ndarray)]
    return [array.tobytes() for array in [*arrays, *values(net)]]


def assert_recorded_is_eager(make: Callable[..., Any], extra: Any = None) -> None:
    assert trained(make, recorded=True, extra=extra) == trained(make, False, extra)


@every_setting
def test_recorded_is_eager(backend: str, cls: type[optim.Optimizer], settings: Settings) -> None:
    limits = {"max_norm": 1.0, "max_value": 0.2, "l1": 1e-3}
    assert_recorded_is_eager(lambda net: cls(net.parameters(), **settings, **limits))


@every_optimizer
def test_recorded_groups_are_eager(backend: str, cls: type[optim.Optimizer]) -> None:
    def make(net: nn.Sequential) -> optim.Optimizer:
        net[2].weight.frozen = True
        groups = [
            {"params": net[0].parameters(), "weight_decay": 0.1},
            {"params": net[2].parameters()},
            {"params": net[4].parameters(), "lr": 1e-3, "l1": 0.01},
        ]
        return cls(groups, lr=0.01, max_norm=1.0)

    assert_recorded_is_eager(make)


def test_recorded_clipping_by_value_is_eager(backend: str) -> None:
    assert_recorded_is_eager(
        lambda net: optim.SGD(net.parameters(), lr=0.1),
        lambda net: optim.clip_by_value(net.parameters(), 0.05),
    )


def test_gradients_of_two_batches_add_up(backend: str) -> None:
    def run(recorded: bool) -> list[np.ndarray]:
        net, loss = model(np.float32), nn.MSELoss()
        optimizer = optim.Adam(net.parameters(), lr=0.01)
        rng = np.random.default_rng(0)

        def step(x1: Any, y1: Any, x2: Any, y2: Any) -> Any:
            optimizer.zero_grad()
            first = loss(net(x1), y1)
            net.backward(loss.backward())
            loss(net(x2), y2)
            net.backward(loss.backward())
            optimizer.step()
            return first

        go = minidl.record(step) if recorded else step
        for _ in range(5):
            x1, x2 = rng.normal(size=(2, 8, 3)).astype(np.float32)
            go(x1, x1[:, :1], x2, x2[:, :1])
        return values(net)

    assert [v.tobytes() for v in run(True)] == [v.tobytes() for v in run(False)]


# --- groups and frozen parameters ---------------------------------------------------------


@every_optimizer
def test_frozen_parameters_stay_and_do_not_count(backend: str, cls: Any) -> None:
    net = model()
    net[0].freeze()
    before = values(net[0])
    optimizer = cls(net.parameters(), max_norm=1.0, weight_decay=0.1)
    for parameter, g in zip(net.parameters(), gradients(net, 0), strict=True):
        parameter.grad = g
    norm = np.sqrt(sum((p.grad**2).sum() for p in net[2:].parameters()))
    assert optimizer.step() == pytest.approx(norm)
    assert all(np.array_equal(a, b) for a, b in zip(values(net[0]), before, strict=True))
    optimizer.zero_grad()
    assert not any(parameter.grad.any() for parameter in net.parameters())
    assert len(optimizer.flat.parameters) == 4


def test_freezing_comes_before_the_optimizer() -> None:
    net = model()
    optimizer = optim.SGD(net.parameters())
    net[0].freeze()
    with pytest.raises(RuntimeError, match="was frozen after"):
        optimizer.step()
    net.freeze(False)
    optimizer.step()
    with pytest.raises(ValueError, match="frozen"):
        optim.SGD(net.freeze().parameters())


def test_recorded_step_hears_of_freezing() -> None:
    net = model()
    optimizer = optim.SGD(net.parameters())
    loss = nn.MSELoss()

    @minidl.record
    def step(x: Any, y: Any) -> Any:
        value = loss(net(x), y)
        optimizer.zero_grad()
        net.backward(loss.backward())
        optimizer.step()
        return value

    x, y = np.ones((2, 3)), np.ones((2, 1))
    step(x, y), step(x, y)
    net[0].freeze()
    with pytest.raises(RuntimeError, match="was frozen after"):
        step(x, y)


def test_a_group_may_be_frozen_as_a_whole(backend: str) -> None:
    """A whole training, recorded and copied, is that without the group."""
    results = []
    for with_it in (True, False):
        net = model()
        net[0].freeze()
        groups = [{"params": net[i].parameters(), "lr": 0.1 / (i + 1)} for i in (0, 2, 4)]
        optimizer = optim.Adam(groups if with_it else groups[1:], max_norm=1.0)
        step = minidl.record(Training(net, nn.MSELoss(), optimizer).step)
        x = np.random.default_rng(0).normal(size=(4, 3))
        for _ in range(3):
            step(x, x[:, :1])
        net, optimizer = copy.deepcopy((net, optimizer))
        for _ in range(2):
            Training(net, nn.MSELoss(), optimizer).step(x, x[:, :1])
        results.append(values(net))
        assert len(optimizer.groups) == 2 + with_it
        assert optimizer.groups[0].parameters == ([] if with_it else net[2].parameters())
    assert all(np.array_equal(a, b) for a, b in zip(*results, strict=True))


def test_hyper_parameters_that_would_do_nothing_are_refused() -> None:
    net = model()
    groups = [{"params": net[0].parameters()}, {"params": net[2].parameters()}]
    optimizer = optim.SGD(groups)
    for name in ("alpha", "beta1", "learning_rate", "eps"):
        with pytest.raises(ValueError, match=f"SGD has no hyper-parameter '{name}'; it has lr, "):
            optimizer.groups[0][name] = 0.5
        with pytest.raises(ValueError, match=f"SGD has no hyper-parameter '{name}'"):
            optimizer.groups[0][name]
    with pytest.raises(ValueError, match=r"write optimizer\.max_norm"):
        optimizer.groups[1]["max_norm"] = 1.0
    optimizer.max_norm = 2.0
    assert [group["max_norm"] for group in optimizer.groups] == [2.0, 2.0]
    with pytest.raises(AttributeError, match=r"write optimizer\.lr"):
        optimizer.learning_rate = 5.0
    assert not hasattr(optimizer, "learning_rate")
    for betas in ((0.9, 0.9, 0.9), (0.9,)):
        with pytest.raises(ValueError, match=r"Adam: betas must be two numbers, got \(0.9"):
            optim.Adam(net.parameters(), betas=betas)


def test_flags_are_shown() -> None:
    net = model()
    assert "nesterov=True" in repr(optim.SGD(net.parameters(), momentum=0.9, nesterov=True))
    assert "centered=True" in repr(optim.RMSprop(net.parameters(), centered=True))
    assert "=True" not in repr(optim.RMSprop(net.parameters())) + repr(
        optim.AdamW(net.parameters())
    )


def test_groups_follow_one_another_in_the_vectors() -> None:
    net = model()
    groups = [{"params": net[i].parameters()} for i in (4, 0, 2)]
    optimizer = optim.Adam(groups)
    parts = optimizer.flat.parts
    assert [part.start for part in parts] == [0, *(part.stop for part in parts[:-1])]
    assert parts[-1].stop == optimizer.flat.size
    for group in optimizer.groups:
        addresses = [parameter.data.ctypes.data for parameter in group.parameters]
        begin = optimizer.flat.data[group.part].ctypes.data
        assert begin % 64 == 0
        assert begin + 64 == addresses[0]


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_have_vectors_of_their_own(duplicate: Any) -> None:
    net = model()
    net[2].bias.frozen = True
    optimizer = optim.AdamW(
        [{"params": net[0].parameters(), "lr": 0.5}, {"params": net[2:].parameters()}]
    )
    net2, optimizer2 = duplicate((net, optimizer))
    for n, o in ((net, optimizer), (net2, optimizer2)):
        for parameter, g in zip(n.parameters(), gradients(n, 0), strict=True):
            parameter.grad = g
        o.step()
    assert all(np.array_equal(a, b) for a, b in zip(values(net), values(net2), strict=True))
    optimizer2.groups[0]["lr"] = 0.25
    assert [optimizer.groups[0]["lr"], optimizer2.groups[0]["lr"]] == [0.5, 0.25]


def test_hyper_parameters_of_groups() -> None:
    net = model()
    optimizer = optim.SGD(
        [{"params": net[0].parameters(), "momentum": 0.5}, {"params": net[2].parameters()}], lr=0.1
    )
    assert [group["momentum"] for group in optimizer.groups] == [0.5, 0]
    optimizer.groups[1]["weight_decay"] = 0.2
    assert [group["weight_decay"] for group in optimizer.groups] == [0, 0.2]
    optimizer.lr = 0.3
    assert [group["lr"] for group in optimizer.groups] == [0.3, 0.3]
    with pytest.raises(ValueError, match="no hyper-parameter 'beta7'"):
        optimizer.groups[0]["beta7"] = 1
    with pytest.raises(ValueError, match="weight_decay"):
        optimizer.groups[0]["weight_decay"] = -1


@pytest.mark.parametrize(
    "group",
    [
        {"lr": 0.1},
        {"params": [], "lr": 0.1},
        {"params": "own", "max_norm": 1.0},
        {"params": "own", "beta1": 0.5},
    ],
)
def test_bad_groups(group: Settings) -> None:
    net = model()
    if group.get("params") == "own":
        group = {**group, "params": net.parameters()}
    with pytest.raises(ValueError, match=r"params|no parameters"):
        optim.SGD([group])


def test_parameter_in_two_groups() -> None:
    parameters = model().parameters()
    with pytest.raises(ValueError, match="twice"):
        optim.SGD([{"params": parameters}, {"params": parameters[:1]}])


# --- penalties ----------------------------------------------------------------------------


def test_penalties_and_their_gradients(backend: str) -> None:
    net = model()
    net[0].bias.data[0] = 0
    settings = {"lr": 1.0, "weight_decay": 0.3, "l1": 0.2}
    optimizer = optim.SGD(
        [{"params": net[:3].parameters()}, {"params": net[4].parameters(), "l1": 0}], **settings
    )
    first = np.concatenate([p.ravel() for p in values(net[:3])])
    last = np.concatenate([p.ravel() for p in values(net[4])])
    penalty = 0.15 * (first @ first + last @ last) + 0.2 * np.abs(first).sum()
    assert optimizer.penalty() == pytest.approx(penalty)
    before = values(net)
    optimizer.step()  # gradients are zero: the step is that of the penalties
    for i, (parameter, w) in enumerate(zip(net.parameters(), before, strict=True)):
        l1 = 0.2 if i < 4 else 0
        np.testing.assert_allclose(parameter.data, w - 0.3 * w - l1 * np.sign(w), atol=1e-15)


def test_decoupled_decay_is_no_penalty() -> None:
    assert optim.AdamW(model().parameters(), weight_decay=0.5).penalty() == 0


# --- clipping by value ----------------------------------------------------------------------


def test_clip_by_value(backend: str) -> None:
    net = model(np.float32)
    for parameter, g in zip(net.parameters(), gradients(net, 0), strict=True):
        parameter.grad = g
    expected = [np.clip(parameter.grad, -0.5, 0.5) for parameter in net.parameters()]
    optim.clip_by_value(net.parameters(), 0.5)
    assert all(np.array_equal(p.grad, e) for p, e in zip(net.parameters(), expected, strict=True))
    for bad in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="max_value"):
            optim.clip_by_value(net.parameters(), bad)


BAD = [
    (optim.RMSprop, {"alpha": 1.0}),
    (optim.RMSprop, {"alpha": -0.1}),
    (optim.RMSprop, {"eps": 0}),
    (optim.RMSprop, {"momentum": 1}),
    (optim.AdaGrad, {"eps": -1}),
    (optim.AdamW, {"weight_decay": -1}),
    (optim.AdamW, {"betas": (0.9, 1.0)}),
    (optim.Nadam, {"momentum_decay": -1}),
    (optim.Nadam, {"betas": (1.0, 0.9)}),
    *((cls, {"l1": -1}) for cls in ALL),
    *((cls, {"max_value": 0}) for cls in ALL),
]


@pytest.mark.parametrize(("cls", "settings"), BAD)
def test_bad_hyper_parameters(cls: Any, settings: Settings) -> None:
    with pytest.raises(ValueError, match=cls.__name__):
        cls(model().parameters(), **settings)


# --- averages -------------------------------------------------------------------------------


def ema_run(recorded: bool) -> list[np.ndarray]:
    net, loss = model(np.float32), nn.MSELoss()
    optimizer = optim.SGD(net.parameters(), lr=0.1)
    ema = optim.EMA(net.parameters(), decay=0.8)
    rng = np.random.default_rng(0)
    expected = [average.copy() for average in ema.averages]

    def step(x: Any, y: Any) -> Any:
        value = loss(net(x), y)
        optimizer.zero_grad()
        net.backward(loss.backward())
        optimizer.step()
        ema.update()
        return value

    go = minidl.record(step) if recorded else step
    for _ in range(6):
        x = rng.normal(size=(8, 3)).astype(np.float32)
        go(x, x[:, :1])
        expected = [0.8 * a + 0.2 * w for a, w in zip(expected, values(net), strict=True)]
    for average, value in zip(ema.averages, expected, strict=True):
        np.testing.assert_allclose(average, value, rtol=1e-5, atol=1e-6)
    before = values(net)
    with ema.average():
        for parameter, value in zip(net.parameters(), expected, strict=True):
            np.testing.assert_allclose(parameter.data, value, rtol=1e-5, atol=1e-6)
    assert all(np.array_equal(a, b) for a, b in zip(values(net), before, strict=True))
    return ema.averages


def test_average_follows_the_weights(backend: str) -> None:
    recorded, eager = ema_run(True), ema_run(False)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(recorded, eager, strict=True))


@pytest.mark.parametrize("decay", [1.0, -0.1, float("nan")])
def test_bad_decay(decay: float) -> None:
    with pytest.raises(ValueError, match="decay"):
        optim.EMA(model().parameters(), decay)
