"""The score estimated by the bootstrap: trained on rows drawn with replacement, scored on those not drawn."""

from __future__ import annotations

import numpy as np
import polars as pl
import torch
from jaxtyping import Float

from foldwise.data.folds import Folds
from foldwise.data.variants import Variants
from foldwise.errors import PlanError, percent
from foldwise.plans.policy import StopAt
from foldwise.questions.leave_one_out import in_place
from foldwise.questions.numbers import brief, finished, points, spoken
from foldwise.questions.subject import Seen, Subject, count, seen, undisturbed
from foldwise.store.answers import Answer, Picture, Rule, Series

WINDOW = 200  # rows whose losses for the targets of all others give the loss without information
TRIES = 100  # for each draw that has rows of every class


def answer(subject: Subject, *, draws: int = 100) -> Answer:
    """Estimate the score by the .632+ bootstrap (Efron & Tibshirani 1997, *Improvements on cross-validation*).

    With the loss e of a network on the rows it learned from, the loss E of the networks that had not drawn a row
    (averaged per row, then over rows), and the loss γ of its outputs with targets of other rows, the estimate is
    (1 − w)·e + w·min(E, γ), where w = 0.632/(1 − 0.368·R) and R = (E − e)/(γ − e), held between 0 and 1, is the
    overfitting. The interval holds the middle 95 % of the estimates that each draw gives by itself, with its own E. A
    row drawn twice counts twice; one not drawn keeps its place in its batches and counts nothing there, so that all
    networks take as many steps (where rows of a batch see each other, it is taken out, and draws take a third fewer).
    All stop at the epoch that the trial kept.

    Args:
        subject: the trial that is asked about.
        draws: how many times rows are drawn, at least 20.

    Raises:
        PlanError: for rows in groups or in time, of which single rows cannot be drawn; for classes so rare that draws
            miss them.
    """
    draws = count("draws", draws, least=20)
    if subject.table.groups is not None or subject.table.time is not None:
        of = "groups" if subject.table.groups is not None else "time"
        raise PlanError(
            f"rows cannot be drawn one by one, because the study divides them by {of}.",
            hint="its cross-validation is the right estimate; `seeds` and `permuted_twin` keep its folds",
        )
    times = _drawn(subject, draws)
    whole = np.ones((1, subject.rows), dtype=bool)
    counts = np.concatenate([np.ones((1, subject.rows)), times])
    stays = in_place(subject.settings)  # then all networks take the same steps
    folds = Folds((counts > 0) | stays, np.concatenate([whole, times == 0]), "bootstrap")
    job = subject.train(
        "bootstrap", [undisturbed(subject.settings)], folds, seeds=subject.seeds(1),
        variants=Variants.of_counts(subject.table.targets, counts), policy=StopAt(subject.epoch),
    )  # fmt: skip
    by_fold = {m.member.fold: m for m in seen(job, subject.metric)}
    losses = np.full((draws, subject.rows), np.nan)
    for draw in range(draws):
        losses[draw, by_fold[draw + 1].rows] = by_fold[draw + 1].losses
    weights = subject.weights_of(subject.table.targets, whole[0])
    return _answer(subject, losses, by_fold[0], weights)


def _drawn(subject: Subject, draws: int) -> Float[np.ndarray, "draws rows"]:
    """Draw rows with replacement, such that every row is left out at least once and every class is drawn."""
    random, rows = subject.random(4), subject.rows
    found: list[np.ndarray] = []
    classes = subject.classes
    for _ in range(TRIES * draws):
        if len(found) == draws:
            break
        times = np.bincount(random.integers(0, rows, rows), minlength=rows).astype(float)
        if (times == 0).any() and (
            classes is None or len(np.unique(classes[times > 0])) == len(np.unique(classes))
        ):
            found.append(times)
    if len(found) < draws:
        raise PlanError(
            f"of {TRIES * draws:,} draws of {rows:,} rows, only {len(found)} had rows of every class.",
            hint="join or leave out rare classes",
        )
    stacked = np.stack(found)
    if (stacked > 0).all(axis=0).any():
        raise PlanError("some rows are in every draw.", hint=f"draws={2 * draws}")
    return stacked


