"""The shipped data, and the IDX reader against good, damaged and hostile files."""

from __future__ import annotations

import gzip
import os
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minidl import datasets

MNIST = Path(__file__).resolve().parents[2] / "shared" / "data"
DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: "i2", 0x0C: "i4", 0x0D: "f4", 0x0E: "f8"}


def encode(array, code):
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    return header + array.astype(">" + DTYPES[code]).tobytes()


def write(folder, content):
    path = folder / "some.idx"
    path.write_bytes(content)
    return path


GOOD = encode(np.arange(24).reshape(2, 3, 4), 0x08)


# --- digits -----------------------------------------------------------------------------


def test_digits_have_the_shapes_types_and_range_they_promise():
    data = datasets.digits()
    assert data.x_train.shape == (1437, 64)
    assert data.x_test.shape == (360, 64)
    assert data.y_train.shape == (1437,)
    assert data.y_test.shape == (360,)
    assert data.x_train.dtype == np.float32
    assert data.y_train.dtype == np.int64
    assert data.x_train.min() == 0
    assert data.x_train.max() == 1
    assert data.classes == 10
    assert data.features == 64
    assert data.image_shape == (8, 8)


def test_digits_unpack_and_are_fresh_at_every_call():
    x_train, y_train, x_test, y_test = datasets.digits()
    x_train[...], y_test[...] = -1, -1
    again = datasets.digits()
    assert again.x_train.min() == 0
    assert again.y_test.min() == 0
    assert np.array_equal(again.x_test, x_test)
    assert np.array_equal(again.y_train, y_train)


def test_digits_are_split_with_every_class_in_proportion():
    data = datasets.digits()
    share = np.bincount(data.y_test) / (np.bincount(data.y_test) + np.bincount(data.y_train))
    assert np.abs(share - 0.2).max() < 0.005


def test_digits_are_those_of_scikit_learn():
    source = pytest.importorskip("sklearn.datasets")
    selection = pytest.importorskip("sklearn.model_selection")
    x, y = source.load_digits(return_X_y=True)
    split = selection.train_test_split(np.arange(1797), test_size=360, stratify=y, random_state=0)
    data = datasets.digits()
    for rows, images, labels in zip(
        split, (data.x_train, data.x_test), (data.y_train, data.y_test), strict=True
    ):
        assert np.array_equal(x[rows], images * 16)
        assert np.array_equal(y[rows], labels)


def test_the_licence_is_shipped_beside_the_data():
    note = Path(datasets.__file__).parent / "data" / "digits.LICENSE.txt"
    assert "CC BY 4.0" in note.read_text(encoding="utf-8")


# --- IDX: right files -------------------------------------------------------------------


@pytest.mark.parametrize("code", DTYPES)
@pytest.mark.parametrize("shape", [(5,), (3, 2), (2, 3, 4), (1, 1, 1, 1)])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_idx_reads_every_type_plain_and_compressed(tmp_path, code, shape, pack):
    values = np.random.default_rng(code).integers(0, 100, shape).astype(DTYPES[code])
    array = datasets.idx(write(tmp_path, pack(encode(values, code))))
    assert np.array_equal(array, values)
    assert array.dtype == values.dtype
    assert array.dtype.isnative
    assert array.flags.writeable
    assert np.array_equal(datasets.idx(str(tmp_path / "some.idx")), values)


def test_idx_is_big_endian(tmp_path):
    assert datasets.idx(write(tmp_path, bytes([0, 0, 0x0B, 1, 0, 0, 0, 1, 1, 2])))[0] == 258


def test_idx_reads_mnist():
    if not (MNIST / "t10k-images-idx3-ubyte.gz").exists():
        pytest.skip("the MNIST files are not here")
    images = datasets.idx(MNIST / "t10k-images-idx3-ubyte.gz")
    labels = datasets.idx(MNIST / "t10k-labels-idx1-ubyte.gz")
    assert images.shape == (10000, 28, 28)
    assert images.dtype == np.uint8
    assert labels[:5].tolist() == [7, 2, 1, 0, 4]


# --- IDX: wrong files -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "found nothing"),
        (b"\x00\x00\x08", "found 00 00 08"),
        (b"PNG\x01" + GOOD[4:], "not an IDX file"),
        (b"\x00\x00\x07" + GOOD[3:], "not an IDX file"),
        (b"\x00\x00\x08\x00" + b"\x01", "the header says 0"),
        (b"\x00\x00\x08\xff" + bytes(2000), "the header says 255"),
        (GOOD[:10], "16 bytes expected, 10 found"),
        (GOOD[:-1], "takes 24 bytes after the header, found only 23"),
        (GOOD + b"\x00", "takes 24 bytes after the header, found more"),
        (b"\x00\x00\x08\x02" + struct.pack(">2I", 0, 5), r"empty: the header says shape \(0, 5\)"),
        (b"\x00\x00\x0e\x40" + b"\xff" * 256 + b"1234567", "found only 7"),
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_damaged_file_is_refused_by_name(tmp_path, content, words, pack):
    path = write(tmp_path, pack(content))
    with pytest.raises(ValueError, match=words) as caught:
        datasets.idx(path)
    assert str(path) in str(caught.value)


