"""Checkpoints of a study while it trains, so that nothing is lost when it is stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from foldwise.engine.loop import PlanSummary
from foldwise.engine.snapshot import snapshot
from foldwise.job import Job
from foldwise.plans.policy import TO_THE_END
from foldwise.store.checkpoint import begin, forget, write_checkpoint
from foldwise.store.environment import environment
from foldwise.store.origin import Asked, Origin
from foldwise.store.plain import reason

LEAST_SECONDS = 10.0  # between two checkpoints, and before the first
SHARE = 20  # what one costs is at most this part of the time


def origin_of(
    job: Job, summary: PlanSummary, command: str, checks: bool = True, remedies: bool = True
) -> Origin:
    """Write down what a job was made from, and what is to be done when it is trained."""
    table = job.table
    asked = Asked(
        source=table.source,
        task=table.task,
        columns=table.columns,
        weighting=table.weighting,
        plan=job.asked,
        how=job.folds.how,
        metric=job.metric.name,
        device=str(job.device),
        dtype=str(job.dtype).removeprefix("torch."),
        chunk=job.chunk,
        engine=job.engine,
        compile=job.compile,
        searched=job.searched,
        policy=type(job.policy).__name__,
        own_net=_name(job.net),
        own_loss=_name(job.loss),
        own_links=len(job.links) > 0,
        summary=summary,
        command=command,
        environment=environment(str(job.device)),
        checks=checks,
        remedies=remedies,
    )
    return Origin(asked, job.folds, table.row, table.weights, table.sealed_row, table.sealed_weights)


def _name(own: Any) -> str | None:
    return None if own is None else str(getattr(own, "__name__", type(own).__name__))


class Keeper:
    """Writes checkpoints into a run folder: now and then, and when training is broken off.

    None of them takes part in the training: one that fails is said once and tried again later.

    Args:
        job: what is trained.
        origin: what it was made from.
        folder: the run folder; without one nothing is kept.
        warn: what shows warnings.
        study: the identity under which earlier checkpoints of the same study were written.
        wanted: whether to write any.
    """

    def __init__(
        self,
        job: Job,
        origin: Origin,
        folder: Path | None,
        warn: Callable[[str], None],
        study: str = "",
        wanted: bool = True,
    ) -> None:
        self.job, self.origin, self.folder, self.warn, self.study = job, origin, folder, warn, study
        self.wanted = wanted
        self.failed = False
        self.due = time.monotonic() + LEAST_SECONDS

    def begin(self) -> None:
        """Take away the checkpoints of an earlier study, and write one of a study that has not begun to train."""
        if (
            self.wanted
            and self.folder is not None
            and self.job.policy is not TO_THE_END
            and self.job.searched is None
        ):
            self.wanted = False
            self.warn(
                "a sampler that is an object cannot be stored: when this study is stopped, it cannot go on"
            )
        if self.folder is not None:
            with suppress(OSError):  # where it cannot be taken away, `write` says so
                forget(self.folder)
            self.write(begun=False)
            self.due = time.monotonic() + LEAST_SECONDS

    def refresh(self) -> None:
        """Write a checkpoint when one is due."""
        if time.monotonic() >= self.due:
            self.write()

    def write(self, begun: bool = True) -> None:
        """Write a checkpoint; whatever fails is no reason to stop training."""
        if self.folder is None or not self.wanted:
            return
        started = time.monotonic()
        try:
            self.study = self.study or begin(self.folder)
            write_checkpoint(
                self.folder, self.study, self.origin, snapshot(self.job.field) if begun else None
            )
        except Exception as error:
            self._say(error)
        ended = time.monotonic()
        self.due = ended + max(LEAST_SECONDS, SHARE * (ended - started))

    def _say(self, error: Exception) -> None:
        if not self.failed:
            self.warn(
                f"no checkpoint could be written to {self.folder} ({reason(error)}); training goes on, and it is "
                "tried again"
            )
        self.failed = True

    def end(self) -> None:
        """Take the checkpoints away, because the study is finished and saved."""
        if self.folder is not None:
            with suppress(OSError):
                forget(self.folder)


def changed(before: dict[str, str], now: dict[str, str]) -> Sequence[str]:
    """Say what of the machine and the libraries is other than before, and can change the last bits of a number.

    >>> changed({"torch": "2.6", "threads": "2"}, {"torch": "2.6", "threads": "1"})
    ['training went on with threads 1 instead of 2: the last bits of numbers may differ']
    """
    deciding = ("foldwise", "torch", "system", "threads", "device")
    return [
        f"training went on with {name} {now.get(name)} instead of {before.get(name)}: "
        "the last bits of numbers may differ"
        for name in deciding
        if before.get(name) != now.get(name)
    ]
