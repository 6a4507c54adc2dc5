"""``minidl.sklearn``: what its estimators can beyond scikit-learn's, and what they refuse."""

from __future__ import annotations

import copy
import pickle
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")
import joblib
from scipy.sparse import csr_matrix
from sklearn.base import clone, is_classifier
from sklearn.datasets import load_diabetes, load_iris, make_multilabel_classification
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.metrics import balanced_accuracy_score, d2_pinball_score, log_loss, r2_score
from sklearn.neural_network import MLPClassifier as TheirClassifier
from sklearn.neural_network import MLPRegressor as TheirRegressor

from minidl import nn
from minidl.sklearn import (
    DivergenceError,
    MLPClassifier,
    MLPRegressor,
    NetClassifier,
    NetRegressor,
    SequenceClassifier,
    SequenceRegressor,
)
from minidl.training import Callback

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X_IRIS, Y_IRIS = load_iris(return_X_y=True)
X_IRIS = (X_IRIS - X_IRIS.mean(axis=0)) / X_IRIS.std(axis=0)
RNG = np.random.default_rng(0)
X_LINE = RNG.uniform(-1, 1, size=(200, 3))
Y_LINE = X_LINE @ [1.0, -2.0, 0.5] + 3.0
SMALL: dict[str, Any] = {"hidden_layer_sizes": (8,), "max_iter": 5, "random_state": 0}


def fitted(kind: Any = MLPClassifier, **parameters: Any) -> Any:
    estimator = kind(**SMALL | parameters)
    return estimator.fit(X_IRIS, Y_IRIS)


# --- drop-in ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs"), [(MLPClassifier, TheirClassifier), (MLPRegressor, TheirRegressor)]
)
def test_takes_all_parameters_of_scikit_learn(ours: Any, theirs: Any) -> None:
    parameters = theirs().get_params()
    assert parameters.items() <= ours().get_params().items(), "the same defaults, too"
    estimator = ours().set_params(**parameters)
    assert estimator.get_params().items() >= parameters.items()


def test_positional_parameters_are_those_of_scikit_learn() -> None:
    assert MLPClassifier((3, 4), "tanh").activation == "tanh"
    assert MLPRegressor("squared_error", (3, 4), "tanh").hidden_layer_sizes == (3, 4)
    with pytest.raises(TypeError):
        MLPClassifier((3, 4), "tanh", "adam")


def test_sgd_makes_the_very_steps_of_scikit_learn() -> None:
    """From the same weights, without shuffling: loss, penalty, momentum and rates agree."""
    for y, ours, theirs in (
        (Y_IRIS, MLPClassifier, TheirClassifier),
        (Y_IRIS == 1, MLPClassifier, TheirClassifier),
        (np.eye(3, dtype=int)[Y_IRIS], MLPClassifier, TheirClassifier),
        (X_IRIS[:, :1].ravel(), MLPRegressor, TheirRegressor),
        (X_IRIS[:, :2], MLPRegressor, TheirRegressor),
    ):
        for rate in ("constant", "invscaling"):
            settings = {"hidden_layer_sizes": (5, 4), "solver": "sgd", "learning_rate": rate}
            settings |= {"alpha": 0.5, "batch_size": 50, "shuffle": False, "warm_start": True}
            settings |= {"max_iter": 4, "learning_rate_init": 0.02, "random_state": 1}
            reference = theirs(**settings | {"max_iter": 1}).fit(X_IRIS, y)
            estimator = ours(**settings | {"max_iter": 1, "learning_rate_init": 1e-30})
            estimator.fit(X_IRIS, y).set_params(learning_rate_init=0.02, max_iter=4)
            for layer, W, b in zip(
                [m for m in estimator.network_ if isinstance(m, nn.Linear)],
                reference.coefs_, reference.intercepts_, strict=True,
            ):  # fmt: skip
                layer.weight.data, layer.bias.data = W, b
            estimator._fitting.curves.rows = reference.t_
            reference.set_params(max_iter=4).fit(X_IRIS, y)
            estimator.fit(X_IRIS, y)
            for W, V in zip(estimator.coefs_, reference.coefs_, strict=True):
                np.testing.assert_allclose(W, V, rtol=1e-9, atol=1e-12)
            assert estimator.t_ == reference.t_
            assert estimator.n_layers_ == reference.n_layers_
            assert estimator.n_outputs_ == reference.n_outputs_
            assert estimator.out_activation_ == reference.out_activation_
            if y.ndim == 1:
                np.testing.assert_allclose(
                    estimator.loss_curve_[1:], reference.loss_curve_[1:], rtol=0.05
                )


def test_initial_weights_are_spread_as_those_of_scikit_learn() -> None:
    for activation in ("relu", "logistic"):
        settings = {"hidden_layer_sizes": (300,), "activation": activation, "max_iter": 1}
        settings |= {"learning_rate_init": 1e-9, "random_state": 0}
        ours, theirs = (
            kind(**settings).fit(X_IRIS, Y_IRIS) for kind in (MLPClassifier, TheirClassifier)
        )
        for a, b in zip(
            ours.coefs_ + ours.intercepts_, theirs.coefs_ + theirs.intercepts_, strict=True
        ):
            assert np.abs(a).max() == pytest.approx(np.abs(b).max(), rel=0.5 if b.size < 9 else 0.1)


# --- the state of an estimator ------------------------------------------------------------------


def copies(estimator: Any) -> list[Any]:
    return [copy.deepcopy(estimator), pickle.loads(pickle.dumps(estimator))]


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor, NetClassifier, NetRegressor])
def test_copies_predict_the_same_and_train_on_alike(kind: Any) -> None:
    options = (
        {"dropout": 0.2, "norm": "batch", "ema": 0.9}
        if kind in (MLPClassifier, MLPRegressor)
        else {}
    )
    estimator = kind(max_iter=3, random_state=0, **options).fit(X_IRIS, Y_IRIS)
    before = estimator.predict(X_IRIS)
    others = copies(estimator)
    for other in others:
        assert (other.predict(X_IRIS) == before).all()
    estimator.partial_fit(X_IRIS, Y_IRIS)
    for other in others:
        other.partial_fit(X_IRIS, Y_IRIS)
        assert (other._outputs(X_IRIS) == estimator._outputs(X_IRIS)).all()


WALKS = np.random.default_rng(0).normal(size=(60, 4, 2))
ENDS = (WALKS[:, :, 0].sum(axis=1) > 0).astype(int) + (WALKS[:, 0, 1] > 0.5)
GOING_ON: dict[str, tuple[Any, Any, Any, dict[str, Any]]] = {
    "adam": (MLPClassifier, X_IRIS, Y_IRIS, {"dropout": 0.2, "norm": "batch", "ema": 0.9}),
    "schedule": (MLPRegressor, X_IRIS, Y_IRIS, {"learning_rate": "one_cycle", "dropout": 0.1}),
    "momentum": (MLPRegressor, X_IRIS, Y_IRIS, {"solver": "sgd", "learning_rate": "adaptive"}),
    "net": (NetClassifier, X_IRIS, Y_IRIS, {}),
    "numbers": (NetRegressor, X_IRIS, Y_IRIS, {"scale_targets": True}),
    "sequences": (SequenceClassifier, WALKS, ENDS, {"dropout": 0.3, "num_layers": 2}),
    "cells": (SequenceRegressor, WALKS, ENDS, {"cell": "lstm", "scale_inputs": True}),
}


def all_bits(estimator: Any) -> list[Any]:
    """Weights, moments and curves of an estimator."""
    optimizer = estimator.optimizer_
    arrays = [*estimator._fitting.trainer.lasting(), *optimizer.vectors().values()]
    return [*(a.tobytes() for a in arrays), optimizer.states.tobytes(), estimator.loss_curve_]


