"""Damaged and hostile files: drawn, read in a process of little memory, and counted.

    python tests/file_fuzzing.py model 1000       files for minidl.load
    python tests/file_fuzzing.py whole 1000       files of which minidl.load builds the model
    python tests/file_fuzzing.py training 1000    files for Trainer.load
    python tests/file_fuzzing.py idx 1000         files for datasets.idx
    python tests/file_fuzzing.py sample 1000      files for the command minidl sample

Every file is drawn from a generator of its own, so that one that fails is drawn again by its
number: ``--first 1234`` with a count of 1. A file must be read, or refused by one error of one
line, within ``SECONDS`` and ``MEMORY``; a refused one changes nothing. What minidl.load reads, the
format's own reader must read too, where it is installed.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import gzip
import io
import json
import math
import resource
import signal
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import minidl
from minidl import datasets, nn, optim
from minidl.cli import main as command
from minidl.cli.characters import CharacterModel, Shape
from minidl.training import Callback, Trainer

try:
    from safetensors import deserialize
except ImportError:
    deserialize = None

MEMORY = 2 << 30  # bytes of address space of the whole process
SECONDS = 5.0  # for one file
LONGEST_MESSAGE = 2000  # characters
NUMBERS: list[Any] = [0, 1, -1, 2, 3, 7, 64, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64]
NUMBERS += [
    10**30,
    10**4000,
    0.0,
    1.0,
    -0.5,
    1e300,
    True,
    False,
    None,
    "",
    "3",
    [],
    [1],
    {},
    {"a": 1},
]
FLOATS = [0.0, -0.0, 1.0, -1.0, 2.0, 0.5, 1e-40, 1e300, -1e300, 2.0**53, np.nan, np.inf, -np.inf]
WORDS = ["", "0", "1", "-1", "3", "2.5", "nan", "inf", "1e400", "9" * 20, "9" * 5000, "99999999"]
WORDS += [
    "20000",
    "2147483647",
    "4294967296",
    "x",
    "lstm",
    "gru",
    "rnn",
    "٣",
    " 3",
    "1_0",
    "\x00",
    "\n",
]


class TooSlowError(BaseException):
    """Raised by the clock; no ``except Exception`` takes it."""


# --- safetensors --------------------------------------------------------------------------


class Draft:
    """A model file in parts that can be changed one by one."""

    def __init__(self, content: bytes) -> None:
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        self.words: dict[Any, Any] = header.pop("__metadata__")
        self.entries: list[list[Any]] = [[name, entry] for name, entry in header.items()]
        self.data = bytearray(content[8 + length :])
        self.checksum = True  # whether to make it right in the end
        self.text: Callable[[str], bytes] = str.encode
        self.length: Callable[[int], int] = lambda length: length
        self.whole: Callable[[bytes], bytes] = lambda content: content

    def build(self) -> bytes:
        """The file. JSON by hand: a name may be there twice."""
        if self.checksum and "crc32" in self.words:
            self.words["crc32"] = f"{zlib.crc32(bytes(self.data)):08x}"
        pairs = [*self.entries, ["__metadata__", self.words]]
        text = ", ".join(f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in pairs)
        encoded = self.text("{" + text + "}")
        length = self.length(len(encoded)) % 2**64
        return self.whole(length.to_bytes(8, "little") + encoded + bytes(self.data))


def choose(rng: Any, choices: Any) -> Any:
    return choices[int(rng.integers(len(choices)))]


def flip_numbers(draft: Draft, rng: Any) -> None:
    for _ in range(int(rng.integers(1, 4))):
        if draft.data:
            draft.data[int(rng.integers(len(draft.data)))] ^= int(rng.integers(1, 256))
    draft.checksum = bool(rng.integers(2))


def cut_numbers(draft: Draft, rng: Any) -> None:
    if rng.integers(2):
        del draft.data[int(rng.integers(len(draft.data) + 1)) :]
    else:
        draft.data += bytes(int(rng.integers(1, 100)))


def set_numbers(draft: Draft, rng: Any) -> None:
    """Hostile numbers in one tensor, under a checksum that is right."""
    _, entry = choose(rng, draft.entries)
    try:
        begin, end = entry["data_offsets"]
        kind = {"F32": np.float32, "F64": np.float64, "I64": np.int64, "U64": np.uint64}
        numbers = np.frombuffer(draft.data, kind[entry["dtype"]], (end - begin) // 4 or 1, begin)
    except (KeyError, TypeError, ValueError):
        return
    with np.errstate(all="ignore"):
        numbers[int(rng.integers(len(numbers)))] = np.float64(choose(rng, FLOATS)).astype(
            numbers.dtype
        )


def set_field(draft: Draft, rng: Any) -> None:
    """A hyper-parameter or counter of the optimizer, or running statistics."""
    names = [
        (name, entry)
        for name, entry in draft.entries
        if isinstance(entry, dict) and (name.count("/") == 2 or "running" in name or "std" in name)
    ]
    if not names:
        return
    _, entry = choose(rng, names)
    form = {"F64": "<d", "F32": "<f"}.get(str(entry.get("dtype")))
    offsets = entry.get("data_offsets")
    if form and isinstance(offsets, list) and offsets and type(offsets[0]) is int:
        with contextlib.suppress(struct.error, OverflowError):
            struct.pack_into(form, draft.data, offsets[0], choose(rng, FLOATS))


def change_entry(draft: Draft, rng: Any) -> None:
    _, entry = choose(rng, draft.entries)
    if not isinstance(entry, dict) or not entry:
        return
    field = choose(rng, ["dtype", "shape", "data_offsets"])
    old = entry.get(field)
    if field == "dtype":
        entry[field] = choose(
            rng, ["F16", "BF16", "F64", "F32", "I64", "U8", "f32", "X", "", 4, None, []]
        )
    elif isinstance(old, list) and old and rng.integers(4):
        place = int(rng.integers(len(old)))
        number = old[place]
        near = [number + 1, number - 1, number * 2, -number] if type(number) is int else []
        old[place] = choose(rng, [*near, *NUMBERS])
        if not rng.integers(4):
            rng.shuffle(old)
    else:
        values = [[], [0], [0, 0], [1] * 100, [2**31] * 4, [2**62] * 60, "ab", 5, None, {}, [[1]]]
        entry[field] = choose(rng, values)
    if not rng.integers(8):
        entry.pop(field)


def change_names(draft: Draft, rng: Any) -> None:
    place = int(rng.integers(len(draft.entries)))
    name, entry = draft.entries[place]
    names = [
        "",
        "x",
        name + "x",
        "\ud800",
        "a\nb",
        "n" * 10**5,
        "optimizer/0/step",
        "optimizer/9/x/y",
    ]
    match int(rng.integers(6)):
        case 0:
            del draft.entries[place]
        case 1:
            draft.entries.append([name, entry])
        case 2:
            draft.entries.append([choose(rng, names), entry])
        case 3:
            draft.entries[place][0] = choose(rng, names)
        case 4:
            draft.entries.insert(0, draft.entries.pop(place))  # harmless
        case _:
            draft.entries[place][1] = choose(rng, NUMBERS)
    if not draft.entries:
        draft.entries.append([name, entry])


def change_words(draft: Draft, rng: Any) -> None:
    name = choose(rng, [*draft.words, "new"])
    draft.words[name] = choose(rng, [*WORDS, *NUMBERS, "\ud800", "Adam", "SGD", "pt", "minidl"])
    if not rng.integers(3):
        draft.words.pop(name)
    if not rng.integers(20):
        draft.words |= {f"word {index}": "" for index in range(1000)}


def change_text(draft: Draft, rng: Any) -> None:
    deep = int(rng.integers(1, 10**5))
    changes: list[Callable[[str], bytes]] = [
        lambda text: text.encode("utf-16"),
        lambda text: text.encode("utf-8-sig"),
        lambda text: b" " + text.encode(),
        lambda text: text.encode() + b"\x00" * 8,
        lambda text: text.encode() + b" " * 8,  # harmless
        lambda text: text.encode() + b"}",
        lambda text: text[:-1].encode(),
        lambda text: text.replace('"', "'").encode(),
        lambda text: text.replace("0", "NaN", 1).encode(),
        lambda text: text.replace("0", "1" * 5000, 1).encode(),
        lambda text: text.replace("0", "1e9", 1).encode(),
        lambda text: text.replace("e", "\\u0065").encode(),  # harmless
        lambda text: text.encode().replace(b"e", b"\xff", 1),
        lambda _: b"[" * deep,
        lambda _: b'{"a":' * deep,
        lambda _: b"[" + b"[]," * deep + b"[]]",
        lambda _: b'{"a":[' + b"0," * deep + b"0]}",
        lambda _: b'{"' + b"a" * deep + b'":{}}',
        lambda _: b"{" + b",".join(b'"%d":{}' % index for index in range(deep // 10)) + b"}",
        lambda _: b"",
    ]
    draft.text = choose(rng, changes)


def change_length(draft: Draft, rng: Any) -> None:
    change = choose(rng, [1, -1, 8, -8, 100, 10**6, 2**31, 2**40, 2**63, -(10**9)])
    draft.length = lambda length: length + change


def change_bytes(draft: Draft, rng: Any) -> None:
    def damage(content: bytes) -> bytes:
        damaged = bytearray(content)
        for _ in range(int(rng.integers(1, 5))):
            if damaged:
                damaged[int(rng.integers(len(damaged)))] = int(rng.integers(256))
        return bytes(damaged[: int(rng.integers(len(damaged) + 1))] if rng.integers(2) else damaged)

    draft.whole = damage


CHANGES = [flip_numbers, cut_numbers, set_numbers, set_field, set_field, change_entry, change_entry]
CHANGES += [change_names, change_words, change_text, change_length, change_bytes]


def damaged(content: bytes, rng: Any, changes: Any = CHANGES) -> bytes:
    draft = Draft(content)
    for _ in range(int(rng.integers(1, 4))):
        choose(rng, changes)(draft, rng)
    return draft.build()


def write(path: Path, content: bytes, rng: Any) -> None:
    """Rarely with a hole of a terabyte at its end, or as a pipe, a device or a folder."""
    path.write_bytes(content)
    if not rng.integers(500):
        with path.open("r+b") as file:
            file.truncate(1 << 40)


# --- what is tried with a file ------------------------------------------------------------


class Model:
    """Files for ``minidl.load``, with an optimizer or without."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "model"
        self.model = nn.Sequential(
            *(nn.Standardize(3), nn.Linear(3, 4), nn.BatchNorm(4), nn.Dropout(0.5), nn.PReLU()),
            nn.Linear(4, 2),
            rng=0,
        )
        parameters = self.model.parameters()
        groups = [{"params": parameters[:2]}, {"params": parameters[2:], "lr": 0.5}]
        kinds = [optim.Adam, optim.AdamW, optim.Nadam, optim.RMSprop, optim.AdaGrad, optim.SGD]
        self.bases = []
        for kind in kinds:  # each takes the parameters over from the one before
            self.optimizer = kind(groups)  # type: ignore[arg-type]
            minidl.save(self.model, self.path, optimizer=self.optimizer, metadata={"mine": "1"})
            self.bases.append(self.path.read_bytes())
        minidl.save(self.model, self.path)
        self.bases.append(self.path.read_bytes())
        self.before = self.bits()
        self.good = self.bases[len(kinds) - 1]

    def bits(self) -> list[bytes]:
        arrays = [parameter.data for parameter in self.model.parameters()]
        arrays += [*self.model.state().values(), self.optimizer.states, self.optimizer.velocity]
        return [array.tobytes() for array in arrays]

    def __call__(self, rng: Any) -> str:
        base = self.bases[-2] if rng.integers(2) else choose(rng, self.bases)
        content = damaged(base, rng)
        write(self.path, content, rng)
        chosen = self.optimizer if rng.integers(4) else None
        try:
            minidl.load(self.path, into=self.model, optimizer=chosen)
        except minidl.ModelFileError as error:
            check_message(str(error))
            assert self.bits() == self.before, "refused, and changed something"
            return "refused"
        if deserialize is not None:
            deserialize(content)
        self.optimizer.check_states(self.optimizer.states)
        assert (self.model.state()["2.running_var"] >= 0).all()
        self.path.write_bytes(self.good)
        minidl.load(self.path, into=self.model, optimizer=self.optimizer)
        assert self.bits() == self.before
        return "read"


