"""The checksum of a file that minidl has written: ONNX itself has none.

It is an entry of the model's metadata, which readers of ONNX pass over. It is computed over the
bytes of the whole file with zeros in its own place.
"""

from __future__ import annotations

import zlib
from typing import Any

NAME = "minidl.crc32"
EMPTY = "0" * 8


def sealed(model: Any) -> bytes:
    """Return the bytes of an ONNX model with their checksum in its metadata."""
    entry = model.metadata_props.add()
    entry.key, entry.value = NAME, EMPTY
    data: bytes = model.SerializeToString()
    place = _place(data)
    return data[:place] + _checksum(data, place) + data[place + len(EMPTY) :]


def is_intact(data: bytes) -> bool:
    """Return whether the bytes have the checksum that they name; True where they name none."""
    place = _place(data)
    return place < 0 or data[place : place + len(EMPTY)] == _checksum(data, place)


def _place(data: bytes) -> int:
    """Return where the digits are, which stand behind the name, a tag and their number; -1: none.

    The last such name is the entry: the metadata come after the weights.
    """
    head = NAME.encode() + bytes([0x12, len(EMPTY)])
    found = data.rfind(head)
    return found + len(head) if found >= 0 else -1


def _checksum(data: bytes, place: int) -> bytes:
    blank = data[:place] + EMPTY.encode() + data[place + len(EMPTY) :]
    return f"{zlib.crc32(blank):08x}".encode()
