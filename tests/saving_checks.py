"""Checks of modules that save and resume, given by their names: planted faults are seen by them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_model_files import Chooses, Noisy
from test_resuming import EveryStep, callbacks_of, fit, made, names, signs

from minidl import nn
from minidl.optim import schedules
from minidl.saving import architecture, rebuilding
from minidl.training import Callback

Space = dict[str, Any]


def check_checkpoint(space: Space) -> None:
    """The latest file is the one to go on from, and the best value is known after that."""
    Checkpoint, best = space["Checkpoint"], {"best": "loss", "mode": "max"}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        history = fit(made(), 5, callbacks=[Checkpoint(folder, keep=3, **best)])
        assert names(folder) == [
            "best.safetensors",
            *(f"epoch-0000{n}.safetensors" for n in (3, 4, 5)),
        ]
        resumed = made()
        resumed.load(folder / "epoch-00003.safetensors")
        checkpoint = Checkpoint(folder, keep=3, **best)
        fit(resumed, 4, callbacks=[checkpoint])
        assert checkpoint.latest == folder / "epoch-00004.safetensors"
        assert checkpoint.resume_state()["best"] == max(history["loss"])
        (folder / "epoch-00004.safetensors").write_bytes(b"x")
        with pytest.warns(RuntimeWarning):
            assert checkpoint.latest == folder / "epoch-00003.safetensors"


def check_resuming(space: Space) -> None:
    """A training that is saved within an epoch ends as one that was not."""

    class SaveOnce(Callback):
        is_last = True

        def between_steps(self, trainer: Any, epoch: int) -> None:
            if epoch == 2 and not path.exists():
                space["save_training"](trainer, path)

    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "training"
        whole, other = made(schedules.one_cycle(0.1, 16)), made(1.0, seed=5)
        fit(whole, callbacks=[*callbacks_of(whole), EveryStep(), SaveOnce()])
        other.resumption = space["load_training"](other, path)
        other.history = other.resumption.history
        fit(other, callbacks=[*callbacks_of(whole), EveryStep()])
    assert signs(other) == signs(whole)


def check_architecture(space: Space) -> None:
    """A model is built again from what is said of it: what is shared, frozen and replaced."""
    described = space.get("described", architecture.described)
    rebuild = space.get("rebuild", rebuilding.rebuild)
    rng = np.random.default_rng(3)
    linear, chooses = nn.Linear(2, 2), Chooses()
    linear.weight.frozen, chooses.kind = True, nn.ReLU
    model = nn.Sequential(linear, linear, Noisy(rng), Noisy(rng), chooses, rng=0)
    text, arrays = described(model)
    arrays |= {name: parameter.data.copy() for name, parameter in model.named_parameters()}
    content = rebuilding.parsed(text)
    try:
        again = rebuild(content, arrays)
    except ValueError as error:
        raise AssertionError(str(error)) from None
    x = np.ones((3, 2), np.float32)
    assert again(x).tobytes() == model(x).tobytes()
    assert [p.frozen for p in again.parameters()] == [p.frozen for p in model.parameters()]
    assert again.stack[0] is again.stack[1]
    assert again.stack[4].kind is nn.ReLU
    content["layers"][-1]["holds"] = {"forward": 3}
    with pytest.raises(ValueError, match="cannot hold"):
        rebuild(content, arrays)


def check_sums(space: Space) -> None:
    """Means, R² and their weights are the same bits in whatever parts rows come."""
    rng = np.random.default_rng(0)
    prediction, target, weight = rng.normal(size=(500, 2)), rng.normal(size=(500, 2)), np.ones(500)
    for make in (lambda: space["MeanError"](1, "mae"), space["R2"]):
        values = set()
        for part in (1, 7, 500):
            metric = make()
            for begin in range(0, 500, part):
                rows = slice(begin, begin + part)
                metric.add(prediction[rows], target[rows], weight[rows] + prediction[rows, 0] ** 2)
            values.add(metric.read())
        assert len(values) == 1


def check_predictions(space: Space) -> None:
    """Labels are those of the outputs."""

    def lines(outputs: Any, classes: list[Any], probabilities: bool) -> list[str]:
        known = space["Known"]("y", classes, None, None)
        text: str = space["_as_table"](np.array(outputs), known, probabilities)
        return text.splitlines()

    assert lines([[0.2], [0.7]], ["no", "yes"], True) == ["y", "no", "yes"]
    assert lines([[-0.2], [0.3]], ["no", "yes"], False) == ["y", "no", "yes"]
    assert lines([[1.0, 2.0], [3.0, 0.0]], ["no", "yes"], False) == ["y", "yes", "no"]
    assert lines([[[1.0]], [[2.0]]], [], False) == ["row,step,y", "1,1,1", "2,1,2"]
    for outputs in ([[1.0]], [[1.0, 2.0]]):
        with pytest.raises(ValueError, match="names 3 classes"):
            lines(outputs, ["a", "b", "c"], False)


SAVING_CHECKS = {
    "checkpoint": check_checkpoint,
    "resuming": check_resuming,
    "architecture": check_architecture,
    "rebuilding": check_architecture,
    "running_metrics": check_sums,
    "predicting": check_predictions,
}
