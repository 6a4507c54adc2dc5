"""``minidl train adding``, and the options of all commands that train recurrent networks."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minidl import datasets, nn, optim
from minidl.cli import examined, options, plot
from minidl.cli.characters import CELLS
from minidl.cli.gradients import in_evaluation
from minidl.cli.options import add_option, usage_errors
from minidl.nn.recurrent.sequence import Recurrent
from minidl.training import Trainer

ALWAYS_ONE = 1 / 6  # the variance of the sum of two numbers from U(0, 1), whose mean is one
SCALE = plot.Scale(
    "loss",
    "mean squared error",
    ALWAYS_ONE,
    "always answering 1: 1/6",
    values=(1e-4, 4.0),
    gradients=(1e-30, 1.0),
)
TEST = 1000  # sequences, new ones
WATCHED = 100  # of them, for the gradient of the states


def add_network(parser: argparse.ArgumentParser, hidden: int) -> Any:
    """Add the options of the network; returns their group."""
    group = parser.add_argument_group("network", "In brackets: what holds without the option.")
    add_option(group, "--cell", "lstm", "of the recurrent layers", choices=CELLS)
    add_option(group, "--hidden", hidden, "width of the state", type=options.count, metavar="N")
    add_option(group, "--layers", 1, "one above the other", type=options.count, metavar="N")
    return group


def add_training(parser: argparse.ArgumentParser, epochs: int, batch_size: int, lr: float) -> Any:
    """Add the options of the training; returns their group."""
    group = parser.add_argument_group("training")
    add_option(group, "--lr", lr, "learning rate of Adam", type=options.rate, metavar="RATE")
    limit = "longest gradient, or none"
    add_option(group, "--max-norm", "1", limit, type=options.norm_limit, metavar="NORM")
    help = "passes over the data"
    add_option(group, "--epochs", epochs, help, type=options.count, metavar="N")
    help = "sequences of a step"
    add_option(group, "--batch-size", batch_size, help, type=options.count, metavar="N")
    add_option(group, "--seed", 0, "of all that is random", type=options.seed, metavar="N")
    return group


def add_output(parser: argparse.ArgumentParser, only: str) -> Any:
    """Add ``--plot`` and ``--quiet``; returns their group."""
    group = parser.add_argument_group("output")
    group.add_argument("--plot", type=Path, metavar="FILE", help="draw the training: .png, .pdf")
    group.add_argument("--quiet", action="store_true", help=f"print {only} only")
    return group


def add_adding(data: Any, run: Callable[[argparse.Namespace], int] | None = None) -> None:
    """Add ``adding``, and what runs: the training by default."""
    parser = data.add_parser("adding", help="two marked numbers among many: a test of memory")
    group = parser.add_argument_group("data")
    add_option(group, "--steps", 200, "of a sequence", type=options.whole_number(2), metavar="N")
    add_option(group, "--samples", 5000, "sequences", type=options.count, metavar="N")
    add_network(parser, hidden=32)
    add_training(parser, epochs=12, batch_size=20, lr=1e-2)
    add_output(parser, "the test error")
    parser.set_defaults(run=run or train)


def build(arguments: argparse.Namespace) -> tuple[Any, nn.Sequential, optim.Optimizer]:
    """Make the sequences and their sums, a recurrent network, and its optimizer."""
    with usage_errors(ValueError):
        rows = datasets.adding(arguments.samples, arguments.steps, rng=arguments.seed + 1)
    layer = CELLS[arguments.cell](2, arguments.hidden, arguments.layers, return_sequences=False)
    model = nn.Sequential(layer, nn.Linear(arguments.hidden, 1), rng=arguments.seed)
    return rows, model, optim.Adam(model.parameters(), arguments.lr, max_norm=arguments.max_norm)


def train(arguments: argparse.Namespace) -> int:
    """Train on sequences that are made, test on new ones, and report."""
    if arguments.plot is not None:
        with usage_errors(ImportError, OSError, ValueError):
            plot.check(arguments.plot)
    (x, y), model, optimizer = build(arguments)
    layer: Any = model[0]
    test = datasets.adding(TEST, arguments.steps, rng=arguments.seed + 2)
    trainer = Trainer(model, nn.MSELoss(), optimizer, rng=arguments.seed + 3)
    if not arguments.quiet:
        print(model, end="\n\n")
        print(
            f"adding problem: {len(x):,} sequences of {arguments.steps} steps, {TEST:,} to test "
            f"(val_); {optimizer!r}, batch size {arguments.batch_size}, seed {arguments.seed}\n"
        )
    before = _untrained(trainer, (x, y), test) if arguments.plot is not None else {}
    norms = {"before training": _norms(model, layer, *test)}
    history, diagnosis = examined.fit(
        *(trainer, x, y, arguments.epochs, arguments.batch_size, arguments.quiet), validation=test
    )
    norms["after training"] = _norms(model, layer, *test)
    error = f"test error: {history['val_loss'][-1]:.4f}"
    if arguments.quiet:
        print(error)
    else:
        print(f"\ntraining took {sum(history.seconds):.2f} s")
        print(f"{error} (always one: {ALWAYS_ONE:.4f})")
    if diagnosis:
        print(f"\n{diagnosis}")
    if arguments.plot is not None:
        title = f"adding problem, {arguments.steps} steps, {layer!r}"
        with options.writing(arguments.plot):
            plot.draw_sequences(arguments.plot, history, before, norms, SCALE, title)
        if not arguments.quiet:
            print(f"\nplot written to {arguments.plot}")
    return 0


def _untrained(trainer: Trainer, data: Any, test: Any) -> dict[str, float]:
    """The error before training."""
    return {
        "loss": trainer.evaluate(*data)["loss"],
        "val_loss": trainer.evaluate(*test)["loss"],
    }


def _norms(model: nn.Layer, layer: Recurrent, x: Any, y: Any) -> Any:
    """‖∂L/∂h_t‖ over some sequences."""
    loss = nn.MSELoss()
    with in_evaluation(model):
        loss(model(x[:WATCHED]), y[:WATCHED])
        model.backward(loss.backward())
    model.zero_grad()
    return layer.state_gradient_norms()
