"""Callbacks: when they are called, and the ones that come with minidl."""

from __future__ import annotations

import json
import sys
import types
import warnings

import numpy as np
import pytest
from training_helpers import (
    LABELS,
    AfterEpoch,
    X,
    assert_same,
    classifier,
    compiled,
    everything,
    fit,
    regressor,
)

from minidl import nn, optim
from minidl.training import Callback, EarlyStopping, History, TensorBoard, Trainer

both = pytest.mark.parametrize("record", [True, False])
HELD_OUT = X[:20], LABELS[:20]


def same(arrays, others):
    return all(np.array_equal(a, b) for a, b in zip(arrays, others, strict=True))


class Diary(Callback):
    """Writes down every event."""

    def __init__(self, stop_at=None):
        self.events = []
        self.stop_at = stop_at

    def note(self, event, trainer, epoch, values):
        self.events.append((event, epoch, dict(values)))
        if self.stop_at == (event, epoch, values.get("batch")):
            trainer.stop()

    def on_train_begin(self, *told):
        self.note("train begin", *told)

    def on_train_end(self, *told):
        self.note("train end", *told)

    def on_epoch_begin(self, *told):
        self.note("epoch begin", *told)

    def on_epoch_end(self, *told):
        self.note("epoch end", *told)

    def names(self):
        return [event for event, *_ in self.events]


class BatchDiary(Diary):
    def on_batch_begin(self, *told):
        self.note("batch begin", *told)

    def on_batch_end(self, *told):
        self.note("batch end", *told)


@both
def test_events_come_in_order(record):
    diary = Diary()
    history = fit(classifier(record=record), callbacks=[diary], validation=HELD_OUT)
    rows = [{name: history[name][i] for name in history} for i in range(2)]
    assert diary.events == [
        ("train begin", 0, {}),
        ("epoch begin", 1, {}),
        ("epoch end", 1, rows[0]),
        ("epoch begin", 2, rows[0]),
        ("epoch end", 2, rows[1]),
        ("train end", 2, rows[1]),
    ]


@both
def test_rows_and_the_end_of_fit_cost_no_steps(record):
    rows, ends = [], []

    class Counter(Callback):
        def on_rows(self, trainer, epoch, count, running):
            rows.append((epoch, count, list(running())))

        def on_fit_end(self, trainer, epoch, values):
            ends.append((epoch, trainer.plan.epochs, len(trainer.plan.data)))

    def fail(history):
        raise OSError

    trainer = classifier(record=record)
    fit(trainer, callbacks=[Counter()])
    assert sum(count for epoch, count, _ in rows if epoch == 2) == 50
    assert all(names == ["loss", "accuracy"] for *_, names in rows)
    with pytest.raises(OSError):  # noqa: PT011
        fit(trainer, callbacks=[AfterEpoch(fail), Counter()])
    assert ends == [(2, 2, 50), (1, 2, 50)]


@both
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_callback_may_hear_of_every_step(record, accumulate):
    diary, plain, watched = BatchDiary(), classifier(record=record), classifier(record=record)
    whole = fit(plain, accumulate=accumulate)
    with warnings.catch_warnings(action="error"):  # steps are recorded: there is nothing to say
        history = fit(watched, callbacks=[diary], accumulate=accumulate)
    assert dict(history) == dict(whole)
    assert_same(everything(plain), everything(watched))
    steps = 4 // accumulate
    pairs = ["batch begin", "batch end"] * steps
    assert diary.names() == [
        "train begin",
        *["epoch begin", *pairs, "epoch end"] * 2,
        "train end",
    ]
    ends = [values for event, epoch, values in diary.events if event == "batch end" and epoch == 2]
    assert [values["batch"] for values in ends] == list(range(steps))
    rows = np.diff([*range(0, 50, 16 * accumulate), 50])
    assert np.dot(rows, [values["loss"] for values in ends]) / 50 == pytest.approx(
        history["loss"][1]
    )


