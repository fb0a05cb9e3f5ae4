"""A study that is stopped, however it is stopped, and gone on with is the study that was never stopped."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import foldwise
import studies
import zoo
from foldwise import cli, keeping
from foldwise.engine.loop import Progress
from foldwise.errors import DataError, FoldwiseError, NetworkError, SettingsError, StoreError
from foldwise.store.checkpoint import Checkpoint, checkpoints
from foldwise.study import Study
from foldwise.terminal import Display

SEARCH = {"network": "mlp", "width": [3, 4], "depth": 1, "epochs": 4, "dropout": 0.2}
FILES = ("state.safetensors", "history.parquet", "predictions.parquet", "findings.json")


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a checkpoint now and then."""
    monkeypatch.setattr(keeping, "LEAST_SECONDS", 0.3)
    monkeypatch.setattr(keeping, "SHARE", 0)


class Stopping(Display):
    """Presses Ctrl-C when so many reports have come."""

    def __init__(self, reports: int) -> None:
        self.left, self.warnings = reports, list[str]()

    def progress(self, now: Progress) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def described(run: Path) -> dict[str, Any]:
    """Read study.json without what depends on the hour."""
    content = json.loads((run / "study.json").read_text())
    content["summary"].pop("seconds")
    content.pop("command")
    return content


def same(one: Path, other: Path) -> None:
    """Compare two run folders."""
    assert sorted(p.name for p in one.iterdir()) == sorted(p.name for p in other.iterdir())
    assert described(one) == described(other)
    for file in (*FILES, "sealed.parquet"):
        if (one / file).exists():
            assert (one / file).read_bytes() == (other / file).read_bytes(), file
    assert foldwise.load(one).leaderboard.equals(foldwise.load(other).leaderboard)


# Whatever a study is made of


def crop(frame: pl.DataFrame) -> pl.DataFrame:
    """Add columns for groups, time, folds and weights."""
    rows = np.arange(frame.height)
    return frame.with_columns(
        patient=pl.Series([f"p{n // 3}" for n in rows]),
        day=pl.Series(rows * 7 % 47),
        part=pl.Series(rows % 3),
        counts=pl.Series((rows % 4).astype(float)),
    )


KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("regression", {"folds": 3}),
    "sealed, weighted by a column": ("regression", {"test": 0.2, "weights": "counts", "folds": 2}),
    "weights of classes": ("multiclass", {"class_weights": {"a": 1, "b": 2, "c": 0.5}, "folds": 2}),
    "balanced": ("binary", {"class_weights": "balanced", "folds": 2, "metric": "accuracy", "seeds": 2}),
    "groups, sealed": ("binary", {"groups": "patient", "test": 0.3, "folds": 2}),
    "time": ("log regression", {"time": "day", "folds": 2, "log_target": True}),
    "folds by a column": ("multilabel", {"fold_column": "part"}),
    "leave-one-out": ("binary", {"folds": "loo", "search": {**SEARCH, "epochs": 1}}),
    "held out": ("soft", {"holdout": 0.3, "repeats": 2, "task": "multiclass"}),
    "columns": (
        "regression",
        {"drop": ["patient"], "columns": {"part": "category"}, "dtype": "float64", "chunk": 3, "seed": 5},
    ),
}


def asked_of(kind: str) -> tuple[pl.DataFrame, dict[str, Any]]:
    task, asked = KINDS[kind]
    return crop(studies.table(task)), {"target": studies.TASKS[task], "search": SEARCH, **asked}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_study_goes_on(kind: str, tmp_path: Path) -> None:
    frame, asked = asked_of(kind)
    frame.write_csv(tmp_path / "table.csv")
    foldwise.fit(tmp_path / "table.csv", out=tmp_path / "whole", **asked)
    stopped = foldwise.fit(tmp_path / "table.csv", out=tmp_path / "run", display=Stopping(7), **asked)
    assert stopped.interrupted
    assert stopped.resumable
    stopped = foldwise.resume(tmp_path / "run", display=Stopping(11))
    assert stopped.interrupted
    study = foldwise.resume(tmp_path / "run")
    assert not study.interrupted
    assert not study.resumable
    same(tmp_path / "whole", tmp_path / "run")


def test_missing_targets_and_a_table_read_in_another_way(tmp_path: Path) -> None:
    frame = studies.table("regression").with_columns(
        price=pl.when(pl.int_range(47) % 9 > 0).then("price"), age=pl.col("age").round(1)
    )
    frame.write_csv(tmp_path / "table.txt", separator="!", include_header=True)
    asked = {"separator": "!", "target": "price", "drop_missing_targets": True, "search": SEARCH, "folds": 2}
    foldwise.fit(tmp_path / "table.txt", out=tmp_path / "whole", **asked)
    foldwise.fit(tmp_path / "table.txt", out=tmp_path / "run", display=Stopping(5), **asked)
    foldwise.resume(tmp_path / "run")
    same(tmp_path / "whole", tmp_path / "run")


