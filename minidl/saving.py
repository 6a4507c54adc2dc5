"""Models and optimizers on disk as safetensors: a JSON header and raw numbers, nothing that runs.

    8 bytes   N, the length of the header, little-endian
    N bytes   JSON: {"0.weight": {"dtype": "F32", "shape": [64, 10], "data_offsets": [0, 2560]}, …,
              "__metadata__": {"format": "minidl", "crc32": "…"}}
    the rest  the numbers, little-endian, row by row, without gaps

Any reader of safetensors opens these files. The checksum is over the numbers. What belongs to an
optimizer has names like ``optimizer/0/moment1/2.weight``: group, vector, parameter.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minidl._kernels.reference import OPTIMIZER_STATE, Array
from minidl.nn.layer import Layer
from minidl.optim.base import Optimizer

DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "I64": np.dtype("<i8"),
    "U64": np.dtype("<u8"),
}
LARGEST_HEADER = 100_000_000  # bytes, as in the format's own reader
OPTIMIZER = "optimizer/"  # begins the names of what is not the model's
OWN_WORDS = {"format", "crc32", "optimizer"}  # of the metadata


class ModelFileError(ValueError):
    """A file that does not hold the model it should: damaged, truncated, or of another model."""


def save(
    model: Layer,
    path: str | os.PathLike[str],
    *,
    metadata: Mapping[str, str] | None = None,
    optimizer: Optimizer | None = None,
) -> None:
    """Write the parameters and the state (running statistics, generators) of a model.

    The file appears under its name only when it is complete.

    Parameters
    ----------
    model
        Any layer.
    path
        Where to; an existing file is replaced.
    metadata
        Words to keep with it, by name, such as what the model was made from.
    optimizer
        Of the model's parameters, to go on training later: its hyper-parameters, counters and
        moments are kept too. Not kept are a schedule (give the new optimizer the same one), a
        ``ReduceOnPlateau``, the averages of an ``EMA``, and a generator of the order of rows.

    Raises
    ------
    ValueError
        For an optimizer of another model, and for metadata under a name that ``save`` itself uses.
    RuntimeError
        For an optimizer that a parameter has left.

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
    if taken := OWN_WORDS & dict(metadata or {}).keys():
        raise ValueError(f"save: the metadata {', '.join(sorted(taken))} are its own, rename yours")
    names = {dtype: name for name, dtype in DTYPES.items()}
    header: dict[str, Any] = {}
    pieces = []
    end = 0
    for name, array in _arrays(model, optimizer).items():
        dtype = array.dtype.newbyteorder("<")
        piece = array.astype(dtype, order="C").tobytes()
        begin, end = end, end + len(piece)
        header[name] = {
            "dtype": names[dtype],
            "shape": list(array.shape),
            "data_offsets": [begin, end],
        }
        pieces.append(piece)
    data = b"".join(pieces)
    checked = {"format": "minidl", "crc32": f"{zlib.crc32(data):08x}"}
    if optimizer is not None:
        checked["optimizer"] = _kind(optimizer)
    header["__metadata__"] = {**(metadata or {}), **checked}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path = Path(path)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(len(text).to_bytes(8, "little") + text + data)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def load(path: str | os.PathLike[str], into: Layer, *, optimizer: Optimizer | None = None) -> None:
    """Fill a model with what ``save`` wrote, and an optimizer too, if one is given.

    Everything is checked first: if anything is wrong, both stay as they are.

    Parameters
    ----------
    path
        A file in the safetensors format.
    into
        A model of the same layers, shapes and dtype.
    optimizer
        Of the parameters of ``into``, of the class that was saved and with the same groups. Its
        hyper-parameters become those of the file. None: what the file has of one is left aside.

    Raises
    ------
    ModelFileError
        A ``ValueError``: if the file is damaged, or not of such a model or optimizer; names the
        tensor.
    ValueError, RuntimeError
        For an optimizer that is not of ``into``, as in ``save``.
    OSError
        If the file cannot be read.
    """
    _check_types("load", into, optimizer)
    path = Path(path)
    header, words, data = _parts(path)
    if optimizer is None:
        header = {name: entry for name, entry in header.items() if not name.startswith(OPTIMIZER)}
    elif words.get("optimizer") != _kind(optimizer):
        raise ModelFileError(
            f"{path}: holds {words.get('optimizer', 'no optimizer')}, not {_kind(optimizer)}"
        )
    arrays = _arrays(into, optimizer)
    missing, unknown = arrays.keys() - header.keys(), header.keys() - arrays.keys()
    if missing or unknown:
        raise ModelFileError(
            f"{path}: not this model{' and optimizer' if optimizer else ''}; "
            + "; ".join(
                f"{words} {', '.join(sorted(names)[:5])}"
                for words, names in (("without", missing), ("with unknown", unknown))
                if names
            )
        )
    found = {name: _tensor(path, name, header[name], data, arrays[name]) for name in arrays}
    for name, array in arrays.items():
        array[...] = found[name]