@pytest.mark.parametrize("how", ["partial_fit", "warm_start", "early_stopping"])
@pytest.mark.parametrize("case", GOING_ON)
def test_saved_between_calls_it_ends_with_the_same_bits(
    case: str, how: str, tmp_path: Path
) -> None:
    """Saved and loaded after every call, and never: the same weights, moments and losses."""
    kind, X, y, options = GOING_ON[case]
    options = options | {"max_iter": 2, "random_state": 0, "batch_size": 20}
    if how != "partial_fit":
        options |= {"warm_start": True, "early_stopping": how == "early_stopping"}
    whole, saved = kind(**options), kind(**options)
    for _ in range(3):
        for estimator in (whole, saved):
            if how != "partial_fit":
                estimator.fit(X, y)
            elif is_classifier(estimator):
                estimator.partial_fit(X, y, classes=np.unique(y))
            else:
                estimator.partial_fit(X, y)
        joblib.dump(saved, tmp_path / "estimator")
        saved = joblib.load(tmp_path / "estimator")
    assert all_bits(saved) == all_bits(whole)


@pytest.mark.parametrize("weighted", [False, True])
def test_scaled_targets_are_measured_on_the_rows_that_are_trained_on(weighted: bool) -> None:
    """What is held out may be anything: it has no influence on the first epoch."""
    y = X_IRIS[:, 0] + 1e3
    weight = np.linspace(0.1, 3, len(y)) if weighted else None
    settings = SMALL | {"scale_targets": True, "early_stopping": True, "max_iter": 1}
    estimator = MLPRegressor(**settings).fit(X_IRIS, y, sample_weight=weight)
    training, held_out = estimator._split(y)
    mean = np.average(y[training], weights=None if weight is None else weight[training])
    np.testing.assert_allclose(estimator._numbers.mean, [mean], rtol=1e-14)
    other = y.copy()
    other[held_out] *= 100
    again = MLPRegressor(**settings).fit(X_IRIS, other, sample_weight=weight)
    assert again.loss_curve_ == estimator.loss_curve_
    with pytest.raises(ValueError, match="requires y to be passed, but the target y is None"):
        estimator.score(X_IRIS, None)


def test_a_clone_is_not_fitted() -> None:
    other = clone(fitted())
    with pytest.raises(NotFittedError):
        other.predict(X_IRIS)
    for name in ("coefs_", "loss_curve_", "n_iter_", "network_", "classes_", "n_outputs_"):
        assert not hasattr(other, name)


@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_partial_fit_again_and_again_is_fit(solver: str, dtype: Any) -> None:
    X, settings = X_IRIS.astype(dtype), {"batch_size": 32, "solver": solver, "dropout": 0.1}
    whole = MLPClassifier(**SMALL | settings).fit(X, Y_IRIS)
    for calls, epochs in ((5, 1), (1, 5)):
        parts = MLPClassifier(**SMALL | settings)
        for _ in range(calls):
            parts.partial_fit(X, Y_IRIS, classes=[0, 1, 2], epochs=epochs)
        assert (parts._outputs(X) == whole._outputs(X)).all()
        assert parts.loss_curve_ == whole.loss_curve_
        assert parts.t_ == whole.t_ == 5 * len(X)
    assert whole.coefs_[0].dtype == dtype


def test_sparse_and_dense_rows_are_the_same() -> None:
    X = np.where(X_IRIS > 0, X_IRIS, 0)
    dense, sparse = (MLPClassifier(**SMALL).fit(A, Y_IRIS) for A in (X, csr_matrix(X)))
    assert (dense.predict_proba(X) == sparse.predict_proba(X)).all()
    many = np.tile(X, (10, 1))
    np.testing.assert_allclose(
        dense.predict_proba(many), sparse.predict_proba(csr_matrix(many)), rtol=1e-12
    )


@pytest.mark.parametrize("frames", ["pandas", "polars"])
def test_frames_keep_their_names(frames: str) -> None:
    library = pytest.importorskip(frames)
    frame = library.DataFrame({name: X_IRIS[:, i] for i, name in enumerate("abcd")})
    estimator = MLPClassifier(**SMALL).fit(frame, library.Series(Y_IRIS))
    assert estimator.feature_names_in_.tolist() == list("abcd")
    assert (
        estimator.predict(frame) == MLPClassifier(**SMALL).fit(X_IRIS, Y_IRIS).predict(X_IRIS)
    ).all()
    with pytest.raises(ValueError, match="feature names"):
        estimator.predict(frame[["b", "a", "c", "d"]])


def test_integers_and_booleans_of_a_frame_are_numbers() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [True, False] * 20, "b": range(40)})
    estimator = MLPClassifier(**SMALL).fit(frame, frame["a"])
    assert estimator.predict(frame).dtype == bool
    assert estimator.coefs_[0].dtype == np.float64


def test_a_notebook_shows_the_table_of_layers() -> None:
    assert "Linear(4, 8)" in fitted()._repr_html_()
    assert "Linear(4, 8)" in fitted()._repr_mimebundle_()["text/html"]
    assert "Linear" not in MLPClassifier()._repr_html_()


# --- the network --------------------------------------------------------------------------------


def test_the_network_is_as_its_parameters_say() -> None:
    estimator = fitted(
        hidden_layer_sizes=(8, 8, 6),
        activation=["tanh", "gelu", nn.PReLU],
        dropout=[0.0, 0.5, 0.0],
        norm="layer",
        residual=True,
        scale_inputs=True,
    )
    kinds = [type(layer).__name__ for _, layer in estimator.network_.layers()]
    block = ["Residual", "Sequential", "Linear", "LayerNorm"]
    assert kinds == [
        *("Sequential", "Standardize"),
        *(*block, "Tanh", "Linear"),
        *(*block, "GELU", "Dropout"),
        *(*block, "PReLU", "Linear"),
        "Linear",
    ]
    assert [W.shape for W in estimator.coefs_] == [(4, 8), (8, 8), (8, 6), (6, 3)]
    assert estimator.n_layers_ == 5


def test_no_hidden_layer_is_a_linear_model() -> None:
    estimator = MLPClassifier((), alpha=0.0, max_iter=300, learning_rate_init=0.1, random_state=0)
    assert [W.shape for W in estimator.fit(X_IRIS, Y_IRIS).coefs_] == [(4, 3)]
    assert estimator.score(X_IRIS, Y_IRIS) > 0.95


def test_scaled_inputs_and_targets_make_units_irrelevant() -> None:
    X, y = X_LINE * [1e-3, 1.0, 1e5] + 7.0, 1e4 * Y_LINE + 5e4
    settings = {"scale_inputs": True, "scale_targets": True, "max_iter": 200}
    settings |= {"learning_rate_init": 0.02, "random_state": 0}
    estimator = MLPRegressor(**settings).fit(X, y)
    assert estimator.score(X, y) > 0.99
    same = MLPRegressor(**settings).fit(X_LINE, Y_LINE)
    np.testing.assert_allclose(estimator.predict(X), 1e4 * same.predict(X_LINE) + 5e4, rtol=1e-3)
    assert MLPRegressor(**settings | {"scale_targets": False}).fit(X, y).score(X, y) < 0.5


def test_scaling_is_that_of_rows_that_count() -> None:
    X = np.vstack([X_LINE, np.full((50, 3), 1e3)])
    y, weight = np.append(Y_LINE, np.zeros(50)), np.repeat([1.0, 0.0], [200, 50])
    estimator = MLPRegressor(**SMALL, scale_inputs=True).fit(X, y, sample_weight=weight)
    np.testing.assert_allclose(estimator.network_[0].mean, X_LINE.mean(axis=0), atol=1e-12)


