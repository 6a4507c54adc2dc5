"""The Trainer: what it computes."""

from __future__ import annotations

import copy
import pickle
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

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

import minidl
from minidl import datasets, nn, optim
from minidl.nn.hooks import evaluating
from minidl.training import Trainer, batches

# --- batches ----------------------------------------------------------------------------


def test_batches_hold_every_row_once_in_another_order_every_time():
    rng = np.random.default_rng(3)
    rows = np.arange(50)
    orders = []
    for _ in range(2):
        pieces = list(batches(X, rows, 16, rng))
        assert [len(y) for _, y in pieces] == [16, 16, 16, 2]
        assert all(np.array_equal(x, X[y]) for x, y in pieces)
        orders.append(np.concatenate([y for _, y in pieces]))
    assert np.array_equal(np.sort(orders[0]), rows)
    assert not np.array_equal(*orders)


def test_batches_are_repeatable_and_can_keep_the_order():
    first, second = (np.concatenate([y for _, y in batches(X, LABELS, 7, 5)]) for _ in range(2))
    assert np.array_equal(first, second)
    unshuffled = list(batches(X, LABELS, 60, shuffle=False))
    assert len(unshuffled) == 1
    assert np.shares_memory(unshuffled[0][0], X)


@pytest.mark.parametrize(
    ("x", "y", "size", "words"),
    [
        (X, LABELS[:-1], 8, "X has 50 rows, y has 49"),
        (X[:0], LABELS[:0], 8, "X is empty"),
        (X, LABELS, 0, "batch_size"),
        (X, LABELS, -3, "batch_size"),
    ],
)
def test_batches_complain_at_the_call(x, y, size, words):
    with pytest.raises(ValueError, match=words):
        batches(x, y, size)
    for number in (2.5, True):
        with pytest.raises(TypeError, match="batches: batch_size must be a whole number"):
            batches(X, LABELS, number)


# --- what fit computes ------------------------------------------------------------------


def test_fit_is_the_loop_one_would_write():
    trainer, by_hand = regressor(), regressor()
    history = fit(trainer, epochs=2)
    rng, losses = np.random.default_rng(0), []
    for _ in range(2):
        total = 0.0
        for x, y in batches(X, VALUES, 16, rng):
            total += float(by_hand.loss(by_hand.model(x), y)) * len(x)
            by_hand.optimizer.zero_grad()
            by_hand.model.backward(by_hand.loss.backward())
            by_hand.optimizer.step()
        losses.append(total / len(X))
    assert history["loss"] == losses
    assert_same(everything(trainer), everything(by_hand))


def test_fit_learns():
    trainer = classifier()
    history = fit(trainer, epochs=60)
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    assert trainer.evaluate(X, LABELS)["accuracy"] > 0.9


def test_fit_goes_on_where_it_stopped():
    once, twice = classifier(), classifier()
    whole = fit(once, epochs=5)
    parts = [fit(twice, epochs=3), fit(twice, epochs=2)]
    assert whole["loss"] == parts[0]["loss"] + parts[1]["loss"]
    assert whole["accuracy"] == parts[0]["accuracy"] + parts[1]["accuracy"]
    assert_same(everything(once), everything(twice))


def test_validation_changes_nothing_but_the_history():
    plain, watched = classifier(), classifier()
    fit(plain)
    history = fit(watched, validation=(X[:20], LABELS[:20]))
    assert_same(everything(plain), everything(watched))
    assert list(history) == ["loss", "accuracy", "val_loss", "val_accuracy"]
    scores = watched.evaluate(X[:20], LABELS[:20])
    assert {f"val_{name}": value for name, value in scores.items()} == {
        name: history[name][-1] for name in ("val_loss", "val_accuracy")
    }


def test_evaluate_and_predict_do_not_depend_on_the_batch_size():
    trainer = classifier(dtype=np.float64)
    fit(trainer)
    whole = trainer.evaluate(X, LABELS)
    assert trainer.predict(X).shape == (50, 3)
    for size in (1, 7, 50):
        assert trainer.evaluate(X, LABELS, size) == pytest.approx(whole, rel=1e-12)
        np.testing.assert_allclose(trainer.predict(X, size), trainer.predict(X), rtol=1e-12)
    assert whole["accuracy"] == np.mean(trainer.predict(X).argmax(axis=1) == LABELS)


