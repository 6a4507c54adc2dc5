"""Trainings that are killed, resumed, and must end with the same bits.

    python tests/killing.py 200            kills, at random moments, and at each a resumption
    python tests/killing.py train FOLDER KIND FILE

The second form is the training itself, in a process of its own. It resumes from the folder if there
is something in it, and writes its end to the file. KIND is ``cycle`` or ``plateau``: between them
they have all that a training can have.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import minidl
from minidl import nn, optim
from minidl.optim import schedules
from minidl.training import Checkpoint, EarlyStopping, ReduceOnPlateau, Trainer

ROWS, TIME, FEATURES, CLASSES = 240, 6, 5, 3
EPOCHS = 6
KINDS = ("cycle", "plateau")


def mean_margin(prediction: Any, target: Any) -> float:
    """How far the largest logit is above the others, on average."""
    ordered = np.sort(prediction, axis=1)
    return float(np.mean(ordered[:, -1] - ordered[:, -2]))


def build(kind: str) -> tuple[Trainer, list[Any]]:
    """A trainer with everything switched on, and its callbacks."""
    model = nn.Sequential(
        nn.Standardize(FEATURES),
        nn.LSTM(FEATURES, 8, num_layers=2, dropout=0.2, return_sequences=False),
        nn.BatchNorm(8),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(8, CLASSES),
        rng=1,
    )
    rate: Any = schedules.one_cycle(0.02, steps=90) if kind == "cycle" else 0.02
    optimizer = optim.Adam(model.parameters(), lr=rate, max_norm=1.0)
    ema = optim.EMA(model, decay=0.9)
    options: dict[str, Any] = {
        "metrics": ["accuracy", "log_loss", mean_margin],
        "weighted_metrics": ["accuracy", "f1_macro"],
    }
    trainer = Trainer(model, nn.CrossEntropyLoss(), optimizer, rng=2, ema=ema, **options)
    callbacks: list[Any] = [EarlyStopping("val_loss", patience=2, min_delta=0.02)]
    if kind == "plateau":
        callbacks.append(ReduceOnPlateau(optimizer, patience=0, factor=0.5, threshold=0.1))
    return trainer, callbacks


def data() -> tuple[Any, Any]:
    """Sequences, and labels that depend on them."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, TIME, FEATURES)).astype(np.float32)
    return x, (x[:, -1, 0] > 0).astype(int) + (x[:, 0, 1] > 0.5)


def train(folder: Path, kind: str, file: Path) -> None:
    """Resume if there is something to resume, train to the end, and write it down."""
    trainer, callbacks = build(kind)
    checkpoint = Checkpoint(folder, minutes=0.0, keep=2, best="val_accuracy")
    if checkpoint.latest is not None:
        trainer.load(checkpoint.latest)
    x, y = data()
    next(layer for _, layer in trainer.model.layers() if isinstance(layer, nn.Standardize)).adapt(x)
    print("begun", flush=True)
    trainer.fit(
        *(x, y),
        epochs=EPOCHS,
        batch_size=8,
        accumulate=2,
        validation=0.2,
        class_weight="balanced",
        callbacks=[checkpoint, *callbacks],
        progress=False,
    )
    with trainer.ema.average():  # type: ignore[union-attr]
        averaged = trainer.predict(x)
    history = {name: [value.hex() for value in values] for name, values in trainer.history.items()}
    words = {"history": repr(history), "averaged": averaged.tobytes().hex()}
    words["drawn"] = str(trainer.rng.integers(2**60))
    minidl.save(trainer.model, file, optimizer=trainer.optimizer, metadata=words)


def run(folder: Path, kind: str, file: Path) -> subprocess.Popen[str]:
    arguments = [sys.executable, __file__, "train", str(folder), kind, str(file)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def uninterrupted(folder: Path, kind: str) -> tuple[bytes, float]:
    """The end of a training that nobody kills, and the seconds it took after its beginning."""
    process = run(folder / "whole", kind, folder / "whole.end")
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    begun = time.monotonic()
    assert process.wait(120) == 0
    process.stdout.close()
    return (folder / "whole.end").read_bytes(), time.monotonic() - begun


def kill_and_resume(
    folder: Path, kind: str, seconds: float, kills: int, rng: Any
) -> tuple[bytes, int]:
    """The end of a training that is killed at random moments, and how often it was.

    It is killed at most ``kills`` times, if it does not come to its end before that.
    """
    done = 0
    file = folder / "resumed.end"
    while not file.exists():
        process = run(folder / "killed", kind, file)
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n", "a checkpoint could not be read"
        if done < kills:
            time.sleep(float(rng.uniform(0, 2 * seconds / kills)))
            process.send_signal(signal.SIGKILL)
            done += process.wait(120) == -signal.SIGKILL
        else:
            assert process.wait(120) == 0
        process.stdout.close()
    check_readable(folder / "killed")
    return file.read_bytes(), done


def check_readable(folder: Path) -> None:
    """Every file that is there can be read, as a training and as a model."""
    for path in folder.glob("*.safetensors"):
        minidl.load(path)


def main(kills: int) -> None:
    rng = np.random.default_rng(0)
    done, turn, each = 0, 0, 5
    with tempfile.TemporaryDirectory() as name:
        wholes = {}
        for kind in KINDS:
            (Path(name) / kind).mkdir()
            wholes[kind] = uninterrupted(Path(name) / kind, kind)
        while done < kills:
            kind = KINDS[turn % 2]
            folder = Path(tempfile.mkdtemp(dir=name))
            whole, seconds = wholes[kind]
            end, killed = kill_and_resume(folder, kind, seconds, each, rng)
            assert end == whole, f"{kind}: other bits"
            done += killed
            turn += 1
            print(f"{done} kills: the same bits", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "train":
        train(Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
    else:
        main(int(sys.argv[1]))
