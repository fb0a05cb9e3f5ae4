"""One writer for each run folder: who comes second is told, and nobody who was killed stands in the way."""

from __future__ import annotations

import os
import socket
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from foldwise.errors import StoreError
from foldwise.store.files import claim

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
FAR = 1 << 20  # where Windows locks a byte: what is locked there cannot be read
BUSY = (BlockingIOError, PermissionError)  # what taking a lock raises that another one has


@contextmanager
def claimed(folder: str | Path | None, overwrite: bool = False) -> Generator[Path | None]:
    """Claim a folder for a run, and be its only writer meanwhile; see `claim` and `sole_writer`."""
    if folder is None:
        yield None
        return
    path = claim(folder, overwrite)
    with sole_writer(path):
        yield claim(path, overwrite)  # once more: another writer may just have finished


@contextmanager
def sole_writer(folder: Path) -> Generator[None]:
    """Be the only one who writes a run, among all processes of this machine and all threads of this one.

    The lock is one of the operating system, on the file `.lock` in the folder, which ends with the process however that
    ends. Where a file system has no locks there is none.

    Raises StoreError when another one writes the run.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as name, sole_writer(Path(name)), sole_writer(Path(name)):
    ...     pass
    Traceback (most recent call last):
    foldwise.errors.StoreError: the run in ... is being written by another process (...).
    hint: wait until it is done, or end it; or choose another folder
    """
    path = folder / LOCK
    handle = _taken(path)
    try:
        with suppress(OSError):
            os.truncate(handle, 0)
            os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        with suppress(OSError):  # as on Windows, where an open file stays
            path.unlink(missing_ok=True)
        os.close(handle)


def _taken(path: Path) -> int:
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise StoreError(
                f"the folder {path.parent} cannot be written: {error.strerror or error}.",
                hint="choose another folder",
            ) from None
        try:
            _lock(handle)
        except BUSY:
            who = _said(handle)
            os.close(handle)
            raise StoreError(
                f"the run in {path.parent} is being written by another process{who}.",
                hint="wait until it is done, or end it; or choose another folder",
            ) from None
        except OSError:  # no locks here
            return handle
        with suppress(OSError):
            if os.path.samestat(os.stat(path), os.fstat(handle)):
                return handle
        os.close(handle)  # whoever had it has removed it meanwhile


def _lock(handle: int) -> None:
    if fcntl is not None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    import msvcrt

    os.lseek(handle, FAR, os.SEEK_SET)
    msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    os.lseek(handle, 0, os.SEEK_SET)


def _said(handle: int) -> str:
    with suppress(OSError, UnicodeDecodeError):
        os.lseek(handle, 0, os.SEEK_SET)
        said = os.read(handle, 200).decode()
        return f" ({said})" if said else ""
    return ""
