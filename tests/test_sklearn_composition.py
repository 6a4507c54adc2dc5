"""The estimators within scikit-learn: pipelines, searches, ensembles, inspection, threads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")
import joblib
import sklearn
import threadpoolctl
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.ensemble import BaggingRegressor, StackingClassifier, VotingClassifier
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.inspection import partial_dependence, permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    cross_val_predict,
    cross_val_score,
    learning_curve,
)
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import minidl
from minidl.sklearn import MLPClassifier, MLPRegressor, SequenceClassifier

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X_CANCER, Y_CANCER = load_breast_cancer(return_X_y=True)
X_IRIS, Y_IRIS = load_iris(return_X_y=True)
SMALL: dict[str, Any] = {"hidden_layer_sizes": (16,), "learning_rate_init": 0.02, "max_iter": 30}
SMALL |= {"batch_size": 32}
ROOT = Path(minidl.__file__).parents[1]


def small(**parameters: Any) -> MLPClassifier:
    return MLPClassifier(**SMALL | {"random_state": 0, "scale_inputs": True} | parameters)


def test_pipeline() -> None:
    pipeline = make_pipeline(StandardScaler(), small(scale_inputs=False)).fit(X_CANCER, Y_CANCER)
    assert pipeline.score(X_CANCER, Y_CANCER) > 0.97
    assert "Linear(30, 16)" in pipeline[-1]._repr_html_()


def test_column_transformer_for_categories_and_missing_values() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"size": X_IRIS[:, 2], "kind": np.array(list("abc"))[Y_IRIS]})
    frame.loc[::7, "kind"] = None
    columns = make_column_transformer(
        (OneHotEncoder(sparse_output=False), ["kind"]), remainder=StandardScaler()
    ).set_output(transform="pandas")
    pipeline = make_pipeline(columns, small(scale_inputs=False)).fit(frame, Y_IRIS)
    assert pipeline.score(frame, Y_IRIS) > 0.95
    assert "remainder__size" in pipeline[-1].feature_names_in_


@pytest.mark.parametrize("jobs", [1, 2])
def test_grid_search(jobs: int) -> None:
    grid = {
        "hidden_layer_sizes": [(4,), (16,)],
        "dropout": [0.0, 0.2],
        "activation": ["relu", "gelu"],
    }
    search = GridSearchCV(small(), grid, cv=2, n_jobs=jobs).fit(X_IRIS, Y_IRIS)
    assert search.best_score_ > 0.9
    alone = cross_val_score(small(**search.best_params_), X_IRIS, Y_IRIS, cv=2)
    assert search.best_score_ == pytest.approx(alone.mean(), abs=1e-12)


def test_a_search_goes_on_where_a_training_diverges() -> None:
    grid = {"learning_rate_init": [1e-2, 1e20]}
    search = GridSearchCV(
        small(solver="sgd", activation="identity"), grid, cv=2, error_score=np.nan
    )
    failed, scores = sklearn.exceptions.FitFailedWarning, "test scores are non-finite"
    with (
        pytest.warns(failed, match=r"epoch \d+, training"),
        pytest.warns(UserWarning, match=scores),
    ):
        search.fit(X_IRIS, Y_IRIS)
    assert search.best_params_ == {"learning_rate_init": 1e-2}


def test_halving_grid_search() -> None:
    grid = {"alpha": [1e-4, 1e-1], "hidden_layer_sizes": [(4,), (16,)]}
    search = HalvingGridSearchCV(small(), grid, cv=2, resource="max_iter", max_resources=40)
    assert search.fit(X_IRIS, Y_IRIS).best_score_ > 0.9


def test_stacking_and_voting() -> None:
    parts = [("net", small()), ("line", make_pipeline(StandardScaler(), LogisticRegression()))]
    for ensemble in (StackingClassifier(parts, cv=2), VotingClassifier(parts, voting="soft")):
        assert ensemble.fit(X_CANCER, Y_CANCER).score(X_CANCER, Y_CANCER) > 0.95


def test_cross_validation() -> None:
    assert cross_val_score(small(), X_CANCER, Y_CANCER, cv=3).mean() > 0.95
    predicted = cross_val_predict(small(), X_IRIS, Y_IRIS, cv=3, method="predict_proba")
    assert log_loss(Y_IRIS, predicted) < 0.4
    shares = {"train_sizes": [0.5, 1.0], "shuffle": True, "random_state": 0}
    scores = learning_curve(small(), X_IRIS, Y_IRIS, cv=2, **shares)[2]
    assert scores[-1].mean() > 0.9


def test_cross_validation_of_sequences() -> None:
    rng = np.random.default_rng(0)
    X = [rng.normal(size=(rng.integers(2, 7), 1)) for _ in range(90)]
    y = np.array(["down", "up"])[[int(x.sum() > 0) for x in X]]
    classifier = SequenceClassifier(
        hidden_size=8, learning_rate_init=0.03, max_iter=40, random_state=0
    )
    assert cross_val_score(classifier, X, y, cv=2).mean() > 0.8
    grid = GridSearchCV(classifier, {"cell": ["gru", "rnn"]}, cv=2, n_jobs=2).fit(X, y)
    assert grid.best_score_ > 0.8


def test_calibration() -> None:
    calibrated = CalibratedClassifierCV(small(), cv=2).fit(X_CANCER, Y_CANCER)
    assert log_loss(Y_CANCER, calibrated.predict_proba(X_CANCER)) < 0.15


def test_inspection() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 3))
    y = 3 * X[:, 0] - X[:, 1]
    regressor = MLPRegressor(**SMALL | {"max_iter": 150}, random_state=0).fit(X, y)
    importance = permutation_importance(regressor, X, y, random_state=0).importances_mean
    assert importance[0] > importance[1] > importance[2]
    curve = partial_dependence(regressor, X, [0], grid_resolution=5)
    slope = np.polyfit(curve["grid_values"][0], curve["average"][0], 1)[0]
    assert slope == pytest.approx(3, abs=0.3)


def test_other_meta_estimators() -> None:
    X, y = load_diabetes(return_X_y=True)
    scaled = TransformedTargetRegressor(MLPRegressor(**SMALL), transformer=StandardScaler())
    assert scaled.fit(X, y).score(X, y) > 0.3
    bagged = BaggingRegressor(MLPRegressor(**SMALL, scale_targets=True), n_estimators=3)
    assert bagged.fit(X, y).score(X, y) > 0.3
    two = np.c_[Y_IRIS, Y_IRIS == 1]
    assert MultiOutputClassifier(small()).fit(X_IRIS, two).score(X_IRIS, two) > 0.85


@pytest.mark.parametrize("routing", [False, True])
def test_weights_reach_fit_and_score(routing: bool) -> None:
    rows = np.arange(150)
    weight = np.where(Y_IRIS == 2, 0.0, 1.0)  # as if the third class were not there to be learned
    with sklearn.config_context(enable_metadata_routing=routing):
        estimator = small()
        if routing:
            estimator.set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
            scaler = StandardScaler().set_fit_request(sample_weight=True)
            pipeline = make_pipeline(scaler, estimator)
            search = GridSearchCV(pipeline, {"mlpclassifier__dropout": [0.0]}, cv=3)
            search.fit(X_IRIS, Y_IRIS, sample_weight=weight)
            fitted = search.best_estimator_
            assert search.best_score_ > 0.95, "rows of weight 0 do not count in the score"
        else:
            fitted = make_pipeline(StandardScaler(), estimator)
            fitted.fit(X_IRIS, Y_IRIS, mlpclassifier__sample_weight=weight)
    assert not (fitted.predict(X_IRIS)[rows[Y_IRIS == 2]] == 2).any()


def test_joblib_keeps_an_estimator(tmp_path: Path) -> None:
    estimator = small().fit(X_IRIS, Y_IRIS)
    joblib.dump(estimator, tmp_path / "model")
    for mode in (None, "r"):
        other = joblib.load(tmp_path / "model", mmap_mode=mode)
        assert (other.predict_proba(X_IRIS) == estimator.predict_proba(X_IRIS)).all()


# --- threads ------------------------------------------------------------------------------------


def test_threadpoolctl_sees_and_sets_threads() -> None:
    if minidl._kernels.isa == "reference":
        pytest.skip("there is no library of kernels")
    before = minidl.get_num_threads()
    minidl.set_num_threads(2)
    try:
        (found,) = [i for i in threadpoolctl.threadpool_info() if i["user_api"] == "minidl"]
        assert found["num_threads"] == 2
        assert found["version"] == minidl.__version__
        for limits in (1, {"minidl": 1}):
            with threadpoolctl.threadpool_limits(limits):
                assert minidl.get_num_threads() == 1
            assert minidl.get_num_threads() == 2
        with threadpoolctl.threadpool_limits(1, user_api="blas"):
            assert minidl.get_num_threads() == 2
    finally:
        minidl.set_num_threads(before)


def threads_in_worker() -> int:
    import minidl

    return minidl.get_num_threads()


def test_workers_of_joblib_share_the_cores() -> None:
    with joblib.parallel_config(backend="loky", inner_max_num_threads=1):
        counts = joblib.Parallel(n_jobs=2)(joblib.delayed(threads_in_worker)() for _ in range(2))
    assert counts == [1, 1]


# --- imports ------------------------------------------------------------------------------------


def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env={**os.environ, **environment},
        capture_output=True, text=True,
    )  # fmt: skip


def test_import_of_minidl_loads_no_scikit_learn() -> None:
    program = (
        "import sys, minidl; from minidl import *; minidl.Trainer;"
        "assert not {'sklearn', 'scipy', 'pandas', 'polars'} & set(sys.modules);"
        "assert minidl.sklearn.MLPClassifier.__module__ == 'minidl.sklearn.tabular'"
    )
    found = run(program)
    assert found.returncode == 0, found.stderr


def test_without_scikit_learn_the_import_says_what_to_install() -> None:
    found = run("import sys; sys.modules['sklearn'] = None; import minidl.sklearn")
    assert found.stderr.splitlines()[-1] == (
        "ImportError: minidl.sklearn needs scikit-learn: pip install 'minidl[sklearn]'"
    )
    old = "import sklearn; sklearn.__version__ = '1.5.2'; import minidl.sklearn"
    assert "needs scikit-learn 1.6 or later, got 1.5.2" in run(old).stderr