def _check_types(caller: str, model: Any, optimizer: Any) -> None:
    if not isinstance(model, Layer):
        hint = "; an optimizer goes with its model, as optimizer=optimizer"
        raise TypeError(
            f"{caller} takes a model, got {model!r}{hint if isinstance(model, Optimizer) else ''}"
        )
    if not isinstance(optimizer, Optimizer | None):
        raise TypeError(f"{caller}: optimizer must be one, or None, got {optimizer!r}")


def _kind(optimizer: Optimizer) -> str:
    """The name of its class: with that of the module, if it is not one of minidl's."""
    cls = type(optimizer)
    own = cls.__module__.startswith("minidl.")
    return cls.__name__ if own else f"{cls.__module__}.{cls.__qualname__}"


def _arrays(model: Layer, optimizer: Optimizer | None) -> dict[str, Array]:
    """What is kept, by name: views, so that to fill them is to load."""
    parameters = {name: parameter.data for name, parameter in model.named_parameters()}
    state = {} if optimizer is None else _state(optimizer, model)
    kept = {f"{OPTIMIZER}{name}": array for name, array in state.items()}
    return parameters | model.lasting_state() | kept


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


def metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The words that ``save`` kept with a model.

    Raises
    ------
    ModelFileError
        If the file is damaged.
    OSError
        If it cannot be read.
    """
    return _parts(Path(path))[1]


def _parts(path: Path) -> tuple[dict[str, Any], dict[str, str], bytes]:
    """The header without its metadata, these, and the numbers, whose checksum is right."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or length > min(len(content) - 8, LARGEST_HEADER):
        raise ModelFileError(f"{path}: truncated, or not a safetensors file")
    try:
        header = json.loads(content[8 : 8 + length])
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: the header is not JSON ({error})") from None
    metadata = header.pop("__metadata__", {}) if isinstance(header, dict) else None
    if not isinstance(metadata, dict):
        raise ModelFileError(f"{path}: the header does not describe tensors")
    data = content[8 + length :]
    checksum = metadata.get("crc32")
    if checksum is not None and checksum != f"{zlib.crc32(data):08x}":
        raise ModelFileError(f"{path}: damaged; the checksum of its numbers is wrong")
    return header, {name: str(words) for name, words in metadata.items()}, data


def _tensor(path: Path, name: str, entry: Any, data: bytes, like: Array) -> Array:
    """One tensor, after checking that it has the dtype and shape of the model's."""
    try:
        dtype, shape = DTYPES[entry["dtype"]], tuple(entry["shape"])
        begin, end = entry["data_offsets"]
    except (KeyError, TypeError, ValueError):
        raise ModelFileError(f"{path}: {name} is not described as a tensor") from None
    if dtype != like.dtype or shape != like.shape:
        raise ModelFileError(
            f"{path}: {name} is {dtype.name} {shape}, here it is {like.dtype} {like.shape}"
        )
    size = dtype.itemsize * math.prod(like.shape)
    whole = all(type(offset) is int for offset in (begin, end))
    if not whole or not 0 <= begin <= end <= len(data) or end - begin != size:
        raise ModelFileError(f"{path}: the numbers of {name} lie outside the file")
    return np.frombuffer(data, dtype, offset=begin, count=size // dtype.itemsize).reshape(shape)
