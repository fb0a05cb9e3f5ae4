"""Validation rows whose targets are distributed unlike those of the training rows.

Evidence: the shares of the classes on both sides of each fold, and the probability that chance makes them differ so
much (chi-squared test of each); for numbers the greatest distance between the two distributions (Kolmogorov–Smirnov).

Why it hurts: a network learns how frequent classes are. Where one is rare among the rows learned from and frequent
among those scored, it is predicted far too seldom, and the score says little about either.

How sure: likely, when chance is out of the question and the difference is large. Folds in time or by groups are meant
to differ, which is a hint.

What to try: folds that have all classes in equal shares and learn from all other rows. Where the rows learned from
cannot be had otherwise, weights for classes.

References: Saerens, Latinne & Decaestecker 2002, *Adjusting the outputs of a classifier to new a priori
probabilities*; He & Garcia 2009, *Learning from imbalanced data*.
"""

from __future__ import annotations

import warnings

import numpy as np
from jaxtyping import Float
from scipy import stats

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.shifted_validation import LEAST_ROWS, at_random, on_purpose, sureness
from foldwise.checks.sight import Sight
from foldwise.data.folds import Folds
from foldwise.data.table import Table
from foldwise.errors import percent

EXPLAINS: tuple[str, ...] = ("imbalanced-accuracy", "underfitting", "overconfident")
CHANCE = 1e-4  # over all folds together
TIMES = 2.0  # the odds of a class on one side, over those on the other
DISTANCE = 0.3  # between distribution functions of numbers: that of a shift by 0.8 deviations


def find(sight: Sight) -> Finding | None:
    """Look for the fold whose sides differ most in their targets."""
    table, folds = sight.table, sight.folds
    if table is None or folds is None or table.task.soft or table.task.kind == "multilabel":
        return None
    differ = _numbers_differ if table.task.kind == "regression" else _classes_differ
    outer = with_rows(folds.outer)
    if not len(outer):
        return None
    found = [
        (*said, fold)
        for fold, (train, validation) in enumerate(zip(outer.train, outer.validation, strict=True), start=1)
        if (said := differ(table, table.targets[train], table.targets[validation], CHANCE / len(outer)))
    ]
    if not found and (said := _together(table, outer)):
        evidence = f"over all folds, {said[1]}"
    elif found:
        _, says, worst = max(found)
        evidence = (
            f"in {len(found)} of {len(outer)} folds targets differ between the sides; in fold {worst} {says}"
        )
    else:
        return None
    weighted = Remedy("class weights, where rows are as they are", options={"class_weights": "balanced"})
    drawn = at_random(sight, "folds drawn at random, stratified")
    return Finding(
        "shifted-targets",
        sureness(sight),
        evidence + on_purpose(sight),
        where=table.task.targets,
        remedies=(drawn,) if table.task.kind == "regression" else (drawn, weighted),
    )


def with_rows(folds: Folds) -> Folds:
    """Give the folds with enough validation rows to have a distribution."""
    enough = folds.validation.sum(1) >= LEAST_ROWS
    return Folds(folds.train[enough], folds.validation[enough], folds.how)


def _together(table: Table, folds: Folds) -> tuple[float, str] | None:
    """Hold all validation rows to the training rows of a fold, on average, where classes are too rare in each fold."""
    if table.task.kind == "regression":
        return None
    scored = table.targets[folds.validation.any(0)]
    learned = [_counts(table, table.targets[rows]) for rows in folds.train]
    return _shares_differ(table, np.stack([np.mean(learned, axis=0), _counts(table, scored)]), CHANCE)


def _classes_differ(
    table: Table, train: np.ndarray, validation: np.ndarray, chance: float
) -> tuple[float, str] | None:
    return _shares_differ(table, np.stack([_counts(table, train), _counts(table, validation)]), chance)


def _counts(table: Table, targets: np.ndarray) -> Float[np.ndarray, " classes"]:
    return np.bincount(targets.astype(np.int64), minlength=len(table.task.classes[0])).astype(float)


def _shares_differ(
    table: Table, both: Float[np.ndarray, "sides classes"], chance: float
) -> tuple[float, str] | None:
    names, both = np.array(table.task.classes[0], dtype=object)[both.sum(0) > 0], both[:, both.sum(0) > 0]
    if both.shape[1] < 2:
        return None
    rest = both.sum(1, keepdims=True) - both
    p = [
        float(stats.chi2_contingency(np.stack([own, other])).pvalue)
        for own, other in zip(both.T, rest.T, strict=True)
    ]
    odds = (both + 0.5) / (rest + 0.5)
    times = np.where(np.array(p) * len(p) < chance, np.abs(np.log(odds[1] / odds[0])), 0.0)
    most = int(times.argmax())
    if times[most] < np.log(TIMES):
        return None
    shares = both[:, most] / both.sum(1)
    says = (
        f"class {names[most]} is {percent(shares[0], 1)} of the training rows and {percent(shares[1], 1)} of the "
        "validation rows"
    )
    return float(times[most]), says


def _numbers_differ(
    table: Table,
    train: Float[np.ndarray, "rows targets"],
    validation: Float[np.ndarray, "rows targets"],
    chance: float,
) -> tuple[float, str] | None:
    found = []
    for name, own, other in zip(table.task.targets, train.T, validation.T, strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # the exact distribution may be out of reach; the asymptotic one does
            tested = stats.ks_2samp(own, other, method="asymp")
        if tested.pvalue < chance and tested.statistic > DISTANCE:
            shown = [np.exp(x) if table.task.log else x for x in (own, other)]
            says = (
                f"the median of `{name}` is {np.median(shown[0]):.3g} in the training rows and "
                f"{np.median(shown[1]):.3g} in the validation rows"
            )
            found.append((float(tested.statistic), says))
    return max(found) if found else None
