"""Precision, recall, F1, confusion matrix, ROC, log loss and MAPE: scikit-learn's, and by name."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from training_helpers import LABELS, X, classifier, fit

from minidl import nn, optim
from minidl.monitor import good_mode
from minidl.training import (
    Trainer,
    balanced_accuracy,
    confusion_matrix,
    f1,
    log_loss,
    mape,
    precision,
    recall,
    roc_auc,
)
from minidl.training.metrics import by_name

FUNCTIONS = [balanced_accuracy, confusion_matrix, f1, log_loss, mape, precision, recall, roc_auc]
of_classes = [balanced_accuracy, confusion_matrix, f1, precision, recall]
every_function = pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


class Case:
    """Random logits with many ties, labels of which some classes may be absent, weights."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.rows, self.classes = int(rng.integers(1, 30)), int(rng.integers(2, 6))
        shape = (self.rows, self.classes)
        ties = rng.integers(-2, 3, shape).astype(float)
        self.logits = ties if rng.uniform() < 0.7 else 3 * rng.normal(size=shape)
        self.logits = self.logits.astype(rng.choice([np.float32, np.float64]))
        self.labels = rng.choice(rng.permutation(self.classes)[: rng.integers(1, 6)], self.rows)
        self.weight = None
        if rng.uniform() < 0.5:
            self.weight = rng.uniform(0, 2, self.rows) * (rng.uniform(size=self.rows) < 0.8)
            self.weight[-1] = 1.0
        self.average = rng.choice(["binary", "macro", "micro", "weighted", None])
        if self.average == "binary":
            self.logits, self.labels = self.logits[:, :2], self.labels % 2
        self.zero_division = float(rng.choice([0, 1, np.nan]))
        self.normalize = rng.choice([None, "true", "pred", "all"])
        self.predicted = self.logits.argmax(axis=1)
        self.targets = rng.choice([-2.0, 0.0, 0.5, 3.0], (self.rows, 2)) * rng.uniform(0.5, 1)
        self.numbers = self.targets + rng.normal(size=(self.rows, 2))


@contextmanager
def quietly() -> Iterator[Any]:
    """scikit-learn's metrics, without its warnings of what is not defined."""
    sklearn = pytest.importorskip("sklearn")
    metrics = pytest.importorskip("sklearn.metrics")
    with warnings.catch_warnings(), sklearn.config_context(skip_parameter_validation=True):
        warnings.simplefilter("ignore")
        yield metrics


def counts_agree(case: Case, metrics: Any) -> None:
    given = {"sample_weight": case.weight}
    options = {"average": case.average, "zero_division": case.zero_division, **given}
    theirs = metrics.precision_recall_fscore_support(case.labels, case.predicted, **options)
    for function, expected in zip((precision, recall, f1), theirs, strict=False):
        for prediction in (case.logits, case.predicted):
            np.testing.assert_allclose(function(prediction, case.labels, **options), expected)


def matrices_agree(case: Case, metrics: Any) -> None:
    given: dict[str, Any] = {"sample_weight": case.weight, "normalize": case.normalize}
    every = range(case.logits.shape[1])
    expected = metrics.confusion_matrix(case.labels, case.predicted, labels=every, **given)
    np.testing.assert_allclose(confusion_matrix(case.logits, case.labels, **given), expected)


def balanced_accuracies_agree(case: Case, metrics: Any) -> None:
    given = {"sample_weight": case.weight}
    expected = metrics.balanced_accuracy_score(case.labels, case.predicted, **given)
    np.testing.assert_allclose(balanced_accuracy(case.logits, case.labels, **given), expected)


def areas_agree(case: Case, metrics: Any) -> None:
    given = {"sample_weight": case.weight}
    labels, z = case.labels, case.logits.astype(np.float64)
    if z.shape[1] == 2:
        score = z[:, 1] - z[:, 0]
        expected = metrics.roc_auc_score(labels, score, **given)
        for prediction in (z, score, score[:, None]):
            np.testing.assert_allclose(roc_auc(prediction, labels, **given), expected)
        return
    average = {"micro": None, "binary": "macro"}.get(case.average, case.average)
    options = {"average": average, **given}
    every = {"labels": list(range(z.shape[1])), "multi_class": "ovr"}
    expected = metrics.roc_auc_score(labels, softmax(z), **every, **options)
    np.testing.assert_allclose(roc_auc(z, labels, **options), expected)


