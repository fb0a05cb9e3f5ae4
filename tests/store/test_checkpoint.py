"""Checkpoints on disk: whole or not there, the newest whole one is used, and nothing else is believed."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

import foldwise
import studies
from foldwise import keeping
from foldwise.engine.loop import Interrupted
from foldwise.errors import StoreError
from foldwise.job import Job
from foldwise.keeping import Keeper, origin_of
from foldwise.store.checkpoint import Checkpoint, checkpoints, write_checkpoint
from foldwise.store.files import claim, unfinished

TRIALS: list[dict[str, Any]] = [{"epochs": 3}, {"epochs": 4, "width": 4}]


def job() -> Job:
    """Make a small job with sealed and weighted rows."""
    table = studies.table("regression")
    weights = np.linspace(0, 2, 47)
    return studies.job(table, "regression", TRIALS, folds=2, test=0.2, weights=weights)


def keeper_of(made: Job, folder: Path) -> Keeper:
    return Keeper(made, origin_of(made, made.summary(), "a test"), folder, pytest.fail)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with two checkpoints of a study that was broken off."""
    folder, made = tmp_path_factory.mktemp("run"), job()
    keeper = keeper_of(made, folder)
    keeper.begin()
    parts: list[None] = []

    def each_part() -> None:
        keeper.write()
        parts.append(None)
        if len(parts) == 5:
            raise Interrupted

    assert not made.train(studies.quiet, each_part=each_part)
    return folder


@pytest.fixture
def run(stopped: Path, tmp_path: Path) -> Path:
    """A copy of that folder, to be damaged."""
    return Path(shutil.copytree(stopped, tmp_path / "run"))


def newest(run: Path) -> Path:
    return max((run / "checkpoint").glob("0*"))


def read(run: Path) -> list[Checkpoint | StoreError]:
    return list(checkpoints(run))


# Writing


def test_the_newest_two_are_kept(run: Path) -> None:
    assert sorted(p.name for p in (run / "checkpoint").iterdir()) == ["000004", "000005", "study"]
    found = read(run)
    assert [c.place.name for c in found if isinstance(c, Checkpoint)] == ["000005", "000004"]


def test_a_checkpoint_holds_json_and_safetensors_alone(run: Path) -> None:
    for file in newest(run).iterdir():
        content = file.read_bytes()
        if file.suffix == ".json":
            json.loads(content)
        else:
            assert load(content)
        with pytest.raises(Exception, match=r"."):
            pickle.loads(content)  # noqa: S301


def test_what_made_the_study_is_read_as_it_was(run: Path) -> None:
    made = job()
    origin = origin_of(made, made.summary(), "a test")
    first = read(run)[0]
    assert isinstance(first, Checkpoint)
    for name in ("row", "sealed_row", "weights", "sealed_weights"):
        np.testing.assert_array_equal(getattr(first.origin, name), getattr(origin, name))
    assert first.origin.folds.same_as(origin.folds)
    for name in ("source", "task", "columns", "weighting", "plan", "metric", "dtype", "chunk", "environment"):
        assert getattr(first.origin.asked, name) == getattr(origin.asked, name)


def test_leftovers_of_a_killed_writer_go(run: Path) -> None:
    torn = run / "checkpoint" / ".writing-abc" / "000006"
    torn.mkdir(parents=True)
    (torn / "state.json").write_text("{")
    (run / "checkpoint" / ".old-000001").mkdir()
    assert len(read(run)) == 2
    first = read(run)[0]
    assert isinstance(first, Checkpoint)
    write_checkpoint(run, first.study, first.origin, first.state)
    assert sorted(p.name for p in (run / "checkpoint").iterdir()) == ["000005", "000006", "study"]


DYING = """
import os, shutil, signal, sys
from pathlib import Path
from foldwise.store import checkpoint

run, place = Path(sys.argv[1]), Path(sys.argv[2])
last = next(checkpoint.checkpoints(run))


def dying(real):
    def touch(*args, **more):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **more)

    return touch


for number in range(1, 200):
    own = shutil.copytree(run, place / str(number))
    if (child := os.fork()) == 0:
        left = number
        for name in ("mkdir", "open", "fsync", "rename", "unlink", "rmdir"):
            setattr(os, name, dying(getattr(os, name)))
        checkpoint._write = dying(checkpoint._write)
        checkpoint.save = dying(checkpoint.save)
        checkpoint.write_checkpoint(own, last.study, last.origin, last.state)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
"""


def test_whoever_is_killed_while_writing_leaves_what_was_there(run: Path, tmp_path: Path) -> None:
    """A process is killed at its first call that touches the disk, another one at its second, and so on."""
    if not hasattr(os, "fork"):
        pytest.skip("there is no fork here")
    subprocess.run([sys.executable, "-c", DYING, str(run), str(tmp_path / "killed")], check=True)
    places = sorted((tmp_path / "killed").iterdir(), key=lambda p: int(p.name))
    assert len(places) > 20
    seen = set()
    for place in places:
        found = read(place)
        assert all(isinstance(c, Checkpoint) for c in found), place
        seen.add(tuple(c.place.name for c in found if isinstance(c, Checkpoint)))
        first = found[0]
        assert isinstance(first, Checkpoint)
        write_checkpoint(place, first.study, first.origin, first.state)
        assert len(read(place)) == 2
        assert len([*(place / "checkpoint").iterdir()]) == 3
    before, both, after = (("000005", "000004"), ("000006", "000005", "000004"), ("000006", "000005"))
    assert seen == {before, both, after}


