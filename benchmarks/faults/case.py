"""What the fault benchmark runs: tasks with clean rows to test on; cases, each a planted fault or a control."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from sklearn.datasets import load_digits

import foldwise
from benchmarks.defaults.sets import options
from foldwise.checks.finding import Finding
from foldwise.data.read import read_table

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
    """What became of a run: the findings, and the score on clean rows: the accuracy, or R²; −∞ when it diverged."""

    findings: list[Finding]
    score: float
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
    """Draw the tasks: `abalone` and `california` (regression), `spambase`, `phoneme` (binary) and `digits` (images)."""
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


def studied(
    task: Task, seed: int, settings: Mapping[str, Any] = {}, *, remedies: bool = True, **arguments: Any
) -> Outcome:
    """Fit a study of one trial on a task, with settings other than `SETTINGS` and arguments of `foldwise.fit`."""
    given: dict[str, Any] = {"target": task.target, "folds": 5, "seed": seed, "remedies": remedies}
    if task.kind == "regression":
        given["task"] = "regression"
    base = {**SETTINGS, **settings}
    if "net" in arguments:
        base = {k: v for k, v in base.items() if k not in ("width", "depth") or k in settings}
    study = foldwise.fit(
        task.train, search=base, **{**given, **arguments}, display=foldwise.terminal.Display()
    )
    trial = max(r.number for r in study.results)
    return Outcome(
        study.findings, scored(study, task, trial), study.findings[0].step or 0 if study.findings else 0
    )


def scored(study: foldwise.Study, task: Task, trial: int) -> float:
    """Score the ensemble of a trial on the clean rows: accuracy, or R²."""
    result = next(r for r in study.results if r.number == trial)
    if not np.isfinite(result.score):
        return -np.inf
    said = study.predict(task.test.drop(task.target), trial=trial)
    truth = task.test[task.target].to_numpy()
    if task.kind == "regression":
        errors = said["prediction"].to_numpy() - truth
        return float(1 - np.square(errors).mean() / truth.var())
    chosen = said.select(pl.col("^probability of .*$"))
    labels = [name.removeprefix("probability of ") for name in chosen.columns]
    best = np.array(labels)[chosen.to_numpy().argmax(axis=1)]
    return float((best == truth.astype(str)).mean())


def plain(task: Task, seed: int) -> Outcome:
    """Fit a task as it is: no alarm is allowed."""
    return studied(task, seed)
