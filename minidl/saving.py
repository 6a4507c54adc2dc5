"""Models and optimizers on disk as safetensors: a JSON header and raw numbers, nothing that runs.

    8 bytes   N, the length of the header, little-endian
    N bytes   JSON: {"0.weight": {"dtype": "F32", "shape": [64, 10], "data_offsets": [0, 2560]}, …,
              "__metadata__": {"format": "minidl", "crc32": "…"}}
    the rest  the numbers, little-endian, row by row, without gaps

Any reader of safetensors opens these files. The checksum is over the numbers. What belongs to an
optimizer has names like ``optimizer/0/moment1/2.weight``: group, vector, parameter.

What is read is not trusted. The header is checked against the size of the file and against the
model before a number is read, and all numbers are checked before one of them is put in its place.
"""

from __future__ import annotations

import json
import math
import os
import reprlib
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from typing import Any, BinaryIO

import numpy as np

from minidl._kernels.twins import OPTIMIZER_STATE
from minidl.files import AnyPath, open_regular, replacing
from minidl.nn.layer import Layer
from minidl.nn.parameter import Parameter
from minidl.optim.optimizer import Optimizer
from minidl.typing import Array

DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "I64": np.dtype("<i8"),
    "U64": np.dtype("<u8"),
}
# Bytes of an element of every dtype of the format: the files of others have words to read, too.
SIZES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}
# Bytes of a header, of some hundred thousand tensors. One that is made to take much memory takes
# some thirty times its size.
LARGEST_HEADER = 16 << 20
LARGEST_OFFSET = 2**63 - 1
CHUNK = 1 << 20  # bytes that are read at once where only their checksum is asked for
OPTIMIZER = "optimizer/"  # begins the names of what is not the model's
OWN_WORDS = {"format", "crc32", "optimizer"}  # of the metadata


class ModelFileError(ValueError):
    """A file that does not hold the model it should: damaged, truncated, or of another model."""


def save(
    model: Layer,
    path: AnyPath,
    *,
    metadata: Mapping[str, str] | None = None,
    optimizer: Optimizer | None = None,
) -> None:
    """Write the parameters and the state (running statistics, generators) of a model.

    The file appears under its name only when it is complete, and on the disk: whoever reads, and
    whenever this process dies, there is the old file or the new one. Threads and processes may save
    to one path at once.

    Parameters
    ----------
    model
        Any layer.
    path
        Where to. An existing file is replaced and passes on its mode; a symbolic link stays, and
        the file that it leads to is replaced.
    metadata
        Words to keep with it, by name, such as what the model was made from.
    optimizer
        Of the model's parameters, to go on training later: its hyper-parameters, counters and
        moments are kept too. Not kept are a schedule (give the new optimizer the same one), a
        ``ReduceOnPlateau``, the averages of an ``EMA``, and a generator of the order of rows.

    Raises
    ------
    TypeError
        For metadata that are not strings.
    ValueError
        For an optimizer of another model, for metadata under a name that ``save`` itself uses, or
        of more than 16 MB.
    RuntimeError
        For an optimizer that a parameter has left.
    OSError
        If the file cannot be written, or is no regular file: a folder, a pipe, a device.

    Examples
    --------
    >>> import minidl, tempfile, pathlib
    >>> from minidl import nn, optim
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.safetensors"
    >>> model = nn.Linear(3, 2, rng=0)
    >>> optimizer = optim.Adam(model.parameters(), lr=0.01)
    >>> minidl.save(model, path, optimizer=optimizer)
    >>> other = nn.Linear(3, 2, rng=1)
    >>> minidl.load(path, into=other)
    >>> bool((other.weight.data == model.weight.data).all())
    True

    To go on training with the same moments:

    >>> optimizer = optim.Adam(other.parameters())
    >>> minidl.load(path, into=other, optimizer=optimizer)
    >>> optimizer.lr
    0.01
    """
    _check_types("save", model, optimizer)
    words = _checked_words(metadata or {})
    names = {dtype: name for name, dtype in DTYPES.items()}
    header: dict[str, Any] = {}
    pieces = []
    end = checksum = 0
    for name, place in _places(model, optimizer).items():
        array = _array(place)
        dtype = array.dtype.newbyteorder("<")
        # A copy: what is written is what the checksum is of, even if training goes on meanwhile.
        piece = array.astype(dtype, order="C").tobytes()
        begin, end = end, end + len(piece)
        header[name] = {
            "dtype": names[dtype],
            "shape": list(array.shape),
            "data_offsets": [begin, end],
        }
        pieces.append(piece)
        checksum = zlib.crc32(piece, checksum)
    own = {"format": "minidl", "crc32": f"{checksum:08x}"}
    if optimizer is not None:
        own["optimizer"] = _kind(optimizer)
    header["__metadata__"] = {**words, **own}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > LARGEST_HEADER:
        raise ValueError(
            f"save: metadata and names of tensors take {len(text):,} bytes, more than the "
            f"{LARGEST_HEADER:,} of the header of a file; keep long words in a file of their own"
        )
    with replacing(path) as file:
        file.writelines([len(text).to_bytes(8, "little"), text, *pieces])


