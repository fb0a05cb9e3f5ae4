"""Which rows hurt the model: how the loss of the others changes when one is left out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int
from scipy import stats
from torch import Tensor

from foldwise.data.folds import Folds
from foldwise.data.target import Task
from foldwise.data.variants import Variants
from foldwise.judge.metrics import natural, probabilities
from foldwise.plans.policy import StopAt
from foldwise.questions.numbers import brief, moderated, points
from foldwise.questions.subject import Seen, Subject, count, few_folds, seen, undisturbed
from foldwise.settings import Settings
from foldwise.store.answers import Answer, Picture, Rule, Series


def answer(subject: Subject, *, seeds: int = 3, rows: int = 500) -> Answer:
    """Leave each row out of the training rows of a fold, and see what becomes of the fold's validation rows.

    For a row i and every fold f that learns from it, h = L(f) − L(f without i), where L is the mean loss of the
    validation rows at the epoch that the trial kept: above 0, the others are predicted better without it (Koh & Liang
    2017 approximate this; here it is trained). A row that is left out keeps its place in its batches and counts
    nothing there, so that all else stays as it was and small effects show; where rows of a batch see each other
    (batch normalization, mix-up, networks of one's own) and where networks start from rows, it is taken out, and the
    batches after it shift. Its `noise` is the standard error between seeds, its variance drawn to those of the others
    (Smyth 2004); beyond the noise is what a t test with these says at 5 % divided by the number of rows.

    Members: seeds × (folds + rows × (folds − 1)), trained seed after seed so that memory holds one.

    Args:
        subject: the trial that is asked about.
        seeds: how many seeds, at least 2: without a second, nothing says how large the noise is.
        rows: at most how many rows are left out; those that the trial predicts worst, when there are more.
    """
    seeds, rows = count("seeds", seeds, least=2), count("rows", rows)
    plan = _planned(subject, rows)
    policy = StopAt(subject.epoch)
    found = []
    for seed in subject.seeds(seeds):
        job = subject.train(
            "leave one out", [undisturbed(subject.settings)], plan.folds, seeds=[seed], variants=plan.variants,
            metric=subject.fine, policy=policy,
        )  # fmt: skip
        found.append(_effects(subject, plan, seen(job, subject.fine)))
    harm, moved = (np.stack(each) for each in zip(*found, strict=True))
    return _answer(subject, plan, harm, moved.mean(axis=0))


@dataclass(frozen=True)
class Planned:
    """Which folds are trained: first those of the study, then each without one of its rows."""

    base: Folds
    folds: Folds
    variants: Variants | None
    fold: Int[np.ndarray, " left_out"]
    row: Int[np.ndarray, " left_out"]
    own_loss: Float[np.ndarray, " rows"]


def in_place(s: Settings) -> bool:
    """Tell whether a row may stay in its batches and count nothing: no other row of a batch sees it there."""
    sees = s.network == "custom" or s.normalization == "batch" or s.mixup > 0
    return not (sees or s.initialization == "lsuv" or s.feature_map != "none")


def _planned(subject: Subject, most: int) -> Planned:
    base = few_folds(subject)
    own_loss = _own_losses(subject, base)
    learnt = base.train.any(axis=0)
    by_loss = np.argsort(-np.where(learnt, np.nan_to_num(own_loss, nan=-np.inf), -np.inf), kind="stable")
    asked = np.zeros(subject.rows, dtype=bool)
    asked[by_loss[:most]] = True
    fold, row = np.nonzero(base.train & asked)
    train = np.concatenate([base.train, base.train[fold]])
    validation = np.concatenate([base.validation, base.validation[fold]])
    left = len(base) + np.arange(len(fold))
    if not in_place(subject.settings):
        train[left, row] = False
        return Planned(base, Folds(train, validation, base.how), None, fold, row, own_loss)
    counts = np.ones(train.shape)
    counts[left, row] = 0
    variants = Variants.of_counts(subject.table.targets, counts)
    return Planned(base, Folds(train, validation, base.how), variants, fold, row, own_loss)


def _own_losses(subject: Subject, base: Folds) -> Float[np.ndarray, " rows"]:
    """Give each row's own loss out of fold; NaN for rows that are never scored."""
    job = subject.train(
        "out of fold", [undisturbed(subject.settings)], base, seeds=subject.seeds(1), metric=subject.fine,
        policy=StopAt(subject.epoch),
    )  # fmt: skip
    total, times = np.zeros((2, subject.rows))
    for member in seen(job, subject.fine):
        np.add.at(total, member.rows, member.losses)
        np.add.at(times, member.rows, 1)
    return np.divide(total, times, out=np.full(subject.rows, np.nan), where=times > 0)


def _effects(
    subject: Subject, plan: Planned, members: Iterator[Seen]
) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " rows"]]:
    """Give what each row does to loss and predictions, the mean over the folds that learn from it; NaN if none."""
    scored = np.asarray(plan.base.validation.any(axis=0))
    weights = subject.weights_of(subject.table.targets, scored)
    by_fold: dict[int, tuple[float, np.ndarray]] = {}
    for m in members:
        shown = np.asarray(said(m.outputs, subject.table.task))
        by_fold[m.member.fold] = float(np.average(m.losses, weights=weights[m.rows])), shown
    harm, moved, times = np.zeros((3, subject.rows))
    first = len(plan.base)
    for place, (fold, row) in enumerate(zip(plan.fold, plan.row, strict=True)):
        (whole, before), (without, after) = by_fold[int(fold)], by_fold[first + place]
        share = float(weights[plan.base.validation[fold]].sum())
        harm[row] += share * (whole - without)
        moved[row] += share * float(np.abs(after - before).mean())
        times[row] += share
    nothing = np.full(subject.rows, np.nan)
    return (
        np.divide(harm, times, out=nothing.copy(), where=times > 0),
        np.divide(moved, times, out=nothing.copy(), where=times > 0),
    )


