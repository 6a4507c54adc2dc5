"""``minidl info`` and ``minidl predict``: what a model file holds, and what its model predicts."""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minidl import saving
from minidl.cli import options
from minidl.cli.options import UsageError, usage_errors
from minidl.files import replacing
from minidl.nn import Layer
from minidl.nn.hooks import evaluating
from minidl.saving.contents import BESIDE, CLASSES, COLUMNS, LIBRARY, MODEL, STATE_OF_TRAINING
from minidl.saving.tensor_file import shortened
from minidl.tables.encoders import Numbers
from minidl.tables.features import Features
from minidl.tables.reading import Table, read_table
from minidl.tables.text_file import TableError
from minidl.tables.words import POINT
from minidl.typing import Array

ROWS = 1024  # that are predicted at a time
OWN = ("format", "crc32", "minidl.")  # begin the names of metadata that are not the user's


def add_info(commands: Any) -> None:
    """Add ``info``."""
    parser = commands.add_parser("info", help="say what a model file holds")
    parser.add_argument("file", type=Path, metavar="FILE", help="of minidl.save or Trainer.save")
    parser.set_defaults(run=info)


def add_predict(commands: Any) -> None:
    """Add ``predict``."""
    parser = commands.add_parser("predict", help="predict with the model of a file")
    parser.add_argument("file", type=Path, metavar="FILE", help="of minidl.save or train --save")
    help = "rows to predict: a table of text with a header, or an array (.npy)"
    parser.add_argument("data", type=Path, metavar="DATA", help=help)
    help = "where to write predictions: outputs as an array (.npy), or a table of text"
    parser.add_argument("--out", type=Path, metavar="FILE", required=True, help=help)
    parser.set_defaults(run=predict)


# --- info -------------------------------------------------------------------------------------


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
    facts |= {name: word for name, word in words.items() if not name.startswith(OWN)}
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


# --- predict ----------------------------------------------------------------------------------


def predict(arguments: argparse.Namespace) -> int:
    """Predict rows, and write what was predicted."""
    with usage_errors(OSError, ValueError):
        options.check_writable(arguments.out, "out")
        model = saving.load(arguments.file)
        words = saving.metadata(arguments.file)
    try:
        inputs, kept = _inputs(arguments.data, words, model)
        outputs = _outputs(model, inputs)
    except (ImportError, KeyError, OSError, TypeError, ValueError) as error:
        raise UsageError(f"{arguments.data}: {error}") from error
    if arguments.out.suffix == ".npy":
        content = io.BytesIO()
        np.save(content, outputs, allow_pickle=False)
        data = content.getvalue()
    else:
        data = _as_table(outputs, words, kept).encode()
    with options.writing(arguments.out), replacing(arguments.out) as file:
        file.write(data)
    print(f"{len(outputs):,} predictions written to {arguments.out}")
    return 0


def _inputs(
    path: Path, words: Mapping[str, str], model: Layer
) -> tuple[Array, Mapping[str, Any] | None]:
    """Return what the model takes, and what ``train csv`` has kept of its table, if it did."""
    dtype = np.int64 if model.takes_indices else model.dtype or np.float32
    if path.suffix == ".npy":
        return np.load(path, allow_pickle=False).astype(dtype), None
    table = read_table(path)
    if "table" in words:
        kept: Mapping[str, Any] = json.loads(words["table"])
        features = Features.from_list(kept["columns"])
        missing = [f.name for f in features.columns if f.name not in table.columns]
        _check_none(missing)
        return features.encode(table.columns, np.arange(table.rows)), kept
    names = json.loads(words[COLUMNS]) if COLUMNS in words else list(table.columns)
    _check_none([name for name in names if name not in table.columns])
    return _numbers(table, names).astype(dtype), None


def _check_none(missing: list[str]) -> None:
    if missing:
        shown = ", ".join(repr(name) for name in missing[:5])
        raise TableError(f"there is no column {shown}, of which the model predicts")


def _numbers(table: Table, names: list[str]) -> Array:
    """Return columns of numbers side by side."""
    encoder = Numbers(POINT, median=0.0, mean=0.0, std=1.0, indicator=False)
    columns = []
    for name in names:
        values = encoder.values(table.columns[name])
        if np.isnan(values).any():
            row = int(np.argmax(np.isnan(values))) + 1
            raise TableError(f"column {name!r} has no number in row {row}")
        columns.append(values)
    return np.stack(columns, axis=1)


def _outputs(model: Layer, inputs: Array) -> Array:
    """Return the outputs for all rows."""
    with evaluating(), np.errstate(all="ignore"):
        parts = [model(inputs[i : i + ROWS]) for i in range(0, len(inputs), ROWS)]
    if not parts:
        raise ValueError("there is no row")
    return np.concatenate(parts)


def _as_table(outputs: Array, words: Mapping[str, str], kept: Mapping[str, Any] | None) -> str:
    """Return predictions as text: a label or numbers for each row."""
    name, classes = "prediction", json.loads(words.get(CLASSES, "[]"))
    scale = None
    if kept is not None:
        name, classes, scale = kept["target"]["name"], kept["target"]["classes"], kept["scale"]
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    if classes and outputs.ndim == 2 and outputs.shape[1] == len(classes):
        writer.writerow([name])
        writer.writerows([classes[label]] for label in outputs.argmax(axis=1))
        return content.getvalue()
    flat = outputs.reshape(len(outputs), -1).astype(np.float64)
    if scale is not None:
        flat = flat * scale["std"] + scale["mean"]
    width = flat.shape[1]
    writer.writerow([name] if width == 1 else [f"{name} {place}" for place in range(width)])
    writer.writerows([f"{value:.9g}" for value in row] for row in flat)
    return content.getvalue()
