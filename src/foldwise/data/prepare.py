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
    folds, width = len(train), features.shape[1]
    fill, shift, scale = np.zeros((3, folds, width))
    for fold, rows in enumerate(train):
        known = features[rows]
        varies = np.nanmin(known, axis=0, initial=np.inf) < np.nanmax(known, axis=0, initial=-np.inf)
        center, unit = SCALINGS[scaling](np.where(varies & numbers, known, 0.0))
        fill[fold] = shift[fold] = np.where(numbers & varies, center, 0.0)
        scale[fold] = np.where(numbers, varies * unit, varies)
    bound = np.broadcast_to(np.where(numbers & (scaling == "robust"), BOUND, np.inf), (folds, width))
    return Preparation(fill, shift, scale, bound.copy())


def _standard(x: Float[np.ndarray, "rows features"]) -> tuple[np.ndarray, np.ndarray]:
    deviation = np.nanstd(x, axis=0)
    return np.nanmean(x, axis=0), _inverse(deviation)


def _robust(x: Float[np.ndarray, "rows features"]) -> tuple[np.ndarray, np.ndarray]:
    low, middle, high = np.nanquantile(x, [0.25, 0.5, 0.75], axis=0)
    spread = np.nanmax(x, axis=0) - np.nanmin(x, axis=0)
    # a feature with most rows at one value has no quartile distance; its full range stands in
    return middle, _inverse(np.where(high > low, high - low, spread / 2))


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
    return z / np.sqrt(1 + (z / p.bound[fold]) ** 2)


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
    deviation = np.stack([targets[rows].std(axis=0) for rows in train])
    return TargetScale(shift, np.where(deviation > 0, deviation, 1.0))
