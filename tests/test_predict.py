"""Trainer.predict and evaluate: from any thread, in any mode, whatever the data."""

from __future__ import annotations

import gc
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from stress import hammer, models
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
from minidl.training import Trainer
from minidl.training.prediction import EAGER_CALLS, MOST_SHAPES

# --- threads and modes ------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(models()))
def test_predict_and_evaluate_are_right_from_many_threads(name):
    """As `fit` leaves the model: a small sample of `make stress`."""
    assert hammer(name, models()[name], calls=400) == []


@pytest.mark.parametrize("record", [True, False])
def test_predict_and_evaluate_leave_modes_and_state_alone(record):
    trainer = classifier(record=record)
    fit(trainer)
    trainer.model[3].eval()
    before, modes = everything(trainer), [part.training for _, part in trainer.model.layers()]
    outputs = [trainer.predict(X) for _ in range(2 * EAGER_CALLS)]
    trainer.evaluate(X, LABELS)
    assert_same(everything(trainer), before)
    assert [part.training for _, part in trainer.model.layers()] == modes
    assert all(np.array_equal(output, outputs[0]) for output in outputs)
    trainer.model.eval()
    assert np.array_equal(trainer.model(X), outputs[0])


def test_training_in_one_thread_and_predicting_in_another():
    trained, alone = classifier(), classifier()
    others, x = [classifier(seed) for seed in (1, 2)], X[:1]
    expected = [other.predict(x) for other in others]
    with ThreadPoolExecutor(3) as threads:
        training = threads.submit(fit, trained, 200)
        predicted = [
            threads.submit(lambda t: [t.predict(x) for _ in range(500)], other) for other in others
        ]
        for outputs, right in zip(predicted, expected, strict=True):
            assert all(np.array_equal(output, right) for output in outputs.result())
    assert dict(training.result()) == dict(fit(alone, 200))


# --- the recorded forward pass ----------------------------------------------------------------


@compiled
def test_a_shape_that_comes_often_is_recorded_and_gives_the_same_bits():
    recorded, eager = classifier(), classifier(record=False)
    for rows in (1, 7, 50):
        for _ in range(EAGER_CALLS + 2):
            assert np.array_equal(recorded.predict(X[:rows]), eager.predict(X[:rows]))
    assert recorded._predictor._step.programs == 3
    assert eager._predictor._step.programs == 0
    fit(recorded), fit(eager)  # what is recorded reads the weights of now
    assert np.array_equal(recorded.predict(X[:7]), eager.predict(X[:7]))
    assert recorded._predictor._step.programs == 3


@compiled
def test_fit_and_predict_in_turn_record_nothing_anew():
    trainer = classifier()
    for _ in range(EAGER_CALLS + 2):
        fit(trainer, epochs=1, validation=(X, LABELS))
        trainer.predict(X[:3])
    steps = trainer._step.recorded.step, trainer._predictor._step
    programs = [list(step._programs.values()) for step in steps]
    for _ in range(3):
        fit(trainer, epochs=1, validation=(X, LABELS))
        trainer.predict(X[:3])
    assert [list(step._programs.values()) for step in steps] == programs
    assert [len(each) for each in programs] == [2, 2]


@compiled
def test_many_shapes_are_not_recorded_without_end():
    trainer = classifier()
    for rows in range(1, 3 * MOST_SHAPES):
        for _ in range(EAGER_CALLS + 1):
            trainer.predict(np.resize(X, (rows, 4)))
    assert 0 < trainer._predictor._step.programs <= MOST_SHAPES


@compiled
@pytest.mark.filterwarnings("error")
def test_a_model_that_cannot_be_recorded_predicts_eagerly():
    class Doubled(nn.Layer):
        def forward(self, x):
            return x * np.float32(2)

        def backward(self, dy):
            return dy * np.float32(2)

    model = nn.Sequential(nn.Linear(4, 2, rng=0), Doubled())
    trainer = Trainer(model, nn.MSELoss(), optim.SGD(model.parameters()))
    for _ in range(2 * EAGER_CALLS):
        assert np.array_equal(trainer.predict(X), 2 * model[0](X))


def test_predictions_follow_what_is_replaced():
    trainer = classifier()
    for _ in range(EAGER_CALLS + 2):
        trainer.predict(X)
    trainer.model[1].running_mean = np.full(16, 0.5, np.float32)
    for _ in range(2 * EAGER_CALLS):
        assert np.array_equal(trainer.predict(X), classifier_with_mean().predict(X))
    trainer.model = regressor().model
    assert trainer.predict(X).shape == (50, 2)


def classifier_with_mean():
    trainer = classifier(record=False)
    trainer.model[1].running_mean[...] = 0.5
    return trainer


def test_predictions_belong_to_the_caller():
    trainer = classifier()
    first = trainer.predict(X).copy()
    outputs = [trainer.predict(X) for _ in range(2 * EAGER_CALLS)]
    assert all(np.array_equal(output, first) for output in outputs)
    outputs[-1][...] = 0
    assert np.array_equal(trainer.predict(X), first)