def test_an_example_and_tables_from_memory(tmp_path: Path) -> None:
    frame = studies.table("regression")
    x, y = frame.drop("price"), frame["price"].to_numpy()
    ways: list[tuple[dict[str, Any], Any]] = [
        ({"example": "iris"}, None),
        ({"data": frame, "target": "price"}, frame),
        ({"data": x, "y": y, "weights": np.linspace(0, 2, 47)}, (x, y)),
    ]
    for number, (asked, again) in enumerate(ways):
        whole, run = tmp_path / f"whole{number}", tmp_path / f"run{number}"
        foldwise.fit(out=whole, search=SEARCH, folds=2, **asked)
        foldwise.fit(out=run, search=SEARCH, folds=2, display=Stopping(5), **asked)
        foldwise.resume(run, again)
        same(whole, run)


def test_what_is_the_users_own_is_given_again(tmp_path: Path) -> None:
    frame = studies.table("regression")
    own = {"net": zoo.Normalized, "loss": zoo.log_cosh, "links": [zoo.ECHO]}
    asked = {"target": "price", "folds": 2, "search": {"epochs": 3, "width": 4, "echo": [0.0, 0.2]}}
    foldwise.fit(frame, out=tmp_path / "whole", **asked, **own)
    foldwise.fit(frame, out=tmp_path / "run", display=Stopping(8), **asked, **own)
    for name, error in (("net", NetworkError), ("loss", SettingsError), ("links", SettingsError)):
        less = {n: value for n, value in own.items() if n != name}
        with pytest.raises(error, match="of your own"):
            foldwise.resume(tmp_path / "run", frame, **less)
    with pytest.raises(NetworkError, match="other parameters"):
        foldwise.resume(tmp_path / "run", frame, **{**own, "net": zoo.Residual})
    foldwise.resume(tmp_path / "run", frame, **own)
    same(tmp_path / "whole", tmp_path / "run")


def test_ctrl_c_stores_where_it_was_to_the_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "LEAST_SECONDS", 1e9)
    asked = {"target": "price", "folds": 2, "search": SEARCH, "chunk": 1}
    frame = studies.table("regression")
    foldwise.fit(frame, out=tmp_path / "whole", **asked)
    stopped = foldwise.fit(frame, out=tmp_path / "run", display=Stopping(15), **asked)
    newest, start = checkpoints(tmp_path / "run")
    assert isinstance(newest, Checkpoint)
    assert isinstance(start, Checkpoint)
    assert start.state is None
    assert newest.state is not None
    assert any(shelf.broken and shelf.broken.left for shelf in newest.state[0].stacks)
    noted = sum(way.noted for way in newest.state[0].courses)
    assert noted == stopped.history.filter(fold=1).height
    foldwise.resume(tmp_path / "run", frame)
    same(tmp_path / "whole", tmp_path / "run")