def log_losses_agree(case: Case, metrics: Any) -> None:
    given = {"sample_weight": case.weight}
    shares, every = softmax(case.logits.astype(np.float64)), range(case.logits.shape[1])
    expected = metrics.log_loss(case.labels, shares, labels=list(every), **given)
    np.testing.assert_allclose(log_loss(case.logits, case.labels, **given), expected, atol=1e-12)


def relative_errors_agree(case: Case, metrics: Any) -> None:
    given = {"sample_weight": case.weight}
    expected = metrics.mean_absolute_percentage_error(case.targets, case.numbers, **given)
    np.testing.assert_allclose(mape(case.numbers, case.targets, **given), expected)


AGREEMENTS = [
    *(counts_agree, matrices_agree, balanced_accuracies_agree),
    *(areas_agree, log_losses_agree, relative_errors_agree),
]


@pytest.mark.parametrize("agree", AGREEMENTS, ids=lambda f: f.__name__)
def test_metrics_agree_with_scikit_learn(agree: Any) -> None:
    """A thousand cases in all: each metric has its own, as scikit-learn takes its time."""
    number = AGREEMENTS.index(agree)
    with quietly() as metrics:
        for seed in range(number, 1000, len(AGREEMENTS)):
            try:
                agree(Case(seed), metrics)
            except AssertionError as error:
                raise AssertionError(f"case {seed}: {error}") from error


def test_nan_is_refused_as_by_scikit_learn() -> None:
    with quietly() as metrics:
        nan = np.array([0.5, np.nan, 1.0])
        labels, ones = np.array([0, 1, 1]), np.ones(3)
        for theirs, ours in (
            (metrics.roc_auc_score, roc_auc),
            (metrics.log_loss, log_loss),
            (metrics.mean_absolute_percentage_error, mape),
        ):
            with pytest.raises(ValueError, match="NaN"):
                theirs(labels, nan)
            with pytest.raises(ValueError, match=r"(?i)nan in row 1"):
                ours(nan, labels)
            with pytest.raises(ValueError, match="NaN"):
                theirs(nan, ones)
            with pytest.raises(ValueError, match="NaN in row 1"):
                ours(ones, nan)


# --- without scikit-learn ------------------------------------------------------------------------


@pytest.mark.parametrize("function", of_classes, ids=lambda f: f.__name__)
def test_logits_of_nan_have_no_class(function: Any) -> None:
    logits = np.array([[1.0, 2.0], [np.nan, 0.0]])
    with pytest.raises(ValueError, match=f"{function.__name__}: prediction holds NaN in row 1"):
        function(logits, np.array([1, 0]))


@pytest.mark.parametrize("function", of_classes, ids=lambda f: f.__name__)
def test_one_logit_is_class_one_where_it_is_positive(function: Any) -> None:
    rng = np.random.default_rng(0)
    z, labels = rng.normal(size=30), rng.integers(0, 2, 30)
    expected = function((z > 0).astype(int), labels)
    for logits, target in (
        (z, labels),
        (z[:, None], labels),
        (z[:, None], labels[:, None].astype(float)),
        (np.stack([-z, z], axis=1), labels),
    ):
        np.testing.assert_array_equal(function(logits, target), expected)


@every_function
def test_a_weight_is_so_many_rows(function: Any) -> None:
    rng = np.random.default_rng(1)
    z, labels, count = rng.normal(size=(40, 2)), rng.integers(0, 2, 40), np.arange(40) % 3
    target = z + rng.normal(size=(40, 2)) if function is mape else labels
    expected = function(np.repeat(z, count, axis=0), np.repeat(target, count, axis=0))
    np.testing.assert_allclose(function(z, target, sample_weight=count), expected)


