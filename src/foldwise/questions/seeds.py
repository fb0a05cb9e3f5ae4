"""How far the score moves by the seed alone."""

from __future__ import annotations

import numpy as np
import polars as pl

from foldwise.questions.numbers import brief, finished, points
from foldwise.questions.subject import Subject, count, kept_epochs, kept_losses
from foldwise.store.answers import Answer, Picture, Rule, Series


def answer(subject: Subject, *, seeds: int = 10) -> Answer:
    """Train the same settings on the same folds with many seeds: other initial weights, row orders and masks.

    All seeds are scored at one epoch, the best of their mean, so that nothing but the seed differs.

    Args:
        subject: the trial that is asked about.
        seeds: how many seeds, from that of the study on; at least 2.
    """
    seeds = count("seeds", seeds, least=2)
    folds, metric = subject.folds, subject.metric
    job = subject.train("seeds", [subject.settings], folds, seeds=subject.seeds(seeds))
    rows = folds.validation @ subject.weights_of(
        subject.table.targets, np.asarray(folds.validation.any(axis=0))
    )
    losses = kept_losses(job)["loss"].to_numpy().reshape(seeds, len(folds))
    scores = finished(metric, losses @ rows / rows.sum())
    by_fold = finished(metric, losses.mean(axis=0))
    deviation, between_folds = (
        float(scores.std(ddof=1)),
        float(by_fold.std(ddof=1)) if len(folds) > 1 else 0.0,
    )
    mean = float(scores.mean())
    said = (
        f"By the seed alone, {metric.label} moves by ± {brief(deviation)} (one standard deviation of {seeds} seeds, "
        f"from {brief(float(scores.min()))} to {brief(float(scores.max()))}): trials that are closer together than "
        f"{brief(2 * np.sqrt(2) * deviation)} cannot be told apart with one seed."
    )
    how = (
        f"{subject.name} on {folds.how}, at epoch {kept_epochs(job)[0]}; the deviation between folds, which share no "
        f"validation rows, is {brief(between_folds)}."
    )
    table = pl.DataFrame({"seed": list(subject.seeds(seeds)), "score": scores})
    picture = Picture(
        "seed",
        metric.label,
        (Series("score over all folds", points(subject.seeds(seeds), scores)),),
        (Rule(mean, f"mean {brief(mean)}"),),
    )
    facts = {"mean": mean, "deviation": deviation, "deviation_between_folds": between_folds}
    return Answer("seeds", said, how, table, facts, picture)
