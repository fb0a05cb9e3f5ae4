"""Too few rows to learn from: training rows are known by heart, and more rows would help.

Evidence: how many rows each fold learns from, of those that it is not scored on; the loss on training rows against
that on validation rows; and what the nearest of all rows explain against the nearest of half of them.

Why it hurts: a network fits a few rows in every detail, and what holds for other rows is lost among the details.

How sure: likely, when folds leave out most of the rows that they could learn from. That all rows are few is a hint: it
is a matter of fact, and no fault of the training.

What to try: learn from all rows that are not scored. Otherwise more rows; a smaller network, dropout or weight decay
help a little. `foldwise learning-curve` says how much more rows would give.

References: Cortes, Jackel, Solla, Vapnik & Denker 1993, *Learning curves: asymptotic values and rate of convergence*.
"""

from __future__ import annotations

import numpy as np

from foldwise.checks.changes import learn_all_others
from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.sample import VOTES, Sample
from foldwise.checks.shared_groups import without_pairs
from foldwise.checks.sight import Curve, Sight
from foldwise.checks.symptoms import FITS_TOO_WELL
from foldwise.data.folds import Folds
from foldwise.errors import percent

EXPLAINS = FITS_TOO_WELL
USED = 0.5  # of the rows that a fold could learn from
APART = 1.5  # times the training loss, where it was kept
FALLS = 1.05  # times the error with all rows is that with half of them
FEW = 300
HALVES = 8


def find(sight: Sight) -> Finding | None:
    """Look whether folds leave rows out, or whether rows are few and more would help."""
    folds, curve, table = sight.folds, sight.curve, sight.table
    if folds is None or curve is None or table is None or not learns_by_heart(curve):
        return None
    if table.time is None and (left := _left_out(folds.outer)):
        return Finding(
            "few-rows",
            "likely",
            left,
            trials=sight.about,
            remedies=(Remedy("learn from all rows that are not scored", folds=learn_all_others),),
        )
    sample = sight.sample
    if sample is None or len(table.features) > FEW or not (falls := error_falls(sample)) > FALLS:
        return None
    return Finding(
        "few-rows",
        "hint",
        f"folds learn from {folds.outer.train.sum(1).mean():.0f} rows; the loss on them is "
        f"{_last(curve.training):.2g} and {_last(curve.validation):.2g} on others, and with half of the rows the "
        f"nearest ones err {percent(falls - 1)} more",
        trials=sight.about,
        remedies=(Remedy("more rows"),),
    )


def learns_by_heart(curve: Curve) -> bool:
    """Tell whether the loss in the end is far higher on validation rows than on those learned from."""
    return bool(_last(curve.validation) > APART * _last(curve.training))


def _last(losses: np.ndarray) -> float:
    known = losses[np.isfinite(losses)]
    return float(known[-1]) if len(known) else float("nan")


def _left_out(folds: Folds) -> str:
    """Say how many rows folds do not learn from, though they are not scored on them; empty when these are few."""
    learned, able = folds.train.sum(1), (~folds.validation).sum(1)
    if not (learned < USED * able).all():
        return ""
    return f"folds learn from {learned.mean():.0f} of {able.mean():.0f} rows that they are not scored on"


def error_falls(sample: Sample) -> float:
    """Say how many times as much the nearest rows err when they are taken from a half of the rows, drawn anew."""
    random, count = np.random.default_rng(0), len(sample.rows)
    error = 1 - sample.by_neighbors()
    if count // 2 <= VOTES or error <= 0:
        return float("nan")
    halves = [random.permutation(count) < count // 2 for _ in range(HALVES)]
    errors = [1 - without_pairs(sample, np.broadcast_to(half, sample.squares.shape)) for half in halves]
    return float(np.mean(errors)) / error