# Damage


def damaged(run: Path, path: Path, change: Callable[[bytes], bytes]) -> list[Checkpoint | StoreError]:
    path.write_bytes(change(path.read_bytes()))
    return read(run)


FILES = ("manifest.json", "asked.json", "rows.safetensors", "state.json", "state.safetensors")


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("change", ["cut", "empty", "longer", "gone", "flipped"])
def test_a_damaged_file_is_named_and_the_one_before_is_used(run: Path, file: str, change: str) -> None:
    path, draw = newest(run) / file, random.Random(file)
    content = bytearray(path.read_bytes())
    for at in [draw.randrange(len(content)) for _ in range(12)] if change == "flipped" else [0]:
        if change == "gone":
            path.unlink()
        else:
            flipped = bytes([*content[:at], content[at] ^ (1 << draw.randrange(8)), *content[at + 1 :]])
            new = {"cut": content[: len(content) // 2], "empty": b"", "longer": content + b" \n "}
            path.write_bytes(new.get(change, flipped))
        if change == "longer" and file == "manifest.json":  # spaces at the end of JSON say nothing
            continue
        bad, good = read(run)
        assert isinstance(bad, StoreError), (at, change)
        assert str(newest(run)) in bad.problem
        assert isinstance(good, Checkpoint)
        assert good.place.name == "000004"


def rewritten(run: Path, changes: dict[str, Callable[[Any], object]]) -> None:
    """Change a checkpoint and make its checksums fit again, as somebody who means harm would."""
    place = newest(run)
    manifest = json.loads((place / "manifest.json").read_text())
    for name, change in changes.items():
        path = place / name
        if name.endswith(".json"):
            value = manifest if name == "manifest.json" else json.loads(path.read_text())
            change(value)
            content = json.dumps(value).encode()
        else:
            tensors = load(path.read_bytes())
            change(tensors)
            content = save(tensors)
        path.write_bytes(content)
        if name != "manifest.json":
            manifest["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (place / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m.update(format=2), "has format 2; this foldwise reads 1"),
        (lambda m: m.update(format=0), "its format is 0"),
        (lambda m: m.update(format="1"), "its format is '1'"),
        (lambda m: m.pop("format"), "format"),
        (lambda m: m.update(study="0" * 16), "that of another study"),
        (lambda m: m.update(number=4), "it is number 4"),
        (lambda m: m["files"].update({"../../study.json": {"bytes": 1, "sha256": ""}}), "files that no"),
        (lambda m: m["files"].pop("state.json"), "files that no"),
        (lambda m: m.update(files=[]), "dictionary"),
    ],
)
def test_a_foreign_manifest_is_refused(run: Path, change: Callable[[Any], object], said: str) -> None:
    rewritten(run, {"manifest.json": change})
    bad, good = read(run)
    assert isinstance(bad, StoreError)
    assert said in bad.problem
    assert isinstance(good, Checkpoint)


def test_a_checkpoint_of_another_run_is_refused(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    keeper_of(job(), other).write()
    shutil.copytree(other / "checkpoint" / "000000", run / "checkpoint" / "000009")
    (run / "checkpoint" / "000009" / "manifest.json").write_text(
        (other / "checkpoint/000000/manifest.json").read_text().replace('"number": 0', '"number": 9')
    )
    bad = read(run)[0]
    assert isinstance(bad, StoreError)
    assert "is that of another study" in bad.problem


@pytest.mark.parametrize("identity", [None, b"", b"\xff\xfe", b"../../etc"])
def test_a_lost_identity_loses_no_checkpoint(run: Path, identity: bytes | None) -> None:
    path = run / "checkpoint" / "study"
    if identity is None:
        path.unlink()
    else:
        path.write_bytes(identity)
    assert all(isinstance(c, Checkpoint) for c in read(run))


ORIGIN: dict[str, tuple[str, Callable[[Any], object]]] = {
    "metric": ("asked.json", lambda a: a.update(metric="accuracy")),
    "no metric": ("asked.json", lambda a: a.update(metric="__import__")),
    "loss": ("asked.json", lambda a: a["plan"]["trials"][0].update(loss="cross_entropy")),
    "setting": ("asked.json", lambda a: a["plan"]["trials"][0].update(width=-5)),
    "unknown setting": ("asked.json", lambda a: a["plan"]["trials"][0].update(more=1)),
    "folds": ("asked.json", lambda a: a["plan"].update(folds=3)),
    "many folds": ("asked.json", lambda a: a["plan"].update(folds=10**12)),
    "seeds": ("asked.json", lambda a: a["plan"].update(seeds=[])),
    "task": ("asked.json", lambda a: a["task"].update(kind="binary")),
    "dtype": ("asked.json", lambda a: a.update(dtype="float16")),
    "chunk": ("asked.json", lambda a: a.update(chunk=0)),
    "columns": ("asked.json", lambda a: a.update(columns={"columns": []})),
    "a list": ("asked.json", lambda a: a.clear()),
    "rows": ("rows.safetensors", lambda t: t.update(row=t["row"].flip(0))),
    "negative rows": ("rows.safetensors", lambda t: t.update(row=t["row"] - 5)),
    "rows as numbers": ("rows.safetensors", lambda t: t.update(row=t["row"].double())),
    "fewer rows": ("rows.safetensors", lambda t: t.update(row=t["row"][1:])),
    "sealed rows": ("rows.safetensors", lambda t: t.update({"sealed.row": t["row"][:9].clone()})),
    "sealed weights": ("rows.safetensors", lambda t: t.pop("sealed.weights")),
    "train": ("rows.safetensors", lambda t: t.update({"folds.train": t["folds.train"].long()})),
    "validation": ("rows.safetensors", lambda t: t.pop("folds.validation")),
    "weights": ("rows.safetensors", lambda t: t["weights"].fill_(float("nan"))),
    "more": ("rows.safetensors", lambda t: t.update(more=torch.zeros(1))),
    "state": ("state.json", lambda s: s.update(gone="many")),
    "a stack": ("state.json", lambda s: s.update(stacks=None)),
}


@pytest.mark.parametrize("name", ORIGIN)
def test_contents_that_do_not_fit_are_refused_although_the_checksums_do(run: Path, name: str) -> None:
    file, change = ORIGIN[name]
    rewritten(run, {file: change})
    bad, good = read(run)
    assert isinstance(bad, StoreError)
    assert str(newest(run)) in bad.problem
    assert isinstance(good, Checkpoint)


def test_checksums_are_those_of_the_files_that_were_not_touched(run: Path) -> None:
    rewritten(run, {"asked.json": lambda a: None, "rows.safetensors": lambda t: None})
    assert all(isinstance(c, Checkpoint) for c in read(run))


# The run folder


def test_an_unfinished_run_is_not_written_over(run: Path) -> None:
    assert unfinished(run)
    with pytest.raises(StoreError, match="is not finished") as caught:
        claim(run)
    assert f"foldwise resume {run} goes on with it" in caught.value.hint
    assert claim(run, overwrite=True) == run
    with pytest.raises(StoreError, match="is not finished") as caught:
        foldwise.load(run)
    assert f"foldwise resume {run} goes on with it" in caught.value.hint


# Disks that fail


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def filled(disk: Path, leave: int) -> Path:
    """Fill a disk up."""
    blob = disk / "blob"
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    blob.write_bytes(b"x" * (free - leave))
    return blob


@pytest.mark.parametrize("leave", [0, 4096, 16384, 40960])
def test_a_full_disk_stops_nothing_and_is_tried_again(disk: Path, leave: int) -> None:
    made, said = job(), []
    run = disk / "run"
    run.mkdir()
    keeper = Keeper(made, origin_of(made, made.summary(), ""), run, said.append)
    keeper.begin()
    assert not said
    full: list[Path] = []

    def each_part() -> None:
        if len(read(run)) == 2 and not full:
            full.append(filled(disk, leave))
        keeper.write()
        if len(full) == 1:
            assert all(isinstance(c, Checkpoint) for c in read(run))

    assert made.train(studies.quiet, each_part=each_part)
    assert len(said) == 1
    assert f"no checkpoint could be written to {run}" in said[0]
    assert "No space left on device" in said[0]
    before = newest(run)
    full[0].unlink()
    keeper.write()
    assert newest(run) > before
    assert sorted(p.name for p in (run / "checkpoint").iterdir())[-1] == "study"


def test_a_folder_that_is_gone_is_made_again(tmp_path: Path) -> None:
    made, said = job(), []
    keeper = Keeper(made, origin_of(made, made.summary(), ""), tmp_path / "run", said.append)
    keeper.begin()
    keeper.begin()
    assert len(said) == 1
    (tmp_path / "run").mkdir()
    keeper.begin()
    shutil.rmtree(tmp_path / "run" / "checkpoint")
    keeper.write()
    [found] = read(tmp_path / "run")
    assert isinstance(found, Checkpoint)
    assert found.study == keeper.study


def test_checkpoints_are_written_when_they_are_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(keeping.time, "monotonic", lambda: now)
    made, written = job(), []

    def slow(*args: Any) -> None:
        nonlocal now
        now += 2.0
        written.append(now)

    monkeypatch.setattr(keeping, "write_checkpoint", slow)
    keeper = keeper_of(made, tmp_path)
    keeper.begin()
    assert written == [102.0]
    while now < 199:
        keeper.refresh()
        now += 1.0
    # the first after ten seconds, the others after twenty times what the one before took
    assert written == [102.0, 114.0, 156.0, 198.0]
