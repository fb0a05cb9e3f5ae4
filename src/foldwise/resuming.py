"""resume(): a study that was stopped goes on, and ends as if it had not been."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from foldwise.data.table import open_again
from foldwise.devices import device_of, dtype_of
from foldwise.engine.links import Link
from foldwise.engine.losses import OwnLoss
from foldwise.engine.snapshot import restore
from foldwise.errors import NetworkError, SettingsError, StoreError
from foldwise.fitting import carry_out, with_scale
from foldwise.job import Job
from foldwise.judge.metrics import metric_called
from foldwise.keeping import Keeper, changed
from foldwise.nets.build import Net
from foldwise.plans.policy import TO_THE_END, Policy
from foldwise.recall import frame_again
from foldwise.store.checkpoint import Checkpoint, checkpoints, refused
from foldwise.store.environment import environment
from foldwise.store.files import unfinished
from foldwise.store.folder import read_description, read_openings
from foldwise.store.lock import sole_writer
from foldwise.store.origin import Asked, Origin
from foldwise.study import Study
from foldwise.terminal import Display, default_display


def resume(
    folder: str | Path,
    data: Any = None,
    *,
    net: Net | None = None,
    loss: OwnLoss | None = None,
    links: Sequence[Link] = (),
    display: Display | None = None,
) -> Study:
    """Go on with a study that was killed or interrupted, and finish it as `fit` would have.

    On the same machine the study is the same, bit for bit, as one that was never stopped.

    Args:
        folder: its run folder.
        data: the table, or (X, y), when it came from memory or is no longer where it was; its cells must be the same.
        net, loss, links: those of your own, when the study used some; they must be the same too.
        display: what shows columns, plan and progress; by default the terminal, if stderr is one.

    Raises:
        StoreError: there is nothing to go on with: no run, a finished one, or no checkpoint that is whole; or another
            process is at it.
        DataError: the table is not there, or is another one.
        NetworkError, SettingsError: what is your own is missing, or is not that of the study.
    """
    folder, display = Path(folder), display or default_display()
    _refuse_finished(folder)
    with sole_writer(folder):
        _refuse_finished(folder)  # as another writer may just have done
        found, job = _newest(folder, data, net, loss, links, display)
        asked = found.origin.asked
        display.columns(asked.columns)
        display.plan(with_scale(asked.summary, job))
        now = environment(str(job.device))
        asked = replace(
            asked,
            environment=now,
            remarks=tuple(dict.fromkeys([*asked.remarks, *changed(asked.environment, now)])),
            openings=_openings(folder, asked),
        )
        keeper = Keeper(job, replace(found.origin, asked=asked), folder, display.warn, found.study)
        if asked.openings:  # which are in study.json alone as yet, and that is written anew in the end
            keeper.write(begun=found.state is not None)
        return carry_out(job, keeper, folder, display)


def _refuse_finished(folder: Path) -> None:
    """Refuse a folder without checkpoints, which go last: there is no run, or a finished one, or nothing was kept."""
    if unfinished(folder):
        return
    if read_description(folder).get("interrupted"):
        raise StoreError(
            f"the run in {folder} was interrupted and has no checkpoint.",
            hint="train it again: foldwise fit … --overwrite",
        )
    raise StoreError(f"the run in {folder} is finished.", hint="foldwise.load, predict and report use it")


def _openings(folder: Path, asked: Asked) -> tuple[dict[str, Any], ...]:
    """Give the openings of the test rows that are on record, also those while the run was interrupted."""
    if not (folder / "study.json").exists():
        return asked.openings
    said = read_description(folder)
    # else it is the run that was there before, which stays until this one is complete
    own = said.get("interrupted") and said["source"]["fingerprint"] == asked.source.fingerprint
    return max(asked.openings, tuple(read_openings(folder)) if own else (), key=len)


def _newest(
    folder: Path, data: Any, net: Net | None, loss: OwnLoss | None, links: Sequence[Link], display: Display
) -> tuple[Checkpoint, Job]:
    """Find the newest checkpoint that can be gone on with, and make the job as it was then."""
    problems: list[StoreError] = []
    for found in checkpoints(folder):
        if isinstance(found, StoreError):
            problems.append(found)
            continue
        _refuse_other_own(found.origin.asked, net, loss, links)
        try:
            job = _job_again(found.origin, data, net, loss, links)
            if found.state is not None:
                restore(job.field, job.policy, *found.state)
        except ValueError as error:
            problems.append(refused(found.place, error))
            continue
        for problem in problems:
            display.warn(f"{problem.problem} {found.place.name} is used instead.")
        return found, job
    said = "\n".join(problem.problem for problem in problems) or "There is none."
    raise StoreError(
        f"the run in {folder} has no checkpoint to go on with.\n{said}",
        hint="train it again: foldwise fit … --overwrite",
    )


def _refuse_other_own(asked: Asked, net: Net | None, loss: OwnLoss | None, links: Sequence[Link]) -> None:
    """Refuse when what is the user's own is missing, or given though the study has none."""
    if asked.own_net is not None and net is None:
        raise NetworkError(
            f"this study trains a network of your own, `{asked.own_net}`.",
            hint="give it again: net=MyNet, or --net FILE.py:NAME",
        )
    if asked.own_loss is not None and loss is None:
        raise SettingsError(
            f"this study minimizes a loss of your own, `{asked.own_loss}`.",
            hint="give it again: loss=my_loss, or --loss FILE.py:NAME",
        )
    if asked.own_links and not links:
        raise SettingsError(
            "this study trains with links of your own.",
            hint="give them again: links=[…], or --link FILE.py:NAME",
        )
    if net is not None and asked.own_net is None:
        raise NetworkError(
            "`net` has no effect: this study trains no network of your own.", hint="leave it out"
        )
    if loss is not None and asked.own_loss is None:
        raise SettingsError("`loss` has no effect: this study has no loss of your own.", hint="leave it out")
    if links and not asked.own_links:
        raise SettingsError("`links` have no effect: this study has none of your own.", hint="leave them out")


def _job_again(
    origin: Origin, data: Any, net: Net | None, loss: OwnLoss | None, links: Sequence[Link]
) -> Job:
    """Make a job from what it was made from; raises ValueError when the rows are not those of the table."""
    asked = origin.asked
    frame = frame_again(asked.source, asked.task.targets, data)
    last = max(origin.row[-1], -1 if origin.sealed_row is None else origin.sealed_row[-1])
    if last >= frame.height:
        raise ValueError(f"it has a row {last}, and the table {frame.height} rows")
    table = open_again(
        frame, asked.source, row=origin.row, sealed_row=origin.sealed_row, task=asked.task, columns=asked.columns,
        weighting=asked.weighting, weights=origin.weights, sealed_weights=origin.sealed_weights,
    )  # fmt: skip
    metric = metric_called(asked.metric)
    assert metric is not None, "which reading it has seen to"
    policy: Policy = TO_THE_END
    if asked.searched is not None:
        plan, policy = asked.searched.again(net, loss, links)
        if plan != asked.plan:
            raise ValueError("its trials are not those of its search")
    job = Job(
        table, asked.plan, origin.folds, metric, net, device_of(asked.device), dtype_of(asked.dtype), asked.chunk,
        loss=loss, links=tuple(links), policy=policy, searched=asked.searched, engine=asked.engine,
        compile=asked.compile,
    )  # fmt: skip
    if type(job.policy).__name__ != asked.policy:
        raise ValueError(f"its policy {asked.policy} is not known")
    return job
