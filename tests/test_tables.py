"""Tables in text files: how they are read, and how columns become inputs of a network."""

from __future__ import annotations

import csv
import io
import json
import random
from datetime import datetime, timedelta

import numpy as np
import pytest

from minidl.tables.encoders import Categories, Numbers, from_dict
from minidl.tables.features import Features, is_identifier, learn_feature
from minidl.tables.reading import Column, read_table
from minidl.tables.splitting import split_rows
from minidl.tables.target import read_target, with_target
from minidl.tables.text_file import TableError
from minidl.tables.words import (
    DECIMAL_COMMA,
    MISSING,
    POINT,
    THOUSANDS,
    date_style,
    dates,
    number_style,
    numbers,
)

pytest.importorskip("pandas")


def written(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "table.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return path


def column(*words, name="x", comma=False):
    """A column with these words in its rows; None is a missing one."""
    known = [*dict.fromkeys(word for word in words if word is not None)]
    codes = [-1 if word is None else known.index(word) for word in words]
    return Column(name, tuple(known), np.array(codes), comma)


def words_of(column):
    return [None if code < 0 else column.words[code] for code in column.codes]


# --- reading ------------------------------------------------------------------------------------

ALPHABET = ["a", "b", " ", ",", ";", "\t", '"', "\n", "é", "1", ".5", "-", "?", "NA", "漢"]


@pytest.mark.parametrize("seed", range(30))
def test_any_table_is_read_as_it_was_written(tmp_path, seed):
    draw = random.Random(seed)
    delimiter, end = draw.choice(",;\t"), draw.choice(["\n", "\r\n", "\r"])
    width, rows = draw.randint(2, 5), draw.randint(1, 40)
    table = [
        ["".join(draw.choices(ALPHABET, k=draw.randint(0, 4))) for _ in range(width)]
        for _ in range(rows)
    ]
    file = io.StringIO(newline="")
    quoting = draw.choice([csv.QUOTE_ALL, csv.QUOTE_MINIMAL])
    writer = csv.writer(file, delimiter=delimiter, lineterminator=end, quoting=quoting)
    writer.writerow([f"column {place} x" for place in range(width)])
    writer.writerows([field.replace("\n", end) for field in row] for row in table)
    text = file.getvalue()
    found = read_table(written(tmp_path, text, draw.choice(["utf-8", "utf-8-sig", "utf-16"])))
    assert [*found.columns] == [f"column {place} x" for place in range(width)]
    for place, name in enumerate(found.columns):
        words = [row[place].strip() for row in table]
        wanted = [None if word.lower() in MISSING else word for word in words]
        assert words_of(found.columns[name]) == wanted


def test_encodings_and_the_note_on_latin_1(tmp_path):
    text = "city,n\nKöln,1\nBonn,2\n"
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "latin-1"):
        table = read_table(written(tmp_path, text, encoding))
        assert table.columns["city"].words == ("Köln", "Bonn")
        notes = {"utf-16": ["read as UTF-16"], "latin-1": ["line 2 is not UTF-8: read as Latin-1"]}
        assert table.notes == notes.get(encoding, [])


def test_delimiters_are_found_where_fields_hold_others(tmp_path):
    for text in (
        'a;b\n"1,5,5";2\n3,5;4\n',
        'sep=;\na;b\n"1,5,5";2\n3,5;4\n',
        'a\tb\n"1,5,5"\t2\n3,5\t4\n',
        'a,b\n"1,5,5",2\n"3,5",4\n',
        'a , b,\n "1,5,5", 2,\n\n\n"3,5",4\n',
    ):
        columns = read_table(written(tmp_path, text)).columns
        assert {name: words_of(column) for name, column in columns.items()} == {
            "a": ["1,5,5", "3,5"],
            "b": ["2", "4"],
        }, text


def test_columns_without_a_name_get_one(tmp_path):
    assert [*read_table(written(tmp_path, ",a,,b\n0,1,2,3\n")).columns] == [
        *("column 0", "a", "column 2", "b")
    ]


