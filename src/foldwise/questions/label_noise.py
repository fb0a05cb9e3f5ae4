"""What wrong labels do to the score and to the weights, with and without what keeps weights small."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from foldwise.errors import PlanError, percent
from foldwise.judge.selection import corrected_interval
from foldwise.questions.numbers import brief, finished, points
from foldwise.questions.subject import Subject, count, kept_losses, refuse_constant, weight_norms
from foldwise.settings import Settings, useless
from foldwise.store.answers import Answer, Picture, Series

DECAY, DROPOUT = 0.1, 0.3
SHARES = (0.0, 0.1, 0.2, 0.4, 0.6)


def answer(subject: Subject, *, shares: Sequence[float] = SHARES, seeds: int = 1) -> Answer:
    """Draw a share of the training labels anew, and score on labels as they are.

    A label that is drawn anew is any class, the right one among them (Zhang et al. 2017), so of C classes a share
    s·(1 − 1/C) is wrong; for numbers, s is the deviation of noise on them, in deviations of the target. Each share is
    trained without weight decay and dropout, with one of them, and with both, each as strong as in the settings, or
    0.1 and 0.3 where these have none. `norm` is the length of all weights after the last epoch. Intervals allow for
    rows that folds share (Nadeau & Bengio 2003).

    Args:
        subject: the trial that is asked about.
        shares: of labels that are drawn anew, from 0 to 1 (deviations, for numbers).
        seeds: how many seeds each is trained with.

    Raises:
        PlanError: a share that is none, or no two shares.
    """
    refuse_constant(subject)
    seeds, numbers = count("seeds", seeds), subject.table.task.kind == "regression"
    wanted = sorted({float(s) for s in shares})
    if len(wanted) < 2 or wanted[0] < 0 or (wanted[-1] > 1 and not numbers):
        raise PlanError(
            f"`shares` must be two or more shares from 0 to 1; got {', '.join(map(str, shares))}.",
            hint="shares=[0, 0.1, 0.2, 0.4]",
        )
    variants = ways(subject.settings)
    trials = [s.model_copy(update={"label_noise": x}) for s in variants.values() for x in wanted]
    job = subject.train("label noise", trials, subject.folds, seeds=subject.seeds(seeds))
    rows = subject.folds.validation @ subject.weights_of(
        subject.table.targets, np.asarray(subject.folds.validation.any(axis=0))
    )
    losses = kept_losses(job)["loss"].to_numpy().reshape(len(trials), seeds, len(subject.folds)).mean(axis=1)
    scores = finished(subject.metric, losses @ rows / rows.sum())
    intervals = [corrected_interval(own, *subject.parts, rows) for own in losses]
    ends = [finished(subject.metric, np.array([e.low, e.high])) for e in intervals]
    found = weight_norms(job)
    norms = [float(np.mean([x for (t, _, _), x in found.items() if t == n])) for n in range(len(trials))]
    table = pl.DataFrame(
        {
            "way": [w for w in variants for _ in wanted],
            "share": wanted * len(variants),
            "wrong": [wrong(x, subject) for x in wanted] * len(variants),
            "score": scores,
            "low": [min(e) for e in ends],
            "high": [max(e) for e in ends],
            "norm": norms,
        }
    )
    return _answer(subject, table)


def ways(s: Settings) -> dict[str, Settings]:
    """Give the settings without weight decay and dropout, with one of them, and with both; those that can act.

    >>> list(ways(Settings(network="linear")))
    ['plain', 'weight decay']
    """
    plain = s.model_copy(update={"weight_decay": 0.0, "dropout": 0.0})
    decay, dropout = {"weight_decay": s.weight_decay or DECAY}, {"dropout": s.dropout or DROPOUT}
    made = {
        "plain": plain,
        "weight decay": plain.model_copy(update=decay),
        "dropout": plain.model_copy(update=dropout),
        "both": plain.model_copy(update={**decay, **dropout}),
    }
    drops = "dropout" not in {name for name, _ in useless(made["dropout"])}
    drops = drops and (s.network != "custom" or "dropout" in s.takes)
    return made if drops else {name: made[name] for name in ("plain", "weight decay")}


def wrong(share: float, subject: Subject) -> float:
    """Give the expected share of wrong labels; of numbers, the deviation of the noise."""
    task = subject.table.task
    if task.kind == "regression":
        return share
    classes = 2 if task.kind in ("binary", "multilabel") else task.outputs
    return share * (1 - 1 / classes)


def _answer(subject: Subject, table: pl.DataFrame) -> Answer:
    metric, last = subject.metric, float(table["share"].to_numpy().max())
    at = table.filter(pl.col("share") == last).sort("score", descending=metric.higher_is_better)
    best, plain = at.row(0, named=True), at.filter(pl.col("way") == "plain").row(0, named=True)
    least = float(table["share"].to_numpy().min())
    clean = table.filter((pl.col("way") == "plain") & (pl.col("share") == least)).row(0, named=True)
    amount = (
        f"noise of {last:g} deviations on the targets" if subject.table.task.kind == "regression"
        else f"{percent(plain['wrong'])} wrong labels"
    )  # fmt: skip
    noise, quiet = brief(plain["score"]), brief(clean["score"])
    said = (
        f"With {amount}, {metric.label} goes from {quiet} to {noise} without weight decay and dropout, and the length "
        f"of the weights from {brief(clean['norm'])} to {brief(plain['norm'])}; "
    )
    helps = f"{best['way']} does best then, with {brief(best['score'])}."
    said += helps if best["way"] != "plain" else "neither helps then."
    ways_ = table["way"].unique(maintain_order=True).to_list()
    series = [(w, table.filter(pl.col("way") == w)) for w in ways_]
    x = (
        "deviation of noise on targets"
        if subject.table.task.kind == "regression"
        else "share of wrong labels"
    )
    picture = Picture(
        x, metric.label,
        tuple(Series(w, points(*t.select("wrong", "score", "low", "high").to_numpy().T), line=True) for w, t in series),
    )  # fmt: skip
    how = (
        f"{subject.name} on {subject.folds.how}, scored on labels as they are; intervals are those of the mean over "
        "folds."
    )
    facts = {
        "clean": clean["score"],
        "noisy": plain["score"],
        "best": best["score"],
        "growth": plain["norm"] / clean["norm"],
    }
    return Answer("label_noise", said, how, table, facts, picture)
