"""``minidl diagnose``: train as told, and say what is wrong with the training and why."""

from __future__ import annotations

import argparse
from typing import Any

from minidl import nn
from minidl.cli import images, network, options, plot, sequences, train
from minidl.cli.options import usage_errors
from minidl.datasets import Dataset
from minidl.diagnosis.diagnosing import diagnose
from minidl.optim import Optimizer


def add_command(commands: Any) -> None:
    """Add ``diagnose digits``, ``diagnose idx`` and ``diagnose adding``."""
    parser = commands.add_parser("diagnose", help="say what is wrong with a training, and why")
    parser.add_argument("--cure", action="store_true", help="carry the remedies out, too")
    data = parser.add_subparsers(title="data", metavar="DATA", required=True)
    train.add_images(data, of_images)
    sequences.add_adding(data, of_sequences)


def of_images(data: Dataset, arguments: argparse.Namespace) -> int:
    """Diagnose a network that is trained on images."""
    with usage_errors(ValueError):
        data, model = images.build_model(data, arguments)
    optimizer = network.build_optimizer(model, arguments)
    rows = data.x_train, data.y_train
    return report(model, nn.CrossEntropyLoss(), optimizer, rows, arguments, arguments.seed + 1)


def of_sequences(arguments: argparse.Namespace) -> int:
    """Diagnose a recurrent network that adds."""
    rows, model, optimizer = sequences.build(arguments)
    return report(model, nn.MSELoss(), optimizer, rows, arguments, arguments.seed + 3)


def report(
    model: nn.Layer,
    loss: nn.Loss,
    optimizer: Optimizer,
    rows: tuple[Any, Any],
    arguments: argparse.Namespace,
    seed: int,
) -> int:
    """Diagnose, print what was found, and draw it if that is asked for."""
    if arguments.plot is not None:
        with usage_errors(ImportError, OSError, ValueError):
            plot.check(arguments.plot)
    if not arguments.quiet:
        print(model, end="\n\n")
    with usage_errors(ValueError):
        found = diagnose(
            *(model, loss, optimizer, *rows),
            epochs=arguments.epochs,
            batch_size=arguments.batch_size,
            rng=seed,
        )
    kinds = " ".join(verdict.kind for verdict in found.verdicts) or "healthy"
    print(kinds if arguments.quiet else found.report())
    if arguments.plot is not None:
        with options.writing(arguments.plot):
            found.plot(arguments.plot)
        if not arguments.quiet:
            print(f"\nplot written to {arguments.plot}")
    if arguments.cure and found.verdicts:
        print(f"\n{found.cure()}")
    return 0