def load(path: AnyPath, into: Layer, *, optimizer: Optimizer | None = None) -> None:
    """Fill a model with what ``save`` wrote, and an optimizer too, if one is given.

    Everything is checked first, and everything is put in its place at once: if anything is wrong,
    or Ctrl-C comes, model and optimizer stay as they are.

    Parameters
    ----------
    path
        A file that ``save`` wrote, or another program that keeps weights as minidl does: its
        metadata say ``"format": "minidl"``. PyTorch's have the weights of a ``Linear`` the other
        way round.
    into
        A model of the same layers, shapes and dtype.
    optimizer
        Of the parameters of ``into``, of the class that was saved and with the same groups. Its
        hyper-parameters become those of the file. None: what the file has of one is left aside.

    Raises
    ------
    ModelFileError
        A ``ValueError``: if the file is damaged, or not of such a model or optimizer, or holds what
        none can have, such as a negative variance or learning rate; names the tensor.
    ValueError, RuntimeError
        For an optimizer that is not of ``into``, as in ``save``.
    OSError
        If the file cannot be read.
    """
    _check_types("load", into, optimizer)
    with _opened(path) as content:
        content.check_format()
        places = _places(into, optimizer)
        content.check_names(places, optimizer)
        for name, place in places.items():
            content.check_like(name, place)
        content.check_layout()
        found = content.read(places)
    try:
        _check_state(into, found)
        if optimizer is not None:
            _check_optimizer(optimizer, found)
    except ValueError as error:
        raise ModelFileError(f"{os.fspath(path)}: {error}") from None
    arrays = [_array(place) for place in places.values()]
    values = [found[name] for name in places]
    # A single call from Python, of C alone: no signal handler runs before the last array is filled.
    deque(map(np.ndarray.__setitem__, arrays, repeat(...), values), maxlen=0)


def metadata(path: AnyPath) -> dict[str, str]:
    """The words that ``save`` kept with a model.

    Raises
    ------
    ModelFileError
        If the file is damaged.
    OSError
        If it cannot be read.
    """
    with _opened(path) as content:
        content.check_layout()
        content.read({})
        return content.words


def description(path: AnyPath) -> tuple[dict[str, str], dict[str, tuple[int, ...]]]:
    """The words of a model file, and the shapes of its tensors, for which there are numbers in it.

    Nothing else is read: ``load`` looks for damage in the numbers.

    Raises
    ------
    ModelFileError
        If the header is damaged.
    OSError
        If the file cannot be read.
    """
    with _opened(path) as content:
        content.check_layout()
        return content.words, {name: tensor.shape for name, tensor in content.tensors.items()}


# --- what is kept, and where ----------------------------------------------------------------

# What of a model or an optimizer has a tensor in the file.
Place = Parameter | Array


