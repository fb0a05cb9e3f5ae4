"""Checkpoints: numbered folders inside a run folder, each whole or not there, and told from damaged ones by name.

    checkpoint/
      study               the identity of the study, made when it began
      000012/             one checkpoint; the newest two are kept
        manifest.json     format, identity, number, and length and SHA-256 of each other file
        asked.json  rows.safetensors      what made the study
        state.json  state.safetensors     how far it is; absent before it has begun to train

Nothing in them is ever unpickled, and nothing that is read is believed before it has been compared with the plan.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from foldwise.engine.snapshot import Snapshot
from foldwise.errors import StoreError
from foldwise.store.files import CHECKPOINT
from foldwise.store.origin import Origin, read_origin, written
from foldwise.store.plain import DAMAGE, as_plain, as_record, reason

FORMAT = 1
KEPT = 2  # so that there is another one when the newest turns out to be damaged
IDENTITY = "study"
MANIFEST = "manifest.json"
ORIGIN = ("asked.json", "rows.safetensors")
STATE = ("state.json", "state.safetensors")
NUMBERED = re.compile(r"\d{6,12}")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read; without `state` the study had not begun to train."""

    place: Path
    study: str
    origin: Origin
    state: tuple[Snapshot, dict[str, Tensor]] | None


# Writing


def begin(folder: Path) -> str:
    """Make the place for the checkpoints of a new study, without those of an earlier one; gives its identity."""
    forget(folder)
    _settle(folder, study := secrets.token_hex(8))
    return study


def _settle(folder: Path, study: str) -> None:
    (folder / CHECKPOINT).mkdir()
    _write(folder / CHECKPOINT / IDENTITY, study.encode())


def forget(folder: Path) -> None:
    """Remove all checkpoints of a run folder: at once, as far as anybody can tell."""
    for left_over in folder.glob(f".{CHECKPOINT}-*"):  # of a process that was killed
        shutil.rmtree(left_over, ignore_errors=True)
    if (folder / CHECKPOINT).is_dir():
        hidden = folder / f".{CHECKPOINT}-{secrets.token_hex(4)}"
        os.rename(folder / CHECKPOINT, hidden)
        shutil.rmtree(hidden, ignore_errors=True)


def write_checkpoint(
    folder: Path, study: str, origin: Origin, state: tuple[Snapshot, Mapping[str, Tensor]] | None
) -> Path:
    """Write the next checkpoint whole or not at all, and remove all but the newest two.

    Raises OSError (or what writing raises) when it cannot be written; those that are there stay.
    """
    place = folder / CHECKPOINT
    if not place.exists():  # somebody took it away
        _settle(folder, study)
    for left_over in place.glob(".*"):  # of a process that was killed
        shutil.rmtree(left_over, ignore_errors=True)
    number = max((int(old.name) for old in _numbered(place)), default=-1) + 1
    goal = place / f"{number:06d}"
    with tempfile.TemporaryDirectory(dir=place, prefix=".writing-", ignore_cleanup_errors=True) as name:
        new = Path(name) / goal.name
        new.mkdir()
        contents = _contents(origin, state)
        for file, content in contents.items():
            _write(new / file, content)
        _write(new / MANIFEST, _json(_manifest(study, number, contents)))
        _sync(new)
        os.rename(new, goal)
    _sync(place)
    for old in _numbered(place)[:-KEPT]:
        # out of sight first: a folder that is half removed would look damaged
        os.rename(old, hidden := place / f".old-{old.name}")
        shutil.rmtree(hidden, ignore_errors=True)
    return goal


def _contents(origin: Origin, state: tuple[Snapshot, Mapping[str, Tensor]] | None) -> dict[str, bytes]:
    plain, rows = written(origin)
    contents = dict(zip(ORIGIN, (_json(plain), save(rows)), strict=True))
    if state is not None:
        far, tensors = state
        contents |= dict(zip(STATE, (_json(as_plain(Snapshot, far)), save(dict(tensors))), strict=True))
    return contents


def _json(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False).encode()


def _manifest(study: str, number: int, contents: Mapping[str, bytes]) -> dict[str, Any]:
    files = {name: {"bytes": len(c), "sha256": hashlib.sha256(c).hexdigest()} for name, c in contents.items()}
    return {"format": FORMAT, "study": study, "number": number, "files": files}


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Have the names in a folder written to the disk, where the system lets one ask for it."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


# Reading


def checkpoints(folder: Path) -> Iterator[Checkpoint | StoreError]:
    """Read the checkpoints of a run folder, the newest first; one that is not whole is given as what is wrong."""
    study = _identity(folder / CHECKPOINT / IDENTITY)
    for place in reversed(_numbered(folder / CHECKPOINT)):
        try:
            yield _read(place, study)
        except DAMAGE as error:
            yield refused(place, error)
        except StoreError as error:
            yield error


def refused(place: Path, error: BaseException) -> StoreError:
    """Say that a checkpoint is damaged."""
    return StoreError(f"the checkpoint {place} is damaged: {reason(error)}")


def _numbered(place: Path) -> list[Path]:
    found = (
        [p for p in place.iterdir() if NUMBERED.fullmatch(p.name) and p.is_dir()] if place.is_dir() else []
    )
    return sorted(found, key=lambda p: int(p.name))


def _identity(path: Path) -> str | None:
    """Read whose checkpoints these are; None when that is lost, which is no reason to lose them too."""
    try:
        text = path.read_text(encoding="ascii")
    except (OSError, ValueError):
        return None
    return text if re.fullmatch(r"[0-9a-f]{16}", text) else None


def _read(place: Path, study: str | None) -> Checkpoint:
    manifest = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
    _refuse_other_format(place, manifest["format"])
    own, number, files = (as_record(k, manifest[n]) for k, n in _MANIFEST)
    if study is not None and own != study:
        raise StoreError(f"the checkpoint {place} is that of another study.")
    if number != int(place.name):
        raise ValueError(f"it is number {number}")
    if {*files} not in ({*ORIGIN}, {*ORIGIN, *STATE}):
        raise ValueError(f"it has files that no checkpoint has: {sorted(files)}")
    contents = {name: _whole(place / name, said) for name, said in files.items()}
    origin = read_origin(*_both(contents, ORIGIN))
    if STATE[0] not in contents:
        return Checkpoint(place, own, origin, None)
    plain, tensors = _both(contents, STATE)
    return Checkpoint(place, own, origin, (as_record(Snapshot, plain), tensors))


_MANIFEST: tuple[tuple[Any, str], ...] = (
    (str, "study"),
    (int, "number"),
    (dict[str, dict[str, int | str]], "files"),
)


def _refuse_other_format(place: Path, number: Any) -> None:
    if type(number) is not int or number < 1:
        raise ValueError(f"its format is {number!r}")
    if number != FORMAT:
        raise StoreError(f"the checkpoint {place} has format {number}; this foldwise reads {FORMAT}.")


def _whole(path: Path, said: Mapping[str, Any]) -> bytes:
    content = path.read_bytes()
    if len(content) != said["bytes"]:
        raise ValueError(f"{path.name} has {len(content)} bytes instead of {said['bytes']}")
    if hashlib.sha256(content).hexdigest() != said["sha256"]:
        raise ValueError(f"{path.name} has changed: its checksum is another one")
    return content


def _both(contents: Mapping[str, bytes], names: tuple[str, str]) -> tuple[Any, dict[str, Tensor]]:
    return json.loads(contents[names[0]]), load(contents[names[1]])