@compiled
def test_steps_one_at_a_time_are_recorded_ones(monkeypatch):
    trainer = classifier()
    fit(trainer, callbacks=[BatchDiary()])
    assert trainer._step.recorded.step.programs == 2
    monkeypatch.setattr(trainer._step, "gradient", None)  # what a recording has no need of any more
    fit(trainer, callbacks=[BatchDiary()])


@compiled
def test_a_model_that_cannot_be_recorded_is_noticed_once():
    class Plain(nn.Layer):
        def forward(self, x):
            return x * np.float32(2)

        def backward(self, dy):
            return dy * np.float32(2)

    model = nn.Sequential(nn.Linear(4, 3), Plain(), rng=0)
    trainer = Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters()), rng=0)
    with pytest.warns(RuntimeWarning, match="training runs eagerly") as heard:
        fit(trainer, epochs=3, callbacks=[BatchDiary()])
    assert len(heard) == 1


@both
@pytest.mark.parametrize(
    ("at", "epochs", "steps"),
    [
        (("epoch end", 2, None), 2, 8),
        (("epoch begin", 2, None), 2, 8),
        (("batch end", 2, 1), 2, 6),
        (("train begin", 0, None), 0, 0),
    ],
)
def test_a_callback_can_stop_the_training(record, at, epochs, steps):
    trainer = classifier(record=record)
    diary = (BatchDiary if "batch" in at[0] else Diary)(stop_at=at)
    history = fit(trainer, epochs=5, callbacks=[diary])
    assert (history.epochs, trainer.optimizer.steps) == (epochs, steps)
    assert diary.names()[-1] == "train end"
    assert fit(trainer, epochs=2).epochs == 2  # and training can go on


@pytest.mark.parametrize("bad", [Diary, "early", lambda: None])
def test_what_is_no_callback_is_a_type_error(bad):
    trainer = classifier()
    with pytest.raises(TypeError, match="callback"):
        fit(trainer, callbacks=[bad])
    with pytest.raises(TypeError, match="must be a list"):
        fit(trainer, callbacks=Diary())
    assert trainer.optimizer.steps == 0


# --- early stopping -------------------------------------------------------------------------


def model_of(trainer):
    """Copies of parameters and state."""
    arrays = [parameter.data for parameter in trainer.model.parameters()]
    return [array.copy() for array in (*arrays, *trainer.model.state().values())]


class Scripted(Callback):
    """Keeps copies of the model after every epoch."""

    def __init__(self):
        self.kept = []

    def on_epoch_end(self, trainer, epoch, values):
        self.kept.append(model_of(trainer))


def stopped(values, epochs=20, **options):
    """A training whose val_loss is scripted, stopped early."""
    trainer, keeper = classifier(record=options.pop("record", True)), Scripted()
    script = iter(values)
    evaluate = trainer._evaluate
    trainer._evaluate = lambda *data: {**evaluate(*data), "loss": next(script)}
    stopping = EarlyStopping(**options)
    history = fit(trainer, epochs, validation=HELD_OUT, callbacks=[keeper, stopping])
    return trainer, keeper.kept, stopping, history.epochs


@both
def test_the_best_epoch_is_restored_with_its_running_statistics(record):
    values = [5.0, 3.0, 4.0, 3.5, 3.1, 1.0]
    trainer, kept, stopping, epochs = stopped(values, patience=3, record=record)
    assert (epochs, stopping.best, stopping.best_epoch) == (5, 3.0, 2)
    assert same(model_of(trainer), kept[1])
    assert not np.array_equal(trainer.model[1].running_mean, np.zeros(16))
    assert not np.array_equal(kept[1][0], kept[4][0])
    assert trainer.optimizer.steps == 5 * 4  # the optimizer goes on from the last


