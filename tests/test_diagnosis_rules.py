"""The rules of diagnoses, one by one, and what they rest on."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import diagnosis_cases as cases
import numpy as np
import pytest

import minidl
from minidl import nn, optim
from minidl.diagnosis import causes, reach, task
from minidl.diagnosis.causes import Cause
from minidl.diagnosis.gradients import overlooks_rows, wrong_gradient, wrong_layer
from minidl.diagnosis.judge import Judge
from minidl.diagnosis.probe import look
from minidl.diagnosis.program import Program
from minidl.diagnosis.reach import Clock, score
from minidl.diagnosis.references import Predictors
from minidl.diagnosis.remedies.actions import (
    Clip,
    Epochs,
    Reinitialise,
    ReplaceActivation,
    ReplaceHead,
    ScaleInputs,
    ScaleTargets,
    SetLearningRate,
    UseOptimizer,
    WeightDecay,
)
from minidl.diagnosis.rules import data as data_rules
from minidl.diagnosis.rules import running as running_rules
from minidl.diagnosis.rules.closing import RULES, closing_sentence
from minidl.diagnosis.rules.ending import Ending, ending_of
from minidl.diagnosis.rules.static import Setting, certainties
from minidl.diagnosis.rules.suspicion import Suspicion
from minidl.diagnosis.task import Task, answers, balanced_error, decided, error, recalls, task_of
from minidl.diagnosis.trials import Outcome, Rows, Trials, moments
from minidl.training.data import Data

F32 = np.float32
RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 4)).astype(F32)
BITS = (X[:, :1] > 0).astype(F32)
LABELS = np.arange(40) % 3
NUMBERS = (3 * X[:, :1] + 1).astype(F32)


# --- what targets ask for, and how far answers are --------------------------------------------


def test_what_targets_ask_for() -> None:
    assert task_of(LABELS, nn.CrossEntropyLoss()) == Task("labels", 3)
    assert task_of(np.eye(3, dtype=F32)[LABELS], nn.MSELoss()) == Task("onehot", 3)
    assert task_of(BITS, nn.MSELoss()).kind == "bits"
    assert task_of(NUMBERS, nn.MSELoss()) == Task("numbers")
    ignoring = nn.CrossEntropyLoss(ignore_index=0)
    assert task_of(LABELS, ignoring).classes == 2


def test_an_error_of_one_is_one_answer_for_all_rows() -> None:
    errors_are_relative(vars(task))


def errors_are_relative(space: dict[str, Any]) -> None:
    error, labels = space["error"], np.array([0, 0, 0, 1])
    assert error(np.zeros(4), labels, Task("labels", 2)) == 1
    assert error(labels, labels, Task("labels", 2)) == 0
    numbers = NUMBERS.astype(float)
    assert error(np.full_like(numbers, numbers.mean()), numbers, Task("numbers")) == pytest.approx(
        1
    )
    assert error(np.full((2, 1), np.nan), np.ones((2, 1)), Task("numbers")) == np.inf
    assert balanced_error(np.zeros(4), labels) == 1
    assert recalls(np.zeros(4), labels) == {0: (1.0, 3), 1: (0.0, 1)}


def test_the_side_of_the_threshold_is_the_answer() -> None:
    answers_are_on_a_side(vars(task))


def answers_are_on_a_side(space: dict[str, Any]) -> None:
    for loss, outputs, expected in [
        (nn.BCEWithLogitsLoss(), [[-0.1], [0.1]], [0, 1]),
        (nn.MSELoss(), [[0.4], [0.6]], [0, 1]),
        (nn.MSELoss(), [[-0.1], [0.1]], [0, 0]),
        (cases.LogOfAll(), [[0.4], [0.6]], [0, 1]),
        (cases.LogOfAll(), [[-0.1], [0.1]], [0, 1]),
    ]:
        found = space["answers"](np.array(outputs), Task("bits", 2), loss)
        assert found[:, 0].tolist() == expected


def test_targets_of_all_steps_are_rows() -> None:
    labels = np.arange(6).reshape(2, 3)
    assert decided(labels, Task("labels", 6)).tolist() == list(range(6))
    assert answers(np.ones((2, 3, 4)), Task("labels", 4), nn.CrossEntropyLoss()).shape == (6,)


# --- static rules ------------------------------------------------------------------------------


def kinds_of(model: nn.Layer, loss: nn.Loss, y: Any, x: Any = X) -> list[str]:
    setting = Setting(model, loss, (x,), y, model(x[:1]))
    return [verdict.kind for verdict in certainties(setting)]


def net(*last: nn.Layer, outputs: int = 3, **more: Any) -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8, **more), nn.Tanh(), nn.Linear(8, outputs), *last, rng=0)


MULTI = (RNG.uniform(size=(40, 3)) < 0.5).astype(F32)
CERTAIN = [
    (net(nn.Softmax(), outputs=1), nn.MSELoss(), BITS, "output_mismatch"),
    (net(nn.LogSoftmax(), outputs=1), nn.MSELoss(), NUMBERS, "output_mismatch"),
    (net(nn.Softmax()), nn.CrossEntropyLoss(), LABELS, "output_mismatch"),
    (net(nn.Sigmoid()), nn.CrossEntropyLoss(), LABELS, "output_mismatch"),
    (net(nn.Sigmoid(), outputs=1), nn.BCEWithLogitsLoss(), BITS, "output_mismatch"),
    (net(), nn.NLLLoss(), LABELS, "output_mismatch"),
    (net(nn.Sigmoid(), outputs=1), nn.MSELoss(), NUMBERS, "output_mismatch"),
    (net(nn.ReLU(), nn.Dropout(0.1), outputs=1), nn.L1Loss(), NUMBERS, "output_mismatch"),
    (net(nn.Tanh(), outputs=1), nn.HuberLoss(), 5 * NUMBERS, "output_mismatch"),
    (net(nn.ReLU(), outputs=1), nn.BCEWithLogitsLoss(), BITS, "output_mismatch"),
    (net(nn.Softmax()), nn.MSELoss(), MULTI, "output_mismatch"),
    (net(), nn.CrossEntropyLoss(), np.zeros(40, int), "nothing_to_learn"),
    (net(outputs=1), nn.MSELoss(), np.ones((40, 1), F32), "nothing_to_learn"),
]


@pytest.mark.parametrize(("model", "loss", "y", "kind"), CERTAIN)
def test_what_cannot_be_meant_is_certain(model: Any, loss: Any, y: Any, kind: str) -> None:
    assert kinds_of(model, loss, y) == [kind]


def test_rows_that_are_all_the_same_are_an_error_of_the_data() -> None:
    assert kinds_of(net(), nn.CrossEntropyLoss(), LABELS, np.ones((40, 4), F32)) == ["data_error"]


MEANT = [
    (net(), nn.CrossEntropyLoss(), LABELS),
    (net(nn.LogSoftmax()), nn.NLLLoss(), LABELS),
    (net(nn.LogSoftmax()), nn.CrossEntropyLoss(), LABELS),  # a log-softmax changes nothing of it
    (net(nn.Softmax()), nn.MSELoss(), np.eye(3, dtype=F32)[LABELS]),
    (net(nn.Sigmoid()), nn.MSELoss(), MULTI),
    (net(nn.Tanh(), outputs=1), nn.MSELoss(), 2 * BITS - 1),
    # Noise around the ends of a range is no mistake.
    (net(nn.Sigmoid(), outputs=1), nn.MSELoss(), BITS + 0.05 * X[:, 1:2]),
    (net(nn.ReLU(), outputs=1), nn.MSELoss(), np.abs(NUMBERS)),
    (net(nn.ReLU()), nn.CrossEntropyLoss(), LABELS),
]


@pytest.mark.parametrize(("model", "loss", "y"), MEANT)
def test_what_may_be_meant_is_not_certain(model: Any, loss: Any, y: Any) -> None:
    assert kinds_of(model, loss, y) == []


def alike(first: Any, second: Any, between: nn.Layer | None = None) -> nn.Sequential:
    middle = [nn.Tanh()] if between is None else [nn.Tanh(), between]
    return nn.Sequential(nn.Linear(4, 8, init=first), *middle, nn.Linear(8, 3, init=second), rng=0)


def test_units_with_the_same_weights_on_both_sides_stay_alike() -> None:
    y, loss = LABELS, nn.CrossEntropyLoss()
    constant = nn.init.constant(0.3)
    assert kinds_of(alike(constant, constant), loss, y) == ["bad_initialization"]
    assert kinds_of(alike("zeros", "zeros"), loss, y) == ["bad_initialization"]
    assert kinds_of(alike(constant, "he_normal"), loss, y) == []
    assert kinds_of(alike("he_normal", "zeros"), loss, y) == []  # a last layer of zeros is usual
    assert kinds_of(alike(constant, constant, nn.Dropout(0.5)), loss, y) == []


def test_units_that_are_alike_get_the_same_gradient_for_ever() -> None:
    model = alike(nn.init.constant(0.3), nn.init.constant(0.3))
    minidl.Trainer(model, nn.CrossEntropyLoss(), optim.Adam(model.parameters()), rng=0).fit(
        X, LABELS, 5, progress=False, diagnose=False
    )
    weight = model[0].weight.data
    np.testing.assert_allclose(weight, np.broadcast_to(weight[:, :1], weight.shape), atol=1e-6)


# --- what fit says ----------------------------------------------------------------------------


def fit(model: nn.Layer, loss: nn.Loss, y: Any, **options: Any) -> minidl.Trainer:
    optimizer = optim.Adam(model.parameters(), options.pop("lr", 1e-3))
    trainer = minidl.Trainer(model, loss, optimizer, metrics=(), rng=0)
    trainer.fit(X, y, options.pop("epochs", 1), **{"progress": False} | options)
    return trainer


def test_fit_warns_of_certainties_once_for_each_model() -> None:
    model = net(nn.Sigmoid(), outputs=1)
    with pytest.warns(minidl.TrainingWarning, match=r"3 Sigmoid.*outside") as caught:
        fit(model, nn.MSELoss(), NUMBERS)
    assert len(caught) == 1
    assert caught[0].filename.endswith("test_diagnosis_rules.py")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(model, nn.MSELoss(), NUMBERS)
        fit(net(nn.Sigmoid(), outputs=1), nn.MSELoss(), NUMBERS, diagnose=False)
        fit(net(nn.Softmax()), nn.CrossEntropyLoss(), LABELS, diagnose=False)


def test_fit_ends_with_a_sentence_where_progress_is_shown(capsys: Any) -> None:
    trainer = fit(net(outputs=1), nn.MSELoss(), 1000 + NUMBERS, epochs=6, progress="lines", lr=1e-5)
    assert trainer.diagnosis.startswith("not_learning: after 6 epochs")
    assert capsys.readouterr().out.endswith(trainer.diagnosis + "\n")
    assert fit(net(outputs=1), nn.MSELoss(), 1000 + NUMBERS, epochs=6, lr=1e-5).diagnosis == ""
    options: Any = {"epochs": 6, "progress": "lines", "diagnose": False, "lr": 1e-5}
    assert fit(net(outputs=1), nn.MSELoss(), 1000 + NUMBERS, **options).diagnosis == ""


def test_a_closing_sentence_changes_no_bit() -> None:
    first, second = (
        fit(net(nn.Dropout(0.2), outputs=1), nn.MSELoss(), NUMBERS, epochs=3, progress=shown)
        for shown in ("lines", False)
    )
    for one, other in zip(first.lasting(), second.lasting(), strict=True):
        np.testing.assert_array_equal(one, other)


FINE: dict[str, Any] = {"error": 0.3, "dead": (0.0, ""), "own_loss": False, "counts": False}
ENDINGS = [
    ({"loss": [1.0, 0.5]}, {}, ""),
    ({"loss": [1.0, 5.0]}, {"error": 1.0}, "learning_rate_too_high"),
    (
        {"loss": [1.0, 5.0]},
        {"error": 1.0, "own_loss": True},
        "not_learning: .*gradient of your loss",
    ),
    ({"loss": [1.0, 5.0]}, {"error": 0.5}, ""),
    ({"loss": [1.0, 0.9]}, {"error": 1.0, "dead": (0.95, "3")}, "dead_units: 95%.*layer 3"),
    ({"loss": [1.0, 0.9]}, {"error": 0.5, "dead": (0.95, "3")}, ""),
    ({"loss": [1.0] * 6}, {"error": 1.0}, "not_learning: after 6 epochs"),
    ({"loss": [1.0] * 6}, {"error": 0.98}, ""),
    ({"loss": [1.0, 0.9, 0.8, 0.6, 0.4, 0.2]}, {"error": 1.0}, ""),  # a rare class, say
    ({"loss": [1.0, 0.95, 0.9, 0.85, 0.8, 0.6]}, {"error": 0.8}, "stopped_early.*25% of the loss"),
    ({"loss": [1.0, 0.95, 0.9, 0.85, 0.8, 0.75]}, {"error": 0.8}, ""),
    (
        {"loss": [1, 0.8, 0.5, 0.2, 0.1, 0.05], "val_loss": [1, 0.9, 0.8, 1.0, 1.4, 1.5]},
        {},
        "overfitting: .*least after epoch 3",
    ),
    (
        {"loss": [1, 0.8, 0.5, 0.2, 0.1, 0.05], "val_loss": [1, 0.9, 0.8, 0.8, 0.9, 0.85]},
        {},
        "",
    ),
    # Rows known by heart: the same rise tells.
    (
        {"loss": [1, 0.8, 0.5, 0.2, 0.1, 0.005], "val_loss": [1, 0.9, 0.7, 0.8, 0.9, 0.85]},
        {"one_answer": 1.0},
        "overfitting: .*least after epoch 3",
    ),
    # The loss of classes tells where it is above that of one answer for all rows.
    (
        {"loss": [1, 0.8, 0.5, 0.2, 0.1, 0.05], "val_loss": [1, 0.4, 0.3, 0.4, 0.5, 0.6]},
        {"counts": True, "one_answer": 0.69},
        "",
    ),
    (
        {"loss": [1, 0.8, 0.5, 0.2, 0.1, 0.05], "val_loss": [1, 0.4, 0.3, 0.6, 0.9, 1.4]},
        {"counts": True, "one_answer": 0.69},
        "overfitting: .*least after epoch 3",
    ),
    ({"loss": [9.0, 5.0, 2.0]}, {"loss": 1.1, "one_answer": 1.0}, "stopped_early: after 3 epochs"),
    ({"loss": [9.0]}, {"loss": 0.95, "one_answer": 1.0}, ""),
    ({"loss": [9.0, 5.0, 2.0]}, {"loss": 0.95, "one_answer": 1.0, "stopped": True}, ""),
    ({"loss": [9.0, 5.0, 2.0]}, {"loss": 0.8, "one_answer": 1.0}, ""),
    ({"loss": [9, 5, 4, 3, 2, 2]}, {"loss": 1.1, "one_answer": 1.0}, "not_learning: .*no less"),
    (
        {"loss": [9, 5, 4, 3, 2, 2]},
        {"loss": 0.98, "one_answer": 1.0, "by_luck": True},
        r"not_learning: .*98.0% of that.*may be luck",
    ),
    ({"loss": [9, 5, 4, 3, 2, 2]}, {"loss": 0.98, "one_answer": 1.0}, ""),
    (
        {"loss": [2, 1.8, 1.6, 1.5]},
        {"saturated": (0.98, "1"), "loss": 0.8, "one_answer": 1.0},
        "saturated_units: 98%.*layer 1",
    ),
    (
        {"loss": [2, 1.8, 0.6, 0.5]},
        {"saturated": (0.98, "1"), "loss": 0.2, "one_answer": 1.0},
        "",
    ),
    (
        {"loss": [2, 1, 0.6, 0.5, 0.45]},
        {"rare": (1.0, 0.1, 20), "rows": 500, "counts": True},
        "class_imbalance: class 1 has 20 of 500 rows.*10%",
    ),
    ({"loss": [2, 1, 0.6, 0.5, 0.45]}, {"rare": (1.0, 0.6, 20), "rows": 500, "counts": True}, ""),
    ({"loss": [2, 1, 0.6, 0.5]}, {"rare": (1.0, 0.1, 20), "rows": 500, "counts": True}, ""),
    ({"loss": [2, 1, 0.6, 0.5, 0.3]}, {"rare": (1.0, 0.1, 20), "rows": 500, "counts": True}, ""),
    (
        {"loss": [2, 1, 0.6, 0.5]},
        {"neighbours": (0.97, 0.1), "counts": True},
        "not_shuffled: in 97% of the rows",
    ),
    ({"loss": [2, 1, 0.6, 0.5]}, {"neighbours": (0.97, 0.95), "counts": True}, ""),  # one class
    ({"loss": [2, 1, 0.6, 0.5]}, {"neighbours": (0.97, 0.1), "error": 0.05}, ""),
    ({"loss": [1.0, 0.99, 0.98, 0.97, 0.96, 0.95]}, {}, "learning_rate_too_low: .*straight line"),
    ({"loss": [1.0, 0.9, 0.85, 0.82, 0.81, 0.805]}, {}, ""),
    ({"loss": [1.0, 0.99, 0.98, 0.97, 0.96, 0.95]}, {"error": 0.1}, ""),
]


@pytest.mark.parametrize(("history", "other", "words"), ENDINGS)
def test_what_an_end_is_said_of(history: Any, other: Any, words: str) -> None:
    import re

    ending = Ending(history, **FINE | other)
    assert closing_sentence(ending) == next((f"{t}." for r in RULES for t in r(ending)), "")
    said = next((text for rule in RULES for text in rule(ending)), "")
    assert re.match(words, said) if words else not said, said


def test_no_sentence_without_an_epoch_or_a_finite_loss() -> None:
    parts = net(outputs=1), nn.MSELoss(), (X,), NUMBERS
    assert ending_of(*parts, {}) is None
    assert ending_of(*parts, {"loss": [float("nan")]}) is None


def test_one_answer_for_all_rows_is_the_best_constant() -> None:
    from minidl.diagnosis.task import loss_of_one_answer

    rng = np.random.default_rng(0)
    for loss, target, width in [
        (nn.CrossEntropyLoss(), LABELS, 3),
        (nn.CrossEntropyLoss(class_weight=[1, 5, 1]), np.minimum(LABELS, 1), 3),
        (nn.NLLLoss(), LABELS, 3),
        (nn.BCEWithLogitsLoss(), BITS, 1),
        (nn.MSELoss(), NUMBERS, 1),
        (nn.L1Loss(), NUMBERS, 1),
    ]:
        found = loss_of_one_answer(loss, np.zeros((40, width), F32), target)
        for scale in (0.01, 0.3, 2.0):  # no other constant is better
            for _ in range(50):
                answer = rng.normal(0, scale, width)
                if isinstance(loss, nn.NLLLoss):
                    answer = answer - np.log(np.exp(answer).sum())
                if isinstance(loss, (nn.MSELoss, nn.L1Loss)):
                    answer += NUMBERS.mean()
                constant = np.ascontiguousarray(np.broadcast_to(answer, (40, width)), F32)
                assert found <= float(loss(constant, target)) + 1e-5
    weights = np.where(LABELS == 0, 10, 1).astype(F32)
    logits, loss = np.zeros((40, 3), F32), nn.CrossEntropyLoss()
    assert loss_of_one_answer(loss, logits, LABELS, weights) < 0.7 * float(
        loss(logits, LABELS, weights)
    )
    assert np.isnan(loss_of_one_answer(cases.Uphill(), np.zeros((40, 1), F32), NUMBERS))


def test_the_end_of_a_training_is_measured() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3), nn.Softmax(), rng=0)
    model[0].weight.data *= 1000
    labels = np.sort(LABELS)
    labels[:3] = 2
    labels[3:37] = 0
    parts = model, nn.CrossEntropyLoss(), (X,), labels, {"loss": [1.0]}
    end = ending_of(*parts, shuffle=False)
    assert end is not None
    assert end.saturated[0] > 0.95
    assert end.saturated[1] == "1"
    assert end.neighbours[0] > 0.9
    assert end.rare[0] == 2
    assert end.rare[2] == 6
    assert end.by_luck
    shuffled = ending_of(*parts, shuffle=True)
    assert shuffled is not None
    assert shuffled.neighbours == (0, 0)


# --- gradients of the user's own --------------------------------------------------------------


class Scaled(nn.MSELoss):
    """A squared error whose gradient is half of what it should be."""

    def forward(self, prediction: Any, target: Any, weight: Any = None) -> Any:
        difference = prediction - target
        return np.asarray(np.square(difference).mean()), difference / difference.size


class Right(nn.MSELoss):
    """A squared error of the user's own that is right."""

    def forward(self, prediction: Any, target: Any, weight: Any = None) -> Any:
        difference = prediction - target
        return np.asarray(np.square(difference).mean()), 2 * difference / difference.size


