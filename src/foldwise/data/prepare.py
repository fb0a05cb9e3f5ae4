"""What is learnt from the training rows of a fold before training: how numbers and targets are scaled.

The constants of all folds are stacked and applied to batches, so the folds never copy the table.
"""

from __future__ import annotations

from collections.abc import Callable
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
) -> Preparation:
    """Learn each fold's constants from its training rows alone.

    Number features are scaled by `scaling`; flags stay 0 and 1. A feature that does not vary among the training
    rows of a fold gets scale 0, so that what the network never saw vary cannot move its outputs.
    """
    fill, shift, scale = np.zeros((3, len(train), features.shape[1]))
    for fold, rows in enumerate(train):
        center, unit = SCALINGS[scaling](features[np.ix_(rows, numbers)])
        fill[fold, numbers] = shift[fold, numbers] = center
        scale[fold, numbers] = unit
        flags = features[np.ix_(rows, ~numbers)]
        scale[fold, ~numbers] = flags.min(axis=0, initial=1) < flags.max(axis=0, initial=0)
    bound = np.where(numbers & (scaling == "robust"), BOUND, np.inf)
    return Preparation(fill, shift, scale, np.tile(bound, (len(train), 1)))


Columns = Float[np.ndarray, "rows columns"]


def _standard(x: Columns) -> tuple[np.ndarray, np.ndarray]:
    def each(known: Columns) -> np.ndarray:
        return np.stack([known.mean(axis=0), _deviation(known)])

    center, deviation = _by_column(each, x, 2)
    return center, _inverse(deviation)


def _deviation(known: Columns) -> np.ndarray:
    # equal numbers may have a deviation in their last digits, where their mean is rounded
    varies = known.min(axis=0) < known.max(axis=0)
    return np.where(varies, known.std(axis=0), 0.0)


def _robust(x: Columns) -> tuple[np.ndarray, np.ndarray]:
    def each(known: Columns) -> np.ndarray:
        return np.quantile(known, [0, 0.25, 0.5, 0.75, 1], axis=0)

    least, low, middle, high, most = _by_column(each, x, 5)
    # a column with most rows at one value has no quartile distance; half its range stands in
    return middle, _inverse(np.where(high > low, high - low, (most - least) / 2))


def _by_column(measure: Callable[[Columns], np.ndarray], x: Columns, count: int) -> np.ndarray:
    """Measure all columns at once, and those with missing cells one by one; zeros for a column without cells."""
    missing = np.isnan(x).any(axis=0)
    out = np.zeros((count, x.shape[1]))
    if not missing.all():
        out[:, ~missing] = measure(x[:, ~missing])
    for column in np.flatnonzero(missing):
        known = x[~np.isnan(x[:, column]), column]
        if len(known):
            out[:, column] = measure(known[:, None])[:, 0]
    return out


def _inverse(unit: np.ndarray) -> np.ndarray:
    return np.divide(1.0, unit, out=np.zeros_like(unit), where=unit > 0)


SCALINGS: dict[str, Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
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
    targets: Float[np.ndarray, "rows targets"], train: Bool[np.ndarray, "folds rows"]
) -> TargetScale:
    """Learn mean and deviation of the targets from each fold's training rows; constant targets get scale 1."""
    shift = np.stack([targets[rows].mean(axis=0) for rows in train])
    deviation = np.stack([_deviation(targets[rows]) for rows in train])
    return TargetScale(shift, np.where(deviation > 0, deviation, 1.0))
