"""Metrics by name: exact over a whole epoch, whatever the batches."""

from __future__ import annotations

import numpy as np
import pytest
from training_helpers import (
    LABELS,
    VALUES,
    X,
    assert_same,
    classifier,
    compiled,
    everything,
    fit,
    regressor,
)

from minidl import nn, optim
from minidl.training import Callback, EarlyStopping, Progress, Trainer, accuracy, epoch
from minidl.training.metrics import BinaryAccuracy, TopK, by_name

RNG = np.random.default_rng(0)
LOGITS = RNG.integers(0, 4, size=(97, 6)).astype(np.float32)  # with many ties
LABELS6 = RNG.integers(0, 6, size=97)
PREDICTED = RNG.normal(size=(97, 3)).astype(np.float32)
TARGETS = (PREDICTED + RNG.normal(size=(97, 3))).astype(np.float32)


def value_of(name, prediction, target, batch):
    """The value of a metric that sees batches of so many rows."""
    metric = by_name(name)[name]()
    for begin in range(0, len(target), batch):
        metric.add(prediction[begin : begin + batch], target[begin : begin + batch])
    return metric.read()


@pytest.mark.parametrize("batch", [1, 7, 97])
def test_top_k_is_that_of_a_stable_sort(batch):
    ranks = np.argsort(-LOGITS, axis=1, kind="stable")
    for k in range(1, 7):
        expected = np.mean((ranks[:, :k] == LABELS6[:, None]).any(axis=1))
        assert value_of(f"top_{k}", LOGITS, LABELS6, batch) == expected
    assert value_of("accuracy", LOGITS, LABELS6, batch) == accuracy(LOGITS, LABELS6)
    assert value_of("top_1", LOGITS, LABELS6, batch) == accuracy(LOGITS, LABELS6)


@pytest.mark.parametrize("batch", [1, 7, 97])
@pytest.mark.parametrize("offset", [0.0, 1e8])
def test_errors_and_r2_are_those_of_all_rows(batch, offset):
    prediction, target = (a.astype(np.float64) + offset for a in (PREDICTED, TARGETS))
    error = prediction - target
    around = np.square(target - target.mean(axis=0)).sum(axis=0)
    expected = {
        "mse": np.mean(error**2),
        "mae": np.mean(np.abs(error)),
        "r2": np.mean(1 - (error**2).sum(axis=0) / around),
    }
    for name, value in expected.items():
        assert value_of(name, prediction, target, batch) == pytest.approx(value, rel=1e-7)


def test_metrics_agree_with_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    assert value_of("r2", PREDICTED, TARGETS, 10) == pytest.approx(
        metrics.r2_score(TARGETS, PREDICTED), rel=1e-6
    )
    constant = np.ones((97, 3), np.float32)
    for prediction in (constant, PREDICTED):
        assert value_of("r2", prediction, constant, 10) == metrics.r2_score(constant, prediction)
    scores = RNG.normal(size=(97, 6))
    assert value_of("top_2", scores, LABELS6, 10) == pytest.approx(
        metrics.top_k_accuracy_score(LABELS6, scores, k=2)
    )


EVERY_NAME = {
    **dict.fromkeys(["top_2", "log_loss", "f1_macro", "balanced_accuracy", "roc_auc"], 6),
    **dict.fromkeys(["mse", "mae", "r2", "mape"], None),
}


@pytest.mark.parametrize("name", EVERY_NAME)
def test_the_same_bits_in_whatever_parts_rows_come(name):
    rng = np.random.default_rng(1)
    classes = EVERY_NAME[name]
    prediction = rng.normal(size=(3000, classes or 3)).astype(np.float32)
    target = rng.integers(0, 6, 3000) if classes else rng.normal(size=(3000, 3))
    weight = rng.uniform(0.1, 5, 3000)
    values = {value_of(name, prediction, target, batch) for batch in (1, 7, 640, 3000)}
    assert len(values) == 1
    weighted = {
        weighted_value_of(name, prediction, target, batch, weight) for batch in (1, 7, 640, 3000)
    }
    assert len(weighted) == 1
    assert weighted != values


