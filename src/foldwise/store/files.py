"""Folders and files, written whole or not at all."""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
from safetensors import SafetensorError

from foldwise.errors import StoreError


def claim(folder: str | Path, overwrite: bool = False) -> Path:
    """Make a folder for a run and check that it can be written, before anything is computed.

    Raises StoreError when a run is already there, finished or not, unless `overwrite`.
    """
    folder = Path(folder)
    if unfinished(folder) and not overwrite:
        raise StoreError(
            f"the run in {folder} is not finished.",
            hint=f"foldwise resume {shlex.quote(str(folder))} goes on with it; --overwrite starts anew",
        )
    if (folder / "study.json").exists() and not overwrite:
        raise StoreError(
            f"there is already a run in {folder}.", hint="choose another --out, or --overwrite to replace it"
        )
    if folder.is_file():
        raise StoreError(f"{folder} is a file, not a folder.", hint="choose another --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StoreError(
            f"the folder {folder} cannot be written: {error.strerror or error}.", hint="choose another --out"
        ) from None
    return folder


CHECKPOINT = "checkpoint"  # the folder inside a run folder that is there until the run is finished


def unfinished(folder: Path) -> bool:
    """Tell whether a run was begun in a folder and has not been finished."""
    return (folder / CHECKPOINT).is_dir()


def spare_folder() -> Path:
    """Make a new folder among the temporary files."""
    return Path(tempfile.mkdtemp(prefix="foldwise-"))


def write_atomically(path: Path, write: Callable[[Path], object]) -> Path:
    """Let `write` make a file beside `path`, then put it in its place in one step."""
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        try:
            temporary.touch(exist_ok=False)
            mode = temporary.stat().st_mode  # what the umask allows, as for any new file
            write(temporary)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.chmod(mode)  # `write` may have put a file of its own there
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except (OSError, SafetensorError, pl.exceptions.PolarsError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise StoreError(f"{path} cannot be written: {reason}.", hint="is the disk full?") from error
    return path


@contextmanager
def all_or_nothing(folder: Path, files: Collection[str], last: str) -> Iterator[Path]:
    """Give a place for new files; when all of them are there, put them into the folder, one of them as the last.

    First all `files` of an earlier time are removed, so that old and new are never mixed; others stay. Some of them may
    be folders.
    """
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as name:
            place = Path(name)
            yield place
            for old in (last, *files):
                _remove(folder / old)
            for file in sorted(place.iterdir(), key=lambda f: f.name == last):
                os.replace(file, folder / file.name)
    except OSError as error:
        raise StoreError(f"{folder} cannot be written: {error.strerror or error}.") from error
    except StoreError as error:
        raise StoreError(error.problem.replace(str(place), str(folder)), hint=error.hint) from error


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> Path:
    """Write a text file whole or not at all; its folder is made when missing."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"the folder {path.parent} cannot be made: {error.strerror or error}.") from None
    # the bytes of a path that are no UTF-8 are written \udc…, from which JSON gets them back
    content = text.encode("utf-8", "backslashreplace")
    return write_atomically(path, lambda p: p.write_bytes(content))
