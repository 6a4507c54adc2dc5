"""``minidl info``: what a model file holds."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minidl import saving
from minidl.cli.options import usage_errors
from minidl.cli.report import one_line
from minidl.saving.contents import (
    BESIDE,
    CLASSES,
    COLUMNS,
    IMAGES,
    LIBRARY,
    MODEL,
    OWN,
    OWN_WORDS,
    STATE_OF_TRAINING,
    TABLE,
)
from minidl.saving.rebuilding import missing_class, parsed
from minidl.saving.tensor_file import shortened

LONGEST_LINE = 100  # characters


def add_info(commands: Any) -> None:
    """Add ``info``."""
    parser = commands.add_parser("info", help="say what a model file holds")
    parser.add_argument("file", type=Path, metavar="FILE", help="of minidl.save or Trainer.save")
    parser.set_defaults(run=info)


def info(arguments: argparse.Namespace) -> int:
    """Print what a file holds: model, optimizer, training, labels, metadata."""
    with usage_errors(OSError, ValueError):
        words, shapes = saving.description(arguments.file)
    facts = {"file": f"{arguments.file}, {arguments.file.stat().st_size:,} bytes"}
    if LIBRARY in words:
        facts["written by"] = f"minidl {words[LIBRARY]}"
    facts["optimizer"] = words.get("optimizer", "none")
    if STATE_OF_TRAINING in words:
        facts["training"] = "Trainer.load goes on with it"
    for name, key in (("classes", CLASSES), ("columns", COLUMNS)):
        if key in words:
            facts[name] = words[key]
    if TABLE in words:
        facts["table"] = "minidl predict makes inputs of its columns as minidl train csv did"
    if IMAGES in words:
        facts["images"] = "minidl predict makes inputs of them as minidl train did"
    users = [name for name in words if not name.startswith(OWN) and name not in OWN_WORDS]
    facts |= {name: words[name] for name in users}
    for name, word in facts.items():
        print(f"{shortened(name)[1:-1]}: {shortened(word)[1:-1]}")
    print()
    if MODEL not in words:
        _print_tensors(shapes)
        return 0
    with usage_errors(OSError, ValueError):
        architecture = parsed(words[MODEL])
        missing = missing_class(architecture)
        shown = "" if missing else repr(saving.load(arguments.file))
    if missing:
        _print_architecture(architecture)
        _print_tensors(shapes)
        shown = f"\nthe model cannot be built here: {missing}"
    print(shown)
    return 1 if missing else 0


def _print_architecture(architecture: Mapping[str, Any]) -> None:
    """Print the classes of all layers, and what each holds that is a number or a word."""
    for number, layer in enumerate(architecture["layers"]):
        held = layer.get("holds")
        plain = held.items() if isinstance(held, dict) else ()
        settings = [f"{k}={v!r}" for k, v in plain if isinstance(v, (bool, int, float, str))]
        module = f" of {layer['module']}" if "module" in layer else ""
        line = f"layer {number}: {layer['class']}{module}({', '.join(settings)})"
        print(one_line(line, LONGEST_LINE))
    print()


def _print_tensors(shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Print the names and shapes of the model's tensors."""
    for name, shape in shapes.items():
        if not name.startswith(BESIDE):
            print(f"{shortened(name)[1:-1]} {shape}")
