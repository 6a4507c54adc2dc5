"""``minidl train text`` and ``minidl sample``: a network that continues a text."""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from minidl import datasets, optim
from minidl.cli import keeping, options, plot, sequences
from minidl.cli.characters import CharacterModel, Pair, Shape
from minidl.cli.options import UsageError, add_option, usage_errors
from minidl.datasets import Characters
from minidl.signals import deferred
from minidl.training.history import History
from minidl.training.progress import choose

Saved = tuple[bool, str] | None  # whether it is where it should be, and a message; or no file
LARGEST_TEXT = 256 << 20  # bytes
VALIDATION_SHARE = 0.1  # of a text, its end
BATCH = 16  # streams of the text to validate on


def add_text(data: Any) -> None:
    """Add ``train text``."""
    parser = data.add_parser("text", help="a text, character by character")
    group = parser.add_argument_group("data")
    what = "UTF-8 text [the help topics of Python]"
    group.add_argument("--file", type=Path, metavar="FILE", help=what)
    network = sequences.add_network(parser, hidden=128)
    add_option(network, "--embedding", 64, "width", type=options.count, metavar="N")
    add_option(network, "--dropout", 0.0, "between layers", type=options.probability, metavar="P")
    training = sequences.add_training(parser, epochs=4, batch_size=32, lr=4e-3)
    steps = "characters that the gradient goes back"
    add_option(training, "--steps", 64, steps, type=options.count, metavar="N")
    output = sequences.add_output(parser, "the bits per character")
    output.add_argument(
        "--save", type=Path, metavar="MODEL", help="keep the model in a file, after Ctrl-C too"
    )
    _add_sampling(output, length=400)
    parser.set_defaults(run=train)


def add_command(commands: Any) -> None:
    """Add ``sample``."""
    parser = commands.add_parser("sample", help="have a model of train text go on with a text")
    parser.add_argument("model", type=Path, metavar="MODEL", help="of train text --save")
    _add_sampling(parser, length=1000)
    help = "text to go on from [none]"
    parser.add_argument("--prime", default="", metavar="TEXT", help=help)
    add_option(parser, "--seed", 0, "of what is drawn", type=options.seed, metavar="N")
    parser.set_defaults(run=sample)


def _add_sampling(group: Any, length: int) -> None:
    add_option(group, "--length", length, "characters drawn", type=options.seed, metavar="N")
    kind = options.number("a number >= 0", lambda value: value >= 0)
    help = "of a sample: 0 is the likeliest only"
    add_option(group, "--temperature", 0.8, help, type=kind, metavar="T")


def train(arguments: argparse.Namespace) -> int:
    """Train on the first nine tenths of a text, and report on the rest."""
    keeping.check_outputs(arguments)
    name, text = _read(arguments.file)
    characters, cut = Characters.of(text), int(len(text) * (1 - VALIDATION_SHARE))
    if arguments.dropout and arguments.layers == 1:
        raise UsageError("--dropout is between layers: it needs --layers 2 or more")
    with usage_errors(ValueError):
        x, y = characters.chunks(text[:cut], arguments.batch_size, arguments.steps)
    try:
        validation = characters.chunks(
            text[cut:], min(BATCH, arguments.batch_size), arguments.steps
        )
    except ValueError as error:
        raise UsageError(
            f"the last tenth of the text, which is held out, is too short ({error}); "
            "use a longer text, or fewer --steps"
        ) from None
    shape = Shape(
        *(arguments.cell, arguments.hidden, arguments.layers, arguments.embedding),
        *(arguments.dropout, arguments.batch_size),
    )
    with usage_errors(ValueError):
        speaker = CharacterModel(characters, shape, arguments.seed)
    parameters = speaker.model.parameters()
    optimizer = optim.Adam(parameters, arguments.lr, max_norm=arguments.max_norm)
    if not arguments.quiet:
        print(speaker.model, end="\n\n")
        print(
            f"{name}: {cut:,} characters to train on, {len(text) - cut:,} held out (val_), "
            f"{len(characters)} different ones; {optimizer!r}, {arguments.batch_size} chunks of "
            f"{arguments.steps}, seed {arguments.seed}\n"
        )
    before = _untrained(speaker, (x, y), validation) if arguments.plot is not None else {}
    history, norms, saved = _fit(speaker, (x, y), validation, optimizer, arguments)
    _report(speaker, history, saved, arguments, x.size)
    if arguments.plot is not None:
        with options.writing(arguments.plot):
            scale = _scale(len(characters))
            plot.draw_sequences(arguments.plot, history, before, norms, scale, name)
        if not arguments.quiet:
            print(f"\nplot written to {arguments.plot}")
    if saved is not None and not saved[0]:
        print(f"minidl: error: {saved[1]}", file=sys.stderr)
        return 1
    return 0


