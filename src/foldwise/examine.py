"""What checks see of a job: before it is trained, and after."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import torch

from foldwise.breaking import broken_down
from foldwise.checks.finding import Findings, without_functions
from foldwise.checks.look import Look, Recorder, look_at
from foldwise.checks.order import findings_of
from foldwise.checks.series import series_of
from foldwise.checks.sight import Curve, Network, OutOfFold, Sight
from foldwise.engine.album import Picture
from foldwise.engine.members import tensors_of
from foldwise.engine.orders import epoch_order
from foldwise.engine.stack import Stack
from foldwise.job import Job
from foldwise.outcome import winner_means
from foldwise.plans.defaults import baselines
from foldwise.plans.plan import Member
from foldwise.reference import Own, loss_of
from foldwise.store.plain import reason
from foldwise.terminal import Display, duration
from foldwise.trying import EACH, MOST, trials_for, try_remedies

if TYPE_CHECKING:
    from foldwise.study import Study

BATCH = 256  # rows that a network is looked at with
MOST_LOOKS = 12


def examined(job: Job, study: Study, *, remedies: bool, display: Display) -> Findings:
    """Run all checks over a study that has just been trained, and try the remedies of what they find.

    What was measured of the examined trial stays with the study, to be drawn. Whatever fails in it is a warning of the
    study, which must not be lost for that.
    """

    def broken(what: str, error: Exception) -> None:
        study.warnings.append(f"{what} failed, which is a fault in foldwise: {reason(error)}")

    findings = Findings()
    try:
        sight = sight_after(job, study)
        assert sight.trial is not None
        assert sight.curve is not None
        study.looks = series_of(sight.trial, sight.looks, sight.curve.clipped.tolist())
        findings = findings_of(sight, broken=lambda code, error: broken(f"the check `{code}`", error))
        left = MOST
        known: set[str] = set()
        # what was explained before may come back, and so may what could not be judged
        while remedies and not (told := {f.code for f in findings if not f.given_away}) <= known:
            known |= told
            if not (chosen := trials_for(study, findings, sight.trial, left)):
                break
            display.wait(cost_of(len(chosen), job))
            findings = try_remedies(job, study, findings, chosen, display.progress)
            left = max(left - len(chosen), EACH)
    except KeyboardInterrupt:
        study.warnings.append("looking for faults was interrupted, and says less than it could")
    except Exception as error:
        broken("looking for faults", error)
    return Findings(without_functions(finding) for finding in findings)


def cost_of(remedies: int, job: Job) -> str:
    """Say what trying remedies takes, by what members took up to now."""
    members = remedies * len(job.outer) * len(job.plan.seeds)
    known = sum(len(stack.members) for stack in job.stacks)
    seconds = job.field.seconds * members / known
    what = f"{remedies} remed{'y' if remedies == 1 else 'ies'}"
    return f"trying {what}: {members} members more, about {duration(seconds)} (--remedies off skips this)"


def trial_before(job: Job) -> int:
    """Give the trial (from 0) that is examined before training: the first that is no baseline."""
    return min(len(baselines()), len(job.plan.trials) - 1)


def trial_after(study: Study) -> int:
    """Give the trial (from 0) that is examined after training: the best that is no baseline.

    Where all diverged it is the first of them.
    """
    asked = [r for r in study.results if r.number > len(baselines())] or list(study.results)
    return asked[0].number - 1


def sight_before(job: Job) -> Sight:
    """Show the data, the folds, and the network at its start."""
    trial = trial_before(job)
    stack, member = _first_member(job, trial)
    network = network_of(job, stack, member)
    return Sight(
        table=job.table,
        folds=job.outer,
        metric=job.metric,
        settings=member.settings,
        trial=trial + 1,
        network=network,
        looks=looks_at(network, stack, []),
        trials=len(job.plan.trials) - len(baselines()),
    )


def sight_after(job: Job, study: Study, trial: int | None = None) -> Sight:
    """Show in addition what a trial (the one of `trial_after`) went through, and what it says of unseen rows."""
    number = trial_after(study) if trial is None else trial
    stack, member = _first_member(job, number)
    network = network_of(job, stack, member)
    album = job.field.remember()
    album.finish(stack, number)
    pictures = album.of(number)
    luck = study.luck
    return Sight(
        table=job.table,
        folds=job.outer,
        metric=job.metric,
        settings=member.settings,
        trial=number + 1,
        network=network,
        looks=looks_at(network, stack, pictures),
        curve=curve_of(job, study, number),
        others={
            s.network: curve_of(job, study, t)
            for t, s in reversed([*enumerate(job.plan.trials[: len(baselines())])])
        },
        out_of_fold=out_of_fold(job, study, number),
        breakdown=broken_down(job, stack, number),
        diverged=tuple(r.number for r in study.results if r.status.startswith("diverged")),
        trials=len(job.plan.trials) - len(baselines()),
        corrected=study.results[0].number != number + 1
        or (study.calibration is not None and study.calibration.method != "none"),
        optimism=None
        if luck is None
        else (
            abs(luck.raw - luck.value),
            study.headline_result.high - study.headline_result.low,
        ),
    )


def _first_member(job: Job, trial: int) -> tuple[Stack, Member]:
    stack = next(s for s in job.stacks if trial in s.courses)
    return stack, stack.members[stack.places[trial][0]]


def network_of(job: Job, stack: Stack, member: Member) -> Network:
    """Build a member's network as it starts, and take a batch of its training rows, prepared as it learns them."""
    rows, s = stack.cohort.rows, member.settings
    nursery = job.nursery(s.loss)
    order = epoch_order(len(rows.features), member.seed, epoch=1)
    own = order[torch.from_numpy(job.folds.train[member.fold])[order]][:BATCH]
    inputs = nursery.training_rows(member, BATCH)[0].to(rows.dtype)
    fold = torch.tensor([member.fold], device=rows.device)
    index = own[None].to(rows.device)
    weights = rows.weights_of(index, fold)
    per_row = loss_of(s, Own(job.losses[s.loss].form, job.loss))
    return Network(
        nursery.start(member).cpu(),
        inputs,
        rows.scaled_targets(index, fold)[0].cpu(),
        per_row,
        s.loss,
        None if weights is None else weights[0].cpu(),
    )


