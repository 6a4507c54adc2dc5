"""``minidl train csv``: what it learns, what it prints and writes, and how it complains."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import random
import re
import sys
import zipfile
from argparse import Namespace

import numpy as np
import pytest
from cli_helpers import run

import minidl
from minidl.cli import main, network
from minidl.saving import metadata
from minidl.tables.features import Features
from minidl.tables.reading import read_table
from minidl.tables.splitting import split_rows
from minidl.tables.target import read_target

pytest.importorskip("pandas")
SHORT = ["--target", "t", "--epochs", "3"]


def train(capsys, path, *arguments):
    """Run ``train csv`` and return what it printed."""
    status = main(["train", "csv", str(path), *arguments])
    output = capsys.readouterr()
    assert status == 0, output.err
    return output.out


def score(text):
    return float(re.search(r"^test (?:accuracy|R²): (-?\d\.\d{4})$", text, re.MULTILINE)[1])


# --- as good as a pipeline of scikit-learn ------------------------------------------------------


@pytest.fixture(scope="module")
def bundled(tmp_path_factory):
    """The sets that come with scikit-learn, as CSV files."""
    datasets = pytest.importorskip("sklearn.datasets")
    folder = tmp_path_factory.mktemp("bundled")
    for name in ("breast_cancer", "wine", "diabetes"):
        data = getattr(datasets, f"load_{name}")(as_frame=True)
        frame = data.frame
        if name != "diabetes":
            frame["target"] = np.array(data.target_names)[frame["target"]]
        frame.to_csv(folder / f"{name}.csv", index=False)
    return folder


def pipeline(frame, target, rows, seed):
    """The score of scikit-learn's own network on the rows that ``train csv`` tests on."""
    from sklearn.compose import TransformedTargetRegressor, make_column_selector
    from sklearn.compose import make_column_transformer as by_column
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    y = frame.pop("target")
    options = {"max_iter": 200, "random_state": seed}
    net = MLPClassifier(**options)
    if not target.is_classes:
        net = TransformedTargetRegressor(MLPRegressor(**options), transformer=StandardScaler())
    columns = by_column(
        (StandardScaler(), make_column_selector(dtype_include="number")),
        (OneHotEncoder(handle_unknown="ignore"), make_column_selector(dtype_exclude="number")),
    )
    others = np.setdiff1d(np.arange(len(frame)), rows)
    fitted = make_pipeline(columns, net).fit(frame.iloc[others], y.iloc[others])
    return fitted.score(frame.iloc[rows], y.iloc[rows])


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", ["breast_cancer", "wine", "diabetes"])
def test_scores_are_within_a_point_of_a_pipeline_of_scikit_learn(capsys, bundled, name):
    import pandas as pd

    path, differences = bundled / f"{name}.csv", []
    target = read_target(read_table(path).columns["target"], "auto")
    assert target.is_classes == (name != "diabetes")
    labels = target.values if target.is_classes else None
    for seed in range(8 if target.is_classes else 3):
        ours = train(capsys, path, "--target", "target", "--seed", str(seed), "--quiet")
        test = split_rows(len(target.values), labels, seed + 2).test
        theirs = pipeline(pd.read_csv(path), target, test, seed)
        differences.append(score(ours) - theirs)
    assert np.mean(differences) >= -0.01


# --- a messy file -------------------------------------------------------------------------------