def test_a_damaged_gzip_stream_is_a_value_error(tmp_path):
    packed = gzip.compress(GOOD)
    wrong_sum = packed[:-8] + b"\x00" * 4 + packed[-4:]
    for content in (packed[:-9], packed[:12], packed[:2], wrong_sum):
        with pytest.raises(ValueError, match="damaged gzip file"):
            datasets.idx(write(tmp_path, content))


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        datasets.idx(tmp_path / "none")


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_memory_follows_the_data_and_not_the_header(tmp_path, pack):
    content = b"\x00\x00\x0e\x03" + struct.pack(">3I", 2**31, 2**31, 2**31) + b"x" * 100
    path = write(tmp_path, pack(content))
    with pytest.raises(ValueError, match="found only 100"):
        peak_memory(datasets.idx, path)


def test_a_compressed_bomb_is_not_unpacked(tmp_path):
    bomb = gzip.compress(GOOD + bytes(200 << 20), compresslevel=1)
    with pytest.raises(ValueError, match="found more"):
        peak_memory(datasets.idx, write(tmp_path, bomb))


def peak_memory(function, *arguments, limit=8 << 20):
    tracemalloc.start()
    try:
        return function(*arguments)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < limit


@st.composite
def mutated_files(draw):
    code = draw(st.sampled_from(list(DTYPES)))
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    content = bytearray(encode(np.zeros(shape), code))
    compressed = draw(st.booleans())
    if compressed:
        content = bytearray(gzip.compress(content))
    # The header matters most, so half of the mutations hit the first bytes.
    places = st.one_of(st.integers(0, min(15, len(content) - 1)), st.integers(0, len(content) - 1))
    for place in draw(st.lists(places, max_size=4)):
        content[place] = draw(st.integers(0, 255))
    cut = draw(st.one_of(st.none(), st.integers(0, len(content))))
    return bytes(content[:cut]) + draw(st.sampled_from([b"", b"", b"\x00", b"junk"]))


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(content=mutated_files())
def test_a_mutated_file_is_read_right_or_refused(tmp_path, content):
    try:
        array = peak_memory(datasets.idx, write(tmp_path, content))
    except ValueError:
        return
    plain = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    assert encode(array, plain[2]) == plain


# --- IDX: what is read before it is checked -----------------------------------------------


def test_a_compressed_file_that_promises_the_memory_of_the_machine(tmp_path, monkeypatch):
    """The promise of its header is refused, before what it unpacks to fills the memory."""
    size = 512 << 20
    packer = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    parts = [packer.compress(b"\x00\x00\x08\x01" + struct.pack(">I", size))]
    parts += [packer.compress(bytes(1 << 20)) for _ in range(20)]  # enough to tell
    path = write(tmp_path, b"".join(parts) + packer.flush(zlib.Z_SYNC_FLUSH))
    with pytest.raises(ValueError, match=r"promises, more than 100 times its size.*gunzip"):
        peak_memory(datasets.idx, path)
    monkeypatch.setattr("minidl.datasets.idx_file.MOST_UNPACKED", 1 << 20)
    zeros = np.zeros(2_000_000, np.uint8)
    with pytest.raises(ValueError, match="more than 100 times its size"):
        datasets.idx(write(tmp_path, gzip.compress(encode(zeros, 0x08))))
    assert np.array_equal(datasets.idx(write(tmp_path, encode(zeros, 0x08))), zeros)


def test_a_file_of_nothing_but_holes(tmp_path):
    for content in (b"\x00\x00\x08\x01" + struct.pack(">I", 5), gzip.compress(GOOD)):
        path = write(tmp_path, content)
        with path.open("r+b") as file:
            file.truncate(1 << 40)
        with pytest.raises(ValueError, match=r"found more|zeros follow"):
            peak_memory(datasets.idx, path)


def test_a_file_of_several_members_and_padding(tmp_path):
    """As gzip itself reads them."""
    pieces = [GOOD[:3], GOOD[3:20], b"", GOOD[20:]]
    members = b"".join(gzip.compress(piece) + bytes(4097) for piece in pieces)
    assert datasets.idx(write(tmp_path, members)).tobytes() == GOOD[16:]
    with pytest.raises(ValueError, match="damaged gzip file"):
        datasets.idx(write(tmp_path, members + b"junk"))
    with pytest.raises(ValueError, match="damaged gzip file: it ends before"):
        datasets.idx(write(tmp_path, members + gzip.compress(b"")[:-1]))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="of POSIX systems")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="is not a file but a pipe"):
        datasets.idx(tmp_path / "pipe")


def test_more_than_there_is_memory_for(tmp_path, monkeypatch):
    def none(*_):
        raise MemoryError

    monkeypatch.setattr(np, "empty", none)
    with pytest.raises(ValueError, match="not enough memory"):
        datasets.idx(write(tmp_path, GOOD))
