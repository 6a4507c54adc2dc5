"""The Trainer: weights of samples and classes, accumulated gradients, penalties, going on."""

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
from minidl.training import Callback, Trainer, batches, epoch
from minidl.training.weights import class_weights

both = pytest.mark.parametrize("record", [True, False])
WEIGHTS = np.random.default_rng(4).uniform(0.1, 3, 50)


def plain(loss, record=True, lr=0.1, dtype=np.float64, **options):
    """A net without state, trained by plain gradient descent."""
    outputs = 3 if loss.takes_labels else 2
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, outputs), rng=0).astype(dtype)
    optimizer = optim.SGD(model.parameters(), lr=lr)
    return Trainer(model, loss, optimizer, rng=0, record=record, **options)


# --- weights ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "loss", [nn.CrossEntropyLoss, nn.MSELoss, lambda: nn.CrossEntropyLoss("sum", [1, 2, 3])]
)
def test_weighted_epochs_are_the_loop_one_would_write(loss, dtype):
    trainers = [plain(loss(), record, dtype=dtype) for record in (True, False)]
    by_hand = plain(loss(), dtype=dtype)
    y = LABELS if by_hand.loss.takes_labels else VALUES
    histories = [
        t.fit(X, y, 3, 16, progress=False, sample_weight=WEIGHTS.tolist()) for t in trainers
    ]
    rng, losses = np.random.default_rng(0), []
    weights, x = WEIGHTS.astype(dtype), X.astype(dtype)
    targets = y if by_hand.loss.takes_labels else y.astype(dtype)
    for _ in range(3):
        values, shares = [], []
        for _, rows in batches(x, np.arange(50), 16, rng):
            batch = targets[rows], weights[rows]
            values.append(float(by_hand.loss(by_hand.model(x[rows]), *batch)))
            shares.append(batch[1].sum(dtype=np.float64))
            by_hand.optimizer.zero_grad()
            by_hand.model.backward(by_hand.loss.backward())
            by_hand.optimizer.step()
        mean = by_hand.loss.reduction == "mean"
        losses.append(np.average(values, weights=shares) if mean else np.sum(values))
    for trainer, history in zip(trainers, histories, strict=True):
        assert_same(everything(trainer), everything(by_hand))
        assert history["loss"] == pytest.approx(losses, rel=1e-6)
    assert dict(histories[0]) == dict(histories[1])


@compiled
@pytest.mark.parametrize("class_weight", ["balanced", {0: 0.5, np.int64(2): 3.0}])
def test_recorded_and_eager_weights_are_the_same_to_the_bit(class_weight):
    """With batch norm, dropout, Adam and clipping."""
    options = {"sample_weight": WEIGHTS, "class_weight": class_weight}
    options["validation"] = X[:20], LABELS[:20], WEIGHTS[:20]
    recorded, eager = classifier(), classifier(record=False)
    assert dict(fit(recorded, **options)) == dict(fit(eager, **options))
    assert_same(everything(recorded), everything(eager))
    assert recorded._step.recorded.step.programs == 2


@both
@pytest.mark.parametrize("how", ["balanced", "mapping"])
def test_class_weights_are_weights_of_rows_by_label(record, how):
    counts = np.bincount(LABELS)
    of_label = 50 / (3 * counts) if how == "balanced" else np.array([1.0, 0.25, 4.0])
    by_class, by_row = (plain(nn.CrossEntropyLoss(), record) for _ in range(2))
    mapping = "balanced" if how == "balanced" else {1: 0.25, 2: 4.0}
    fit(by_class, class_weight=mapping)
    fit(by_row, sample_weight=of_label[LABELS])
    assert_same(everything(by_class), everything(by_row))
    if how == "mapping":  # and the same as those of the loss
        by_loss = plain(nn.CrossEntropyLoss(class_weight=of_label), record)
        fit(by_loss)
        for name, values in everything(by_loss).items():
            np.testing.assert_allclose(values, everything(by_row)[name], rtol=1e-10)


def test_balanced_is_that_of_scikit_learn():
    weights = pytest.importorskip("sklearn.utils.class_weight")
    first, second = plain(nn.CrossEntropyLoss()), plain(nn.CrossEntropyLoss())
    fit(first, class_weight="balanced")
    fit(second, sample_weight=weights.compute_sample_weight("balanced", LABELS))
    assert_same(everything(first), everything(second))


