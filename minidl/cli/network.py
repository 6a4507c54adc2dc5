"""Networks of linear layers, and their training, as the options of the command line say."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from minidl import nn, optim
from minidl.cli import options
from minidl.cli.options import add_option

ACTIVATIONS: dict[str, type[nn.Layer]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}
SGD_RATE, SGD_MOMENTUM = 0.1, 0.9


@dataclass(frozen=True)
class Defaults:
    """The net and the training that suit a data set, as long as no option says otherwise."""

    hidden: str
    norm: bool
    dropout: float
    adam_rate: float
    epochs: int
    rows: str = "images"
    score: str = "accuracy"


def add_options(parser: argparse.ArgumentParser, defaults: Defaults) -> Any:
    """Add the options of network, training and output; returns the group of the output."""
    network = parser.add_argument_group("network", "In brackets: what holds without the option.")
    add = partial(add_option, network)
    add("--hidden", defaults.hidden, "widths, or none", type=options.widths, metavar="N,N")
    add("--activation", "relu", "after every hidden layer", choices=ACTIVATIONS)
    known = f"initialiser: {', '.join(options.INITIALIZERS)}, normal:STD; auto: by activation"
    add("--init", "auto", known, type=options.initializer, metavar="NAME")
    add("--norm", defaults.norm, "batch normalization", action=argparse.BooleanOptionalAction)
    add("--residual", False, "a way around each layer", action=argparse.BooleanOptionalAction)
    add("--dropout", defaults.dropout, "share set to zero", type=options.probability, metavar="P")

    training = parser.add_argument_group("training")
    add = partial(add_option, training)
    add("--optimizer", "adam", f"sgd has momentum {SGD_MOMENTUM}", choices=["adam", "sgd"])
    rates = f"learning rate [adam {defaults.adam_rate}, sgd {SGD_RATE}]"
    training.add_argument("--lr", type=options.rate, metavar="RATE", help=rates)
    limit = "longest gradient, or none"
    add("--max-norm", "1", limit, type=options.norm_limit, metavar="NORM")
    add("--epochs", defaults.epochs, "passes over the data", type=options.count, metavar="N")
    add("--batch-size", 32, f"{defaults.rows} of a step", type=options.count, metavar="N")
    add("--seed", 0, "of all that is random", type=options.seed, metavar="N")
    parser.set_defaults(adam_rate=defaults.adam_rate)

    output = parser.add_argument_group("output")
    output.add_argument("--plot", type=Path, metavar="FILE", help="draw the training: .png, .pdf")
    output.add_argument(
        "--quiet", action="store_true", help=f"print the test {defaults.score} only"
    )
    return output


def options_by_default(defaults: Defaults) -> dict[str, Any]:
    """Return the values that the options of the network have where none is given."""
    return {
        "hidden": options.widths(defaults.hidden),
        "activation": "relu",
        "init": None,
        "norm": defaults.norm,
        "residual": False,
        "dropout": defaults.dropout,
    }


def build_model(features: int, outputs: int, arguments: argparse.Namespace) -> nn.Sequential:
    """Linear, [BatchNorm,] activation[, Dropout] for every hidden width, then the outputs."""
    for option, default in vars(arguments).get("of_mlp", {}).items():
        if getattr(arguments, option) is None:
            setattr(arguments, option, default)
    chosen = arguments.init  # None: the layer's own choice
    layers: list[nn.Layer] = []
    width = features
    for hidden in arguments.hidden:
        block: list[nn.Layer] = [nn.Linear(width, hidden, bias=not arguments.norm, init=chosen)]
        if arguments.norm:
            block.append(nn.BatchNorm(hidden))
        block.append(ACTIVATIONS[arguments.activation]())
        if arguments.dropout:
            block.append(nn.Dropout(arguments.dropout))
        if arguments.residual:
            # A shortcut adds what it gets; where the width changes it has to be a map.
            shortcut = None if width == hidden else nn.Linear(width, hidden, bias=False)
            block = [nn.Residual(nn.Sequential(*block), shortcut)]
        layers += block
        width = hidden
    return nn.Sequential(*layers, nn.Linear(width, outputs, init=chosen), rng=arguments.seed)


def build_optimizer(model: nn.Layer, arguments: argparse.Namespace) -> optim.Optimizer:
    """The optimizer that the arguments name."""
    parameters, lr, max_norm = model.parameters(), arguments.lr, arguments.max_norm
    if arguments.optimizer == "sgd":
        return optim.SGD(parameters, lr or SGD_RATE, momentum=SGD_MOMENTUM, max_norm=max_norm)
    return optim.Adam(parameters, lr or arguments.adam_rate, max_norm=max_norm)