def _check_types(caller: str, model: Any, optimizer: Any) -> None:
    if not isinstance(model, Layer):
        hint = "; an optimizer goes with its model, as optimizer=optimizer"
        raise TypeError(
            f"{caller} takes a model, got {model!r}{hint if isinstance(model, Optimizer) else ''}"
        )
    if not isinstance(optimizer, Optimizer | None):
        raise TypeError(f"{caller}: optimizer must be one, or None, got {optimizer!r}")


def _checked_words(metadata: Mapping[str, str]) -> dict[str, str]:
    """The metadata, if every reader of the format can read them."""
    words = dict(metadata)
    if taken := OWN_WORDS & words.keys():
        raise ValueError(f"save: the metadata {', '.join(sorted(taken))} are its own, rename yours")
    for name, word in words.items():
        if not isinstance(name, str) or not isinstance(word, str):
            raise TypeError(
                f"save: metadata are strings by name, got {_short(name)}: {_short(word)}; "
                "write str(...) or json.dumps(...) of what is none"
            )
        try:
            (name + word).encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"save: the metadata {_short(name)} hold half a surrogate pair, which no file in "
                "UTF-8 can"
            ) from None
    return words


def _short(value: Any) -> str:
    """A value of any length as a part of a message."""
    limits = reprlib.Repr()
    limits.maxstring = limits.maxother = 100
    return limits.repr(value)


def _line(name: str) -> str:
    """A name of any length as a part of a message, which is one line."""
    return _short(name)[1:-1]


def _kind(optimizer: Optimizer) -> str:
    """The name of its class: with that of the module, if it is not one of minidl's."""
    cls = type(optimizer)
    own = cls.__module__.startswith("minidl.")
    return cls.__name__ if own else f"{cls.__module__}.{cls.__qualname__}"


def _places(model: Layer, optimizer: Optimizer | None) -> dict[str, Place]:
    """What is kept, by name. Parameters are not looked at: that would draw their values."""
    state = {} if optimizer is None else _state(optimizer, model)
    kept = {f"{OPTIMIZER}{name}": array for name, array in state.items()}
    return {**dict(model.named_parameters()), **model.saved_state(), **kept}


def _array(place: Place) -> Array:
    """A view: to fill it is to load."""
    return place.data if isinstance(place, Parameter) else place


def _state(optimizer: Optimizer, model: Layer) -> dict[str, Array]:
    """What the steps to come depend on: of each group, its hyper-parameters and counters, and the
    pieces of every vector that has the layout of the parameters, named as these are in the model.
    """
    flat = optimizer.flat
    flat.check()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for parameter in flat.parameters:
        if id(parameter) not in names:
            raise ValueError(f"{optimizer!r} is not of this model: {parameter!r} is not in it")
    vectors = {
        name: vector
        for name, vector in vars(optimizer).items()
        if isinstance(vector, np.ndarray) and vector.shape == (flat.size,)
    }
    found: dict[str, Array] = {}
    starts = iter(flat.starts)
    for index, group in enumerate(flat.groups):
        for field in OPTIMIZER_STATE.names or ():
            found[f"{index}/{field}"] = optimizer.states[field][index : index + 1].reshape(())
        for parameter, start in zip(group, starts, strict=False):
            for name, vector in vectors.items():
                piece = vector[start : start + parameter.size].reshape(parameter.shape)
                found[f"{index}/{name}/{names[id(parameter)]}"] = piece
    return found


def _check_state(model: Layer, found: Mapping[str, Array]) -> None:
    """Raise ValueError for state that no layer can come to, such as a negative variance."""
    for path, layer in model.layers():
        for name, least in layer.state_minimum.items():
            full = f"{path}.{name}" if path else name
            numbers = np.asarray(found.get(full, least), np.float64)  # which is the one of least
            if len(wrong := numbers[~(numbers >= least)]):
                raise ValueError(f"{full} must be at least {least:g}, and holds {wrong[0]:g}")


