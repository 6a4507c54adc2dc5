"""``minidl train csv``: a network that predicts a column of a table from the others."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minidl import nn
from minidl.cli import examined, keeping, network, options, report
from minidl.cli.options import UsageError, add_option, usage_errors
from minidl.saving.contents import TABLE
from minidl.tables.encoders import Numbers
from minidl.tables.features import Features
from minidl.tables.reading import read_table
from minidl.tables.splitting import split_rows
from minidl.tables.target import TASKS, Target, read_target, with_target
from minidl.tables.text_file import TableError
from minidl.tables.words import POINT
from minidl.training import EarlyStopping, History, Trainer
from minidl.typing import Array

DEFAULTS = network.Defaults(
    *("64,32", False, 0.1, 1e-3), epochs=200, rows="rows", score="accuracy, or R²,"
)
PATIENCE = 12  # epochs without an improvement
MOST_COLUMNS = 40  # that are described
LONGEST_NAME, LONGEST_WORDS = 24, 90  # characters


Pair = tuple[Array, Array]


@dataclass(frozen=True)
class Prepared:
    """A table as arrays, and how its columns became these.

    Attributes
    ----------
    features, target
        The columns.
    scale
        Of a target that is a number; None for classes.
    train, validation, test
        Inputs (rows, inputs), and labels (rows) or standardised numbers (rows, 1).
    notes
        What else was done.
    """

    features: Features
    target: Target
    scale: Numbers | None
    train: Pair
    validation: Pair
    test: Pair
    notes: list[str]

    @property
    def units(self) -> int:
        """How many outputs the network has."""
        return len(self.target.classes) or 1


def add_csv(data: Any) -> None:
    """Add ``train csv``."""
    parser = data.add_parser("csv", help="a column of a table, from the other columns")
    group = parser.add_argument_group("data")
    group.add_argument("file", type=Path, metavar="FILE", help="text with commas, ; or tabs")
    group.add_argument("--target", required=True, metavar="COLUMN", help="what to predict")
    add_option(group, "--task", "auto", "what the target is", choices=TASKS)
    output = network.add_options(parser, DEFAULTS)
    keeping.add_save(output, "columns")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Read a table, train on it, and report."""
    keeping.check_outputs(arguments)
    data = prepare(arguments)
    with usage_errors(ValueError):
        model = network.build_model(data.features.width, data.units, arguments)
    optimizer = network.build_optimizer(model, arguments)
    loss = nn.CrossEntropyLoss() if data.target.is_classes else nn.MSELoss()
    metric = "accuracy" if data.target.is_classes else "r2"
    trainer = Trainer(model, loss, optimizer, metrics=[metric], rng=arguments.seed + 1)
    if not arguments.quiet:
        _describe(data, trainer, arguments)
    kept = arguments.save, model, {TABLE: json.dumps(_kept(data, arguments))}
    with usage_errors(ValueError), keeping.saved_if_interrupted(*kept):
        history, diagnosis = examined.fit(
            *(trainer, *data.train, arguments.epochs, arguments.batch_size, arguments.quiet),
            validation=data.validation,
            callbacks=[EarlyStopping("val_loss", PATIENCE)],
        )
    try:
        written = [] if arguments.save is None else [keeping.save(*kept)]
    finally:  # the results are there, even if the disk is full
        _print_results(trainer, data, history, arguments.quiet)
    if diagnosis:
        print(f"\n{diagnosis}")
    if arguments.plot is not None:
        with options.writing(arguments.plot):
            history.plot(arguments.plot)
        written.append(f"plot written to {arguments.plot}")
    if written and not arguments.quiet:
        print("\n" + "\n".join(written))
    return 0


def prepare(arguments: argparse.Namespace) -> Prepared:
    """Read the table, and make arrays of it.

    Raises
    ------
    UsageError
        For a file that holds no table to train on.
    """
    try:
        table, column = with_target(read_table(arguments.file), arguments.target)
        target = read_target(column, arguments.task)
        labels = target.values if target.is_classes else None
        split = split_rows(table.rows, labels, arguments.seed + 2)
        features = Features.learn(list(table.columns.values()), split.train)
        inputs = [features.encode(table.columns, rows) for rows in split]
    except TableError as error:
        raise UsageError(f"{arguments.file}: {error}") from error
    except (ImportError, OSError) as error:
        with usage_errors(ImportError, OSError):
            raise error
    scale, outputs = None, target.values
    if not target.is_classes:
        scale = Numbers.learn(POINT, target.values[split.train])
        if not scale.std:
            raise UsageError(f"{arguments.file}: the target {target.name!r} hardly varies")
        outputs = scale.encode_values(target.values)
    train, validation, test = ((x, outputs[rows]) for x, rows in zip(inputs, split, strict=True))
    return Prepared(features, target, scale, train, validation, test, table.notes)