def _scale(characters: int) -> plot.Scale:
    chance, words = math.log2(characters), f"chance: log2 {characters}"
    ends = {"values": (1.0, 8.0), "gradients": (1e-8, 1e-2)}
    return plot.Scale("bits", "bits per character", chance, words, **ends)


def _untrained(speaker: CharacterModel, data: Pair, validation: Pair) -> dict[str, float]:
    """Measure the bits per character before training, on as much of the text as validates."""
    streams, rows = speaker.shape.streams, len(validation[0])
    some = slice(0, max(streams, rows // streams * streams))
    return {
        "bits": speaker.bits_per_character((data[0][some], data[1][some]), streams),
        "val_bits": speaker.bits_per_character(validation, min(BATCH, streams)),
    }


def _fit(
    speaker: CharacterModel, data: Pair, validation: Pair, optimizer: Any, arguments: Any
) -> tuple[History, dict[str, Any], Saved]:
    """Train and save.

    Returns the history, the norms of the state's gradient by step, and whether the file was saved.
    """
    history, norms = History(), {}
    progress, batch = choose(not arguments.quiet), min(BATCH, arguments.batch_size)
    one = (
        data[0][: arguments.batch_size],
        data[1][: arguments.batch_size],
    )  # the first chunk of every stream
    norms["before training"] = speaker.state_gradient_norms(one)
    progress.unit = "characters"
    progress.begin(arguments.epochs, data[0].size)
    try:
        started = time.perf_counter()
        epochs = speaker.train(data, optimizer, arguments.epochs, progress)
        for epoch, bits in enumerate(epochs, 1):
            seconds = time.perf_counter() - started
            values = {"bits": bits, "val_bits": speaker.bits_per_character(validation, batch)}
            history.append(values, seconds)
            progress.epoch(epoch, values, seconds)
            started = time.perf_counter()
    except (KeyboardInterrupt, FloatingPointError) as error:  # the model is as before that step
        failed = isinstance(error, FloatingPointError)
        # A first epoch that fails teaches nothing, and the file may hold an earlier model.
        if arguments.save is None or (failed and not history.epochs):
            raise
        _, words = _save(speaker, arguments.save)
        if failed:
            raise FloatingPointError(f"{error}; {words}, as it was before that") from error
        print(words, file=sys.stderr)
        raise
    finally:
        progress.close()
    saved = None if arguments.save is None else _save(speaker, arguments.save)
    norms["after training"] = speaker.state_gradient_norms(one)
    return history, norms, saved


def _save(speaker: CharacterModel, path: Path) -> tuple[bool, str]:
    """Save the model, elsewhere if need be; return whether it is at this path, and a message."""
    with deferred():
        try:
            speaker.save(path)
            return True, f"saved to {path}"
        except OSError as error:
            why = f"cannot save to {path}: {error.strerror or error}"
        for folder in (None, "."):  # that of temporary files, and this one
            with suppress(OSError):
                other = Path(tempfile.mkdtemp(prefix="minidl-", dir=folder)) / "model.safetensors"
                speaker.save(other)
                return False, f"{why}; the model is in {other.resolve()}"
        return False, f"{why}; nor could it be saved elsewhere"


def _report(
    speaker: CharacterModel, history: History, saved: Saved, arguments: Any, size: int
) -> None:
    bits = history["val_bits"][-1]
    if arguments.quiet:
        print(f"bits per character: {bits:.4f}")
        return
    seconds = sum(history.seconds)
    speed = history.epochs * size / seconds
    print(f"\ntraining took {seconds:.2f} s, {speed:,.0f} characters/s")
    print(f"bits per character: {bits:.4f}")
    if saved is not None and saved[0]:
        print(saved[1])
    text = speaker.sample(arguments.length, arguments.temperature, arguments.seed)
    print(f"\na sample at temperature {arguments.temperature:g}:\n\n{text}")


def _read(path: Path | None) -> tuple[str, str]:
    """Return the name of a text, and the text."""
    if path is None:
        return "help topics of Python", datasets.python_topics()
    try:
        with path.open("rb") as file:  # a pipe may be meant, and a device have no end
            content = file.read(LARGEST_TEXT + 1)
        text = content.decode().replace("\r\n", "\n").replace("\r", "\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}") from error
    if len(content) > LARGEST_TEXT:
        raise UsageError(f"{path} is larger than the {LARGEST_TEXT:,} bytes that are read at most")
    if not text:
        raise UsageError(f"{path} is empty")
    return path.name, text


def sample(arguments: argparse.Namespace) -> int:
    """Print text that a saved model generates."""
    with usage_errors(OSError, ValueError):
        speaker = CharacterModel.load(arguments.model)
        text = speaker.sample(
            arguments.length, arguments.temperature, arguments.seed, arguments.prime
        )
    print(text)
    return 0
