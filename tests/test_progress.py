"""What training shows while it runs, and the history it leaves."""

from __future__ import annotations

import importlib.machinery
import io
import math
import sys
import types

import pytest
from training_helpers import LABELS, AfterEpoch, X, classifier, fit, regressor

from minidl.training import History, Progress
from minidl.training.progress import fitting

# --- history -------------------------------------------------------------------------


def test_history_is_a_mapping_with_a_readable_table():
    seen = []
    history = fit(classifier(), epochs=3, callbacks=[AfterEpoch(lambda h: seen.append(h.epochs))])
    assert seen == [1, 2, 3]
    assert history.epochs == 3
    assert len(history.seconds) == 3
    assert dict(history).keys() == {"loss", "accuracy"}
    assert "loss" in history
    lines = str(history).splitlines()
    assert lines[0].split() == ["epoch", "loss", "accuracy"]
    assert len(lines) == 4
    assert len({len(line) for line in lines}) == 1


def test_a_long_history_is_cut_in_the_middle():
    history = History()
    for value in range(1, 101):
        history.append({"loss": 1 / value}, 0.0)
    lines = str(history).splitlines()
    assert len(lines) == 32
    assert lines[16].strip() == "..."
    assert lines[-1].split()[0] == "100"
    assert str(History()) == "epoch"


def test_what_fit_returns_is_shown_in_one_line():
    """A notebook shows it below the lines of all epochs."""
    history = History()
    assert repr(history) == "History(epochs=0)"
    history.append({"loss": 0.75, "val_loss": 1e-5}, 1.0)
    history.append({"loss": 0.5, "val_loss": math.nan}, 1.0)
    assert repr(history) == "History(epochs=2, loss=0.5000, val_loss=nan)"


def test_the_trainer_keeps_the_history_of_the_latest_fit():
    trainer = classifier()
    assert trainer.history.epochs == 0
    assert fit(trainer, epochs=2) is trainer.history
    assert fit(trainer, epochs=1) is trainer.history
    with pytest.raises(ValueError, match="rows"):
        trainer.fit(X, LABELS[:-1], 1)
    assert trainer.history.epochs == 1  # refused data end no fit: none began


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_the_history_so_far_outlives_what_ends_a_fit(error):
    def stop(history):
        if history.epochs == 3:
            raise error

    trainer = classifier()
    with pytest.raises(error):
        fit(trainer, epochs=5, callbacks=[AfterEpoch(stop)])
    assert trainer.history.epochs == 3
    assert dict(trainer.history) == dict(fit(classifier(), epochs=3))


def test_a_history_keeps_its_names():
    history = History()
    history.append({"loss": 1.0}, 0.0)
    with pytest.raises(ValueError, match="this one has no loss, but accuracy"):
        history.append({"accuracy": 1.0}, 0.0)
    assert history.epochs == 1


# --- progress ---------------------------------------------------------------------------


def test_without_a_terminal_there_is_a_line_for_every_epoch(capsys):
    fit(classifier(), epochs=10, progress="auto", validation=(X, LABELS))
    output = capsys.readouterr()
    lines = output.out.splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("epoch  1/10  loss ")
    assert all(word in lines[-1] for word in ("accuracy", "val_loss", "samples/s"))
    assert output.err == ""
    assert "\r" not in output.out


@pytest.mark.parametrize("progress", [False, "none"])
def test_silence(capsys, progress):
    fit(classifier(), progress=progress)
    assert capsys.readouterr() == ("", "")