@compiled
@pytest.mark.parametrize("seconds", [1e-6, 1e-4, 1.0])
def test_history_does_not_depend_on_slices_of_time(monkeypatch, seconds):
    metrics = {"metrics": ["mae", "r2"], "weighted_metrics": ["mse"]}

    def history(seconds, callbacks=()):
        monkeypatch.setattr("minidl.recording.epoch.SLICE", seconds)
        trainer = regressor(**metrics)
        weights = np.linspace(0.1, 3, len(VALUES))
        fitted = fit(trainer, 3, batch_size=3, sample_weight=weights, callbacks=callbacks)
        return {name: [value.hex() for value in column] for name, column in fitted.items()}

    assert history(seconds) == history(0.05) == history(0.05, [EveryStep()])


class EveryStep(Callback):
    """Has steps made one at a time."""

    def on_batch_end(self, trainer, epoch, values):
        """Nothing."""


# --- weights ------------------------------------------------------------------------------------

WEIGHTS = RNG.uniform(0.1, 5, size=97)
OF_ROWS = (RNG.uniform(0.1, 2, size=50) * (np.arange(50) % 5 > 0)).astype(np.float32)


def weighted_value_of(name, prediction, target, batch, weight=WEIGHTS):
    metric = by_name((), None, name)[f"weighted_{name}"]()
    for begin in range(0, len(target), batch):
        rows = slice(begin, begin + batch)
        metric.add(prediction[rows], target[rows], weight[rows])
    return metric.read()


@pytest.mark.parametrize("batch", [1, 7, 97])
@pytest.mark.parametrize("offset", [0.0, 1e8])
def test_weighted_metrics_are_their_formulas(batch, offset):
    prediction, target = (a.astype(np.float64) + offset for a in (PREDICTED, TARGETS))
    error, w = prediction - target, WEIGHTS[:, None]
    mean = (w * target).sum(axis=0) / w.sum()
    around = (w * np.square(target - mean)).sum(axis=0)
    expected = {
        "mse": np.average(error**2, axis=0, weights=WEIGHTS).mean(),
        "mae": np.average(np.abs(error), axis=0, weights=WEIGHTS).mean(),
        "r2": np.mean(1 - (w * error**2).sum(axis=0) / around),
    }
    for name, value in expected.items():
        assert weighted_value_of(name, prediction, target, batch) == pytest.approx(value, rel=1e-7)
    ranks = np.argsort(-LOGITS, axis=1, kind="stable")
    for k in (1, 2):
        right = (ranks[:, :k] == LABELS6[:, None]).any(axis=1)
        assert weighted_value_of(f"top_{k}", LOGITS, LABELS6, batch) == pytest.approx(
            np.average(right, weights=WEIGHTS)
        )
    assert accuracy(LOGITS, LABELS6, WEIGHTS) == pytest.approx(
        weighted_value_of("accuracy", LOGITS, LABELS6, batch)
    )


def test_weighted_metrics_agree_with_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    labels = LOGITS.argmax(axis=1)
    assert accuracy(LOGITS, LABELS6, WEIGHTS) == pytest.approx(
        metrics.accuracy_score(LABELS6, labels, sample_weight=WEIGHTS)
    )
    theirs = {
        "mse": metrics.mean_squared_error,
        "mae": metrics.mean_absolute_error,
        "r2": metrics.r2_score,
    }
    for name, function in theirs.items():
        expected = function(TARGETS, PREDICTED, sample_weight=WEIGHTS)
        assert weighted_value_of(name, PREDICTED, TARGETS, 10) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ["accuracy", "top_2", "mse", "mae", "r2"])
def test_a_weight_is_so_many_rows(name):
    """As do equal weights, whatever they are, change nothing."""
    labels = name in ("accuracy", "top_2")
    prediction, target = (LOGITS, LABELS6) if labels else (PREDICTED, TARGETS)
    count = np.arange(97) % 3 + 1
    expected = value_of(name, np.repeat(prediction, count, 0), np.repeat(target, count, 0), 50)
    assert weighted_value_of(name, prediction, target, 10, count) == pytest.approx(expected)
    same = weighted_value_of(name, prediction, target, 10, np.full(97, 0.1))
    assert same == pytest.approx(value_of(name, prediction, target, 97))


@pytest.mark.parametrize(
    ("weight", "words"),
    [
        (np.ones(96), r"sample_weight \(97,\), got \(96,\)"),
        (np.zeros(97), "not all zero"),
        (np.full(97, -1.0), ">= 0"),
        (np.full(97, np.nan), "finite"),
    ],
)
def test_accuracy_refuses_weights_that_cannot_be(weight, words):
    with pytest.raises(ValueError, match=words):
        accuracy(LOGITS, LABELS6, weight)