# --- words --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "comma", "style", "values"),
    [
        (["1", "-2.5", "+1e3", ".5"], False, POINT, [1, -2.5, 1000, 0.5]),
        (["0,5", "-12,25", "3"], False, DECIMAL_COMMA, [0.5, -12.25, 3]),
        (["1.234,5", "0,5", "1.234"], True, DECIMAL_COMMA, [1234.5, 0.5, 1234]),
        (["1,234", "1,234,567.5", "12"], False, THOUSANDS, [1234, 1234567.5, 12]),
        (["1,234", "2,500"], True, DECIMAL_COMMA, [1.234, 2.5]),
        (["1,234", "2,500"], False, THOUSANDS, [1234, 2500]),
        (["1.234", "2.500"], True, POINT, [1.234, 2.5]),
        (["1", "-"], False, POINT, [1, np.nan]),
    ],
)
def test_numbers_are_read_as_they_are_written(words, comma, style, values):
    assert number_style(words, np.ones(len(words)), comma) == style
    assert np.array_equal(numbers(words, style), values, equal_nan=True)


@pytest.mark.parametrize("words", [["a", "b"], ["1_000"], ["1,2,3"], ["12 km"], ["٣"], [], ["-"]])
def test_other_words_are_no_numbers(words):
    for comma in (False, True):
        assert number_style(words, np.ones(len(words)), comma) is None


def test_a_column_of_numbers_may_hold_some_words():
    counts = np.array([45, 45, 10])
    assert number_style(["1", "2", "broken"], counts, False) == POINT
    assert number_style(["1", "2", "broken"], counts + np.array([0, 0, 1]), False) is None
    assert number_style(["1", "2", "none"], counts + np.array([0, 0, 50]), False) == POINT


@pytest.mark.parametrize(
    ("words", "order", "days"),
    [
        (["1970-01-02", "1970-12-31"], "year-month-day", [1, 364]),
        (["1970/1/2 06:00", "1970/12/31"], "year-month-day", [1.25, 364]),
        (["1970-01-02T12:00:00.5Z", "1970-01-03T00:00:00+01:00"], "year-month-day", [1.5, 2]),
        (["02.01.1970", "31.12.1970"], "day-month-year", [1, 364]),
        (["02.01.1970", "03.01.1970"], "day-month-year", [1, 2]),
        (["01/02/1970", "12/31/1970"], "month-day-year", [1, 364]),
        (["01/02/1970", "01/03/1970"], "month-day-year", [1, 2]),
        (["02/01/1970", "31/12/1970"], "day-month-year", [1, 364]),
        (["01.02.1970", "12.31.1970"], "month-day-year", [1, 364]),
        (["-", "1970-01-02", *["1970-02-01"] * 8], "year-month-day", [np.nan, 1, *[31] * 8]),
    ],
)
def test_dates_are_read_as_they_are_written(words, order, days):
    style = date_style(words, np.ones(len(words)))
    assert style.order == order
    assert style.times == any(day % 1 for day in days if not np.isnan(day))
    assert np.array_equal(dates(words, style), days, equal_nan=True)


@pytest.mark.parametrize(
    "words", [["a"], [], ["2020-13-01", "2020-14-01"], ["2020-01-01", "01.01.2020"], ["12:30"]]
)
def test_other_words_are_no_dates(words):
    assert date_style(words, np.ones(len(words))) is None


# --- encoders -----------------------------------------------------------------------------------


def test_numbers_are_standardised_and_what_is_missing_is_the_median():
    words = ["1", "2", "2", "7", None, "none"]
    given = column(*words)
    encoder = learn_feature(given, np.arange(6)).encoder
    assert encoder == Numbers(POINT, 2.0, 3.0, pytest.approx(np.std([1, 2, 2, 7])), True)
    values = np.array([1, 2, 2, 7, 2, 2])
    indicator = [0, 0, 0, 0, 1, 1]
    expected = np.stack([(values - 3) / np.std([1, 2, 2, 7]), indicator], axis=1)
    assert encoder.encode(given) == pytest.approx(expected.astype(np.float32))


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e307])
def test_numbers_of_any_size_are_standardised(scale):
    values = np.array([-9.0, -1, 0, 2, 8]) * scale
    encoder = Numbers.learn(POINT, values)
    inputs = encoder.encode_values(values)
    assert inputs.mean() == pytest.approx(0, abs=1e-6)
    assert inputs.std() == pytest.approx(1)


def test_equal_numbers_give_no_input_whatever_rounding_says():
    assert Numbers.learn(POINT, np.full(1000, 0.1)).width == 0
    assert Numbers.learn(POINT, np.append(np.full(1000, 0.1), np.nan)).width == 1
    assert Numbers.learn(POINT, np.array([np.nan])).width == 0