def messy(path, rows, seed=0):
    """Write a file with all that goes wrong in files; return the accuracy of its true rule."""
    rng = np.random.default_rng(seed)
    age, income = rng.normal(45, 12, rows), rng.lognormal(10, 1, rows)
    city = rng.choice(['Bonn, "NRW"', "Kiel", "Ulm"], rows)
    day = rng.integers(0, 1500, rows)
    logit = 0.15 * (age - 45) + 2 * (np.log(income) - 10) + 3 * (city == "Kiel") - 1
    logit += 0.004 * (day - 750)
    churn = rng.random(rows) < 1 / (1 + np.exp(-logit))
    ages = np.where(rng.random(rows) < 0.02, "n/a", np.char.mod(" %.1f ", age))
    cities = np.where(rng.random(rows) < 0.02, "", np.char.add('"', city))
    dates = np.datetime_as_string(np.datetime64("2020-01-01") + day)
    answers = np.where(rng.random(rows) < 0.01, "", np.where(churn, "yes", "no"))
    with path.open("w", encoding="utf-8") as file:
        file.write('customer id,age,"income, yearly",city,joined,constant,comment,churn\n')
        for i in range(rows):
            quoted = cities[i] and '"' + cities[i][1:].replace('"', '""') + '"'
            file.write(
                f"{rows - i},{ages[i]},{income[i]:.2f},{quoted},{dates[i]},x,"
                f'"said ""{i}""",{answers[i]}\n'
            )
    return np.mean((logit > 0) == churn)


def test_a_messy_file_of_200_000_rows(capsys, tmp_path):
    path = tmp_path / "messy.csv"
    best = messy(path, 200_000)
    output = train(capsys, path, "--target", "churn", "--epochs", "5")
    assert best - 0.02 < score(output) < best + 0.01
    assert re.search(r"note: [\d,]+ of 200,000 rows left out: 'churn' is missing there", output)
    kinds = dict(re.findall(r"^(\S.*?)  +(number|category|date|left out)  ", output, re.MULTILINE))
    assert kinds == {
        "customer id": "left out",
        "age": "number",
        "income, yearly": "number",
        "city": "category",
        "joined": "date",
        "constant": "left out",
        "comment": "left out",
    }
    assert re.search(
        r"age  +number  +2  mean 4[45].?\d*, std 1[12].?\d*; [\d,]+ missing become", output
    )
    assert "2020-01-01 to 2024-02-08, year-month-day" in output
    assert "target 'churn': classes (words): no " in output


# --- what is printed and written ----------------------------------------------------------------


@pytest.fixture
def table(tmp_path):
    """A small file with two classes that can be told apart, and a number that can be computed."""
    rng = np.random.default_rng(0)
    x, city = rng.normal(size=300).round(3), rng.choice(["Bonn", "Kiel"], 300)
    t = np.where(x + (city == "Kiel") > 0.5, "yes", "no")
    y = (2 * x + 3 * (city == "Kiel") + 100).round(3)
    path = tmp_path / "table.csv"
    lines = [f"{a},{b},{c},{d}" for a, b, c, d in zip(x, city, y, t, strict=True)]
    path.write_text("\n".join(["x,city,y,t", *lines]))
    return path


def test_classes_are_reported_with_their_names(capsys, table):
    output = train(capsys, table, "--target", "t")
    assert score(output) > 0.9
    assert "195 rows to train on, 45 to validate (val_), 60 to test" in output
    assert "whose weights are restored" in output
    assert float(re.search(r"^balanced accuracy: (\S+)$", output, re.MULTILINE)[1]) > 0.9
    assert re.search(r"^always (yes|no): 0\.5\d*$", output, re.MULTILINE)
    matrix = output[output.index("true \\ predicted") :].splitlines()
    assert matrix[0].split()[-2:] == ["no", "yes"]
    assert [line.split()[0] for line in matrix[1:3]] == ["no", "yes"]
    cells = [int(cell.replace(".", "0")) for line in matrix[1:3] for cell in line.split()[1:]]
    assert sum(cells) == 60
    assert (cells[0] + cells[3]) / 60 == pytest.approx(score(output), abs=1e-4)


def test_numbers_are_reported_in_their_own_unit(capsys, table):
    output = train(capsys, table, "--target", "y")
    assert "target 'y': a number (" in output
    r2 = score(output)
    assert r2 > 0.95
    error, always = re.search(r"^RMSE: (\S+) \(always \S+: (\S+)\)$", output, re.MULTILINE).groups()
    assert 1 - (float(error) / float(always)) ** 2 == pytest.approx(r2, abs=0.02)
    values = np.array([float(line.split(",")[2]) for line in table.read_text().split()[1:]])
    assert float(always) == pytest.approx(values.std(), rel=0.2)