def right_of(prediction, target, sample_weight):
    right = prediction.argmax(axis=1) == target
    return float(np.average(right, weights=sample_weight))


@pytest.mark.parametrize("record", [True, False])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_fit_and_evaluate_weigh_where_they_are_asked_to(record, accumulate):
    trainer = classifier(record=record, weighted_metrics=["accuracy", right_of])
    options = {"sample_weight": OF_ROWS, "accumulate": accumulate}
    history = fit(trainer, validation=(X, LABELS, OF_ROWS), **options)
    counted = OF_ROWS > 0
    right = trainer.predict(X).argmax(axis=1) == LABELS
    expected = {
        "accuracy": right[counted].mean(),
        "weighted_accuracy": np.average(right, weights=OF_ROWS),
        "weighted_right_of": np.average(right, weights=OF_ROWS),
    }
    scores = trainer.evaluate(X, LABELS, 7, sample_weight=OF_ROWS)
    for name, value in expected.items():
        assert scores[name] == pytest.approx(value)
        assert history[f"val_{name}"][-1] == pytest.approx(value)
    assert history["weighted_accuracy"] == pytest.approx(history["weighted_right_of"])
    assert history["weighted_accuracy"] != history["accuracy"]
    plain = trainer.evaluate(X, LABELS)
    assert plain["weighted_accuracy"] == plain["accuracy"] == plain["weighted_right_of"]


def test_class_weights_count_in_weighted_metrics():
    trainer = classifier(weighted_metrics=["accuracy"])
    weights = {0: 3.0, 2: 0.5}
    history = fit(trainer, epochs=1, class_weight=weights)
    other = classifier(weighted_metrics=["accuracy"])
    of_rows = np.array([3, 1, 0.5])[LABELS]
    assert dict(history) == dict(fit(other, epochs=1, sample_weight=of_rows))
    assert history["weighted_accuracy"] != history["accuracy"]


def test_weighted_metrics_of_steps_leave_padding_out():
    model = nn.Sequential(nn.LSTM(4, 8), nn.Linear(8, 3), rng=0)
    trainer = Trainer(
        model, nn.CrossEntropyLoss(), optim.SGD(model.parameters()), weighted_metrics=["accuracy"]
    )
    lengths = 1 + np.arange(10) % 5
    x = RNG.normal(size=(10, 5, 4)).astype(np.float32)
    y = RNG.integers(3, size=(10, 5))
    right = trainer.predict((x, lengths)).argmax(axis=2) == y
    steps = np.arange(5) < lengths[:, None]
    for weight in (WEIGHTS[:10], WEIGHTS[:50].reshape(10, 5)):
        of_steps = steps * (weight if weight.ndim == 2 else weight[:, None])
        scores = trainer.evaluate((x, lengths), y, 4, sample_weight=weight)
        assert scores["weighted_accuracy"] == pytest.approx(np.average(right, weights=of_steps))
        assert scores["accuracy"] == pytest.approx(right[steps].mean())
    assert np.isclose(
        accuracy(trainer.predict(x), y, WEIGHTS[:10]),
        np.average(
            trainer.predict(x).argmax(axis=2) == y, weights=np.repeat(WEIGHTS[:10, None], 5, 1)
        ),
    )


def test_a_function_that_takes_no_weights_is_no_weighted_metric():
    def plain(prediction, target):
        return 0.0

    with pytest.raises(TypeError, match=r"plain takes no sample_weight; write it as plain\(pred"):
        classifier(weighted_metrics=[plain])
    with pytest.raises(TypeError, match="max takes no sample_weight"):
        classifier(weighted_metrics=[max])  # a built-in function without a signature
    with pytest.raises(ValueError, match="would be called 'weighted_accuracy'"):
        classifier(weighted_metrics=["accuracy", "accuracy"])


def test_early_stopping_knows_weighted_metrics():
    assert EarlyStopping("val_weighted_accuracy").mode == "max"


# --- other properties -----------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 7, 97])
def test_r2_of_a_column_that_does_not_vary(batch):
    """0 if it is missed and 1 if it is hit, whatever rounding makes of a mean of tenths."""
    target = np.tile([0.1, 1 / 3], (97, 1))
    missed = target + np.array([0.0, 1e-3])
    assert value_of("r2", target, target, batch) == 1.0
    assert value_of("r2", missed, target, batch) == 0.5


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_no_row_is_right_whose_label_has_no_finite_logit(k):
    """Nor a row that holds NaN, whose order nobody knows."""
    nan, inf = np.nan, np.inf
    logits = np.array(
        [[nan] * 4, [nan, 1, 0, 2], [0, -inf, -inf, -inf], [3, 1, nan, 2], [inf, 1, 0, 0]]
    )
    labels = np.array([2, 0, 1, 0, 0])
    assert value_of(f"top_{k}", logits, labels, 2) == 0
    if k == 1:
        assert accuracy(logits, labels) == value_of("accuracy", logits, labels, 5) == 0
        assert accuracy(logits[None], labels[None]) == 0