def test_batch_norm_never_gets_a_batch_of_one_row() -> None:
    X, y = np.tile(X_IRIS, (3, 1))[:401], np.tile(Y_IRIS, 3)[:401]  # 2 · 200 + 1
    assert MLPClassifier(**SMALL, norm="batch").fit(X, y).n_iter_ == 5


# --- the objective ------------------------------------------------------------------------------


def half_square(prediction: Any, target: Any) -> tuple[Any, Any]:
    difference = prediction - target
    return (difference**2).sum(axis=1) / 2, difference


def test_class_weights_are_weights_of_rows() -> None:
    names = np.array(["a", "b", "c"])[Y_IRIS]
    weights = {"a": 1.0, "b": 5.0, "c": 0.5}
    by_class = MLPClassifier(**SMALL, class_weight=weights).fit(X_IRIS, names)
    by_row = MLPClassifier(**SMALL).fit(X_IRIS, names, sample_weight=[weights[n] for n in names])
    np.testing.assert_allclose(by_class.predict_proba(X_IRIS), by_row.predict_proba(X_IRIS))


@pytest.mark.parametrize("loss", ["squared_error", half_square])
def test_a_batch_counts_as_much_as_the_weights_of_its_rows(loss: Any) -> None:
    """With one row in each, dividing by the weights of a batch would make all rows equal."""
    X, y = np.vstack([X_LINE, X_LINE]), np.append(Y_LINE, -Y_LINE)
    weight = np.repeat([1.0, 1e-9], 200)
    settings = {"solver": "sgd", "batch_size": 1, "learning_rate_init": 0.002, "momentum": 0.0}
    regressor = MLPRegressor(loss, (), max_iter=20, **settings)
    assert regressor.fit(X, y, sample_weight=weight).score(X_LINE, Y_LINE) > 0.95


def test_balanced_weights_find_a_rare_class() -> None:
    rng = np.random.default_rng(1)
    y = (rng.random(600) < 0.08).astype(int)
    X = rng.normal(size=(600, 2)) + y[:, None]
    scores = [
        balanced_accuracy_score(
            y, MLPClassifier(32, class_weight=w, random_state=0).fit(X, y).predict(X)
        )
        for w in (None, "balanced")
    ]
    assert scores[1] > scores[0] + 0.1


def test_quantiles_cover_their_share() -> None:
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, size=(800, 1))
    y = X[:, 0] + (1 + X[:, 0]) * rng.normal(size=800)
    settings = {"loss": "quantile", "learning_rate_init": 0.01, "random_state": 0, "alpha": 0.0}
    several = MLPRegressor(quantile=[0.1, 0.5, 0.9], **settings).fit(X, y)
    below = (y[:, None] < several.predict(X)).mean(axis=0)
    np.testing.assert_allclose(below, [0.1, 0.5, 0.9], atol=0.04)
    one = MLPRegressor(quantile=0.9, **settings).fit(X, y)
    assert one.predict(X).shape == (800,)
    assert (y < one.predict(X)).mean() == pytest.approx(0.9, abs=0.04)
    d2 = [
        d2_pinball_score(y, several.predict(X)[:, k], alpha=q)
        for k, q in enumerate([0.1, 0.5, 0.9])
    ]
    assert several.score(X, y) == pytest.approx(np.mean(d2))


def test_the_spread_of_targets_is_predicted() -> None:
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, size=(2000, 1))
    deviation = 5 * np.exp(X[:, 0])
    y = 100 + 20 * X[:, 0] + deviation * rng.normal(size=2000)
    settings = {"loss": "gaussian", "scale_targets": True, "learning_rate_init": 0.005}
    estimator = MLPRegressor(**settings, random_state=0).fit(X, y)
    mean, std = estimator.predict(X, return_std=True)
    assert mean.shape == std.shape == (2000,)
    assert np.abs(std / deviation - 1).mean() < 0.15
    assert (np.abs(y - mean) < 1.645 * std).mean() == pytest.approx(0.9, abs=0.02)
    two = estimator.fit(X, np.c_[y, -y])
    assert [a.shape for a in two.predict(X, return_std=True)] == [(2000, 2)] * 2
    with pytest.raises(ValueError, match="return_std needs loss=\"gaussian\", got 'squared_error'"):
        fitted(MLPRegressor).predict(X_IRIS, return_std=True)


def test_counts_are_predicted_by_their_rates() -> None:
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, size=(2000, 1))
    y = rng.poisson(np.exp(1 + X[:, 0]))
    estimator = MLPRegressor("poisson", 16, learning_rate_init=0.01, random_state=0).fit(X, y)
    np.testing.assert_allclose(estimator.predict([[-0.5], [0.5]]), np.exp([0.5, 1.5]), rtol=0.1)


def test_an_absolute_error_ignores_outliers() -> None:
    y = np.where(np.arange(200) % 10 == 0, 100.0, Y_LINE)
    settings = {"learning_rate_init": 0.02, "max_iter": 300, "random_state": 0}
    for loss in ("absolute_error", "huber", nn.HuberLoss(0.5)):
        estimator = MLPRegressor(loss, 32, **settings).fit(X_LINE, y)
        assert np.median(np.abs(estimator.predict(X_LINE) - Y_LINE)) < 0.5, loss
    estimator = MLPRegressor(hidden_layer_sizes=32, **settings).fit(X_LINE, y)
    assert np.median(np.abs(estimator.predict(X_LINE) - Y_LINE)) > 2


def test_a_function_is_a_loss() -> None:
    weight = np.random.default_rng(0).uniform(0.5, 2, size=200)
    own, usual = (
        MLPRegressor(loss, **SMALL).fit(X_LINE, Y_LINE, sample_weight=weight)
        for loss in (half_square, "squared_error")
    )
    np.testing.assert_allclose(own.predict(X_LINE), usual.predict(X_LINE), rtol=1e-6)
    np.testing.assert_allclose(own.loss_curve_, usual.loss_curve_, rtol=1e-6)


@pytest.mark.parametrize("result", [1.0, (np.ones(3), np.ones(3)), (1.0, 2.0)])
def test_a_function_that_is_no_loss_is_told_what_to_return(result: Any) -> None:
    with pytest.raises(
        ValueError, match=r"must return \(losses of shape \(1,\), gradient of shape"
    ):
        MLPRegressor(lambda prediction, target: result).fit(X_LINE, Y_LINE)


def test_labels_of_any_kind() -> None:
    X, Y = make_multilabel_classification(200, n_classes=4, random_state=0)
    several = MLPClassifier(32, learning_rate_init=0.01, random_state=0).fit(X, Y)
    assert several.score(X, Y) > 0.8
    assert several.predict_proba(X).shape == Y.shape
    parts = MLPClassifier(32, random_state=0, learning_rate_init=0.01)
    for _ in range(3):
        parts.partial_fit(X, Y, classes=range(4), epochs=20)
    assert ((parts.predict_proba(X) > 0.5) == Y).mean() > 0.8
    for y in (np.array(["no", "yes"])[Y[:, 0]], Y[:, 0] == 1, Y[:, 0] * 7 - 3.0):
        estimator = MLPClassifier(32, learning_rate_init=0.01, random_state=0).fit(X, y)
        assert set(estimator.classes_) == set(np.unique(y))
        assert estimator.score(X, y) > 0.9
        proba = estimator.predict_proba(X)
        np.testing.assert_allclose(proba.sum(axis=1), 1)
        assert (estimator.classes_[proba.argmax(axis=1)] == estimator.predict(X)).all()


