"""The remedies against gradients that vanish or explode, at work; and the state of Standardize."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minidl
from minidl import nn, optim


def people(rng: np.random.Generator, count: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Age in years and yearly income; who earns more than 1000 for each year of age."""
    age, income = rng.uniform(20, 60, count), rng.normal(40_000, 15_000, count)
    data = np.stack([age, income], axis=1).astype(np.float32)
    return data, (income > 1000 * age).astype(np.int64)


def trained(*first: nn.Layer) -> tuple[nn.Sequential, float]:
    """A small network after some training on raw features, and its accuracy."""
    x, labels = people(np.random.default_rng(0))
    model = nn.Sequential(*first, nn.Linear(2, 16), nn.Sigmoid(), nn.Linear(16, 2), rng=0)
    loss, optimizer = nn.CrossEntropyLoss(), optim.Adam(model.parameters(), lr=0.02)
    for _ in range(150):
        loss(model(x), labels)
        optimizer.zero_grad()
        model.backward(loss.backward())
        optimizer.step()
    return model, float((model(x).argmax(axis=1) == labels).mean())


def test_incomes_saturate_a_sigmoid_and_standardize_mends_it() -> None:
    x, labels = people(np.random.default_rng(0))
    usual = max(labels.mean(), 1 - labels.mean())
    model, accuracy = trained()
    assert accuracy <= usual + 0.05  # all sigmoids are 0 or 1, whoever comes
    hidden = model[:2](x)
    assert ((hidden < 1e-3) | (hidden > 1 - 1e-3)).mean() > 0.9
    _, accuracy = trained(nn.Standardize(2).adapt(x))
    assert accuracy > 0.97


# --- Standardize ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_standardized_features_have_mean_0_and_variance_1(backend: str, dtype: type) -> None:
    x, _ = people(np.random.default_rng(1))
    x = x.astype(dtype)
    y = nn.Standardize(2, dtype=dtype).adapt(x)(x)
    np.testing.assert_allclose(y.mean(axis=0, dtype=np.float64), 0, atol=1e-5)
    np.testing.assert_allclose(y.std(axis=0, dtype=np.float64), 1, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e8 + 0.1, -1e-30])
def test_constant_feature_is_only_shifted(value: float) -> None:
    layer = nn.Standardize(2, dtype=np.float64).adapt(np.full((1000, 2), value))
    assert np.array_equal(layer.std, [1, 1])
    assert np.array_equal(layer(np.full((3, 2), value)), np.zeros((3, 2)))
    assert np.array_equal(layer(np.full((3, 2), value + 1)) > 0.9, np.ones((3, 2), bool))


@pytest.mark.parametrize("column", [[1e300, 1e300], [1e30, -1e300], [1e-60, 2e-60]])
def test_adapt_refuses_what_is_beyond_its_dtype(column: list[float]) -> None:
    layer, data = nn.Standardize(2), np.column_stack([[1.0, 2.0], column])
    with pytest.raises(ValueError, match=r"Standardize\(2\).*feature 1 .*beyond float32"):
        layer.adapt(data)
    assert layer.mean.tolist() == [0, 0]
    assert layer.std.tolist() == [1, 1]


def test_it_is_the_identity_before_adapt_and_takes_sequences() -> None:
    x = np.random.default_rng(0).normal(3, 2, (4, 5, 3))
    layer = nn.Standardize(3, dtype=np.float64)
    assert np.array_equal(layer(x), x)
    layer.adapt(x)
    np.testing.assert_allclose(layer.mean, x.mean(axis=(0, 1)))
    np.testing.assert_allclose(layer.std, x.std(axis=(0, 1)))


def test_statistics_are_saved_and_loaded_and_no_seed_forgets_them(tmp_path: Path) -> None:
    x, _ = people(np.random.default_rng(2))
    model = nn.Sequential(nn.Standardize(2).adapt(x), nn.Linear(2, 3), rng=0)
    other = nn.Sequential(nn.Standardize(2), nn.Linear(2, 3), rng=1)
    assert model[0].std[1] > 1000  # rng=0 drew the weights anew, and nothing else
    path = tmp_path / "model.safetensors"
    minidl.save(model, path)
    minidl.load(path, into=other)
    assert np.array_equal(other[0].mean, model[0].mean)
    assert np.array_equal(other(x), model(x))


@pytest.mark.parametrize(
    "data",
    [
        np.ones(2),
        np.ones((3, 4)),
        np.ones((0, 2)),
        np.array([["a", "b"]]),
        np.array([[1, np.inf], [2, 3]]),
        np.array([[1, 2], [np.nan, 3]]),
    ],
)
def test_adapt_refuses_what_are_no_numbers_of_its_width(data: np.ndarray) -> None:
    layer = nn.Standardize(2)
    with pytest.raises(ValueError, match=r"Standardize\(2\).*adapt"):
        layer.adapt(data)
    assert np.array_equal(layer.std, [1, 1])


# --- initialisers, hyper-parameters, blocks -----------------------------------------------