def test_categories_are_those_of_scikit_learn():
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    rng = np.random.default_rng(0)
    words = rng.choice(["a", "b", "c", "d"], 500, p=[0.6, 0.39, 0.005, 0.005])
    others = rng.choice(["c", "new", "b", "d", "a"], 100)
    theirs = preprocessing.OneHotEncoder(
        min_frequency=5, sparse_output=False, handle_unknown="infrequent_if_exist"
    ).fit(words[:, None])
    ours = Categories.learn(column(*words))
    assert ours.other
    for given in (words, others):
        assert (ours.encode(column(*given)) == theirs.transform(given[:, None])).all()


def test_an_unknown_category_sets_no_input_where_none_was_rare():
    encoder = Categories.learn(column(*["a", "b", None] * 5))
    assert encoder == Categories(("a", "b", "(missing)"), False)
    assert encoder.encode(column("b", None, "z", "a")).tolist() == [
        *([0, 1, 0], [0, 0, 1], [0, 0, 0], [1, 0, 0])
    ]


def test_dates_are_days_and_angles():
    start = datetime(2019, 3, 1)
    days = [start + timedelta(day, hours=7 * day % 24) for day in range(400)]
    given = column(*(f"{day:%Y-%m-%d %H:%M}" for day in days), None)
    encoder = learn_feature(given, np.arange(401)).encoder
    inputs = encoder.encode(given)
    assert inputs.shape == (401, encoder.width) == (401, 8)
    assert inputs[:, 1].tolist() == [0] * 400 + [1]  # which date is missing
    sine, cosine = inputs[:400, 4], inputs[:400, 5]  # of the week
    weekday = np.array([day.weekday() for day in days])
    midnight = [day.hour == 0 for day in days]
    for number in range(7):
        rows = (weekday == number) & midnight
        assert np.ptp(sine[rows]) < 1e-3
        assert np.ptp(cosine[rows]) < 1e-3


@pytest.mark.parametrize(
    "given",
    [
        column("1", "2", None, "3,5"),
        column(*["a", "b", None] * 5, "rare"),
        column("2020-01-01", "2021-05-07 12:00", None),
    ],
)
def test_encoders_are_written_as_json_and_read_back(given):
    encoder = learn_feature(given, np.arange(len(given.codes))).encoder
    again = from_dict(json.loads(json.dumps(encoder.as_dict())))
    assert again == encoder
    assert (again.encode(given) == encoder.encode(given)).all()


def test_what_is_learned_comes_from_the_rows_to_train_on_alone():
    given = column("1", "3", "100", None)
    assert learn_feature(given, np.array([0, 1])).encoder == Numbers(POINT, 2, 2, 1, False)
    categories = column(*["a", "b"] * 5, *["late"] * 30)
    assert learn_feature(categories, np.arange(10)).encoder == Categories(("a", "b"), False)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (column(*[None] * 30), "empty"),
        (column(*["a"] * 30), "constant"),
        (column(*["1.5"] * 30), "constant"),
        (column(*["2020-01-01"] * 30), "constant"),
        (column(*map(str, range(50, 80)), name="customer_id"), "numbers the rows: an identifier"),
        (column(*(f"note {row}" for row in range(30))), "30 different words, most of them"),
        (column(*(f"w{row % 150}" for row in range(900))), "150 different words, 150 of them freq"),
    ],
)
def test_columns_that_teach_nothing_are_left_out(given, why):
    feature = learn_feature(given, np.arange(len(given.codes)))
    assert (feature.encoder, feature.kind, feature.width) == (None, "left out", 0)
    assert feature.words.startswith(why)


