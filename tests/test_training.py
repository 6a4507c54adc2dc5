"""The Trainer: what it computes, what it refuses, and what it leaves behind when it fails."""

from __future__ import annotations

import signal
import sys
import threading
import time
import types
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from minidl import datasets, nn, optim
from minidl.training import History, Progress, Trainer, accuracy, batches
from minidl.training.metrics import by_name

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 4)).astype(np.float32)
LABELS = (X[:, 0] + X[:, 1] > 0).astype(np.int64) + (X[:, 2] > 0.5)
VALUES = (X @ RNG.normal(size=(4, 2))).astype(np.float32)


def classifier(seed=0, lr=1e-2, dtype=np.float32, metrics=None):
    model = nn.Sequential(
        nn.Linear(4, 16),
        nn.BatchNorm(16),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Residual(nn.Sequential(nn.Linear(16, 16), nn.Tanh())),
        nn.Linear(16, 3),
        rng=seed,
    ).astype(dtype)
    optimizer = optim.Adam(model.parameters(), lr=lr, max_norm=1.0)
    return Trainer(model, nn.CrossEntropyLoss(), optimizer, metrics=metrics, rng=seed)


def regressor(seed=0, loss=None, lr=1e-2, outputs=2):
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, outputs), rng=seed)
    return Trainer(model, loss or nn.MSELoss(), optim.SGD(model.parameters(), lr=lr), rng=seed)


def everything(trainer):
    """Copies of all that training changes."""
    parts = {p.name: p.data.copy() for p in trainer.model.parameters()}
    parts |= {name: array.copy() for name, array in trainer.model.state().items()}
    parts |= {k: v.copy() for k, v in vars(trainer.optimizer).items() if k.startswith("moment")}
    return parts


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert np.array_equal(first[name], second[name]), name


def fit(trainer, epochs=2, **options):
    y = LABELS if isinstance(trainer.loss, nn.CrossEntropyLoss) else VALUES
    return trainer.fit(X, y, epochs, **{"batch_size": 16, "progress": False, **options})


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
    assert np.array_equal(np.sort(orders[0]), rows) and not np.array_equal(*orders)


def test_batches_are_repeatable_and_can_keep_the_order():
    first, second = (np.concatenate([y for _, y in batches(X, LABELS, 7, 5)]) for _ in range(2))
    assert np.array_equal(first, second)
    unshuffled = list(batches(X, LABELS, 60, shuffle=False))
    assert len(unshuffled) == 1 and np.shares_memory(unshuffled[0][0], X)


@pytest.mark.parametrize(
    ("x", "y", "size", "words"),
    [
        (X, LABELS[:-1], 8, "X has 50 rows, y has 49"),
        (X[:0], LABELS[:0], 8, "X is empty"),
        (X, LABELS, 0, "batch_size"),
        (X, LABELS, -3, "batch_size"),
        (X, LABELS, 2.5, "batch_size"),
        (X, LABELS, True, "batch_size"),
    ],
)
def test_batches_complain_at_the_call(x, y, size, words):
    with pytest.raises(ValueError, match=words):
        batches(x, y, size)


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


def test_modes_are_set_for_the_work_and_put_back():
    trainer = classifier()
    seen = []
    trainer.model[0].forward = lambda x: (
        seen.append(trainer.model.training) or nn.Linear.forward(trainer.model[0], x)
    )
    trainer.model.eval()
    trainer.model[1].train()
    fit(trainer, epochs=1, validation=(X, LABELS))
    trainer.predict(X)
    # Two looks at one row, four steps, validation, prediction.
    assert seen == [False] * 2 + [True] * 4 + [False] * 2
    assert [layer.training for _, layer in trainer.model.layers()].count(True) == 1
    assert trainer.model[1].training


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_loss_of_an_epoch_respects_the_reduction(reduction):
    trainer = regressor(loss=nn.MSELoss(reduction), lr=0.0)
    expected = float(trainer.loss(trainer.model(X), VALUES))
    assert fit(trainer, epochs=1)["loss"] == pytest.approx([expected], rel=1e-5)
    assert trainer.evaluate(X, VALUES, 7)["loss"] == pytest.approx(expected, rel=1e-5)


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