def test_probabilities_are_those_of_the_loss() -> None:
    estimator = fitted(alpha=0.0, learning_rate_init=1e-30)
    assert estimator.loss_ == pytest.approx(log_loss(Y_IRIS, estimator.predict_proba(X_IRIS)))
    for X in (X_IRIS, 1e4 * X_IRIS):
        proba = estimator.predict_proba(X)
        np.testing.assert_allclose(proba.sum(axis=1), 1)
        assert np.isfinite(proba).all()
        np.testing.assert_allclose(np.exp(estimator.predict_log_proba(X)), proba)


# --- when training ends -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_early_stopping_ends_with_the_best_weights(kind: Any) -> None:
    X, y = X_IRIS[::2], Y_IRIS[::2]
    held_out = X_IRIS[1::2], Y_IRIS[1::2]
    settings = {"hidden_layer_sizes": 64, "learning_rate_init": 0.05, "random_state": 0}
    estimator = kind(early_stopping="loss", n_iter_no_change=5, max_iter=1000, **settings)
    estimator.fit(X, y, validation=held_out)
    curve = estimator.validation_loss_curve_
    assert estimator.n_iter_ == len(curve) < 1000
    assert np.argmin(curve) < len(curve) - 1
    outputs = estimator._outputs(held_out[0])
    if kind is MLPClassifier:
        assert log_loss(held_out[1], estimator.predict_proba(held_out[0])) < min(curve) + 1e-2
    else:
        assert ((outputs[:, 0] - held_out[1]) ** 2).mean() / 2 < min(curve) + 1e-2
    last = clone(estimator).set_params(restore_best=False).fit(X, y, validation=held_out)
    assert last.validation_loss_curve_ == curve
    assert not np.array_equal(last._outputs(held_out[0]), outputs)


def test_validation_is_measured_without_stopping() -> None:
    held_out = X_IRIS[1::2], Y_IRIS[1::2], np.ones(75)
    estimator = MLPClassifier(**SMALL).fit(X_IRIS[::2], Y_IRIS[::2], validation=held_out)
    assert len(estimator.validation_scores_) == len(estimator.validation_loss_curve_) == 5
    assert estimator.validation_scores_[-1] == pytest.approx(estimator.score(*held_out[:2]))
    alone = MLPClassifier(**SMALL).fit(X_IRIS[::2], Y_IRIS[::2])
    assert (alone.coefs_[0] == estimator.coefs_[0]).all()
    assert alone.validation_loss_curve_ is None


