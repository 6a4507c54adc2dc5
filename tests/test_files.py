"""Files are replaced whole, by any number of writers, whenever one of them dies."""

from __future__ import annotations

import errno
import importlib.util
import os
import random
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minidl
import minidl.c
import minidl.onnx
import minidl.torch
from minidl import files, nn, pictures
from minidl.files import check_writable, open_regular, replacing

POSIX = pytest.mark.skipif(os.name != "posix", reason="of POSIX systems")


def write(path: Any, content: bytes) -> None:
    with replacing(path) as file:
        file.write(content)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some.file"


def test_a_file_appears_when_it_is_complete(path: Path) -> None:
    with replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert not path.exists()
    assert path.read_bytes() == b"new"
    write(str(path), b"newer")
    assert path.read_bytes() == b"newer"
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_what_fails_changes_nothing(path: Path, error: type[BaseException]) -> None:
    write(path, b"old")

    def fail() -> None:
        with replacing(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == [path.name]


def test_file_and_folder_are_on_the_disk_in_this_order(path: Path, monkeypatch: Any) -> None:
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)

        def noted(*arguments: Any, name: str = name, real: Any = real) -> Any:
            kind = name
            if name == "fsync" and stat.S_ISDIR(os.fstat(arguments[0]).st_mode):
                kind = "folder"
            calls.append(kind)
            return real(*arguments)

        monkeypatch.setattr(os, name, noted)
    write(path, b"new")
    assert calls == ["fsync", "replace", "folder"][: 3 if os.name == "posix" else 2]