# --- words of JSON within the metadata ------------------------------------------------------

JUNK: list[Any] = [*NUMBERS, *WORDS, [[]], {"layer": 0}, {"layer": 1}, {"parameter": 0}]
JUNK += [{"tensor": "1.weight"}, {"zeros": [2**40], "dtype": "float32"}, {"class": "Sequential"}]
JUNK += [{"zeros": [2, 3], "dtype": "float64"}, {"tuple": []}, {"list": [{"layer": 3}]}, "Layer"]
JUNK += ["Sequential", "Linear", "LSTM", "Dropout", "BatchNorm", "os", "__class__", "forward"]
JUNK += [{"dict": [["a", 1]]}, {"type": {"class": "Linear"}}, {"float": "inf"}, {"dtype": "O"}]
JUNK += [{"init": {"name": "orthogonal", "arguments": [0]}}, {"generator": {"bit_generator": "x"}}]
JUNK += ["in_features", "weight", "_training", "stack", "float32", "float64", {"tuple": [1, "p"]}]


def nodes(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in nested lists and dicts: what holds it, and its key."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in list(pairs):
        yield value, key
        if isinstance(item, (dict, list)):
            yield from nodes(item)


def change_json(name: str) -> Callable[[Draft, Any], None]:
    """What exchanges, drops, doubles or renames something in the JSON under a name."""

    def change(draft: Draft, rng: Any) -> None:
        try:
            content = json.loads(draft.words[name])
            places = list(nodes(content))
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
            return
        holder, key = choose(rng, places or [({}, "")])
        _, other = choose(rng, places or [({}, "")])
        match int(rng.integers(5)):
            case 0:
                holder.pop(key, None) if isinstance(holder, dict) else holder.pop(key)
            case 1 if isinstance(holder, list):
                holder.insert(key, holder[key])
            case 2 if isinstance(holder, dict):
                holder[str(choose(rng, [*JUNK, other]))] = holder.pop(key)
            case _:
                holder[key] = choose(rng, JUNK)
        draft.words[name] = json.dumps(content)

    return change


def change_json_text(name: str) -> Callable[[Draft, Any], None]:
    def change(draft: Draft, rng: Any) -> None:
        draft.words[name] = change_one(str(draft.words.get(name)), rng)

    return change


def change_one(text: str, rng: Any) -> str:
    deep = int(rng.integers(1, 10**4))
    place = int(rng.integers(len(text) + 1))
    return str(
        choose(
            rng,
            [
                text[:place],
                text[:place] + choose(rng, list('{}[]",:0n')) + text[place + 1 :],
                text.replace("1", "1" * 5000, 1),
                text.replace("1", "NaN", 1),
                "[" * deep,
                '{"a":' * deep,
                "",
                "null",
            ],
        )
    )


class Doubled(nn.Layer):
    """A layer of the user's, with things of all kinds in it."""

    def __init__(self) -> None:
        self.inner = nn.Linear(4, 4, rng=0)
        self.again = {"same": [self.inner]}
        self.scale, self.table = 0.5, np.arange(4, dtype=np.float32)
        self.rng = np.random.default_rng(0)

    def forward(self, x: Any) -> Any:
        return self.inner(x)

    def backward(self, dy: Any) -> Any:
        return self.inner.backward(dy)


def whole_model() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Standardize(3), nn.Linear(3, 4), nn.BatchNorm(4), nn.Dropout(0.5), nn.PReLU()),
        *(nn.Residual(nn.Sequential(nn.Linear(4, 4), nn.GELU())), Doubled(), nn.LayerNorm(4)),
        nn.Sequential(nn.Split((1, 3)), nn.Parallel(a=nn.Tanh(), b=nn.Linear(3, 3))),
        nn.Linear(4, 2),
        rng=0,
    )


