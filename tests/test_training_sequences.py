"""The Trainer: several inputs, and sequences of unequal length."""

from __future__ import annotations

import numpy as np
import pytest
from training_helpers import assert_same, compiled, everything

from minidl import kernels, nn, optim
from minidl.training import Trainer, batches

RNG = np.random.default_rng(0)
LENGTHS = RNG.integers(1, 8, 30)
LENGTHS[3] = 7
ROWS = [RNG.normal(size=(length, 4)).astype(np.float32) for length in LENGTHS]
STEPS = np.arange(7) < LENGTHS[:, None]
PADDED = np.zeros((30, 7, 4), np.float32)
PADDED[STEPS] = np.concatenate(ROWS)
LABELS = RNG.integers(3, size=30)
STEP_LABELS = np.where(STEPS, RNG.integers(3, size=(30, 7)), 0)
STEP_VALUES = np.where(STEPS[..., None], RNG.normal(size=(30, 7, 2)), 0).astype(np.float32)
both = pytest.mark.parametrize("record", [True, False])


def trainer(loss=None, record=True, per_step=False, metrics=None, front=(), **options):
    loss = loss or nn.CrossEntropyLoss()
    model = nn.Sequential(
        *front,
        nn.GRU(4, 6),
        nn.GRU(6, 5, return_sequences=per_step),
        nn.Linear(5, 3 if loss.takes_labels else 2),
        rng=0,
    )
    optimizer = optim.Adam(model.parameters(), lr=1e-2, max_norm=1.0)
    return Trainer(model, loss, optimizer, metrics, rng=0, record=record, **options)


def fit(made, X, y, epochs=2, **options):
    return made.fit(X, y, epochs, **{"batch_size": 8, "progress": False, **options})


@both
def test_a_list_of_sequences_is_padded_sequences_and_their_lengths(record):
    listed, padded, eager = trainer(record=record), trainer(record=record), trainer(record=False)
    history = fit(listed, ROWS, LABELS, validation=(ROWS[:9], LABELS[:9]))
    X = PADDED, LENGTHS.astype(np.int32)
    same = fit(padded, X, LABELS, validation=((PADDED[:9], LENGTHS[:9]), LABELS[:9]))
    assert dict(history) == dict(same)
    fit(eager, ROWS, LABELS)
    assert_same(everything(listed), everything(padded))
    assert_same(everything(listed), everything(eager))
    assert listed.evaluate(ROWS, LABELS) == padded.evaluate(X, LABELS)


def test_a_sequence_is_predicted_as_if_it_were_alone():
    for front in [(), (nn.LayerNorm(4), nn.Standardize(4), nn.Dropout(0.5))]:
        made = trainer(front=front)
        fit(made, ROWS, LABELS)
        together = made.predict(ROWS)
        assert together.shape == (30, 3)
        for row, output in zip(ROWS, together, strict=True):
            np.testing.assert_allclose(made.predict(row[None]), output[None], atol=1e-6)
        whole = np.array(ROWS[3][None].repeat(2, 0))
        np.testing.assert_allclose(made.predict(list(whole)), together[[3, 3]], atol=1e-6)


@both
@pytest.mark.parametrize(
    "loss", [nn.CrossEntropyLoss(), nn.MSELoss(), nn.L1Loss(), nn.HuberLoss(), nn.MSELoss("sum")]
)
def test_padded_steps_count_in_no_loss_and_no_metric(record, loss):
    """Neither does what stands in them: labels beyond the classes, NaN."""
    y = STEP_LABELS if loss.takes_labels else STEP_VALUES
    metrics = ["accuracy", "top_2"] if loss.takes_labels else ["mse", "mae", "r2"]
    clean, dirty = (trainer(loss, record, True, metrics) for _ in range(2))
    X, target = PADDED.copy(), np.where(STEPS, y, -100) if loss.takes_labels else y.copy()
    X[~STEPS] = np.nan
    if not loss.takes_labels:
        target[~STEPS] = np.nan
    options = {"epochs": 1, "batch_size": 30}
    before = trainer(loss, record, True, metrics)
    expected = before.predict(ROWS)[STEPS], y[STEPS]
    history = fit(clean, ROWS, y, validation=(ROWS, y), **options)
    assert dict(history) == dict(
        fit(dirty, (X, LENGTHS), target, validation=((X, LENGTHS), target), **options)
    )
    assert_same(everything(clean), everything(dirty))
    assert history["loss"][0] == pytest.approx(float(loss(*expected)), rel=1e-6)
    scores = clean.evaluate((X, LENGTHS), target)
    assert scores == {name: history[f"val_{name}"][0] for name in scores}
    logits, target = clean.predict(ROWS)[STEPS], y[STEPS]
    assert scores["loss"] == pytest.approx(float(loss(logits, target)), rel=1e-6)
    if loss.takes_labels:
        assert scores["accuracy"] == np.mean(logits.argmax(axis=1) == target)
    else:
        assert scores["mae"] == pytest.approx(np.abs(logits - target).mean(), rel=1e-6)


