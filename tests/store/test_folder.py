"""The run folder: what is written is what is read, damage is named, and a failing disk loses nothing."""

from __future__ import annotations

import json
import math
import pickle
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import foldwise
import studies
import zoo
from foldwise.errors import FoldwiseError, StoreError
from foldwise.store.files import claim, write_atomically, write_text
from foldwise.store.folder import FORMAT
from foldwise.study import Study

TABLES = {"history.parquet", "predictions.parquet", "sealed.parquet"}
FILES = {"study.json", "state.safetensors", *TABLES, "findings.json", "report.html"}
NEEDED = sorted(FILES - {"findings.json", "report.html"})
TRIALS = [
    {"dropout": 0.1},
    {"network": "linear", "scaling": "standard"},
    {"network": "constant", "epochs": 0},
]


def made(task: str = "multiclass", **asked: Any) -> Study:
    """Make a study with sealed rows."""
    return studies.study(studies.job(studies.table(task), task, TRIALS, seeds=2, test=0.2, **asked))


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Path]:
    """A study and its run folder, which tests must not change."""
    study = made()
    return study, study.save(tmp_path_factory.mktemp("store") / "run")


@pytest.fixture
def run(stored: tuple[Study, Path], tmp_path: Path) -> Path:
    """A copy of the run folder, to damage."""
    return Path(shutil.copytree(stored[1], tmp_path / "copy"))


# There and back


