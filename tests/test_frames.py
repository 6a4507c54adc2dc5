"""Frames and series of pandas and polars in ``fit``, ``evaluate`` and ``predict``."""

from __future__ import annotations

import datetime
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

import minidl
from minidl import Trainer, nn, optim

ROWS = 60
_rng = np.random.default_rng(0)
NUMBERS = {
    "age": _rng.normal(size=ROWS),
    "member": _rng.random(ROWS) > 0.5,
    "visits": _rng.integers(0, 9, ROWS),
}
ARRAY = np.column_stack([column.astype(float) for column in NUMBERS.values()])
LABELS = _rng.integers(0, 2, ROWS)


@pytest.fixture(params=["pandas", "polars"])
def library(request):
    return pytest.importorskip(request.param)


def classifier(features=3, loss=None, outputs=2):
    model = nn.Sequential(nn.Linear(features, 8), nn.ReLU(), nn.Linear(8, outputs), rng=0)
    loss = loss or nn.CrossEntropyLoss()
    return Trainer(model, loss, optim.Adam(model.parameters(), lr=0.01), rng=0)


def fit(trainer, X, y=LABELS, **options):
    return trainer.fit(X, y, 2, progress=False, **options)


def series(library, values):
    return library.Series("y", values) if library.__name__ == "polars" else library.Series(values)


def with_column(library, column):
    return library.DataFrame({**NUMBERS, "other": column})


# --- what goes in -------------------------------------------------------------------------------


def test_a_frame_trains_as_its_array_does(library):
    frame, labels = library.DataFrame(NUMBERS), series(library, LABELS)
    weights = series(library, _rng.random(ROWS))
    of_frame, of_array = classifier(), classifier()
    given = {"sample_weight": weights, "validation": (frame, labels)}
    arrays = {"sample_weight": np.asarray(weights), "validation": (ARRAY, LABELS)}
    histories = fit(of_frame, frame, labels, **given), fit(of_array, ARRAY, **arrays)
    assert histories[0].as_dict().keys() == histories[1].as_dict().keys()
    assert histories[0]["val_loss"] == histories[1]["val_loss"]
    assert of_frame.evaluate(frame, labels) == of_array.evaluate(ARRAY, LABELS)
    assert (of_frame.predict(frame) == of_array.predict(ARRAY)).all()


def test_regression_takes_frames_of_targets(library):
    targets = library.DataFrame({"y": NUMBERS["age"] * 2})
    trainer = classifier(loss=nn.MSELoss(), outputs=1)
    fit(trainer, library.DataFrame(NUMBERS), targets)
    assert trainer.predict(ARRAY).shape == (ROWS, 1)