@pytest.mark.parametrize(
    ("values", "options", "epochs", "restored"),
    [
        ([5, 3, 4, 5, 6], {"patience": 3, "restore_best": False}, 5, 4),
        ([5, 3, 4, 5], {"epochs": 4, "patience": 3}, 4, 1),  # not stopped, restored all the same
        ([5, 4.9, 4.8, 4.7], {"patience": 2, "min_delta": 0.25}, 3, 0),
        ([1, 2, 3, 2, 2], {"patience": 2, "mode": "max"}, 5, 2),
        ([3, np.nan, 2, np.nan, np.nan], {"patience": 2}, 5, 2),
        ([np.nan, np.nan], {"patience": 2}, 2, 1),
        ([3, 3, 3], {"patience": 2}, 3, 0),
        ([3, 2.5, 2.5], {"patience": 2, "min_delta": 0.5}, 3, 0),
    ],
)
def test_when_training_stops_and_what_it_leaves(values, options, epochs, restored):
    trainer, kept, _, seen = stopped(values, **options)
    assert seen == epochs
    assert same(model_of(trainer), kept[restored])


def test_averages_are_restored_too():
    trainer = classifier()
    trainer.ema = optim.EMA(trainer.model.parameters(), decay=0.9)
    seen = []

    class Keep(Callback):
        def on_epoch_end(self, trainer, epoch, values):
            seen.append([average.copy() for average in trainer.ema.averages])

    stopping = EarlyStopping("loss", mode="max", patience=1)  # the first epoch is the worst
    fit(trainer, epochs=5, callbacks=[Keep(), stopping])
    assert len(seen) == 2
    assert same(trainer.ema.averages, seen[0])
    assert not same(seen[0], seen[1])


def test_early_stopping_says_so(capsys):
    trainer = classifier()
    stopping = EarlyStopping("loss", mode="max", patience=2)  # the first epoch is the worst
    fit(trainer, epochs=9, callbacks=[stopping], progress="lines")
    line = capsys.readouterr().out.splitlines()[-1]
    worst = f"loss was best in epoch 1 ({trainer.history['loss'][0]:.4f})"
    assert line == f"stopped after epoch 3: {worst}, whose weights are restored"
    fit(trainer, epochs=2, progress="lines")
    fit(trainer, epochs=3, callbacks=[stopping], progress="lines")  # nothing was cut short
    assert "stopped" not in capsys.readouterr().out


def test_the_first_reason_to_stop_is_shown(capsys):
    class Stop(Callback):
        def on_epoch_end(self, trainer, epoch, values):
            trainer.stop()

    trainer = classifier(metrics=[never])
    stopping = EarlyStopping("never", mode="min", patience=2)
    fit(trainer, epochs=9, callbacks=[stopping], progress="lines")
    assert capsys.readouterr().out.endswith("stopped after epoch 2: never was never a number\n")
    stopping = EarlyStopping("never", mode="min", patience=1)
    fit(trainer, epochs=9, callbacks=[stopping, Stop()], progress="lines")
    assert "stopped after epoch 1: never" in capsys.readouterr().out
    assert fit(trainer, epochs=9, callbacks=[Stop()], progress="lines").epochs == 1
    assert "stopped" not in capsys.readouterr().out


def never(prediction, target):
    return float("nan")


def test_the_best_epoch_can_be_had_after_an_interrupt():
    class Interrupt(Callback):
        def on_epoch_begin(self, trainer, epoch, values):
            if epoch == 4:
                raise KeyboardInterrupt

    trainer, best = classifier(), classifier()
    stopping = EarlyStopping("loss", mode="max", patience=9)  # the first epoch is the worst
    with pytest.raises(RuntimeError, match="no best epoch"):
        stopping.restore(trainer)
    with pytest.raises(KeyboardInterrupt):
        fit(trainer, epochs=5, callbacks=[stopping, Interrupt()])
    fit(best, epochs=stopping.best_epoch)
    stopping.restore(trainer)
    for name, values in everything(best).items():
        assert name.startswith("moment") or np.array_equal(values, everything(trainer)[name])


