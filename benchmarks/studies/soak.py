"""A study that is killed fifty times and resumed each time must end as if nothing had happened."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import polars as pl

import foldwise
from benchmarks.measure import Missing
from benchmarks.render import Line

METHOD = """`foldwise fit --example digits --out RUN` is killed with SIGKILL at a random moment, 2 to 6 seconds after it
began, `foldwise resume RUN` again and again, 50 times in all, and then left to end. Checkpoints are written every half
second instead of every ten, so that 50 kills fit into minutes. The leaderboard, history.parquet and predictions.parquet
must be equal, value by value, to those of a run that nobody disturbed."""
OFTEN = """
import foldwise.keeping
foldwise.keeping.LEAST_SECONDS = 0.5
from foldwise.cli import main
main()
"""
COMMAND = [sys.executable, "-c", OFTEN]
SEARCH = {"network": "mlp", "width": 128, "learning_rate": [1e-3, 3e-3], "dropout": 0.2}
TABLES = ("history.parquet", "predictions.parquet")


def fit_command(run: Path, epochs: int) -> list[str]:
    """Say how the study is started."""
    search = run.parent / "search.json"
    search.write_text(json.dumps({**SEARCH, "epochs": epochs}))
    return [*COMMAND, "fit", "--example", "digits", "--search", str(search), "--out", str(run)]


def to_the_end(command: list[str]) -> float:
    """Let a command end by itself; 1 only means that there are warnings."""
    start = time.perf_counter()
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise AssertionError(f"{' '.join(command)} failed: {done.stderr[-2000:]}")
    return time.perf_counter() - start


def killed(command: list[str], after: float) -> bool:
    """Kill a command some seconds after its start; False when it ended before."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        _, said = process.communicate(timeout=after)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return True
    if process.returncode not in (0, 1):
        raise AssertionError(f"{' '.join(command)} failed with {process.returncode}: {said.decode()[-2000:]}")
    return False


def different(one: Path, other: Path) -> list[str]:
    """Name the tables that are not the same."""
    differ = [
        name for name in TABLES if not pl.read_parquet(one / name).equals(pl.read_parquet(other / name))
    ]
    boards = (foldwise.load(run).leaderboard for run in (one, other))
    return differ if next(boards).equals(next(boards)) else ["leaderboard", *differ]


def run(quick: bool) -> dict[str, Any]:
    """Kill and resume, and compare."""
    if subprocess.run([*COMMAND, "resume", "--help"], check=False, capture_output=True).returncode:
        raise Missing("there is no `foldwise resume` yet")
    wanted, epochs, moments = (3, 200, random.Random(0)) if quick else (50, 4_000, random.Random(0))
    with tempfile.TemporaryDirectory() as folder:
        undisturbed, run = Path(folder) / "undisturbed", Path(folder) / "run"
        seconds = to_the_end(fit_command(undisturbed, epochs))
        kills = early = rounds = 0
        while kills < wanted:
            rounds += 1
            # before there is a folder there is nothing to resume, and the study starts anew
            begun = run.exists()
            command = [*COMMAND, "resume", str(run)] if begun else fit_command(run, epochs)
            if killed(command, moments.uniform(2, 6)):
                kills, early = kills + 1, early + (not run.exists())
            elif kills < wanted:
                raise AssertionError(f"the study ended after {kills} kills: give it more epochs")
        to_the_end([*COMMAND, "resume", str(run)])
        if differ := different(undisturbed, run):
            raise AssertionError(f"after {kills} kills these differ: {', '.join(differ)}")
    return {"kills": kills, "before_there_was_a_folder": early, "seconds_undisturbed": seconds, "equal": True}


def table(figures: dict[str, Any]) -> str:
    """Say what happened."""
    f = figures
    return (
        f"{f['kills']} kills, {f['before_there_was_a_folder']} of them before there was a run folder; "
        f"the undisturbed run takes {f['seconds_undisturbed']:.0f} s. All tables are equal."
    )


def summary(figures: dict[str, Any]) -> list[Line]:
    """Show that nothing was lost."""
    what = f"a study killed {figures['kills']} times (SIGKILL) and resumed"
    return [Line(what, "the undisturbed run", "equal in every table", "equal", figures["equal"])]