def test_a_model_that_returns_its_input_returns_a_copy():
    model = nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.5))
    linear = nn.Linear(4, 4)
    trainer = Trainer(linear, nn.MSELoss(), optim.SGD(linear.parameters()))
    trainer.model = model
    for _ in range(2 * EAGER_CALLS):
        output = trainer.predict(X)
        assert np.array_equal(output, X)
        assert not np.shares_memory(output, X)


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.parametrize("calls", [0, 2 * EAGER_CALLS])
def test_predict_refuses_what_fit_refuses(value, calls):
    trainer = classifier()
    for _ in range(calls):
        trainer.predict(X)
    x = X.astype(np.float64) if value == 1e300 else X.copy()
    x[17, 2] = value
    with pytest.raises(ValueError, match=r"X: row 17 holds -?(nan|inf) at \(2,\)"):
        trainer.predict(x)
    x[17, 2] = 3e38  # whose square is beyond float32
    assert np.isfinite(trainer.predict(x)[:17]).all()


@pytest.mark.parametrize("size", [0, -1, 1.5, "3", None, True])
def test_batch_sizes_are_counts(size):
    trainer = classifier()
    error = ValueError if size in (0, -1) else TypeError
    for _ in range(2 * EAGER_CALLS):
        trainer.predict(X)
    with pytest.raises(error, match="predict: batch_size must be"):
        trainer.predict(X, size)


def test_rows_are_named_as_they_were_given():
    """Whatever the batch they are in, and whatever rows of weight zero are left out before."""
    trainer, x, y = classifier(), X.copy(), LABELS.copy()
    x[40, 1] = np.nan
    for use in (lambda: trainer.predict(x, 16), lambda: trainer.evaluate(x, y, 16)):
        with pytest.raises(ValueError, match=r"X: row 40 holds nan at \(1,\)"):
            use()
    weight = (np.arange(50) % 3 == 1).astype(float)
    with pytest.raises(ValueError, match=r"X: row 40 holds nan"):
        trainer.evaluate(x, y, 4, sample_weight=weight)
    values = VALUES.copy()
    values[33, 0] = np.inf
    with pytest.raises(ValueError, match=r"y: row 33 holds inf"):
        regressor().evaluate(X, values, 16)


# --- memory -----------------------------------------------------------------------------------


@pytest.mark.parametrize("use", ["predict", "evaluate"])
def test_data_of_another_dtype_is_cast_a_batch_at_a_time(use):
    x = np.zeros((20_000, 100))
    model = nn.Linear(100, 1, rng=0)
    trainer = Trainer(model, nn.MSELoss(), optim.SGD(model.parameters()))
    targets = np.zeros((20_000, 1))
    calls = {
        "predict": lambda: trainer.predict(x, 100),
        "evaluate": lambda: trainer.evaluate(x, targets, 100),
    }
    calls[use]()
    gc.collect()
    tracemalloc.start()
    calls[use]()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < x.nbytes / 16  # a float32 copy of all would be a half


class Counted(nn.ReLU):
    """Keeps how many rows came at a time."""

    def forward(self, x):
        self.rows = [*getattr(self, "rows", []), len(x)]
        return super().forward(x)


def test_images_are_predicted_in_parts_that_fit_into_memory(monkeypatch):
    """What the layers give for the rows of one call stays below a limit, whatever batch_size is."""
    monkeypatch.setattr("minidl.training.prediction.LARGEST_CALL", 200_000)
    counted = Counted()
    layers = nn.Conv2d(1, 4, 3, padding=1), counted, nn.Flatten(), nn.Linear(144, 3)
    model = nn.Sequential(*layers, rng=0)
    trainer = Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters()), record=False)
    x = np.random.default_rng(0).normal(size=(100, 6, 6, 1)).astype(np.float32)
    logits = trainer.predict(x)
    # 144 + 144 + 144 + 3 numbers of 4 bytes for each row: 114 rows, and the power of two below
    assert counted.rows == [64, 36]
    np.testing.assert_allclose(logits, model.eval()(x), rtol=1e-5, atol=1e-6)
    y = np.arange(100) % 3
    loss = trainer.evaluate(x, y)["loss"]
    assert counted.rows[-2:] == [64, 36]
    assert loss == pytest.approx(nn.CrossEntropyLoss()(logits, y), rel=1e-5)


def test_a_layer_that_does_not_know_shapes_predicts():
    class Lost(nn.ReLU):
        def output_shape(self, input_shape):
            if input_shape == ("batch", 3):
                raise IndexError
            return input_shape

    model = nn.Sequential(nn.Linear(2, 3), Lost(), rng=0)
    trainer = Trainer(model, nn.MSELoss(), optim.SGD(model.parameters()))
    assert trainer.predict(np.ones((5, 2), np.float32)).shape == (5, 3)


@pytest.mark.parametrize("batch_size", [2, 5])
def test_outputs_within_outputs_come_as_the_model_gives_them(batch_size):
    inner = nn.Parallel(nn.Linear(3, 4), nn.Linear(3, 4), join=None)
    model = nn.Sequential(nn.Parallel(inner, nn.Linear(3, 2), join=None), rng=0)
    trainer = Trainer(model, nn.MSELoss(), optim.SGD(model.parameters()))
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    (a, b), c = model(x)
    for _ in range(1 + EAGER_CALLS):
        (first, second), third = trainer.predict(x, batch_size)
        for found, expected in zip((first, second, third), (a, b, c), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