@every_function
def test_steps_of_sequences_are_rows(function: Any) -> None:
    rng = np.random.default_rng(2)
    z, labels, weight = rng.normal(size=(6, 4, 2)), rng.integers(0, 2, (6, 4)), rng.uniform(size=6)
    target = z + 1 if function is mape else labels
    flat = z.reshape(24, 2), target.reshape(24, *target.shape[2:])
    np.testing.assert_allclose(function(z, target), function(*flat))
    of_steps = np.repeat(weight, 4)
    np.testing.assert_allclose(
        function(z, target, sample_weight=weight), function(*flat, sample_weight=of_steps)
    )


@every_function
@pytest.mark.parametrize(
    ("prediction", "target", "weight", "words"),
    [
        (np.ones((3, 2)), np.ones(4, int), None, r"\(3, 2\) and \(4,\)"),
        (np.ones((0, 2)), np.ones(0, int), None, "no row|one shape"),
        (np.ones((2, 3)), np.array([0, 3]), None, "holds 3, and there are 3 classes|one shape"),
        (np.ones((2, 3)), np.array([0, -1]), None, "holds -1|one shape"),
        (np.ones((2, 3)), np.array([0.0, 1.0]), None, "integer labels, got float64|one shape"),
        (np.ones(2), np.ones(2, int), [1, 2, 3], r"sample_weight \(2,\), got \(3,\)"),
        (np.ones(2), np.ones(2, int), [1, -1], ">= 0"),
        (np.ones(2), np.ones(2, int), [0, 0], "not all zero"),
        (np.ones(2), np.ones(2, int), [1, np.nan], "finite"),
    ],
)
def test_bad_arguments(
    function: Any, prediction: Any, target: Any, weight: Any, words: str
) -> None:
    with pytest.raises(ValueError, match=f"{function.__name__}.*({words})"):
        function(prediction, target, sample_weight=weight)


@pytest.mark.parametrize("function", of_classes, ids=lambda f: f.__name__)
def test_one_logit_is_for_two_classes(function: Any) -> None:
    message = f"{function.__name__}: target holds 2 in row 1, and one logit is for classes 0 and 1"
    with pytest.raises(ValueError, match=message):
        function(np.array([0.5, 1.5, 0.0]), np.array([1, 2, 0]))
    with pytest.raises(ValueError, match=message):
        function(np.array([[0.5], [1.5]]), np.array([[0], [2]]))


@pytest.mark.parametrize("function", [roc_auc, log_loss], ids=lambda f: f.__name__)
def test_scores_of_one_logit_are_for_two_classes(function: Any) -> None:
    with pytest.raises(ValueError, match=r"target holds 1.5 in row 0"):
        function(np.array([0.5, 1.5]), np.array([1.5, 0.0]))
    if function is log_loss:
        with pytest.raises(ValueError, match=r"log_loss: target holds -1 in row 1"):
            function(np.array([0.5, 1.5]), np.array([1, -1]))


def test_bad_options() -> None:
    labels = np.array([0, 1, 2])
    for function in (precision, recall, f1):
        with pytest.raises(ValueError, match='"binary" is for classes 0 and 1, and there is 2'):
            function(labels, labels)
        with pytest.raises(ValueError, match="average must be"):
            function(labels, labels, average="samples")
        with pytest.raises(ValueError, match="zero_division must be 0, 1 or NaN"):
            function(labels, labels, average="macro", zero_division=0.5)
    with pytest.raises(ValueError, match="there are 3 classes, and not 2"):
        confusion_matrix(labels, labels, classes=2)
    assert confusion_matrix(labels, labels, classes=4).shape == (4, 4)
    assert confusion_matrix(labels, labels, classes=np.uint8(20)).shape == (20, 20)
    with pytest.raises(ValueError, match="normalize must be"):
        confusion_matrix(labels, labels, normalize="rows")
    with pytest.raises(ValueError, match="needs scores"):
        roc_auc(labels, labels)
    with pytest.raises(ValueError, match="average must be"):
        roc_auc(np.ones((3, 3)), labels, average="micro")
    for function in (roc_auc, log_loss):
        with pytest.raises(ValueError, match="prediction holds inf in row 1"):
            function(np.array([1.0, np.inf, 2.0]), np.array([0, 1, 1]))


