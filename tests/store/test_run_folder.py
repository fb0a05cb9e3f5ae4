"""A run folder that fails, is damaged, is written over, or has a name that is no text."""

from __future__ import annotations

import json
import math
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

import foldwise
import studies
from foldwise.errors import NetworkError, StoreError
from foldwise.store.answers import Answer, Picture, write_answer
from foldwise.store.files import claim, write_atomically, write_text
from foldwise.study import Study

TRIALS: list[dict[str, Any]] = [{"epochs": 1}, {"epochs": 1, "width": 4}]
Description = dict[str, Any]


@pytest.fixture(scope="module")
def study() -> Study:
    return studies.study(studies.job(studies.table("regression"), "regression", TRIALS, folds=2, test=0.2))


@pytest.fixture
def fresh(study: Study) -> Study:
    """The study, as training leaves it: in no folder and without warnings of a place."""
    study.folder, study.warnings = None, []
    study.openings.clear()
    return study


@pytest.fixture
def run(fresh: Study, tmp_path: Path) -> Path:
    return fresh.save(tmp_path / "run")


# Damage


def edited(run: Path, edit: Callable[[Description], object]) -> None:
    described = json.loads((run / "study.json").read_text())
    edit(described)
    (run / "study.json").write_text(json.dumps(described))


@pytest.mark.parametrize(
    "edit",
    [
        lambda d: d["columns"]["columns"].__setitem__(0, "size"),
        lambda d: d["columns"]["columns"][0].update(kind="weather"),
        lambda d: d["columns"]["columns"].pop(0),
        lambda d: d["trials"][0].update(number=99),
        lambda d: d["trials"].pop(),
        lambda d: d["trials"][0]["fold_scores"].pop(),
        lambda d: d["plan"].update(folds=3),
        lambda d: d["plan"].update(folds=-2),
        lambda d: d["plan"]["trials"].pop(),
        lambda d: d["plan"]["trials"][0].update(width=7),
        lambda d: d["plan"]["trials"][0].update(loss="cross_entropy"),
        lambda d: d["stacks"][0][0].__setitem__(0, -1),
        lambda d: d["stacks"][0][0].__setitem__(1, 9),
        lambda d: d["stacks"][0].pop(),
        lambda d: d["stacks"].pop(),
        lambda d: d["scalings"].append("standard"),
        lambda d: d["task"].update(targets=["price", "size"]),
        lambda d: d["task"].update(kind="binary"),
        lambda d: d.update(metric="accuracy"),
        lambda d: d.update(warnings="none"),
    ],
)
def test_parts_that_do_not_fit_together_are_damage(run: Path, edit: Callable[[Description], object]) -> None:
    edited(run, edit)
    with pytest.raises(StoreError, match=r"^the run .* is damaged: .+\nhint: restore it"):
        foldwise.load(run)


SHAPES: list[Callable[[torch.Tensor], torch.Tensor]] = [lambda t: t[1:], lambda t: t[..., 1:]]
STORED = ["stack0.parameters", "folds.train", "prepare.fill", "target.shift", "row"]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        *((name, change) for name in STORED for change in SHAPES),
        *((name, torch.Tensor.int) for name in STORED[:2]),
    ],
)
def test_tensors_of_another_shape_or_type_are_damage(
    run: Path, name: str, change: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    tensors = load_file(run / "state.safetensors")
    save_file(tensors | {name: change(tensors[name]).contiguous()}, run / "state.safetensors")
    with pytest.raises(StoreError, match="is damaged"):
        foldwise.load(run)


def test_a_table_of_something_else_is_damage(run: Path) -> None:
    for name in ("history", "predictions", "sealed"):
        before = (run / f"{name}.parquet").read_bytes()
        pl.DataFrame({"a": [1]}).write_parquet(run / f"{name}.parquet")
        with pytest.raises(StoreError, match="is damaged"):
            foldwise.load(run)
        (run / f"{name}.parquet").write_bytes(before)
    assert foldwise.load(run).predict(studies.table("regression")).height == 47


def test_another_network_of_ones_own_is_told(tmp_path: Path) -> None:
    def net(inputs: int, outputs: int, units: int = 3) -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Linear(inputs, units), torch.nn.Linear(units, outputs))

    asked = [{"network": "custom", "initialization": "own", "epochs": 1}]
    job = studies.job(studies.table("regression"), "regression", asked, folds=2, net=net)
    folder = studies.study(job).save(tmp_path / "run")
    assert foldwise.load(folder, net=net).predict(studies.table("regression")).height == 47
    with pytest.raises(NetworkError, match=r"the network given has \d+ weights, and that of the study \d+"):
        foldwise.load(folder, net=lambda inputs, outputs: net(inputs, outputs, units=4))


# Nothing finished is lost


def test_numbers_that_json_does_not_have_are_null(fresh: Study, tmp_path: Path) -> None:
    fresh.outcome = {**fresh.outcome, "prediction": [np.nan, np.inf, *fresh.outcome["prediction"][2:]]}
    fresh.openings.append({"metric": "RMSE", "score": np.nan, "low": np.inf, "high": 1.0})
    again = foldwise.load(fresh.save(tmp_path / "run"))
    assert again.outcome["prediction"][:2] == [None, None]
    stored = json.loads((tmp_path / "run" / "study.json").read_text())
    assert stored["openings"] == [{"metric": "RMSE", "score": None, "low": None, "high": 1.0}]
    assert math.isnan(again.openings[0]["score"])
    assert again.report().exists()


