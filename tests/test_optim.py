"""Optimizers: the formula, the flat vectors, the clipping, and what a failed step leaves alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl import nn, optim

Settings = dict[str, Any]

SGD_SETTINGS: list[Settings] = [
    {"lr": 0.1},
    {"lr": 0.1, "momentum": 0.9},
    {"lr": 0.1, "momentum": 0.9, "nesterov": True},
    {"lr": 0.1, "weight_decay": 0.3},
    {"lr": 0.05, "momentum": 0.5, "nesterov": True, "weight_decay": 0.1, "max_norm": 1.0},
    {"lr": 0.05, "momentum": 0.5, "weight_decay": 0.1, "max_norm": 1.0},
]
ADAM_SETTINGS: list[Settings] = [
    {"lr": 0.1},
    {"lr": 0.01, "betas": (0.5, 0.9), "eps": 1e-3},
    {"lr": 0.1, "betas": (0.0, 0.5)},
    {"lr": 0.1, "weight_decay": 0.3},
    {"lr": 0.1, "weight_decay": 0.1, "max_norm": 1.0},
]
EVERY = [(optim.SGD, s) for s in SGD_SETTINGS] + [(optim.Adam, s) for s in ADAM_SETTINGS]
every_setting = pytest.mark.parametrize(("cls", "settings"), EVERY)


def model(dtype: Any = np.float64) -> nn.Sequential:
    """Parameters of odd sizes: 21, 3, 3, 1."""
    return nn.Sequential(nn.Linear(7, 3), nn.Linear(3, 1), rng=0).astype(dtype)


def gradients(net: nn.Layer, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=parameter.shape) for parameter in net.parameters()]


def set_gradients(net: nn.Layer, values: list[np.ndarray]) -> None:
    for parameter, value in zip(net.parameters(), values, strict=True):
        parameter.grad = value


def clipped(grads: list[np.ndarray], max_norm: float | None) -> list[np.ndarray]:
    norm = np.sqrt(sum((g * g).sum() for g in grads))
    return [g * min(1, max_norm / norm) if max_norm else g for g in grads]


class PlainSGD:
    """The formula of the docstring, parameter by parameter."""

    def __init__(
        self, lr: float, momentum: float = 0, nesterov: bool = False, weight_decay: float = 0
    ) -> None:
        self.lr, self.momentum, self.nesterov = lr, momentum, nesterov
        self.weight_decay = weight_decay
        self.v: list[Any] = [0.0] * 99

    def update(self, i: int, w: np.ndarray, g: np.ndarray) -> np.ndarray:
        g = g + self.weight_decay * w
        self.v[i] = self.momentum * self.v[i] + g
        return w - self.lr * (g + self.momentum * self.v[i] if self.nesterov else self.v[i])


class PlainAdam:
    """Algorithm 1 of Kingma and Ba, parameter by parameter."""

    def __init__(
        self,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
    ) -> None:
        self.lr, self.betas, self.eps, self.weight_decay = lr, betas, eps, weight_decay
        self.m: list[Any] = [0.0] * 99
        self.v: list[Any] = [0.0] * 99
        self.t = [0] * 99

    def update(self, i: int, w: np.ndarray, g: np.ndarray) -> np.ndarray:
        beta1, beta2 = self.betas
        g = g + self.weight_decay * w
        self.t[i] += 1
        self.m[i] = beta1 * self.m[i] + (1 - beta1) * g
        self.v[i] = beta2 * self.v[i] + (1 - beta2) * g**2
        m_hat = self.m[i] / (1 - beta1 ** self.t[i])
        v_hat = self.v[i] / (1 - beta2 ** self.t[i])
        return w - self.lr * m_hat / (np.sqrt(v_hat) + self.eps)


PLAIN: dict[type, Callable[..., Any]] = {optim.SGD: PlainSGD, optim.Adam: PlainAdam}


@every_setting
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-5)])
def test_seven_steps_follow_the_formula(
    backend: str, cls: type, settings: Settings, dtype: Any, tolerance: float
) -> None:
    net = model(dtype)
    optimizer = cls(net.parameters(), **settings)
    plain = PLAIN[cls](**{k: v for k, v in settings.items() if k != "max_norm"})
    expected = [parameter.data.astype(np.float64) for parameter in net.parameters()]
    for seed in range(7):
        grads = gradients(net, seed)
        set_gradients(net, grads)
        norm = optimizer.step()
        assert norm == pytest.approx(np.sqrt(sum((g * g).sum() for g in grads)), rel=1e-6)
        for i, g in enumerate(clipped(grads, settings.get("max_norm"))):
            expected[i] = plain.update(i, expected[i], g)
    for parameter, value in zip(net.parameters(), expected, strict=True):
        np.testing.assert_allclose(parameter.data, value, rtol=0, atol=tolerance)
    assert optimizer.steps == 7


@every_setting
def test_seven_steps_follow_pytorch(cls: type, settings: Settings) -> None:
    torch = pytest.importorskip("torch")
    net = model()
    theirs = [torch.nn.Parameter(torch.tensor(p.data)) for p in net.parameters()]
    optimizer = cls(net.parameters(), **settings)
    rest = {k: v for k, v in settings.items() if k != "max_norm"}
    peer = getattr(torch.optim, cls.__name__)(theirs, **rest)
    for seed in range(7):
        grads = gradients(net, seed)
        set_gradients(net, grads)
        for parameter, g in zip(theirs, grads, strict=True):
            parameter.grad = torch.tensor(g)
        if max_norm := settings.get("max_norm"):
            torch.nn.utils.clip_grad_norm_(theirs, max_norm)
        optimizer.step()
        peer.step()
    for parameter, value in zip(net.parameters(), theirs, strict=True):
        # PyTorch clips by max_norm / (norm + 1e-6).
        np.testing.assert_allclose(parameter.data, value.detach(), rtol=0, atol=1e-5)


def test_learning_rate_may_change_between_steps() -> None:
    net = nn.Linear(1, 1, bias=False, init=nn.init.constant(1.0), dtype=np.float64)
    optimizer = optim.SGD(net.parameters(), lr=0.5)
    for lr, expected in [(0.5, 0.5), (0.25, 0.25), (0.0, 0.25)]:
        optimizer.lr = lr
        net.weight.grad = [[1.0]]
        optimizer.step()
        assert net.weight.data.item() == expected
    with pytest.raises(ValueError, match="learning_rate"):
        optimizer.lr = -1
    assert optimizer.lr == 0


# --- flat vectors -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_parameters_are_aligned_views_into_one_vector(dtype: Any) -> None:
    net = model(dtype)
    before = [parameter.data.copy() for parameter in net.parameters()]
    optimizer = optim.Adam(net.parameters())
    flat = optimizer.flat
    for parameter, value in zip(net.parameters(), before, strict=True):
        assert np.array_equal(parameter.data, value)
        for array, vector in ((parameter.data, flat.data), (parameter.grad, flat.grad)):
            assert np.shares_memory(array, vector)
            assert array.ctypes.data % 64 == 0
    for vector in (flat.data, flat.grad, optimizer.moment1, optimizer.moment2):
        assert vector.shape == (flat.size,)
        assert vector.flags.c_contiguous


def test_forward_and_backward_use_the_flat_vectors() -> None:
    net = model(np.float32)
    optimizer = optim.SGD(net.parameters(), lr=1.0)
    x = np.ones((2, 7), np.float32)
    before = net(x)
    net.backward(np.ones_like(before))
    assert optimizer.flat.grad.any()
    optimizer.step()
    assert not np.array_equal(net(x), before)
    optimizer.zero_grad()
    assert not any(parameter.grad.any() for parameter in net.parameters())


def test_gaps_between_parameters_stay_zero() -> None:
    net = model()
    optimizer = optim.Adam(net.parameters(), weight_decay=0.1)
    inside = np.zeros(optimizer.flat.size, bool)
    for start, parameter in zip(optimizer.flat.starts, net.parameters(), strict=True):
        inside[start : start + parameter.size] = True
    for seed in range(3):
        set_gradients(net, gradients(net, seed))
        optimizer.step()
    assert not inside.all()
    assert not optimizer.flat.data[~inside].any()


def test_assigning_to_data_keeps_the_parameter_in_its_vector() -> None:
    net = model()
    optimizer = optim.SGD(net.parameters())
    net[0].weight.data = np.full((7, 3), 5)
    net[0].weight.grad = np.full((7, 3), 1)
    part = slice(optimizer.flat.starts[0], optimizer.flat.starts[0] + 21)
    assert (optimizer.flat.data[part] == 5).all()
    assert (optimizer.flat.grad[part] == 1).all()
    optimizer.step()


@pytest.mark.parametrize("take_away", ["optimizer", "reset", "astype"])
def test_parameter_that_left_is_an_error(take_away: str) -> None:
    net = model()
    optimizer = optim.SGD(net.parameters())
    if take_away == "optimizer":
        optim.Adam(net.parameters())
    elif take_away == "reset":
        net.reset(1)
    else:
        net.astype(np.float32)
    with pytest.raises(RuntimeError, match=r"0\.weight.*has left"):
        optimizer.step()
    assert optimizer.steps == 0


def test_parameters_are_checked() -> None:
    net = model()
    with pytest.raises(ValueError, match="no parameters"):
        optim.SGD([])
    with pytest.raises(ValueError, match="twice"):
        optim.SGD(net.parameters() * 2)
    with pytest.raises(TypeError, match="expected parameters"):
        optim.SGD([np.ones(3)])
    with pytest.raises(TypeError, match=r"float32.*float64"):
        optim.SGD(net.parameters() + model(np.float32).parameters())


# --- clipping ---------------------------------------------------------------------------


@given(
    st.integers(0, 100),
    st.floats(1e-3, 1e3),
    st.sampled_from([np.float32, np.float64]),
    st.floats(1e-6, 1e6),
)
def test_clipping_keeps_the_direction(seed: int, max_norm: float, dtype: Any, size: float) -> None:
    net = model(dtype)
    set_gradients(net, [size * g for g in gradients(net, seed)])
    before = np.concatenate([p.grad.astype(float).ravel() for p in net.parameters()])
    norm = optim.clip_by_norm(net.parameters(), max_norm)
    after = np.concatenate([p.grad.astype(float).ravel() for p in net.parameters()])
    assert norm == pytest.approx(np.linalg.norm(before), rel=1e-5)
    assert np.linalg.norm(after) == pytest.approx(min(norm, max_norm), rel=1e-5)
    np.testing.assert_allclose(after * norm, before * min(norm, max_norm), rtol=1e-5)


def test_small_gradients_are_left_alone() -> None:
    net = model()
    set_gradients(net, gradients(net, 0))
    before = [p.grad.copy() for p in net.parameters()]
    norm = optim.clip_by_norm(net.parameters(), 1e3)
    assert optim.clip_by_norm(net.parameters(), norm) == norm  # not above the limit
    assert all(np.array_equal(p.grad, g) for p, g in zip(net.parameters(), before, strict=True))


def test_zero_gradient_survives_clipping() -> None:
    net = model()
    assert optim.clip_by_norm(net.parameters(), 1.0) == 0
    optimizer = optim.SGD(net.parameters(), max_norm=1.0)
    before = optimizer.flat.data.copy()
    assert optimizer.step() == 0
    assert np.array_equal(optimizer.flat.data, before)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_clip_by_norm_changes_nothing_if_the_norm_is_not_finite(backend: str, bad: float) -> None:
    net = model(np.float32)
    set_gradients(net, gradients(net, 0))
    net[1].bias.grad = [bad]
    before = [p.grad.tobytes() for p in net.parameters()]
    with pytest.raises(FloatingPointError, match="nothing was changed"):
        optim.clip_by_norm(net.parameters(), 1.0)
    assert [p.grad.tobytes() for p in net.parameters()] == before


@every_setting
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_step_changes_nothing_if_the_norm_is_not_finite(
    backend: str, cls: type, settings: Settings, bad: float
) -> None:
    net = model(np.float32)
    optimizer = cls(net.parameters(), **settings)
    set_gradients(net, gradients(net, 0))
    optimizer.step()

    def everything() -> list[bytes]:
        arrays = [
            v for v in vars(optimizer).values() if isinstance(v, np.ndarray) and not v.dtype.names
        ]
        state = [optimizer.state[name].tobytes() for name in ("step", "scale", "learning_rate")]
        return [a.tobytes() for a in (*arrays, optimizer.flat.data, optimizer.flat.grad)] + state

    net[0].bias.grad[1] = bad
    before = everything()
    with pytest.raises(FloatingPointError, match=r"'0\.bias'.*no parameter was changed"):
        optimizer.step()
    assert everything() == before

    # And the run goes on as if the bad step had not been.
    set_gradients(net, gradients(net, 1))
    optimizer.step()
    assert optimizer.steps == 2
    assert np.isfinite(optimizer.flat.data).all()


# --- hyper-parameters -------------------------------------------------------------------

NAN = float("nan")
BAD = [
    (optim.SGD, "lr", [-0.1, NAN, np.inf], "learning_rate"),
    (optim.SGD, "momentum", [-0.1, 1, 1.5, NAN], "momentum"),
    (optim.SGD, "weight_decay", [-1, NAN, np.inf], "weight_decay"),
    (optim.SGD, "max_norm", [0, -1, NAN, np.inf], "max_norm"),
    (optim.SGD, "nesterov", [True], "nesterov needs momentum"),
    (optim.Adam, "lr", [-0.1, NAN, np.inf], "learning_rate"),
    (optim.Adam, "betas", [(1, 0.9), (-0.1, 0.9), (NAN, 0.9)], "beta1"),
    (optim.Adam, "betas", [(0.9, 1), (0.9, -1), (0.9, NAN)], "beta2"),
    (optim.Adam, "eps", [0, -1e-8, NAN, np.inf], "eps"),
    (optim.Adam, "weight_decay", [-1, NAN, np.inf], "weight_decay"),
    (optim.Adam, "max_norm", [0, -1, NAN, np.inf], "max_norm"),
]


@pytest.mark.parametrize(
    ("cls", "name", "value", "words"), [(c, n, v, w) for c, n, vs, w in BAD for v in vs]
)
def test_bad_hyper_parameter(cls: type, name: str, value: Any, words: str) -> None:
    net = model()
    good = optim.SGD(net.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=rf"{cls.__name__}.*{words}"):
        cls(net.parameters(), **{name: value})
    good.step()  # the failed constructor has taken no parameter away


@pytest.mark.parametrize("max_norm", [0, -1, NAN, np.inf])
def test_clip_by_norm_needs_a_limit(max_norm: float) -> None:
    with pytest.raises(ValueError, match="max_norm"):
        optim.clip_by_norm(model().parameters(), max_norm)


@pytest.mark.parametrize("name", ["lr", "momentum", "weight_decay", "max_norm"])
def test_hyper_parameters_are_checked_when_assigned(name: str) -> None:
    optimizer = optim.SGD(model().parameters(), lr=0.1, momentum=0.5, max_norm=2.0)
    before = getattr(optimizer, name)
    with pytest.raises(ValueError, match="SGD"):
        setattr(optimizer, name, -1)
    assert getattr(optimizer, name) == before


def test_max_norm_of_none_switches_clipping_off() -> None:
    optimizer = optim.SGD(model().parameters(), max_norm=2.0)
    assert optimizer.max_norm == 2
    optimizer.max_norm = None
    assert optimizer.max_norm is None
