"""An accuracy that is that of saying the most frequent class always.

Evidence: the share of the most frequent class; on rows not learned from the accuracy, for which all rows count alike,
beside the balanced accuracy, for which all classes do; and how well predictions of the network or of a linear model
order such rows: the share of pairs of a row of that class and another in which they are the right way round.

Why it hurts: 95 % sounds good, and is nothing where 95 % of the rows are of one class. The rows that matter are the
rest, which are never found, though the network can tell them: training or choice by accuracy does not ask for it.

How sure: likely, when accuracy is hardly better than the share of that class and the order is far from chance.

What to try: balanced class weights, which count every class alike, in training and in the score, which then is the
balanced accuracy; or scores by cross-entropy, which sees probabilities.

References: Brodersen, Ong, Stephan & Buhmann 2010, *The balanced accuracy and its posterior distribution*; He &
Garcia 2009, *Learning from imbalanced data*.
"""

from __future__ import annotations

import numpy as np

from foldwise.checks.changes import balanced
from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.sample import left_out
from foldwise.checks.shifted_validation import auc
from foldwise.checks.sight import Sight
from foldwise.checks.symptoms import POOR
from foldwise.errors import percent

EXPLAINS = ("within-noise", *POOR)
MOST = 0.8  # the share of a class from which on its accuracy sounds good
GAIN = 0.25  # of the errors of saying that class always
LEAST_OTHERS = 10
FAR = 4.0  # deviations of the order from chance


def find(sight: Sight) -> Finding | None:
    """Look at accuracy where one class is most of the rows."""
    table, found, metric = sight.table, sight.out_of_fold, sight.metric
    if table is None or found is None or metric is None or metric.name != "accuracy":
        return None
    if found.truth.ndim != 1 or table.weighting.classes is not None:
        return None
    truth = found.truth.astype(np.int64)
    counts = np.bincount(truth)
    most = int(counts.argmax())
    share, others = counts[most] / len(truth), len(truth) - int(counts[most])
    accuracy = float((found.said.argmax(1) == truth).mean())
    if share < MOST or others < LEAST_OTHERS or accuracy - share > GAIN * (1 - share):
        return None
    order = max(auc(found.said[:, most].astype(np.float64), truth == most), linear_order(sight, most))
    spread = np.sqrt(
        (len(truth) + 1) / (12 * counts[most] * others)
    )  # of the AUC by chance (Mann & Whitney 1947)
    if order < 0.5 + FAR * spread:
        return None
    name = table.task.classes[0][most]
    there = np.flatnonzero(counts)
    by_class = np.mean([(found.said[truth == c].argmax(1) == c).mean() for c in there])
    return Finding(
        "imbalanced-accuracy",
        "likely",
        f"{percent(share, 1)} of the rows are of class {name}, and accuracy, for which all rows count alike, is "
        f"{percent(accuracy, 1)}, hardly better than saying so always; balanced accuracy, for which all classes do, is "
        f"{percent(by_class, 1)} (saying so always: {percent(1 / len(there), 1)}); yet {percent(order)} of the "
        "pairs of such a row and "
        "another can be told apart",
        trials=sight.about,
        where=table.task.targets,
        remedies=(
            Remedy(
                "balanced class weights, and balanced accuracy instead of accuracy",
                table=balanced,
                aim="honest",
                options={"class_weights": "balanced"},
            ),
            Remedy("score by cross-entropy", options={"metric": "log_loss"}),
        ),
    )


def linear_order(sight: Sight, most: int) -> float:
    """Say how well a linear model orders rows of a class before others."""
    sample = sight.sample
    if sample is None or not 0 < (own := sample.targets[:, most] > 0.5).sum() < len(own):
        return 0.5
    return auc(left_out(sample.inputs, sample.learned)[:, most], own)
