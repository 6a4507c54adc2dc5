"""The IDX format, in which MNIST and its relatives are distributed.

A file is a header, all numbers big-endian, and the elements of one array in C order:

====================  ==================================================================
bytes                 meaning
====================  ==================================================================
2                     zero
1                     type of the elements: 0x08 uint8, 0x09 int8, 0x0B int16,
                      0x0C int32, 0x0D float32, 0x0E float64
1                     number of dimensions
4 per dimension       its size, unsigned
the rest              the elements
====================  ==================================================================

Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits".
"""

from __future__ import annotations

import math
import os
import struct
import zlib
from typing import BinaryIO

import numpy as np

from minidl.files import open_regular
from minidl.typing import Array

DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
MAX_DIMENSIONS = 64  # NumPy's own limit
GZIP_MAGIC = b"\x1f\x8b"
GZIP = 16 + zlib.MAX_WBITS  # makes zlib read gzip's header and checksum
CHUNK = 1 << 20
# A compressed file that unpacks to more than both limits is meant to fill the memory: images
# shrink to a tenth or so; data that shrink to a thousandth, as sorted labels do, are not so large.
MOST_UNPACKED = 256 << 20  # bytes
MOST_RATIO = 100
ENOUGH = 16 << 20  # bytes unpacked, of one that promises more: it is not just damaged
MOST_PADDING = 1 << 20  # zeros after compressed data, as of a tape


def idx(path: str | os.PathLike[str]) -> Array:
    """Read an array from an IDX file, plain or compressed with gzip.

    Memory is allocated for data that are there, never because the header announces them: a damaged
    or hostile file costs no more than the data it really holds. One that is compressed may unpack
    to 100 times its size, or to 256 MB.

    Parameters
    ----------
    path
        The file. Its content, not its name, decides whether it is compressed.

    Returns
    -------
    ndarray
        Of the file's shape and type, in this machine's byte order; writable.

    Raises
    ------
    ValueError
        If the file is not IDX, is damaged, or holds fewer or more bytes than its header
        says, or more than there is memory for; with the name of the file, what was expected
        and what was found. For a pipe or a device.
    OSError
        If the file cannot be opened.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from minidl import datasets
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "three.idx"
    ...     _ = path.write_bytes(bytes([0, 0, 0x08, 1, 0, 0, 0, 3, 7, 8, 9]))
    ...     datasets.idx(path)
    array([7, 8, 9], dtype=uint8)
    """
    name = os.fspath(path)
    with open_regular(path) as file:
        compressed = file.read(2) == GZIP_MAGIC
        file.seek(0)
        try:
            return _unpacked(file, name) if compressed else _read(file, name)
        except MemoryError:
            raise ValueError(f"{name}: there is not enough memory for what it holds") from None


def _read(file: BinaryIO, name: str) -> Array:
    """Read the array of a plain file, whose size shows at once whether it is complete."""
    dtype, shape = _read_header(file, name)
    expected, found = math.prod(shape) * dtype.itemsize, _size(file) - file.tell()
    if found != expected:
        raise _wrong_size(name, shape, dtype, f"only {found:,}" if found < expected else "more")
    array = np.empty(shape, dtype)
    if (found := file.readinto(array.data)) != expected:  # type: ignore[attr-defined]
        raise _wrong_size(name, shape, dtype, f"only {found:,}")
    return _native(array)


def _unpacked(file: BinaryIO, name: str) -> Array:
    """Read the array of a compressed file, whose size is known only at its end."""
    most = max(MOST_UNPACKED, MOST_RATIO * _size(file))
    data, found = bytearray(), 0
    stream = _Inflated(file)
    try:
        dtype, shape = _read_header(stream, name)
        expected = math.prod(shape) * dtype.itemsize
        kept = expected <= most
        limit = expected if kept else min(ENOUGH, most)
        while found <= limit and (chunk := stream.read(min(CHUNK, limit + 1 - found))):
            found += len(chunk)
            if kept:
                data += chunk
    except (EOFError, zlib.error) as error:
        raise ValueError(f"{name}: damaged gzip file: {error}") from error
    if found > limit and not kept:
        raise ValueError(
            f"{name}: unpacks to the {expected:,} bytes that its header promises, more than "
            f"{MOST_RATIO} times its size: unpack it with gunzip if that is what it should hold"
        )
    if found != expected:
        raise _wrong_size(name, shape, dtype, f"only {found:,}" if found < expected else "more")
    return _native(np.frombuffer(data, dtype).reshape(shape))


class _Inflated:
    """What a gzip file holds, unpacked as it is asked for.

    Not ``gzip.GzipFile``, which looks byte by byte for the end of the zeros that may follow: a file
    may have a terabyte of them that is nowhere on the disk.
    """

    PIECE = 4096  # bytes of the file at a time: what is left over by a member is copied

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._input = file, b""
        self._member = zlib.decompressobj(GZIP)

    def read(self, size: int) -> bytes:
        """So many bytes, or fewer if there are no more."""
        parts = []
        while size and self._goes_on():
            part = self._member.decompress(self._input, size)
            if not (part or self._input or self._member.eof):
                raise EOFError("it ends before the end of its data")
            rest = self._member.unused_data, self._member.unconsumed_tail
            self._input = rest[0] if self._member.eof else rest[1]
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _goes_on(self) -> bool:
        """Have input for a member that has not ended; False where none follows."""
        self._input = self._input or self._file.read(self.PIECE)
        if not self._member.eof:
            return True
        padding = 0
        while self._input and not self._input.strip(b"\0"):
            padding += len(self._input)
            if padding > MOST_PADDING:
                raise EOFError("zeros follow its data")
            self._input = self._file.read(self.PIECE)
        self._input = self._input.lstrip(b"\0")
        if self._input:
            self._member = zlib.decompressobj(GZIP)
        return bool(self._input)


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def _native(array: Array) -> Array:
    """The same numbers in this machine's byte order, in the same memory."""
    if not array.dtype.isnative:
        array.byteswap(inplace=True)
    return array.view(array.dtype.newbyteorder("="))


def _wrong_size(
    name: str, shape: tuple[int, ...], dtype: np.dtype[np.generic], found: str
) -> ValueError:
    return ValueError(
        f"{name}: an array of shape {shape} and type {dtype.newbyteorder('=')} takes "
        f"{math.prod(shape) * dtype.itemsize:,} bytes after the header, found {found}"
    )


def _read_header(
    stream: BinaryIO | _Inflated, name: str
) -> tuple[np.dtype[np.generic], tuple[int, ...]]:
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in DTYPES:
        known = ", ".join(f"{code:02x}" for code in DTYPES)
        raise ValueError(
            f"{name}: not an IDX file: it should begin with the bytes 00 00, a type "
            f"({known}) and a number of dimensions, found {magic.hex(' ') or 'nothing'}"
        )
    dimensions = magic[3]
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise ValueError(
            f"{name}: expected 1 to {MAX_DIMENSIONS} dimensions, the header says {dimensions}"
        )
    sizes = stream.read(4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise ValueError(
            f"{name}: the file ends within its header: {4 + 4 * dimensions} bytes expected, "
            f"{4 + len(sizes)} found"
        )
    shape = struct.unpack(f">{dimensions}I", sizes)
    if 0 in shape:
        raise ValueError(f"{name}: the array is empty: the header says shape {shape}")
    return np.dtype(DTYPES[magic[2]]), shape
