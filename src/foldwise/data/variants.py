"""What some folds learn that others do not: targets of their own, and rows that count more, less or not at all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from foldwise.data.prepare import Preparation, TargetScale, learn_preparation, learn_target_scale
from foldwise.data.weights import ClassWeights, score_weights, training_weights


@dataclass(frozen=True)
class Variants:
    """Versions of the targets, which of them each fold learns and is scored on, and how often it counts each row.

    A count of 0 leaves a training row where it is in its batches, but it counts nothing there, and nothing is learnt
    from it beforehand; 2 is a row that is there twice.

    >>> both = Variants.of_targets(np.array([[0, 1, 1], [1, 0, 1]]), np.array([0, 1, 1]))
    >>> both.targets_of(2), both.target_start
    (array([1, 0, 1]), array([0, 3, 3]))
    """

    targets: Shaped[np.ndarray, "versions rows ..."]
    version: Int[np.ndarray, " folds"]
    counts: Float[np.ndarray, "folds rows"] | None = None

    @classmethod
    def of_targets(
        cls, targets: Shaped[np.ndarray, "versions rows ..."], version: Int[np.ndarray, " folds"]
    ) -> Variants:
        """Let folds learn versions of the targets."""
        return cls(targets, np.asarray(version))

    @classmethod
    def of_counts(
        cls, targets: Shaped[np.ndarray, "rows ..."], counts: Float[np.ndarray, "folds rows"]
    ) -> Variants:
        """Let folds count their rows differently, all with the same targets."""
        return cls(targets[None], np.zeros(len(counts), dtype=np.int64), counts)

    @property
    def joined(self) -> Shaped[np.ndarray, "all ..."]:
        """Lay the versions one after another."""
        return self.targets.reshape(-1, *self.targets.shape[2:])

    @property
    def target_start(self) -> Int[np.ndarray, " folds"] | None:
        """Say where in `joined` the targets of each fold begin; None where there is one version."""
        if len(self.targets) == 1:
            return None
        return self.version.astype(np.int64) * self.targets.shape[1]

    def targets_of(self, fold: int) -> Shaped[np.ndarray, "rows ..."]:
        """Give the targets that a fold learns."""
        return self.targets[self.version[fold]]

    def preparation(
        self,
        features: Float[np.ndarray, "rows features"],
        train: Bool[np.ndarray, "folds rows"],
        numbers: Bool[np.ndarray, " features"],
        scaling: str,
        weights: Float[np.ndarray, " rows"],
    ) -> Preparation:
        """Learn the constants of each fold as `learn_preparation` does, from its rows as often as it counts them."""
        if self.counts is None:
            return learn_preparation(features, train, numbers, scaling, weights)
        parts = [
            learn_preparation(features, own[None], numbers, scaling, counted)
            for own, counted in self._counted(train, weights)
        ]
        return Preparation(
            *(np.concatenate([getattr(p, n) for p in parts]) for n in ("fill", "shift", "scale", "bound"))
        )

    def target_scale(
        self, train: Bool[np.ndarray, "folds rows"], weights: Float[np.ndarray, " rows"]
    ) -> TargetScale:
        """Learn the scale of each fold's own targets."""
        parts = [
            learn_target_scale(self.targets_of(fold), own[None], counted)
            for fold, (own, counted) in enumerate(self._counted(train, weights))
        ]
        return TargetScale(np.concatenate([p.shift for p in parts]), np.concatenate([p.scale for p in parts]))

    def training_weights(
        self,
        weights: Float[np.ndarray, " rows"],
        train: Bool[np.ndarray, "folds rows"],
        classes: ClassWeights,
    ) -> Float[np.ndarray, "folds rows"] | None:
        """Give what rows count in the training of each fold, with the classes of its own targets."""
        each = []
        for fold, (own, counted) in enumerate(self._counted(train, weights)):
            made = training_weights(counted, self.targets_of(fold), own[None], classes)
            each.append(np.ones_like(weights) if made is None else made[0])
        stacked = np.stack(each)
        return None if (stacked[train] == 1).all() else stacked

    def score_weights(
        self, weights: Float[np.ndarray, " rows"], scored: Bool[np.ndarray, " rows"], classes: ClassWeights
    ) -> Float[np.ndarray, " rows"] | Float[np.ndarray, "folds rows"] | None:
        """Give what rows count in a score, by fold where versions differ: with the classes of a fold's own targets.

        None when all count alike.
        """
        each = [score_weights(weights, own, scored, classes) for own in self.targets]
        if len(each) == 1 or all(own is None for own in each):
            return each[0]
        return np.stack([np.ones_like(weights) if own is None else own for own in each])[self.version]

    def _counted(
        self, train: Bool[np.ndarray, "folds rows"], weights: Float[np.ndarray, " rows"]
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        if self.counts is None:
            return [(own, weights) for own in train]
        return [(own & (n > 0), weights * n) for own, n in zip(train, self.counts, strict=True)]