# --- input that is refused --------------------------------------------------------------


def with_value(array, row, value):
    array = array.astype(np.result_type(array, type(value)))
    array[row] = value
    return array


REFUSED = [
    ("length", X, LABELS[:-1], r"X has 50 rows, (validation )?y has 49"),
    ("empty", X[:0], LABELS[:0], "X is empty"),
    ("no features", X[:, :0], LABELS, "X is empty"),
    ("nan", with_value(X, (17, 2), np.nan), LABELS, r"X: row 17 holds nan at \(2,\)"),
    ("inf", with_value(X, (3, 0), -np.inf), LABELS, "X: row 3 holds -inf"),
    ("beyond float32", with_value(X.astype(float), (9, 1), 1e300), LABELS, "X: row 9 holds inf"),
    ("label too large", X, with_value(LABELS, 23, 3), "y: row 23 holds 3, outside the 3 classes"),
    ("label negative", X, with_value(LABELS, 7, -1), "y: row 7 holds -1, outside the 3 classes"),
    ("label fraction", X, with_value(LABELS, 5, 0.5), "integers, row 5 holds 0.5"),
    ("label nan", X, with_value(LABELS, 8, np.nan), "integers, row 8 holds nan"),
    ("float labels", X, LABELS.astype(np.float32), "integers, row 0 holds"),
    ("label matrix", X, LABELS[:, None], r"y: expected labels of shape \(samples,\)"),
    ("width", X[:, :3], LABELS, r"layer 0 Linear\(4, 16\): expected .* got \(1, 3\)"),
    ("rank", X[:, 0], LABELS, r"layer 0 Linear\(4, 16\): expected"),
]