# What is refused


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table and a run that was interrupted."""
    place = tmp_path_factory.mktemp("original")
    studies.table("regression").write_csv(place / "table.csv")
    before = keeping.LEAST_SECONDS, keeping.SHARE
    keeping.LEAST_SECONDS, keeping.SHARE = 0.0, 0
    foldwise.fit(
        place / "table.csv", target="price", folds=2, search=SEARCH, out=place / "run", display=Stopping(9)
    )
    keeping.LEAST_SECONDS, keeping.SHARE = before
    return place


@pytest.fixture
def run(original: Path, tmp_path: Path) -> Path:
    """A copy of the run."""
    return Path(shutil.copytree(original / "run", tmp_path / "run"))


def test_an_unfinished_run_says_so(run: Path, original: Path) -> None:
    with pytest.raises(StoreError, match="is not finished") as caught:
        foldwise.fit(original / "table.csv", target="price", out=run)
    assert f"foldwise resume {run}" in caught.value.hint
    (run / "study.json").unlink()
    for use in (
        lambda: foldwise.load(run),
        lambda: foldwise.fit(original / "table.csv", target="price", out=run),
    ):
        with pytest.raises(StoreError, match="is not finished") as caught:
            use()
        assert f"foldwise resume {run}" in caught.value.hint


def test_overwriting_starts_anew(run: Path, original: Path) -> None:
    asked = {"target": "price", "folds": 2, "search": SEARCH, "out": run, "overwrite": True}
    study = foldwise.fit(original / "table.csv", checkpoint=False, display=Stopping(9), **asked)
    assert study.interrupted
    assert not study.resumable
    with pytest.raises(StoreError, match="has no checkpoint"):
        foldwise.resume(run)
    assert not foldwise.fit(original / "table.csv", **asked).interrupted
    with pytest.raises(StoreError, match="is finished"):
        foldwise.resume(run)


@pytest.mark.parametrize("moment", ["before the page", "before study.json", "while checkpoints went"])
def test_killed_while_it_was_saved_it_is_saved_again(run: Path, tmp_path: Path, moment: str) -> None:
    shutil.copytree(run / "checkpoint", tmp_path / "left")
    foldwise.resume(run)
    whole = shutil.copytree(run, tmp_path / "whole")
    left = ".checkpoint-0a" if moment == "while checkpoints went" else "checkpoint"
    shutil.copytree(tmp_path / "left", run / left)
    if left != "checkpoint":
        with pytest.raises(StoreError, match="is finished"):
            foldwise.resume(run)
        return
    (run / "report.html").unlink()
    if moment == "before study.json":
        (run / "study.json").unlink()
    foldwise.resume(run)
    same(whole, run)


def test_openings_of_the_test_rows_stay_on_record(tmp_path: Path) -> None:
    asked = {"target": "price", "test": 0.3, "folds": 2, "search": SEARCH, "out": tmp_path / "run"}
    frame = studies.table("regression")
    foldwise.fit(frame, display=Stopping(9), **asked)
    opening = foldwise.load(tmp_path / "run").open_test()
    assert opening.times_opened == 1
    foldwise.resume(tmp_path / "run", frame, display=Stopping(9))
    (tmp_path / "run" / "study.json").unlink()  # killed while it was being replaced
    study = foldwise.resume(tmp_path / "run", frame)
    assert foldwise.load(tmp_path / "run").openings == study.openings == [opening.record()]
    assert study.open_test().times_opened == 2


def test_no_run_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no run"):
        foldwise.resume(tmp_path)


def test_another_table_is_refused(run: Path, original: Path, tmp_path: Path) -> None:
    other = studies.table("regression").with_columns(size=pl.col("size") + 1e-9)
    with pytest.raises(DataError, match="not the one that the study was made from"):
        foldwise.resume(run, other)
    moved = tmp_path / "moved.csv"
    shutil.copy(original / "table.csv", moved)
    assert not foldwise.resume(run, moved).interrupted


def test_a_table_that_is_gone_is_asked_for(run: Path, original: Path, tmp_path: Path) -> None:
    for place in (run / "checkpoint").glob("0*"):
        shutil.rmtree(place)
    with pytest.raises(StoreError, match="no checkpoint to go on with") as caught:
        foldwise.resume(run)
    assert "fit" in caught.value.hint


@pytest.mark.parametrize(
    "useless",
    [{"net": zoo.Residual}, {"loss": zoo.log_cosh}, {"links": [zoo.ECHO]}],
    ids=["net", "loss", "links"],
)
def test_what_the_study_does_not_have_is_refused(run: Path, useless: dict[str, Any]) -> None:
    with pytest.raises(FoldwiseError, match="no effect"):
        foldwise.resume(run, **useless)


def test_the_newest_whole_checkpoint_is_used_and_said(run: Path, original: Path) -> None:
    newest = max((run / "checkpoint").glob("0*"))
    with (newest / "state.safetensors").open("r+b") as file:
        file.seek(-3, os.SEEK_END)
        file.write(b"\x7f")
    display = Stopping(0)
    study = foldwise.resume(run, display=display)
    [said] = display.warnings
    assert str(newest) in said
    assert "is used instead" in said
    assert not study.interrupted
    whole = foldwise.fit(original / "table.csv", target="price", folds=2, search=SEARCH)
    assert study.history.equals(whole.history)


def test_without_a_whole_checkpoint_every_one_is_named(run: Path) -> None:
    places = [*(run / "checkpoint").glob("0*")]
    for place in places:
        (place / "manifest.json").write_text("{")
    with pytest.raises(StoreError, match="no checkpoint to go on with") as caught:
        foldwise.resume(run)
    assert all(str(place) in caught.value.problem for place in places)


def test_numbers_that_no_such_study_has_are_refused_although_the_files_are_whole(
    run: Path, original: Path
) -> None:
    """A checkpoint of other networks, under the identity of this study."""
    found = [c for c in checkpoints(run) if isinstance(c, Checkpoint)]
    assert found[0].state is not None
    plain, tensors = found[0].state
    tensors["stack0.state.step"] += 1
    from foldwise.store.checkpoint import write_checkpoint

    place = write_checkpoint(run, found[0].study, found[0].origin, (plain, tensors))
    display = Stopping(0)
    foldwise.resume(run, display=display)
    assert any(str(place) in said and "steps" in said for said in display.warnings)


def test_another_machine_is_remarked(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        study = foldwise.resume(run)
    finally:
        torch.set_num_threads(threads)
    said = f"training went on with threads {threads + 1} instead of {threads}"
    assert any(said in w for w in study.warnings)


# Processes that are killed

OFTEN = """
import sys
from foldwise import keeping
keeping.LEAST_SECONDS, keeping.SHARE = 0.0, 0
from foldwise.cli import main
main()
"""
LONG = {"network": "mlp", "width": [4, 8], "depth": 1, "epochs": 20, "dropout": 0.1, "learning_rate": 0.01}


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-c", OFTEN, *map(str, arguments)]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table, a search and the run that was never stopped."""
    place = tmp_path_factory.mktemp("desk")
    studies.table("multiclass", rows=60).write_csv(place / "table.csv")
    (place / "search.json").write_text(json.dumps(LONG))
    done = subprocess.run(fit(place, "whole"), cwd=place, capture_output=True, text=True, check=False)
    assert (place / "whole" / "study.json").exists(), done.stderr
    return place


