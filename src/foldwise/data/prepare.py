"""What is learnt from the training rows of a fold before training: how numbers and targets are scaled.

The constants of all folds are stacked and applied to batches, so the folds never copy the table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

BOUND = 3.0  # robust scaling lets no value pass ±3 (Holzmüller et al. 2024, "Better by default")


@dataclass(frozen=True)
class Preparation:
    """Constants with one row per fold: x is filled where missing, then z = (x − shift)·scale, then bounded."""

    fill: Float[np.ndarray, "folds features"]
    shift: Float[np.ndarray, "folds features"]
    scale: Float[np.ndarray, "folds features"]
    bound: Float[np.ndarray, "folds features"]


def learn_preparation(
    features: Float[np.ndarray, "rows features"],
    train: Bool[np.ndarray, "folds rows"],
    numbers: Bool[np.ndarray, " features"],
    scaling: str,
    weights: Float[np.ndarray, " rows"] | None = None,
) -> Preparation:
    """Learn each fold's constants from its training rows alone.

    Number features are scaled by `scaling`; flags stay 0 and 1. A feature that does not vary among the training
    rows of a fold gets scale 0, so that what the network never saw vary cannot move its outputs. `weights`, all
    above 0, say how much each row counts: a row of weight 2 gives what the same row twice would give.
    """
    fill, shift, scale = np.zeros((3, len(train), features.shape[1]))
    for fold, rows in enumerate(train):
        center, unit = SCALINGS[scaling](features[np.ix_(rows, numbers)], _uneven(weights, rows))
        fill[fold, numbers] = shift[fold, numbers] = center
        scale[fold, numbers] = unit
        flags = features[np.ix_(rows, ~numbers)]
        scale[fold, ~numbers] = flags.min(axis=0, initial=1) < flags.max(axis=0, initial=0)
    bound = np.where(numbers & (scaling == "robust"), BOUND, np.inf)
    return Preparation(fill, shift, scale, np.tile(bound, (len(train), 1)))


Columns = Float[np.ndarray, "rows columns"]
Weights = Float[np.ndarray, " rows"] | None
"""How much each row counts; None when all count 1."""


def _uneven(weights: Weights, rows: Bool[np.ndarray, " rows"]) -> Weights:
    """Give the weights of some rows; None when all are 1, so that they cost nothing and change not one bit."""
    own = None if weights is None else weights[rows]
    return None if own is None or (own == 1).all() else own


def _standard(x: Columns, weights: Weights) -> tuple[np.ndarray, np.ndarray]:
    def each(known: Columns, own: Weights) -> np.ndarray:
        return np.stack(_mean_and_deviation(known, own))

    center, deviation = _by_column(each, x, weights, 2)
    return center, _inverse(deviation)


def _mean_and_deviation(known: Columns, weights: Weights) -> tuple[np.ndarray, np.ndarray]:
    # equal numbers may have a mean that is rounded, and a deviation in their last digits
    least, most = known.min(axis=0), known.max(axis=0)
    if weights is None:
        return known.mean(axis=0), np.where(least < most, known.std(axis=0), 0.0)
    mean = np.average(known, axis=0, weights=weights)
    variance = np.average(np.square(known - mean), axis=0, weights=weights)
    return mean, np.where(least < most, np.sqrt(variance), 0.0)


def _robust(x: Columns, weights: Weights) -> tuple[np.ndarray, np.ndarray]:
    def each(known: Columns, own: Weights) -> np.ndarray:
        if own is None:
            return np.quantile(known, [0, 0.25, 0.5, 0.75, 1], axis=0)
        quartiles = [weighted_quantiles(column, own, [0.25, 0.5, 0.75]) for column in known.T]
        return np.stack([known.min(axis=0), *np.stack(quartiles, axis=1), known.max(axis=0)])

    least, low, middle, high, most = _by_column(each, x, weights, 5)
    # a column with most rows at one value has no quartile distance; half its range stands in
    return middle, _inverse(np.where(high > low, high - low, (most - least) / 2))


def weighted_quantiles(
    values: Float[np.ndarray, " rows"], weights: Float[np.ndarray, " rows"], shares: Sequence[float]
) -> Float[np.ndarray, " shares"]:
    """Give quantiles of values that count differently; weights are above 0.

    Lay the sorted values side by side, each as wide as its weight, W in all. The quantile q is the mean over a
    window of width u that starts at q·(W − u), where u is one row: 1, or the mean weight where that is less. For
    weights that are whole numbers, this is numpy's quantile of the rows repeated so often; for equal weights up to
    1, that of the rows as they are. Weights that sum to 1 work as well as counts.

    >>> weighted_quantiles(np.array([5.0, 1.0, 2.0]), np.array([1.0, 3.0, 2.0]), [0, 0.5, 0.75, 1])
    array([1. , 1.5, 2. , 5. ])
    """
    order = np.argsort(values, kind="stable")
    x, ends = values[order], np.cumsum(weights[order])
    starts = np.concatenate([[0.0], ends[:-1]])
    window = min(1.0, ends[-1] / len(x))

    def quantile(share: float) -> float:
        left = share * (ends[-1] - window)
        first = min(int(np.searchsorted(ends, left, side="right")), len(x) - 1)
        stop = max(int(np.searchsorted(starts, left + window, side="left")), first + 1)
        inside = np.minimum(ends[first:stop], left + window) - np.maximum(starts[first:stop], left)
        # as differences from one value: where all values in the window are equal, the result is that value exactly
        return x[first] + np.maximum(inside, 0.0) @ (x[first:stop] - x[first]) / window

    return np.array([quantile(share) for share in shares])


def _by_column(
    measure: Callable[[Columns, Weights], np.ndarray], x: Columns, weights: Weights, count: int
) -> np.ndarray:
    """Measure all columns at once, and those with missing cells one by one; zeros for a column without cells."""
    missing = np.isnan(x).any(axis=0)
    out = np.zeros((count, x.shape[1]))
    if not missing.all():
        out[:, ~missing] = measure(x[:, ~missing], weights)
    for column in np.flatnonzero(missing):
        filled = ~np.isnan(x[:, column])
        if filled.any():
            out[:, column] = measure(x[filled, column][:, None], _uneven(weights, filled))[:, 0]
    return out


def _inverse(unit: np.ndarray) -> np.ndarray:
    return np.divide(1.0, unit, out=np.zeros_like(unit), where=unit > 0)


SCALINGS: dict[str, Callable[[Columns, Weights], tuple[np.ndarray, np.ndarray]]] = {
    "robust": _robust,
    "standard": _standard,
}


def apply_preparation(
    preparation: Preparation, fold: int, features: Float[np.ndarray, "rows features"]
) -> Float[np.ndarray, "rows features"]:
    """Prepare rows with the constants of one fold, in plain NumPy."""
    p = preparation
    x = np.where(np.isnan(features), p.fill[fold], features)
    z = (x - p.shift[fold]) * p.scale[fold]
    return z / np.hypot(1, z / p.bound[fold])


@dataclass(frozen=True)
class TargetScale:
    """Each fold's mean and deviation of its training targets; 0 and 1 where targets are not scaled."""

    shift: Float[np.ndarray, "folds targets"]
    scale: Float[np.ndarray, "folds targets"]


def learn_target_scale(
    targets: Float[np.ndarray, "rows targets"],
    train: Bool[np.ndarray, "folds rows"],
    weights: Float[np.ndarray, " rows"] | None = None,
) -> TargetScale:
    """Learn mean and deviation of the targets from each fold's training rows; constant targets get scale 1.

    `weights` say how much each row counts.
    """
    learned = [_mean_and_deviation(targets[rows], _uneven(weights, rows)) for rows in train]
    shift, deviation = (np.stack(part) for part in zip(*learned, strict=True))
    return TargetScale(shift, np.where(deviation > 0, deviation, 1.0))
