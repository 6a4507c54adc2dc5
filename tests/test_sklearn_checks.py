"""scikit-learn's checks of what an estimator is, and what they cannot tell of batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")
from sklearn.base import BaseEstimator
from sklearn.datasets import make_moons
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.validation import validate_data

from minidl.sklearn import (
    MLPClassifier,
    MLPRegressor,
    NetClassifier,
    NetRegressor,
    SequenceClassifier,
    SequenceRegressor,
)

pytestmark = pytest.mark.filterwarnings("ignore")

BATCHES = {
    f"check_sample_weight_equivalence_on_{kind}_data": "batches of weighted rows are other batches"
    for kind in ("dense", "sparse")
}


def outcomes(estimator: BaseEstimator, **options: Any) -> dict[str, str]:
    """What became of each check that did not pass."""
    results = check_estimator(estimator, on_fail=None, on_skip=None, **options)
    assert len(results) > 12
    return {
        result["check_name"]: f"{result['status']}: {result['exception']}"
        for result in results
        if result["status"] != "passed"
        and "decision_function" not in result["check_name"]  # there is none
        and "SCIPY_ARRAY_API" not in str(result["exception"])
    }


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_tabular_estimators_pass_all_checks(kind: Any, solver: str) -> None:
    assert outcomes(kind(solver=solver)) == {}


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_with_small_batches_weights_are_no_repetitions(kind: Any) -> None:
    estimator = kind(hidden_layer_sizes=16, batch_size=16, max_iter=60, learning_rate_init=0.02)
    assert outcomes(estimator, expected_failed_checks=BATCHES).keys() <= BATCHES.keys()


@pytest.mark.parametrize("kind", [NetClassifier, NetRegressor])
def test_estimators_around_a_network_pass_the_checks_of_the_interface(kind: Any) -> None:
    assert outcomes(kind(), legacy=False) == {}


class Flat:
    """Lets an estimator of sequences take rows: each is a sequence of its features."""

    def _features(self, X: Any, reset: bool) -> Any:
        X = validate_data(self, X, dtype=(np.float64, np.float32), reset=reset)
        columns, self.n_features_in_ = self.n_features_in_, 1
        found = super()._features(X[:, :, None], reset)
        self.n_features_in_ = columns
        return found

    def _build(self, X: Any, rng: Any) -> Any:
        columns, self.n_features_in_ = self.n_features_in_, 1
        network = super()._build(X, rng)
        self.n_features_in_ = columns
        return network

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = True, False
        return tags


class FlatClassifier(Flat, SequenceClassifier):
    pass


class FlatRegressor(Flat, SequenceRegressor):
    pass


@pytest.mark.parametrize("kind", [FlatClassifier, FlatRegressor])
def test_sequence_estimators_pass_what_applies_to_them(kind: Any) -> None:
    estimator = kind(hidden_size=16, learning_rate_init=0.01, max_iter=60)
    assert outcomes(estimator) == {}


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_in_batches_weights_are_repetitions_on_average(kind: Any) -> None:
    """Over 20 seeds, mean predictions differ by no more than chance; without weights, by more."""
    X, y = make_moons(60, noise=0.4, random_state=0)
    weight = np.where(y == 1, 3, 1)
    again = np.repeat(np.arange(60), weight)
    epochs = len(again) // 4  # as many steps as with the copies, which make more batches

    def predictions(seeds: range, epochs: int, *rows: Any) -> Any:
        means = []
        for seed in seeds:
            estimator = kind(hidden_layer_sizes=8, batch_size=16, learning_rate_init=0.01)
            estimator.set_params(random_state=seed, max_iter=epochs, n_iter_no_change=np.inf)
            means.append(estimator.fit(*rows)._outputs(X).mean())
        return np.array(means)

    def deviations(a: Any, b: Any) -> float:
        return abs(a.mean() - b.mean()) / np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / len(a))

    copies = predictions(range(20), 15, X[again], y[again])
    assert deviations(copies, predictions(range(20, 40), epochs, X, y, weight)) < 3
    assert deviations(copies, predictions(range(20, 40), epochs, X, y)) > 5