@both
def test_balanced_counts_rows_by_their_weights(record):
    weights = WEIGHTS * (np.arange(50) % 3 > 0)
    made, by_row = plain(nn.CrossEntropyLoss(), record), plain(nn.CrossEntropyLoss(), record)
    fit(made, class_weight="balanced", sample_weight=weights)
    totals = np.bincount(LABELS, weights)
    balanced = weights * (totals.sum() / (3 * totals))[LABELS]
    np.testing.assert_allclose(np.bincount(LABELS, balanced), totals.sum() / 3)
    fit(by_row, sample_weight=balanced)
    assert_same(everything(made), everything(by_row))


def test_balanced_leaves_out_classes_without_weight():
    """Ten rows of each class, eight of class 0 without weight: both classes count the same."""
    labels = np.repeat([0, 1], 10)
    weights = (np.arange(20) >= 8).astype(float)
    balanced = class_weights("balanced", labels, 3, weights) * weights
    np.testing.assert_allclose(np.bincount(labels, balanced), [6, 6])
    weights[:10] = 0  # then class 1 is all there is
    balanced = class_weights("balanced", labels, 3, weights) * weights
    np.testing.assert_allclose(np.bincount(labels, balanced), [0, 10])


@both
def test_weights_of_classes_without_rows_change_nothing(record):
    made, other = plain(nn.CrossEntropyLoss(), record), plain(nn.CrossEntropyLoss(), record)
    rows = LABELS > 0
    options = {"epochs": 2, "batch_size": 16, "progress": False}
    made.fit(X[rows], LABELS[rows], class_weight={0: 7.0, 1: 2.0}, **options)
    other.fit(X[rows], LABELS[rows], class_weight={1: 2.0}, **options)
    assert_same(everything(made), everything(other))


# --- one logit ------------------------------------------------------------------------------


def binary(record=True, metrics=("accuracy",), loss=None, outputs=1):
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, outputs), rng=0)
    model.astype(np.float64)
    optimizer = optim.SGD(model.parameters(), lr=0.5)
    return Trainer(model, loss or nn.BCEWithLogitsLoss(), optimizer, metrics, 0, record)


POSITIVE = (X[:, 0] > 0.3).astype(np.int64)


@both
def test_one_logit_has_an_accuracy(record):
    made = binary(record)
    history = fit_binary(made, epochs=30, validation=(X, POSITIVE[:, None]))
    right = (made.predict(X)[:, 0] > 0) == (POSITIVE == 1)
    assert history["val_accuracy"][-1] == right.mean() > 0.8
    assert history["accuracy"][-1] > 0.8
    with pytest.raises(ValueError, match=r"accuracy needs .* \(50, 2\) and \(50, 2\)"):
        fit(regressor(metrics=["accuracy"]))
    words = r"y of shape \(50,\).*\(50, 1\).*write y\[:, None\]"
    with pytest.raises(ValueError, match=words):
        made.fit(X, POSITIVE, 1, progress=False)


@both
@pytest.mark.parametrize("how", ["balanced", "mapping"])
def test_one_logit_has_class_weights(record, how):
    counts = np.bincount(POSITIVE)
    of_class = 50 / (2 * counts) if how == "balanced" else np.array([1.0, 4.0])
    made, by_row = binary(record), binary(record)
    fit_binary(made, class_weight="balanced" if how == "balanced" else {1: 4.0})
    fit_binary(by_row, sample_weight=of_class[POSITIVE])
    assert_same(everything(made), everything(by_row))


def test_class_weights_need_one_label_a_row():
    with pytest.raises(ValueError, match=r"2 logits a row there is no one label; .*pos_weight"):
        binary(outputs=2).fit(X, np.ones((50, 2)), 1, class_weight="balanced", progress=False)
    with pytest.raises(ValueError, match=r"targets of 0 or 1, row 0 holds 0\.5"):
        binary().fit(X, np.full((50, 1), 0.5), 1, class_weight="balanced", progress=False)


def fit_binary(made, **options):
    settings = {"epochs": 2, "batch_size": 16, "progress": False, **options}
    return made.fit(X, POSITIVE[:, None], **settings)


# --- rows of weight zero --------------------------------------------------------------------