def test_a_wrong_gradient_of_a_loss_is_measured() -> None:
    batch = Data((X,), NUMBERS)
    slope, told = wrong_gradient(cases.Uphill(), net(outputs=1), batch) or (0.0, 0.0)
    assert slope == pytest.approx(-told, rel=0.05)
    slope, told = wrong_gradient(Scaled(), net(outputs=1), batch) or (0.0, 0.0)
    assert slope == pytest.approx(2 * told, rel=0.05)
    assert wrong_gradient(Right(), net(outputs=1), batch) is None
    assert wrong_gradient(nn.MSELoss(), net(outputs=1), batch) is None


def test_a_loss_that_overlooks_rows_is_told_from_others() -> None:
    from test_diagnosis import MeanFirst

    batch = Data((X,), NUMBERS)
    assert overlooks_rows(MeanFirst(), net(outputs=1), batch) is not None
    assert overlooks_rows(Right(), net(outputs=1), batch) is None
    assert overlooks_rows(MeanFirst(), net(outputs=1), Data((X,), np.ones_like(NUMBERS))) is None
    assert overlooks_rows(nn.MSELoss(), net(outputs=1), batch) is None


class Doubled(nn.Layer):
    """y = 2x with the gradient of x."""

    def __init__(self, slope: float) -> None:
        self.slope = slope

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        self.save(None)
        return 2 * x

    def backward(self, dy: Any) -> Any:  # type: ignore[override]
        self.saved(dy)
        return dy * dy.dtype.type(self.slope)