@both
def test_targets_of_every_step_may_be_a_list_too(record):
    first, second = trainer(record=record, per_step=True), trainer(record=record, per_step=True)
    labels = [row[:length].tolist() for row, length in zip(STEP_LABELS, LENGTHS, strict=True)]
    fit(first, ROWS, labels), fit(second, ROWS, STEP_LABELS)
    assert_same(everything(first), everything(second))
    labels[4] = [*labels[4], 0]
    with pytest.raises(ValueError, match=rf"y: row 4 has {LENGTHS[4] + 1} steps, in X it has"):
        fit(first, ROWS, labels)


@both
def test_weights_of_rows_and_classes_join_the_padding(record):
    weight = RNG.uniform(0.5, 2, 30)
    by_row, by_step = trainer(record=record, per_step=True), trainer(record=record, per_step=True)
    fit(by_row, ROWS, STEP_LABELS, sample_weight=weight)
    fit(by_step, (PADDED, LENGTHS), STEP_LABELS, sample_weight=weight[:, None] * STEPS)
    assert_same(everything(by_row), everything(by_step))
    counts = np.bincount(STEP_LABELS[STEPS], minlength=3)
    balanced, given = trainer(record=record, per_step=True), trainer(record=record, per_step=True)
    fit(balanced, ROWS, STEP_LABELS, class_weight="balanced")
    fit(given, ROWS, STEP_LABELS, class_weight=dict(enumerate(counts.sum() / (3 * counts))))
    assert_same(everything(balanced), everything(given))
    with pytest.raises(ValueError, match=r"sample_weight: expected shape \(30, 7\), got \(30, 6\)"):
        fit(by_row, ROWS, STEP_LABELS, sample_weight=np.ones((30, 6)))


def test_integers_are_padded_for_an_embedding():
    words = [RNG.integers(5, size=length) for length in LENGTHS]
    model = nn.Sequential(
        nn.Embedding(5, 4), nn.LSTM(4, 3, return_sequences=False), nn.Linear(3, 3), rng=0
    )
    made = Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters()), rng=0)
    fit(made, words, LABELS)
    np.testing.assert_allclose(made.predict(words)[5], made.predict(words[5][None])[0], atol=1e-6)
    X = np.full((30, 7), -1)  # what stands in padding is not looked at
    X[STEPS] = np.concatenate(words)
    assert np.array_equal(made.predict((X, LENGTHS)), made.predict(words))
    X[2, 0] = 5
    with pytest.raises(ValueError, match=r"X\[0\]: index 5 in row 2, step 0 is not in 0 to 4"):
        fit(made, (X, LENGTHS), LABELS)


def longer(row, length):
    lengths = LENGTHS.copy()
    lengths[row] = length
    return lengths


@pytest.mark.parametrize(
    ("X", "words"),
    [
        ((PADDED, longer(12, 8)), r"X\[1\]: length 8 in row 12 is not in 1 to 7"),
        ((PADDED, longer(4, 0)), r"X\[1\]: length 0 in row 4 is not in 1 to 7"),
        ((PADDED, LENGTHS[:-1]), r"X\[0\] has 30 rows, (validation )?X\[1\] has 29"),
        ((), "at least one input"),
        ([*ROWS[:-1], np.zeros((0, 4))], "X: row 29 is an empty sequence"),
        ([*ROWS[:-1], np.zeros((2, 3))], r"X: a step of row 29 has shape \(3,\), one of row 0"),
        ([*ROWS[:7], ROWS[7] * np.nan, *ROWS[8:]], r"X: row 7 holds nan at \(0, 0\)"),
    ],
)
def test_sequences_that_cannot_be_are_refused_before_any_step(X, words):
    made = trainer()
    for use in (
        lambda: fit(made, X, LABELS),
        lambda: fit(made, ROWS, LABELS, validation=(X, LABELS)),
        lambda: made.evaluate(X, LABELS),
        lambda: made.predict(X),
    ):
        with pytest.raises(ValueError, match=words):
            use()
    assert made.optimizer.steps == 0


def test_rows_of_unequal_length_need_a_layer_that_takes_lengths():
    model = nn.Sequential(nn.Linear(2, 3), rng=0)
    made = Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters()))
    with pytest.raises(ValueError, match="row 0 has length 2, row 1 has 3, and no layer"):
        made.predict([[1.0, 2.0], [1.0, 2.0, 3.0]])