class Whole:
    """Files of which ``minidl.load`` builds the model."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "model"
        self.x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
        self.sequence = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
        self.bases = []
        recurrent = nn.LSTM(3, 2, 2, dropout=0.5, stateful=2, rng=0)
        for model in (whole_model(), nn.Sequential(recurrent, nn.Linear(2, 2), rng=0)):
            minidl.save(model, self.path)
            self.bases.append(self.path.read_bytes())

    def __call__(self, rng: Any) -> str:
        changes = [change_json("minidl.model")] * 12 + [change_json_text("minidl.model"), *CHANGES]
        content = damaged(choose(rng, self.bases), rng, changes)
        write(self.path, content, rng)
        try:
            model = minidl.load(self.path)
        except minidl.ModelFileError as error:
            check_message(str(error))
            return "refused"
        # Whatever it is now: it can be written again, and computes or says why not.
        repr(model)
        minidl.save(model, self.path)
        minidl.load(self.path, into=model)
        for x in (self.x, self.sequence):
            with (
                contextlib.suppress(ValueError, TypeError, RuntimeError, RecursionError),
                np.errstate(all="ignore"),
            ):
                model.backward(model(x))
        return "read"


class Training:
    """Files for ``Trainer.load``."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "model"
        self.bases = []
        self.trainer = self.made()
        for callbacks in ([], [self.saving()]):  # after an epoch, and within one
            self.trainer.fit(
                *self.data(), epochs=1, batch_size=4, progress=False, callbacks=callbacks
            )
            if not callbacks:
                self.trainer.save(self.path)
            self.bases.append(self.path.read_bytes())
        self.before = self.bits()

    def saving(self) -> Callback:
        path = self.path

        class Saving(Callback):
            def between_steps(self, trainer: Any, epoch: int) -> None:
                trainer.save(path)

        return Saving()

    def made(self) -> Trainer:
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm(4), nn.Dropout(0.5), nn.Linear(4, 2))
        model.reset(0)
        rate = optim.schedules.warmup(optim.schedules.cosine(0.1, 9), 3)
        optimizer = optim.Adam(model.parameters(), rate)
        ema = optim.EMA(model, 0.5)
        return Trainer(model, nn.CrossEntropyLoss(), optimizer, rng=0, ema=ema)

    def data(self) -> Any:
        rng = np.random.default_rng(0)
        return rng.normal(size=(12, 3)), rng.integers(2, size=12)

    def bits(self) -> list[bytes]:
        arrays = [*self.trainer.lasting(), self.trainer.optimizer.states]
        arrays += [self.trainer.optimizer.moment1]  # type: ignore[attr-defined]
        return [*(a.tobytes() for a in arrays), repr(self.trainer.rng.bit_generator.state).encode()]

    def __call__(self, rng: Any) -> str:
        name = choose(rng, ["minidl.training"] * 9 + ["minidl.model"])
        changes = [change_json(name)] * 12 + [change_json_text(name), *CHANGES]
        content = damaged(choose(rng, self.bases), rng, changes)
        write(self.path, content, rng)
        before = self.bits()
        try:
            self.trainer.load(self.path)
        except minidl.ModelFileError as error:
            check_message(str(error))
            assert self.bits() == before, "refused, and changed something"
            return "refused"
        with contextlib.suppress(ValueError, TypeError, KeyError):
            self.trainer.save(self.path)
            self.trainer.load(self.path)
        return "read"