def test_names_say_which_values_are_good():
    modes = {name: EarlyStopping(name).mode for name in ("loss", "val_accuracy", "val_top_3")}
    assert modes == {"loss": "min", "val_accuracy": "max", "val_top_3": "max"}
    with pytest.raises(ValueError, match=r'is a large .val_gain. good\? Give mode="max"'):
        EarlyStopping("val_gain")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"patience": 0}, ValueError),
        ({"min_delta": -1}, ValueError),
        ({"min_delta": "0"}, TypeError),
        ({"mode": "least"}, ValueError),
    ],
)
def test_early_stopping_checks_its_arguments(options, error):
    with pytest.raises(error, match=f"EarlyStopping.*{next(iter(options))}"):
        EarlyStopping(**options)


def test_a_value_that_will_not_be_there_is_refused_before_any_step():
    trainer = classifier()
    with pytest.raises(
        ValueError, match="no value 'val_loss', only loss, accuracy; give fit a val"
    ):
        fit(trainer, callbacks=[EarlyStopping()])
    plateau = optim.schedules.ReduceOnPlateau(trainer.optimizer, monitor="val_r2", mode="max")
    with pytest.raises(ValueError, match="ReduceOnPlateau: there will be no value 'val_r2'"):
        fit(trainer, callbacks=[plateau], validation=HELD_OUT)
    other = optim.schedules.ReduceOnPlateau(classifier().optimizer, monitor="loss")
    with pytest.raises(ValueError, match="ReduceOnPlateau: its optimizer is not the trainer's"):
        fit(trainer, callbacks=[other])
    assert trainer.optimizer.steps == 0


# --- rates and averages ---------------------------------------------------------------------


@both
def test_reduce_on_plateau_is_a_callback(record):
    trainer = regressor(lr=1e-6, record=record)  # hardly learns: every epoch is on the plateau
    plateau = optim.schedules.ReduceOnPlateau(
        trainer.optimizer, factor=0.5, patience=1, threshold=0.5, monitor="loss"
    )
    fit(trainer, epochs=5, callbacks=[plateau])
    assert trainer.optimizer.lr == 1e-6 * 0.5**2
    by_hand = regressor(lr=1e-6, record=record)
    for rate in (1, 1, 1, 0.5, 0.5):
        by_hand.optimizer.lr = 1e-6 * rate
        fit(by_hand, epochs=1)
    assert_same(everything(trainer), everything(by_hand))


@both
def test_averages_follow_every_step_and_are_validated(record):
    trainer, by_hand = classifier(record=record), classifier(record=False)
    trainer.ema = optim.EMA(trainer.model.parameters(), decay=0.9)
    ema = optim.EMA(by_hand.model, decay=0.9)

    class Follow(Callback):
        def on_batch_end(self, trainer, epoch, values):
            ema.update()

    history = fit(trainer, validation=HELD_OUT)
    fit(by_hand, callbacks=[Follow()])
    assert_same(everything(trainer), everything(by_hand))
    assert same(trainer.ema.averages, ema.averages)
    assert history["val_loss"][-1] != trainer.evaluate(*HELD_OUT)["loss"]
    ema.take_statistics([(X,)])
    with trainer.ema.average():
        assert history["val_loss"][-1] == trainer.evaluate(*HELD_OUT)["loss"]
    with ema.average():
        expected = by_hand.evaluate(*HELD_OUT)["loss"]
        assert history["val_loss"][-1] == pytest.approx(expected, rel=1e-5)
    trainer.ema.decay = 0.5  # a recorded step hears of it
    ema.decay = 0.5
    fit(trainer), fit(by_hand, callbacks=[Follow()])
    assert same(trainer.ema.averages, ema.averages)


def test_averages_must_be_of_the_model():
    trainer, other = classifier(), classifier()
    parts = trainer.model, trainer.loss, trainer.optimizer
    with pytest.raises(ValueError, match="the ema holds parameters that are not the model's"):
        Trainer(*parts, ema=optim.EMA(other.model.parameters()))
    with pytest.raises(TypeError, match=r"ema must be an optim\.EMA"):
        Trainer(*parts, ema=0.9)


