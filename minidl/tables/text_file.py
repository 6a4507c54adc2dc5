"""A file as text: its encoding, and what it is if it is no table of text."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

LARGEST = 2 << 30  # bytes
ZIP, WORKBOOK = "a zip file or a workbook of Excel", "save the sheet as CSV"
UNPACK = "unpack it first"
# How files begin that are often taken for tables, what they are, and what to do.
BEGINNINGS: tuple[tuple[bytes, str, str], ...] = (
    (b"\x1f\x8b", "a gzip file", UNPACK),
    (b"BZh", "a bzip2 file", UNPACK),
    (b"\xfd7zXZ", "an xz file", UNPACK),
    (b"\x28\xb5\x2f\xfd", "a zstandard file", UNPACK),
    (codecs.BOM_UTF32_LE, "text in UTF-32", "write it in UTF-8"),
    (codecs.BOM_UTF32_BE, "text in UTF-32", "write it in UTF-8"),
    (b"PK\x03\x04", ZIP, WORKBOOK),
    (b"\xd0\xcf\x11\xe0", "a workbook of Excel", WORKBOOK),
    (b"PAR1", "a Parquet file", "write it as CSV"),
    (b"\x89HDF", "an HDF5 file", "write it as CSV"),
    (b"SQLite format 3", "a database of SQLite", "write the table as CSV"),
    (b"\x93NUMPY", "an array of NumPy", "write it with np.savetxt"),
    (b"%PDF", "a PDF document", "write the table as CSV"),
    (b"\x89PNG", "a picture", "a table of text is needed"),
)
CONTROL = re.compile(rb"[\x01-\x08\x0e-\x1f]")
MOST_CONTROL = 0.001  # of all bytes; more are no text in any encoding


class TableError(ValueError):
    """A file that holds no table to train on; the message says what is wrong, and where."""


def read_text(path: Path) -> tuple[str, list[str]]:
    """Return the text of a file, with lines that end in a newline, and notes on how it was read.

    Raises
    ------
    TableError
        For a file that is empty, too large, or no text.
    OSError
        If the file cannot be read.
    """
    with path.open("rb") as file:  # a pipe may be meant, and a device have no end
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise TableError(f"it is larger than the {LARGEST:,} bytes that are read at most")
    check_is_text(content)
    text, notes = decoded(content)
    if not text.strip():
        raise TableError("it is empty")
    check_is_table(text)
    return text.replace("\r\n", "\n").replace("\r", "\n"), notes


def check_is_text(content: bytes) -> None:
    """Raise TableError for files of known kinds that are not text, and for any that is binary."""
    for beginning, kind, cure in BEGINNINGS:
        if content.startswith(beginning):
            raise TableError(f"it is {kind}; {cure}")
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return
    if b"\0" in content:
        line = content.count(b"\n", 0, content.index(b"\0")) + 1
        raise TableError(
            f"line {line} holds a NUL byte: it is binary, damaged, or in UTF-16; write it in UTF-8"
        )
    control = len(CONTROL.findall(content))
    if control > MOST_CONTROL * len(content):
        raise TableError(f"it is binary: {control:,} of {len(content):,} bytes are no characters")


def decoded(content: bytes) -> tuple[str, list[str]]:
    """Decode UTF-8, UTF-16 with its mark, else Latin-1, which a note tells."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            return content.decode("utf-16"), ["read as UTF-16"]
        except UnicodeDecodeError as error:
            raise TableError(f"it begins as UTF-16 and is not: {error.reason}") from None
    try:
        return content.decode("utf-8-sig"), []
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return content.decode("latin-1"), [f"line {line} is not UTF-8: read as Latin-1"]


def check_is_table(text: str) -> None:
    """Raise TableError for JSON, HTML and XML."""
    beginning = text[:1000].lstrip()
    if beginning.startswith("{") or re.match(r"\[\s*[\[{\"\d]", beginning):
        raise TableError("it is JSON; a header and rows of text are needed")
    if re.match(r"<[!?a-zA-Z]", beginning):
        raise TableError("it is HTML or XML; a header and rows of text are needed")