@pytest.mark.parametrize("slope", [2.0, 8.0, -2.0, 0.0])
def test_a_wrong_gradient_of_a_layer_is_found_below_it(slope: float) -> None:
    model = nn.Sequential(nn.Linear(4, 6), Doubled(slope), nn.Tanh(), nn.Linear(6, 3), rng=0)
    found = wrong_layer(model, nn.CrossEntropyLoss(), Data((X,), LABELS))
    assert (found is None) == (slope == 2)
    assert found is None or found[0] == "0"


# --- references -------------------------------------------------------------------------------


def predictors(y: Any, x: Any = None, loss: nn.Loss | None = None) -> Predictors:
    y = np.asarray(y)
    return Predictors(Data((x,), y), task_of(y, loss or nn.MSELoss()))


@pytest.mark.parametrize("seed", range(3))
def test_dependence_is_told_from_chance(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(300, 5)).astype(F32)
    noise = rng.normal(size=(300, 1))
    for signal in (x[:, :1], x[:, :1] * x[:, 1:2], np.abs(x[:, :1])):
        assert predictors(signal + 0.5 * noise, x).dependence().certain
    assert not predictors(noise, x).dependence().certain
    assert predictors(noise, x).correlation < 1 < predictors(x[:, :1] + noise, x).correlation