@pytest.mark.parametrize("dtype", ["Int64", "UInt8", "Float32", "boolean", "int8", "float32"])
def test_nullable_numbers_of_pandas_are_numbers(dtype):
    pd = pytest.importorskip("pandas")
    column = pd.array([1, 0] * (ROWS // 2), dtype=dtype)
    trainer = classifier(4)
    fit(trainer, with_column(pd, column))
    plain = np.column_stack([ARRAY, [1, 0] * (ROWS // 2)])
    assert (trainer.predict(with_column(pd, column)) == trainer.predict(plain)).all()


def test_integers_keep_all_their_digits():
    pd = pytest.importorskip("pandas")
    model = nn.Sequential(nn.Embedding(5, 2), nn.Flatten(), nn.Linear(4, 2), rng=0)
    trainer = Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters()), rng=0)
    words = pd.DataFrame({"a": [0, 4] * 30, "b": [3, 1] * 30}, dtype="Int64")
    fit(trainer, words)
    assert trainer.predict(words).shape == (ROWS, 2)


def test_a_frame_is_standardised_as_its_array_is(library):
    frame = library.DataFrame(NUMBERS)
    of_frame, of_array = nn.Standardize(3).adapt(frame), nn.Standardize(3).adapt(ARRAY)
    assert (of_frame.mean == of_array.mean).all()
    assert (of_frame.std == of_array.std).all()
    with pytest.raises(TypeError, match=r"Standardize\(4\): data: .*'other' holds words: one-hot"):
        nn.Standardize(4).adapt(with_column(library, ["x", "y"] * (ROWS // 2)))


def test_the_row_labels_of_pandas_do_not_matter():
    pd = pytest.importorskip("pandas")
    shuffled = pd.DataFrame(NUMBERS, index=np.arange(ROWS)[::-1])
    given, array = classifier(), classifier()
    fit(given, shuffled, pd.Series(LABELS, index=np.arange(ROWS) + 7))
    fit(array, ARRAY)
    assert (given.predict(ARRAY) == array.predict(ARRAY)).all()


def test_importing_minidl_imports_neither():
    program = (
        "import sys; from minidl import Trainer, nn, optim;"
        "m = nn.Linear(2, 2, rng=0);"
        "t = Trainer(m, nn.CrossEntropyLoss(), optim.SGD(m.parameters()));"
        "t.fit([[1, 2], [3, 4]], [0, 1], 1, progress=False);"
        "assert not {'pandas', 'polars', 'sklearn'} & set(sys.modules)"
    )
    root = Path(minidl.__file__).parents[1]
    subprocess.run([sys.executable, "-c", program], check=True, cwd=root)


# --- names of columns ---------------------------------------------------------------------------


def test_column_names_are_kept_and_compared(library):
    frame, trainer = library.DataFrame(NUMBERS), classifier()
    assert trainer.columns == ()
    fit(trainer, frame)
    assert trainer.columns == (("age", "member", "visits"),)
    turned = frame[["member", "age", "visits"]]
    others = library.DataFrame({"years": NUMBERS["age"], **NUMBERS})[["years", "member", "visits"]]
    order = r"X: its columns are in another order .*, column 0 is 'member' and was 'age'; select"
    for given, words in (
        (turned, order),
        (frame[["age", "member"]], r"X: its columns are not those .* given; missing: 'visits'"),
        (others, r"given; unknown: 'years'; missing: 'age'"),
    ):
        for use in (
            lambda X: fit(trainer, X),
            lambda X: trainer.evaluate(X, LABELS),
            trainer.predict,
        ):
            with pytest.raises(ValueError, match=words):
                use(given)
    with pytest.raises(ValueError, match=f"validation {order}"):
        fit(trainer, frame, validation=(turned, LABELS))
    assert trainer.columns == (("age", "member", "visits"),)


def test_arrays_have_no_names_to_compare(library):
    frame, trainer = library.DataFrame(NUMBERS), classifier()
    fit(trainer, ARRAY)
    assert trainer.columns == ()
    fit(trainer, frame)
    fit(trainer, ARRAY)
    assert trainer.columns == (("age", "member", "visits"),)
    assert (trainer.predict(frame) == trainer.predict(ARRAY)).all()


def test_names_of_refused_data_are_not_kept(library):
    trainer = classifier(4)
    with pytest.raises(ValueError, match="inf in column 'other'"):
        fit(trainer, with_column(library, [np.inf] * ROWS))
    assert trainer.columns == ()


def test_only_names_that_are_strings_are_names():
    pd = pytest.importorskip("pandas")
    trainer = classifier()
    fit(trainer, pd.DataFrame(ARRAY))
    assert trainer.columns == ()
    fit(trainer, pd.DataFrame(ARRAY, columns=["a", 1, "b"]))
    assert trainer.columns == ()
    fit(trainer, pd.DataFrame(ARRAY, columns=["a", "b", "a"]))
    with pytest.raises(ValueError, match="given; missing: 'b'"):
        trainer.predict(pd.DataFrame(ARRAY, columns=["a", "a", "a"]))
    with pytest.raises(ValueError, match="X: fit was given 'a' another number of times"):
        trainer.predict(pd.DataFrame(ARRAY[:, :2], columns=["a", "b"]))


def test_of_many_columns_some_are_named():
    pd = pytest.importorskip("pandas")
    trainer, X = classifier(9), np.zeros((ROWS, 9))
    fit(trainer, pd.DataFrame(X, columns=list("abcdefghi")))
    with pytest.raises(ValueError, match="unknown: 'A', 'B', 'C', 'D', 'E' and 4 more; missing"):
        trainer.predict(pd.DataFrame(X, columns=list("ABCDEFGHI")))


# --- what does not go in ------------------------------------------------------------------------

FILL = r"30 missing values, the first in row 1: fill them \(docs/tables.md shows the pipeline\)"
HALF = ROWS // 2
REFUSED = {
    "words": (["x", "y"] * HALF, r"words: one-hot encode it \(docs/tables.md shows the pipeline"),
    "dates": ([datetime.date(2020, 1, 1)] * ROWS, "dates: make them numbers"),
    "times": ([datetime.datetime(2020, 1, 1)] * ROWS, "dates: make them numbers"),
    "durations": ([datetime.timedelta(1)] * ROWS, "durations: make them numbers"),
    "decimals": ([Decimal("1.5")] * ROWS, "objects of type Decimal: convert it to numbers"),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("use", ["fit", "evaluate", "predict"])
def test_a_column_that_is_in_the_way_is_named(library, kind, use):
    column, words = REFUSED[kind]
    frame, trainer = with_column(library, column), classifier(4)
    calls = {
        "fit": lambda: fit(trainer, frame),
        "evaluate": lambda: trainer.evaluate(frame, LABELS),
        "predict": lambda: trainer.predict(frame),
    }
    with pytest.raises(TypeError, match=f"X: expected real numbers; column 'other' holds {words}"):
        calls[use]()


@pytest.mark.parametrize("column", [["x", None] * HALF, [True, None] * HALF])
def test_missing_values_are_named_with_column_and_row(library, column):
    with pytest.raises(ValueError, match=f"X: column 'other' has {FILL}"):
        fit(classifier(4), with_column(library, column))


def test_missing_floats_are_named_with_column_and_row(library):
    frame = with_column(library, [1.0, np.nan] * HALF)
    words = r"X: row 1 holds nan in column 'other'; .* \(docs/tables.md shows the pipeline\)"
    with pytest.raises(ValueError, match=words):
        fit(classifier(4), frame)
    infinite = with_column(library, [1.0] * (ROWS - 1) + [np.inf])
    with pytest.raises(ValueError, match=r"row 59 holds inf in column 'other'; .* are needed$"):
        fit(classifier(4), infinite)


@pytest.mark.parametrize("dtype", ["Int64", "Float64", "boolean"])
def test_missing_values_of_nullable_dtypes(dtype):
    pd = pytest.importorskip("pandas")
    column = pd.array([1, None] * HALF, dtype=dtype)
    with pytest.raises(ValueError, match=f"column 'other' has {FILL}"):
        fit(classifier(4), with_column(pd, column))
    with pytest.raises(ValueError, match="y has 30 missing values, the first in row 1: leave"):
        fit(classifier(), pd.DataFrame(NUMBERS), pd.Series(column))


def test_categories_are_no_numbers_even_if_they_are_of_numbers():
    pd = pytest.importorskip("pandas")
    frame = with_column(pd, pd.Categorical([1, 2] * HALF))
    with pytest.raises(TypeError, match="column 'other' holds categories: one-hot encode it"):
        fit(classifier(4), frame)


def test_categories_of_polars():
    pl = pytest.importorskip("polars")
    for dtype in (pl.Categorical, pl.Enum(["x", "y"])):
        column = pl.Series(["x", "y"] * HALF, dtype=dtype)
        with pytest.raises(TypeError, match="column 'other' holds categories"):
            fit(classifier(4), with_column(pl, column))
    with pytest.raises(TypeError, match=r"X: a LazyFrame holds no rows yet; write X.collect\(\)"):
        fit(classifier(), pl.LazyFrame(NUMBERS))


def test_advice_on_targets_is_code_that_works_for_tables(library):
    frame = library.DataFrame(NUMBERS)
    column = library.DataFrame({"y": LABELS})
    with pytest.raises(ValueError, match=r"; write np.asarray\(y\)\[..., 0\]$"):
        fit(classifier(), frame, column)
    fit(classifier(), frame, np.asarray(column)[..., 0])
    regression = classifier(loss=nn.MSELoss(), outputs=1)
    targets = series(library, NUMBERS["age"])
    with pytest.raises(ValueError, match=r"; write np.asarray\(y\)\[:, None\]$"):
        fit(regression, frame, targets)
    fit(regression, frame, np.asarray(targets)[:, None])
    words = series(library, ["a", "b"] * HALF)
    with pytest.raises(TypeError, match=r"classes, y = np.unique\(y, return_inverse=True\)"):
        fit(classifier(), frame, words)
    fit(classifier(), frame, np.unique(words, return_inverse=True)[1])