def test_partial_fit_stops_early() -> None:
    held_out = X_IRIS[1::2], Y_IRIS[1::2]
    settings = {"hidden_layer_sizes": 64, "learning_rate_init": 0.05, "random_state": 0}
    settings |= {"n_iter_no_change": 5, "early_stopping": "loss"}
    whole = MLPClassifier(**settings, max_iter=500).fit(
        X_IRIS[::2], Y_IRIS[::2], validation=held_out
    )
    for epochs in (1, 500):
        parts = MLPClassifier(**settings)
        for _ in range(500 // epochs):
            parts.partial_fit(
                X_IRIS[::2], Y_IRIS[::2], classes=range(3), epochs=epochs, validation=held_out
            )
            if parts.n_iter_no_change < parts._fitting.curves.unimproved:
                break
        assert parts.loss_curve_ == whole.loss_curve_
        assert (parts.predict_proba(X_IRIS) == whole.predict_proba(X_IRIS)).all()


def test_a_training_that_was_not_done_is_told() -> None:
    with pytest.warns(ConvergenceWarning, match=r"Maximum iterations \(5\) reached"):
        MLPClassifier(**SMALL).fit(X_IRIS, Y_IRIS)


class StopAtThree(Callback):
    def on_epoch_end(self, trainer: Any, epoch: int, values: Any) -> None:
        if epoch == 3:
            trainer.stop()


@pytest.mark.filterwarnings("error")
def test_callbacks_are_those_of_a_trainer() -> None:
    assert fitted(callbacks=[StopAtThree()]).n_iter_ == 3


@pytest.mark.parametrize("kind", [MLPClassifier, SequenceRegressor])
def test_epochs_are_shown_if_asked_for(kind: Any, capsys: pytest.CaptureFixture[str]) -> None:
    X = X_IRIS if kind is MLPClassifier else X_IRIS[:, :, None]
    for verbose in (False, True, "lines"):
        kind(max_iter=2, verbose=verbose).fit(X, Y_IRIS, validation=(X, Y_IRIS))
        lines = capsys.readouterr().out.splitlines()
        assert len([line for line in lines if line.startswith("Iteration")]) == 2 * bool(verbose)
        assert all("val_loss" in line for line in lines[:2])
    pytest.importorskip("tqdm")
    kind(max_iter=2, verbose="bar").fit(X, Y_IRIS)
    assert "epoch" in capsys.readouterr().err


class Interrupt(Callback):
    def on_epoch_end(self, trainer: Any, epoch: int, values: Any) -> None:
        if epoch == 2:
            raise KeyboardInterrupt


def test_an_interrupted_training_leaves_a_fitted_estimator() -> None:
    with pytest.warns(UserWarning, match="interrupted"):
        estimator = fitted(callbacks=[Interrupt()])
    assert estimator.predict(X_IRIS).shape == (150,)


def test_divergence_names_epoch_and_layer() -> None:
    settings = {"solver": "sgd", "activation": "identity", "learning_rate_init": 1.0}
    with pytest.raises(DivergenceError, match=r"epoch [2-9], training step [2-9]"):
        MLPRegressor(**SMALL | settings | {"max_iter": 50}).fit(1e3 * X_LINE, 1e3 * Y_LINE)
    with pytest.raises(DivergenceError, match=r"epoch 1, .* layer 0 Linear\(3, 8\)"):
        MLPRegressor(**SMALL).fit(np.full((4, 3), 3e38, np.float32), np.arange(4.0))
    assert issubclass(DivergenceError, ValueError)


def test_a_training_that_fails_leaves_no_estimator() -> None:
    estimator = fitted()
    for X in (X_IRIS[:10], np.full(X_IRIS.shape, 3e38, np.float32)):
        with pytest.raises(ValueError, match=r"inconsistent|not finite"):
            estimator.fit(X, Y_IRIS)
        with pytest.raises(NotFittedError):
            estimator.predict(X_IRIS)


# --- rates, averages, clipping ------------------------------------------------------------------


class Rates(Callback):
    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_epoch_end(self, trainer: Any, epoch: int, values: Any) -> None:
        self.rates.append(trainer.optimizer.lr)


def rates_of(learning_rate: Any, **parameters: Any) -> list[float]:
    seen = Rates()
    fitted(learning_rate=learning_rate, callbacks=[seen], max_iter=20, **parameters)
    return seen.rates


def halved(step: int) -> float:
    return 0.5**step


def test_rates_follow_their_schedule() -> None:
    assert set(rates_of("constant")) == {0.001}
    assert set(rates_of("invscaling")) == {0.001}, "adam ignores it, as in scikit-learn"
    assert rates_of("invscaling", solver="sgd")[0] == pytest.approx(0.001 / np.sqrt(151))
    cosine, cycle = rates_of("cosine"), rates_of("one_cycle")
    assert cosine == sorted(cosine, reverse=True)
    assert cosine[-1] < 1e-5
    assert np.argmax(cycle) == 5
    assert max(cycle) == pytest.approx(0.001)
    assert rates_of(halved)[:3] == [1.0, 0.5, 0.25]
    assert rates_of("adaptive", solver="sgd", tol=1.0, n_iter_no_change=3)[-1] < 1e-5


def test_averaged_weights_predict() -> None:
    plain, averaged = fitted(), fitted(ema=0.9)
    assert (plain.coefs_[0] == averaged.coefs_[0]).all()
    assert not np.allclose(plain.predict_proba(X_IRIS), averaged.predict_proba(X_IRIS))


def test_gradients_are_clipped() -> None:
    norms = [
        float(
            fitted(
                max_norm=limit,
                solver="sgd",
                momentum=0.0,
                alpha=0.0,
                max_iter=1,
                learning_rate_init=1.0,
            ).coefs_[0][0, 0]
        )
        for limit in (None, 1e-6)
    ]
    start = fitted(learning_rate_init=1e-30, max_iter=1).coefs_[0][0, 0]
    assert abs(norms[1] - start) <= 1e-6 < abs(norms[0] - start)


# --- other networks -----------------------------------------------------------------------------


def small_net(n_features: int, n_outputs: int, rng: Any = None) -> nn.Layer:
    return nn.Sequential(nn.Linear(n_features, 8), nn.Tanh(), nn.Linear(8, n_outputs), rng=rng)


def small_net_without_rng(n_features: int, n_outputs: int) -> nn.Layer:
    return small_net(n_features, n_outputs)


def small_net_that_needs_rng(n_features: int, n_outputs: int, rng: Any) -> nn.Layer:
    return small_net(n_features, n_outputs, rng)


@pytest.mark.parametrize("build", [small_net, small_net_without_rng, small_net_that_needs_rng])
def test_any_network_learns_and_is_repeatable(build: Any) -> None:
    settings = {"max_iter": 300, "learning_rate_init": 0.02, "random_state": 3}
    first, second = (NetClassifier(build, **settings).fit(X_IRIS, Y_IRIS) for _ in range(2))
    assert first.score(X_IRIS, Y_IRIS) > 0.95
    assert (first.predict_proba(X_IRIS) == second.predict_proba(X_IRIS)).all()
    regressor = NetRegressor(build, **settings).fit(X_LINE, np.c_[Y_LINE, -Y_LINE])
    assert regressor.score(X_LINE, np.c_[Y_LINE, -Y_LINE]) > 0.9


def test_weights_that_were_set_stay() -> None:
    def build(n_features: int, n_outputs: int) -> nn.Layer:
        layer = nn.Linear(n_features, n_outputs)
        layer.weight.data = np.full((n_features, n_outputs), 0.5)
        return layer

    estimator = NetRegressor(build, learning_rate_init=1e-30, max_iter=1).fit(X_LINE, Y_LINE)
    assert (estimator.coefs_[0] == 0.5).all()


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda n, k: nn.Linear(n, k + 1), r"shape \(1, 3\), its output has shape \(1, 4\)"),
        (lambda n, k: "a network", r"build\(4, 3\) must return a layer, got 'a network'"),
    ],
)
def test_what_is_no_network_for_the_data_is_refused(build: Any, words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        NetClassifier(build).fit(X_IRIS, Y_IRIS)


# --- sequences ----------------------------------------------------------------------------------


def sequences(rows: int = 120, dtype: Any = np.float64) -> tuple[list[Any], Any]:
    rng = np.random.default_rng(0)
    X = [rng.normal(size=(rng.integers(2, 9), 2)).astype(dtype) for _ in range(rows)]
    return X, np.array([x[:, 0].sum() for x in X])


@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn"])
def test_sequences_of_unequal_length(cell: str) -> None:
    X, y = sequences()
    settings: dict[str, Any] = {"cell": cell, "hidden_size": 16, "learning_rate_init": 0.02}
    settings |= {"random_state": 0, "max_iter": 100}
    regressor = SequenceRegressor(**settings).fit(X, y)
    assert regressor.score(X, y) > 0.9
    labels = np.array(["down", "up"])[(y > 0).astype(int)]
    assert SequenceClassifier(**settings).fit(X, labels).score(X, labels) > 0.9


def test_padding_has_no_influence() -> None:
    X, y = sequences(dtype=np.float32)
    lengths = np.array([len(x) for x in X])
    padded = np.full((len(X), 12, 2), np.nan, np.float32)
    for row, x in zip(padded, X, strict=True):
        row[: len(x)] = x
    settings: dict[str, Any] = {"hidden_size": 8, "random_state": 0, "max_iter": 3}
    settings |= {"scale_inputs": True, "bidirectional": True, "num_layers": 2, "dropout": 0.1}
    by_list = SequenceRegressor(**settings).fit(X, y)
    by_lengths = SequenceRegressor(**settings).fit((padded, lengths), y)
    np.testing.assert_allclose(by_list.predict(X), by_lengths.predict((padded, lengths)), rtol=1e-4)
    together = np.concatenate(X)
    np.testing.assert_allclose(by_list.network_[0].mean, together.mean(axis=0), rtol=1e-5)
    assert by_list.predict(X).dtype == np.float32
    alone = np.concatenate([by_list.predict([x]) for x in X])
    np.testing.assert_allclose(by_list.predict(X), alone, rtol=1e-4, atol=1e-5)


def test_sequences_of_numbers_have_one_feature() -> None:
    rng = np.random.default_rng(0)
    X = [rng.normal(size=rng.integers(2, 6)) for _ in range(40)]
    estimator = SequenceRegressor(hidden_size=4, max_iter=2).fit(X, [x.sum() for x in X])
    assert estimator.n_features_in_ == 1
    assert estimator.predict(rng.normal(size=(3, 5))).shape == (3,)


X_SEQUENCES, _ = sequences(4)


@pytest.mark.parametrize(
    ("X", "words"),
    [
        ([np.ones((2, 2)), np.ones((3, 1))] * 2, "a step of row 1 has shape"),
        ([np.ones((2, 2)), np.full((3, 2), np.nan)] * 2, "X: row 1 holds nan"),
        ((np.ones((4, 3, 2)), [3, 3, 4, 1]), "row 2"),
        ((np.ones((4, 3, 2)), [3, 3]), "4 whole numbers as lengths"),
        ((np.ones((4, 3, 2)),) * 3, "tuple of 3"),
        (np.ones((4, 2, 2, 2)), r"\(rows, time, features\)"),
        (X_SEQUENCES[:3], "inconsistent numbers of samples"),
        ([np.ones((2, 2)), np.ones((0, 2))] * 2, "row 1 is an empty sequence"),
    ],
)
def test_what_are_no_sequences_is_refused(X: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SequenceRegressor(hidden_size=4, max_iter=1).fit(X, np.arange(4.0))


def test_sequences_of_other_features_are_refused() -> None:
    estimator = SequenceRegressor(hidden_size=4, max_iter=1).fit(X_SEQUENCES, np.arange(4.0))
    with pytest.raises(ValueError, match="X has 3 features, but SequenceRegressor is expecting 2"):
        estimator.predict(np.ones((2, 5, 3)))


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"solver": "newton"}, 'solver must be "adam" or "sgd" or "lbfgs"'),
        ({"activation": "swosh"}, 'activation must be "identity"'),
        ({"activation": ["relu", "tanh"]}, "activation has 2 entries for 1 hidden layers"),
        ({"hidden_layer_sizes": 0}, "hidden_layer_sizes must be >= 1, got 0"),
        ({"hidden_layer_sizes": (3, 2.5)}, "hidden_layer_sizes must be a whole number"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\)"),
        ({"norm": "group"}, 'norm must be "batch"'),
        ({"alpha": -1}, "alpha must be finite and >= 0"),
        ({"alpha": "1"}, "alpha must be a number"),
        ({"batch_size": "all"}, 'batch_size must be "auto"'),
        ({"batch_size": 0}, "batch_size must be >= 1"),
        ({"learning_rate": "linear"}, 'learning_rate must be "constant"'),
        ({"learning_rate_init": 0}, "learning_rate_init must be finite and > 0"),
        ({"max_iter": 0}, "max_iter must be >= 1"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\)"),
        ({"validation_fraction": 1.0}, "validation_fraction"),
        ({"n_iter_no_change": 0}, "n_iter_no_change must be >= 1"),
        ({"early_stopping": "score"}, 'early_stopping must be "loss"'),
        ({"verbose": "loud"}, 'verbose must be "lines" or "bar"'),
        ({"max_norm": 0}, "max_norm"),
        ({"ema": 1.5}, "ema must be in"),
        ({"callbacks": StopAtThree()}, "callbacks must be a list"),
        ({"loss": "hinge"}, 'loss must be "log_loss"'),
        ({"loss": nn.MSELoss()}, "for three classes or more, loss must be one that takes labels"),
        ({"class_weight": {7: 1.0}}, "not in class_weight"),
        ({"shuffle": "no"}, "shuffle must be True or False, got 'no'"),
        ({"residual": 1}, "residual must be True or False"),
        ({"random_state": "x"}, "'x' cannot be used to seed"),
        ({"solver": "lbfgs", "early_stopping": True}, "early_stopping needs a solver"),
        ({"solver": "lbfgs", "ema": 0.9}, "ema needs a solver"),
        ({"solver": "lbfgs", "max_norm": 1.0}, "max_norm needs a solver"),
    ],
)
def test_parameters_that_make_no_sense_are_refused_before_training(
    parameters: dict[str, Any], words: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        MLPClassifier(**parameters).fit(X_IRIS, Y_IRIS)


@pytest.mark.parametrize(
    ("parameters", "y", "words"),
    [
        ({"loss": "quantile", "quantile": 1.0}, Y_LINE, "quantiles"),
        ({"loss": "quantile", "quantile": [0.1, 0.9]}, np.c_[Y_LINE, Y_LINE], "2 quantiles"),
        ({"loss": "poisson"}, -Y_LINE, "needs counts >= 0, row 0"),
        ({"loss": "poisson", "scale_targets": True}, np.abs(Y_LINE), "scale_targets"),
        ({"loss": nn.CrossEntropyLoss()}, Y_LINE, "takes labels"),
    ],
)
def test_regressors_refuse_what_is_no_target_of_their_loss(
    parameters: dict[str, Any], y: Any, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        MLPRegressor(**parameters).fit(X_LINE, y)


def test_calls_that_make_no_sense_are_refused() -> None:
    estimator = MLPClassifier(**SMALL, early_stopping=True)
    with pytest.raises(ValueError, match="does not support early_stopping=True without validation"):
        estimator.partial_fit(X_IRIS, Y_IRIS, classes=[0, 1, 2])
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        MLPClassifier(**SMALL).partial_fit(X_IRIS, Y_IRIS)
    with pytest.raises(ValueError, match="validation must be a pair"):
        MLPClassifier(**SMALL).fit(X_IRIS, Y_IRIS, validation=X_IRIS)
    with pytest.raises(ValueError, match="weights must be >= 0"):
        MLPClassifier(**SMALL).fit(X_IRIS, Y_IRIS, sample_weight=-np.ones(150))
    with pytest.raises(ValueError, match='class_weight="balanced" needs all rows at once'):
        MLPClassifier(**SMALL, class_weight="balanced").partial_fit(
            X_IRIS, Y_IRIS, classes=[0, 1, 2]
        )
    with pytest.raises(ValueError, match="several columns of classes"):
        MLPClassifier(**SMALL).fit(X_IRIS, np.c_[Y_IRIS, Y_IRIS])
    with pytest.raises(ValueError, match="epochs must be >= 1"):
        MLPRegressor(**SMALL).partial_fit(X_IRIS, Y_IRIS, epochs=0)


def test_diabetes_needs_scaled_targets() -> None:
    X, y = load_diabetes(return_X_y=True)
    settings = {"early_stopping": True, "random_state": 0, "max_iter": 300}
    estimator = MLPRegressor(scale_inputs=True, scale_targets=True, **settings).fit(
        X[:350], y[:350]
    )
    assert estimator.score(X[350:], y[350:]) > 0.35
    assert r2_score(y[350:], estimator.predict(X[350:])) == estimator.score(X[350:], y[350:])


# --- what must not be silently wrong ------------------------------------------------------------


def test_targets_are_scaled_by_the_weights_of_their_rows() -> None:
    weights = np.r_[0.0, np.ones(199)]
    outlier = np.r_[1e6, Y_LINE[1:]]
    parameters = SMALL | {"scale_targets": True, "batch_size": 199}
    with_outlier = MLPRegressor(**parameters).fit(X_LINE, outlier, weights)
    without = MLPRegressor(**parameters).fit(X_LINE[1:], Y_LINE[1:])
    np.testing.assert_array_equal(with_outlier.predict(X_LINE), without.predict(X_LINE))


@pytest.mark.parametrize("loss", ["poisson", "gaussian"])
def test_another_loss_changes_no_prediction_before_another_fit(loss: str) -> None:
    regressor = MLPRegressor(**SMALL).fit(X_LINE, Y_LINE)
    before = regressor.predict(X_LINE)
    regressor.set_params(loss=loss)
    np.testing.assert_array_equal(regressor.predict(X_LINE), before)


def test_a_warm_start_takes_the_loss_that_is_set() -> None:
    y = np.r_[1000.0, Y_LINE[1:]]
    parameters = {"hidden_layer_sizes": (), "alpha": 0.0, "solver": "lbfgs", "warm_start": True}
    regressor = MLPRegressor(**parameters, random_state=0).fit(X_LINE, y)
    regressor.set_params(loss="huber").fit(X_LINE, y)
    error = np.abs(regressor.predict(X_LINE[1:]) - y[1:])
    assert np.median(error) < 0.1, "an outlier hardly counts"
    before = regressor.predict(X_LINE)
    with pytest.raises(ValueError, match="needs 2 outputs and has 1; warm_start=False"):
        regressor.set_params(loss="gaussian").fit(X_LINE, y)
    np.testing.assert_array_equal(regressor.predict(X_LINE), before)


def test_a_penalty_shrinks_no_network_of_vectors() -> None:
    def build(n_features: int, n_outputs: int) -> nn.Layer:
        return nn.LayerNorm(n_features)

    fits = [
        NetRegressor(build, alpha=alpha, max_iter=5, random_state=0).fit(X_LINE, X_LINE)
        for alpha in (0.0, 100.0)
    ]
    np.testing.assert_array_equal(*(fit.predict(X_LINE) for fit in fits))


@pytest.mark.parametrize(
    ("class_weight", "words"),
    [
        ("equal", '"balanced"'),
        (3, "class_weight must be"),
        ({0: -1, 1: 1, 2: 1}, r"class_weight\[0\] must be finite and >= 0"),
        ([{0: 1, 1: np.nan}], r"class_weight\[1\]"),
    ],
)
def test_weights_of_classes_that_make_no_sense(class_weight: Any, words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        fitted(class_weight=class_weight)


@pytest.mark.parametrize(
    ("loss", "name"),
    [
        (nn.GaussianNLLLoss(), "gaussian"),
        (nn.PoissonNLLLoss(), "poisson"),
        (nn.QuantileLoss([0.1, 0.9]), "quantile"),
    ],
)
def test_a_loss_whose_outputs_are_no_prediction_is_named(loss: nn.Loss, name: str) -> None:
    with pytest.raises(ValueError, match=f'write loss="{name}"'):
        MLPRegressor(loss, **SMALL).fit(X_LINE, np.abs(Y_LINE))


def test_words_are_no_targets_of_a_regression() -> None:
    with pytest.raises(ValueError, match="strings"):
        MLPRegressor(**SMALL).fit(X_LINE, Y_LINE.astype(str))


def test_a_warm_start_refuses_several_labels_after_one() -> None:
    classifier = MLPClassifier(**SMALL | {"warm_start": True}).fit(X_LINE, Y_LINE > 3)
    with pytest.raises(ValueError, match=r"y has shape \(200, 2\), expected one label"):
        classifier.fit(X_LINE, np.c_[Y_LINE > 3, Y_LINE < 3].astype(int))


def test_what_is_no_function_builds_no_network() -> None:
    with pytest.raises(TypeError, match="build must be a function, got None"):
        NetClassifier(None).fit(X_IRIS, Y_IRIS)


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle"])
def test_schedules_of_partial_fit_end_after_max_iter_epochs(schedule: str) -> None:
    whole = fitted(learning_rate=schedule)
    parts = MLPClassifier(**SMALL, learning_rate=schedule)
    for _ in range(5):
        parts.partial_fit(X_IRIS, Y_IRIS, classes=[0, 1, 2])
    assert parts.loss_curve_ == whole.loss_curve_


class InterruptAtOnce(Callback):
    def on_train_begin(self, trainer: Any, epoch: int, values: Any) -> None:
        raise KeyboardInterrupt


def test_a_training_interrupted_at_once_has_no_loss() -> None:
    with pytest.warns(UserWarning, match="interrupted"):
        estimator = fitted(callbacks=[InterruptAtOnce()])
    assert estimator.n_iter_ == 0
    for name in ("loss_", "best_loss_"):
        assert not hasattr(estimator, name)


def test_an_interrupt_ends_lbfgs_at_its_best_point() -> None:
    calls = []

    def interrupted(outputs: Any, targets: Any) -> Any:
        calls.append(float(((outputs - targets) ** 2).mean()))
        if len(calls) == 12:
            signal.raise_signal(signal.SIGINT)
        return ((outputs - targets) ** 2).sum(axis=1), 2 * (outputs - targets)

    regressor = MLPRegressor(
        interrupted, **SMALL | {"solver": "lbfgs", "max_iter": 500, "alpha": 0}
    )
    with pytest.warns(UserWarning, match="interrupted"):
        regressor.fit(X_LINE, Y_LINE)
    assert len(calls) == 13, "the last one measures the loss where it ended"
    assert 0 < regressor.n_iter_ < 12
    error = ((regressor.predict(X_LINE) - Y_LINE) ** 2).mean()
    assert error <= min(calls[1:]) * (1 + 1e-9)


@pytest.mark.parametrize("early_stopping", [True, "loss"])
def test_weights_of_classes_do_not_count_on_held_out_rows(early_stopping: Any) -> None:
    """Those that ``fit`` holds out and those that it is given measure the same."""
    settings = SMALL | {"early_stopping": early_stopping, "validation_fraction": 0.3}
    settings |= {"class_weight": {0: 1.0, 1: 20.0, 2: 0.0}, "restore_best": False}
    X, y = np.c_[X_IRIS, np.arange(150)] / [1, 1, 1, 1, 1e9], Y_IRIS
    classifier = MLPClassifier(**settings).fit(X, y)
    _, rows = classifier._split(y)
    chosen = np.setdiff1d(np.arange(150), rows)
    assert classifier.validation_scores_[-1] == pytest.approx(classifier.score(X[rows], y[rows]))
    given = MLPClassifier(**settings).fit(X[chosen], y[chosen], validation=(X[rows], y[rows]))
    penalty = given._trainer.optimizer.penalty()
    for fit in (classifier, given):
        loss = log_loss(y[rows], fit.predict_proba(X[rows]), labels=[0, 1, 2])
        assert fit.validation_loss_curve_[-1] == pytest.approx(loss, abs=2 * penalty)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_inputs_and_targets_are_scaled_as_if_rows_were_repeated(dtype: Any) -> None:
    times = RNG.integers(0, 4, size=200)
    X, y = np.c_[X_LINE, np.full(200, 0.1)].astype(dtype), Y_LINE.astype(dtype)
    again = np.repeat(np.arange(200), times)
    parameters = SMALL | {"scale_inputs": True, "scale_targets": True}
    weighted = MLPRegressor(**parameters).fit(X, y, sample_weight=times)
    repeated = MLPRegressor(**parameters).fit(X[again], y[again])
    precise = 1e-5 if dtype == np.float32 else 1e-12
    first, second = weighted.network_[0], repeated.network_[0]
    np.testing.assert_allclose(first.mean, second.mean, rtol=precise, atol=precise)
    np.testing.assert_allclose(first.std, second.std, rtol=precise)
    assert first.std[3] == 1, "constant"
    numbers, others = weighted._numbers, repeated._numbers
    np.testing.assert_allclose(numbers.mean, others.mean, rtol=precise)
    np.testing.assert_allclose(numbers.deviation, others.deviation, rtol=precise)


@pytest.mark.parametrize("equal", [False, True])
def test_steps_are_scaled_by_the_weights_of_their_sequences(equal: bool) -> None:
    X, y = sequences(40)
    X = [x[:2] for x in X] if equal else X
    times = RNG.integers(0, 4, size=40)
    regressor = SequenceRegressor(hidden_size=4, max_iter=1, scale_inputs=True)
    layer = regressor.fit(X, y, sample_weight=times).network_[0]
    steps = np.concatenate([x for x, count in zip(X, times, strict=True) for _ in range(count)])
    np.testing.assert_allclose(layer.mean, steps.mean(axis=0))
    np.testing.assert_allclose(layer.std, steps.std(axis=0))


# --- layers that functions make -----------------------------------------------------------------


def test_a_network_that_is_returned_every_time_is_shared_by_no_fits() -> None:
    for looked_at in (False, True):
        net = nn.Linear(3, 1)
        before = net.weight.data.copy() if looked_at else None
        first = NetRegressor(lambda a, b, net=net: net, random_state=0).fit(X_LINE, Y_LINE)
        kept = first.predict(X_LINE)
        second = clone(first).fit(X_LINE, -Y_LINE)
        np.testing.assert_array_equal(first.predict(X_LINE), kept)
        np.testing.assert_array_equal(clone(first).fit(X_LINE, Y_LINE).predict(X_LINE), kept)
        assert second.network_ is not first.network_
        if looked_at:
            np.testing.assert_array_equal(net.weight.data, before)


@pytest.mark.parametrize("parameter", ["activation", "norm"])
def test_a_layer_that_is_returned_every_time_is_shared_by_no_fits(parameter: str) -> None:
    layer = nn.PReLU() if parameter == "activation" else nn.LayerNorm(8)
    settings = SMALL | {"hidden_layer_sizes": (8, 8), parameter: lambda *width: layer}
    first = fitted(**settings)
    kept = first.predict_proba(X_IRIS)
    MLPClassifier(**settings).fit(X_IRIS, Y_IRIS[::-1])
    np.testing.assert_array_equal(first.predict_proba(X_IRIS), kept)


def test_arrays_of_parameters_are_lists() -> None:
    arrays = {"activation": np.array(["relu", "tanh"]), "dropout": np.array([0.1, 0.2])}
    settings = SMALL | {"hidden_layer_sizes": np.array([5, 4])}
    lists = {name: array.tolist() for name, array in arrays.items()}
    fits = [fitted(**settings | given) for given in (arrays, lists)]
    np.testing.assert_array_equal(*(fit.predict_proba(X_IRIS) for fit in fits))


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"activation": np.tanh}, r"activation must be a function that .* activation\(\), got"),
        ({"activation": int}, r"activation must be a function .* got <class 'int'>"),
        ({"activation": nn.Linear}, "activation must be a function"),
        ({"activation": lambda: 0}, r"activation\(\) must return a layer, got 0"),
        ({"activation": np.array(["relu", "tanh"])}, "2 entries for 1 hidden layers"),
        ({"norm": nn.BatchNorm(8)}, r"norm must be a function .* norm\(8\), got BatchNorm\(8\)"),
        ({"norm": np.tanh}, r"norm\(8\) must return a layer|norm must be a function"),
        ({"norm": lambda: 0}, r"norm must be a function that returns a layer from norm\(8\)"),
    ],
)
def test_what_makes_no_layer_is_named(parameters: dict[str, Any], words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^MLPClassifier: .*{words}"):
        fitted(**parameters)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (int, r"build must be a function that returns a layer from build\(4, 4\), got <class"),
        (max, "must "),
        (lambda n: nn.Linear(n, 1), "build must be a function that returns a layer from build"),
        (nn.Linear(4, 4), r"build must be a function .* got Linear\(4, 4\)"),
        (lambda n, k: nn.Tanh(), r"build\(4, 4\) must return a network with weights.* Tanh\(\)"),
    ],
)
def test_what_builds_no_network_is_named(build: Any, words: str) -> None:
    for settings in ({}, {"scale_inputs": True}):
        with pytest.raises((TypeError, ValueError), match=f"^NetRegressor: .*{words}"):
            NetRegressor(build, **settings).fit(X_IRIS, X_IRIS)


