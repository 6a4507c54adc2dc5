"""``minidl predict``: what the model of a file predicts for rows."""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minidl import datasets, saving
from minidl.cli import options
from minidl.cli.options import UsageError, usage_errors
from minidl.cli.pixels import Pixels
from minidl.files import replacing
from minidl.nn import Dropout, Flatten, HardSigmoid, Identity, Layer, Sigmoid
from minidl.nn.containers import in_order
from minidl.nn.hooks import evaluating
from minidl.saving.contents import CLASSES, COLUMNS, IMAGES, TABLE
from minidl.tables.encoders import Numbers
from minidl.tables.features import Features
from minidl.tables.reading import Table, read_table
from minidl.tables.text_file import TableError
from minidl.tables.words import POINT
from minidl.typing import Array

ROWS = 1024  # that are predicted at a time
FORMER_TABLE = "table"  # where files of version 0.1 have what they know of a table


@dataclass(frozen=True)
class Known:
    """What a file says of inputs and outputs.

    Attributes
    ----------
    name
        Of what is predicted.
    classes
        The labels, in the order of the outputs; empty if they are not known.
    columns
        The names of the inputs, or None.
    features
        How columns of a table become inputs, as ``train csv`` has learned it, or None.
    pixels
        How pixels become inputs, as ``train digits`` and ``train idx`` did it, or None.
    std, mean
        By which outputs are scaled back; 1 and 0 of those that were not scaled.
    """

    name: str
    classes: list[str | int]
    columns: list[str] | None
    features: Features | None
    pixels: Pixels | None = None
    std: float = 1.0
    mean: float = 0.0


def add_predict(commands: Any) -> None:
    """Add ``predict``."""
    parser = commands.add_parser("predict", help="predict with the model of a file")
    parser.add_argument("file", type=Path, metavar="FILE", help="of minidl.save or train --save")
    help = "rows to predict: a table of text with a header, an array (.npy), or images (IDX)"
    parser.add_argument("data", type=Path, metavar="DATA", help=help)
    help = "where to write predictions: outputs as an array (.npy), or a table of text"
    parser.add_argument("--out", type=Path, metavar="FILE", required=True, help=help)
    parser.set_defaults(run=predict)


