"""Folders and files, written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from foldwise.errors import StoreError


def claim(folder: str | Path, overwrite: bool = False) -> Path:
    """Make a folder for a run and check that it can be written, before anything is computed.

    Raises StoreError when a run is already there, unless `overwrite`.
    """
    folder = Path(folder)
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


def spare_folder() -> Path:
    """Make a new folder among the temporary files."""
    return Path(tempfile.mkdtemp(prefix="foldwise-"))


def write_atomically(path: Path, write: Callable[[Path], object]) -> Path:
    """Let `write` make a file beside `path`, then put it in its place in one step."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StoreError(
            f"{path} cannot be written: {error.strerror or error}.", hint="is the disk full?"
        ) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path


def write_text(path: Path, text: str) -> Path:
    """Write a text file whole or not at all; its folder is made when missing."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"the folder {path.parent} cannot be made: {error.strerror or error}.") from None
    return write_atomically(path, lambda p: p.write_text(text, encoding="utf-8"))