# --- by name, batch after batch ------------------------------------------------------------------

NAMES: dict[str, Any] = {
    "balanced_accuracy": balanced_accuracy,
    "log_loss": log_loss,
    "roc_auc": roc_auc,
    "roc_auc_weighted": lambda *given, **rest: roc_auc(*given, **rest, average="weighted"),
}
for function in (precision, recall, f1):
    for average in ("macro", "micro", "weighted"):
        NAMES[f"{function.__name__}_{average}"] = (
            lambda *given, function=function, average=average, **rest: function(
                *given, **rest, average=average
            )
        )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("batch", [1, 7, 97])
def test_a_running_metric_is_that_of_all_rows(name: str, batch: int) -> None:
    rng = np.random.default_rng(3)
    logits = rng.integers(-2, 3, (97, 4)).astype(np.float32)
    labels, weight = np.sort(rng.integers(0, 4, 97)), rng.uniform(0.1, 2, 97)
    for given in ({}, {"sample_weight": weight}):
        start = by_name((), None, name)[f"weighted_{name}"] if given else by_name(name)[name]
        metric = start()
        for begin in range(0, 97, batch):
            rows = slice(begin, begin + batch)
            metric.add(logits[rows], labels[rows], weight[rows] if given else None)
        np.testing.assert_allclose(metric.read(), NAMES[name](logits, labels, **given))


def test_fit_and_evaluate_know_them() -> None:
    names = [*NAMES, "accuracy"]
    trainer = classifier(metrics=names, weighted_metrics=["f1_macro"])
    history = fit(trainer, validation=(X, LABELS))
    logits, scores = trainer.predict(X), trainer.evaluate(X, LABELS)
    for name, function in NAMES.items():
        assert scores[name] == pytest.approx(function(logits, LABELS), rel=1e-6)
        assert history[f"val_{name}"][-1] == pytest.approx(scores[name])
    assert scores["weighted_f1_macro"] == scores["f1_macro"]


def test_binary_metrics_of_one_logit() -> None:
    labels = (LABELS > 0).astype(np.float32)[:, None]
    model = nn.Sequential(nn.Linear(X.shape[1], 1), rng=0)
    names = ["f1", "precision", "recall", "roc_auc", "log_loss", "balanced_accuracy"]
    trainer = Trainer(
        model, nn.BCEWithLogitsLoss(), optim.Adam(model.parameters()), metrics=names, rng=0
    )
    trainer.fit(X, labels, 2, progress=False)
    scores, logits = trainer.evaluate(X, labels), trainer.predict(X)
    assert scores["log_loss"] == pytest.approx(scores["loss"], rel=1e-5)
    for function in (f1, precision, recall, roc_auc, balanced_accuracy):
        assert scores[function.__name__] == pytest.approx(function(logits, labels))


def test_f1_of_many_classes_is_refused_before_any_step() -> None:
    trainer = classifier(metrics=["f1"])
    with pytest.raises(ValueError, match="f1 is for 2 classes, and there are 3: choose f1_macro"):
        fit(trainer)
    assert trainer.optimizer.steps == 0


def test_mape_by_name() -> None:
    model = nn.Sequential(nn.Linear(X.shape[1], 2), rng=0)
    trainer = Trainer(model, nn.MSELoss(), optim.SGD(model.parameters()), metrics=["mape"], rng=0)
    y = 1 + np.abs(X[:, :2])
    trainer.fit(X, y, 1, progress=False)
    assert trainer.evaluate(X, y)["mape"] == pytest.approx(mape(trainer.predict(X), y), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        *(("val_f1_macro", "max"), ("roc_auc", "max"), ("weighted_recall", "max")),
        *(("val_log_loss", "min"), ("balanced_accuracy", "max"), ("precision_micro", "max")),
        ("mape", "min"),
    ],
)
def test_it_is_known_which_values_are_good(name: str, mode: str) -> None:
    assert good_mode("EarlyStopping", name, None) == mode
