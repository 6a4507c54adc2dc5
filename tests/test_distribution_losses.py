"""Quantiles, counts, variances and angles: values of others, shapes, and what they are good for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minidl
from minidl import kernels, nn, optim
from minidl.training import Trainer

CLOSE = {"rtol": 1e-9, "atol": 1e-12}


def weights(rng: np.random.Generator, rows: int) -> np.ndarray | None:
    """None, or weights of which some are zero."""
    if rng.uniform() < 0.5:
        return None
    found = rng.uniform(0, 2, rows) * (rng.uniform(size=rows) < 0.8)
    found[-1] = 1.0
    return found


# --- values of others ----------------------------------------------------------------------------


def test_losses_are_those_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    for seed in range(100):
        rng = np.random.default_rng(seed)
        rows, outputs = int(rng.integers(1, 20)), int(rng.integers(1, 4))
        w, q = weights(rng, rows), rng.uniform(0.05, 0.95)
        given = () if w is None else (w,)
        prediction = rng.integers(-3, 4, (rows, outputs)).astype(float)
        target = rng.integers(-3, 4, (rows, outputs)).astype(float)  # with ties
        pinball = metrics.mean_pinball_loss(target, prediction, sample_weight=w, alpha=q)
        np.testing.assert_allclose(nn.QuantileLoss(q)(prediction, target, *given), pinball, **CLOSE)
        counts, rate = rng.poisson(3.0, (rows, 1)).astype(float), rng.uniform(0.1, 9, (rows, 1))
        log_counts = np.log(np.maximum(counts, 1))
        constant = np.average(counts * log_counts - counts, axis=0, weights=w)[0]
        deviance = metrics.mean_poisson_deviance(counts[:, 0], rate[:, 0], sample_weight=w)
        for loss, given_rate in (
            (nn.PoissonNLLLoss(), np.log(rate)),
            (nn.PoissonNLLLoss(log_input=False, eps=1e-15), rate),
        ):
            value = float(loss(given_rate, counts, *given))
            np.testing.assert_allclose(2 * (value + constant), deviance, rtol=1e-7, atol=1e-9)


def test_cosines_are_those_of_scikit_learn() -> None:
    pairwise = pytest.importorskip("sklearn.metrics.pairwise")
    for seed in range(100):
        rng = np.random.default_rng(seed)
        u, v = rng.normal(size=(2, int(rng.integers(1, 9)), int(rng.integers(1, 6))))
        expected = pairwise.paired_cosine_distances(u, v)
        np.testing.assert_allclose(nn.CosineSimilarityLoss("none")(u, v), expected, atol=1e-12)
        pairs = np.stack([u, v], axis=1)
        together = nn.CosineEmbeddingLoss(reduction="none")(pairs, np.ones(len(u)))
        np.testing.assert_allclose(together, expected, atol=1e-12)


def test_gaussian_is_the_log_density_of_scipy() -> None:
    norm = pytest.importorskip("scipy.stats").norm
    rng = np.random.default_rng(0)
    mean, target = rng.normal(size=(2, 30, 2))
    deviation = rng.uniform(0.1, 3, (30, 2))
    prediction = np.concatenate([mean, 2 * np.log(deviation)], axis=1)
    loss = nn.GaussianNLLLoss(full=True, reduction="none")
    np.testing.assert_allclose(loss(prediction, target), -norm.logpdf(target, mean, deviation))


def test_full_poisson_is_nearly_the_log_probability() -> None:
    poisson = pytest.importorskip("scipy.stats").poisson
    counts = np.array([[2.0], [7.0], [50.0]])
    value = nn.PoissonNLLLoss(full=True, reduction="none")(np.full((3, 1), np.log(9.0)), counts)
    expected = -poisson.logpmf(counts, 9.0)
    np.testing.assert_allclose(value, expected, atol=0.05)  # Stirling: 1 / 12 t


# --- what they lead to ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_minimum_of_a_quantile_loss_is_the_quantile(backend: str, dtype: Any) -> None:
    y = np.random.default_rng(0).exponential(size=1001).astype(dtype)
    quantiles = [0.05, 0.5, 0.95]
    loss = nn.QuantileLoss(quantiles)
    found = np.quantile(y, quantiles).astype(dtype)
    best = float(loss(np.tile(found, (1001, 1)), y))
    slope = loss.backward().sum(axis=0)
    assert (np.abs(slope) < 1.5 / 1001 / 3).all()  # but for the row that is the quantile
    for shift in (-0.1, 0.1):
        assert float(loss(np.tile(found + dtype(shift), (1001, 1)), y)) > best


def test_targets_of_several_quantiles(backend: str) -> None:
    rng = np.random.default_rng(1)
    prediction, y = rng.normal(size=(5, 4, 3)), rng.normal(size=(5, 4))
    loss = nn.QuantileLoss([0.1, 0.5, 0.9], "none")
    expected = np.array(loss(prediction, np.repeat(y[..., None], 3, axis=2)))
    gradient = loss.backward()
    each = [nn.QuantileLoss(q, "none")(prediction[..., k], y) for k, q in enumerate(loss.quantiles)]
    np.testing.assert_allclose(expected, np.stack(each, axis=2))
    for target in (y, y[..., None]):
        np.testing.assert_array_equal(loss(prediction, target), expected)
        np.testing.assert_array_equal(loss.backward(), gradient)


def test_gradient_of_what_is_exact_is_zero(backend: str) -> None:
    x = np.arange(40.0).reshape(8, 5)
    loss = nn.QuantileLoss(0.3)
    assert loss(x, x) == 0
    assert not loss.backward().any()


def test_variance_below_the_least_counts_as_that(backend: str) -> None:
    loss = nn.GaussianNLLLoss(eps=0.25)
    target = np.array([[1.0]])
    values, gradients = [], []
    for log_variance in (np.log(0.25), -30.0, -1e300):
        values.append(float(loss(np.array([[2.0, log_variance]]), target)))
        gradients.append(loss.backward())
    np.testing.assert_allclose(values, (np.log(0.25) + 4) / 2)
    np.testing.assert_allclose(gradients, [[[4.0, -1.5]]] * 3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_vectors_without_a_direction(backend: str, dtype: Any) -> None:
    zero, other = np.zeros((1, 3), dtype), np.array([[3.0, 0, 4]], dtype)
    loss = nn.CosineSimilarityLoss()
    for prediction, target in ((zero, other), (other, zero), (zero, zero)):
        assert loss(prediction, target) == 1
        assert np.isfinite(loss.backward()).all()


def test_margin_lets_different_vectors_be(backend: str) -> None:
    pairs = np.array([[[1.0, 0], [1, 1]], [[1, 0], [0, 1]], [[1, 0], [1, 1]]])
    loss = nn.CosineEmbeddingLoss(margin=0.5, reduction="none")
    root = np.sqrt(0.5)
    value = loss(pairs, np.array([[-1.0], [-1.0], [1.0]]))
    np.testing.assert_allclose(value, [[root - 0.5], [0], [1 - root]])
    gradient = loss.backward()
    assert not gradient[1].any()
    np.testing.assert_allclose(gradient[0], -gradient[2])


def test_lengths_of_vectors_do_not_matter(backend: str) -> None:
    rng = np.random.default_rng(2)
    u, v = rng.normal(size=(2, 6, 17)).astype(np.float32)
    loss = nn.CosineSimilarityLoss()
    value = float(loss(u, v))
    np.testing.assert_allclose((loss.backward() * u).sum(axis=1), 0, atol=1e-6)
    for factor in (1e-6, 1e15):
        np.testing.assert_allclose(loss(u * np.float32(factor), v), value, rtol=1e-5)


# --- in a Trainer --------------------------------------------------------------------------------


def trained(loss: nn.Loss, outputs: int, x: np.ndarray, y: np.ndarray, epochs: int = 60) -> Trainer:
    model = nn.Sequential(nn.Linear(x.shape[-1], 16), nn.Tanh(), nn.Linear(16, outputs), rng=0)
    trainer = Trainer(model, loss, optim.Adam(model.parameters(), lr=1e-2), rng=0)
    trainer.fit(x, y, epochs, progress=False, diagnose=False)
    return trainer


@pytest.mark.parametrize("flat", [True, False])
def test_prediction_intervals_hold_what_they_say(flat: bool) -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (800, 1))
    y = x + (1 + x) * rng.normal(size=(800, 1))
    trainer = trained(nn.QuantileLoss([0.1, 0.9]), 2, x, y[:, 0] if flat else y)
    low, high = trainer.predict(x).T
    inside = (low <= y[:, 0]) & (y[:, 0] <= high)
    assert 0.75 < inside.mean() < 0.85
    assert (high - low)[x[:, 0] > 0.5].mean() > 2 * (high - low)[x[:, 0] < -0.5].mean()


def test_variance_is_learned_where_it_differs() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (800, 1))
    deviation = np.where(x > 0, 1.0, 0.1)
    trainer = trained(
        nn.GaussianNLLLoss(), 2, x, (np.sin(x) + deviation * rng.normal(size=x.shape))[:, 0]
    )
    found = np.exp(trainer.predict(np.array([[-0.8], [0.8]]))[:, 1] / 2)
    np.testing.assert_allclose(found, [0.1, 1.0], rtol=0.3)


def test_rates_of_counts_are_learned() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2, (600, 1)).astype(float)
    y = rng.poisson(np.where(x > 0, 5.0, 1.0))
    trainer = trained(nn.PoissonNLLLoss(), 1, x, y.astype(float))
    rates = np.exp(trainer.predict(np.array([[0.0], [1.0]])))[:, 0]
    np.testing.assert_allclose(rates, [y[x == 0].mean(), y[x == 1].mean()], rtol=0.1)


def test_pairs_are_embedded_by_one_network() -> None:
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 3, (300, 2))
    x = np.eye(3)[kinds] * 2 + 0.3 * rng.normal(size=(300, 2, 3))
    same = np.where(kinds[:, 0] == kinds[:, 1], 1.0, -1.0)
    trainer = trained(nn.CosineEmbeddingLoss(margin=0.2), 4, x, same, 30)
    assert trainer.evaluate(x, same)["loss"] < 0.05
    weight = np.arange(300) % 3
    scores = trainer.evaluate(x, same, sample_weight=weight)
    counted = np.repeat(x, weight, axis=0), np.repeat(same, weight)
    assert scores["loss"] == pytest.approx(trainer.evaluate(*counted)["loss"], rel=1e-5)
    trainer.fit(x, same, 1, sample_weight=weight, progress=False)


@pytest.mark.parametrize(
    ("loss", "outputs"),
    [
        *((nn.QuantileLoss([0.1, 0.9]), 2), (nn.GaussianNLLLoss(), 2)),
        *((nn.PoissonNLLLoss(), 1), (nn.CosineSimilarityLoss(), 3)),
    ],
    ids=repr,
)
@pytest.mark.parametrize("make", [optim.Adam, optim.LBFGS])
def test_padded_steps_of_sequences_do_not_count(loss: nn.Loss, outputs: int, make: Any) -> None:
    rng = np.random.default_rng(0)
    x = [rng.normal(size=(k, 3)) for k in (2, 5, 3, 5, 4)]
    y = [np.abs(rows[:, : 3 if outputs == 3 else 1]) for rows in x]
    model = nn.Sequential(nn.GRU(3, 8), nn.Linear(8, outputs), rng=0)
    trainer = Trainer(model, loss, make(model.parameters()), rng=0)
    history = trainer.fit(x, y, 2, progress=False)
    assert history["loss"][1] < history["loss"][0]
    values = [trainer.evaluate([rows], [own])["loss"] for rows, own in zip(x, y, strict=True)]
    expected = np.average(values, weights=[2, 5, 3, 5, 4])
    assert trainer.evaluate(x, y)["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("loss", "outputs"),
    [
        (nn.QuantileLoss(0.9), 1),
        (nn.QuantileLoss([0.1, 0.9]), 2),
        (nn.GaussianNLLLoss(), 2),
        (nn.PoissonNLLLoss(), 1),
        (nn.CosineSimilarityLoss(), 1),
    ],
    ids=repr,
)
def test_what_predicts_no_targets_is_not_judged_by_its_distance(
    loss: nn.Loss, outputs: int, capsys: pytest.CaptureFixture[str]
) -> None:
    x = np.random.default_rng(0).normal(size=(60, 2))
    y = np.abs(x[:, :1]) + 50
    model = nn.Sequential(nn.Linear(2, outputs), rng=0)
    adam = optim.Adam(model.parameters())
    trainer = Trainer(model, loss, adam)
    trainer.fit(x, y, 2, progress="lines")
    assert trainer.diagnosis == ""
    with pytest.raises(ValueError, match="diagnose judges predictions by their distance"):
        minidl.diagnose(model, loss, adam, x, y, epochs=1)


# --- what is refused -----------------------------------------------------------------------------

ONES = np.ones


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nn.QuantileLoss(0.0), "quantiles must be"),
        (lambda: nn.QuantileLoss([0.5, 1.0]), "quantiles must be"),
        (lambda: nn.QuantileLoss([]), "got none"),
        (lambda: nn.PoissonNLLLoss(eps=0), "eps"),
        (lambda: nn.GaussianNLLLoss(eps=-1), "eps"),
        (lambda: nn.CosineEmbeddingLoss(margin=1.0), "margin"),
        (lambda: nn.QuantileLoss(0.5, "average"), "reduction"),
        (lambda: nn.QuantileLoss([0.1, 0.9])(ONES((4, 3)), ONES(4)), "must have 2 columns"),
        (
            lambda: nn.QuantileLoss([0.1, 0.9])(ONES((4, 2)), ONES((4, 3))),
            r"expected target \(4,\)",
        ),
        (lambda: nn.QuantileLoss(0.1)(ONES((4, 2)), ONES(4)), "differ in shape"),
        (lambda: nn.GaussianNLLLoss()(ONES((4, 3)), ONES((4, 1))), r"must be \(batch, 2 · outputs"),
        (lambda: nn.GaussianNLLLoss()(ONES(4), ONES(2)), r"must be \(batch, 2 · outputs"),
        (lambda: nn.GaussianNLLLoss()(ONES((4, 4)), ONES((4, 1))), r"expected target \(4, 2\)"),
        (lambda: nn.CosineSimilarityLoss()(ONES(4), ONES(4)), r"must be \(batch, features\)"),
        (lambda: nn.CosineEmbeddingLoss()(ONES((4, 3)), ONES(4)), r"must be \(batch, 2, features"),
        (lambda: nn.CosineEmbeddingLoss()(ONES((4, 2, 3)), ONES(3)), r"expected target \(4,\)"),
        (
            lambda: nn.CosineEmbeddingLoss()(ONES((4, 2, 3)), ONES(4), ONES((4, 2))),
            r"expected weights of shape \(4,\)",
        ),
        (lambda: kernels.gaussian_nll(ONES((4, 2)), ONES((3, 1))), "do not fit"),
        (lambda: kernels.cosine_embedding(ONES((4, 3)), ONES(4)), r"\(rows, 2, columns\)"),
        (lambda: kernels.dot(ONES(3), ONES(4)), "dot"),
    ],
)
def test_wrong_arguments(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