def fit(desk: Path, out: str, *more: str) -> list[str]:
    table, search = desk / "table.csv", desk / "search.json"
    return command("fit", table, "-t", "kind", "--folds", 2, "--search", search, "-o", desk / out, *more)


def killed_after(doing: list[str], seconds: float, run: Path, how: int = signal.SIGKILL) -> bool:
    """Start a process, and kill it some time after its first checkpoint; tell whether it was still going."""
    with subprocess.Popen(doing, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while process.poll() is None and not [*run.glob("checkpoint/0*")]:
            time.sleep(0.01)
        time.sleep(seconds)
        process.send_signal(how)
        _, err = process.communicate()
    assert process.returncode in (0, 1, -how, 130), err.decode()
    assert b"Traceback" not in err, err.decode()
    return process.returncode not in (0, 1)


def until_done(desk: Path, out: str, moments: Callable[[], float], most: int) -> int:
    """Kill a fit and its resumptions at some moments, then let the last one end; gives how often it was killed."""
    run = desk / out
    kills = int(killed_after(fit(desk, out), moments(), run))
    while kills < most and (run / "checkpoint").exists():
        kills += killed_after(command("resume", run), moments(), run)
    if (run / "checkpoint").exists():
        done = subprocess.run(command("resume", run), capture_output=True, text=True, check=False)
        assert done.returncode in (0, 1), done.stderr
    return kills


def test_killed_resumed_equal(desk: Path) -> None:
    draw = random.Random(1)
    assert until_done(desk, "killed", lambda: draw.uniform(0.1, 0.6), most=2)
    same(desk / "whole", desk / "killed")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_killed_many_times_resumed_equal(desk: Path, seed: int) -> None:
    draw = random.Random(seed)
    run = f"killed {seed}"
    assert until_done(desk, run, lambda: draw.uniform(0.0, 2.0), most=5) > 1
    same(desk / "whole", desk / run)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_asked_to_end_it_says_how_to_go_on(desk: Path, how: signal.Signals) -> None:
    run = desk / how.name
    quiet = ["--quiet"] if how == signal.SIGTERM else []
    doing = fit(desk, how.name, *quiet)
    with subprocess.Popen(doing, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and len([*run.glob("checkpoint/0*")]) < 2:
            time.sleep(0.01)
        process.send_signal(how)
        out, err = process.communicate()
    assert process.returncode == 130, err
    assert out == f"{run / 'report.html'}\n"
    assert f"foldwise resume {run}" in err
    assert foldwise.load(run).interrupted
    done = subprocess.run(command("resume", run), capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    assert done.stdout == f"{run / 'report.html'}\n"
    same(desk / "whole", run)


def test_the_command_line_resumes(run: Path, original: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["resume", str(run), "--data", str(original / "table.csv"), "--quiet"])
    assert ended.value.code in (0, 1)
    assert capsys.readouterr().out == f"{run / 'report.html'}\n"
    with pytest.raises(SystemExit) as ended:
        cli.main(["resume", str(run)])
    assert ended.value.code == 2
    assert "is finished" in capsys.readouterr().err


def test_a_study_that_ends_leaves_no_checkpoint(desk: Path) -> None:
    assert not (desk / "whole" / "checkpoint").exists()
    study: Study = foldwise.load(desk / "whole")
    assert not study.interrupted
