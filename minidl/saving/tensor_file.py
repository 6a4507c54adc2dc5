"""Models and optimizers on disk as safetensors: a JSON header and raw numbers, nothing that runs.

    8 bytes   N, the length of the header, little-endian
    N bytes   JSON: {"0.weight": {"dtype": "F32", "shape": [64, 10], "data_offsets": [0, 2560]}, …,
              "__metadata__": {"format": "minidl", "crc32": "…"}}
    the rest  the numbers, little-endian, row by row, without gaps

Any reader of safetensors opens these files. The checksum is over the numbers. What belongs to an
optimizer has names like ``optimizer/0/moment1/2.weight``: group, vector, parameter.

A file is not trusted. Its header is checked against its size and against the model before any
number is read, and all numbers are checked before any of them is copied into the model.
"""

from __future__ import annotations

import json
import math
import os
import reprlib
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from minidl.files import AnyPath, as_path, open_regular, replacing
from minidl.typing import Array

FORMAT = "minidl"  # metadata "format" of a file that keeps weights as minidl does
DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "BOOL": np.dtype("?"),
    **{
        f"{kind}{8 * size}": np.dtype(f"<{kind.lower()}{size}")
        for kind in "IU"
        for size in (1, 2, 4, 8)
    },
}
KEPT_DTYPES = "float32, float64, whole numbers and booleans"
# What the numbers of other libraries are read as, before they are widened.
STORED: dict[str, np.dtype[Any]] = {**DTYPES, "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}
# Bytes of an element, for every dtype of the format: metadata of any such file can be read.
SIZES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}
# Bytes of a header: enough for some hundred thousand tensors. Parsing a header that is made to
# waste memory takes about thirty times its size.
LARGEST_HEADER = 16 << 20
LARGEST_OFFSET = 2**63 - 1
CHUNK = 1 << 20  # bytes that are read at once where only their checksum is needed


class ModelFileError(ValueError):
    """A file that does not hold the model it should: damaged, truncated, or of another model."""


def write_tensor_file(
    path: AnyPath, tensors: Mapping[str, Array], words: Mapping[str, str], own: Mapping[str, str]
) -> None:
    """Write tensors by name, the user's metadata ``words``, and minidl's own metadata."""
    names = {dtype: name for name, dtype in DTYPES.items()}
    header: dict[str, Any] = {}
    contents = []
    end = checksum = 0
    for name, array in tensors.items():
        dtype = array.dtype.newbyteorder("<")
        if dtype not in names:
            raise TypeError(
                f"save: {one_line(name)} is an array of {array.dtype}, and a file keeps "
                f"{KEPT_DTYPES}: let the layer hold one of these"
            )
        # A copy, so that the checksum fits the file even if another thread trains meanwhile.
        numbers = array.astype(dtype, order="C").tobytes()
        begin, end = end, end + len(numbers)
        header[name] = {
            "dtype": names[dtype],
            "shape": list(array.shape),
            "data_offsets": [begin, end],
        }
        contents.append(numbers)
        checksum = zlib.crc32(numbers, checksum)
    header["__metadata__"] = {**words, "format": FORMAT, "crc32": f"{checksum:08x}", **own}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > LARGEST_HEADER:
        raise ValueError(
            f"save: metadata and names of tensors take {len(text):,} bytes, more than the "
            f"{LARGEST_HEADER:,} of the header of a file; keep long words in a file of their own"
        )
    with replacing(as_path(path)) as file:
        file.writelines([len(text).to_bytes(8, "little"), text, *contents])