def test_a_loss_without_weights_cannot_leave_padding_out():
    class Own(nn.MSELoss):
        def forward(self, prediction, target):
            return super().forward(prediction, target)

    with pytest.raises(TypeError, match=r"takes no weights.*padded steps need one of 0"):
        fit(trainer(Own(), per_step=True), ROWS, STEP_VALUES)
    fit(trainer(Own()), ROWS, STEP_VALUES[:, 0])


# --- several inputs -------------------------------------------------------------------------


class Sum(nn.Layer):
    """Two inputs, each with a layer of its own."""

    def __init__(self, rng=0):
        self.first, self.second = nn.Linear(4, 3, rng=rng), nn.Linear(2, 3, rng=rng + 1)

    def check_input(self, *args):
        pass

    def forward(self, a, b):
        return kernels.add(self.first(a), self.second(b))

    def backward(self, dy):
        return self.first.backward(dy), self.second.backward(dy)


@both
def test_several_inputs_are_a_tuple(record):
    """One layer of both inputs side by side is the same model."""
    a, b = (RNG.normal(size=(30, width)) for width in (4, 2))
    model = Sum()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    made = Trainer(model, nn.CrossEntropyLoss(), optimizer, rng=0, record=record)
    joined = nn.Linear(6, 3)
    joined.weight.data = np.concatenate([model.first.weight.data, model.second.weight.data])
    joined.bias.data = model.first.bias.data + model.second.bias.data
    optimizer = optim.SGD([joined.weight], lr=0.1)
    one = Trainer(joined, nn.CrossEntropyLoss(), optimizer, rng=0)
    joined.bias.frozen = model.first.bias.frozen = model.second.bias.frozen = True
    made.optimizer = optim.SGD(model.parameters(), lr=0.1)
    options = {"sample_weight": np.linspace(0, 1, 30), "accumulate": 2}
    first = fit(made, (a, b), LABELS, validation=((a[:5], b[:5]), LABELS[:5]), **options)
    x = np.concatenate([a, b], axis=1)
    second = fit(one, x, LABELS, validation=(x[:5], LABELS[:5]), **options)
    for name in first:
        assert first[name] == pytest.approx(second[name], rel=1e-5)
    np.testing.assert_allclose(made.predict((a, b)), one.predict(x), atol=1e-5)
    assert made.evaluate((a, b), LABELS) == pytest.approx(one.evaluate(x, LABELS), rel=1e-5)


@compiled
def test_recordings_tell_inputs_from_weights():
    """One input and weights, then two inputs: arrays of the same shapes and dtypes."""

    class Either(nn.Linear):
        def check_input(self, *args):
            pass

        def forward(self, x, scale=None):
            return super().forward(x)

    made = []
    for record in (True, False):
        model = Either(4, 1, rng=0)
        made.append(
            Trainer(model, nn.MSELoss(), optim.SGD(model.parameters()), rng=0, record=record)
        )
    x, y, w = PADDED[:, 0], LABELS[:, None].astype(np.float32), np.linspace(1, 2, 30)
    for each in made:
        fit(each, x, y, sample_weight=w)
        fit(each, (x, y), w[:, None].astype(np.float32)[:, 0:1])
    assert_same(*map(everything, made))


# --- batches ----------------------------------------------------------------------------------


def test_batches_of_several_inputs_are_tuples():
    rows = np.arange(30)
    seen = []
    for (x, lengths), (labels, row) in batches((PADDED, LENGTHS), (LABELS, rows), 8, rng=0):
        assert np.array_equal(x, PADDED[row])
        assert np.array_equal(lengths, LENGTHS[row])
        assert np.array_equal(labels, LABELS[row])
        seen += row.tolist()
    assert sorted(seen) == rows.tolist()
    assert seen == [row for _, part in batches(PADDED, rows, 8, rng=0) for row in part]


def test_batches_of_a_list_of_sequences_are_padded():
    for (x, lengths), y in batches(ROWS, STEP_LABELS.tolist(), 30, shuffle=False):
        assert np.array_equal(x, PADDED)
        assert np.array_equal(lengths, LENGTHS)
        assert np.array_equal(y, STEP_LABELS)
    with pytest.raises(ValueError, match=r"X\[0\] has 30 rows, X\[1\] has 29"):
        batches((PADDED, LENGTHS[1:]), LABELS, 8)
    with pytest.raises(ValueError, match=r"X\[0\] has 30 rows, y has 29"):
        batches(ROWS, LABELS[1:], 8)
