"""A final network: one that learns from all development rows, for as long as its trial was found to need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from foldwise import collect
from foldwise.data.folds import Folds
from foldwise.data.table import Table
from foldwise.engine.links import Link
from foldwise.engine.loop import Progress
from foldwise.engine.losses import OwnLoss
from foldwise.engine.pace import Pace, stretched
from foldwise.engine.predict import Refit
from foldwise.errors import PlanError
from foldwise.job import Job
from foldwise.judge.metrics import choose_metric
from foldwise.nets.build import Net
from foldwise.plans.plan import Plan
from foldwise.plans.policy import TO_THE_END, StopAt
from foldwise.settings import Settings

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Means:
    """What a network is trained with beside rows and settings."""

    net: Net | None = None
    loss: OwnLoss | None = None
    links: Sequence[Link] = ()
    device: torch.device = CPU
    dtype: torch.dtype = torch.float32
    engine: str = "auto"


def _quiet(now: Progress) -> None:
    """Show nothing."""


def train_on_all(
    table: Table,
    settings: Settings,
    seeds: Sequence[int],
    means: Means,
    *,
    until: int | None = None,
    trial: int = 1,
    watch: Callable[[Progress], None] = _quiet,
) -> Refit:
    """Train one network for each seed on all rows of a table, and keep the last epoch, or the epoch `until`.

    Raises PlanError when one diverges, KeyboardInterrupt when the user interrupts.
    """
    plan = Plan("refit", (settings,), 1, tuple(seeds), keep="last")
    policy = TO_THE_END if until is None else StopAt(until)
    job = Job(
        table, plan, _all_rows(len(table.features), settings), choose_metric(None, table.task), means.net,
        means.device, means.dtype, loss=means.loss, links=means.links, policy=policy, engine=means.engine,
    )  # fmt: skip
    if not job.train(watch):
        raise KeyboardInterrupt
    [course], [stack] = job.field.courses, job.stacks
    if course.kept_epoch == 0 and settings.epochs:
        raise PlanError(
            f"training on all rows diverged at epoch {course.epoch}.",
            hint="a smaller learning_rate, or clip_norm",
        )
    rows = stack.cohort.rows
    [models] = collect.models(job)
    return Refit(
        trial, course.kept_epoch, len(table.features), models, rows.constants.to("cpu"), rows.scalings,
        rows.target_units(),
    )  # fmt: skip


def _all_rows(rows: int, settings: Settings) -> Folds:
    """Make the fold that learns from all rows.

    The engine wants rows to look at. It gets one, so that looking costs nothing; the schedule `plateau` gets all, and
    so follows the loss on the rows that it learns from.
    """
    looked_at = np.zeros((1, rows), dtype=bool)
    looked_at[:, : rows if settings.schedule == "plateau" else 1] = True
    return Folds(np.ones((1, rows), dtype=bool), looked_at, "all rows")


def as_many_steps(
    settings: Settings, epochs: int, fold_rows: Sequence[int], rows: int, whole: Settings | None = None
) -> int:
    """Give the epochs over all rows that make about as many steps as so many over the rows of folds.

    `whole` are the settings over all rows, where they are others.

    >>> as_many_steps(Settings(batch_size=10), 20, [80, 80], 100)
    16
    """
    pace = Pace.of(settings)
    wanted = float(np.mean([pace.total_steps(n, epochs) for n in fold_rows]))
    counts = range(1, epochs + 1) if epochs else [0]
    over_all = pace if whole is None else Pace.of(whole)
    return min(counts, key=lambda e: abs(over_all.total_steps(rows, e) - wanted))


def settings_on_all(
    settings: Settings, epochs: int, fold_rows: Sequence[int], rows: int
) -> tuple[Settings, int]:
    """Give the settings for a training on all rows, and the epoch at which it stops: chosen on folds as `epochs`.

    Steps are what is carried over, not epochs: a rate that falls over the steps, and stops at the chosen one, is then
    the same as it was in the folds; so is one that falls over the epochs, which are counted in steps of the folds.
    """
    pace = Pace.of(settings)
    longer = float(np.mean([pace.count(n, 1)[0] for n in fold_rows])) / pace.count(rows, 1)[0]
    whole = stretched(settings, longer)
    last, until = (as_many_steps(settings, e, fold_rows, rows, whole) for e in (settings.epochs, epochs))
    changed: dict[str, Any] = {"epochs": last, "early_stopping": 0}
    return whole.model_copy(update=changed), min(last, until)