def test_a_network_that_cannot_learn_gets_a_diagnosis(capsys, table):
    deep = "--hidden 64,64,64,64,64,64,64,64 --activation sigmoid --init normal:0.05 --dropout 0"
    output = train(capsys, table, "--target", "t", "--epochs", "10", *deep.split())
    assert "\nNot healthy: vanishing_gradient" in output
    assert "healthy" not in train(capsys, table, "--target", "t").lower()


def test_quiet_prints_the_score_only(capsys, table):
    for target in ("t", "y"):
        assert len(train(capsys, table, "--target", target, "--quiet").splitlines()) == 1


def test_a_seed_decides_everything(capsys, table):
    runs = [train(capsys, table, *SHORT, "--seed", seed) for seed in ("3", "3", "4")]
    runs = [re.sub(r"[\d,.]+ (samples|rows)/s|took \S+", "", output) for output in runs]
    assert runs[0] == runs[1] != runs[2]


def test_options_of_the_network_are_those_of_train_idx(capsys, table):
    options = "--hidden 8,8 --activation tanh --norm --dropout 0.2 --optimizer sgd"
    output = train(capsys, table, *SHORT, *options.split(), "--batch-size", "16")
    for words in ("Linear(8, 8", "Tanh()", "BatchNorm(8)", "Dropout(0.2)", "SGD(", "size 16"):
        assert words in output
    assert "Residual" in train(capsys, table, *SHORT, "--residual")


def test_the_task_can_be_chosen(capsys, tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("\n".join(["x,t", *(f"{row / 7},{row % 5}" for row in range(100))]))
    assert "classes (5 different numbers" in train(capsys, path, *SHORT)
    assert "a number:" in train(capsys, path, *SHORT, "--task", "regression")


@pytest.mark.parametrize("target", ["t", "y"])
def test_a_saved_network_can_be_rebuilt_and_predicts_the_same(capsys, table, tmp_path, target):
    path = tmp_path / "model.safetensors"
    output = train(capsys, table, "--target", target, "--norm", "--save", str(path), "--seed", "1")
    assert f"network saved to {path}" in output
    kept = json.loads(metadata(path)["minidl.table"])
    features, classes = Features.from_list(kept["columns"]), kept["target"]["classes"]
    arguments = Namespace(**kept["network"], init=None, seed=0)
    model = network.build_model(features.width, len(classes) or 1, arguments)
    minidl.load(path, into=model)
    columns = read_table(table).columns
    answers = read_target(columns[target], "auto")
    labels = answers.values if classes else None
    test = split_rows(300, labels, 3).test
    with minidl.nn.evaluating():
        predicted = model(features.encode(columns, test))
    if classes:
        assert classes == ["no", "yes"]
        right = predicted.argmax(axis=1) == answers.values[test]
        assert right.mean() == pytest.approx(score(output), abs=1e-4)
    else:
        predicted = predicted[:, 0] * kept["scale"]["std"] + kept["scale"]["mean"]
        errors = predicted - answers.values[test]
        r2 = 1 - np.mean(errors**2) / answers.values[test].var()
        assert r2 == pytest.approx(score(output), abs=1e-3)


def test_a_picture_is_drawn(capsys, table, tmp_path):
    pytest.importorskip("matplotlib")
    for target in ("t", "y"):
        picture = tmp_path / f"{target}.png"
        output = train(capsys, table, "--target", target, "--epochs", "3", "--plot", str(picture))
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert f"plot written to {picture}" in output


def test_names_with_line_breaks_do_not_break_lines(capsys, tmp_path):
    path = tmp_path / "table.csv"
    rows = [f'{row % 7},"a\nb\u202e{row % 2}","c\nd{row % 2}"' for row in range(60)]
    path.write_text("\n".join(['"x\ny",z,t', *rows]))
    output = train(capsys, path, *SHORT)
    assert "\u202e" not in output
    assert all(words in output for words in ("x�y", "a�b�0", "c�d1"))


def test_of_many_columns_some_are_described(capsys, tmp_path):
    path = tmp_path / "table.csv"
    rng = np.random.default_rng(0)
    lines = [",".join(map(str, rng.normal(size=60).round(2))) + f",{row % 2}" for row in range(40)]
    path.write_text("\n".join([",".join([*(f"c{i}" for i in range(60)), "t"]), *lines]))
    assert "and 20 more columns, 20 inputs" in train(capsys, path, *SHORT)


def test_it_runs_as_a_program_of_its_own(table):
    done = run("train", "csv", str(table), *SHORT, text=True, encoding="utf-8")
    assert (done.returncode, done.stderr) == (0, "")
    assert "test accuracy: " in done.stdout


# --- files that hold no table -------------------------------------------------------------------

ROWS = [f"{row * 0.37 % 5:.2f},{row % 7},{'ab'[row % 2]}" for row in range(30)]
HEAD = "x,y,t"
GOOD = "\n".join([HEAD, *ROWS]) + "\n"


def with_line(number, line):
    """The good file with another line, counted from 1."""
    lines = GOOD.splitlines()
    lines[number - 1] = line
    return "\n".join(lines)


def rows_of(pattern, *answers):
    """A file with rows made from a pattern, and these answers in turn."""
    lines = [pattern.format(i=row) + f",{answers[row % len(answers)]}" for row in range(30)]
    return "\n".join([HEAD, *lines])


def zipped(name):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, GOOD)
    return file.getvalue()


