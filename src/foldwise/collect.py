"""What is collected from a trained job: losses, curves, predictions, and the networks that made them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import polars as pl
import torch
from torch import Tensor

from foldwise.data.target import Task
from foldwise.engine.predict import Models
from foldwise.engine.rows import Constants
from foldwise.engine.stack import Notes, Stack
from foldwise.job import Job
from foldwise.judge.metrics import natural, probabilities
from foldwise.judge.verdict import TrialRecord, row_losses
from foldwise.plans.plan import Member

NOTED = ("learning_rate", "clipped", "skipped")


def records(job: Job, live: bool = False) -> list[TrialRecord]:
    """Collect, trial by trial, the losses of its kept epoch; `live` while training goes on."""
    records: dict[int, TrialRecord] = {}
    for stack in job.stacks:
        outputs = _kept_outputs(stack)
        for trial in stack.trials:
            records[trial] = _record(job, stack, trial, outputs, live)
    return [records[t] for t in range(len(job.plan.trials))]


def _kept_outputs(stack: Stack) -> Tensor:
    folds = stack.cohort.folds(range(len(stack.members)))
    return stack.cohort.rows.unscaled(stack.kept.outputs, folds)


def _record(job: Job, stack: Stack, trial: int, outputs: Tensor, live: bool) -> TrialRecord:
    course, rows = stack.courses[trial], job.outer.validation_rows
    members = [stack.members[p] for p in stack.places[trial]]
    losses = {}
    for p, m in zip(stack.places[trial], members, strict=True):
        if m.fold >= len(rows):
            continue
        own = torch.from_numpy(rows[m.fold]).to(job.device)
        targets = job.targets[job.target_start(m.fold) + own]
        each = job.metric.per_row(outputs[p, : len(own)], targets, job.task)
        losses[m.seed, m.fold] = each.double().cpu().numpy()
    per_row, per_fold = row_losses(len(job.table.features), losses, rows, job.score_weights)
    epoch = course.kept_epoch
    if epoch == 0 and course.settings.epochs:
        per_row = np.where(np.isnan(per_row), np.nan, np.inf)  # rows of no fold stay without a loss
        per_fold = np.full_like(per_fold, np.inf)
    so_far = f"{'in' if live else 'stopped at'} epoch {max(0, course.epoch)}"
    first = 1 if course.settings.epochs else 0
    return TrialRecord(
        per_row, per_fold, epoch, course.ended or course.diverged or so_far,
        parameters=stack.cohort.layout.size,
        curve=_by_seed(job, members, course.scores[first : course.considered]).mean(axis=1),
        kept=max(0, epoch - first),
        members=_by_seed(job, members, course.scores[epoch : epoch + 1])[0],
    )  # fmt: skip


def _by_seed(job: Job, members: Sequence[Member], scores: Sequence[Sequence[float]]) -> np.ndarray:
    """Lay out the mean losses of a trial's outer members at some epochs: `[epochs, seeds, folds]`."""
    laid = np.full((len(scores), len(job.plan.seeds), len(job.outer)), np.nan)
    for column, m in enumerate(members):
        if m.fold < len(job.outer):
            laid[:, job.plan.seeds.index(m.seed), m.fold] = [own[column] for own in scores]
    return laid


def history(job: Job) -> pl.DataFrame:
    """Lay out every member's curves: one row per member and epoch.

    Beside the losses and the score it has the learning rate at the epoch's end, and the shares of its steps
    that were clipped or skipped, null where they could not be. With nested folds, `inner` counts the folds inside
    the outer fold `fold` from 1, and is null for the outer members themselves.
    """
    notes = [(stack, own) for stack in job.stacks for own in stack.notes]
    members = [stack.members[p] for stack, own in notes for p in own.places]
    finish = job.metric.finish
    return pl.DataFrame(
        {
            **member_columns(members),
            **_nested_columns(job, members),
            "epoch": np.concatenate([own.epoch for _, own in notes]),
            "training_loss": np.concatenate([own.training_loss for _, own in notes]),
            "validation_loss": np.concatenate([own.validation_loss for _, own in notes]),
            "score": [
                finish(x) if math.isfinite(x) else None for _, own in notes for x in own.score.tolist()
            ],
            **{name: pl.Series(_noted(name, [own for _, own in notes])).fill_nan(None) for name in NOTED},
        },
        schema_overrides={"score": pl.Float64, "epoch": pl.Int64},
    )