# --- sequences in other containers --------------------------------------------------------------


@pytest.mark.parametrize("frames", ["pandas", "polars", "objects"])
@pytest.mark.parametrize("equal", [False, True])
def test_a_series_of_sequences_is_a_list_of_them(frames: str, equal: bool) -> None:
    X, y = sequences(40)
    X = [x[:2, 0] if equal else x[:, 0] for x in X]
    if frames == "objects":
        series: Any = np.empty(len(X), object)
        for row, x in enumerate(X):
            series[row] = x
    else:
        series = pytest.importorskip(frames).Series([x.tolist() for x in X])
    settings: dict[str, Any] = {"hidden_size": 4, "max_iter": 2, "random_state": 0}
    listed, other = (SequenceRegressor(**settings).fit(data, y) for data in (X, series))
    np.testing.assert_array_equal(other.predict(series), listed.predict(X))


def test_frames_are_sequences() -> None:
    pandas = pytest.importorskip("pandas")
    X, y = sequences(40)
    frames = pandas.Series([pandas.DataFrame(x) for x in X], index=range(100, 140))
    settings: dict[str, Any] = {"hidden_size": 4, "max_iter": 2, "random_state": 0}
    listed, other = (SequenceRegressor(**settings).fit(data, y) for data in (X, frames))
    np.testing.assert_array_equal(other.predict(frames), listed.predict(X))