def test_a_full_disk_is_an_error_that_names_the_file(path: Path, monkeypatch: Any) -> None:
    write(path, b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device.*some\.file") as caught:
        write(path, b"new")
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == [path.name]


@POSIX
def test_a_file_that_outgrows_its_limit(path: Path) -> None:
    write(path, b"old")
    program = (
        "import resource, sys; from minidl.files import replacing;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "with replacing(sys.argv[1]) as file: file.write(bytes(1 << 20))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, path], capture_output=True, text=True, check=False
    )
    assert f"OSError: [Errno {errno.EFBIG}]" in done.stderr
    assert str(path) in done.stderr.splitlines()[-1]
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("letter", ["n", "ž"])
def test_names_as_long_as_names_can_be(tmp_path: Path, letter: str) -> None:
    path = tmp_path / (letter * (255 // len(letter.encode())))
    check_writable(path)
    write(path, b"new")
    assert path.read_bytes() == b"new"
    with pytest.raises(OSError, match=r"too long|Invalid"):
        check_writable(tmp_path / (path.name + letter))


# --- what is there already ------------------------------------------------------------------


@POSIX
def test_a_link_stays_and_what_it_leads_to_is_replaced(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    target, first = folder / "target", tmp_path / "first"
    first.symlink_to(folder)
    path.symlink_to(first / "target")
    write(path, b"new")  # the link led nowhere
    assert target.read_bytes() == b"new"
    write(path, b"newer")
    assert target.read_bytes() == b"newer"
    assert path.is_symlink()
    assert os.listdir(folder) == ["target"]
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(OSError, match="loop"):
        write(loop, b"new")


@POSIX
def test_what_is_no_regular_file_is_refused(path: Path, tmp_path: Path) -> None:
    os.mkfifo(path)
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(tmp_path)  # names of sockets are short
        server.bind("socket")
        kinds = {"some.file": "a pipe", "socket": "a socket", os.devnull: "a device"}
        for name, kind in kinds.items():
            before = os.stat(name)
            for attempt in (check_writable, lambda name: write(name, b"new")):
                with pytest.raises(OSError, match=f"it is {kind}, not a regular file.*{name}"):
                    attempt(name)
            assert os.stat(name).st_mode == before.st_mode
            with pytest.raises((ValueError, OSError), match=name):  # no system opens a socket
                open_regular(name)
    with pytest.raises(IsADirectoryError, match="it is a folder"):
        write(tmp_path, b"new")
    assert sorted(os.listdir(tmp_path)) == ["socket", "some.file"]


@pytest.fixture(autouse=True)
def _same_folder() -> Any:
    before = os.getcwd()
    yield
    os.chdir(before)


@POSIX
def test_a_file_that_is_replaced_passes_on_its_mode(path: Path) -> None:
    before = os.umask(0o027)
    try:
        write(path, b"new")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    for mode in (0o600, 0o664, 0o646):
        path.chmod(mode)
        write(path, b"newer")
        assert stat.S_IMODE(path.stat().st_mode) == mode


@POSIX
def test_a_file_that_is_being_written_is_not_more_open_than_the_old_one(path: Path) -> None:
    write(path, b"secret")
    path.chmod(0o600)
    with replacing(path) as file:
        assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == 0o600


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="for the superuser")
def test_owner_and_group_stay(path: Path) -> None:
    write(path, b"old")
    os.chown(path, 12345, 23456)
    write(path, b"new")
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 23456)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="for the superuser")
def test_a_group_that_cannot_be_given_gets_no_more_than_others(
    path: Path, monkeypatch: Any
) -> None:
    write(path, b"old")
    os.chown(path, -1, 23456)
    path.chmod(0o664)

    def refused(*_: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "fchown", refused)
    write(path, b"new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_read_only_file_is_not_replaced(path: Path, monkeypatch: Any) -> None:
    write(path, b"old")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(PermissionError, match="read-only"):
        write(path, b"new")
    assert path.read_bytes() == b"old"


@POSIX
def test_what_somebody_put_there_is_not_written_to(path: Path, monkeypatch: Any) -> None:
    victim = path.parent / "victim"
    victim.write_bytes(b"precious")
    names = iter([b"a" * 8, b"b" * 8])
    planted = path.parent / f"{files.PREFIX}{(b'a' * 8).hex()}{files.SUFFIX}"
    planted.symlink_to(victim)
    monkeypatch.setattr(os, "urandom", lambda _: next(names))
    with pytest.raises(FileExistsError):
        write(path, b"new")
    write(path, b"new")
    assert victim.read_bytes() == b"precious"
    assert not path.is_symlink()


# --- many writers, and those that die ---------------------------------------------------------


def partials(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.endswith(files.SUFFIX)]


@POSIX
def test_abandoned_files_are_removed_and_no_others(path: Path) -> None:
    folder = path.parent
    abandoned = [folder / f"{files.PREFIX}{place}{files.SUFFIX}" for place in range(3)]
    others = [folder / f"x{files.SUFFIX}", folder / f"{files.PREFIX}x"]
    for other in (*abandoned, *others):
        other.write_bytes(b"half")
    with replacing(path) as mine:
        assert (
            partials(folder) == [Path(mine.name).name, others[0].name] or len(partials(folder)) == 2
        )
        write(folder / "another", b"new")
        assert Path(mine.name).exists()
        mine.write(b"new")
    assert path.read_bytes() == b"new"
    assert set(os.listdir(folder)) == {path.name, "another", *(other.name for other in others)}


@POSIX
def test_a_writer_whose_file_was_taken_for_abandoned_begins_anew(
    path: Path, monkeypatch: Any
) -> None:
    """Between making a file and locking it, another process may remove it."""
    real, calls = files._lock, []

    def late(file: Any) -> bool:
        if not calls:
            files._remove_abandoned(path.parent)
        calls.append(file.name)
        return real(file)

    monkeypatch.setattr(files, "_lock", late)
    write(path, b"new")
    assert len(set(calls)) == 2
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == [path.name]


def test_threads_that_write_one_file(path: Path) -> None:
    contents = [bytes([place]) * 50_000 for place in range(8)]
    write(path, contents[0])
    errors: list[BaseException] = []
    done = threading.Event()

    def writer(content: bytes) -> None:
        try:
            for _ in range(25):
                write(path, content)
        except BaseException as error:
            errors.append(error)

    def reader() -> None:
        while not done.is_set():
            with open_regular(path) as file:
                if (content := file.read()) not in contents:
                    errors.append(AssertionError(f"{len(content)} bytes, of several writers"))

    writers = [threading.Thread(target=writer, args=(content,)) for content in contents]
    readers = [threading.Thread(target=reader) for _ in range(2)]
    for thread in (*readers, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in readers:
        thread.join()
    assert not errors
    assert os.listdir(path.parent) == [path.name]


@POSIX
def test_writers_that_are_killed(path: Path) -> None:
    contents = [bytes([place]) * 2_000_000 for place in range(3)]
    write(path, contents[0])
    draws, left = random.Random(0), 0
    for _ in range(20):
        child = os.fork()
        if not child:
            try:
                while True:
                    write(path, contents[1])
                    write(path, contents[2])
            finally:
                os._exit(1)
        time.sleep(0.02 * draws.random())
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        left += len(partials(path.parent)) > 0
        assert path.read_bytes() in contents
    assert left, "no writer was killed at its work"
    write(path, b"new")
    assert os.listdir(path.parent) == [path.name]


@POSIX
def test_writers_that_are_interrupted_leave_nothing(path: Path) -> None:
    contents = [bytes([place]) * 2_000_000 for place in range(3)]
    write(path, contents[0])
    draws = random.Random(0)
    for _ in range(15):
        child = os.fork()
        if not child:
            code = 1
            try:
                signal.signal(signal.SIGINT, signal.default_int_handler)
                while True:
                    write(path, contents[1])
                    write(path, contents[2])
            except KeyboardInterrupt:
                code = 0
            finally:
                os._exit(code)
        time.sleep(0.01 + 0.02 * draws.random())
        os.kill(child, signal.SIGINT)
        assert os.waitpid(child, 0)[1] in (0, signal.SIGINT)  # before its handler was there
        assert path.read_bytes() in contents
        assert os.listdir(path.parent) == [path.name]


# --- before the work --------------------------------------------------------------------------


def test_what_could_not_be_written_is_known_before(path: Path, monkeypatch: Any) -> None:
    check_writable(path)
    assert not os.listdir(path.parent)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        check_writable(path / "none" / "model")
    path.write_bytes(b"old")
    with pytest.raises(OSError, match=path.name):
        check_writable(path / "model")

    def refused(name: str, *_: Any) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", name)

    monkeypatch.setattr(os, "open", refused)  # as in a folder that is read-only
    with pytest.raises(PermissionError) as caught:
        check_writable(path)
    assert caught.value.filename == str(path)


def test_pictures_are_written_whole(path: Path) -> None:
    class Figure:
        def savefig(self, file: Any, dpi: int, format: str) -> None:
            file.write(f"{format} {dpi}".encode())
            if fails:
                raise ValueError("of matplotlib")

        class canvas:  # noqa: N801
            get_default_filetype = staticmethod(lambda: "png")

    for fails in (False, True, False):
        name = path.with_suffix(".PDF")
        if fails:
            with pytest.raises(ValueError, match="of matplotlib"):
                pictures.save(Figure(), name, dpi=50)
        else:
            pictures.save(Figure(), name, dpi=100)
        assert name.read_bytes() == b"pdf 100"
    pictures.save(Figure(), path.with_suffix(""), dpi=1)  # as matplotlib does
    assert sorted(os.listdir(path.parent)) == ["some.PDF", "some.png"]


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        (3, TypeError, "must be a string or a path, got 3"),
        (None, TypeError, "must be a string or a path, got None"),
        (b"net.c", TypeError, "must be a string or a path, got b'net.c'"),
        ("", ValueError, "the name of a file is empty"),
        ("a\0.c", ValueError, r"must have no NUL character, got 'a\\x00.c'"),
    ],
)
def test_names_that_no_file_can_have_are_refused(wrong: Any, error: Any, words: str) -> None:
    model, x = nn.Linear(2, 2), np.ones((1, 2), np.float32)
    calls: list[Any] = [
        lambda: minidl.save(model, wrong),
        lambda: minidl.load(wrong),
        lambda: minidl.c.export(model, wrong),
        lambda: minidl.torch.save_state_dict(model, wrong),
        lambda: minidl.torch.load_state_dict(wrong, model),
    ]
    if importlib.util.find_spec("onnx"):
        calls += [
            lambda: minidl.onnx.export(model, wrong, x),
            lambda: minidl.onnx.load(wrong),
        ]
    for call in calls:
        with pytest.raises(error, match=words):
            call()