def point_632(apparent: float, outside: float, uninformed: float) -> tuple[float, float]:
    """Give the .632+ estimate and the overfitting R, from e, E and γ.

    >>> point_632(0.0, 0.5, 0.5), point_632(0.2, 0.2, 0.5)
    ((0.5, 1.0), (0.2, 0.0))
    """
    bounded = min(outside, uninformed)
    over = (bounded - apparent) / (uninformed - apparent) if min(outside, uninformed) > apparent else 0.0
    weight = 0.632 / (1 - 0.368 * over)
    return (1 - weight) * apparent + weight * bounded, over


def outside_loss(losses: Float[np.ndarray, "draws rows"], weights: Float[np.ndarray, " rows"]) -> float:
    """Give E: the mean over rows of the mean over the draws that left the row out (NaN elsewhere)."""
    return float(np.average(np.nanmean(losses, axis=0), weights=weights))


def _uninformed(subject: Subject, whole: Seen, weights: Float[np.ndarray, " rows"]) -> float:
    """Average the loss of the outputs for some rows with the targets of all."""
    targets = torch.tensor(subject.table.targets)
    some = subject.random(5).permutation(subject.rows)[:WINDOW]
    total = 0.0
    for row in some:
        outputs = whole.outputs[row].expand(len(targets), -1)
        losses = subject.metric.per_row(outputs, targets, subject.table.task).double().numpy()
        total += weights[row] * float(np.average(losses, weights=weights))
    return total / float(weights[some].sum())


def _answer(
    subject: Subject,
    losses: Float[np.ndarray, "draws rows"],
    whole: Seen,
    weights: Float[np.ndarray, " rows"],
) -> Answer:
    metric = subject.metric
    apparent = float(np.average(whole.losses, weights=weights))
    outside = outside_loss(losses, weights)
    uninformed = _uninformed(subject, whole, weights)
    value, over = point_632(apparent, outside, uninformed)
    of_draw = [np.average(own[~np.isnan(own)], weights=weights[~np.isnan(own)]) for own in losses]
    ends = np.quantile([point_632(apparent, own, uninformed)[0] for own in of_draw], [0.025, 0.975])
    score, low, high = finished(metric, np.array([value, *ends]))
    each = finished(metric, np.array(of_draw))
    shown = {
        "on its own rows": apparent, "on rows not drawn": outside, ".632+": value, "without information": uninformed,
    }  # fmt: skip
    said = (
        f"The .632+ bootstrap estimates {metric.label} {spoken(score, low, high)} for {subject.name}: "
        f"{brief(metric.finish(apparent))} on the rows it learned from, {brief(metric.finish(outside))} on rows not "
        f"drawn (overfitting {percent(over)})."
    )
    steps = "in as many steps" if in_place(subject.settings) else "and takes a third fewer steps"
    how = (
        f"{len(losses)} draws of {subject.rows:,} rows with replacement, each trained up to epoch {subject.epoch}. "
        f"A draw has a third fewer different rows to learn from than the whole table, {steps}, which .632+ "
        "allows for; the interval is that of the estimates by single draws."
    )
    table = pl.DataFrame(
        {
            "estimate": list(shown),
            "loss": list(shown.values()),
            "score": finished(metric, np.array([*shown.values()])),
        }
    )
    picture = Picture(
        "draw",
        metric.label,
        (Series("scored on rows not drawn", points(np.arange(1, len(each) + 1), each)),),
        (Rule(float(score), f".632+ {brief(float(score))}"),),
    )
    facts = {
        "score": float(score), "low": float(min(low, high)), "high": float(max(low, high)), "loss": value,
        "apparent": apparent, "outside": outside, "uninformed": uninformed, "overfitting": over,
    }  # fmt: skip
    return Answer("bootstrap", said, how, table, facts, picture)