@pytest.mark.parametrize(
    ("X", "words"),
    [
        ((csr_matrix(np.eye(4)), np.ones(4, int)), r"X\[0\] is a sparse matrix of shape \(4, 4\)"),
        (csr_matrix(np.eye(4)), r"X is a sparse matrix of shape \(4, 4\)"),
        ([np.eye(2), csr_matrix(np.eye(2))], "row 1 of X is a sparse matrix"),
    ],
)
def test_sparse_matrices_are_no_sequences(X: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        SequenceClassifier().fit(X, [0, 1, 0, 1][: 2 if isinstance(X, list) else 4])


@pytest.mark.parametrize("quantile", [None, 0.5, [0.1, 0.5], np.array([0.1, 0.5, 0.9])])
def test_a_score_needs_a_target_for_each_row(quantile: Any) -> None:
    loss = "squared_error" if quantile is None else "quantile"
    given = {} if quantile is None else {"quantile": quantile}
    regressor = MLPRegressor(loss, **given, **SMALL).fit(X_LINE, Y_LINE)
    for y in (Y_LINE[:100], Y_LINE[:1], np.r_[Y_LINE, Y_LINE], Y_LINE[None]):
        with pytest.raises(ValueError, match=rf"inconsistent numbers.*\[{len(y)}, 200\]"):
            regressor.score(X_LINE, y)


# --- what ends a training, changed and interrupted ----------------------------------------------


@pytest.mark.parametrize("validation", [None, (X_LINE[:50], Y_LINE[:50])])
def test_an_interrupted_lbfgs_has_the_loss_where_it_ended(validation: Any) -> None:
    calls = []

    def interrupted(outputs: Any, targets: Any) -> Any:
        calls.append(outputs)
        if len(calls) == 12:
            signal.raise_signal(signal.SIGINT)
        return half_square(outputs, targets)

    settings = SMALL | {"solver": "lbfgs", "max_iter": 500, "alpha": 1.0}
    regressor = MLPRegressor(interrupted, **settings)
    with pytest.warns(UserWarning, match="interrupted"):
        regressor.fit(X_LINE, Y_LINE, validation=validation)
    loss = ((regressor.predict(X_LINE) - Y_LINE) ** 2).mean() / 2
    penalty = sum((W**2).sum() for W in regressor.coefs_) / 2 / len(X_LINE)
    assert regressor.loss_curve_ == [regressor.loss_] == [regressor.best_loss_]
    assert regressor.loss_ == pytest.approx(loss + penalty)
    assert regressor.t_ == regressor.optimizer_.evaluations * len(X_LINE)
    if validation is not None:
        assert regressor.validation_scores_ == [pytest.approx(regressor.score(*validation))]
        assert len(regressor.validation_loss_curve_) == 1


@pytest.mark.parametrize(("first", "then"), [(True, "loss"), ("loss", True), (True, False)])
def test_another_criterion_begins_to_count_anew(first: Any, then: Any) -> None:
    """A high score is no loss: epochs after the change are not worse for being of another kind."""
    held_out = X_IRIS[1::2], Y_IRIS[1::2]
    classifier = MLPClassifier(**SMALL, early_stopping=first, n_iter_no_change=3)
    train = {"classes": [0, 1, 2], "validation": held_out, "epochs": 20}
    classifier.partial_fit(X_IRIS[::2], Y_IRIS[::2], **train)
    classifier.set_params(early_stopping=then, tol=0.0)
    classifier.partial_fit(X_IRIS[::2], Y_IRIS[::2], **train)
    curves = classifier._fitting.curves
    values = {
        True: curves.scores,
        "loss": [-value for value in curves.validation_loss],
        False: [-value for value in curves.loss],
    }[then]
    assert curves.best == max(values[-classifier.n_iter_ :])


def test_weights_that_are_no_longer_the_best_are_not_restored() -> None:
    held_out = X_IRIS[1::2], Y_IRIS[1::2]
    settings = {"early_stopping": "loss", "tol": 10.0, "n_iter_no_change": 3}
    train = {"classes": [0, 1, 2], "validation": held_out}
    classifier = MLPClassifier(**SMALL, **settings)
    classifier.partial_fit(X_IRIS[::2], Y_IRIS[::2], **train)
    before = classifier.coefs_[0].copy()
    classifier.set_params(restore_best=False)
    classifier.partial_fit(X_IRIS[::2], Y_IRIS[::2], epochs=10, **train)
    classifier.set_params(restore_best=True)
    classifier._fitting.trainer.optimizer.lr = 1.0  # every epoch that follows is worse
    classifier.partial_fit(X_IRIS[::2], Y_IRIS[::2], **train)
    assert np.abs(classifier.coefs_[0] - before).max() > 1e-6