@pytest.mark.parametrize("name", ["r2", "mse", "mae"])
def test_errors_of_nan_are_nan(name):
    target = np.array([[0.1, 1.0], [0.1, 2.0]])
    for column in (0, 1):  # the first does not vary
        prediction = target.copy()
        prediction[1, column] = np.nan
        assert np.isnan(value_of(name, prediction, target, 1))


@pytest.mark.parametrize("record", [True, False])
def test_r2_of_validation_is_that_of_the_whole_set(record, monkeypatch):
    monkeypatch.setattr("minidl.training.evaluator.EVALUATION_BATCH", 7)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2), rng=0)
    trainer = Trainer(
        model,
        nn.MSELoss(),
        optim.SGD(model.parameters()),
        metrics=["r2", "mse", "mae"],
        rng=0,
        record=record,
    )
    history = fit(trainer, validation=(X, VALUES))
    predicted = trainer.predict(X)
    error = predicted.astype(np.float64) - VALUES
    around = np.square(VALUES - VALUES.mean(axis=0, dtype=np.float64)).sum(axis=0)
    assert history["val_r2"][-1] == pytest.approx(np.mean(1 - (error**2).sum(axis=0) / around))
    assert history["val_mse"][-1] == pytest.approx(np.mean(error**2))
    assert history["val_mae"][-1] == pytest.approx(np.mean(np.abs(error)))
    assert history["val_mse"] == pytest.approx(history["val_loss"])


@compiled
@pytest.mark.parametrize("kept", [1, 20, 40, 8192])
def test_epochs_in_slices_are_the_same_epochs(kept, monkeypatch):
    """So many rows of predictions are kept at a time."""
    most = []

    def observed(*arguments, **options):
        result = run_epoch(*arguments, **options)
        most.append(result.samples)
        return result

    run_epoch = epoch.run_epoch
    monkeypatch.setattr(epoch, "run_epoch", observed)
    monkeypatch.setattr(epoch, "KEPT_ROWS", kept)
    seen = []

    def whole(prediction, target):
        seen.append(len(target))
        return float(prediction.sum())

    metrics = ["accuracy", "top_2", whole]
    sliced, eager = classifier(metrics=metrics), classifier(metrics=metrics, record=False)
    assert dict(fit(sliced)) == dict(fit(eager))
    assert_same(everything(sliced), everything(eager))
    assert max(most) <= max(kept, 16)
    assert seen.count(50) == len(seen)


@pytest.mark.parametrize("record", [True, False])
def test_a_function_of_all_rows_is_not_asked_about_some(record, monkeypatch):
    monkeypatch.setattr(epoch, "KEPT_ROWS", 16)

    def whole(prediction, target):
        assert len(target) == 50
        return 1.0

    running = []
    shown = Progress()
    shown.step = lambda rows, values: running.append(list(values()))
    history = fit(classifier(metrics=["accuracy", whole], record=record), progress=shown)
    assert running == [["loss", "accuracy"]] * 8
    assert list(history) == ["loss", "accuracy", "whole"]


@compiled
def test_without_metrics_a_recorded_epoch_is_one_run(monkeypatch):
    runs = []
    run_epoch = epoch.run_epoch
    monkeypatch.setattr(epoch, "KEPT_ROWS", 16)
    monkeypatch.setattr(epoch, "run_epoch", lambda *args: runs.append(args[4]) or run_epoch(*args))
    fit(classifier(metrics=()), epochs=3)
    assert runs == [1] * 3  # the losses alone are kept


