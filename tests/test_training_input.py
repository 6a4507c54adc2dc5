"""The Trainer: what it refuses, before any step."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from training_helpers import LABELS, VALUES, X, assert_same, classifier, everything, fit, regressor

from minidl import nn, optim
from minidl.training import Trainer, accuracy, batches
from minidl.training.checks import check_batch_size, split
from minidl.training.metrics import by_name

# --- input that is refused --------------------------------------------------------------


def with_value(array, row, value):
    array = array.astype(np.result_type(array, type(value)))
    array[row] = value
    return array


HUGE = with_value(LABELS.astype(np.uint64), 4, np.uint64(2**64 - 1))
REFUSED = [
    ("length", X, LABELS[:-1], r"X has 50 rows, (validation )?y has 49"),
    ("empty", X[:0], LABELS[:0], "X is empty"),
    ("no features", X[:, :0], LABELS, "X is empty"),
    ("another width", X[:, :2], LABELS, r"X of shape \(50, 2\) does not suit the model.*0 Linear"),
    ("nan", with_value(X, (17, 2), np.nan), LABELS, r"X: row 17 holds nan at \(2,\)"),
    ("inf", with_value(X, (3, 0), -np.inf), LABELS, "X: row 3 holds -inf"),
    ("beyond float32", with_value(X.astype(float), (9, 1), 1e300), LABELS, "X: row 9 holds inf"),
    ("label too large", X, with_value(LABELS, 23, 3), "y: label 3 in row 23 is outside .* 0 to 2"),
    ("label negative", X, with_value(LABELS, 7, -1), "y: label -1 in row 7 is outside the 3"),
    ("label beyond int64", X, HUGE, "y: label 18446744073709551615 in row 4 is outside"),
    ("masked features", np.ma.masked_less(X, -2), LABELS, r"X: row \d+ is masked"),
    ("masked label", X, np.ma.masked_array(LABELS, np.arange(50) == 9), "y: row 9 is masked"),
    ("label fraction", X, with_value(LABELS, 5, 0.5), "integers, row 5 holds 0.5"),
    ("label nan", X, with_value(LABELS, 8, np.nan), "integers, row 8 holds nan"),
    ("float labels", X, LABELS.astype(np.float32), "integers, row 0 holds"),
    ("one-hot", X, np.eye(3, dtype=int)[LABELS], r"one-hot\? write y.argmax\(axis=-1\)"),
    ("one-hot floats", X, np.eye(3)[LABELS], r"one-hot\? write y.argmax\(axis=-1\)"),
    ("label column", X, LABELS[:, None], r"write y\[\.\.\., 0\]"),
    ("label matrix", X, LABELS[:, None], r"expected labels of shape \((50|1),\), got"),
    ("width", X[:, :3], LABELS, r"layer 0 Linear\(4, 16\): expected .* got \(1, 3\)"),
    ("rank", X[:, 0], LABELS, r"layer 0 Linear\(4, 16\): expected"),
]


@pytest.mark.parametrize(("x", "y", "words"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
@pytest.mark.parametrize("place", ["fit", "validation", "evaluate"])
def test_data_that_cannot_be_trained_on_are_refused_before_any_step(place, x, y, words):
    trainer = classifier()
    before = everything(trainer)
    use = {
        "fit": lambda: trainer.fit(x, y, 1, progress=False),
        "validation": lambda: fit(trainer, validation=(x, y)),
        "evaluate": lambda: trainer.evaluate(x, y),
    }
    with pytest.raises(ValueError, match=words) as caught:
        use[place]()
    if place == "validation" and "layer" not in words:
        assert "validation" in str(caught.value)
    assert_same(before, everything(trainer))
    assert trainer.model.training
    assert trainer.optimizer.steps == 0


@pytest.mark.parametrize(
    "x", [X.astype(complex), X.astype(str), X.astype(object), [[object()] * 4]]
)
def test_what_is_no_real_number_is_a_type_error(x):
    with pytest.raises(TypeError, match="X: expected real numbers"):
        classifier().fit(x, LABELS[: len(x)], 1, progress=False)


def test_labels_that_are_words_are_a_type_error():
    with pytest.raises(TypeError, match="labels must be integers"):
        classifier().fit(X, ["cat"] * 50, 1, progress=False)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_targets_must_be_finite(value):
    with pytest.raises(ValueError, match=r"y: row 31 holds (nan|inf) at \(1,\)"):
        regressor().fit(X, with_value(VALUES, (31, 1), value), 1, progress=False)


def test_targets_of_binary_cross_entropy_are_probabilities():
    trainer = regressor(loss=nn.BCEWithLogitsLoss(), outputs=1)
    targets = (LABELS > 0)[:, None].astype(int)
    assert np.isfinite(trainer.fit(X, targets, 1, progress=False)["loss"][0])
    with pytest.raises(ValueError, match=r"row 0 holds -1.0, outside \[0, 1\]"):
        trainer.fit(X, np.where(np.arange(50)[:, None] % 2, 1, -1), 1, progress=False)


def test_targets_of_another_shape_are_refused_before_any_step():
    trainer = regressor()
    with pytest.raises(ValueError, match="differ in shape") as caught:
        trainer.fit(X, VALUES[:, 0], 1, progress=False)
    assert "None" not in str(caught.value)  # two outputs: another column would not help
    assert trainer.optimizer.steps == 0


@pytest.mark.parametrize("loss", [nn.MSELoss(), nn.BCEWithLogitsLoss()])
def test_targets_without_a_column_are_told_how_to_get_one(loss):
    trainer = regressor(loss=loss, outputs=1)
    targets = (LABELS > 0).astype(np.float32)
    words = r"y of shape \(50,\) .*X of shape \(50, 4\).* \(50, 1\) .*write y\[:, None\]"
    with pytest.raises(ValueError, match=words):
        trainer.fit(X, targets, 1, progress=False)
    with pytest.raises(ValueError, match=r"validation y of shape \(20,\)"):
        trainer.fit(X, targets[:, None], 1, validation=(X[:20], targets[:20]), progress=False)
    assert trainer.optimizer.steps == 0
    assert trainer.fit(X, targets[:, None], 1, progress=False).epochs == 1


def test_masked_arrays_without_a_mask_are_data():
    history = classifier().fit(np.ma.array(X), np.ma.array(LABELS), 1, 16, progress=False)
    assert history["loss"] == fit(classifier(), epochs=1)["loss"]
    with pytest.raises(ValueError, match="X: row 2 is masked"):
        classifier().predict(np.ma.array(X, mask=np.arange(50)[:, None] == [2] * 4))


@pytest.mark.parametrize("validation", [1, (X, LABELS, None, 3), (X,), X[:2]])
def test_validation_is_a_pair(validation):
    with pytest.raises(ValueError, match=r"validation must be a pair \(X, y\).* share .*, got "):
        fit(classifier(), validation=validation)


@pytest.mark.parametrize("share", [np.float32(0.25), np.float64(0.25)])
def test_a_share_may_be_a_number_of_numpy(share):
    assert (
        fit(classifier(), validation=share)["val_loss"]
        == fit(classifier(), validation=0.25)["val_loss"]
    )


def test_labels_of_one_output_are_told_what_it_may_be():
    model = nn.Linear(4, 1, rng=0)
    trainer = Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(ValueError, match=r"y: label 1 in row 1.*one output.*BCEWithLogitsLoss"):
        trainer.fit(X[:4], [0, 1, 0, 1], 1, progress=False)


@pytest.mark.parametrize("name", ["epochs", "batch_size", "accumulate"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "3", None, True])
def test_counts_must_be_counts(name, value):
    error = ValueError if value in (0, -1) else TypeError
    words = ">= 1" if error is ValueError else "a whole number"
    with pytest.raises(error, match=f"fit: {name} must be {words}, got {value!r}"):
        fit(classifier(), **{name: value})


@pytest.mark.parametrize(("size", "rows"), [(7, 50), (1, 50), (16, 33), (16, 1)])
def test_a_last_batch_of_one_row_is_refused_where_it_has_no_variance(size, rows):
    trainer = classifier()
    why = {(7, 50): "leave one for the last", (1, 50): "every batch has one", (16, 1): "no more"}
    words = rf"one row fails \(layer 1 BatchNorm\(16\): .*\), and .*{why.get((size, rows), '')}"
    with pytest.raises(ValueError, match=words):
        trainer.fit(X[:rows], LABELS[:rows], 1, size, progress=False)
    assert trainer.optimizer.steps == 0
    regressor().fit(X[:rows], VALUES[:rows], 1, size, progress=False)  # no such layer, no matter


def test_whether_one_row_will_do_is_tried():
    """Behind Flatten a sequence is one row; behind Embedding it is as many as it has steps."""
    numbers = np.random.default_rng(0).integers(3, size=(9, 3))
    words = nn.Sequential(nn.Embedding(3, 4), nn.BatchNorm(4), nn.Linear(4, 3), rng=0)
    trainer = Trainer(words, nn.CrossEntropyLoss(), optim.SGD(words.parameters()), rng=0)
    trainer.fit(numbers, numbers, 1, 4, progress=False)
    flat = nn.Sequential(nn.Flatten(), nn.BatchNorm(12), nn.Dropout(0.5), nn.Linear(12, 3), rng=0)
    trainer = Trainer(flat, nn.CrossEntropyLoss(), optim.SGD(flat.parameters()), rng=0)
    x, before = numbers[..., None] * np.ones(4), everything(trainer)
    with pytest.raises(ValueError, match=r"one row fails .*leave one for the last"):
        trainer.fit(x, LABELS[:9], 1, 4, progress=False)
    assert_same(before, everything(trainer))
    trainer.fit(x, LABELS[:9], 1, 3, progress=False)


def test_trying_one_row_leaves_no_trace():
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5), rng=0)
    trainer = Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters()), rng=0)
    before = everything(trainer)
    check_batch_size(model, (X,), 7)
    assert_same(before, everything(trainer))


def test_predict_needs_data():
    with pytest.raises(ValueError, match="X is empty"):
        classifier().predict(X[:0])


def test_an_optimizer_of_another_model_is_refused():
    model, other = nn.Linear(4, 3), nn.Linear(4, 3)
    with pytest.raises(ValueError, match="not the model's"):
        Trainer(model, nn.CrossEntropyLoss(), optim.SGD(other.parameters()))


MODEL = nn.Sequential(nn.Linear(4, 3))
ADAM = optim.Adam(MODEL.parameters())


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ((nn.Linear, nn.MSELoss(), ADAM), "model must be .* got the class Linear itself"),
        ((MODEL, nn.MSELoss, ADAM), r"loss must be .* nn.MSELoss\(\), got the class MSELoss"),
        ((MODEL, ADAM, nn.MSELoss()), "loss must be .* got an instance of Adam"),
        ((nn.MSELoss(), MODEL, ADAM), "model must be .* got an instance of MSELoss"),
        ((MODEL, nn.MSELoss(), optim.Adam), "optimizer must be .* got the class Adam"),
        ((MODEL, nn.MSELoss(), "adam"), "optimizer must be .* got 'adam'"),
        ((MODEL, nn.MSELoss(), MODEL.parameters()), "optimizer must be .* instance of list"),
        ((MODEL, None, ADAM), "loss must be .* got an instance of NoneType"),
    ],
)
def test_parts_that_are_none_or_in_the_wrong_place_are_a_type_error(parts, words):
    with pytest.raises(TypeError, match=words):
        Trainer(*parts)


def needs_30_rows(prediction, target):
    if len(target) < 30:
        raise ValueError("too few rows")
    return 1.0


@pytest.mark.parametrize(
    ("metric", "error", "words"),
    [
        ("accuracy", ValueError, r"accuracy needs .* got \(50, 2\) and \(50, 2\)"),
        (needs_30_rows, ValueError, "too few rows"),  # of the validation data only
        (lambda prediction, target: "good", ValueError, "could not convert"),
        (lambda prediction, target: None, TypeError, "NoneType"),
        (lambda prediction: 1.0, TypeError, "positional"),
    ],
)
def test_metrics_are_tried_before_any_step(metric, error, words):
    model = regressor().model
    optimizer = optim.SGD(model.parameters())
    trainer = Trainer(model, nn.MSELoss(), optimizer, metrics=[metric], rng=0)
    before = everything(trainer)
    with pytest.raises(error, match=words):
        fit(trainer, validation=(X[:20], VALUES[:20]))
    assert_same(before, everything(trainer))
    assert optimizer.steps == 0


def test_trying_metrics_warns_nobody_and_shows_them_no_data_of_the_caller():
    def greedy(prediction, target):
        prediction /= prediction.std(axis=0)  # 0 / 0 as long as one row stands for all
        target[...] = 0
        return 1.0

    values = VALUES.copy()
    model = regressor().model
    trainer = Trainer(model, nn.MSELoss(), optim.SGD(model.parameters()), metrics=[greedy])
    with warnings.catch_warnings(action="error"):
        trainer.fit(X, values, 1, progress=False)
    assert np.array_equal(values, VALUES)


@pytest.mark.parametrize("metrics", [["acuracy"], ["accuracy", accuracy], "kappa"])
def test_unknown_and_double_metrics_are_refused(metrics):
    with pytest.raises(ValueError, match=r"unknown metric|would be called"):
        classifier(metrics=metrics)


def test_metrics_are_names_or_callables():
    assert list(by_name("accuracy")) == ["accuracy"] == list(by_name(accuracy))
    with pytest.raises(TypeError, match="a name or a callable"):
        by_name([3])
    with pytest.raises(ValueError, match="accuracy needs"):
        accuracy(VALUES, VALUES)


# --- tables and words -----------------------------------------------------------------------


class Table:
    """What there is of a data frame: columns of several dtypes by name, and all of them at once."""

    def __init__(self, **columns):
        self.columns, self._columns = list(columns), columns

    def __getitem__(self, name):
        return self._columns[name]

    def __array__(self, dtype=None, copy=None):
        arrays = [np.asarray(column) for column in self._columns.values()]
        kinds = {array.dtype.kind for array in arrays}
        dtype = object if len(kinds) > 1 and kinds - set("uif") else None
        return np.stack([array.astype(dtype or array.dtype) for array in arrays], axis=1)


NUMBERS = {"age": X[:, 0], "income": X[:, 1], "years": np.arange(50)}
CITIES = np.where(X[:, 3] > 0, "Bonn", "Kiel")


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ((X[:, 3] > 0).astype(object), r"numbers as objects: write X.astype\({'city': float}\)"),
        (CITIES.astype(object), r"words: one-hot encode it \(docs/tables.md shows the pipeline\)"),
        (CITIES, "words: one-hot encode it"),
        (np.arange("2000", "2050", dtype="datetime64[Y]"), "dates: make them numbers"),
        (np.array([1j] * 50), "objects of type complex128: convert it to numbers"),
    ],
)
@pytest.mark.parametrize("use", ["fit", "predict"])
def test_a_column_that_is_in_the_way_is_named(column, words, use):
    table = Table(**NUMBERS, city=column)
    with pytest.raises(TypeError, match=rf"X: expected real numbers; column 'city' holds {words}"):
        classifier().predict(table) if use == "predict" else classifier().fit(table, LABELS, 1)


def test_the_casts_that_are_advised_work_with_pandas():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({**NUMBERS, "city": CITIES})
    with pytest.raises(TypeError, match=r"column 'city' holds words: one-hot encode it"):
        classifier().predict(frame)
    dummies = pd.get_dummies(frame)
    linear = nn.Linear(5, 3, rng=0)
    trainer = Trainer(linear, nn.CrossEntropyLoss(), optim.SGD(linear.parameters()), rng=0)
    labels = pd.Series(LABELS, index=np.arange(50) + 7)
    objects = dummies.astype(object)
    with pytest.raises(TypeError, match=r"write X.astype\({'age': float}\)"):
        trainer.fit(objects, labels, 1, progress=False)
    for table in (
        dummies,
        dummies.astype(np.float32),
        objects.astype(dict.fromkeys(objects, float)),
    ):
        trainer.fit(table, labels, 1, progress=False)
    assert trainer.predict(table[:3]).shape == (3, 3)


def test_words_are_told_how_to_become_numbers():
    words = np.array([["a", "b"], ["c", "a"]] * 25)
    model = nn.Sequential(nn.Embedding(3, 2), nn.Flatten(), nn.Linear(4, 3), rng=0)
    trainer = Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters()), rng=0)
    for given in (words, words.astype(object)):
        advice = r"number the words: words, X = np.unique\(X, return_inverse=True\)"
        with pytest.raises(TypeError, match=advice):
            trainer.fit(given, LABELS, 1, progress=False)
    _, numbers = np.unique(words, return_inverse=True)
    with pytest.raises(TypeError, match=r"takes integers, got dtype float32; write X.astype"):
        trainer.fit(numbers.astype(np.float32), LABELS, 1, progress=False)
    names = np.array(["cat", "dog", "hen"])[LABELS]
    with pytest.raises(TypeError, match=r"classes, y = np.unique\(y, return_inverse=True\)"):
        trainer.fit(numbers, names, 1, progress=False)
    classes, labels = np.unique(names, return_inverse=True)
    trainer.fit(numbers, labels, 1, progress=False)
    assert classes.tolist() == ["cat", "dog", "hen"]
    with pytest.raises(TypeError, match=r"X.astype\(np.float32\) if these are numbers"):
        classifier().predict(X.astype(str))
    assert np.allclose(
        classifier().predict(X.astype(str).astype(np.float32)), classifier().predict(X)
    )


# --- indices --------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [5, -1])
@pytest.mark.parametrize("use", ["fit", "validation", "evaluate", "predict"])
def test_an_index_that_is_none_is_found_before_any_step(value, use):
    """With its row in the data as they were given, the last of many batches."""
    model = nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(12, 3), rng=0)
    trainer = Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters()), rng=0)
    good = np.random.default_rng(0).integers(5, size=(50, 3))
    bad = good.copy()
    bad[47, 2] = value
    before = everything(trainer)
    calls = {
        "fit": lambda: trainer.fit(bad, LABELS, 1, 8, progress=False),
        "validation": lambda: trainer.fit(good, LABELS, 1, 8, (bad, LABELS), progress=False),
        "evaluate": lambda: trainer.evaluate(bad, LABELS, 8),
        "predict": lambda: trainer.predict(bad, 8),
    }
    words = rf"{'validation ' if use == 'validation' else ''}X: index {value} in row 47, step 2"
    with pytest.raises(ValueError, match=words + " is not in 0 to 4"):
        calls[use]()
    assert_same(everything(trainer), before)
    assert trainer.optimizer.steps == 0


# --- a share of the rows for validation -----------------------------------------------------


def test_a_share_of_the_rows_can_be_held_out():
    held_out, given = classifier(), classifier()
    weights = np.linspace(0.5, 2, 50)
    history = fit(held_out, validation=0.2, sample_weight=weights)
    rows, others = split(50, 0.2)
    assert len(others) == 10
    assert sorted([*rows, *others]) == list(range(50))
    assert (np.diff(others) > 1).any()  # not the last ones: labels may be sorted
    again = given.fit(
        X[rows],
        LABELS[rows],
        2,
        16,
        (X[others], LABELS[others], weights[others]),
        progress=False,
        sample_weight=weights[rows],
    )
    assert dict(history) == dict(again)
    assert_same(everything(held_out), everything(given))
    fit(held_out, validation=0.2), fit(held_out, validation=0.2)
    assert np.array_equal(split(50, 0.2)[1], others)  # what was held out is never trained on


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, 1.5, 0.001, 0.999, float("nan")])
def test_a_share_leaves_rows_on_both_sides(share):
    with pytest.raises(ValueError, match=r"validation must be a share of the rows in \(0, 1\)"):
        fit(classifier(), validation=share)


@pytest.mark.parametrize("record", [True, False])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_rows_can_be_taken_in_order(record, accumulate):
    made, by_hand = regressor(record=record), regressor()
    fit(made, shuffle=False, accumulate=accumulate)
    for _ in range(2):
        for x, y in batches(X, VALUES, 16 * accumulate, shuffle=False):
            by_hand._step(x, y)
    for name, values in everything(by_hand).items():
        np.testing.assert_allclose(everything(made)[name], values, rtol=1e-4, atol=1e-6)
    assert made.rng.random() == np.random.default_rng(0).random()  # nothing was drawn


def test_a_layer_of_any_name_is_told_the_shapes_that_do_not_suit_it():
    class X(nn.Tanh):
        def forward(self, x):
            raise ValueError("X wants a square")

    model = nn.Sequential(nn.Linear(4, 4, rng=0), X())
    trainer = Trainer(model, nn.MSELoss(), optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(ValueError, match=r"X of shape \(8, 4\) does not suit the model.*X wants"):
        trainer.fit(np.ones((8, 4)), np.ones((8, 4)), 1, progress=False)


@pytest.mark.parametrize("count", [1, 3, 4, 50])
def test_a_tuple_of_rows_is_not_taken_for_inputs(count):
    """Four rows of four features look like four inputs of four rows: then the model complains."""
    trainer = classifier()
    rows, labels = tuple(X[:count]), LABELS[:count]
    words = "X is a tuple of .*, as many as y has rows; the parts .* write np.array"
    if count == 4:
        words = "X is a tuple of 4, the model takes 1 at most; the parts .* write np.array"
    for use in (
        lambda: trainer.fit(rows, labels, 1, progress=False),
        lambda: trainer.evaluate(rows, labels),
    ):
        with pytest.raises(TypeError if count == 4 else ValueError, match=words):
            use()
    with pytest.raises(TypeError, match="X is a tuple of 50, the model takes 1 at most"):
        trainer.predict(tuple(X))
    assert trainer.optimizer.steps == 0