def _nested_columns(job: Job, members: Sequence[Member]) -> dict[str, pl.Series]:
    """Name inner members as users see them: their outer fold, and which of the folds inside it."""
    if job.folds.group is None:
        return {}
    group, number = job.folds.group, np.arange(len(job.folds))
    first = np.searchsorted(group, group)  # groups rise
    fold = np.where(group == 0, number, group - 1)
    which = [m.fold for m in members]
    inner = np.where(group == 0, 0, number - first + 1)[which]
    return {
        "fold": pl.Series(fold[which] + 1),
        "inner": pl.Series([n or None for n in inner.tolist()], dtype=pl.Int64),
    }


def overflowing(job: Job) -> list[str]:
    """Name the trials of which some member skipped every step of its last epoch, because float16 overflowed."""
    stuck = set()
    for stack in job.stacks:
        for own in stack.notes:
            skipped = own.others.get("skipped", np.zeros(len(own.places)))
            for at in np.flatnonzero(skipped == 1):
                trial = stack.members[own.places[at]].trial
                if own.epoch[at] == stack.courses[trial].epoch:
                    stuck.add(trial + 1)
    return [f"trial {t} learned nothing in the end: every step overflowed in float16" for t in sorted(stuck)]


def predictions(job: Job) -> pl.DataFrame:
    """Lay out the out-of-fold predictions of every member: one row per member and validation row."""
    rows = job.outer.validation_rows
    lengths = np.array([len(own) for own in rows])
    parts = []
    for stack in job.stacks:
        outputs = _kept_outputs(stack)
        shown = natural if job.task.kind == "regression" else probabilities
        places = _outer_places(job, stack)
        values = shown(outputs[places], job.task).cpu().numpy()
        members = [stack.members[p] for p in places]
        counts = lengths[[m.fold for m in members]]
        own = np.arange(values.shape[1]) < counts[:, None]  # the others only fill up
        ids = {n: np.repeat(v, counts) for n, v in member_columns(members).items()}
        row = job.table.row[np.concatenate([rows[m.fold] for m in members])]
        parts.append(pl.DataFrame({**ids, "row": row, **named_outputs(values[own], job.task)}))
    return pl.concat(parts)


def models(job: Job) -> list[Models]:
    """Hand over the kept weights of the outer members; those inside their folds have done their service."""
    models = []
    for stack in job.stacks:
        places = _outer_places(job, stack)
        parameters, buffers = stack.kept.parameters, stack.kept.buffers
        if len(places) < len(stack.members):
            parameters, buffers = parameters[places], {n: b[places] for n, b in buffers.items()}
        members = [stack.members[p] for p in places]
        models.append(Models(members, parameters.cpu(), {n: b.cpu() for n, b in buffers.items()}))
    return models


def _outer_places(job: Job, stack: Stack) -> list[int]:
    return [p for p, m in enumerate(stack.members) if m.fold < len(job.outer)]


def outer_constants(job: Job) -> tuple[Constants, tuple[Tensor, Tensor] | None]:
    """Give what the outer folds learnt to prepare rows, and the shifts and scales of their targets."""
    rows, own = job.stacks[0].cohort.rows, len(job.outer)
    every = torch.arange(len(rows.scalings) * len(job.folds), device=job.device)
    of_outer = every[every % len(job.folds) < own]
    scale = rows.target_units()
    return (
        rows.constants.to("cpu").picked(of_outer.cpu()),
        None if scale is None else (scale[0][:own], scale[1][:own]),
    )


def _noted(name: str, notes: Sequence[Notes]) -> np.ndarray:
    return np.concatenate([own.others.get(name, np.full(len(own.places), np.nan)) for own in notes])


def member_columns(members: list[Member]) -> dict[str, list[int]]:
    """Name members as users see them: trials and folds from 1, seeds as they are."""
    return {
        "trial": [m.trial + 1 for m in members],
        "seed": [m.seed for m in members],
        "fold": [m.fold + 1 for m in members],
    }


def named_outputs(values: np.ndarray, task: Task) -> dict[str, np.ndarray]:
    """Name the columns of predictions `[rows, outputs]`: `prediction`, or a probability per class or label."""
    if task.kind == "regression":
        names = ["prediction"] if len(task.targets) == 1 else [f"prediction of {t}" for t in task.targets]
    elif task.kind == "multilabel":
        names = [f"probability of {t}" for t in task.targets]
    else:
        names = [f"probability of {c}" for c in task.classes[0]]
    return {name: values[:, i] for i, name in enumerate(names)}