@pytest.mark.parametrize("shift", [1, -2, 3])
def test_targets_that_have_slipped_are_found(shift: int) -> None:
    x, y = cases.heaps(0)
    found = predictors(np.roll(y, shift), x.astype(F32), nn.CrossEntropyLoss())
    (verdict,) = data_rules.targets_of_other_rows(found)
    assert verdict.evidence["shift"] == shift
    assert f"y = np.roll(y, {-shift}, axis=0)" in verdict.remedy


def test_targets_in_reverse_order_are_found() -> None:
    x, y = cases.heaps(1)
    found = predictors(y[::-1], x.astype(F32), nn.CrossEntropyLoss())
    (verdict,) = data_rules.targets_of_other_rows(found)
    assert "reverse" in verdict.statement


def test_a_block_of_wrong_targets_is_bounded() -> None:
    x, y = cases.curve(0, rows=500)
    x = x[:, :1]
    y = np.sin(x) + 0.1 * y
    y[100:200] = np.random.default_rng(0).permutation(y[100:200])
    (verdict,) = data_rules.block_of_other_rows(predictors(y, x.astype(F32)))
    assert (verdict.evidence["first_row"], verdict.evidence["last_row"]) == (100, 199)
    assert not list(data_rules.block_of_other_rows(predictors(np.sin(x), x.astype(F32))))


