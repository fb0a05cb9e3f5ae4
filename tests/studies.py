"""Small tables, and studies of them that take a fraction of a second: no baselines but those asked for."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import torch

from foldwise.data.folds import Folds, make_folds
from foldwise.data.table import open_table, read_source
from foldwise.engine.loop import Progress
from foldwise.fitting import folds_of, gather
from foldwise.job import Job
from foldwise.judge.metrics import choose_metric
from foldwise.nets.build import Net
from foldwise.plans.defaults import LOSSES_OF_TASK
from foldwise.plans.plan import Plan
from foldwise.settings import Settings, make_settings
from foldwise.study import Study

torch.set_num_threads(1)

DEVICE = torch.device(os.environ.get("FOLDWISE_TEST_DEVICE", "cpu"))

SMALL: dict[str, Any] = {"network": "mlp", "width": 5, "depth": 1, "epochs": 3, "batch_size": 16}
TASKS = {
    "regression": ["price"],
    "log regression": ["income"],
    "two numbers": ["price", "income"],
    "binary": ["ill"],
    "multiclass": ["kind"],
    "multilabel": ["red", "round"],
    "soft": ["p", "q", "r"],
}
KIND_OF_TASK = {"log regression": "regression", "two numbers": "regression", "soft": "multiclass"}


def table(task: str, rows: int = 47, seed: int = 0) -> pl.DataFrame:
    """Draw a table whose targets follow from its columns, with missing cells, categories and a flag."""
    random = np.random.default_rng(seed)
    size, age = random.normal(size=rows), random.uniform(1, 90, size=rows).round(1)
    color = random.choice(["red", "green", "blue"], size=rows)
    signal = size + 0.02 * age + 0.5 * (color == "red") + 0.2 * random.normal(size=rows)
    shares = np.exp(np.stack([signal, -signal, 0 * signal], axis=1))
    shares = (shares / shares.sum(axis=1, keepdims=True)).round(3)
    shares[:, 2] = 1 - shares[:, :2].sum(axis=1)
    above = signal > np.median(signal)
    answers = {
        "price": 100 + 7 * signal,
        "income": np.exp(3 + signal),
        "ill": np.where(above, "yes", "no"),
        "kind": np.array(["a", "b", "c"])[np.digitize(signal, np.quantile(signal, [0.3, 0.6]))],
        "red": above.astype(int),
        "round": (size > 0).astype(int),
        **dict(zip("pqr", shares.T, strict=True)),
    }
    missing = random.random(rows) < 0.1
    return pl.DataFrame(
        {
            "size": size,
            "age": [None if gone else a for a, gone in zip(age, missing, strict=True)],
            "color": color,
            "old": age > 50,
            **{name: answers[name] for name in TASKS[task]},
        }
    )


def job(
    frame: pl.DataFrame,
    task: str,
    trials: Sequence[Mapping[str, Any]] = ({},),
    *,
    folds: int | Folds = 3,
    seeds: int = 1,
    holdout: float | None = None,
    metric: str | None = None,
    net: Net | None = None,
    dtype: torch.dtype = torch.float64,
    chunk: int | None = None,
    device: torch.device = DEVICE,
    **opening: Any,
) -> Job:
    """Make a plan of some trials, each over `SMALL`, ready to train."""
    frame, targets, source = read_source(frame, None, TASKS[task], None, {})
    if task == "soft":
        opening["task"] = "multiclass"
    opened = open_table(frame, targets, source, **opening)
    loss = LOSSES_OF_TASK[opened.task.kind][0]
    made = tuple(settings(loss, values) for values in trials)
    divided = folds if isinstance(folds, Folds) else folds_of(opened, folds, 1, holdout, 0)
    plan = Plan("cross-validation", made, len(divided), tuple(range(seeds)))
    chosen = choose_metric(metric, opened.task)
    return Job(opened, plan, divided, chosen, net, device, dtype, chunk)


def settings(loss: str, values: Mapping[str, Any]) -> Settings:
    """Fill up settings, without those that a network does not have."""
    return make_settings(values, base={"loss": loss, **SMALL})


UNEQUAL = make_folds(47, numbers=np.repeat([0, 1, 2], [8, 12, 27]))
"""Folds of unequal size over the rows of `table`."""


def interrupt(now: Progress) -> None:
    """Press Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)


def quiet(now: Progress) -> None:
    """Show nothing."""


def study(job: Job, watch: Callable[[Progress], None] = quiet) -> Study:
    """Train a job and judge it."""
    summary = job.summary()
    completed = job.train(watch)
    return gather(job, summary, "a test", completed=completed)