def test_every_rectifier_gets_the_variance_that_keeps_signals_alive() -> None:
    for activation, slope in ((nn.ReLU(), 0), (nn.LeakyReLU(0.5), 0.5), (nn.PReLU(), 0.25)):
        hidden = [nn.Linear(400, 400), nn.LayerNorm(400), activation]
        model = nn.Sequential(nn.Linear(2, 400), *hidden, nn.Linear(400, 2), rng=0)
        expected = 2 / ((1 + slope**2) * 400)
        assert model[1].weight.data.var() == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.LeakyReLU(-0.1),
        lambda: nn.LeakyReLU(1.0),
        lambda: nn.PReLU(0),
        lambda: nn.PReLU(3, slope=float("nan")),
        lambda: nn.ELU(-1),
        lambda: nn.ELU(0),
        lambda: nn.ELU(float("inf")),
        lambda: nn.CELU(0),
        lambda: nn.GELU("erf"),
        lambda: nn.Softplus(0),
        lambda: nn.LayerNorm(0),
        lambda: nn.LayerNorm(3, eps=0),
        lambda: nn.RMSNorm(0),
        lambda: nn.RMSNorm(3, eps=0),
        lambda: nn.Standardize(0),
    ],
)
def test_bad_hyper_parameters(make: object) -> None:
    with pytest.raises(
        ValueError, match=r"LeakyReLU|PReLU|ELU|Softplus|LayerNorm|RMSNorm|Standardize"
    ):
        make()  # type: ignore[operator]


@pytest.mark.parametrize("norm", [nn.BatchNorm, nn.LayerNorm, nn.RMSNorm])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.GELU, nn.Sigmoid])
def test_gradient_reaches_the_bottom_of_forty_blocks(
    norm: type[nn.Layer], activation: type[nn.Layer]
) -> None:
    rng = np.random.default_rng(0)
    blocks = [nn.pre_activation(8, norm=norm, activation=activation) for _ in range(40)]
    model = nn.Sequential(*blocks, rng=0).astype(np.float64)
    x, dy = rng.normal(size=(16, 8)), rng.normal(size=(16, 8))
    model(x)
    ratio = np.linalg.norm(model.backward(dy)) / np.linalg.norm(dy)
    assert 0.2 < ratio < 50
    plain = [layer for block in blocks for layer in (block.body[2], nn.Sigmoid())]
    chain = nn.Sequential(*plain).astype(np.float64)
    chain(x)
    assert np.linalg.norm(chain.backward(dy)) < 1e-12


def test_a_pre_activation_block_without_an_activation() -> None:
    block = nn.pre_activation(4, activation=nn.Identity, rng=0)
    assert block(np.ones((2, 4), np.float32)).shape == (2, 4)


def test_gradients_of_a_pre_activation_block() -> None:
    x = np.random.default_rng(0).normal(size=(5, 4))
    x[::2] += 4
    for norm in (nn.BatchNorm, nn.LayerNorm):
        report = minidl.gradcheck(nn.pre_activation(4, 3, norm, nn.SiLU, rng=0), x, rtol=1e-5)
        assert {"input", "body.0.gamma", "body.2.weight", "body.5.bias"} < report.tensors.keys()


def test_dropout_is_checked_with_one_mask() -> None:
    layer, x = nn.Dropout(0.5, rng=3), np.ones((6, 6))
    before = layer.generator.copy()
    assert minidl.gradcheck(layer, x).ok
    assert np.array_equal(layer.generator, before)
    # Masks that changed from pass to pass would make finite differences of ±1/ε.
    layer.state_names = ()  # type: ignore[misc]
    assert not minidl.gradcheck(layer, x, raise_error=False).ok


# --- features that are constant but for rounding, and those that float32 cannot tell apart --


def noisy(dtype: Any = np.float64) -> np.ndarray:
    """A constant of which one half was computed in another way."""
    x = np.full((10, 2), 0.3, dtype)
    x[::2, 0] = dtype(0.1) * dtype(3) if dtype is np.float64 else np.nextafter(dtype(0.3), dtype(1))
    x[:, 1] = np.arange(10)
    return x


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("scale", [1.0, 2.0**-66, 2.0**66])
def test_a_feature_of_rounding_noise_is_constant(dtype: Any, scale: float) -> None:
    x = (noisy(dtype) * dtype(scale)).astype(dtype)
    assert np.ptp(x[:, 0]) > 0
    layer = nn.Standardize(2).adapt(x)
    assert layer.std[0] == 1
    assert layer.std[1] == pytest.approx(np.arange(10).std() * scale, rel=1e-6)
    row = np.array([[0.301, 1.0]], np.float32) * np.float32(scale)
    assert abs(layer(row)[0, 0]) <= 0.0011 * max(1, scale)


def test_a_small_spread_that_is_real_is_kept() -> None:
    x = np.arange(10)[:, None] * 1e-12 + 1.0
    assert nn.Standardize(1, np.float64).adapt(x).std[0] == pytest.approx(x.std(), rel=1e-3)
    whole = np.array([[2**40], [2**40 + 2]])
    assert nn.Standardize(1, np.float64).adapt(whole).std[0] == 1


SECONDS = 1.7e9 + np.arange(1000.0)


@pytest.mark.parametrize("data", [SECONDS, SECONDS.astype(np.int64)])
def test_a_feature_that_float32_cannot_tell_apart_is_refused(data: np.ndarray) -> None:
    x = np.stack([np.arange(1000), data], axis=1)
    layer = nn.Standardize(2)
    with pytest.raises(ValueError, match=r"1000 distinct values of feature 1.*keeps 9.*subtract"):
        layer.adapt(x)
    assert (layer.std == 1).all()
    nn.Standardize(2, np.float64).adapt(x)
    layer.adapt(x - [0, 1_700_000_000])
    assert layer.std[1] == pytest.approx(np.arange(1000).std())


def test_a_large_mean_whose_values_float32_keeps_is_accepted() -> None:
    layer = nn.Standardize(1).adapt(16_000_000 + np.arange(500)[:, None])
    assert layer.std[0] == pytest.approx(np.arange(500).std())