def test_a_block_of_wrong_labels_is_told_from_one_with_more_of_a_rare_class() -> None:
    x, y = cases.heaps(0, rows=400)
    y[80:160] = np.random.default_rng(0).permutation(y[80:160])
    found = predictors(y, x.astype(F32), nn.CrossEntropyLoss())
    (verdict,) = data_rules.block_of_other_rows(found)
    assert (verdict.evidence["first_row"], verdict.evidence["last_row"]) == (80, 159)
    others = np.arange(10) < 9
    few, many = ([*[(1, 30)] * 9, (wrong, 30)] for wrong in (4, 15))
    assert not data_rules.unlikely_blocks(few, others).any()
    assert data_rules.unlikely_blocks(many, others).tolist() == [False] * 9 + [True]


@pytest.mark.parametrize("seed", range(3))
def test_labels_drawn_anew_are_told_from_classes_that_overlap(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = cases.heaps(seed, rows=400)
    loss = nn.CrossEntropyLoss()
    drawn = np.where(rng.uniform(size=400) < 0.5, rng.integers(4, size=400), y)
    asked = task_of(y, loss)
    assert list(data_rules.labels_drawn_anew(predictors(drawn, x.astype(F32), loss), asked))
    wide = x + rng.normal(0, 0.9, x.shape)  # the heaps flow into one another
    assert not list(data_rules.labels_drawn_anew(predictors(y, wide.astype(F32), loss), asked))


# --- looks, trials, and the judge --------------------------------------------------------------


def test_a_look_finds_dead_and_saturated_units_and_the_gradient() -> None:
    model = nn.Sequential(
        nn.Linear(4, 8, bias_init=nn.init.constant(-50.0)), nn.ReLU(),
        nn.Linear(8, 8, bias_init=nn.init.constant(20.0)), nn.Sigmoid(), nn.Linear(8, 3), rng=0,
    )  # fmt: skip
    probe = look(model, nn.CrossEntropyLoss(), Data((X,), LABELS))
    found = {layer.path: layer for layer in probe.layers}
    assert found["1"].zero_units == 1
    assert found["3"].saturation > 0.999
    assert found["4"].weight_gradient > 0
    assert found["0"].weight_gradient == 0
    assert probe.finite


def test_a_logit_that_died_behind_a_relu_is_told() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), rng=0)
    model[0].bias.data[:] = (9, 9, 9)
    alive = look(model, nn.CrossEntropyLoss(), Data((X,), LABELS))
    assert not list(running_rules.dead_logits(alive, LABELS, model[1]))
    model[0].bias.data[:] = (9, -99, 9)
    dead = look(model, nn.CrossEntropyLoss(), Data((X,), LABELS))
    (verdict,) = running_rules.dead_logits(dead, LABELS, model[1])
    assert verdict.kind == "output_mismatch"
    assert verdict.evidence["class"] == 1
    assert not list(running_rules.dead_logits(dead, np.where(LABELS == 1, 0, LABELS), model[1]))
    assert not list(running_rules.dead_logits(dead, LABELS, None))