@both
def test_a_row_of_weight_zero_is_not_there(record):
    weights = WEIGHTS * (np.arange(50) % 5 > 0) * (np.arange(50) >= 20)  # whole batches of zero
    rows = np.flatnonzero(weights)
    with_zeros, without = classifier(record=record), classifier(record=record)
    first = fit(with_zeros, sample_weight=weights, validation=(X, LABELS, weights), batch_size=4)
    held_out = X[rows], LABELS[rows], weights[rows]
    second = without.fit(
        X[rows],
        LABELS[rows],
        2,
        4,
        sample_weight=weights[rows],
        validation=held_out,
        progress=False,
    )
    assert dict(first) == dict(second)
    assert_same(everything(with_zeros), everything(without))


@both
def test_a_class_of_weight_zero_is_not_there(record):
    """Sorted by label, whole batches of the validation are of it."""
    order = np.argsort(LABELS, kind="stable")
    x, y = X[order], LABELS[order]
    rows = y > 0
    loss = nn.CrossEntropyLoss(class_weight=[0, 1, 2])
    with_zeros, without = plain(loss, record), plain(loss, record)
    first = with_zeros.fit(x, y, 2, 4, (x, y), progress=False)
    second = without.fit(x[rows], y[rows], 2, 4, (x[rows], y[rows]), progress=False)
    assert dict(first) == dict(second)
    assert_same(everything(with_zeros), everything(without))
    none = without.evaluate(x, y, 4)
    assert none == without.evaluate(x[rows], y[rows], 4)
    with pytest.raises(ValueError, match=r"y: in CrossEntropyLoss.* no row counts"):
        without.fit(x[~rows], y[~rows], 1, progress=False)


@both
@pytest.mark.parametrize("options", [{}, {"class_weight": "balanced"}])
def test_an_ignored_row_is_not_there(record, options):
    """Sorted by label, whole batches are ignored; metrics leave them out."""
    order = np.argsort(LABELS, kind="stable")
    x, y = X[order], LABELS[order]
    rows = y > 0
    y = np.where(rows, y, -100)
    ignoring = nn.CrossEntropyLoss(ignore_index=-100)
    with_ignored, without = plain(ignoring, record), plain(nn.CrossEntropyLoss(), record)
    first = with_ignored.fit(x, y, 2, 4, (x, y), progress=False, **options)
    second = without.fit(x[rows], y[rows], 2, 4, (x[rows], y[rows]), progress=False, **options)
    assert first.keys() == second.keys()
    for name, column in first.items():
        np.testing.assert_allclose(column, second[name], rtol=1e-12)
    found, expected = (t.optimizer.flat.data for t in (with_ignored, without))
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-13)
    assert with_ignored.evaluate(x, y, 4) == pytest.approx(without.evaluate(x[rows], y[rows], 4))
    with pytest.raises(ValueError, match=r"y: label -100 in row 0"):
        without.evaluate(x, y)


@both
def test_ignored_steps_of_sequences_count_in_no_metric(record):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 5, 4)), rng.integers(3, size=(20, 5))
    y[rng.uniform(size=y.shape) < 0.4] = -1
    loss = nn.CrossEntropyLoss(ignore_index=-1)
    model = nn.Linear(4, 3, rng=0)
    trainer = Trainer(model, loss, optim.SGD(model.parameters(), lr=1e-12), rng=0, record=record)
    history = trainer.fit(x, y, 1, 8, (x, y), progress=False)
    expected = trainer.evaluate(x[y >= 0], y[y >= 0])
    for name, column in history.items():
        assert column[0] == pytest.approx(expected[name.removeprefix("val_")], rel=1e-6)


