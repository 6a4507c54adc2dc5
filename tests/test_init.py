"""Initialisers: their distributions, PyTorch's gains, and what depth makes of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minidl import nn, optim
from minidl.nn import init
from minidl.nn.criticality import critical_point


@pytest.mark.parametrize("shape", [(5, 5), (40, 7), (7, 40), (1, 3), (3, 1)])
def test_orthogonal_weights_are_orthonormal(shape: tuple[int, int]) -> None:
    w = init.orthogonal(1.5)(shape, 0)
    assert w.shape == shape
    product = w.T @ w if shape[0] >= shape[1] else w @ w.T
    np.testing.assert_allclose(product, 2.25 * np.eye(min(shape)), atol=1e-12)


def test_variances() -> None:
    shape = (200, 500)
    for name, variance in [("lecun_uniform", 1 / 200), ("lecun_normal", 1 / 200)]:
        w = init.by_name(name)(shape, 0)
        assert w.var() == pytest.approx(variance, rel=0.02)
        assert abs(w.mean()) < 1e-3
    assert np.abs(init.lecun_uniform()(shape, 0)).max() <= np.sqrt(3 / 200)


def test_truncated_normal_stays_within_its_bounds() -> None:
    w = init.truncated_normal(0.5, bound=2.0)((300, 300), 0)
    assert np.abs(w).max() <= 1
    # Of N(0, 1) between -2 and 2 the variance is 1 - 4 f(2) / (2 F(2) - 1) = 0.7737.
    assert w.var() == pytest.approx(0.25 * 0.7737, rel=0.01)


@pytest.mark.parametrize("name", ["linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu"])
def test_gains_are_those_of_pytorch(name: str) -> None:
    torch = pytest.importorskip("torch")
    assert init.gain(name) == pytest.approx(torch.nn.init.calculate_gain(name), rel=1e-12)
    expected = torch.nn.init.calculate_gain("leaky_relu", 0.3)
    assert init.gain("leaky_relu", 0.3) == pytest.approx(expected, rel=1e-12)


def integral(slope: Any, variance: float) -> float:
    """E[slope(z)²] for z ~ N(0, variance), by the trapezoidal rule."""
    z = np.linspace(-12, 12, 200_001) * np.sqrt(variance)
    density = np.exp(-(z**2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)
    return float((slope(z) ** 2 * density).sum() * (z[1] - z[0]))


@pytest.mark.parametrize(
    ("name", "layer", "factor"),
    [
        ("leaky_relu", nn.LeakyReLU(), 2 / (1 + 0.01**2)),
        ("prelu", nn.PReLU(), 2 / (1 + 0.25**2)),
        ("Linear", nn.Identity(), 1.0),
        ("log_softmax", None, None),
    ],
)
def test_critical_by_name(name: str, layer: nn.Layer | None, factor: float | None) -> None:
    if layer is None:
        with pytest.raises(ValueError, match="depend on one input each"):
            init.critical(name)
        return
    for parameter in layer.parameters():
        parameter.grad = np.full(parameter.shape, 7.0)
    for activation in (name, layer):
        assert init.critical(activation).arguments == (pytest.approx(factor, rel=1e-5),)
    assert all((parameter.grad == 7).all() for parameter in layer.parameters())
    assert layer.dtype in (None, np.float32)


def test_critical_factors_are_not_rounded_away() -> None:
    (factor,) = init.critical(lambda x: 3000 * x, variance=1.0).arguments
    assert factor == pytest.approx(1 / 3000**2, rel=1e-5)


def test_critical_factors_at_zero_are_limits() -> None:
    """Of ELU too, whose slope is 1 - O(√q); and none is cut off after six digits."""
    for activation, factor in [
        *((nn.ELU(alpha), 2 / (1 + alpha**2)) for alpha in (1.0, 0.3)),
        *(("tanh", 1.0), (np.sin, 1.0), (nn.LeakyReLU(0.2), 2 / 1.04)),
    ]:
        assert init.critical(activation).arguments == (pytest.approx(factor, rel=1e-9),)
    assert init.critical("elu").arguments == (1.0,)


@pytest.mark.parametrize("variance", [0.25, 1.0, 4.0])
def test_critical_factors(backend: str, variance: float) -> None:
    for activation, slope in [
        ("tanh", lambda z: 1 - np.tanh(z) ** 2),
        (nn.Tanh(), lambda z: 1 - np.tanh(z) ** 2),
        (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
        ("sigmoid", lambda z: np.exp(-z) / (1 + np.exp(-z)) ** 2),
        (lambda z: 3 * z, lambda z: 3 + 0 * z),
        ("relu", lambda z: (z > 0) + 0.0),
    ]:
        (factor,) = init.critical(activation, variance).arguments
        assert factor == pytest.approx(1 / integral(slope, variance), rel=1e-3)


@pytest.mark.parametrize(
    ("activation", "bias_variance", "q", "factor"),
    [
        (nn.Identity(), 0, 0, 1),
        ("tanh", 0, 0, 1),
        ("relu", 0, 0, 2),
        (nn.LeakyReLU(0.2), 0, 0, 2 / 1.04),
        ("elu", 0, 0, 1),
        ("celu", 0, 0, 1),
        ("softsign", 0, 0, 1),
        (np.sin, 0, 0, 1),
        # Xiao et al. 2018 train 10,000 layers of tanh there.
        ("tanh", 2.01e-5, None, 1.05),
        # Schoenholz et al. 2017, figure 5: the border at σ_b² = 0.05.
        ("tanh", 0.05, None, 1.76),
        # Roberts, Yaida and Hanin 2022, section 5.3.4: where these begin to have a stable point.
        ("silu", 0.5552, 14.32, 1.98800),
        ("gelu", 0.1730, 3.6, 1.98306),
    ],
)
def test_critical_points(
    activation: Any, bias_variance: float, q: float | None, factor: float
) -> None:
    found, found_factor = critical_point(activation, bias_variance)
    assert found_factor == pytest.approx(factor, rel=1e-3)
    if q is not None:
        assert found == pytest.approx(q, rel=0.05, abs=1e-9)
    (drawn,) = init.critical(activation, bias_variance=bias_variance).arguments
    assert drawn == pytest.approx(found_factor, abs=1e-4)


@pytest.mark.parametrize(
    ("activation", "bias_variance", "scale"),
    [
        (nn.Tanh, 0.0, 1e-2),
        (nn.Tanh, 0.05, 1.0),
        (nn.Sigmoid, 0.0, 1.0),
        (nn.ReLU, 0.0, 1.0),
        (lambda: nn.LeakyReLU(0.3), 0.0, 5.0),
        (nn.ELU, 0.0, 1e-3),
        (nn.GELU, 0.5, 3.3),  # near its q: the way there is long
        (nn.SiLU, 1.0, 4.4),
    ],
)
def test_a_deep_critical_network_keeps_its_gradient(
    activation: Any, bias_variance: float, scale: float
) -> None:
    """Of 60 layers, between those of which q has found its fixed point: by simulation."""
    width, depth, rows = 600, 60, 8
    rng = np.random.default_rng(0)
    weights = init.critical(activation(), bias_variance=bias_variance)
    blocks = []
    for _ in range(depth):
        linear = nn.Linear(width, width, init=weights, rng=rng, dtype=np.float64)
        linear.bias.data = rng.normal(0, np.sqrt(bias_variance), width)
        blocks.append(nn.Sequential(linear, activation()))
    x = scale * rng.normal(size=(rows, width))
    lengths, gradients = [], []
    for block in blocks:
        x = block(x)
        lengths.append(block[0]._output.var(axis=None, mean=0))
    dy = rng.normal(size=x.shape)
    for block in reversed(blocks):
        gradients.append(np.linalg.norm(dy))
        dy = block.backward(dy)
    top, bottom = gradients[5], gradients[45]  # 40 layers between them
    assert 0.5 < bottom / top < 2
    q, _ = critical_point(activation(), bias_variance)
    if q:
        assert 0.5 < np.mean(lengths[20:]) / q < 2


@pytest.mark.parametrize(
    ("weights", "activation", "low", "high"),
    [
        (init.lecun_normal(), nn.ReLU, 0, 1e-3),
        (init.critical("tanh", variance=1.0), nn.Tanh, 3, np.inf),  # that is for a kept variance
    ],
)
def test_other_weights_do_not(weights: Any, activation: Any, low: float, high: float) -> None:
    rng = np.random.default_rng(0)
    layers = [c for _ in range(30) for c in (nn.Linear(200, 200, init=weights), activation())]
    model = nn.Sequential(*layers, rng=1)
    model(rng.normal(size=(20, 200)).astype(np.float32))
    dy = rng.normal(size=(20, 200)).astype(np.float32)
    assert low <= np.linalg.norm(model.backward(dy)) / np.linalg.norm(dy) <= high


@pytest.mark.parametrize(
    ("activation", "bias_variance"),
    [("gelu", 0), ("gelu", 0.15), ("silu", 0.5), ("softplus", 0), ("softplus", 1), ("relu", 0.1)],
)
def test_no_critical_point(activation: str, bias_variance: float) -> None:
    with pytest.raises(ValueError, match=rf"variance {bias_variance:g}, '{activation}'.*variance="):
        init.critical(activation, bias_variance=bias_variance)
    assert init.critical(activation, variance=1.0).arguments[0] > 1


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU, nn.Sigmoid])
def test_lsuv_gives_every_layer_variance_one(backend: str, activation: Any) -> None:
    blocks = [x for _ in range(8) for x in (nn.Linear(30, 30), nn.BatchNorm(30), activation())]
    model = nn.Sequential(*blocks, nn.Linear(30, 4))
    optimizer = optim.Adam(model.parameters())
    X = np.random.default_rng(0).normal(1, 3, (300, 30)).astype(np.float32)
    before = {name: array.copy() for name, array in model.state().items()}
    assert nn.lsuv(model, X, rng=0) is model
    assert model.training
    assert all(np.array_equal(before[name], array) for name, array in model.state().items())
    model.eval()
    model(X)
    for layer in model.stack:
        if isinstance(layer, nn.Linear):
            assert layer._output.var() == pytest.approx(1, abs=0.011)
    optimizer.step()  # which still holds the parameters


def test_lsuv_reaches_variance_one_from_a_single_column() -> None:
    model = nn.Sequential(nn.Linear(1, 50), nn.Tanh(), nn.Linear(50, 1), rng=0)
    X = np.random.default_rng(0).normal(size=(60, 1)).astype(np.float32)
    nn.lsuv(model, X, rng=0)
    assert not model[0].bias.data.any()


def test_lsuv_leaves_frozen_weights_alone() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), rng=0)
    model[0].freeze()
    before = model[0].weight.data.copy()
    X = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    nn.lsuv(model, X, rng=0)
    assert np.array_equal(model[0].weight.data, before)
    assert np.var(model(X)) == pytest.approx(1, abs=0.01)


def unreached() -> None:
    """The biases alone make a variance beyond one."""
    model = nn.Sequential(nn.Linear(4, 4))
    model[0].bias.data[...] = [-9, -9, 9, 9]
    nn.lsuv(model, np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32), rng=0)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: init.orthogonal(0), "gain"),
        (lambda: init.truncated_normal(-1), "std"),
        (lambda: init.truncated_normal(1, 0), "bound"),
        (lambda: init.gain("softplus"), "softplus"),
        (lambda: init.critical("nonsense"), "'nonsense'; known: .*leakyrelu, linear, "),
        (lambda: init.critical("batchnorm"), "no activation is called 'batchnorm'"),
        (lambda: init.critical("dropout"), "no activation is called 'dropout'"),
        (unreached, r"layer 0 Linear\(4, 4\) has variance .* after 10 tries"),
        (lambda: init.critical("relu", 0), "variance"),
        (lambda: init.critical("relu", bias_variance=-1), "bias_variance"),
        (lambda: init.critical(np.sign), "zero"),
        (lambda: init.critical(np.ones_like), "zero"),
        (lambda: nn.lsuv(nn.Linear(2, 2), np.zeros((3, 2), np.float32)), "variance 0"),
        (lambda: nn.lsuv(nn.Linear(2, 2), np.zeros((3, 2), np.float32), tries=0), "tries"),
    ],
)
def test_bad_arguments(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
    with pytest.raises(TypeError, match="expected a layer"):
        init.critical(3)