# --- TensorBoard ----------------------------------------------------------------------------


class Writer:
    def __init__(self, log_dir=None):
        self.log_dir, self.scalars, self.flushed = log_dir, [], 0

    def add_scalar(self, tag, value, step):
        self.scalars.append((tag, value, step))

    def flush(self):
        self.flushed += 1


@both
def test_tensorboard_gets_every_value(record):
    writer, trainer = Writer(), classifier(record=record)
    board = TensorBoard(writer=writer)
    history = fit(trainer, validation=HELD_OUT, callbacks=[board])
    later = fit(trainer, epochs=1, validation=HELD_OUT, callbacks=[board])
    expected = []
    for values, first in ((history, 1), (later, 3)):
        for epoch in range(values.epochs):
            for tag, name in (
                ("loss/training", "loss"),
                ("accuracy/training", "accuracy"),
                ("loss/validation", "val_loss"),
                ("accuracy/validation", "val_accuracy"),
            ):
                expected.append((tag, values[name][epoch], first + epoch))
            expected.append(("learning_rate", 1e-2, first + epoch))
    assert writer.scalars == expected
    assert writer.flushed == 3


def test_tensorboard_takes_the_writer_that_is_there(monkeypatch, tmp_path):
    for name in ("torch.utils.tensorboard", "tensorboardX"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match="needs torch and tensorboard, or tensorboardX"):
        TensorBoard(tmp_path)
    found = types.SimpleNamespace(SummaryWriter=Writer)
    monkeypatch.setitem(sys.modules, "tensorboardX", found)
    assert TensorBoard(tmp_path).writer.log_dir == str(tmp_path)
    for arguments in ({}, {"log_dir": tmp_path, "writer": Writer()}):
        with pytest.raises(TypeError, match="either log_dir or writer"):
            TensorBoard(**arguments)


def test_tensorboard_writes_event_files(tmp_path):
    pytest.importorskip("tensorboard")
    board = TensorBoard(tmp_path)
    fit(classifier(), callbacks=[board])
    board.writer.close()
    assert list(tmp_path.glob("events.out.*"))


# --- the history as a table and a picture ---------------------------------------------------


def test_a_history_as_columns():
    history = fit(classifier(), validation=HELD_OUT)
    columns = history.as_dict()
    assert list(columns) == ["epoch", *history, "seconds"]
    assert columns["epoch"] == [1, 2]
    assert columns["val_loss"] == history["val_loss"]
    columns["loss"].clear()
    assert len(history["loss"]) == 2
    assert json.loads(json.dumps(history.as_dict()))["seconds"] == history.seconds


@pytest.mark.parametrize("held_out", [None, HELD_OUT])
def test_a_picture_has_a_panel_for_each_value(held_out, tmp_path):
    pytest.importorskip("matplotlib")
    trainer = classifier(metrics=["accuracy", "top_2", lambda p, t: 1.0])
    history = fit(trainer, epochs=3, validation=held_out)
    figure = history.plot(tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    assert [axes.get_title() for axes in figure.axes] == ["loss", "accuracy", "top_2", "<lambda>"]
    for axes in figure.axes:
        names = [axes.get_title(), f"val_{axes.get_title()}"][: 1 + (held_out is not None)]
        assert [list(line.get_ydata()) for line in axes.lines] == [history[n] for n in names]
        assert list(axes.lines[0].get_xdata()) == [1, 2, 3]
    with pytest.raises(ValueError, match="format"):
        history.plot(tmp_path / "curves.docx")


def test_a_picture_needs_matplotlib_and_an_epoch(monkeypatch):
    with pytest.raises(ValueError, match="no epoch"):
        History().plot()
    history = fit(classifier(), epochs=1)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'minidl\[plot\]'"):
        history.plot()