# --- what is printed --------------------------------------------------------------------------


def _describe(data: Prepared, trainer: Trainer, arguments: argparse.Namespace) -> None:
    """Print what was done with every column, and what will be trained."""
    for note in data.notes:
        print(f"note: {note}")
    print(_columns(data.features), end="\n\n")
    target, parts = data.target, (data.train, data.validation, data.test)
    train, validation, test = (f"{len(x):,}" for x, _ in parts)
    why = f" ({target.why})" if target.why else ""
    if data.scale is None:
        counts = np.bincount(target.values, minlength=len(target.classes)).tolist()
        rows = zip(target.classes, counts, strict=True)
        words = ", ".join(f"{name} {count:,}" for name, count in rows)
        print(f"target {target.name!r}: classes{why}: {report.one_line(words, LONGEST_WORDS)}\n")
    else:
        words = f"mean {data.scale.mean:.4g}, std {data.scale.std:.4g}"
        print(f"target {target.name!r}: a number{why}: {words}\n")
    print(trainer.model, end="\n\n")
    print(
        f"{arguments.file.name}: {train} rows to train on, {validation} to validate (val_), "
        f"{test} to test; {trainer.optimizer!r}, batch size {arguments.batch_size}, "
        f"seed {arguments.seed}\n"
    )


def _columns(features: Features) -> str:
    """Format a line for every column: what it holds, how many inputs it gives, and how."""
    shown = features.columns[:MOST_COLUMNS]
    names = [report.one_line(feature.name, LONGEST_NAME) for feature in shown]
    width = max(map(len, ["column", *names]))
    lines = [f"{'column':<{width}}  {'holds':<8}  inputs"]
    for name, feature in zip(names, shown, strict=True):
        words = report.one_line(feature.words, LONGEST_WORDS)
        lines.append(f"{name:<{width}}  {feature.kind:<8}  {feature.width or '.':>6}  {words}")
    if others := features.columns[MOST_COLUMNS:]:
        inputs = sum(feature.width for feature in others)
        lines.append(f"and {len(others):,} more columns, {inputs:,} inputs")
    return "\n".join(lines)


def _print_results(trainer: Trainer, data: Prepared, history: History, quiet: bool) -> None:
    x, y = data.test
    if not quiet:
        seconds = sum(history.seconds)
        speed = history.epochs * len(data.train[0]) / seconds
        print(f"\ntraining took {seconds:.2f} s, {speed:,.0f} rows/s")
    predicted = trainer.predict(x)
    if data.scale is None:
        _print_classes(predicted.argmax(axis=1), y, data.target.classes, quiet)
    else:
        _print_numbers(predicted[:, 0], y[:, 0], data.scale, quiet)


def _print_classes(predicted: Array, labels: Array, classes: tuple[str, ...], quiet: bool) -> None:
    right = predicted == labels
    print(f"test accuracy: {right.mean():.4f}")
    if quiet:
        return
    counts = np.bincount(labels, minlength=len(classes))
    recalls = np.bincount(labels[right], minlength=len(classes)) / counts
    print(f"balanced accuracy: {recalls.mean():.4f}")
    most = report.one_line(classes[counts.argmax()], LONGEST_NAME)
    print(f"always {most}: {counts.max() / len(labels):.4f}\n")
    print(report.confusion(labels, predicted, classes))


def _print_numbers(predicted: Array, values: Array, scale: Numbers, quiet: bool) -> None:
    error = float(np.sqrt(np.mean(np.square(predicted - values, dtype=np.float64))))
    spread = float(np.std(values, dtype=np.float64))
    print(f"test R²: {1 - (error / spread) ** 2:.4f}" if spread else "test R²: all values equal")
    if not quiet:
        mean = float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))
        print(f"RMSE: {error * scale.std:.4g} (always {scale.mean:.4g}: {mean * scale.std:.4g})")


# --- what is kept ------------------------------------------------------------------------------


def _kept(data: Prepared, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what predictions for new rows need beside the parameters."""
    names = "hidden", "activation", "norm", "residual", "dropout"
    return {
        "version": 1,
        "columns": data.features.as_list(),
        "target": data.target.description(),
        "scale": data.scale and {"mean": data.scale.mean, "std": data.scale.std},
        "network": {name: getattr(arguments, name) for name in names},
    }