def looks_at(network: Network, stack: Stack, pictures: list[Picture]) -> tuple[Look, ...]:
    """Look at a network at its start and as it was later on, each time with the same batch."""
    assert network.targets is not None
    assert network.loss is not None
    module = copy.deepcopy(network.module)
    recorder, found = Recorder(module), []
    later = [p for p in pictures if p.epoch > 0]
    chosen = later if len(later) < MOST_LOOKS else [*later[: MOST_LOOKS - 2], later[-1]]
    for picture in [None, *chosen]:
        if picture is not None:
            show(module, stack, picture)
        found.append(
            look_at(
                module,
                network.inputs,
                network.targets,
                network.loss,
                step=0 if picture is None else picture.step,
                epoch=0 if picture is None else picture.epoch,
                recorder=recorder,
                weights=network.weights,
            )
        )
    return tuple(found)


@torch.no_grad()
def show(module: torch.nn.Module, stack: Stack, picture: Picture) -> None:
    """Give a network the weights and buffers of a picture."""
    named = dict(module.named_parameters())
    for name, values in stack.cohort.layout.split(picture.parameters[None]).items():
        named[name].copy_(values[0])
    tensors = tensors_of(module)
    for name, values in picture.buffers.items():
        tensors[name].copy_(values)


def curve_of(job: Job, study: Study, trial: int) -> Curve:
    """Average over the members of a trial what each epoch left."""
    own = study.outer_history.filter(pl.col("trial") == trial + 1)
    named = ("training_loss", "validation_loss", "score", "learning_rate", "clipped", "skipped")
    mean = own.group_by("epoch").agg(pl.col(n).mean() for n in named).sort("epoch")
    each = own.group_by("epoch", "fold").agg(pl.col("validation_loss").mean()).sort("epoch", "fold")
    start = mean.filter(pl.col("epoch") == 0)["validation_loss"]
    later = mean.filter(pl.col("epoch") > 0)
    by_fold = np.full((later.height, len(job.outer)), np.nan)
    for epoch, fold, loss in each.filter(pl.col("epoch") > 0).iter_rows():
        by_fold[epoch - 1, fold - 1] = np.nan if loss is None else loss
    result = next(r for r in study.results if r.number == trial + 1)
    stack, _ = _first_member(job, trial)
    place = stack.places[trial][0]
    epochs = max(1, int(stack.cohort.state.epoch[place]))

    def column(name: str) -> np.ndarray:
        return later[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()

    return Curve(
        training=column("training_loss"),
        validation=column("validation_loss"),
        score=column("score"),
        by_fold=by_fold,
        start=float(start[0]) if len(start) and start[0] is not None else float("nan"),
        rate=column("learning_rate"),
        clipped=column("clipped"),
        skipped=column("skipped"),
        steps=int(stack.cohort.state.step[place]) // epochs,
        kept=result.epoch,
        diverged=result.status.startswith("diverged"),
        fold_scores=result.fold_scores,
    )


def out_of_fold(job: Job, study: Study, trial: int) -> OutOfFold | None:
    """Gather what a trial says of validated rows, averaged over seeds and repeats."""
    own = study.predictions.filter(pl.col("trial") == trial + 1)
    if not own.height:
        return None
    means = winner_means(own)
    places = np.searchsorted(job.table.row, means["row"].to_numpy())
    said, truth = means.drop("row").to_numpy(), job.table.targets[places]
    return OutOfFold(places, said, truth, _losses(job, said, truth))


def _losses(job: Job, said: np.ndarray, truth: np.ndarray) -> np.ndarray:
    if job.task.kind == "regression":
        shown = np.exp(truth) if job.task.log else truth
        return np.abs(shown.reshape(said.shape) - said).mean(axis=1)
    tiny = np.finfo(np.float64).tiny
    said = said.astype(np.float64)
    if truth.ndim == 1:
        of_truth = said[np.arange(len(truth)), truth.astype(np.int64)]
        return -np.log(np.maximum(of_truth, tiny))
    if job.task.kind == "multilabel":
        return -np.log(np.maximum(np.where(truth > 0.5, said, 1 - said), tiny)).mean(axis=1)
    return -(truth * np.log(np.maximum(said, tiny))).sum(axis=1)
