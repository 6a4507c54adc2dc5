"""``Trainer.save``, ``Trainer.load`` and ``Checkpoint``: resumed is the same as never stopped."""

from __future__ import annotations

import errno
import os
import re
import signal
import warnings
from pathlib import Path
from typing import Any

import killing
import numpy as np
import pytest

import minidl
from minidl import nn, optim
from minidl.optim import schedules
from minidl.training import Callback, Checkpoint, EarlyStopping, ReduceOnPlateau, Trainer
from minidl.training.tally import Tally

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 4)).astype(np.float32)
Y = RNG.integers(3, size=40)


def made(rate: Any = 0.05, ema: bool = True, seed: int = 0, **options: Any) -> Trainer:
    model = nn.Sequential(
        *(nn.Linear(4, 8), nn.BatchNorm(8), nn.ReLU(), nn.Dropout(0.4), nn.Linear(8, 3)),
        rng=seed,
    )
    optimizer = optim.Adam(model.parameters(), rate)
    average = optim.EMA(model, 0.9) if ema else None
    return Trainer(model, nn.CrossEntropyLoss(), optimizer, rng=seed, ema=average, **options)


def fit(trainer: Trainer, epochs: int = 4, **options: Any) -> Any:
    settings: dict[str, Any] = {"batch_size": 8, "progress": False, "validation": 0.25}
    return trainer.fit(X, Y, epochs=epochs, **settings | options)


def signs(trainer: Trainer) -> list[Any]:
    """All bits of a trainer, but for the seconds in its history."""
    arrays = [*trainer.lasting(), trainer.optimizer.states, *trainer.optimizer.vectors().values()]
    history = {name: [v.hex() for v in values] for name, values in trainer.history.items()}
    return [*(a.tobytes() for a in arrays), history, trainer.rng.bit_generator.state]


class Saving(Callback):
    """Saves between all steps, to files by their numbers."""

    is_last = True

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0

    def between_steps(self, trainer: Trainer, epoch: int) -> None:
        self.save(trainer)

    def on_epoch_end(self, trainer: Trainer, epoch: int, values: Any) -> None:
        self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        trainer.save(self.folder / str(self.count))
        self.count += 1


class EveryStep(Callback):
    """Has steps made one at a time."""

    def on_batch_end(self, trainer: Trainer, epoch: int, values: Any) -> None:
        pass


def callbacks_of(trainer: Trainer) -> list[Any]:
    stopping = EarlyStopping("val_loss", patience=2)
    if trainer.optimizer.schedule is not None:
        return [stopping]
    return [stopping, ReduceOnPlateau(trainer.optimizer, patience=0, threshold=0.5)]


def noise(x: Any, rng: np.random.Generator) -> Any:
    return x + rng.normal(size=x.shape)


CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "one cycle": ({"rate": schedules.one_cycle(0.1, 20)}, {}),
    "warmup": ({"rate": schedules.warmup(schedules.cosine(0.1, 9), 4)}, {"shuffle": False}),
    "accumulate": ({}, {"accumulate": 2, "batch_size": 4}),
    "transform": ({}, {"transform": noise}),
    "transform, accumulate": ({}, {"transform": noise, "accumulate": 2, "batch_size": 4}),
    "eager": ({"record": False}, {"class_weight": "balanced"}),
    "metrics": ({"metrics": ["f1_macro", "log_loss", "accuracy"], "ema": False}, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_from_every_place_it_comes_to_the_same_end(tmp_path: Path, case: str) -> None:
    built, fitted = CASES[case]
    whole = made(**built)
    saving = Saving(tmp_path)
    fit(whole, callbacks=[*callbacks_of(whole), EveryStep(), saving], **fitted)
    expected = signs(whole)
    assert saving.count > 8
    for number in range(0, saving.count, 2):
        other = made(**{**built, "seed": 5})
        if "rate" in built:
            other.optimizer.lr = 1.0  # the schedule is in the file
        other.load(tmp_path / str(number))
        history = fit(other, callbacks=[*callbacks_of(other), EveryStep()], **fitted)
        assert signs(other) == expected, f"from place {number}"
        assert history.epochs == whole.history.epochs
        assert other.resumption is None


def test_within_an_epoch_it_goes_on_with_a_transform_or_without_as_before(tmp_path: Path) -> None:
    whole, saving = made(), Saving(tmp_path)
    fit(whole, 1, callbacks=[EveryStep(), saving], transform=noise)
    other = made()
    other.load(tmp_path / "1")
    with pytest.raises(ValueError, match="within an epoch with a transform"):
        fit(other, 1)
    plain, saving = made(), Saving(tmp_path)
    fit(plain, 1, callbacks=[EveryStep(), saving])
    other.load(tmp_path / "1")
    with pytest.raises(ValueError, match="within an epoch without a transform"):
        fit(other, 1, transform=noise)


def test_sums_go_on_from_a_file_without_the_weight_of_the_rows_that_have_counted() -> None:
    tally = Tally(nn.MSELoss(reduction="sum"), {})
    tally.resume({"total": 3.0, "weight": 0.0, "metrics": []})
    assert tally.read() == {"loss": 3.0}
    tally.add([1.0, 2.0], batch=4, rows=7)
    assert tally.read() == {"loss": 6.0}


def test_between_two_fits(tmp_path: Path) -> None:
    whole, first, second = made(), made(), made(seed=1)
    fit(whole, 3)
    fit(first, 2)
    first.save(tmp_path / "a")
    second.load(tmp_path / "a")
    assert second.history.epochs == 2
    second.save(tmp_path / "b")  # and once more, before it has gone on
    third = made(seed=2)
    third.load(tmp_path / "b")
    fit(third, 3)
    assert signs(third) == signs(whole)
    assert fit(second, 2).epochs == 2  # nothing is left to do
    model = minidl.load(tmp_path / "a")
    assert (model.parameters()[0].data == first.model.parameters()[0].data).all()


def test_a_fit_that_a_callback_refuses_leaves_the_place(tmp_path: Path) -> None:
    whole, resumed = made(), made(seed=1)
    fit(whole, callbacks=[EveryStep(), saving := Saving(tmp_path)])
    fit(made(), 1, callbacks=[Checkpoint(tmp_path / "taken")])
    resumed.load(tmp_path / str(saving.count // 2))
    with pytest.raises(ValueError, match="checkpoints of another training"):
        fit(resumed, callbacks=[Checkpoint(tmp_path / "taken")])
    fit(resumed, callbacks=[EveryStep()])
    assert signs(resumed) == signs(whole)


def test_what_layers_carry_along_and_their_generators(tmp_path: Path) -> None:
    class Noise(nn.Layer):
        state_names = transient_state_names = ("carried",)

        def __init__(self) -> None:
            self.rngs = {"noise": [np.random.default_rng(3)]}
            self.carried = np.zeros(4, np.float32)

        def forward(self, x: Any) -> Any:
            self.save(None)
            if self.training:
                self.carried += x.mean(axis=(0, 1))
            return x + self.carried + self.rngs["noise"][0].normal(size=x.shape).astype(np.float32)

        def backward(self, dy: Any) -> Any:
            self.saved(dy)
            return dy

    def build() -> Trainer:
        layers = (Noise(), nn.GRU(4, 3), nn.Linear(3, 1))
        model = nn.Sequential(*layers, rng=0)
        optimizer = optim.SGD(model.parameters(), 0.1)
        return Trainer(model, nn.MSELoss(), optimizer, rng=0, record=False)

    x, y = RNG.normal(size=(20, 3, 4)), RNG.normal(size=(20, 3, 1))
    options: dict[str, Any] = {"batch_size": 5, "shuffle": False, "progress": False}
    whole, first, second = build(), build(), build()
    whole.fit(x, y, epochs=3, **options)
    first.fit(x, y, epochs=1, **options)
    first.save(tmp_path / "a")
    second.load(tmp_path / "a")
    second.fit(x, y, epochs=3, **options)
    assert signs(second) == signs(whole)


def test_numbers_that_are_not_read_are_warned_of(tmp_path: Path) -> None:
    class Counting(nn.Layer):
        def __init__(self, factor: float = 1.0) -> None:
            self.calls, self.factor = 0, factor

        def forward(self, x: Any) -> Any:
            self.save(None)
            self.calls += self.training
            return x

        def backward(self, dy: Any) -> Any:
            self.saved(dy)
            return dy

    class Lowest(Counting):
        def __init__(self) -> None:
            self.calls, self.lowest, self.nothing = 0, np.inf, np.nan

        def forward(self, x: Any) -> Any:
            self.lowest = min(self.lowest, x.min())  # a scalar of NumPy
            self.save(None)
            return x

    def build(layer: nn.Layer) -> Trainer:
        model = nn.Sequential(nn.Linear(4, 3), layer, rng=0)
        optimizer = optim.SGD(model.parameters())
        return Trainer(model, nn.CrossEntropyLoss(), optimizer, rng=0, record=False)

    for first, second, words in (
        (Counting(), Counting(), r"Counting\.calls was \d+ when .* saved, and is 0: it stays"),
        (Lowest(), Lowest(), r"Lowest\.lowest was -\d\.\d+ when .* saved, and is inf: it stays"),
        (nn.LeakyReLU(0.1), nn.LeakyReLU(0.2), ""),
    ):
        trainer, resumed = build(first), build(second)
        fit(trainer, 1)
        trainer.save(tmp_path / "a")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            resumed.load(tmp_path / "a")
            resumed.save(tmp_path / "b")
            resumed.load(tmp_path / "b")
        assert [bool(re.search(words, str(w.message))) for w in caught] == [True] * bool(words)
        assert all(w.filename == __file__ for w in caught)


def test_refusals_change_nothing(tmp_path: Path) -> None:
    trainer = made()
    fit(trainer, 1, callbacks=[saving := Saving(tmp_path)])
    path = tmp_path / "0"
    other = made(ema=False)
    before = signs(other)
    with pytest.raises(minidl.ModelFileError, match="averages of an EMA"):
        other.load(path)
    minidl.save(other.model, tmp_path / "model", optimizer=other.optimizer)
    with pytest.raises(minidl.ModelFileError, match="holds a model, and no training"):
        other.load(tmp_path / "model")
    mine = made(rate=lambda step: 0.1)
    mine.save(tmp_path / "mine")
    with pytest.raises(minidl.ModelFileError, match="its learning rate is a function"):
        made().load(tmp_path / "mine")
    assert signs(other) == before
    resumed = made()
    resumed.load(path)
    with pytest.raises(ValueError, match="within an epoch of 30 rows, batch_size=8"):
        fit(resumed, batch_size=5)
    resumed.load(path)
    stopped = made()
    fit(stopped, 1, callbacks=[EarlyStopping(), saving])
    resumed.load(tmp_path / str(saving.count - 1))
    with pytest.raises(ValueError, match="had a EarlyStopping, and there is none now"):
        fit(resumed)
    assert trainer.ema is not None
    with trainer.ema.average(), pytest.raises(RuntimeError, match="save outside"):
        trainer.save(path)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_names_of_columns_are_known_again(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("abcd"))
    trainer, resumed = made(), made()
    trainer.fit(frame, Y, epochs=1, progress=False)
    trainer.save(tmp_path / "a")
    resumed.load(tmp_path / "a")
    assert resumed.columns == trainer.columns
    np.testing.assert_array_equal(resumed.predict(frame), trainer.predict(frame))
    with pytest.raises(ValueError, match="column"):
        resumed.predict(frame[list("dcba")])


def test_a_long_history_fits_into_a_file(tmp_path: Path) -> None:
    trainer = made()
    for _ in range(300_000):
        trainer.history.append({"loss": 1 / 3, "accuracy": 2 / 3, "val_loss": np.pi}, 1e-5)
    trainer.save(tmp_path / "a")
    resumed = made()
    resumed.load(tmp_path / "a")
    assert resumed.history.as_dict() == trainer.history.as_dict()


def test_a_folder_with_the_name_of_a_checkpoint_is_none(tmp_path: Path) -> None:
    (tmp_path / "epoch-00009.safetensors").mkdir()
    checkpoint = Checkpoint(tmp_path, keep=1)
    fit(made(), 2, callbacks=[checkpoint])
    assert checkpoint.latest == tmp_path / "epoch-00002.safetensors"
    resumed = made()
    resumed.load(checkpoint.latest)
    fit(resumed, 3, callbacks=[Checkpoint(tmp_path, keep=1)])
    assert names(tmp_path) == ["epoch-00003.safetensors", "epoch-00009.safetensors"]


def test_checkpoints_by_epochs(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    checkpoint = Checkpoint(folder, every=2, keep=2, best="val_loss")
    assert checkpoint.latest is None
    trainer = made()
    history = fit(trainer, 7, callbacks=[checkpoint])
    assert names(folder) == [
        "best.safetensors",
        "epoch-00004.safetensors",
        "epoch-00006.safetensors",
    ]
    assert checkpoint.latest == folder / "epoch-00006.safetensors"
    best = made()
    best.load(folder / "best.safetensors")
    assert best.history["val_loss"][-1] == min(history["val_loss"])
    with pytest.raises(ValueError, match="holds 2 checkpoints of another training"):
        fit(made(), 1, callbacks=[Checkpoint(folder)])
    resumed = made()
    resumed.load(checkpoint.latest)
    mine = Checkpoint(folder, every=2, keep=1, best="val_loss")
    fit(resumed, 8, callbacks=[mine])
    assert names(folder) == ["best.safetensors", "epoch-00008.safetensors"]
    for _ in range(2):  # the same object: another fit replaces its files
        fit(resumed, 2, callbacks=[mine])
    assert names(folder) == ["best.safetensors", "epoch-00002.safetensors"]


def test_checkpoints_by_time_stand_within_epochs(tmp_path: Path) -> None:
    trainer = made()
    checkpoint = Checkpoint(tmp_path, every=None, minutes=0.0, keep=100)
    fit(trainer, 2, callbacks=[checkpoint, EveryStep(), EarlyStopping("loss", mode="min")])
    assert "epoch-00001-row-000000016.safetensors" in names(tmp_path)
    assert len(names(tmp_path)) == 2 * 4 + 2
    with pytest.raises(ValueError, match="would never save"):
        Checkpoint(tmp_path, every=None)
    with pytest.raises(ValueError, match="no value 'val_f1'"):
        fit(made(), callbacks=[Checkpoint(tmp_path, best="val_f1", mode="max")])


@pytest.mark.parametrize("damage", ["cut", "empty", "garbage", "bits"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, damage: str) -> None:
    whole = made()
    fit(whole, 4)
    checkpoint = Checkpoint(tmp_path)
    fit(made(), 3, callbacks=[checkpoint])
    latest = tmp_path / "epoch-00003.safetensors"
    assert checkpoint.latest == latest
    content = latest.read_bytes()
    flipped = content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]
    damaged = {"cut": content[:-100], "empty": b"", "garbage": b"x" * 999, "bits": flipped}
    latest.write_bytes(damaged[damage])
    with pytest.warns(RuntimeWarning, match="Checkpoint passes over .*epoch-00003"):
        good = checkpoint.latest
    assert good == tmp_path / "epoch-00002.safetensors"
    resumed = made(seed=3)
    resumed.load(good)
    fit(resumed, 4, callbacks=[Checkpoint(tmp_path)])
    assert signs(resumed) == signs(whole)
    assert names(tmp_path) == ["epoch-00003.safetensors", "epoch-00004.safetensors"]
    minidl.load(latest)
    for path in tmp_path.iterdir():
        path.write_bytes(b"")
    with pytest.warns(RuntimeWarning):
        assert checkpoint.latest is None


@pytest.mark.parametrize("every", [1, 3])
def test_files_beyond_the_one_that_was_gone_back_to_do_not_win(tmp_path: Path, every: int) -> None:
    fit(made(), 8, callbacks=[Checkpoint(tmp_path, keep=10)])
    resumed = made()
    resumed.load(tmp_path / "epoch-00004.safetensors")
    checkpoint = Checkpoint(tmp_path, every=every, keep=10)
    seen = []

    class Look(Callback):
        is_last = True

        def on_epoch_end(self, trainer: Trainer, epoch: int, values: Any) -> None:
            seen.append((epoch, names(tmp_path)[-1], len(names(tmp_path))))

    fit(resumed, 6, callbacks=[checkpoint, Look()])
    assert checkpoint.latest == tmp_path / "epoch-00006.safetensors"
    if every == 1:
        assert seen[0] == (5, "epoch-00005.safetensors", 5)
    else:  # nothing is removed before there is something to write
        assert seen == [(5, "epoch-00008.safetensors", 8), (6, "epoch-00006.safetensors", 5)]


def test_a_kill_before_the_first_new_file_leaves_the_one_that_was_gone_back_to(
    tmp_path: Path, monkeypatch: Any
) -> None:
    fit(made(), 4, callbacks=[checkpoint := Checkpoint(tmp_path, keep=10)])
    resumed = made()
    resumed.load(tmp_path / "epoch-00002.safetensors")

    def fail(path: Path) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(resumed, "save", fail)
    with pytest.raises(OSError, match="full"):
        fit(resumed, 4, callbacks=[Checkpoint(tmp_path, keep=10)])
    assert checkpoint.latest == tmp_path / "epoch-00002.safetensors"


def test_checkpoints_of_another_training_are_not_removed_by_a_resumed_one(tmp_path: Path) -> None:
    fit(made(), 3, callbacks=[Checkpoint(tmp_path / "a")])
    fit(made(seed=1), 4, callbacks=[other := Checkpoint(tmp_path / "b")])
    before = names(tmp_path / "b")
    resumed = made()
    resumed.load(tmp_path / "a" / "epoch-00002.safetensors")
    with pytest.raises(ValueError, match="b holds 2 checkpoints of another training"):
        fit(resumed, 4, callbacks=[Checkpoint(tmp_path / "b")])
    assert names(tmp_path / "b") == before
    assert other.latest == tmp_path / "b" / "epoch-00004.safetensors"
    copy = (tmp_path / "a" / "epoch-00002.safetensors").rename(tmp_path / "kept elsewhere")
    resumed.load(copy)
    fit(resumed, 4, callbacks=[Checkpoint(tmp_path / "a")])  # of the same training
    assert names(tmp_path / "a") == ["epoch-00003.safetensors", "epoch-00004.safetensors"]


def test_there_is_a_file_at_any_moment_after_going_back_to_the_best(
    tmp_path: Path, monkeypatch: Any
) -> None:
    fit(made(), 4, callbacks=[Checkpoint(tmp_path, keep=1, best="loss", mode="max")])
    best = tmp_path / "best.safetensors"  # of the first epoch, and keep=1 leaves the last beside it
    resumed = made()
    resumed.load(best)
    assert resumed.history.epochs == 1

    def fail(path: Path) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(resumed, "save", fail)
        with pytest.raises(OSError, match="full"):
            fit(resumed, 3, callbacks=[Checkpoint(tmp_path)])
    assert names(tmp_path) == ["best.safetensors", "epoch-00004.safetensors"]
    resumed.load(best)
    fit(resumed, 2, callbacks=[checkpoint := Checkpoint(tmp_path)])
    assert names(tmp_path) == ["best.safetensors", "epoch-00002.safetensors"]  # 4 is given up
    assert checkpoint.latest == tmp_path / "epoch-00002.safetensors"


def test_a_full_disk_leaves_the_checkpoints_that_are_there(
    tmp_path: Path, monkeypatch: Any
) -> None:
    whole = made()
    fit(whole, 4)
    fit(made(), 2, callbacks=[checkpoint := Checkpoint(tmp_path)])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    resumed = made()
    resumed.load(tmp_path / "epoch-00002.safetensors")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"No space left on device: '.*epoch-00003"):
            fit(resumed, 4, callbacks=[Checkpoint(tmp_path)])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    resumed.load(checkpoint.latest)  # type: ignore[arg-type]
    fit(resumed, 4, callbacks=[Checkpoint(tmp_path)])
    assert signs(resumed) == signs(whole)


def test_arguments_of_a_checkpoint_that_cannot_be_meant(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match='by its name, such as "val_loss", got 3'):
        Checkpoint(tmp_path, best=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"mode='max' says .* best is None"):
        Checkpoint(tmp_path, mode="max")
    with pytest.raises(ValueError, match="must have no NUL character"):
        Checkpoint("a\0b")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL")
@pytest.mark.parametrize("kind", killing.KINDS)
def test_killed_and_resumed(tmp_path: Path, kind: str) -> None:
    """``make kill`` does it 200 times."""
    whole, seconds = killing.uninterrupted(tmp_path, kind)
    rng = np.random.default_rng(0)
    for number in range(5):  # a machine that has become faster may end before the first kill
        (tmp_path / str(number)).mkdir()
        end, kills = killing.kill_and_resume(tmp_path / str(number), kind, seconds, 3, rng)
        assert end == whole
        if kills:
            return
    pytest.fail("no kill came in time")