def named(name):
    def metric(prediction, target):
        return 0.0

    metric.__name__ = name
    return metric


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        (["kappa"], "unknown metric 'kappa'; known: accuracy, top_k"),
        (["top_0"], "unknown metric"),
        (["top_five"], "unknown metric"),
        (["accuracy", accuracy], "would be called 'accuracy'"),
        ([named("loss")], "cannot be called 'loss'"),
        ([named("epoch")], "cannot be called 'epoch'"),
        ([named("seconds")], "cannot be called 'seconds'"),
        ([named("val_f1")], "cannot be called 'val_f1'"),
    ],
)
def test_unknown_metrics_are_refused(metrics, words):
    with pytest.raises(ValueError, match=words):
        classifier(metrics=metrics)


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("top_4", "top_4: there are only 3 classes"),
        ("mse", r"mse needs prediction and target of one shape, got \(50, 3\) and \(50,\)"),
        ("r2", "r2 needs"),
    ],
)
def test_metrics_that_do_not_suit_the_data_are_refused_before_any_step(metric, words):
    trainer = classifier(metrics=[metric])
    with pytest.raises(ValueError, match=words):
        trainer.fit(X, LABELS, 1)
    assert trainer.optimizer.steps == 0


# --- what is not a number -------------------------------------------------------------------

NAN, INF = np.nan, np.inf


@pytest.mark.parametrize(
    ("logits", "labels", "right"),
    [
        ([[NAN, NAN, NAN]], [0], 0),
        ([[NAN, 1, 2]], [0], 0),  # the largest, says argmax
        ([[NAN, 1, 2]], [2], 0),
        ([[0, 1, INF]], [2], 0),
        ([[0, 1, -INF]], [2], 0),
        ([[0, 1, -INF]], [1], 1),  # a class that is masked
        ([[INF, -INF, 1]], [2], 0),
        ([[0, 1, 2], [NAN, 1, 2], [0, 3, 1]], [2, 2, 1], 2),
    ],
)
def test_a_row_that_is_not_finite_is_never_right(logits, labels, right):
    logits, labels = np.array(logits, float), np.array(labels)
    assert accuracy(logits, labels) == right / len(labels)
    for k in (1, 2, 3):
        metric = TopK(k, f"top_{k}")
        metric.add(logits, labels)
        if np.isnan(logits).any() or k == 1:
            assert metric.read() == right / len(labels)
    metric = TopK(2, "top_2")
    metric.add(np.full((3, 4), NAN), np.array([0, 1, 3]))
    assert metric.read() == 0


def test_a_logit_that_is_not_a_number_is_not_right():
    metric = BinaryAccuracy()
    metric.add(np.array([[NAN], [NAN], [-INF], [1.0]]), np.array([[0.0], [1.0], [0.0], [1.0]]))
    assert metric.read() == 0.25


@pytest.mark.parametrize("metric", ["mse", "mae", "r2"])
@pytest.mark.parametrize("target", [np.zeros((3, 2)), np.arange(6.0).reshape(3, 2)])
def test_errors_of_what_is_not_a_number_are_not_a_number(metric, target):
    running = by_name(metric)[metric]()
    running.add(target, target)
    prediction = target.copy()
    prediction[1, 0] = NAN
    running.add(prediction, target)
    assert np.isnan(running.read())


def test_a_model_of_nan_scores_nothing():
    """So that early stopping has nothing to take for the best."""
    trainer = classifier(metrics=["accuracy", "top_2"])
    trainer.model[5].bias.data[...] = NAN
    scores = trainer.evaluate(X, LABELS)
    assert np.isnan(scores.pop("loss"))
    assert set(scores.values()) == {0.0}


def test_a_function_of_any_keywords_takes_weights():
    def total(prediction, target, **options):
        return float(options["sample_weight"].sum())

    trainer = classifier(weighted_metrics=[total])
    weights = np.full(len(X), 0.5)
    assert trainer.evaluate(X, LABELS, sample_weight=weights)["weighted_total"] == len(X) / 2


def test_no_metrics_may_be_none():
    assert by_name(None, weighted_metrics=None) == {}
    assert list(classifier(weighted_metrics=None).metrics) == ["accuracy"]


def test_accuracy_takes_lists():
    assert accuracy([[2.0, 1.0], [3.0, 0.0]], [0, 1], sample_weight=[3, 1]) == 0.75


def test_accuracy_names_each_shape_of_weights_once():
    with pytest.raises(ValueError, match=r"needs sample_weight \(2,\), got \(3,\)$"):
        accuracy(np.eye(2), np.array([0, 1]), np.ones(3))
    with pytest.raises(ValueError, match=r"needs sample_weight \(2,\) or \(2, 1\), got \(3,\)$"):
        accuracy(np.ones((2, 1, 2)), np.array([[0], [1]]), np.ones(3))
