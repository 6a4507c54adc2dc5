"""``minidl info``: what a model file holds."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from minidl import saving
from minidl.cli.options import usage_errors
from minidl.saving.contents import (
    BESIDE,
    CLASSES,
    COLUMNS,
    LIBRARY,
    MODEL,
    OWN,
    OWN_WORDS,
    STATE_OF_TRAINING,
    TABLE,
)
from minidl.saving.tensor_file import shortened


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
    users = [name for name in words if not name.startswith(OWN) and name not in OWN_WORDS]
    facts |= {name: words[name] for name in users}
    for name, word in facts.items():
        print(f"{shortened(name)[1:-1]}: {shortened(word)[1:-1]}")
    print()
    if MODEL not in words:
        for name, shape in shapes.items():
            if not name.startswith(BESIDE):
                print(f"{shortened(name)[1:-1]} {shape}")
        return 0
    with usage_errors(OSError, ValueError):
        print(saving.load(arguments.file))
    return 0