RANDOM = np.random.default_rng(0)
BAD = {
    "empty": ("", "it is empty"),
    "blank": ("\n \n\n", "it is empty"),
    "a mark only": ("\ufeff", "it is empty"),
    "header only": ("x,y,t\n", "it has a header and no rows"),
    "one row": ("x,y,t\n1,2,a\n", "it has 1 row with a target, and 10 are the least"),
    "few rows": ("\n".join([HEAD, *ROWS[:9]]), "it has 9 rows with a target, and 10 are"),
    "binary": (RANDOM.bytes(4000), "holds a NUL byte: it is binary"),
    "binary without NUL": (bytes(RANDOM.integers(1, 256, 4000).tolist()), "it is binary: 4"),
    "NUL": (GOOD.replace("0.37", "0.\x0037"), "line 3 holds a NUL byte"),
    "UTF-16 without a mark": (GOOD.encode("utf-16-le"), "line 1 holds a NUL byte: .*UTF-16"),
    "UTF-32": (GOOD.encode("utf-32"), "it is text in UTF-32; write it in UTF-8"),
    "half a UTF-16": (b"\xff\xfe\x00\xd8a\x00", "it begins as UTF-16 and is not"),
    "gzip": (gzip.compress(GOOD.encode()), "it is a gzip file; unpack it first"),
    "bzip2": (bz2.compress(GOOD.encode()), "it is a bzip2 file; unpack it first"),
    "xz": (lzma.compress(GOOD.encode()), "it is an xz file; unpack it first"),
    "zip": (zipped("table.csv"), "it is a zip file or a workbook of Excel; save the sheet"),
    "workbook": (zipped("xl/workbook.xml"), "it is a zip file or a workbook of Excel; save"),
    "old workbook": (b"\xd0\xcf\x11\xe0\xa1\xb1" + bytes(99), "it is a workbook of Excel; save"),
    "Parquet": (b"PAR1" + bytes(99), "it is a Parquet file; write it as CSV"),
    "SQLite": (b"SQLite format 3\0" + bytes(99), "it is a database of SQLite"),
    "PDF": (b"%PDF-1.4\n", "it is a PDF document"),
    "pickle": (pickle.dumps({"a": [1] * 100}), "holds a NUL byte: it is binary"),
    "JSON": (json.dumps([{"x": 1, "t": "a"}] * 20), "it is JSON; a header and rows"),
    "JSON object": (json.dumps({"x": [1] * 9, "t": "a"}), "it is JSON; a header and rows"),
    "JSON lines": ('{"x": 1, "t": "a"}\n' * 20, "it is JSON; a header and rows"),
    "HTML": ("<!DOCTYPE html>\n<html><table></table></html>", "it is HTML or XML"),
    "HTML table": ("<table><tr><td>1,2</td></tr></table>", "it is HTML or XML"),
    "XML": ("<?xml version='1.0'?><a/>", "it is HTML or XML"),
    "prose": ("A text\nthat holds no table\n" * 10, "it has one column only: fields must lie"),
    "one column": ("t\n" + "a\nb\n" * 20, "it has one column only: fields must lie"),
    "target alone": ("t,\n" + "a,\nb,\n" * 20, "it has one column only: fields must lie"),
    "bars": (GOOD.replace(",", "|"), "it has one column only: fields must lie between commas"),
    "long row": (with_line(8, "1,2,a,9"), "line 8 has 4 fields, the header has 3"),
    "longer row": (with_line(8, "1,2,a,9,9,9"), "line 8 has 6 fields, the header has 3"),
    "long first row": (with_line(2, "1,2,a,9"), "line 2 has 4 fields, the header has 3"),
    "all rows long": (rows_of("1,2,3", "a", "b"), "line 2 has 4 fields, the header has 3"),
    "after blank lines": ("\n\n" + with_line(8, "1,a"), "line 10 has 2 fields, the header has 3"),
    "after sep": ("sep=,\n" + with_line(8, "1,a"), "line 9 has 2 fields, the header has 3"),
    "short row": (with_line(8, "1,a"), "line 8 has 2 fields, the header has 3"),
    "last row short": (with_line(31, "1"), "line 31 has 1 field, the header has 3"),
    "lines within quotes": (
        with_line(5, '1,"2\n\n3",a') + "\n1,a",
        "line 34 has 2 fields, the header has 3",
    ),
    "open quotes": (with_line(8, '1,"2,a'), "that begins in line 8 has a quotation that is never"),
    "open quotes in the header": ('"x,y,t\n1,2,a\n3,4,b\n', "line 1 has a quotation that is never"),
    "huge field": (with_line(8, f"1,{'z' * 200_000},a"), "line 8 has .* over 131,072 characters"),
    "long field": (with_line(8, f"1,{'z' * 120_000},a"), "a field has 120,000 characters"),
    "equal names": ("t," + GOOD[2:], "2 columns are called 't': give each a name of its own"),
    "no header": ("1,2,3\n" * 20, r"first row holds numbers only \(1, 2, 3, ...\): it should"),
    "blank header": (",,\n" + "\n".join(ROWS), "its first row is blank: it should name"),
    "too many columns": (",".join(["a"] * 10_001) + "\n1", "it has 10,001 columns, and 10,000"),
    "no answers": (rows_of("{i},2", ""), "the target 't' is missing in every row"),
    "few answers": (rows_of("{i},2", *"aaaaab", *[""] * 24), "it has 6 rows with a target"),
    "constant": (rows_of("{i},2", "a"), "the target 't' is constant: 'a' in all rows"),
    "constant number": (rows_of("{i},2", "5", "5.0"), "the target 't' is constant: '5' in all"),
    "one of a class": (with_line(8, "1,2,c"), "has 3 classes, and 1 of them fewer .*: 'c'; leave"),
    "only names": (
        rows_of("{i},2", *(f"n{row}" for row in range(30))),
        "has 30 classes, and 30 of them fewer .* 'n7' and 22 more",
    ),
    "nothing known": (rows_of(",", "a", "b"), r"no column is left .* \('x': empty; 'y': empty\)"),
    "nothing varies": (rows_of("1,z", "a", "b"), "no column is left .*'x': constant"),
    "infinity": (with_line(8, "inf,2,a"), "column 'x' holds 'inf': numbers must be finite"),
    "beyond float64": (with_line(8, "1e999,2,a"), "column 'x' holds '1e999': numbers must"),
    "infinite answer": (rows_of("{i},2", "1.5", "2.5", "-inf"), "column 't' holds '-inf': numb"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_one_clear_line(capsys, tmp_path, kind):
    content, words = BAD[kind]
    path = tmp_path / "bad.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    complains(capsys, [str(path), *SHORT], words)


def complains(capsys, arguments, words):
    assert main(["train", "csv", *arguments]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert len(output.err.splitlines()) == 1
    assert re.search(words, output.err)
    assert len(output.err) < 400


def test_wrong_names_and_arguments_are_one_clear_line(capsys, tmp_path):
    path, missing = tmp_path / "good.csv", tmp_path / "missing.csv"
    path.write_text(GOOD)
    file = str(path)
    for arguments, words in (
        ([str(missing), *SHORT], r"missing.csv: No such file or directory$"),
        ([str(tmp_path), *SHORT], "Is a directory$"),
        ([file, "--target", "T"], "there is no column 'T'; did you mean 't'?"),
        ([file, "--target", "price"], "no column 'price'; its columns are 'x', 'y', 't'"),
        ([file, *SHORT, "--task", "regression"], "target 't' holds words that are no numbers: 'a'"),
        ([file, "--target", "x", "--task", "classification"], "has 30 classes, and 30 of them"),
        ([file, *SHORT, "--save", str(tmp_path)], "cannot save .* it is a folder"),
        ([file, *SHORT, "--save", "/no/where"], "cannot save /no/where: there is no folder /no"),
    ):
        complains(capsys, arguments, words)


@pytest.mark.parametrize(
    "text",
    [
        GOOD.replace("\n", "\r\n"),
        GOOD.replace("\n", "\r"),
        GOOD.replace("\n", "\n\n"),
        GOOD.replace("\n", ",\n"),
        with_line(8, "1,2,a,"),
        GOOD.replace(",", "\t"),
        GOOD.replace(",", ";").replace(".", ","),
        "sep=;\n" + GOOD.replace(",", ";"),
        with_line(8, '1,"2"x,a'),
        with_line(8, ",,"),
        "\ufeff" + GOOD,
        "\n\n" + GOOD,
    ],
)
def test_a_file_that_can_be_read_is_read(capsys, tmp_path, text):
    path = tmp_path / "table.csv"
    path.write_bytes(text.encode())
    assert "x       number" in train(capsys, path, *SHORT)


def test_without_pandas_one_line_says_how_to_get_it(capsys, tmp_path, monkeypatch):
    path = tmp_path / "good.csv"
    path.write_text(GOOD)
    monkeypatch.setitem(sys.modules, "pandas", None)
    complains(capsys, [str(path), *SHORT], r"tables need pandas: pip install 'minidl\[tables\]'$")


PIECES = [b'"', b",", b"\n", b"\r", b";", b"\t", b"\xff", b"inf", b"1e999", b"9999-99-99", b"\0"]


def damaged(draw):
    """A table with dates, bytes of which are changed, lost, repeated or inserted."""
    rows = [f"{row},2020-0{1 + row % 9}-10,{'abc'[row % 3]},{'pq'[row % 2]}" for row in range(60)]
    content = "\n".join(["x,day,c,t", *rows]).encode()
    for _ in range(draw.choice([1, 1, 3, 20])):
        begin = draw.randrange(len(content))
        end = begin + draw.choice([1, 3, 40])
        middle = draw.choice([b"", draw.randbytes(1), content[begin:end] * 2, draw.choice(PIECES)])
        content = content[:begin] + middle + content[end:]
    return content


def test_a_damaged_file_is_trained_on_or_refused_in_one_line(capsys, tmp_path):
    path, draw = tmp_path / "damaged.csv", random.Random(0)
    statuses = []
    for _ in range(150):
        path.write_bytes(damaged(draw))
        target = draw.choice(["t", "t", "x", "day"])
        command = ["train", "csv", str(path), "--target", target, "--epochs", "1", "--quiet"]
        statuses.append(main(command))
        output = capsys.readouterr()
        assert (statuses[-1], len(output.out.splitlines()), len(output.err.splitlines())) in (
            (0, 1, 0),
            (2, 0, 1),
        ), (output, path.read_bytes())
    assert {0, 2} <= {*statuses}