def same(one: Any, other: Any) -> bool:
    """Compare records, frames and tensors; NaN equals NaN."""
    if isinstance(one, pl.DataFrame):
        return one.equals(other)
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other) and one.dtype == other.dtype
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, float):
        return one == other or (math.isnan(one) and math.isnan(other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if hasattr(one, "__dataclass_fields__"):
        return type(one) is type(other) and all(
            same(getattr(one, f), getattr(other, f)) for f in one.__dataclass_fields__
        )
    return bool(one == other)


@pytest.mark.parametrize("task", studies.TASKS)
def test_what_is_loaded_is_what_was_saved(task: str, tmp_path: Path) -> None:
    study = made(task)
    again = foldwise.load(study.save(tmp_path / "run"))
    for name in Study.__dataclass_fields__.keys() - {"table"}:  # rows are not stored
        assert same(getattr(study, name), getattr(again, name)), name
    assert again.table is None
    new = studies.table(task, rows=20, seed=5)
    for trial in (None, 1, 2, 3):
        assert again.predict(new, trial).equals(study.predict(new, trial))
    assert repr(again) == repr(study)
    assert again.replay(1, 1, data=studies.table(task)) == study.replay(1, 1, data=studies.table(task))


@pytest.mark.parametrize("network", ["Normalized", "Partly", "Branching", "reusing"])
def test_networks_of_users_come_back_with_their_buffers(network: str, tmp_path: Path) -> None:
    net = zoo.NETWORKS[network]
    study = studies.study(studies.job(studies.table("regression"), "regression", [net.settings], net=net.net))
    again = foldwise.load(study.save(tmp_path / "run"), net=net.net)
    new = studies.table("regression", rows=9, seed=3)
    assert again.predict(new).equals(study.predict(new))
    with pytest.raises(FoldwiseError, match="network of your own"):
        foldwise.load(tmp_path / "run").predict(new)


def test_the_folder_holds_these_files(stored: tuple[Study, Path]) -> None:
    assert {f.name for f in stored[1].iterdir()} == FILES
    assert json.loads((stored[1] / "study.json").read_text())["format"] == FORMAT
    assert stored[0].folder == stored[1]


def test_a_study_saved_twice_and_loaded_twice_is_the_same(run: Path, tmp_path: Path) -> None:
    again = foldwise.load(run)
    foldwise.load(again.save(tmp_path / "second")).save(tmp_path / "third")
    for name in (*NEEDED, "findings.json"):
        assert (tmp_path / "third" / name).read_bytes() == (run / name).read_bytes(), name


def test_nothing_is_unpickled(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("unpickled")

    for module, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(module, name, refuse)
    assert foldwise.load(run).predict(studies.table("multiclass")).height == 47


def test_strange_names_come_back(tmp_path: Path) -> None:
    frame = studies.table("regression").rename({"size": "<script>größe</script>", "color": 'a"b\\c\n☃'})
    study = studies.study(studies.job(frame, "regression"))
    again = foldwise.load(study.save(tmp_path / "größe ☃"))
    assert again.predict(frame).equals(study.predict(frame))


# Where a run may be


def test_a_run_is_not_replaced_unless_asked(run: Path, stored: tuple[Study, Path]) -> None:
    before = (run / "study.json").read_bytes()
    with pytest.raises(
        StoreError, match=r"there is already a run in .*copy\.\nhint: choose another --out, or --overwrite"
    ):
        stored[0].save(run)
    assert (run / "study.json").read_bytes() == before


def test_a_run_that_replaces_another_leaves_nothing_of_it(run: Path, stored: tuple[Study, Path]) -> None:
    study = studies.study(studies.job(studies.table("binary"), "binary"))
    study.save(run, overwrite=True)
    assert {f.name for f in run.iterdir()} == FILES - {"sealed.parquet"}
    assert same(foldwise.load(run).history, study.history)


def test_places_that_cannot_hold_a_run(tmp_path: Path, stored: tuple[Study, Path]) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for place, said in (
        (file, "is a file, not a folder"),
        (file / "run", "cannot be written"),
        (Path("/proc/run"), "cannot be written"),
    ):
        with pytest.raises(StoreError, match=said):
            claim(place)
        with pytest.raises(StoreError, match=said):
            stored[0].save(place)
    assert stored[0].folder == stored[1]


def test_a_place_is_claimed_before_anything_is_computed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="is a file"):
        foldwise.fit("no such table", target="y", out=tmp_path / "file")


# Damage


@pytest.mark.parametrize("name", NEEDED)
def test_a_missing_file_is_named(run: Path, name: str) -> None:
    (run / name).unlink()
    said = "there is no run in" if name == "study.json" else f"lacks {name}"
    with pytest.raises(StoreError, match=said):
        foldwise.load(run)


@pytest.mark.parametrize("name", NEEDED)
@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_damage(run: Path, name: str, share: float) -> None:
    content = (run / name).read_bytes()
    (run / name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(StoreError, match=r"damaged.*\nhint: restore it from a copy, or train it again"):
        foldwise.load(run)


@pytest.mark.parametrize("name", NEEDED)
@pytest.mark.parametrize("content", [b"\x00" * 500, b"\xff\xfe\xfd" * 100, b"{}", b"[]", b"null", b"<html>"])
def test_a_file_of_something_else_is_damage(run: Path, name: str, content: bytes) -> None:
    (run / name).write_bytes(content)
    with pytest.raises(StoreError, match="damaged"):
        foldwise.load(run)


def edited(run: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change what study.json says."""
    described = json.loads((run / "study.json").read_text())
    edit(described)
    (run / "study.json").write_text(json.dumps(described))


@pytest.mark.parametrize("number", [FORMAT + 1, 99])
def test_a_newer_format_is_refused(run: Path, number: int) -> None:
    edited(run, lambda described: described.update(format=number))
    said = rf"has format {number}; this foldwise reads up to {FORMAT}\.\nhint: install the foldwise that"
    with pytest.raises(StoreError, match=said):
        foldwise.load(run)


@pytest.mark.parametrize("number", ["1", None, 1.5, [1], True, 0, -1])
def test_a_format_that_is_none_is_refused(run: Path, number: object) -> None:
    edited(run, lambda described: described.update(format=number))
    with pytest.raises(StoreError, match="format"):
        foldwise.load(run)


def paths(value: Any, depth: int = 3) -> Iterator[tuple[Any, ...]]:
    """List the places in nested mappings and lists, the first item of each list standing for all."""
    if depth and isinstance(value, dict):
        for name, inner in value.items():
            yield (name,)
            yield from ((name, *rest) for rest in paths(inner, depth - 1))
    elif depth and isinstance(value, list) and value:
        yield from ((0, *rest) for rest in paths(value[0], depth - 1))


STEPS = {"x": [0.1, 0.6], "y": [0.2, 0.7]}


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": math.inf},
        {"temperature": 0.01},
        {"temperature": 30.0},
        {"steps": [STEPS | {"y": [-5.0, 0.7]}]},
        {"steps": [STEPS | {"y": [0.2, 7.0]}]},
        {"steps": [STEPS | {"y": [0.2, math.nan]}]},
        {"steps": [STEPS | {"y": [0.7, 0.2]}]},
        {"steps": [STEPS | {"x": [0.1, math.inf]}]},
        {"steps": [STEPS | {"x": [0.6, 0.1]}]},
        {"steps": []},
    ],
)
def test_a_calibration_that_cannot_be_learned_is_damage(tmp_path: Path, wrong: dict[str, Any]) -> None:
    run = made("binary").save(tmp_path / "run")
    edited(run, lambda d: d["calibration"].update(method="isotonic", steps=[STEPS]))
    foldwise.load(run)
    edited(run, lambda d: d["calibration"].update(wrong))
    with pytest.raises(StoreError, match="damaged"):
        foldwise.load(run)


@pytest.mark.parametrize(
    ("task", "wrong"),
    [
        ("regression", []),
        ("regression", {"counts": [1] * 19}),
        ("regression", {"counts": [-1] * 20}),
        ("regression", {"counts": "many"}),
        ("regression", {"reach": None}),
        ("regression", {"reach": -1.0}),
        ("regression", {"kind": "sets"}),
        ("regression", {"kind": "guesses"}),
        ("binary", {"counts": [3, 3, 3]}),
        ("binary", {"counts": [0, 0]}),
        ("binary", {"kind": "distances"}),
        ("binary", {"sentence": 3}),
    ],
)
def test_how_far_intervals_reach_is_checked(tmp_path: Path, task: str, wrong: Any) -> None:
    run = made(task).save(tmp_path / "run")
    assert foldwise.load(run).sureness is not None
    edited(run, lambda d: d.update(sureness=d["sureness"] | wrong if isinstance(wrong, dict) else wrong))
    with pytest.raises(StoreError, match=r"damaged: .*(sureness|reach|counts|kind|sentence|dictionary)"):
        foldwise.load(run)


REMOVED = object()


RARER = [pytest.param(wrong, marks=pytest.mark.slow) for wrong in ({}, -1.5, [[]], [None], {"x": 1})]


@pytest.mark.parametrize("wrong", [REMOVED, None, [], "x", 3, *RARER])
def test_a_study_with_a_wrong_cell_loads_or_is_damaged_but_never_fails_otherwise(
    run: Path, wrong: object
) -> None:
    described = json.loads((run / "study.json").read_text())
    refused = 0
    for path in paths(described):
        changed = json.loads(json.dumps(described))
        place = changed
        for step in path[:-1]:
            place = place[step]
        if wrong is REMOVED:
            del place[path[-1]]
        else:
            place[path[-1]] = wrong
        (run / "study.json").write_text(json.dumps(changed))
        try:
            foldwise.load(run)
        except StoreError:
            refused += 1
        except Exception as error:
            pytest.fail(f"{path} = {wrong!r}: {type(error).__name__}: {error}")
    assert refused > 10


def test_a_deeply_nested_study_is_damage(run: Path) -> None:
    (run / "study.json").write_text("[" * 100_000)
    with pytest.raises(StoreError, match="damaged"):
        foldwise.load(run)


@pytest.mark.parametrize("name", ["file", "empty", "nothing"])
def test_what_is_no_run(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match="there is no run in"):
        foldwise.load(tmp_path / name)


# A failing disk


def failing(path: Path) -> None:
    """Write something and fail."""
    path.write_text("half")
    raise OSError(28, "No space left on device")


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write_text(file, "old")
    with pytest.raises(
        StoreError, match=r"file cannot be written: No space left on device\.\nhint: is the disk full"
    ):
        write_atomically(file, failing)
    with pytest.raises(ZeroDivisionError):
        write_atomically(file, lambda path: 1 / 0)
    assert file.read_text() == "old"
    assert [f.name for f in tmp_path.iterdir()] == ["file"]


FULL = """
    import resource, sys
    sys.path.insert(0, sys.argv[1])
    import studies, foldwise
    from pathlib import Path

    folder, unlimited = Path(sys.argv[2]), resource.RLIM_INFINITY
    study = studies.study(studies.job(studies.table("multiclass", rows=300), "multiclass", test=0.2))
    for room in map(int, sys.argv[3:]):
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, unlimited))
        try:
            study.save(folder, overwrite=True)
        except foldwise.FoldwiseError as error:
            print(type(error).__name__, error.problem)
    study.keep(folder)
    print(study.warnings[-1])
    resource.setrlimit(resource.RLIMIT_FSIZE, (unlimited, unlimited))
    study.save(folder.with_name("later"))
"""


def test_a_full_disk_loses_neither_the_study_nor_the_run_that_was_there(run: Path) -> None:
    before = {name: (run / name).read_bytes() for name in FILES}
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            textwrap.dedent(FULL),
            str(Path(studies.__file__).parent),
            str(run),
            "500",
            "8400",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second, warned = done.stdout.splitlines()
    assert re.match(r"StoreError .*copy/state.safetensors cannot be written", first)
    assert re.match(r"StoreError .*copy/predictions.parquet cannot be written", second)
    assert "could not be written to" in warned
    assert {f.name: f.read_bytes() for f in run.iterdir()} == before
    assert foldwise.load(run.with_name("later")).predict(studies.table("multiclass")).height == 47