@dataclass(frozen=True)
class Tensor:
    """Dtype, shape and place of a tensor, as the header gives them."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def size(self) -> int:
        """Bytes that a tensor of this dtype and shape takes."""
        return math.prod(self.shape) * SIZES[self.dtype]


@contextmanager
def opened(path: AnyPath) -> Iterator[TensorFile]:
    """Open a file and read its header; it is closed at the end of the block."""
    path = as_path(path)
    try:
        file = open_regular(path)
    except ValueError as error:
        raise ModelFileError(str(error)) from None
    with file:
        yield TensorFile(os.fspath(path), file)


class TensorFile:
    """An open file whose header has been read, and its numbers not. Errors begin with the path."""

    def __init__(self, path: str, file: BinaryIO) -> None:
        self._path, self._file = path, file
        header, self._bytes = self._header()
        words = header.pop("__metadata__", {})
        if not isinstance(words, dict):
            raise self.error("the header does not describe tensors")
        for name, word in words.items():
            if not isinstance(word, str):
                raise self.error(f"the metadata {shortened(name)} are no string: {shortened(word)}")
        self.words: dict[str, str] = words
        tensors = [(name, self._tensor(name, entry)) for name, entry in header.items()]
        tensors.sort(key=lambda pair: (pair[1].begin, pair[1].end))
        self.tensors: dict[str, Tensor] = dict(tensors)

    def error(self, words: str) -> ModelFileError:
        """Return an error that names the file."""
        return ModelFileError(f"{self._path}: {words}")

    def _header(self) -> tuple[dict[str, Any], int]:
        """Read the header; return it with the number of bytes after it."""
        size = os.fstat(self._file.fileno()).st_size
        length = int.from_bytes(self._file.read(8), "little")
        if size < 8 or length > size - 8:
            raise self.error("truncated, or not a safetensors file")
        if length > LARGEST_HEADER:
            raise self.error(
                f"the header takes {length:,} bytes, more than the {LARGEST_HEADER:,} that it may"
            )
        try:
            text = self._file.read(length).decode()
            header = json.loads(
                text, object_pairs_hook=_distinct, parse_float=_no_number, parse_constant=_no_number
            )
        except (ValueError, RecursionError) as error:
            raise self.error(f"the header is not JSON of a safetensors file ({error})") from None
        if not isinstance(header, dict) or not text.startswith("{"):
            raise self.error("the header does not describe tensors")
        return header, size - 8 - length

    def _tensor(self, name: str, entry: Any) -> Tensor:
        """Return an entry of the header as a Tensor, if it describes one."""
        try:
            dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
            known = dtype in SIZES and isinstance(shape, list) and len(shape) <= 64
        except (KeyError, TypeError, ValueError):
            known = False
        if not known:
            raise self.error(f"{one_line(name)} is not described as a tensor of numbers")
        for number in (*shape, begin, end):
            if type(number) is not int:
                raise self.error(f"{one_line(name)}: {shortened(number)} is no whole number")
            if not 0 <= number <= LARGEST_OFFSET:
                raise self.error(f"the numbers of {one_line(name)} lie outside the file")
        return Tensor(dtype, tuple(shape), begin, end)

    def check_layout(self) -> None:
        """Raise unless the tensors fill the file: no gaps, no overlaps, sizes as their shapes."""
        end = 0
        for name, tensor in self.tensors.items():
            if not tensor.begin <= tensor.end <= self._bytes:
                raise self.error(f"the numbers of {one_line(name)} lie outside the file")
            if tensor.begin != end:
                raise self.error(
                    f"the numbers of {one_line(name)} begin at {tensor.begin}, not at {end}, "
                    "where those before them end"
                )
            end = tensor.end
            if end - tensor.begin != tensor.size:
                raise self.error(
                    f"{one_line(name)} of shape {shortened(tensor.shape)} has "
                    f"{end - tensor.begin:,} bytes, not as many as it takes"
                )
        if end != self._bytes:
            raise self.error(f"{self._bytes - end:,} bytes follow the last tensor")

    def read(self, names: Mapping[str, Any]) -> dict[str, Array]:
        """Return the tensors of these names, after checking the checksum of all numbers."""
        expected = self.words.get("crc32")
        found: dict[str, Array] = {}
        checksum = 0
        for name, tensor in self.tensors.items():
            if name in names:
                found[name] = np.empty(tensor.shape, DTYPES[tensor.dtype])
                checksum = self._fill(found[name].reshape(-1).view(np.uint8), checksum)
                self._check_booleans(name, found[name])
            elif expected is None:
                self._file.seek(tensor.size, os.SEEK_CUR)
            else:
                checksum = self._skip(tensor.size, checksum)
        if expected is not None and expected != f"{checksum:08x}":
            raise self.error("damaged; the checksum of its numbers is wrong")
        return found

    def read_widened(self) -> dict[str, Array]:
        """Return all tensors of numbers; those of 16 bits as float32, which holds them exactly."""
        found: dict[str, Array] = {}
        for name, tensor in self.tensors.items():
            stored = STORED.get(tensor.dtype)
            if stored is None:
                raise self.error(f"{one_line(name)} is {tensor.dtype}, which cannot be read")
            array = np.empty(tensor.shape, stored)
            self._fill(array.reshape(-1).view(np.uint8), 0)
            self._check_booleans(name, array)
            if tensor.dtype == "BF16":  # the upper half of a float32
                array = (array.astype(np.uint32) << 16).view(np.float32)
            found[name] = array.astype(np.float32) if tensor.dtype == "F16" else array
        return found

    def _fill(self, array: Array, checksum: int) -> int:
        """Read bytes into an array; return the checksum with them."""
        if self._file.readinto(array) != len(array):  # type: ignore[attr-defined]
            raise self.error("truncated while it was read")
        return zlib.crc32(array.data, checksum)

    def _check_booleans(self, name: str, array: Array) -> None:
        """Raise if booleans are bytes that are neither 0 nor 1, of which NumPy makes anything."""
        if array.dtype == bool and (array.reshape(-1).view(np.uint8) > 1).any():
            raise self.error(f"{one_line(name)} holds booleans that are neither true nor false")

    def _skip(self, size: int, checksum: int) -> int:
        """Read past so many bytes; return the checksum with them."""
        chunk = np.empty(min(size, CHUNK), np.uint8)
        while size:
            chunk = chunk[:size]
            checksum = self._fill(chunk, checksum)
            size -= len(chunk)
        return checksum


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object as a dict; raise for a name given twice or for invalid text."""
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


def shortened(value: Any) -> str:
    """Return a value as text that is short enough for a message."""
    limits = reprlib.Repr()
    limits.maxstring = limits.maxother = 100
    return limits.repr(value)


def one_line(name: str) -> str:
    """Return a name as text without line breaks, short enough for a message."""
    return shortened(name)[1:-1]