def test_a_bar_shows_loss_accuracy_and_speed(capsys, monkeypatch):
    pytest.importorskip("tqdm")
    monkeypatch.setattr("minidl.training.progress.REFRESH", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    fit(classifier(), epochs=2, progress="auto", validation=(X, LABELS))
    output = capsys.readouterr()
    last = output.err.split("\r")[-1]
    assert output.out == ""
    assert "100%" in last
    assert all(word in last for word in ("epoch 2/2", "loss", "accuracy", "samples/s"))


WORDS = ["epoch  7/20", "loss 0.1", "accuracy 0.9", "val_loss 0.2", "140k samples/s"]


@pytest.mark.parametrize(
    ("columns", "places"),
    [
        (61, [0, 1, 2, 3, 4]),
        (60, [0, 1, 2, 4]),
        (46, [0, 1, 4]),
        (34, [1, 4]),
        (22, [1]),
        (1, [1]),
    ],
)
def test_what_does_not_fit_is_left_out_whole(columns, places):
    expected = " ".join(WORDS[place] for place in places)
    assert fitting(WORDS, columns, " ") == expected[:columns]
    assert len(WORDS) == 5


@pytest.mark.parametrize(
    ("columns", "shown", "left_out"),
    [
        (140, ["|", "loss", "accuracy", "val_loss", "val_accuracy", "samples/s"], []),
        (80, ["|", "loss", "accuracy", "samples/s"], ["val_accuracy"]),
        (40, ["loss", "samples/s"], ["|", "accuracy"]),
    ],
)
def test_the_bar_suits_the_width_of_the_terminal(capsys, monkeypatch, columns, shown, left_out):
    tqdm = pytest.importorskip("tqdm")
    monkeypatch.setattr("minidl.training.progress.REFRESH", 0.0)
    monkeypatch.setattr(tqdm.std, "_screen_shape_wrapper", lambda: lambda file: (columns, 24))
    fit(classifier(), epochs=12, progress="bar", validation=(X, LABELS))
    last = capsys.readouterr().err.split("\r")[-1].rstrip()
    assert len(last) <= columns
    assert all(word in last for word in ("epoch 12/12", *shown))
    assert not any(word in last for word in left_out)


@pytest.fixture
def notebook(monkeypatch):
    """A kernel with ipywidgets, as far as minidl can tell; the widgets that it makes."""
    tqdm = pytest.importorskip("tqdm")
    shell = types.SimpleNamespace(config={"IPKernelApp": {}})
    made = []

    class Widget(tqdm.tqdm):
        def __init__(self, **options):
            super().__init__(**options, file=io.StringIO())
            made.append(self)

    modules = {"IPython": {"get_ipython": lambda: shell}, "tqdm.notebook": {"tqdm": Widget}}
    for name, members in modules.items():
        module = types.ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    widgets = types.ModuleType("ipywidgets")
    widgets.__spec__ = importlib.machinery.ModuleSpec("ipywidgets", None)
    monkeypatch.setitem(sys.modules, "ipywidgets", widgets)
    return made


@pytest.mark.parametrize("progress", ["auto", "bar"])
def test_a_notebook_gets_a_widget(notebook, capsys, progress):
    fit(classifier(), epochs=3, progress=progress)
    (bar,) = notebook
    assert (bar.n, bar.total) == (150, 150)
    assert all(word in bar.desc for word in ("epoch 3/3", "loss", "accuracy", "samples/s"))
    assert "{bar}" in bar.bar_format  # a widget replaces these very letters
    assert capsys.readouterr().out == ""


def test_a_widget_that_stops_early_is_complete(notebook, capsys):
    trainer = classifier()
    stop = AfterEpoch(lambda history: trainer.stop("enough"))
    fit(trainer, epochs=9, progress="auto", callbacks=[stop])
    (bar,) = notebook
    assert bar.n == bar.total == 50
    assert capsys.readouterr().out == "stopped after epoch 1: enough\n"


def test_a_notebook_without_ipywidgets_gets_lines(notebook, monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "ipywidgets")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    fit(classifier(), epochs=3, progress="auto")
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert notebook == []


def test_the_bar_is_closed_after_a_failure(monkeypatch):
    pytest.importorskip("tqdm")
    closed = []
    monkeypatch.setattr("minidl.training.progress.Bar.close", lambda self: closed.append(self))
    with pytest.raises(FloatingPointError):
        fit(regressor(lr=1e30), epochs=50, progress="bar")
    assert len(closed) == 1


def test_without_tqdm_there_are_lines_and_a_clear_message(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    fit(classifier(), epochs=2)
    fit(classifier(), epochs=1, progress=True)
    assert len(capsys.readouterr().out.splitlines()) == 1
    with pytest.raises(ImportError, match=r"pip install 'minidl\[progress\]'"):
        fit(classifier(), progress="bar")


@pytest.mark.parametrize("record", [False, True])
def test_progress_can_be_one_s_own(record):
    heard = []
    own = Progress()
    own.begin = lambda *counts: heard.append(counts)
    own.step = types.MethodType(lambda self, rows, running: heard.append((rows, running())), own)
    fit(classifier(record=record), epochs=1, progress=own)
    assert heard[0] == (1, 50)
    rows = [rows for rows, _ in heard[1:]]
    assert sum(rows) == 50 if record else rows == [16, 16, 16, 2]
    assert all(0 <= values["accuracy"] <= 1 for _, values in heard[1:])
    with pytest.raises(ValueError, match="progress must be"):
        fit(classifier(), progress="loud")


def test_progress_is_a_callback():
    heard = []

    class Own(Progress):
        def begin(self, epochs, samples):
            heard.append((epochs, samples))

        def epoch(self, number, values, seconds):
            heard.append((number, list(values), seconds > 0))

        def stopped(self, number, why):
            heard.append((number, why))

        def close(self):
            heard.append("closed")

    trainer = classifier()
    stop = AfterEpoch(lambda history: trainer.stop("enough") if history.epochs == 2 else None)
    fit(trainer, epochs=5, callbacks=[Own(), stop])
    names = ["loss", "accuracy"]
    assert heard == [(5, 50), (1, names, True), (2, names, True), (2, "enough"), "closed"]
    assert trainer.plan is None