@pytest.mark.parametrize("value", [0.0, -3.0])
def test_a_constant_output_answers_as_one_answer_for_all_rows(value: float) -> None:
    asked = task_of(LABELS, nn.CrossEntropyLoss())
    same = answers(np.full((40, 3), value), asked, nn.CrossEntropyLoss())
    assert error(same, LABELS, asked) >= 1


def trials_of(program: Program) -> Trials:
    dtype = program.optimizer.flat.dtype
    y = program.y if program.loss.takes_labels else program.y.astype(dtype)
    data = Data((np.asarray(program.X, dtype),), y)
    return Trials(program, Rows(data, None), task_of(y, program.loss))


def test_a_trial_without_a_change_is_the_training_as_told() -> None:
    program = cases.plain_descent(0)
    told = program.copy().train()
    trials = trials_of(program)
    for _ in range(2):
        assert trials.run().losses == tuple(told.history["loss"])
        trials.run(SetLearningRate(5.0))


CHANGES = [
    ScaleInputs(),
    ScaleTargets(),
    SetLearningRate(0.02),
    Epochs(9),
    Clip(0.01),
    Reinitialise(),
    ReplaceActivation("ReLU"),
    UseOptimizer("RMSprop", 0.002),
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: type(change).__name__)
def test_a_trial_trains_what_the_changed_program_trains(change: Any) -> None:
    from minidl.diagnosis.remedies.apply import apply

    program = cases.fit_numbers(0, cases.net(0, 3, 8, 1), cases.curve(0, rows=64), 5, 0.01)
    trials = trials_of(program)
    trials.run(SetLearningRate(1.0))  # leaves nothing behind
    outcome = trials.run(change)
    changed = apply(program.copy(), [change])
    trainer = changed.train()
    expected = error(
        answers(trainer.predict(program.X), Task("numbers"), nn.MSELoss()),
        program.y,
        Task("numbers"),
    )
    assert outcome.error == pytest.approx(expected, rel=2e-2, abs=1e-3)
    assert len(outcome.losses) == changed.epochs