def _check_optimizer(optimizer: Optimizer, found: Mapping[str, Array]) -> None:
    """Raise ValueError for what no constructor of the optimizer takes, and no step comes to."""
    states = optimizer.states.copy()
    for name, array in found.items():
        if name.startswith(OPTIMIZER):
            index, field, *rest = name.removeprefix(OPTIMIZER).split("/")
            if not rest:
                states[field][int(index)] = array
                continue
            least = 0.0 if field in optimizer.never_negative else -np.inf
            if not (np.isfinite(array) & (array >= least)).all():
                what = "not finite" if least else "negative or not finite"
                raise ValueError(f"{name} holds a number that is {what}")
    optimizer.check_states(states)


# --- files ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Tensor:
    """What a header says of a tensor."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def size(self) -> int:
        """Bytes that so many numbers take."""
        return math.prod(self.shape) * SIZES[self.dtype]


@contextmanager
def _opened(path: AnyPath) -> Iterator[_Content]:
    try:
        file = open_regular(path)
    except ValueError as error:
        raise ModelFileError(str(error)) from None
    with file:
        yield _Content(os.fspath(path), file)


class _Content:
    """A file whose header is read; its numbers are not. Errors begin with the path."""

    def __init__(self, path: str, file: BinaryIO) -> None:
        self._path, self._file = path, file
        header, self._bytes = self._header()
        words = header.pop("__metadata__", {})
        if not isinstance(words, dict):
            raise self._error("the header does not describe tensors")
        for name, word in words.items():
            if not isinstance(word, str):
                raise self._error(f"the metadata {_short(name)} are no string: {_short(word)}")
        self.words: dict[str, str] = words
        tensors = [(name, self._tensor(name, entry)) for name, entry in header.items()]
        tensors.sort(key=lambda pair: (pair[1].begin, pair[1].end))
        self.tensors: dict[str, _Tensor] = dict(tensors)

    def _error(self, words: str) -> ModelFileError:
        return ModelFileError(f"{self._path}: {words}")

    def _header(self) -> tuple[dict[str, Any], int]:
        """The header, and the number of bytes after it."""
        size = os.fstat(self._file.fileno()).st_size
        length = int.from_bytes(self._file.read(8), "little")
        if size < 8 or length > size - 8:
            raise self._error("truncated, or not a safetensors file")
        if length > LARGEST_HEADER:
            raise self._error(
                f"the header takes {length:,} bytes, more than the {LARGEST_HEADER:,} that it may"
            )
        try:
            text = self._file.read(length).decode()
            header = json.loads(
                text, object_pairs_hook=_distinct, parse_float=_no_number, parse_constant=_no_number
            )
        except (ValueError, RecursionError) as error:
            raise self._error(f"the header is not JSON of a safetensors file ({error})") from None
        if not isinstance(header, dict) or not text.startswith("{"):
            raise self._error("the header does not describe tensors")
        return header, size - 8 - length

    def _tensor(self, name: str, entry: Any) -> _Tensor:
        try:
            dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
            known = dtype in SIZES and isinstance(shape, list) and len(shape) <= 64
        except (KeyError, TypeError, ValueError):
            known = False
        if not known:
            raise self._error(f"{_line(name)} is not described as a tensor of numbers")
        for number in (*shape, begin, end):
            if type(number) is not int:
                raise self._error(f"{_line(name)}: {_short(number)} is no whole number")
            if not 0 <= number <= LARGEST_OFFSET:
                raise self._error(f"the numbers of {_line(name)} lie outside the file")
        return _Tensor(dtype, tuple(shape), begin, end)

    def check_format(self) -> None:
        """Refuse a file of which it is not known how it keeps weights."""
        if (kind := self.words.get("format")) != "minidl":
            says = "do not say whose it is" if kind is None else f"say {_short(kind)}"
            raise self._error(
                f"not a file of minidl: its metadata {says}, so that it is not known which way "
                "round its weights are. A Linear of PyTorch keeps (out_features, in_features): "
                "assign layer.weight.data = array.T. If it keeps all weights as minidl does, "
                '(in_features, out_features), write it with the metadata {"format": "minidl"}'
            )

    def check_names(self, places: Mapping[str, Place], optimizer: Optimizer | None) -> None:
        """Compare what there is with what the model has."""
        names = set(self.tensors)
        if optimizer is None:
            names = {name for name in names if not name.startswith(OPTIMIZER)}
        elif (kind := self.words.get("optimizer")) != _kind(optimizer):
            holds = "no optimizer" if kind is None else _line(kind)
            raise self._error(f"holds {holds}, not {_kind(optimizer)}")
        missing, unknown = places.keys() - names, names - places.keys()
        if missing or unknown:
            lists = (("without", missing), ("with unknown", unknown))
            raise self._error(
                f"not this model{' and optimizer' if optimizer else ''}; "
                + "; ".join(
                    f"{words} {', '.join(_line(name) for name in sorted(names)[:5])}"
                    for words, names in lists
                    if names
                )
            )

    def check_like(self, name: str, place: Place) -> None:
        """Compare dtype and shape with those in the model."""
        tensor = self.tensors[name]
        dtype = DTYPES.get(tensor.dtype)
        if dtype is None:
            raise self._error(f"{name} is not described as a tensor of minidl's: {tensor.dtype}")
        if dtype != place.dtype or tensor.shape != place.shape:
            here = f"here it is {place.dtype} {place.shape}"
            raise self._error(f"{name} is {dtype.name} {_short(tensor.shape)}, {here}")

    def check_layout(self) -> None:
        """Compare offsets with shapes and with the size of the file: no gaps, nothing shared."""
        end = 0
        for name, tensor in self.tensors.items():
            if not tensor.begin <= tensor.end <= self._bytes:
                raise self._error(f"the numbers of {_line(name)} lie outside the file")
            if tensor.begin != end:
                raise self._error(
                    f"the numbers of {_line(name)} begin at {tensor.begin}, not at {end}, "
                    "where those before them end"
                )
            end = tensor.end
            if end - tensor.begin != tensor.size:
                raise self._error(
                    f"{_line(name)} of shape {_short(tensor.shape)} has "
                    f"{end - tensor.begin:,} bytes, not as many as it takes"
                )
        if end != self._bytes:
            raise self._error(f"{self._bytes - end:,} bytes follow the last tensor")

    def read(self, names: Mapping[str, Any]) -> dict[str, Array]:
        """The tensors of these names; the checksum of all is right."""
        expected = self.words.get("crc32")
        found: dict[str, Array] = {}
        checksum = 0
        for name, tensor in self.tensors.items():
            if name in names:
                found[name] = np.empty(tensor.shape, DTYPES[tensor.dtype])
                checksum = self._fill(found[name].reshape(-1).view(np.uint8), checksum)
            elif expected is None:
                self._file.seek(tensor.size, os.SEEK_CUR)
            else:
                checksum = self._skip(tensor.size, checksum)
        if expected is not None and expected != f"{checksum:08x}":
            raise self._error("damaged; the checksum of its numbers is wrong")
        return found

    def _fill(self, array: Array, checksum: int) -> int:
        if self._file.readinto(array) != len(array):  # type: ignore[attr-defined]
            raise self._error("truncated while it was read")
        return zlib.crc32(array.data, checksum)

    def _skip(self, size: int, checksum: int) -> int:
        chunk = np.empty(min(size, CHUNK), np.uint8)
        while size:
            chunk = chunk[:size]
            checksum = self._fill(chunk, checksum)
            size -= len(chunk)
        return checksum


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON as a dict, of strings that are text."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    for name, value in pairs:
        name.encode()
        if isinstance(value, str):
            value.encode()
    return found


def _no_number(text: str) -> float:
    raise ValueError(f"{text[:20]} is no whole number")