@pytest.mark.parametrize(("x", "y", "words"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
@pytest.mark.parametrize("place", ["fit", "validation", "evaluate"])
def test_data_that_cannot_be_trained_on_are_refused_before_any_step(place, x, y, words):
    trainer = classifier()
    before = everything(trainer)
    with pytest.raises(ValueError, match=words) as caught:
        if place == "fit":
            trainer.fit(x, y, 1, progress=False)
        elif place == "validation":
            fit(trainer, validation=(x, y))
        else:
            trainer.evaluate(x, y)
    if place == "validation" and "layer" not in words:
        assert "validation" in str(caught.value)
    assert_same(before, everything(trainer))
    assert trainer.model.training and trainer.optimizer.steps == 0


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
    with pytest.raises(ValueError, match="differ in shape"):
        trainer.fit(X, VALUES[:, 0], 1, progress=False)
    assert trainer.optimizer.steps == 0


@pytest.mark.parametrize("name", ["epochs", "batch_size"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "3", None, True])
def test_counts_must_be_counts(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a whole number >= 1"):
        fit(classifier(), **{name: value})


@pytest.mark.parametrize(("size", "rows"), [(7, 50), (1, 50), (16, 33), (16, 1)])
def test_a_last_batch_of_one_row_is_refused_where_it_has_no_variance(size, rows):
    trainer = classifier()
    with pytest.raises(ValueError, match=r"layer 1 BatchNorm\(16\) cannot train on one row"):
        trainer.fit(X[:rows], LABELS[:rows], 1, size, progress=False)
    assert trainer.optimizer.steps == 0
    regressor().fit(X[:rows], VALUES[:rows], 1, size, progress=False)  # no such layer, no matter


def test_predict_needs_data():
    with pytest.raises(ValueError, match="X is empty"):
        classifier().predict(X[:0])


def test_an_optimizer_of_another_model_is_refused():
    model, other = nn.Linear(4, 3), nn.Linear(4, 3)
    with pytest.raises(ValueError, match="not the model's"):
        Trainer(model, nn.CrossEntropyLoss(), optim.SGD(other.parameters()))


@pytest.mark.parametrize("metrics", [["acuracy"], ["accuracy", accuracy], "f1"])
def test_unknown_and_double_metrics_are_refused(metrics):
    with pytest.raises(ValueError, match=r"unknown metric|would be called"):
        classifier(metrics=metrics)


def test_metrics_are_names_or_callables():
    assert list(by_name("accuracy")) == ["accuracy"] == list(by_name(accuracy))
    with pytest.raises(TypeError, match="a name or a callable"):
        by_name([3])
    with pytest.raises(ValueError, match="accuracy needs"):
        accuracy(VALUES, VALUES)


# --- numbers that stop being finite -----------------------------------------------------


class Spoiler(nn.Layer):
    """The identity, until call number ``at``: then NaN or inf, forward or backward."""

    def __init__(self, at, where, value):
        self.at, self.where, self.value, self.passes = at, where, value, 0

    def _pass(self, where, x):
        self.passes += where == self.where and self.training
        spoilt = where == self.where and self.training and self.passes >= self.at
        return x * np.float32(self.value) if spoilt else x

    def forward(self, x):
        return self._pass("forward", x)

    def backward(self, dy):
        return self._pass("backward", dy)


@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_stops_training_as_before_that_step(where, value):
    def trainer(*spoilers):
        model = nn.Sequential(
            nn.Linear(4, 8),
            nn.BatchNorm(8),
            nn.Dropout(0.2),
            *spoilers,
            nn.Tanh(),
            nn.Residual(nn.Sequential(nn.Linear(8, 8), nn.ReLU())),
            nn.Linear(8, 3),
        )
        for index, parameter in enumerate(model.parameters()):
            parameter.reset(index)
        model[2].generator[...] = 5, 0
        optimizer = optim.Adam(model.parameters(), lr=1e-2)
        return Trainer(model, nn.CrossEntropyLoss(), optimizer, rng=0)

    failing = trainer(Spoiler(7, where, value))
    healthy = trainer()
    with pytest.raises(FloatingPointError) as caught:
        fit(failing, epochs=5)
    message = str(caught.value)
    assert "training step 7:" in message and "layer 3 Spoiler()" in message
    # The same six steps without the failing seventh: bit for bit the same.
    rng = np.random.default_rng(0)
    for x, y in first_batches(rng, 4) + first_batches(rng, 2):
        healthy._step(x, y)
    assert_same(by_place(everything(failing)), by_place(everything(healthy)))
    assert failing.model.training
    assert all("forward" not in vars(layer) for _, layer in failing.model.layers())


def first_batches(rng, count):
    """The first batches of an epoch."""
    return [batch for batch, _ in zip(batches(X, LABELS, 16, rng), range(count), strict=False)]


def by_place(parts):
    """Without the names, which hold the positions of layers that the spoiler shifts."""
    return dict(enumerate(parts.values()))


def test_a_rate_that_explodes_names_the_step_and_the_layer():
    trainer = regressor(lr=1e30)
    words = r"training step \d+: .*(layer \d Linear|loss MSELoss)"
    with pytest.raises(FloatingPointError, match=words):
        fit(trainer, epochs=50)
    assert all(np.isfinite(p.data).all() for p in trainer.model.parameters())


def test_a_parameter_that_is_not_finite_is_traced_to_its_layer():
    trainer = classifier()
    trainer.model[4].body[0].weight.data[2, 3] = np.nan
    with pytest.raises(FloatingPointError, match=r"step 1: .*layer 4\.body\.0 Linear\(16, 16\)"):
        fit(trainer)


def test_a_loss_that_is_not_finite_by_itself_is_named():
    class Endless(nn.MSELoss):
        def forward(self, prediction, target):
            return np.asarray(np.inf), prediction * 0

        def __repr__(self):
            return "Endless()"

    trainer = regressor(loss=Endless())
    before = everything(trainer)
    with pytest.raises(FloatingPointError, match=r"loss Endless\(\) is not"):
        fit(trainer)
    assert_same(before, everything(trainer))


def test_overflow_warns_nobody_and_settings_of_numpy_stay():
    before = np.geterr()
    with np.errstate(all="raise"):
        fit(classifier())
        assert np.geterr() == dict.fromkeys(before, "raise")
    assert np.geterr() == before


# --- Ctrl-C -----------------------------------------------------------------------------


class InterruptedAdam(optim.Adam):
    """Adam that is interrupted in the middle of update number ``at``."""

    at = 6

    def update(self):
        if self.steps == self.at:
            signal.raise_signal(signal.SIGINT)
        super().update()


def test_an_interrupt_leaves_a_whole_number_of_steps():
    model, whole = classifier().model, classifier()
    trainer = Trainer(
        model, nn.CrossEntropyLoss(), InterruptedAdam(model.parameters(), 1e-2, max_norm=1.0), rng=0
    )
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit(trainer, epochs=5)
    rng = np.random.default_rng(0)
    for x, y in first_batches(rng, 4) + first_batches(rng, 2):
        whole._step(x, y)
    assert trainer.optimizer.steps == whole.optimizer.steps == 6
    assert_same(everything(trainer), everything(whole))
    assert signal.getsignal(signal.SIGINT) is handler
    fit(trainer, epochs=1)  # and training can go on


def test_a_second_interrupt_does_not_wait():
    class Stuck(optim.Adam):
        def update(self):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("the second interrupt was ignored")

    model = nn.Sequential(nn.Linear(4, 3), rng=0)
    trainer = Trainer(model, nn.CrossEntropyLoss(), Stuck(model.parameters()), rng=0)
    with pytest.raises(KeyboardInterrupt):
        fit(trainer)


def test_an_interrupt_that_the_program_handles_itself_stays_its_own():
    heard = []
    before = signal.signal(signal.SIGINT, lambda *_: heard.append(1))
    try:
        model = nn.Sequential(nn.Linear(4, 3), rng=0)
        trainer = Trainer(model, nn.CrossEntropyLoss(), InterruptedAdam(model.parameters()), rng=0)
        assert fit(trainer, epochs=3).epochs == 3
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == [1]


def test_fit_in_another_thread_leaves_signals_alone():
    handlers = []
    thread = threading.Thread(
        target=lambda: fit(
            classifier(),
            after_epoch=lambda _: handlers.append(signal.getsignal(signal.SIGINT)),
        )
    )
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGINT)] * 2


# --- history and progress ---------------------------------------------------------------


def test_history_is_a_mapping_with_a_readable_table():
    seen = []
    history = fit(classifier(), epochs=3, after_epoch=lambda h: seen.append(h.epochs))
    assert seen == [1, 2, 3] and history.epochs == 3 and len(history.seconds) == 3
    assert dict(history).keys() == {"loss", "accuracy"} and "loss" in history
    lines = repr(history).splitlines()
    assert lines[0].split() == ["epoch", "loss", "accuracy"] and len(lines) == 4
    assert len({len(line) for line in lines}) == 1


def test_a_long_history_is_cut_in_the_middle():
    history = History()
    for value in range(1, 101):
        history.append({"loss": 1 / value}, 0.0)
    lines = repr(history).splitlines()
    assert len(lines) == 32 and lines[16].strip() == "..." and lines[-1].split()[0] == "100"
    assert repr(History()) == "epoch"


def test_a_history_keeps_its_names():
    history = History()
    history.append({"loss": 1.0}, 0.0)
    with pytest.raises(ValueError, match="expected values of"):
        history.append({"accuracy": 1.0}, 0.0)
    assert history.epochs == 1


def test_without_a_terminal_there_is_a_line_for_every_epoch(capsys):
    fit(classifier(), epochs=10, progress="auto", validation=(X, LABELS))
    output = capsys.readouterr()
    lines = output.out.splitlines()
    assert len(lines) == 10 and lines[0].startswith("epoch  1/10  loss ")
    assert all(word in lines[-1] for word in ("accuracy", "val_loss", "samples/s"))
    assert output.err == "" and "\r" not in output.out


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
    assert output.out == "" and "100%" in last
    assert all(word in last for word in ("epoch 2/2", "loss", "accuracy", "samples/s"))


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


def test_progress_can_be_one_s_own():
    heard = []
    own = Progress()
    own.begin = lambda *counts: heard.append(counts)
    own.step = types.MethodType(lambda self, rows, running: heard.append((rows, running())), own)
    fit(classifier(), epochs=1, progress=own)
    assert heard[0] == (1, 50) and [rows for rows, _ in heard[1:]] == [16, 16, 16, 2]
    assert all(0 <= values["accuracy"] <= 1 for _, values in heard[1:])
    with pytest.raises(ValueError, match="progress must be"):
        fit(classifier(), progress="loud")