def test_what_cannot_be_changed_is_no_outcome() -> None:
    program = cases.fit_numbers(0, cases.net(0, 3, 1), cases.curve(0), 5, 0.01)
    outcome = trials_of(program).run(ReplaceActivation("ReLU"))
    assert not outcome.finite
    assert score(outcome) > 1


def test_of_changes_of_one_kind_the_last_one_stands() -> None:
    last_change_stands(vars(reach))


def last_change_stands(space: dict[str, Any]) -> None:
    merged = space["merged"]
    rate, adam = SetLearningRate(0.1), UseOptimizer("Adam", 0.01)
    assert merged(rate, ScaleInputs(), adam) == (ScaleInputs(), adam)
    assert merged(ReplaceHead("", None), ReplaceHead(None, "MSELoss")) == (
        ReplaceHead("", "MSELoss"),
    )


def test_a_part_that_helps_is_credited_with_what_the_whole_does() -> None:
    parts_are_credited(vars(causes))


def parts_are_credited(space: dict[str, Any]) -> None:
    credited = space["credited"]
    weights = Suspicion("bad_initialization", ((Reinitialise(),),), "")
    units = Suspicion("dead_units", ((ReplaceActivation("LeakyReLU"), Reinitialise()),), "")
    whole = Cause(units, units.changes[0], 0.95)
    first, second = credited([Cause(weights, weights.changes[0], 0.5), whole])
    assert (first.kind, first.share, first.change) == ("bad_initialization", 0.95, whole.change)
    assert second is whole
    (alone, _) = credited([Cause(weights, weights.changes[0], 0.1), whole])
    assert alone.share == 0.1