def test_layers_train_in_their_own_modes_and_evaluate_without_leaving_them():
    trainer = classifier(record=False)  # a recorded step calls forward once
    seen = []
    trainer.model[0].forward = lambda x: (
        seen.append([layer.training for layer in trainer.model.stack[1:4:2]])
        or nn.Linear.forward(trainer.model[0], x)
    )
    trainer.model[3].eval()
    modes = [layer.training for _, layer in trainer.model.layers()]
    fit(trainer, epochs=1, validation=(X, LABELS))
    trainer.predict(X)
    # Two looks at one row, one more as a batch, four steps, validation, prediction.
    steps = [[True, False]] * (len(seen) - 4)
    assert seen == [[False, False]] * 2 + steps + [[False, False]] * 2
    assert [layer.training for _, layer in trainer.model.layers()] == modes


@pytest.mark.parametrize("record", [True, False])
def test_a_body_in_evaluation_stays_as_it_is(record):
    """Running statistics do not move and dropout is off, in recorded and eager steps."""
    trainer = classifier(record=record)
    body = nn.Sequential(*trainer.model.stack[:5]).freeze().eval()
    model = nn.Sequential(body, nn.Linear(16, 3, rng=1))
    head = Trainer(
        model, nn.CrossEntropyLoss(), optim.SGD(model.parameters()), rng=0, record=record
    )
    before, modes = body(X), [layer.training for _, layer in model.layers()]
    fit(head, epochs=2)
    assert np.array_equal(body(X), before)
    assert [layer.training for _, layer in model.layers()] == modes
    linear = nn.Linear(16, 3, rng=1)  # trained on what the body makes of the rows
    alone = Trainer(linear, nn.CrossEntropyLoss(), optim.SGD(linear.parameters()), rng=0)
    alone.fit(before, LABELS, 2, 16, progress=False)
    np.testing.assert_allclose(model[1].weight.data, linear.weight.data, rtol=1e-5)


def test_training_a_model_that_is_in_evaluation_as_a_whole_warns():
    trainer = classifier()
    trainer.model.eval()
    with pytest.warns(minidl.TrainingWarning, match=r"model\.train\(\) before fit"):
        fit(trainer)
    trainer.model.train()
    with warnings.catch_warnings(action="error"):
        fit(trainer)
        trainer.model[1].eval()
        fit(trainer)


@pytest.mark.parametrize("record", [True, False])
def test_a_frozen_batch_norm_stays_as_it_is(record):
    trainer = classifier(record=record)
    trainer.model[1].freeze()
    trainer.optimizer = optim.SGD(trainer.model.parameters())
    state = trainer.model[1].state()
    before = {name: array.copy() for name, array in state.items()}
    fit(trainer, epochs=2)
    assert_same(trainer.model[1].state(), before)
    x = np.ones((1, 16), np.float32)  # one row has no variance, and needs none
    assert np.array_equal(trainer.model[1](x), trainer.model[1].eval()(x))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_loss_of_an_epoch_respects_the_reduction(reduction):
    trainer = regressor(loss=nn.MSELoss(reduction), lr=0.0)
    expected = float(trainer.loss(trainer.model(X), VALUES))
    assert fit(trainer, epochs=1)["loss"] == pytest.approx([expected], rel=1e-5)
    assert trainer.evaluate(X, VALUES, 7)["loss"] == pytest.approx(expected, rel=1e-5)


def test_evaluating_is_of_this_thread_nests_and_touches_no_mode():
    model, x = classifier().model, X[:5]
    evaluated = model.eval()(x)
    for _, layer in model.train().layers():
        layer.forget()
    state = {name: array.copy() for name, array in model.state().items()}
    with ThreadPoolExecutor(1) as other, evaluating():
        with evaluating():
            assert np.array_equal(model(x), evaluated)
        assert not any(layer.training for _, layer in model.layers())
        assert other.submit(lambda: model.training).result()
        assert all(vars(layer).get("_saved") is None for _, layer in model.layers())
        model[1].eval()
    assert [layer.training for _, layer in model.layers()].count(False) == 1
    assert_same(model.state(), state)


@compiled
def test_a_recorded_step_tells_evaluation_from_training():
    model = classifier().model
    step = minidl.record(lambda x: model(x), copy=True)
    trained = step(X)
    with evaluating():
        evaluated = step(X)
        assert np.array_equal(evaluated, model(X))
    assert not np.array_equal(trained, evaluated)
    model.eval()
    assert np.array_equal(step(X), model(X))
    model.train()
    moved = model[1].running_mean.copy()
    step(X)
    assert not np.array_equal(model[1].running_mean, moved)
    assert step.programs == 2


def test_metrics_see_the_whole_data_set_at_once():
    def largest_error(prediction, target):
        assert len(prediction) == len(target) == 50
        return np.abs(prediction - target).max()

    model = nn.Sequential(nn.Linear(4, 2), rng=0)
    trainer = Trainer(
        model, nn.MSELoss(), optim.SGD(model.parameters(), lr=0.0), metrics=[largest_error], rng=0
    )
    history = fit(trainer, epochs=1)
    assert history["largest_error"] == pytest.approx([np.abs(model(X) - VALUES).max()], rel=1e-6)
    assert list(history) == ["loss", "largest_error"]


