"""Files as they are read and written: a reader sees the old content or the new, never a part.

Whoever writes makes a partial file beside the one that is meant, under a name of its own, and
moves it there when it is complete and on the disk. It holds a lock on it meanwhile: a partial file
that nobody has locked was left by a process that is gone, and the next writer removes it.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PREFIX, SUFFIX = ".minidl-", ".partial"  # of partial files; in between, what nobody can guess
LONG_AGO = 24 * 3600.0  # seconds: an older partial file is nobody's, where there are no locks
PATIENCE = 2.0  # seconds; on Windows a file that is being read cannot be replaced
KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
AnyPath = str | os.PathLike[str]


@contextmanager
def replacing(path: AnyPath) -> Iterator[BinaryIO]:
    """Write a file that appears under its name when it is complete, and on the disk.

    Any number of threads and processes may write to one path: one of their files will be there.
    Symbolic links are followed and stay. A file that is replaced passes on its mode, and its owner
    and group where this process may give them; other hard links to it keep the old content.

    Raises
    ------
    OSError
        With the path: if it cannot be written, or is a folder, a pipe or a device; then, and after
        any other exception, an existing file is as it was.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from minidl.files import replacing
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "notes.txt"
    >>> with replacing(path) as file:
    ...     _ = file.write(b"all or nothing")
    >>> path.read_bytes()
    b'all or nothing'
    """
    target, before = _target(path)
    _remove_abandoned(target.parent)
    with _naming(path), _partial(target.parent, private=before is not None) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
        if before is not None:
            _pass_on(before, file)
        _move(file, target)
    _sync_folder(target.parent)


def as_path(path: Any) -> Path:
    """Return what names a file as a path, else raise TypeError, or ValueError for no such name."""
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"the name of a file must be a string or a path, got {path!r}")
    if not os.fspath(path):
        raise ValueError("the name of a file is empty")
    if "\0" in os.fsdecode(path):
        raise ValueError(f"the name of a file must have no NUL character, got {os.fspath(path)!r}")
    return Path(path)


def check_writable(path: AnyPath) -> None:
    """Raise OSError before the work, not after it, if its result could not be written.

    A partial file is made in the folder and removed again.
    """
    target, _ = _target(path)
    with _naming(path), _partial(target.parent, private=True):
        pass


def open_regular(path: AnyPath) -> BinaryIO:
    """Open a file to read, if it is one whose size is known: no pipe, no device.

    Raises
    ------
    ValueError
        If it is something else. It is not waited for, and nothing is read from it.
    OSError
        If it cannot be opened.
    """
    file = open(as_path(path), "rb", opener=_without_waiting)  # noqa: SIM115  the caller's to close
    mode = os.fstat(file.fileno()).st_mode
    if not stat.S_ISREG(mode):
        file.close()
        raise ValueError(f"{os.fspath(path)} is not a file but {_kind(mode)}")
    return file


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _kind(mode: int) -> str:
    return next((words for is_kind, words in KINDS if is_kind(mode)), "no file")


def _target(path: AnyPath) -> tuple[Path, os.stat_result | None]:
    """Follow links; return the path they lead to and its status. OSError if not replaceable."""
    name = os.fspath(as_path(path))
    try:
        before = os.stat(name)
    except FileNotFoundError:
        before = None
    target = Path(os.path.realpath(name))
    if before is None:
        parent = target.parent if os.path.islink(name) else Path(name).parent
        if not parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, f"there is no folder {parent}", name)
    elif stat.S_ISDIR(before.st_mode):
        raise IsADirectoryError(errno.EISDIR, "cannot be written: it is a folder", name)
    elif not stat.S_ISREG(before.st_mode):
        what = f"cannot be replaced: it is {_kind(before.st_mode)}, not a regular file"
        raise OSError(errno.EINVAL, what, name)
    elif not os.access(name, os.W_OK):
        raise PermissionError(errno.EACCES, "cannot be written: it is read-only", name)
    return target, before


@contextmanager
def _naming(path: AnyPath) -> Iterator[None]:
    """Let errors name the file that was asked for: those of a full disk name none at all."""
    try:
        yield
    except OSError as error:
        if error.errno is None or (error.filename and not _is_partial(error.filename)):
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from None


def _is_partial(name: Any) -> bool:
    name = os.path.basename(os.fsdecode(name))
    return name.startswith(PREFIX) and name.endswith(SUFFIX)


@contextmanager
def _partial(folder: Path, private: bool) -> Iterator[BinaryIO]:
    """A fresh file in this folder that is locked, and removed if it is still there in the end."""

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags, 0o600 if private else 0o666)  # less what umask takes away

    while True:
        # A name of one length, whatever the target's: that may be as long as names can be.
        name = str(folder / f"{PREFIX}{os.urandom(8).hex()}{SUFFIX}")
        with open(name, "xb", opener=opener) as file:  # x: never what somebody has put there
            try:
                if _lock(file):
                    yield file
                    return
            finally:
                with suppress(OSError):
                    file.close()  # Windows removes no open file
                with suppress(OSError):
                    os.unlink(name)


def _lock(file: BinaryIO) -> bool:
    """Lock a partial file; False if another writer took it for abandoned before that."""
    if fcntl is not None:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks: there, nobody removes partial files
            return True
    return os.fstat(file.fileno()).st_nlink > 0


def _remove_abandoned(folder: Path) -> None:
    """Remove the partial files of writers that are gone."""
    with suppress(OSError), os.scandir(folder) as entries:
        names = [entry.path for entry in entries if _is_partial(entry.name)]
        for name in names:
            with suppress(OSError):
                _remove_if_abandoned(name)


def _remove_if_abandoned(name: str) -> None:
    if fcntl is None:  # of a living writer the file is open, and Windows does not remove it
        if time.time() - os.stat(name).st_mtime > LONG_AGO:
            os.unlink(name)
        return
    handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if stat.S_ISREG(os.fstat(handle).st_mode):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(name)
    finally:
        os.close(handle)


def _pass_on(before: os.stat_result, file: BinaryIO) -> None:
    """Give a file the group, the mode and the owner of the one that it will replace."""
    mode = stat.S_IMODE(before.st_mode)
    if not hasattr(os, "fchown"):  # Windows
        return
    handle = file.fileno()
    now = os.fstat(handle)
    if now.st_gid != before.st_gid:
        try:
            os.fchown(handle, -1, before.st_gid)
        except OSError:  # another group may do what all others may, and no more
            mode = mode & ~(stat.S_IRWXG | stat.S_ISGID) | (mode & stat.S_IRWXO) << 3
    with suppress(OSError):  # a file system without modes
        os.fchmod(handle, mode)
    if now.st_uid != before.st_uid:
        with suppress(OSError):
            os.fchown(handle, before.st_uid, -1)


def _move(file: BinaryIO, target: Path) -> None:
    """Put a partial file under its name, while it is locked where that can be."""
    if os.name != "nt":
        os.replace(file.name, target)
        return
    file.close()  # Windows moves no open file, and replaces none
    end = time.monotonic() + PATIENCE
    while True:
        try:
            os.replace(file.name, target)
            return
        except PermissionError:
            if time.monotonic() > end:
                raise
            time.sleep(0.01)


def _sync_folder(folder: Path) -> None:
    """Have the new name on the disk too, where the system lets a program ask for it."""
    with suppress(OSError):  # the file is in its place, whatever becomes of this
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