def test_a_training_near_the_best_is_not_far_whatever_is_suspected() -> None:
    program = cases.plain_descent(0)
    trials = trials_of(program)
    trained = Outcome((), 0.0)
    found = Judge(trials, (), Clock(10.0), trained)
    found.suspicions = [Suspicion("unscaled_inputs", ((ScaleInputs(),),), "", strength=5.0)]
    found.reach()
    assert not found.far


def test_what_goes_all_of_the_way_stands_before_what_goes_two_thirds() -> None:
    scales, rate = (
        Suspicion(kind, (), "") for kind in ("unscaled_inputs", "learning_rate_too_high")
    )
    half, most, whole = Cause(scales, (), 0.66), Cause(scales, (), 0.85), Cause(rate, (), 1.0)
    assert causes.foremost([half, whole]) is whole
    assert causes.foremost([most, whole]) is most
    assert causes.foremost([half, replace(whole, share=0.85)]) is half


def test_a_scale_stands_before_the_rate_that_is_too_low_for_it() -> None:
    scale = Suspicion("unscaled_targets", (), "", strength=2.0)
    low, high = (Suspicion(f"learning_rate_too_{how}", (), "") for how in ("low", "high"))
    first = Cause(scale, (), 0.76)
    assert causes.foremost([first, Cause(low, (), 1.0)]) is first
    assert causes.foremost([first, Cause(high, (), 1.0)]).kind == "learning_rate_too_high"
    mild = replace(first, suspicion=replace(scale, strength=0.5))
    assert causes.foremost([mild, Cause(low, (), 1.0)]).kind == "learning_rate_too_low"


def test_a_training_that_has_learned_its_rows_is_well_whatever_its_trial_came_to() -> None:
    trials = trials_of(cases.rate_too_low(0))
    first = replace(trials.run(), held=0.9, held_curve=((1, 0.9, 0.9),))
    assert first.error > 0.5
    trials._known[frozenset()] = first
    told = Judge(trials, (), Clock(0), replace(first, error=0.01)).told
    assert told.error == 0.01
    assert told.held == pytest.approx(max(first.held - first.error + 0.01, 0))
    assert Judge(trials, (), Clock(0), first).told.error == first.error


@pytest.mark.parametrize(("given", "named"), [(False, False), (True, True)])
def test_learning_by_heart_is_a_fault_where_rows_to_validate_on_were_given(
    given: bool, named: bool
) -> None:
    trials = trials_of(cases.plain_descent(0))
    trials.rows = replace(trials.rows, whole=None if given else trials.rows.trained)
    trials.task = Task("labels", 4)
    judge = Judge(trials, (), Clock(1e9), trials.run())
    judge.told = replace(judge.told, error=0.0, held=0.5)
    judge.suspicions = [Suspicion("overfitting", ((WeightDecay(0.1),),), "by heart")]
    judge.attempt = lambda *actions: replace(judge.told, held=0.2)  # type: ignore[method-assign]
    judge.noise = lambda *errors: 0.1  # type: ignore[method-assign]
    assert bool(list(judge.overfitting())) == named


def test_constant_columns_are_divided_by_one() -> None:
    mean, deviation = moments(np.array([[1.0, 5.0], [3.0, 5.0]]))
    assert mean.tolist() == [2, 5]
    assert deviation.tolist() == [1, 1]
    _, deviation = moments(1e-20 * np.array([[1.0, 5.0], [3.0, 5.0]]))
    assert deviation == pytest.approx(np.array([1e-20, 1]), rel=1e-6)