class Idx:
    """Files for ``datasets.idx``, plain and compressed."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "idx"
        header = bytes([0, 0, 8, 2]) + struct.pack(">2I", 1 << 12, 1 << 17)  # half a gigabyte
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        parts = [packer.compress(header), *(packer.compress(bytes(1 << 20)) for _ in range(512))]
        self.bomb = b"".join(parts) + packer.flush()

    def __call__(self, rng: Any) -> str:
        code = choose(rng, [*datasets.idx_file.DTYPES, 0, 7, 255])
        shape = [
            int(size)
            for size in rng.integers(0 if not rng.integers(8) else 1, 5, rng.integers(1, 5))
        ]
        size = math.prod(shape) * {0x0B: 2, 0x0C: 4, 0x0D: 4, 0x0E: 8}.get(code, 1)
        claimed = [
            choose(rng, [*shape, 2**31, 2**32 - 1, 10**6]) if not rng.integers(6) else n
            for n in shape
        ]
        header = bytes([0, 0, code, choose(rng, [len(shape)] * 6 + [0, 64, 65, 255])])
        body = rng.bytes(max(0, size + choose(rng, [0] * 6 + [1, -1, 100, -100])))
        content = header + struct.pack(f">{len(shape)}I", *claimed) + body
        packed = bool(rng.integers(2))
        if packed:
            content = gzip.compress(content, choose(rng, [0, 1, 9]))
            content += choose(
                rng, [b""] * 6 + [b"junk", bytes(100), gzip.compress(b"") * 1000, content]
            )
        if not rng.integers(300):
            content = self.bomb
        elif not rng.integers(3):
            draft = bytearray(content)
            draft[int(rng.integers(len(draft)))] ^= int(rng.integers(1, 256))
            content = bytes(
                draft[: int(rng.integers(len(draft) + 1))] if rng.integers(2) else draft
            )
        write(self.path, content, rng)
        try:
            array = datasets.idx(self.path)
        except ValueError as error:
            check_message(str(error))
            return "refused"
        plain = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
        kind = datasets.idx_file.DTYPES[plain[2]]
        head = plain[:4] + struct.pack(f">{array.ndim}I", *array.shape)
        assert head + array.astype(kind).tobytes() == plain, "read what is not there"
        return "read"


class Sample:
    """Files for ``minidl sample``."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "text"
        self.bases = []
        for cell, layers, dropout in (("gru", 1, 0.0), ("lstm", 2, 0.5), ("rnn", 3, 0.1)):
            shape = Shape(cell, 4, layers, 3, dropout, 2)
            CharacterModel(datasets.Characters("abc "), shape).save(self.path)
            self.bases.append(self.path.read_bytes())

    def resize(self, draft: Draft, rng: Any) -> None:
        """Other sizes in the words, and sometimes in the tensors too."""
        name = choose(
            rng, ["cell", "hidden", "layers", "embedding", "dropout", "streams", "characters"]
        )
        draft.words[name] = choose(rng, WORDS)
        if name == "characters":
            draft.words[name] = choose(
                rng, ["", "aa", "abcd", "a" * 10**5, "\ud800", "\n\t\x1b ", "žů€😀"]
            )

    def empty(self, draft: Draft, rng: Any) -> None:
        """Tensors of no numbers, whose shapes take no room in the file."""
        width = choose(rng, [0, 10**6, 2**40])
        draft.words |= {"hidden": str(width), "embedding": choose(rng, ["0", str(width)])}
        draft.words["layers"] = str(choose(rng, [1, 50, 10**6]))
        shapes = {"0.weight": [4, int(draft.words["embedding"])], "2.weight": [width, 4]}
        for name, entry in draft.entries:
            if isinstance(entry, dict):
                entry["shape"], entry["data_offsets"] = shapes.get(name, [0, width]), [0, 0]
        draft.entries += [
            [f"1.x.{index}", {"dtype": "F32", "shape": [0, width], "data_offsets": [0, 0]}]
            for index in range(choose(rng, [0, 1000]))
        ]
        draft.data.clear()

    def __call__(self, rng: Any) -> str:
        changes = [self.resize] * 8 + [self.empty, set_numbers, set_numbers, *CHANGES]
        write(self.path, damaged(choose(rng, self.bases), rng, changes), rng)
        options = ["--length", "12", "--temperature", choose(rng, ["0.8", "0", "1e-300", "1e300"])]
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = command(["sample", str(self.path), *options])
        if status == 0:
            assert err.getvalue() == "", err.getvalue()
            return "read"
        assert status in (1, 2)
        assert not out.getvalue()
        assert err.getvalue().startswith("minidl: error: ")
        check_message(err.getvalue().removesuffix("\n"))
        return "refused"


