"""Programs that train but cannot be meant: one warning each, and none for what may be meant."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import minidl
import minidl.training
from minidl import nn, optim
from minidl.nn.suspicion import suspicious

F32 = np.float32
X = np.random.default_rng(0).normal(size=(12, 4)).astype(F32)
LABELS = np.arange(12) % 3
REAL = np.random.default_rng(1).uniform(size=(12, 3)).astype(F32)


def net(*last: nn.Layer) -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3), *last, rng=0)


class Scores(nn.Layer):
    """y = x: a layer of which nothing is known."""

    def forward(self, x: np.ndarray) -> np.ndarray:  # type: ignore[override]
        self.save(None)
        return x

    def backward(self, dy: np.ndarray) -> np.ndarray:
        self.saved(dy)
        return dy


SUSPICIOUS = [
    (lambda: net(nn.Softmax()), nn.CrossEntropyLoss(), LABELS, "Softmax.*CrossEntropyLoss.*logits"),
    (lambda: net(nn.LogSoftmax()), nn.CrossEntropyLoss(), LABELS, "LogSoftmax.*CrossEntropyLoss"),
    (lambda: net(nn.Sigmoid()), nn.CrossEntropyLoss(), LABELS, "Sigmoid.*CrossEntropyLoss"),
    (
        lambda: net(nn.Sequential(nn.Softmax()), nn.Identity()),
        nn.CrossEntropyLoss(),
        LABELS,
        "Soft",
    ),
    (lambda: net(nn.Sigmoid()), nn.BCEWithLogitsLoss(), REAL, "Sigmoid.*BCEWithLogitsLoss"),
    (lambda: net(nn.Softmax()), nn.BCEWithLogitsLoss(), REAL, "Softmax.*BCEWithLogitsLoss"),
    (lambda: net(), nn.NLLLoss(), LABELS, "NLLLoss.*logarithms.*LogSoftmax"),
    (lambda: net(nn.Softmax()), nn.NLLLoss(), LABELS, "NLLLoss"),
    (lambda: net(Scores()), nn.NLLLoss(), LABELS, "NLLLoss"),
    (
        lambda: nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3), rng=0),
        nn.MSELoss(),
        REAL,
        r"0 Linear\(4, 5\) and layer 1 Linear\(5, 3\).*activation",
    ),
    (
        lambda: nn.Sequential(
            nn.Linear(4, 5), nn.Dropout(0.1), nn.Sequential(nn.Linear(5, 3)), rng=0
        ),
        nn.MSELoss(),
        REAL,
        "activation",
    ),
]


def trainer_of(model: nn.Layer, loss: nn.Loss) -> minidl.Trainer:
    return minidl.Trainer(model, loss, optim.SGD(model.parameters(), lr=1e-3), metrics=(), rng=0)


@pytest.mark.parametrize(("make", "loss", "y", "words"), SUSPICIOUS)
def test_what_cannot_be_meant_is_said_once(make: Any, loss: nn.Loss, y: Any, words: str) -> None:
    trainer = trainer_of(make(), loss)
    with pytest.warns(minidl.TrainingWarning, match=words) as caught:
        trainer.fit(X, y, epochs=1, progress=False)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer.fit(X, y, epochs=1, progress=False)


MEANT = [
    (lambda: net(), nn.CrossEntropyLoss(), LABELS),
    (lambda: net(nn.LogSoftmax()), nn.NLLLoss(), LABELS),
    (lambda: net(nn.LogSoftmax(), Scores()), nn.NLLLoss(), LABELS),
    (lambda: net(nn.Sigmoid()), nn.MSELoss(), REAL),
    (lambda: net(nn.Softmax()), nn.MSELoss(), REAL),
    (lambda: net(nn.Sigmoid(), nn.Linear(3, 3)), nn.CrossEntropyLoss(), LABELS),
    (lambda: nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 3), rng=0), nn.MSELoss(), REAL),  # rank 2
    (lambda: nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Linear(5, 3)), nn.MSELoss(), REAL),
]


@pytest.mark.parametrize(("make", "loss", "y"), MEANT)
def test_what_may_be_meant_is_not_remarked_on(make: Any, loss: nn.Loss, y: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer_of(make(), loss).fit(X, y, epochs=1, progress=False)


def test_without_data_only_layers_are_judged() -> None:
    assert not list(suspicious(net(Scores()), nn.NLLLoss()))
    assert list(suspicious(net(), nn.NLLLoss()))
    assert not list(suspicious(nn.Sequential(), nn.MSELoss()))


def test_what_is_left_out_of_training_is_said() -> None:
    model, loss = net(), nn.CrossEntropyLoss()
    trainer = trainer_of(model, loss)
    model.stack = (*model.stack, nn.Tanh(), nn.Linear(3, 3, rng=0))
    with pytest.warns(
        minidl.TrainingWarning, match=r"'4\.weight' and 1 more.*not in the optimizer"
    ):
        trainer.fit(X, LABELS, epochs=1, progress=False)
    model[4].freeze()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer_of(model, loss).fit(X, LABELS, epochs=1, progress=False)


def test_what_was_unfrozen_is_said_to_need_another_optimizer() -> None:
    model = net()
    model[0].freeze()
    trainer = trainer_of(model, nn.CrossEntropyLoss())
    trainer.fit(X, LABELS, epochs=1, progress=False)
    model[0].freeze(False)
    with pytest.warns(minidl.TrainingWarning, match=r"'0\.weight' and 1 more"):
        trainer.fit(X, LABELS, epochs=1, progress=False)


def test_a_callback_that_leaves_the_model_in_evaluation_is_remarked_on() -> None:
    class Look(minidl.training.Callback):
        def on_epoch_end(self, trainer: Any, epoch: int, values: Any) -> None:
            trainer.model.eval()

    trainer = trainer_of(net(nn.Dropout(0.5)), nn.CrossEntropyLoss())
    with pytest.warns(minidl.TrainingWarning, match="the whole model is in evaluation") as caught:
        trainer.fit(X, LABELS, epochs=3, progress=False, callbacks=[Look()])
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_a_warning_is_a_user_warning() -> None:
    assert issubclass(minidl.TrainingWarning, UserWarning)