@both
@pytest.mark.parametrize("metrics", [["accuracy", "top_2"], [lambda p, t: float(t.size)]])
def test_steps_of_weight_zero_count_in_no_metric(record, metrics):
    """Padded sequences: those without padding, one by one, tell what there is to count."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 5, 4)), rng.integers(3, size=(20, 5))
    weight = (np.arange(5) < rng.integers(1, 6, (20, 1))).astype(float)
    model = nn.Linear(4, 3, rng=0)
    trainer = Trainer(
        model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=1e-12), metrics, 0, record
    )
    history = trainer.fit(x, y, 1, 8, (x, y, weight), sample_weight=weight, progress=False)
    flat = weight.reshape(-1) > 0
    logits = trainer.predict(x).reshape(-1, 3)[flat]
    expected = trainer.evaluate(x.reshape(-1, 4)[flat], y.reshape(-1)[flat])
    assert len(logits) < 100
    for name, column in history.items():
        assert column[0] == pytest.approx(expected[name.removeprefix("val_")], rel=1e-6)


@pytest.mark.parametrize("class_weight", [None, [1.0, 2.0, 0.5]])
def test_a_weighted_loss_does_not_depend_on_the_batch_size(class_weight):
    trainer = plain(nn.CrossEntropyLoss(class_weight=class_weight))
    fit(trainer)
    logits = trainer.predict(X)
    expected = float(nn.CrossEntropyLoss(class_weight=class_weight)(logits, LABELS, WEIGHTS))
    for size in (1, 7, 50):
        value = trainer.evaluate(X, LABELS, size, sample_weight=WEIGHTS)["loss"]
        assert value == pytest.approx(expected, rel=1e-12)
    history = fit(trainer, validation=(X, LABELS, WEIGHTS), epochs=1)
    assert history["val_loss"][0] == trainer.evaluate(X, LABELS, sample_weight=WEIGHTS)["loss"]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"sample_weight": WEIGHTS[:-1]}, ValueError, r"sample_weight: expected shape \(50,\)"),
        ({"sample_weight": WEIGHTS[:, None]}, ValueError, r"got \(50, 1\)"),
        ({"sample_weight": -WEIGHTS}, ValueError, "row 0 holds -.*>= 0"),
        ({"sample_weight": WEIGHTS * np.nan}, ValueError, "row 0 holds nan"),
        ({"sample_weight": WEIGHTS * 0}, ValueError, "all weights are zero"),
        ({"sample_weight": ["a"] * 50}, TypeError, "real numbers"),
        ({"class_weight": "even"}, ValueError, 'a mapping or "balanced"'),
        ({"class_weight": [1, 2, 3]}, TypeError, 'a mapping or "balanced"'),
        ({"class_weight": {3: 1.0}}, ValueError, "label 3 is outside the 3 classes 0 to 2"),
        ({"class_weight": {"1": 1.0}}, TypeError, "labels are integers, got '1'"),
        ({"class_weight": {1: -1.0}}, ValueError, "weight of label 1 must be finite and >= 0"),
        ({"class_weight": {0: "a"}}, TypeError, "weight of label 0 must be a number, got 'a'"),
        ({"class_weight": dict.fromkeys(range(3), 0)}, ValueError, "all weights are zero"),
        ({"validation": (X, LABELS, -WEIGHTS)}, ValueError, "validation sample_weight: row 0"),
    ],
)
def test_bad_weights_are_refused_before_any_step(options, error, words):
    trainer = classifier()
    with pytest.raises(error, match=words):
        fit(trainer, **options)
    assert trainer.optimizer.steps == 0


def test_losses_that_take_no_weights_say_so():
    class Own(nn.MSELoss):
        def forward(self, prediction, target):
            return super().forward(prediction, target)

    with pytest.raises(TypeError, match="takes no weights"):
        fit(regressor(loss=Own()), sample_weight=WEIGHTS)
    with pytest.raises(ValueError, match="class_weight needs a loss of labels"):
        fit(regressor(), class_weight="balanced")


# --- accumulation -----------------------------------------------------------------------------


@both
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("accumulate", [2, 5])
def test_accumulated_steps_are_those_of_larger_batches(record, reduction, accumulate):
    small, large = (plain(nn.MSELoss(reduction), record, lr=0.01) for _ in range(2))
    first = fit(small, epochs=3, batch_size=5, accumulate=accumulate)
    second = fit(large, epochs=3, batch_size=5 * accumulate)
    assert small.optimizer.steps == large.optimizer.steps == 3 * 10 // accumulate
    assert first["loss"] == pytest.approx(second["loss"], rel=1e-12)
    for name, values in everything(large).items():
        np.testing.assert_allclose(values, everything(small)[name], rtol=1e-9, atol=1e-14)


@compiled
@pytest.mark.parametrize("accumulate", [2, 3, 100])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_accumulation_recorded_is_eager(accumulate, weights):
    """With batch norm, dropout, Adam, clipping, metrics, and a last batch that is smaller."""
    recorded, eager = classifier(), classifier(record=False)
    options = {"accumulate": accumulate, "sample_weight": weights, "epochs": 3}
    assert dict(fit(recorded, **options)) == dict(fit(eager, **options))
    assert_same(everything(recorded), everything(eager))
    assert recorded.optimizer.steps == 3 * -(-4 // accumulate)
    assert recorded._step.recorded.gradient.programs == 2
    fit(recorded, epochs=1), fit(eager, epochs=1)  # and without, after that
    assert_same(everything(recorded), everything(eager))


@compiled
def test_two_batches_that_count_differently_make_a_step():
    """And there is no smaller one after them."""
    recorded, eager = classifier(), classifier(record=False)
    options = {"batch_size": 25, "accumulate": 2, "sample_weight": np.arange(1.0, 51), "epochs": 2}
    assert dict(fit(recorded, **options)) == dict(fit(eager, **options))
    assert_same(everything(recorded), everything(eager))


@both
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("weights", [None, WEIGHTS, np.repeat([0.5, 2.0], 25)])
def test_accumulated_batches_count_as_much_as_their_rows(record, reduction, weights):
    """Batches of 16, 16, 16 and 2 rows, of any weights, make the step of all 50."""
    small, large = (plain(nn.CrossEntropyLoss(reduction, [1, 2, 3]), record) for _ in range(2))
    small.optimizer.lr = large.optimizer.lr = 0.1 if reduction == "mean" else 0.001
    first = fit(small, epochs=3, accumulate=100, sample_weight=weights)
    second = fit(large, epochs=3, batch_size=50, sample_weight=weights)
    assert small.optimizer.steps == large.optimizer.steps == 3
    assert first["loss"] == pytest.approx(second["loss"], rel=1e-12)
    for name, values in everything(large).items():
        np.testing.assert_allclose(values, everything(small)[name], rtol=1e-9, atol=1e-14)


@both
def test_the_reduction_may_change_between_trainings(record):
    changed, other = (plain(nn.MSELoss(), record, lr=1e-3) for _ in range(2))
    for trainer in (changed, other):
        fit(trainer, epochs=1, accumulate=2)
        trainer.loss = nn.MSELoss("sum") if trainer is other else trainer.loss
        trainer.loss.reduction = "sum"
        fit(trainer, epochs=1, accumulate=2)
    assert_same(everything(changed), everything(other))
    eager = plain(nn.MSELoss(), False, lr=1e-3)
    fit(eager, epochs=1, accumulate=2)
    eager.loss.reduction = "sum"
    fit(eager, epochs=1, accumulate=2)
    assert_same(everything(changed), everything(eager))


@both
def test_a_failing_step_of_many_batches_leaves_all_as_before_it(record):
    trainer = classifier(record=record)
    fit(trainer, epochs=1, accumulate=4)
    trainer.model[5].weight.data[0, 0] = np.inf
    before, steps = everything(trainer), trainer.optimizer.steps
    with pytest.raises(FloatingPointError, match=r"training step 2: .*layer 5 Linear\(16, 3\)"):
        fit(trainer, accumulate=4)
    assert_same(before, everything(trainer))
    assert trainer.optimizer.steps == steps


@both
def test_a_failing_step_names_the_layer_and_the_step_late_in_an_epoch(record):
    """What is explained is the batch that failed, not the first of a recorded run."""
    data = X.copy()
    order = np.random.default_rng(0).permutation(50)
    data[order[40]] = 3e38  # in the third step; the sum over features is beyond float32
    first = nn.Linear(4, 2, init=nn.init.constant(1.0))
    model = nn.Sequential(first, nn.ReLU(), nn.Linear(2, 2), rng=0)
    optimizer = optim.SGD(model.parameters(), lr=1e-3)
    trainer = Trainer(model, nn.MSELoss(), optimizer, rng=0, record=record)
    with pytest.raises(FloatingPointError, match=r"step 3: .*output .* layer 0 Linear\(4, 2\)"):
        trainer.fit(data, VALUES, 1, 16, progress=False)
    assert trainer.optimizer.steps == 2


# --- penalties --------------------------------------------------------------------------------


@both
def test_the_penalty_is_reported_on_request(record):
    def trained(**options):
        model = nn.Sequential(nn.Linear(4, 2), rng=0).astype(np.float64)
        optimizer = optim.SGD(model.parameters(), lr=0.05, weight_decay=0.3, l1=0.1)
        trainer = Trainer(model, nn.MSELoss(), optimizer, rng=0, record=record, **options)
        return trainer, fit(trainer, validation=(X, VALUES))

    silent, without = trained()
    telling, history = trained(report_penalty=True)
    assert_same(everything(silent), everything(telling))
    weights = np.concatenate([p.data.ravel() for p in telling.model.parameters()])
    penalty = 0.15 * (weights**2).sum() + 0.1 * np.abs(weights).sum()
    for name in ("loss", "val_loss"):
        assert history[name][-1] == pytest.approx(without[name][-1] + penalty, rel=1e-12)
    assert telling.evaluate(X, VALUES)["loss"] == history["val_loss"][-1]


# --- going on ---------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("split", [(2, 3), (1, 1, 3)])
def test_a_training_in_parts_is_one_training(record, accumulate, split):
    """Moments, schedule, averages, order of the rows, masks, running statistics: to the bit."""

    def trainer():
        made = classifier(record=record)
        made.optimizer.lr = optim.schedules.warmup(optim.schedules.cosine(0.05, steps=15), steps=3)
        made.ema = optim.EMA(made.model.parameters(), decay=0.9)
        return made

    options = {"accumulate": accumulate, "sample_weight": WEIGHTS, "validation": (X, LABELS)}
    once, parts, again = trainer(), trainer(), trainer()
    whole = fit(once, epochs=5, **options)
    histories = [fit(parts, epochs=epochs, **options) for epochs in split]
    for name in whole:
        assert whole[name] == [value for history in histories for value in history[name]]
    assert dict(fit(again, epochs=5, **options)) == dict(whole)
    for other in (parts, again):
        assert_same(everything(once), everything(other))
        assert once.optimizer.lr == other.optimizer.lr
        for average, same in zip(once.ema.averages, other.ema.averages, strict=True):
            assert np.array_equal(average, same)


@compiled
@pytest.mark.parametrize("accumulate", [1, 2])
def test_what_a_callback_replaces_is_recorded_anew(accumulate):
    class Replace(Callback):
        def on_epoch_begin(self, trainer, epoch, values):
            if epoch == 2:
                trainer.ema.decay = 0.5
            if epoch == 3:
                trainer.loss = nn.CrossEntropyLoss(label_smoothing=0.3)

    made = classifier(), classifier(record=False)
    for trainer in made:
        trainer.ema = optim.EMA(trainer.model.parameters(), decay=0.9)
    histories = [fit(t, 4, accumulate=accumulate, callbacks=[Replace()]) for t in made]
    assert dict(histories[0]) == dict(histories[1])
    assert_same(*map(everything, made))
    for average, same in zip(made[0].ema.averages, made[1].ema.averages, strict=True):
        assert np.array_equal(average, same)


# --- recordings that no longer hold -----------------------------------------------------------


@compiled
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_replaced_array_is_recorded_anew(accumulate):
    recorded, eager = classifier(), classifier(record=False)
    for trainer in (recorded, eager):
        fit(trainer, epochs=1, accumulate=accumulate)
        trainer.model[1].running_mean = np.full(16, 0.5, np.float32)
        fit(trainer, accumulate=accumulate)
    assert_same(everything(recorded), everything(eager))
    assert recorded._step.recorded is not None
    assert not recorded._step.recorded.empty


@compiled
def test_a_model_that_stops_being_recordable_warns_once_and_goes_on():
    class Switch(nn.Layer):
        plain = False

        def forward(self, x):
            return x * np.float32(1) if self.plain else x

        def backward(self, dy):
            return dy

    model = nn.Sequential(nn.Linear(4, 2), Switch(), rng=0)
    trainer = Trainer(model, nn.MSELoss(), optim.SGD(model.parameters()), rng=0)
    fit(trainer)
    model[1].plain = True
    with pytest.warns(RuntimeWarning, match="training runs eagerly") as heard:
        fit(trainer)
    assert len(heard) == 1
    assert trainer._step.recorded is None


@compiled
def test_recorded_runs_are_used(monkeypatch):
    """All of the above would hold if everything ran eagerly."""
    sizes = []
    run_epoch = epoch.run_epoch
    monkeypatch.setattr(
        epoch, "run_epoch", lambda *args: sizes.append(len(args[1])) or run_epoch(*args)
    )
    fit(classifier(), sample_weight=WEIGHTS)
    fit(classifier())
    fit(classifier(), accumulate=4)
    assert sizes == [3, 3, 2, 2, 2, 2]
