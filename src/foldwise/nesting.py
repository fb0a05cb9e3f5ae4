"""What the folds inside others chose in a job, and the losses of what they chose."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int

from foldwise.engine.stack import Stack
from foldwise.job import Job
from foldwise.judge.nested import Choice, Nested, choose, interval_of, nested_headline
from foldwise.judge.verdict import BASELINES, Baseline, Headline, TrialResult, row_losses, tied_choices


def judge_nested(
    job: Job, results: Sequence[TrialResult], title: str, caveat: str
) -> tuple[Nested, Headline] | None:
    """Judge the choices inside the outer folds of a job; None when no fold lies inside another.

    After an interrupt the choices are among the epochs that were done. They are None, too, while there are none.
    """
    courses = job.field.courses
    if job.folds.group is None or not all(course.inside for course in courses):
        return None
    curves = inner_curves(job)
    trials, epochs = choose(curves)
    per_row, per_fold = _scored(job, curves)
    names = {r.number: r.name for r in results}

    def finish(mean: float) -> float:
        return job.metric.finish(float(mean)) if math.isfinite(mean) else math.nan

    choices = tuple(
        Choice(
            fold=fold + 1,
            trial=int(trial) + 1,
            name=names[int(trial) + 1],
            epoch=int(epoch),
            inner=finish(curves[trial, fold, epoch]),
            outer=finish(per_fold[fold]),
        )
        for fold, (trial, epoch) in enumerate(zip(trials, epochs, strict=True))
    )
    nested = Nested(len(job.folds) - len(job.outer), choices)
    interval = interval_of(per_row, job.score_weights)
    baselines = _baselines(job, curves, (per_row, per_fold))
    return nested, nested_headline(nested, interval, results, baselines, job.metric, job.outer, title, caveat)


def _scored(
    job: Job, curves: Float[np.ndarray, "trials outer epochs"]
) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " outer"]]:
    """Give the losses of what curves inside the outer folds choose, by row and by fold."""
    losses = _losses(job, choose(curves)[0])
    for (seed, fold), own in losses.items():
        if not np.isfinite(curves[:, fold]).any():  # nothing inside could be scored, so nothing was chosen
            losses[seed, fold] = np.full_like(own, np.inf)
    return row_losses(len(job.table.features), losses, job.outer.validation_rows, job.score_weights)


def _baselines(
    job: Job,
    curves: Float[np.ndarray, "trials outer epochs"],
    whole: tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " outer"]],
) -> list[Baseline]:
    """Judge the choice among trials of each simple model alone, as that among all trials is judged."""
    found = []
    for network in BASELINES:
        own = np.array([t.network == network for t in job.plan.trials])
        per_row, per_fold = _scored(job, np.where(own[:, None, None], curves, np.inf))
        score = interval_of(per_row, job.score_weights).value
        if own.any() and math.isfinite(score):
            tied = tied_choices(whole, (per_row, per_fold), job.outer, job.score_weights)
            found.append(Baseline(network, job.metric.finish(score), not tied))
    return found


def inner_curves(job: Job) -> Float[np.ndarray, "trials outer epochs"]:
    """Lay out the curves inside outer folds, as far as each is considered; ∞ where a trial has no candidate."""
    courses = job.field.courses
    longest = max(len(course.inside) for course in courses)
    curves = np.full((len(courses), len(job.outer), longest), np.inf)
    for course in courses:
        first = 1 if course.settings.epochs else 0
        for fold, curve in enumerate(course.inner_curves):
            curves[course.trial, fold, first : len(curve)] = curve[first:]
    return curves


def _losses(job: Job, trials: Int[np.ndarray, " outer"]) -> dict[tuple[int, int], np.ndarray]:
    """Give the losses of each outer fold's rows by the members of the trial chosen for it, by seed and fold."""
    losses = {}
    for stack in job.stacks:
        outputs = _outputs(stack)
        for place, at in stack.inside.at.items():
            member = stack.members[place]
            if trials[member.fold] != member.trial:
                continue
            own = torch.from_numpy(job.outer.validation_rows[member.fold]).to(job.device)
            each = job.metric.per_row(outputs[at, : len(own)], job.targets[own], job.task)
            # a network that broke before there was anything to keep has no outputs, of which some metrics make numbers
            broken = not torch.isfinite(outputs[at, : len(own)]).all()
            losses[member.seed, member.fold] = (
                np.full(len(own), np.inf) if broken else each.double().cpu().numpy()
            )
    return losses


def _outputs(stack: Stack) -> torch.Tensor:
    """Give what the outer members had to say at the epochs chosen inside their folds, in units of the targets."""
    kept = stack.inside.kept
    assert kept is not None, "some folds lie inside others"
    return stack.cohort.rows.unscaled(kept.outputs, stack.cohort.folds([*stack.inside.at]))
