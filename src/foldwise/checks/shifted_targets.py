"""Validation rows whose targets are distributed unlike those of the training rows.

Evidence: the shares of the classes on both sides of each fold, and the probability that chance makes them differ so
much (chi-squared test); for numbers the greatest distance between the two distributions (Kolmogorov–Smirnov).

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

from foldwise.checks.changes import drawn_anew
from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.shifted_validation import sureness
from foldwise.checks.sight import Sight
from foldwise.data.table import Table

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
    outer = folds.outer
    found = [
        (*said, fold)
        for fold, (train, validation) in enumerate(zip(outer.train, outer.validation, strict=True), start=1)
        if (said := differ(table, table.targets[train], table.targets[validation], CHANCE / len(outer)))
    ]
    if not found:
        return None
    _, says, worst = max(found)
    return Finding(
        "shifted-targets",
        sureness(sight),
        f"in {len(found)} of {len(outer)} folds targets differ between the sides; in fold {worst} {says}",
        where=table.task.targets,
        remedies=(
            Remedy("folds drawn at random, stratified", folds=drawn_anew, aim="honest"),
            Remedy("class weights, where rows are as they are"),
        ),
    )


def _classes_differ(
    table: Table, train: np.ndarray, validation: np.ndarray, chance: float
) -> tuple[float, str] | None:
    count = len(table.task.classes[0])
    both = np.stack([np.bincount(t.astype(np.int64), minlength=count) for t in (train, validation)])
    both = both[:, both.sum(0) > 0]
    names = [c for c, there in zip(table.task.classes[0], _there(train, validation, count), strict=True) if there]
    if both.shape[1] < 2 or float(stats.chi2_contingency(both).pvalue) > chance:
        return None
    shares = both / both.sum(1, keepdims=True)
    odds = (both + 0.5) / (both.sum(1, keepdims=True) - both + 0.5)
    times = np.abs(np.log(odds[1] / odds[0]))
    most = int(times.argmax())
    if times[most] < np.log(TIMES):
        return None
    says = f"class {names[most]} is {shares[0, most]:.1%} of the training rows and {shares[1, most]:.1%} of the others"
    return float(times[most]), says.replace("of the others", "of the validation rows")


def _there(train: np.ndarray, validation: np.ndarray, count: int) -> np.ndarray:
    return np.bincount(np.concatenate([train, validation]).astype(np.int64), minlength=count) > 0


def _numbers_differ(
    table: Table,
    train: Float[np.ndarray, "rows targets"],
    validation: Float[np.ndarray, "rows targets"],
    chance: float,
) -> tuple[float, str] | None:
    found = []
    for name, own, other in zip(table.task.targets, train.T, validation.T, strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exact distribution may be out of reach; the asymptotic one does
            tested = stats.ks_2samp(own, other, method="asymp")
        if tested.pvalue < chance and tested.statistic > DISTANCE:
            shown = [np.exp(x) if table.task.log else x for x in (own, other)]
            says = (
                f"the median of `{name}` is {np.median(shown[0]):.3g} in the training rows and "
                f"{np.median(shown[1]):.3g} in the validation rows"
            )
            found.append((float(tested.statistic), says))
    return max(found) if found else None