def check_message(message: str) -> None:
    assert len(message.splitlines()) == 1, message
    assert len(message) < LONGEST_MESSAGE, f"{len(message)} characters"
    assert "model" in message or "idx" in message or "text" in message  # the name of the file


KINDS: dict[str, Any] = {
    "model": Model,
    "whole": Whole,
    "training": Training,
    "idx": Idx,
    "sample": Sample,
}


@contextlib.contextmanager
def clock(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TooSlowError(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run(kind: str, count: int, first: int) -> dict[str, Any]:
    """Try so many files; what came of them, and the longest that one of them took."""
    results: collections.Counter[str] = collections.Counter()
    slowest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        attempt = KINDS[kind](Path(folder))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        for number in range(first, first + count):
            started = time.perf_counter()
            try:
                with clock(SECONDS):
                    results[attempt(np.random.default_rng([number, len(kind)]))] += 1
            except BaseException as error:
                error.add_note(f"python tests/file_fuzzing.py {kind} 1 --first {number}")
                raise
            slowest = max(slowest, time.perf_counter() - started)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return {"kind": kind, **results, "slowest s": round(slowest, 2), "memory MB": memory}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("count", type=int)
    parser.add_argument("--first", type=int, default=0)
    arguments = parser.parse_args()
    print(json.dumps(run(arguments.kind, arguments.count, arguments.first)))
    sys.exit()
