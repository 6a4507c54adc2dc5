"""The Trainer: what it leaves behind when a step fails or Ctrl-C stops it."""

from __future__ import annotations

import signal
import threading

import numpy as np
import pytest
from training_helpers import (
    LABELS,
    AfterEpoch,
    X,
    assert_same,
    classifier,
    everything,
    first_batches,
    fit,
    regressor,
)

from minidl import nn, optim
from minidl.training import Trainer

# Layers and optimizers that fail at a certain step count, which cannot be recorded.
counts_steps = pytest.mark.filterwarnings("ignore:training runs eagerly:RuntimeWarning")

# --- numbers that stop being finite -----------------------------------------------------


class Spoiler(nn.Layer):
    """The identity, until call number ``at``: then NaN or inf, forward or backward."""

    def __init__(self, at, where, value):
        self.at, self.where, self.value, self.passes = at, where, value, 0

    def _pass(self, where, x):
        self.passes += where == self.where and self.training
        spoilt = where == self.where and self.training and self.passes >= self.at
        return self.spoil(x) if spoilt else x

    def spoil(self, x):
        return x * np.float32(self.value)

    def forward(self, x):
        return self._pass("forward", x)

    def backward(self, dy):
        return self._pass("backward", dy)


@counts_steps
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
    assert "training step 7:" in message
    assert "layer 3 Spoiler()" in message
    # The same six steps without the failing seventh: bit for bit the same.
    rng = np.random.default_rng(0)
    for x, y in first_batches(rng, 4) + first_batches(rng, 2):
        healthy._step(x, y)
    assert_same(by_place(everything(failing)), by_place(everything(healthy)))
    assert failing.model.training
    assert all("forward" not in vars(layer) for _, layer in failing.model.layers())


def by_place(parts):
    """Without the names, which hold the positions of layers that the spoiler shifts."""
    return dict(enumerate(parts.values()))


class Broken(Spoiler):
    """The identity that raises, instead of spoiling."""

    def spoil(self, x):
        raise self.value


@counts_steps
@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize("error", [ValueError, MemoryError, KeyboardInterrupt, FloatingPointError])
def test_whatever_a_step_raises_state_is_as_before_it(where, error):
    def trainer(*last):
        model = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm(8), nn.Dropout(0.2), nn.Linear(8, 3), *last, rng=0
        )
        return Trainer(model, nn.CrossEntropyLoss(), optim.Adam(model.parameters()), rng=0)

    failing, healthy = trainer(Broken(7, where, error)), trainer()
    with pytest.raises(error):
        fit(failing, epochs=5)
    rng = np.random.default_rng(0)
    for x, y in first_batches(rng, 4) + first_batches(rng, 2):
        healthy._step(x, y)
    assert_same(everything(failing), everything(healthy))
    assert failing.optimizer.steps == 6
    assert failing.history.epochs == 1


def test_steps_are_not_counted_that_an_optimizer_did_not_end():
    class Broken(optim.SGD):
        def update(self):
            raise OSError

    trainer = regressor()
    trainer.optimizer = Broken(trainer.model.parameters())
    with pytest.raises(OSError):  # noqa: PT011
        fit(trainer)
    assert trainer.optimizer.steps == 0


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


@counts_steps
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


@pytest.mark.parametrize(
    ("what", "words", "never"),
    [
        ("rate", r"A lower learning rate than 1e\+30, or max_norm, may help\.$", "Standardize"),
        ("clipped", r"A lower learning rate than 1e\+30 may help\.$", "max_norm"),
        ("features", r"X holds numbers as large as 3e\+38: nn\.Standardize", "learning rate"),
        ("targets", r"Y holds numbers as large as 3e\+38: dividing", "learning rate"),
        ("weights", r"no step was made before it.*initial weights", "max_norm"),
        ("parameter", r"'0\.bias' of Linear 0 held nan in row 0 already", "max_norm"),
        ("state", r"'running_mean' of BatchNorm 1 held \S+ in row \d already", "max_norm"),
    ],
)
@counts_steps
def test_advice_fits_the_facts(what, words, never):
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm(8), nn.Tanh(), nn.Linear(8, 2), rng=0)
    rate = 1e30 if what in ("rate", "clipped") else 0.01
    norm = 1e9 if what in ("clipped", "features") else None
    optimizer = optim.SGD(model.parameters(), lr=rate, max_norm=norm)
    trainer = Trainer(model, nn.MSELoss(), optimizer, rng=0)
    x, y = X.copy(), np.ones((50, 2), np.float32)
    if what == "features":
        x[:] = 3e38
    elif what == "targets":
        y[:] = 3e38
    elif what == "weights":
        model[3].weight.data[...] = 3e38
    elif what == "parameter":
        model[0].bias.data[0] = np.nan
    elif what == "state":
        model[1].eval().running_mean[0] = np.nan
    with pytest.raises(FloatingPointError, match="(?i)" + words) as caught:
        trainer.fit(x, y, 50, 50, progress=False)
    assert never not in str(caught.value)


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


@counts_steps
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


def test_an_interrupt_is_not_lost_when_the_step_fails():
    class Failing(optim.Adam):
        def update(self):
            signal.raise_signal(signal.SIGINT)
            raise OSError("disk full")

    model = nn.Sequential(nn.Linear(4, 3), rng=0)
    trainer = Trainer(model, nn.CrossEntropyLoss(), Failing(model.parameters()), rng=0)
    with pytest.raises(KeyboardInterrupt) as caught:
        fit(trainer)
    assert "disk full" in str(caught.value.__context__)


@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_an_interrupt_in_validation_leaves_weights_and_averages_apart(monkeypatch, at):
    """In one of the swaps: before and after statistics are taken, before and after validation."""
    trainer, whole = classifier(), classifier()
    for each in (trainer, whole):
        each.ema = optim.EMA(each.model.parameters(), decay=0.5)
    fit(whole, epochs=1)
    parameter = trainer.model.parameters()[1]
    sound, calls = type(parameter).data, [0]

    def set_data(self, values):
        if self is parameter and values is trainer.ema.averages[1]:
            if calls[0] == at:
                signal.raise_signal(signal.SIGINT)
            calls[0] += 1
        sound.fset(self, values)

    monkeypatch.setattr(type(parameter), "data", property(sound.fget, set_data))
    with pytest.raises(KeyboardInterrupt):
        fit(trainer, epochs=1, validation=(X, LABELS))
    assert calls[0] == (2 if at < 2 else 4)
    assert_same(everything(trainer), everything(whole))
    for average, same in zip(trainer.ema.averages, whole.ema.averages, strict=True):
        assert np.array_equal(average, same)


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


@counts_steps
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
            callbacks=[AfterEpoch(lambda _: handlers.append(signal.getsignal(signal.SIGINT)))],
        )
    )
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGINT)] * 2