def test_training_is_tight():
    x_train, y_train, *_ = datasets.digits()
    model = nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10), rng=0
    )
    trainer = Trainer(model, nn.CrossEntropyLoss(), optim.Adam(model.parameters()), rng=0)
    started = time.perf_counter()
    history = trainer.fit(x_train, y_train, epochs=20, batch_size=32, progress=False)
    assert time.perf_counter() - started < 5
    assert history["accuracy"][-1] > 0.98


def test_two_trainings_at_once_are_the_same_two_one_after_the_other():
    def train(seed):
        trainer = classifier(seed)
        history = fit(trainer, epochs=100, validation=(X, LABELS))
        return everything(trainer), dict(history)

    alone = [train(seed) for seed in (1, 2)]
    with ThreadPoolExecutor(2) as threads:
        together = list(threads.map(train, (1, 2)))
    for (parts, history), (same_parts, same_history) in zip(alone, together, strict=True):
        assert history == same_history
        assert_same(parts, same_parts)


# --- copies -----------------------------------------------------------------------------


def pickled(thing):
    return pickle.loads(pickle.dumps(thing))


@pytest.mark.parametrize("clone", [copy.deepcopy, pickled])
def test_a_copied_trainer_trains_the_copy_to_the_same_bits(clone):
    original = classifier()
    fit(original, epochs=1)
    copied, before = clone(original), everything(original)
    history = fit(copied, epochs=2)
    assert_same(before, everything(original))
    assert original.history.epochs == 1
    assert dict(history) == dict(fit(original, epochs=2))
    assert_same(everything(copied), everything(original))


@pytest.mark.parametrize("clone", [copy.deepcopy, pickled])
def test_model_and_optimizer_copied_together_stay_together(clone):
    original = classifier()
    fit(original, epochs=1)
    before = everything(original)
    model, optimizer, rng = clone((original.model, original.optimizer, original.rng))
    copied = Trainer(model, nn.CrossEntropyLoss(), optimizer, rng=rng)
    fit(copied, epochs=2)
    assert_same(before, everything(original))
    fit(original, epochs=2)
    assert_same(everything(copied), everything(original))


# --- input that is cast -----------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "as_input",
    [
        lambda x: x.astype(np.float64),
        lambda x: x.astype(np.int16),
        lambda x: x > 0,
        lambda x: x.tolist(),
        np.asfortranarray,
        lambda x: x[::-1],
        lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    ],
)
def test_features_and_targets_of_any_real_type_are_cast(dtype, as_input):
    given, reference = as_input(X), np.ascontiguousarray(as_input(X), dtype=dtype)
    first, second = classifier(dtype=dtype), classifier(dtype=dtype)
    history = first.fit(given, LABELS.astype(np.int8), 1, 16, progress=False)
    assert history["loss"] == second.fit(reference, LABELS, 1, 16, progress=False)["loss"]
    assert_same(everything(first), everything(second))
    assert first.predict(given).dtype == dtype
    assert first.evaluate(given, LABELS.tolist()) == second.evaluate(reference, LABELS)


def test_targets_of_regression_are_cast():
    first, second = regressor(), regressor()
    first.fit(X, VALUES.astype(np.float64).tolist(), 1, progress=False)
    second.fit(X, VALUES, 1, progress=False)
    assert_same(everything(first), everything(second))


def test_the_data_are_not_changed():
    data = [X.copy(), LABELS.copy()]
    for array in data:
        array.flags.writeable = False
    classifier().fit(*data, 2, progress=False)


def test_a_loss_without_reduction_is_refused():
    with pytest.raises(ValueError, match=r"MSELoss\(reduction='none'\).*one number.*\"mean\""):
        regressor(loss=nn.MSELoss("none"))
    trainer = classifier()
    trainer.loss = nn.CrossEntropyLoss("none")
    with pytest.raises(ValueError, match=r"CrossEntropyLoss\(reduction='none'\).*one number"):
        fit(trainer, epochs=1)


def test_a_model_put_in_the_place_of_another_needs_an_optimizer_of_its_own():
    trainer = classifier()
    fit(trainer, epochs=1)
    trainer.model = nn.Linear(4, 3, rng=0)
    with pytest.raises(ValueError, match="the optimizer holds parameters that are not the model's"):
        fit(trainer, epochs=1)
    trainer.optimizer = optim.SGD(trainer.model.parameters(), lr=0.1)
    assert fit(trainer, epochs=1).epochs == 1
