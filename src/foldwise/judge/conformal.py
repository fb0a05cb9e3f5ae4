"""How sure a prediction is: intervals for numbers and sets of classes, from the residuals of rows not learnt from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from foldwise.errors import DataError, SettingsError

AT_ONCE = 1 << 22  # numbers that are sorted together

STEPS = 20  # of the distances that are counted, up to twice the reach of intervals


@dataclass(frozen=True)
class Sureness:
    """How many classes the sets of rows hold that were not learned from, or how far their truth lies from predictions.

    `counts` are rows by the number of classes in their set, from 1; or by their distance, in equal steps from 0 to
    twice `reach`, which bounds the share of rows that the sentence names, in the last step with all beyond.
    """

    kind: Literal["sets", "distances"]
    counts: tuple[int, ...]
    sentence: str
    reach: float | None = None


def rank(level: float, rows: int) -> int:
    """Give the place, ⌈level·(n+1)⌉ from the smallest, of the residual that bounds a new one of n + 1.

    Raises SettingsError for a level that is not between 0 and 1, and DataError when n rows are too few for it.

    >>> rank(0.9, 99), rank(0.5, 3)
    (90, 2)
    """
    return math.ceil(weight_below(level, rows))


def weight_below(level: float, rows: float) -> float:
    """Give the weight, level·(n+1), that residuals up to the one that bounds a new one of weight 1 must have together.

    `rows` is n, the number of rows, or the sum of their weights: a row of weight 2 is one that is there twice. These
    are the quantiles of weighted conformal prediction (Tibshirani, Barber, Candès & Ramdas 2019, *Conformal prediction
    under covariate shift*, eq. 7), for a new row that counts once. Raises what `rank` raises.
    """
    if not 0 < level < 1:
        raise SettingsError(
            f"`interval` is a share between 0 and 1; got {level:g}.",
            hint="0.9 for 90 %: interval=0.9, --interval 0.9",
        )
    needed = level * (rows + 1) - 1e-9  # 0.9 · 10 is 9, though floating numbers say a little more
    if needed > rows:
        least = math.ceil(level / (1 - level) - 1e-9)
        share = math.floor(100 * rows / (rows + 1)) / 100
        raise DataError(
            f"an interval of {level:.6g} needs {least} rows that were validated; this study has {rows:.6g}"
            f"{'' if float(rows).is_integer() else ', each counted by its weight'}.",
            hint=f"interval={share:g}, or fewer" if share else "weights such that 1 stands for one row",
        )
    return needed


def bound(
    values: Float[np.ndarray, " rows *new"], level: float, weights: Float[np.ndarray, " rows"] | None = None
) -> Float[np.ndarray, " *new"]:
    """Give the smallest of some values up to which there is enough weight to bound a new one; see `weight_below`.

    >>> values = np.array([3.0, 1.0, 2.0])
    >>> float(bound(values, 0.5)), float(bound(values, 0.5, weights=np.array([3.0, 1.0, 1.0])))
    (2.0, 3.0)
    """
    if weights is None:
        place = rank(level, len(values)) - 1
        return np.partition(values, place, axis=0)[place]
    needed = weight_below(level, float(weights.sum()))
    order = np.argsort(values, axis=0)
    # rounding may keep the sum of all weights below what it is
    enough = needed <= np.minimum(np.cumsum(weights[order], axis=0).T, weights.sum()).T
    enough[-1] = True
    return np.take_along_axis(values, np.take_along_axis(order, enough.argmax(axis=0)[None], 0), 0)[0]


def intervals(
    center: Float[np.ndarray, "sets new"],
    residuals: Float[np.ndarray, " rows"],
    which: Int[np.ndarray, " rows"],
    level: float,
    weights: Float[np.ndarray, " rows"] | None = None,
) -> tuple[Float[np.ndarray, " new"], Float[np.ndarray, " new"]]:
    """Give the ends of an interval for each new row that covers its number with probability `level`.

    CV+ and the jackknife+ (Barber, Candès, Ramdas & Tibshirani 2021, *Predictive inference with the jackknife+*,
    Annals of Statistics 49, eq. 1.5 and section 3): with the residuals Rᵢ = |yᵢ − μ₋ᵢ(xᵢ)| of n rows by networks that
    had not seen them, the interval runs from the ⌊α(n+1)⌋-th smallest of μ₋ᵢ(x) − Rᵢ to the ⌈(1−α)(n+1)⌉-th smallest
    of μ₋ᵢ(x) + Rᵢ, α = 1 − level. μ₋ᵢ is the mean over the folds that did not learn row i (Kim, Xu & Barber 2020 for
    rows that several folds left out). Where rows are exchangeable, the coverage is at least 2·level − 1 (up to a
    term that vanishes with n), and about `level` in practice; with one hold-out this is split conformal prediction,
    and the coverage is at least `level`. With `weights`, places are counted by weight; see `weight_below`.

    Args:
        center: what the folds of each set say of each new row, in the units in which the target is learnt.
        residuals: of the validated rows, in the same units; ∞ where a prediction was not finite.
        which: the set of folds that predicted each of these rows.
        level: between 0 and 1.
        weights: how often each of these rows counts; by default once.

    Raises:
        SettingsError: the level is none.
        DataError: there are too few rows for it.

    >>> low, high = intervals(np.array([[10.0]]), np.arange(1.0, 20.0), np.zeros(19, int), level=0.9)
    >>> low, high  # the 18th of 19 residuals is 18
    (array([-8.]), array([28.]))
    """
    parts = np.array_split(np.arange(center.shape[1]), max(1, len(residuals) * center.shape[1] // AT_ONCE))
    low, high = np.empty((2, center.shape[1]))
    for part in parts:
        own, spread = center[:, part][which], residuals[:, None]
        low[part] = -bound(spread - own, level, weights)
        high[part] = bound(own + spread, level, weights)
    return low, high


def prediction_sets(
    probabilities: Float[np.ndarray, "sets new classes"],
    of_truth: Float[np.ndarray, " rows"],
    which: Int[np.ndarray, " rows"],
    likeliest: Int[np.ndarray, " new"],
    level: float,
    weights: Float[np.ndarray, " rows"] | None = None,
) -> Bool[np.ndarray, "new classes"]:
    """Tell for each new row which classes belong to the set that holds its class with probability `level`.

    Cross-conformal sets (Vovk 2015, *Cross-conformal predictors*; the CV+ sets of Romano, Sesia & Candès 2020,
    *Classification with valid and adaptive coverage*, eq. 11) with the score 1 − p, that gives the smallest sets
    (Sadinle, Lei & Wasserman 2019): class y is in the set when fewer than (1−α)(n+1) of the n rows were given a
    larger probability of their true class than the folds which did not learn that row give to y. The guarantee is that
    of `intervals`, and so are `weights`. Where no class is as probable as what is usually true, a set would be empty;
    so the class that is predicted is always put in, which can only cover more.

    Args:
        probabilities: what the folds of each set say of each new row.
        of_truth: the probability that each validated row's true class was given by folds which had not seen it.
        which: the set of folds that predicted each of these rows.
        likeliest: the class that is predicted for each new row.
        level: between 0 and 1.
        weights: how often each of these rows counts; by default once.

    Raises:
        SettingsError: the level is none.
        DataError: there are too few rows for it.

    >>> shares = np.array([[[0.7, 0.26, 0.04]]])
    >>> prediction_sets(shares, np.linspace(0.05, 0.95, 19), np.zeros(19, int), np.array([0]), level=0.9)
    array([[ True,  True, False]])
    """
    each = np.ones(len(of_truth)) if weights is None else weights
    most = weight_below(level, float(each.sum()))
    better = np.zeros(probabilities.shape[1:])
    for number, said in enumerate(probabilities):
        own = which == number
        order = np.argsort(of_truth[own])
        up_to = np.concatenate([[0.0], np.cumsum(each[own][order])])
        better += up_to[-1] - up_to[np.searchsorted(of_truth[own][order], said, side="right")]
    chosen = better < most
    chosen[np.arange(len(chosen)), likeliest] = True
    return chosen
