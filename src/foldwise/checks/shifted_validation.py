"""Validation rows that do not look like training rows.

Evidence: a classifier two-sample test. A linear model, given the inputs and their squares, tells validation rows from
training rows; how often it is right about a pair of one of each (its AUC), for rows that it did not learn from, is
compared with what it reaches on the same folds with their rows shuffled.

Why it hurts: the score is about other rows than those learned from. Where that is an accident (other constants used
to prepare them, other units, folds cut from a sorted table) the score is wrong; where it is meant (later rows, other
groups) the network must stand a change that it has not seen.

How sure: likely, when the model tells most pairs apart and shuffled folds never come near. Folds in time or by groups
are meant to differ, which is a hint. Folds drawn at random are not tested more strictly than others.

What to try: folds drawn at random, where rows may be exchanged; otherwise, preparing all rows with the same constants.

References: Lopez-Paz & Oquab 2017, *Revisiting classifier two-sample tests*; Rabanser, Günnemann & Lipton 2019,
*Failing loudly: an empirical study of methods for detecting dataset shift*.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from foldwise.checks.changes import drawn_anew
from foldwise.checks.finding import Finding, Remedy, Sure
from foldwise.checks.sample import Sample, hat_matrix
from foldwise.checks.sight import Sight
from foldwise.data.folds import Folds
from foldwise.errors import listed, percent

EXPLAINS: tuple[str, ...] = ("shifted-targets",)
APART = (
    0.75  # of pairs told apart: a shift by one deviation of one column; less hardly moves a network's outputs
)
DEVIATIONS = 5.0  # beyond shuffled folds, of which `SHUFFLES` show mean and deviation
SHUFFLES = 8
LEAST_ROWS = 10  # on each side
AT_RANDOM = ("cross-validation", "leave-one-out", "hold-out")  # of these folds, others may be drawn
MOST_FOLDS = 10


def find(sight: Sight) -> Finding | None:
    """Look for the fold whose validation rows are told most easily from its training rows."""
    sample, folds = sight.sample, sight.folds
    if sample is None or folds is None:
        return None
    side = sides(folds.outer, sample)
    if not len(side):
        return None
    found, chance = told_apart(sample.inputs, side, sight.random())
    worst = int(np.nanargmax(found))
    if found[worst] < APART or found[worst] < chance.mean() + DEVIATIONS * chance.std():
        return None
    columns = moved(sample, side[worst])
    return Finding(
        "shifted-validation",
        sureness(sight),
        f"of pairs of a validation and a training row a linear model tells {percent(found[worst])} apart in the "
        "worst of "
        f"{len(side)} folds, and {percent(chance.mean())} ± {percent(chance.std())} when folds are shuffled; "
        f"{listed(columns)} "
        f"differ{'s' if len(columns) == 1 else ''} most{on_purpose(sight)}",
        where=columns,
        remedies=(
            at_random(sight, "folds drawn at random"),
            Remedy("prepare all rows with the same constants"),
        ),
    )


def chosen(sight: Sight) -> bool:
    """Tell whether the user chose the folds: by a column, time, groups or a splitter."""
    table, folds = sight.table, sight.folds
    assert table is not None
    assert folds is not None
    given = (table.time, table.groups, table.fold_numbers)
    return any(own is not None for own in given) or not any(kind in folds.how for kind in AT_RANDOM)


def on_purpose(sight: Sight) -> str:
    """Say when a difference between the sides is no fault: where the user chose the folds, they may be meant so."""
    return ", unless these folds are so on purpose" if chosen(sight) else ""


def at_random(sight: Sight, what: str) -> Remedy:
    """Draw the folds at random; where the user chose them it is theirs to say whether that would be honest."""
    return Remedy(what) if chosen(sight) else Remedy(what, folds=drawn_anew, aim="honest")


def sureness(sight: Sight) -> Sure:
    """Say how sure a difference between the sides is a fault: rows that are later, or of other groups, may differ."""
    assert sight.table is not None
    meant = sight.table.time is not None or sight.table.groups is not None
    return "hint" if meant else "likely"


def sides(folds: Folds, sample: Sample) -> Float[np.ndarray, "folds rows"]:
    """Give 1 for validation rows, 0 for training rows and NaN for others, of folds with enough of both."""
    own = np.where(folds.validation, 1.0, np.where(folds.train, 0.0, np.nan))[:, sample.rows]
    enough = ((own == 1).sum(1) >= LEAST_ROWS) & ((own == 0).sum(1) >= LEAST_ROWS)
    return own[enough][:MOST_FOLDS]


def told_apart(
    inputs: Float[np.ndarray, "rows features"],
    side: Float[np.ndarray, "folds rows"],
    random: np.random.Generator,
) -> tuple[Float[np.ndarray, " folds"], Float[np.ndarray, " shuffled"]]:
    """Give the AUC of a linear model for each fold, and for folds with their rows shuffled."""
    hat = hat_matrix(np.hstack([inputs, np.square(inputs)]))
    known = ~np.isnan(side)
    shuffled = np.repeat(side, SHUFFLES, axis=0)
    for own in shuffled:
        used = ~np.isnan(own)
        own[used] = random.permutation(own[used])
    every = np.vstack([side, shuffled])
    balance = np.nanmean(every, axis=1, keepdims=True)
    labels = np.where(np.isnan(every), 0.0, every - balance)
    own = np.diag(hat)
    said = (labels @ hat - labels * own) / np.maximum(1 - own, 1e-6)
    found = np.array([auc(s[~np.isnan(e)], e[~np.isnan(e)] == 1) for s, e in zip(said, every, strict=True)])
    return found[: len(known)], found[len(known) :]


def auc(said: Float[np.ndarray, " rows"], positive: Bool[np.ndarray, " rows"]) -> float:
    """Give the share of pairs of a positive and a negative row in which the positive one is said more; ties half.

    >>> auc(np.array([0.1, 0.4, 0.8]), np.array([False, True, True]))
    1.0
    """
    yes, no = int(positive.sum()), int((~positive).sum())
    ranks = stats.rankdata(said)
    return float((ranks[positive].sum() - yes * (yes + 1) / 2) / (yes * no))


def moved(sample: Sample, side: Float[np.ndarray, " rows"]) -> tuple[str, ...]:
    """Name the columns whose values differ most between the sides, at most three."""
    apart = np.array(
        [abs(auc(x[~np.isnan(side)], side[~np.isnan(side)] == 1) - 0.5) for x in sample.inputs.T]
    )
    spread = np.array([abs(np.log(_spread(x[side == 1]) / _spread(x[side == 0]))) for x in sample.inputs.T])
    order = np.argsort(-(apart + 0.1 * spread), kind="stable")
    names = [sample.table.columns.features[place].column for place in order]
    return tuple(dict.fromkeys(names))[:3]


def _spread(values: Float[np.ndarray, " rows"]) -> float:
    return float(values.std()) + 0.05