def predict(arguments: argparse.Namespace) -> int:
    """Predict rows, and write what was predicted."""
    options.check_distinct(arguments, outputs=("out",), inputs=("file", "data"))
    with usage_errors(OSError, ValueError):
        options.check_writable(arguments.out, "write")
        model = saving.load(arguments.file)
        known = _known(arguments.file, saving.metadata(arguments.file))
    try:
        outputs = _outputs(model, _inputs(arguments.data, known, model))
    except OSError as error:
        raise UsageError(f"{arguments.data}: {error.strerror or error}") from error
    except (ImportError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{arguments.data}: {error}") from error
    if arguments.out.suffix == ".npy":
        content = io.BytesIO()
        np.save(content, outputs, allow_pickle=False)
        data = content.getvalue()
    else:
        with usage_errors(ValueError):
            data = _as_table(outputs, known, _gives_probabilities(model)).encode()
    with options.writing(arguments.out), replacing(arguments.out) as file:
        file.write(data)
    print(f"{len(outputs):,} predictions written to {arguments.out}")
    return 0


# --- what the file says -----------------------------------------------------------------------


def _known(path: Path, words: Mapping[str, str]) -> Known:
    """Return what a file says of inputs and outputs; ValueError unless minidl writes such words."""
    try:
        classes, columns = _labels(words.get(CLASSES, "[]")), None
        if COLUMNS in words:
            columns = _labels(words[COLUMNS])
        table = json.loads(words[TABLE]) if TABLE in words else _former_table(words)
        if table is None:
            pixels = Pixels.from_text(words[IMAGES]) if IMAGES in words else None
            return Known("prediction", classes, columns, None, pixels)
        name, classes = table["target"]["name"], table["target"]["classes"]
        if type(name) is not str or type(classes) not in (list, type(None)):
            raise TypeError("no target")
        scale = table["scale"] or {"std": 1.0, "mean": 0.0}
        features = Features.from_list(table["columns"])
        scales = float(scale["std"]), float(scale["mean"])
        return Known(name, classes or [], None, features, None, *scales)
    except (AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: what it says of images, classes or columns is damaged"
        ) from error


def _labels(text: str) -> list[Any]:
    labels = json.loads(text)
    if type(labels) is not list or any(type(label) not in (str, int) for label in labels):
        raise TypeError("no list of labels")
    return labels


def _former_table(words: Mapping[str, str]) -> Any:
    """Return what version 0.1 of ``train csv`` has kept; None for a word of the user's own."""
    try:
        table = json.loads(words.get(FORMER_TABLE, "null"))
    except (ValueError, RecursionError):
        return None
    is_ours = isinstance(table, dict) and {"version", "columns", "target", "scale"} <= table.keys()
    return table if is_ours else None


# --- inputs -----------------------------------------------------------------------------------


def _inputs(path: Path, known: Known, model: Layer) -> Array:
    """Return what the model takes."""
    dtype = np.int64 if model.takes_indices else model.dtype or np.float32
    if path.suffix == ".npy" or known.pixels is not None:
        array = _array(path) if path.suffix == ".npy" else _images(path)
        _check_numbers(array)
        return _cast(known.pixels.encode(array) if known.pixels else array, dtype)
    table = _table(path)
    if known.features is not None:
        names = [feature.name for feature in known.features.columns]
        _check_none([name for name in names if name not in table.columns])
        return known.features.encode(table.columns, np.arange(table.rows))
    names = list(table.columns) if known.columns is None else known.columns
    _check_none([name for name in names if name not in table.columns])
    return _cast(_numbers(table, names), dtype)


def _array(path: Path) -> Array:
    """Return the array in a file, else raise ValueError: ``np.load`` opens other formats, too."""
    with path.open("rb") as file:
        try:
            array: Array = np.lib.format.read_array(file, allow_pickle=False)
        except ValueError as error:
            raise ValueError(f"no array of numbers as numpy.save writes it: {error}") from error
    return array


def _table(path: Path) -> Table:
    """Return the table in a file of text."""
    try:
        return read_table(path)
    except TableError as error:
        try:
            shape = datasets.idx(path).shape
        except ValueError:
            raise error from None
        raise TableError(
            f"it is an IDX file {shape}, and the model's file does not say how pixels become "
            "inputs, as one of train digits or train idx does; give an array of inputs (.npy)"
        ) from error


def _images(path: Path) -> Array:
    """Return the images in an IDX file."""
    try:
        return datasets.idx(path)
    except ValueError as error:
        why = str(error).removeprefix(f"{path}: ")
        raise ValueError(f"expected images, as an IDX file or an array (.npy); {why}") from error


def _check_numbers(inputs: Array) -> None:
    if inputs.ndim == 0 or inputs.dtype.kind not in "biuf":
        raise ValueError(
            f"expected an array of numbers, a row for each prediction; got {inputs.dtype} of "
            f"shape {inputs.shape}"
        )


def _cast(inputs: Array, dtype: Any) -> Array:
    """Return inputs in the dtype of the model; raise ValueError where that would change them."""
    if np.dtype(dtype).kind == "i" and not (wrong := inputs != np.floor(inputs)).any():
        return inputs.astype(dtype)
    if np.dtype(dtype).kind == "f" and not (wrong := ~np.isfinite(inputs)).any():
        return inputs.astype(dtype)
    row, expected = int(wrong.nonzero()[0][0]) + 1, "an index" if dtype == np.int64 else "finite"
    raise ValueError(f"row {row} holds {inputs[wrong][0]}, which is not {expected}")


def _check_none(missing: list[str]) -> None:
    if missing:
        shown = ", ".join(repr(name) for name in missing[:5])
        columns = "columns" if len(missing) > 1 else "column"
        raise TableError(f"there is no {columns} {shown}, of which the model predicts")


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
    if isinstance(parts[0], tuple):
        raise ValueError(f"the model gives {len(parts[0])} arrays for each row, and not one")
    return np.concatenate(parts)


# --- what is written --------------------------------------------------------------------------


def _gives_probabilities(model: Layer) -> bool:
    """Whether outputs are those of a ``Sigmoid``, so that a single one is a probability, no logit.

    After it there may be layers that leave values as they are, such as ``Dropout``.
    """
    # Here, so that other commands do not wait for it.
    from minidl.onnx.adapters import Reshaped, Take, Transpose

    keeping = (Dropout, Flatten, Identity, Reshaped, Take, Transpose)
    last = next((layer for layer in _backwards(model) if not isinstance(layer, keeping)), None)
    return isinstance(last, (Sigmoid, HardSigmoid))


def _backwards(model: Layer) -> Iterator[Layer]:
    """Yield the layers from that of the output back, in a graph along the first inputs."""
    from minidl.onnx.network import Network

    for layer in reversed(list(in_order(model))):
        if not isinstance(layer, Network):
            yield layer
            continue
        name = layer.outputs[0]
        for inner, (names, results) in zip(layer.stack[::-1], layer.wiring[::-1], strict=True):
            if name in results:
                yield inner
                name = names[0]


def _as_table(outputs: Array, known: Known, probabilities: bool) -> str:
    """Return predictions as text: a label or numbers for each row, or each step of a sequence.

    Raises
    ------
    ValueError
        For outputs that are no table, of which the classes are not the labels, or that are NaN
        where a class is asked for.
    """
    if outputs.ndim > 3:
        raise ValueError(
            f"the model gives an array {outputs.shape[1:]} for each row, which is no line of a "
            "table: write them to a file .npy"
        )
    steps = outputs.shape[1] if outputs.ndim == 3 else None
    flat = outputs.reshape(-1, outputs.shape[-1]) if outputs.ndim > 1 else outputs[:, None]
    header, lines = _columns(flat, known, probabilities)
    if steps is not None:
        header = ["row", "step", *header]
        lines = ([n // steps + 1, n % steps + 1, *line] for n, line in enumerate(lines))
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(lines)
    return content.getvalue()


def _columns(outputs: Array, known: Known, probabilities: bool) -> tuple[list[str], Iterator[Any]]:
    """Return names of columns, and for each row of outputs its label, or its numbers."""
    width, classes = outputs.shape[1], known.classes
    if not classes:
        names = [known.name] if width == 1 else [f"{known.name} {place}" for place in range(width)]
        numbers = outputs.astype(np.float64) * known.std + known.mean
        return names, ([f"{value:.9g}" for value in row] for row in numbers)
    if np.isnan(outputs).any():
        line = int(np.isnan(outputs).any(axis=1).argmax()) + 1
        raise ValueError(f"the model gives NaN in row {line}, which is no class")
    if width == len(classes):
        labels = outputs.argmax(axis=1)
    elif width == 1 and len(classes) == 2:
        labels = (outputs[:, 0] > (0.5 if probabilities else 0.0)).astype(np.intp)
    else:
        raise ValueError(
            f"the file names {len(classes)} classes, and the model has {width} outputs: the names "
            "fit none of them; a file .npy takes the outputs as they are"
        )
    return [known.name], ([classes[label]] for label in labels)
