"""``minidl train``: fit a small network and say how good it is."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from minidl import datasets, nn
from minidl.analysis import feature_maps
from minidl.cli import (
    examined,
    images,
    keeping,
    network,
    options,
    plot,
    report,
    sequences,
    tables,
    text,
)
from minidl.cli.options import UsageError, usage_errors
from minidl.cli.pixels import scaled
from minidl.datasets import Dataset
from minidl.training import History, Trainer
from minidl.typing import Array

MOST_CLASSES = 4096  # each has an output, and a row and a column of the confusion matrix
LARGEST_BYTE = 255
DIGITS = network.Defaults(hidden="128,64", norm=False, dropout=0.0, adam_rate=2e-3, epochs=20)
IDX = network.Defaults(hidden="256,128", norm=True, dropout=0.2, adam_rate=1e-3, epochs=15)


def add_command(commands: Any) -> None:
    """Add ``train digits``, ``train idx``, ``train csv``, ``train text`` and ``train adding``."""
    parser = commands.add_parser("train", help="train a network")
    data = parser.add_subparsers(title="data", metavar="DATA", required=True)

    for output in add_images(data, run):
        keeping.add_save(output, "pixels")
    tables.add_csv(data)
    text.add_text(data)
    sequences.add_adding(data)


def add_images(data: Any, run: Callable[[Dataset, argparse.Namespace], int]) -> tuple[Any, Any]:
    """Add ``digits`` and ``idx`` with the options of networks for images, and what runs.

    Returns the groups of their output.
    """
    digits = data.add_parser("digits", help="the 8 x 8 digits that come with minidl")
    of_digits = images.add_options(digits, DIGITS)
    digits.set_defaults(run=lambda arguments: run(datasets.digits(), arguments))

    idx = data.add_parser("idx", help="images and labels in IDX files, the format of MNIST")
    add = idx.add_argument_group("data").add_argument
    add("--images", type=Path, required=True, metavar="FILE")
    add("--labels", type=Path, required=True, metavar="FILE")
    add("--train", type=options.count, metavar="N", help="train on the first N (80 %%)")
    add("--test", type=options.count, metavar="N", help="test on the last N (all the others)")
    of_idx = images.add_options(idx, IDX)
    idx.set_defaults(run=lambda arguments: run(_idx(arguments), arguments))
    return of_digits, of_idx


def run(data: Dataset, arguments: argparse.Namespace) -> int:
    """Train on ``data`` as the arguments say, and report."""
    keeping.check_outputs(arguments)
    with usage_errors(ValueError):
        data, model = images.build_model(data, arguments)
    optimizer = network.build_optimizer(model, arguments)
    trainer = Trainer(model, nn.CrossEntropyLoss(), optimizer, rng=arguments.seed + 1)
    if not arguments.quiet:
        print(model, end="\n\n")
        print(
            f"{data.name}: {len(data.x_train):,} images to train on, {len(data.x_test):,} to test "
            f"(val_); {optimizer!r}, batch size {arguments.batch_size}, seed {arguments.seed}\n"
        )
    norms = report.Norms(model, trainer.loss, data.x_train, data.y_train)
    kept = arguments.save, model, images.words_of(data)
    with usage_errors(ValueError), keeping.saved_if_interrupted(*kept):
        before = report.untrained(trainer, data) if arguments.plot is not None else {}
        history, diagnosis = examined.fit(
            trainer,
            data.x_train,
            data.y_train,
            arguments.epochs,
            arguments.batch_size,
            arguments.quiet,
            validation=(data.x_test, data.y_test),
            callbacks=[norms] if arguments.plot is not None else [],
        )
    try:
        written = [] if arguments.save is None else [keeping.save(*kept)]
    finally:  # the results are there, even if the disk is full
        _print_results(trainer, data, history, norms, arguments.quiet)
    if diagnosis:
        print(f"\n{diagnosis}")
    if arguments.plot is not None:
        written.append(_draw(model, data, history, before, norms, arguments))
    if written and not arguments.quiet:
        print("\n" + "\n".join(written))
    return 0


def _draw(
    model: nn.Layer,
    data: Dataset,
    history: History,
    before: Any,
    norms: report.Norms,
    arguments: argparse.Namespace,
) -> str:
    """Draw the training, and below it what a convolutional network sees."""
    maps = None if arguments.model == "mlp" else feature_maps(model, data.x_test[0])
    with options.writing(arguments.plot):
        titles = data.classes, data.name
        plot.draw(arguments.plot, history, before, norms.gradients, *titles, maps)
    return f"plot written to {arguments.plot}"


def _print_results(
    trainer: Trainer, data: Dataset, history: History, norms: report.Norms, quiet: bool
) -> None:
    predicted = trainer.predict(data.x_test).argmax(axis=1)
    accuracy = np.mean(predicted == data.y_test)
    if quiet:
        print(f"test accuracy: {accuracy:.4f}")
        return
    seconds = sum(history.seconds)
    speed = history.epochs * len(data.x_train) / seconds
    print(f"\ntraining took {seconds:.2f} s, {speed:,.0f} samples/s")
    print(f"test accuracy: {accuracy:.4f}\n")
    print(report.confusion(data.y_test, predicted, range(data.classes)), end="\n\n")
    print(norms.table())


def _idx(arguments: argparse.Namespace) -> Dataset:
    with usage_errors(OSError, ValueError):
        pixels, labels = datasets.idx(arguments.images), datasets.idx(arguments.labels)
    _check_images(arguments, pixels, labels)
    train, test = _split(len(pixels), arguments.train, arguments.test)
    if labels[:train].min() == labels[:train].max():
        raise UsageError(
            f"{arguments.labels}: the images to train on are all of class {labels[0]}, and there "
            "is nothing to tell apart"
        )
    # Bytes are pixels; any other type is taken to be scaled already.
    most = LARGEST_BYTE if pixels.dtype == np.uint8 else None
    x = pixels.astype(np.float32) if most is None else scaled(pixels, most)
    x, y = x.reshape(len(x), -1), labels.astype(np.int64)
    parts = x[:train], y[:train], x[-test:], y[-test:]
    return Dataset(*parts, arguments.images.name, pixels.shape[1:], most)


def _check_images(arguments: argparse.Namespace, pixels: Array, labels: Array) -> None:
    """Raise UsageError unless these are images, and a class for each."""
    images, names = arguments.images, arguments.labels
    if pixels.ndim == 1 and labels.ndim > 1:
        raise UsageError(
            f"{images} holds labels {pixels.shape}, and {names} images {labels.shape}: exchange "
            "--images and --labels"
        )
    if pixels.ndim < 2:
        raise UsageError(
            f"{images}: expected images, an array (count, height, width), got shape {pixels.shape}"
        )
    if labels.ndim != 1:
        raise UsageError(f"{names}: expected a label for each image, got shape {labels.shape}")
    if len(pixels) != len(labels):
        raise UsageError(
            f"{images} holds {len(pixels):,} images, and {names} holds {len(labels):,} labels"
        )
    if labels.dtype.kind not in "iu" or labels.min() < 0:
        raise UsageError(f"{names}: labels must be integers >= 0")
    if labels.max() >= MOST_CLASSES:
        raise UsageError(
            f"{names}: labels must be less than {MOST_CLASSES:,}, and count the classes from 0; "
            f"got {labels.max()} in row {labels.argmax()}"
        )


def _split(samples: int, train: int | None, test: int | None) -> tuple[int, int]:
    """How many of the first rows train and how many of the last test."""
    if train is None:
        train = samples * 8 // 10 if test is None else samples - test
    if test is None:
        test = samples - train
    if train < 1 or test < 1 or train + test > samples:
        raise UsageError(
            f"cannot train on {train:,} and test on {test:,} of {samples:,} images: both parts "
            "need at least one, and none may be in both"
        )
    return train, test