def test_a_name_that_is_no_text_loses_nothing(tmp_path: Path) -> None:
    strange = os.fsdecode(b"caf\xe9")
    table = tmp_path / f"{strange}.csv"
    studies.table("regression").write_csv(tmp_path / "table.csv")
    shutil.copy(tmp_path / "table.csv", table)
    search = {"network": "linear", "epochs": 1}
    study = foldwise.fit(table, target="price", search=search, folds=2, out=tmp_path / strange)
    assert not [w for w in study.warnings if "could not be written" in w]
    again = foldwise.load(tmp_path / strange)
    assert again.source.path == str(table)
    assert again.command == study.command
    assert "caf" in (tmp_path / strange / "report.html").read_text(encoding="utf-8")
    assert again.replay(1, 1).matches


def test_whatever_fails_the_study_is_kept_elsewhere(
    fresh: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        monkeypatch.undo()
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        raise ValueError("no such thing")

    monkeypatch.setattr("foldwise.study.write_study", fails)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    fresh.keep(tmp_path / "run")
    (warning,) = fresh.warnings
    assert fresh.folder is not None
    assert warning == (
        f"the run could not be written to {tmp_path / 'run'} (ValueError: no such thing); "
        f"it is in {fresh.folder} instead"
    )
    assert foldwise.load(fresh.folder).warnings == [warning]
    assert json.loads((fresh.folder / "findings.json").read_text())["warnings"] == [warning]


def test_a_page_that_fails_does_not_hide_the_run(
    fresh: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("foldwise.study.render", fails)
    fresh.keep(tmp_path / "run")
    assert fresh.folder == tmp_path / "run"
    assert fresh.warnings == ["the page could not be written (ZeroDivisionError)"]
    assert foldwise.load(tmp_path / "run").headline == fresh.headline


def test_a_study_that_can_be_kept_nowhere_says_so(
    fresh: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("foldwise.study.write_study", fails)
    fresh.keep(tmp_path / "run")
    assert fresh.folder is None
    assert len(fresh.warnings) == 1
    assert "nor elsewhere (OSError: [Errno 28] No space left on device)" in fresh.warnings[0]


# Files


def test_a_folder_that_is_gone_is_a_store_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be written"):
        write_atomically(tmp_path / "gone" / "file", lambda p: p.write_text(""))
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        write_atomically(tmp_path / "file" / "inner", lambda p: p.write_text(""))


def test_files_are_as_open_as_the_umask_says(fresh: Study, tmp_path: Path) -> None:
    for mask in (0o027, 0o077, 0o002):
        before = os.umask(mask)
        try:
            folder = fresh.save(tmp_path / f"run{mask}")
        finally:
            os.umask(before)
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
        assert set(modes.values()) == {0o666 & ~mask}, modes


def test_a_run_over_another_leaves_nothing_of_it_and_all_else(run: Path) -> None:
    (run / "notes.txt").write_text("mine")
    claim(run, overwrite=True)
    assert (run / "sealed.parquet").exists(), "an old run was lost before there is a new one"
    other = studies.study(studies.job(studies.table("binary"), "binary", TRIALS, folds=2))
    other.save(run, overwrite=True)
    assert not (run / "sealed.parquet").exists()
    assert (run / "notes.txt").read_text() == "mine"
    assert foldwise.load(run).task.kind == "binary"


class Killed(BaseException):
    """The process ends here."""


ANSWER = Answer("seeds", "It moves.", "by hand", pl.DataFrame({"a": [1]}), {}, Picture("x", "y", ()))


@pytest.mark.parametrize("file", ["state.safetensors", "predictions.parquet", "study.json"])
def test_killed_while_writing_over_a_run_it_is_there_with_its_answers(
    fresh: Study, run: Path, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_answer(ANSWER, run)

    def write(path: Path, content: Callable[[Path], object]) -> Path:
        if path.name == file:
            raise Killed
        return write_atomically(path, content)

    for module in ("folder", "files"):
        monkeypatch.setattr(f"foldwise.store.{module}.write_atomically", write)
    with pytest.raises(Killed):
        fresh.save(run, overwrite=True)
    assert [*foldwise.load(run).answers] == ["seeds"]


def test_before_an_old_run_goes_the_new_one_is_written_with_its_answers(
    fresh: Study, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = foldwise.load(run)
    new.answers = {"seeds": ANSWER}
    found: list[set[str]] = []

    def remove(path: Path) -> None:
        [place] = run.glob(".writing-*")
        found.append({str(p.relative_to(place)) for p in place.rglob("*") if p.is_file()})
        raise Killed

    monkeypatch.setattr("foldwise.store.files._remove", remove)
    with pytest.raises(Killed):
        new.save(run, overwrite=True)
    assert {"study.json", "state.safetensors", "answers/seeds.json"} <= found[0]
    monkeypatch.undo()
    new.save(run, overwrite=True)
    assert foldwise.load(run).answers["seeds"].sentence == "It moves."
    fresh.save(run, overwrite=True)
    assert not foldwise.load(run).answers


def test_opening_the_test_writes_no_weights(run: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in run.iterdir()}
    opening = foldwise.load(run).open_test()
    after = {path.name: path.stat().st_mtime_ns for path in run.iterdir()}
    assert {name for name in before if after[name] != before[name]} == {"study.json", "report.html"}
    assert foldwise.load(run).openings == [opening.record()]


def test_text_with_lone_surrogates_is_written(tmp_path: Path) -> None:
    assert (
        write_text(tmp_path / "a.json", json.dumps("\udce9", ensure_ascii=False)).read_bytes() == b'"\\udce9"'
    )
