"""What the fault benchmark runs: tasks with clean rows to test on; cases, each a planted fault or a control."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from sklearn.datasets import load_digits

import foldwise
from benchmarks.defaults.sets import options
from foldwise.checks.finding import Finding
from foldwise.data.read import read_table
from foldwise.terminal import Display

ROWS, TEST_ROWS = 600, 1500


@dataclass(frozen=True)
class Task:
    """Rows to learn from and clean rows to test on, drawn by seed; `target` is the column that is learned."""

    name: str
    kind: str  # regression, binary or multiclass
    target: str
    train: pl.DataFrame
    test: pl.DataFrame

    def with_train(self, train: pl.DataFrame) -> Task:
        """Give the same task with other rows to learn from; the rows to test on stay clean."""
        return replace(self, train=train)


@dataclass(frozen=True)
class Outcome:
    """What became of a run: the findings, and the score on clean rows: the accuracy, or R²; −∞ when it diverged.

    `claimed` is the same score as validation has it: a fault of the evaluation does not hurt the network, and makes
    it look better than it is. NaN where nothing is claimed.
    """

    findings: list[Finding]
    score: float
    claimed: float = math.nan
    steps: int = 0


@dataclass(frozen=True)
class Case:
    """A planted fault, or a control when `causes` is empty.

    `causes` are the codes of checks that name the cause rightly. `run` plants it in a task, with a seed. `tasks` names
    those that it makes sense on; empty: all. `healthy` is the same run without the fault, by which it is seen whether
    the fault hurts: by default `plain` or `loops.plain`.
    """

    name: str
    causes: tuple[str, ...]
    run: Callable[[Task, int], Outcome]
    healthy: Callable[[Task, int], Outcome] | None = None
    tasks: tuple[str, ...] = ()


def tasks(seed: int, rows: int = ROWS) -> dict[str, Task]:
    """Draw the tasks whose data are there: two of regression, two of two classes, and small images (`digits`)."""
    pixels, labels = load_digits(return_X_y=True)
    digits = pl.DataFrame({f"p{i}": pixels[:, i] for i in range(64)}).with_columns(y=pl.Series(labels))
    found = {"digits": _drawn("digits", "multiclass", "y", digits, seed, rows)}
    for name, of, kind in (
        ("abalone", "abalone", "regression"),
        ("california", "california-housing", "regression"),
        ("spambase", "spambase", "binary"),
        ("phoneme", "phoneme", "binary"),
    ):
        given = options(of)
        if not given["data"].exists():  # the sets lie beside the project, not in it
            continue
        found[name] = _drawn(name, kind, given["target"], read_table(given["data"]), seed, rows)
    return found


def _drawn(name: str, kind: str, target: str, frame: pl.DataFrame, seed: int, rows: int) -> Task:
    order = np.random.default_rng(seed).permutation(frame.height)
    test = min(TEST_ROWS, frame.height - rows)
    return Task(name, kind, target, frame[order[:rows].tolist()], frame[order[rows : rows + test].tolist()])


SETTINGS: dict[str, Any] = {
    "width": 32, "depth": 2, "learning_rate": 0.003, "batch_size": 32, "epochs": 30, "optimizer": "adam",
    "schedule": "constant",
}  # fmt: skip


_only_scores = ContextVar("only_scores", default=False)


@contextmanager
def only_scores() -> Iterator[None]:
    """Run cases without checks and remedies, to see what a fault does to the score."""
    token = _only_scores.set(True)
    try:
        yield
    finally:
        _only_scores.reset(token)


_witness: ContextVar[Callable[[foldwise.Study], None] | None] = ContextVar("witness", default=None)


@contextmanager
def witnessed(see: Callable[[foldwise.Study], None]) -> Iterator[None]:
    """Show every study that `studied` trains meanwhile, for instance to draw it; remedies are not tried for that."""
    token = _witness.set(see)
    try:
        yield
    finally:
        _witness.reset(token)


def show(study: foldwise.Study) -> None:
    """Show a study to who is a witness."""
    see = _witness.get()
    if see is not None:
        see(study)


def checking() -> bool:
    """Tell whether checks are to be run."""
    return not _only_scores.get()


def studied(
    task: Task, seed: int, settings: Mapping[str, Any] = {}, *, remedies: bool = True, **arguments: Any
) -> Outcome:
    """Fit a study of one trial on a task, with settings other than `SETTINGS` and arguments of `foldwise.fit`."""
    given: dict[str, Any] = {"target": task.target, "folds": 5, "seed": seed}
    given |= {"checks": checking(), "remedies": remedies and checking() and _witness.get() is None}
    if task.kind == "regression":
        given["task"] = "regression"
    base = {**SETTINGS, **settings}
    if "net" in arguments:
        base = {k: v for k, v in base.items() if k not in ("width", "depth") or k in settings}
    study = foldwise.fit(task.train, search=base, **{**given, **arguments}, display=Display())
    show(study)
    trial = max(r.number for r in study.results)
    steps = max((f.step or 0 for f in study.findings), default=0)
    return Outcome(study.findings, scored(study, task, trial), claimed(study, task, trial), steps)


def scored(study: foldwise.Study, task: Task, trial: int) -> float:
    """Score the ensemble of a trial on the clean rows: accuracy, or R²."""
    result = next(r for r in study.results if r.number == trial)
    if not np.isfinite(result.score):
        return -np.inf
    return _score(study.predict(task.test.drop(task.target), trial=trial), task.test[task.target], task)


def claimed(study: foldwise.Study, task: Task, trial: int) -> float:
    """Score a trial as validation does: its out-of-fold predictions of the rows that it was given."""
    said = study.predictions.filter(pl.col("trial") == trial)
    if not said.height or study.table is None:
        return math.nan
    means = said.drop("trial", "seed", "fold").group_by("row").mean().sort("row")
    places = np.searchsorted(study.table.row, means["row"].to_numpy())
    return _score(means.drop("row"), study.table.frame[places.tolist()][task.target], task)


def _score(said: pl.DataFrame, truth: pl.Series, task: Task) -> float:
    if task.kind == "regression":
        errors, numbers = said["prediction"].to_numpy() - truth.to_numpy(), truth.to_numpy()
        return float(1 - np.square(errors).mean() / numbers.var())
    chosen = said.select(pl.col("^probability of .*$"))
    labels = [name.removeprefix("probability of ") for name in chosen.columns]
    best = np.array(labels)[chosen.to_numpy().argmax(axis=1)]
    return float((best == truth.to_numpy().astype(str)).mean())


def plain(task: Task, seed: int) -> Outcome:
    """Fit a task as it is: no alarm is allowed."""
    return studied(task, seed)