@pytest.mark.parametrize(
    ("name", "words", "expected"),
    [
        *[(name, "numbers", True) for name in ("id", "ID", "user_id", "PassengerId", "row")],
        *[(name, "numbers", False) for name in ("paid", "grid", "bid", "age", "acid", "days")],
        ("price index", "fractions", False),
        ("column 0", "numbers", False),
        ("column 0", "count", True),
        ("uuid", "words", True),
        ("id", "equal", False),
    ],
)
def test_an_identifier_has_the_name_of_one_and_no_two_equal_entries(name, words, expected):
    entries = {
        "numbers": [str(row * row) for row in range(40)],
        "count": [str(row + 7) for row in range(40)],
        "fractions": [str(row + 0.5) for row in range(40)],
        "words": [f"{row:x}-f" for row in range(40)],
        "equal": [str(row // 2) for row in range(40)],
    }
    assert is_identifier(column(*entries[words], name=name)) == expected


def test_a_column_whose_entries_all_lie_in_other_rows_is_left_out():
    for words in (["2020-01-01", "2020-02-01"], ["1", "2"]):
        given = column("none", *words * 5, *[None] * 5)
        feature = learn_feature(given, np.array([0, 12, 13]))
        assert feature.encoder is None, words


def test_features_encode_any_rows_and_are_written_as_json():
    rng = np.random.default_rng(0)
    columns = {
        "n": column(*map(str, rng.normal(size=100)), name="n"),
        "c": column(*rng.choice(["a", "b"], 100), name="c"),
        "constant": column(*["x"] * 100, name="constant"),
    }
    features = Features.learn(list(columns.values()), np.arange(60))
    inputs = features.encode(columns, np.arange(100))
    assert inputs.shape == (100, 3)
    assert inputs.dtype == np.float32
    some = np.array([7, 99, 3])
    again = Features.from_list(json.loads(json.dumps(features.as_list())))
    assert (again.encode(columns, some) == inputs[some]).all()


# --- target -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "task", "classes"),
    [
        (["yes", "no"], "auto", ("no", "yes")),
        (["none", "mild"], "auto", ("mild", "none")),
        (["1", "0"], "auto", ("0", "1")),
        (["10", "9", "2.0"], "auto", ("2", "9", "10")),
        (["0.1", "0.2"], "auto", ("0.1", "0.2")),
        (["0.1", "0.2", "0.3"], "auto", ()),
        ([str(number) for number in range(21)], "auto", ()),
        ([str(number) for number in range(20)], "auto", tuple(map(str, range(20)))),
        ([str(number) for number in range(21)], "classification", tuple(map(str, range(21)))),
        (["1", "0"], "regression", ()),
    ],
)
def test_the_task_follows_from_the_target(words, task, classes):
    rows = words * 5
    target = read_target(column(*rows), task)
    assert target.classes == classes
    assert bool(target.why) == (task == "auto")
    if classes:
        found = [target.classes[label] for label in target.values]
        assert found == [word.removesuffix(".0") for word in rows]
    else:
        assert target.values.tolist() == [float(word) for word in rows]


def test_words_of_equal_numbers_are_one_class():
    target = read_target(column(*["1", "1.0", "2", "2e0"] * 3), "auto")
    assert target.classes == ("1", "2")
    assert target.values.tolist() == [0, 0, 1, 1] * 3


def test_rows_without_a_target_are_left_out_with_a_note(tmp_path):
    lines = [f"{row},{row % 2 if row % 4 else ''}" for row in range(40)]
    table, target = with_target(read_table(written(tmp_path, "\n".join(["x,y", *lines]))), "y")
    assert table.notes == ["10 of 40 rows left out: 'y' is missing there"]
    assert words_of(target) == [str(row % 2) for row in range(40) if row % 4]
    assert words_of(table.columns["x"]) == [str(row) for row in range(40) if row % 4]


def test_a_name_that_is_nearly_right_is_suggested(tmp_path):
    table = read_table(written(tmp_path, "Price,Size\n" + "1,2\n" * 20))
    for name, near in (("price", "Price"), ("Prize", "Price"), ("SIZES", "Size")):
        with pytest.raises(TableError, match=f"no column '{name}'; did you mean '{near}'"):
            with_target(table, name)
    with pytest.raises(TableError, match="no column 'colour'; its columns are 'Price', 'Size'"):
        with_target(table, "colour")


# --- splits -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_every_class_is_in_every_part_in_its_share(seed):
    rng = np.random.default_rng(seed)
    counts = rng.integers(3, 200, 6)
    labels = rng.permutation(np.repeat(np.arange(6), counts))
    split = split_rows(len(labels), labels, seed)
    assert np.array_equal(np.sort(np.concatenate(split)), np.arange(len(labels)))
    for part, share in zip(split, (0.65, 0.15, 0.2), strict=True):
        assert (np.diff(part) > 0).all()
        found = np.bincount(labels[part], minlength=6)
        assert (found >= 1).all()
        assert (np.abs(found - share * counts) <= 1.001).all()
    assert not np.array_equal(split.test, split_rows(len(labels), labels, seed + 1).test)


def test_rows_without_classes_are_split_in_the_same_shares():
    assert [len(part) for part in split_rows(1000, None, 0)] == [650, 150, 200]