def said(outputs: Tensor, task: Task) -> Tensor:
    """Give predictions as users see them: numbers or probabilities."""
    return (
        natural(outputs.double(), task)
        if task.kind == "regression"
        else probabilities(outputs.double(), task)
    )


def beyond_noise(
    values: Float[np.ndarray, "seeds rows"],
) -> tuple[Float[np.ndarray, " rows"], float, Bool[np.ndarray, " rows"]]:
    """Give standard errors of the means, how many of them a mean must be from 0, and which are (moderated t test)."""
    variance, degrees = moderated(values.var(axis=0, ddof=1), len(values) - 1)
    noise, reach = np.sqrt(variance / len(values)), float(stats.t.isf(0.025 / values.shape[1], degrees))
    return noise, reach, np.abs(values.mean(axis=0)) > reach * noise


def _answer(
    subject: Subject,
    plan: Planned,
    harm: Float[np.ndarray, "seeds rows"],
    moved: Float[np.ndarray, " rows"],
) -> Answer:
    asked = np.flatnonzero(np.isfinite(harm[0]))
    values = harm[:, asked]
    mean, variance = values.mean(axis=0), values.var(axis=0, ddof=1)
    noise, reach, beyond = beyond_noise(values)
    order = np.argsort(-mean, kind="stable")
    hurting = int((beyond & (mean > 0)).sum())
    worst = order[0]
    loss = subject.fine.label if subject.fine.name != "rmse" else "squared error"
    number = subject.table.row[asked]
    seeds = f"{len(values)} seeds"
    if hurting:
        sentence = (
            f"Row {number[worst]} hurts most: without it, the mean {loss} of the others falls by {brief(mean[worst])} "
            f"(± {brief(noise[worst])}); {hurting:,} of {len(asked):,} rows hurt beyond the noise between {seeds}."
        )
    else:
        sentence = (
            f"No row of {len(asked):,} hurts beyond the noise between {seeds}: the largest fall of the others' mean "
            f"{loss} is {brief(mean[worst])} (± {brief(noise[worst])}), without row {number[worst]}."
        )
    table = pl.DataFrame(
        {
            "row": number[order], "harm": mean[order], "noise": noise[order], "beyond_noise": beyond[order],
            "own_loss": plan.own_loss[asked][order], "moved": moved[asked][order],
        }
    )  # fmt: skip
    way = "counts nothing in its batches" if plan.variants is not None else "is taken out, and batches shift"
    learnt = int(plan.base.train.any(axis=0).sum())
    which = (
        f"All {learnt:,} rows were"
        if len(asked) == learnt
        else (
            f"The {len(asked):,} rows with the largest loss out of fold, of {learnt:,} (--rows tries more), were"
        )
    )
    how = (
        f"{which} left out, one at a time; `row` counts from 0 in the table, the header not counted. "
        f"{subject.name} at epoch {subject.epoch}, {plan.base.how}; a row that is left out {way}. Beyond the noise: "
        f"more than {reach:.1f} standard errors, the t quantile for 5 % among {len(asked):,} rows. Few seeds tell "
        "little of one row's noise, so that it is drawn to what is usual (Smyth 2004). `own_loss` is the row's own "
        "out-of-fold loss, `moved` the mean change of a prediction."
    )
    rank = np.arange(1, len(order) + 1)
    ends = mean[order] - reach * noise[order], mean[order] + reach * noise[order]
    shown = slice(0, 200)
    picture = Picture(
        "rows, most harmful first",
        f"fall of the others’ {loss}",
        (
            Series(
                "harm, with its noise",
                points(rank[shown], mean[order][shown], ends[0][shown], ends[1][shown]),
            ),
        ),
        (Rule(0.0, "no effect"),),
    )
    facts = {
        "hurting": float(hurting),
        "asked": float(len(asked)),
        "noise": float(np.sqrt(variance.mean() / len(values))),
    }
    return Answer("leave_one_out", sentence, how, table, facts, picture)
