"""The checksum of a file that minidl has written: ONNX itself has none.

It is an entry of the model's metadata, which other readers of ONNX pass over, and is computed over
the bytes of the whole file with zeros in its own place. Its name stands in the key and again in the
value, so that damage to one of them does not hide that there was a checksum.
"""

from __future__ import annotations

import re
import zlib
from typing import Any

NAME = "minidl.crc32"
DIGITS = 8
ENTRY = re.compile(
    rb"%(name)s.{2}%(name)s=(.{8})$" % {b"name": re.escape(NAME).encode()}, re.DOTALL
)


def sealed(model: Any) -> bytes:
    """Return the bytes of an ONNX model with their checksum at the end, in its metadata."""
    entry = model.metadata_props.add()
    entry.key, entry.value = NAME, f"{NAME}={'0' * DIGITS}"
    data: bytes = model.SerializeToString()
    return data[:-DIGITS] + _checksum(data)


def is_intact(data: bytes) -> bool:
    """Return whether the bytes have the checksum that they name; True where they name none."""
    if NAME.encode() not in data:
        return True
    found = ENTRY.search(data[-100:])
    return found is not None and found[1] == _checksum(data)


def _checksum(data: bytes) -> bytes:
    """Return the checksum of all but the last digits."""
    return f"{zlib.crc32(data[:-DIGITS]):0{DIGITS}x}".encode()
