"""Rows on the device: the table lives there once, and batches are gathered and prepared fold by fold."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from foldwise.data.folds import Folds
from foldwise.data.prepare import Preparation, TargetScale


@dataclass(frozen=True)
class Constants:
    """A `Preparation` on the device; the first axis is (scaling, fold), flattened."""

    fill: Float[Tensor, "preparations features"]
    shift: Float[Tensor, "preparations features"]
    scale: Float[Tensor, "preparations features"]
    bound: Float[Tensor, "preparations features"]
    bounded: bool  # whether any bound is finite: known here, so that no batch has to ask the device

    def to(self, device: torch.device | str) -> Constants:
        """Move the constants to a device."""
        return Constants(
            self.fill.to(device),
            self.shift.to(device),
            self.scale.to(device),
            self.bound.to(device),
            self.bounded,
        )

    def of(self, which: Int64[Tensor, " streams"]) -> Constants:
        """Choose the constants of each stream, to be applied to its rows."""
        fill, shift, scale, bound = (
            c[which].unsqueeze(1) for c in (self.fill, self.shift, self.scale, self.bound)
        )
        return Constants(fill, shift, scale, bound, self.bounded)

    def picked(self, which: Int64[Tensor, " preparations"]) -> Constants:
        """Choose some of the preparations."""
        fill, shift, scale, bound = (c[which] for c in (self.fill, self.shift, self.scale, self.bound))
        return Constants(fill, shift, scale, bound, self.bounded)

    def apply(self, x: Float[Tensor, "streams batch features"]) -> Float[Tensor, "streams batch features"]:
        """Fill, shift, scale and bound the rows of each stream with its own constants (those of `of`)."""
        z = (torch.where(torch.isnan(x), self.fill, x) - self.shift) * self.scale
        return z / torch.hypot(torch.ones_like(z), z / self.bound) if self.bounded else z


@dataclass(frozen=True)
class Rows:
    """All development rows, the folds over them, and what each fold learnt to prepare them.

    The table and the constants stay in float64 until a batch is prepared: a time stamp or a price of 10⁹ has no
    digits left for its differences in float32. Networks compute in `dtype`.
    """

    dtype: torch.dtype
    features: Float[Tensor, "rows features"]
    targets: Tensor  # float [rows, targets], or int64 [rows] class numbers; with versions, one after another
    folds: Folds
    scalings: tuple[str, ...]
    constants: Constants
    target_shift: Float[Tensor, "folds targets"] | None  # None: targets are classes and are not scaled
    target_scale: Float[Tensor, "folds targets"] | None
    weights: Float[Tensor, "folds rows"] | None = None  # what rows count in training; None: all count 1
    weight_mean: Float[Tensor, " folds"] | None = None  # over a fold's training rows
    sample_weights: Float[Tensor, " rows"] | None = (
        None  # what rows count in preparation, where classes do not
    )
    # what rows count in scores, `[rows]`, or `[folds, rows]` where it depends on the fold; None: all count alike
    score_weights: Float[Tensor, "*folds rows"] | None = None
    # where in `targets` those of each fold begin; None: there is one version, from which all folds learn
    target_start: Int64[Tensor, " folds"] | None = None
    # what engines make of features and constants, once for all losses
    derived: dict[str, Tensor] = field(default_factory=dict, compare=False, repr=False)

    def preparation(self, scaling: str, fold: int) -> int:
        """Give the place of a scaling and fold among the constants."""
        return self.scalings.index(scaling) * len(self.folds) + fold

    def gathered(self, index: Int64[Tensor, "streams batch"]) -> Float[Tensor, "streams batch features"]:
        """Gather rows, not yet prepared."""
        return self.features.index_select(0, index.reshape(-1)).view(*index.shape, -1)

    def scaled_targets(
        self, index: Int64[Tensor, "streams batch"], folds: Int64[Tensor, " streams"]
    ) -> Tensor:
        """Gather targets, in the units in which the networks learn them."""
        targets = self.targets[self.in_version(index, folds)]
        if self.target_shift is not None and self.target_scale is not None:
            targets = (targets - self.target_shift[folds].unsqueeze(1)) / self.target_scale[folds].unsqueeze(
                1
            )
        return targets.to(self.dtype) if targets.is_floating_point() else targets

    def in_version(
        self, index: Int64[Tensor, "streams batch"], folds: Int64[Tensor, " streams"]
    ) -> Int64[Tensor, "streams batch"]:
        """Give the places of rows among the targets that folds learn."""
        return index if self.target_start is None else index + self.target_start[folds].unsqueeze(1)

    def targets_of(self, fold: int) -> Tensor:
        """Give the targets of all rows, as one fold learns them, in the units of the table."""
        first = 0 if self.target_start is None else int(self.target_start[fold])
        return self.targets[first : first + len(self.features)]

    def weights_of(
        self, index: Int64[Tensor, "streams batch"], folds: Int64[Tensor, " streams"]
    ) -> Float[Tensor, "streams batch"] | None:
        """Gather what rows count in the training of folds; 1 in the mean over a fold's training rows.

        None when all rows count 1. A batch has the loss mean(w·loss), not Σ w·loss / Σ w: rows would count more
        where they happen to meet light ones.
        """
        if self.weights is None or self.weight_mean is None:
            return None
        own = self.weights[folds.unsqueeze(1), index] / self.weight_mean[folds].unsqueeze(1)
        return own.to(self.dtype)

    def unscaled(
        self, outputs: Float[Tensor, "members rows outputs"], folds: Int64[Tensor, " members"]
    ) -> Tensor:
        """Turn outputs into the units of the targets (for classes: raw scores, as they are)."""
        if self.target_shift is None or self.target_scale is None:
            return outputs
        return outputs.double() * self.target_scale[folds].unsqueeze(1) + self.target_shift[folds].unsqueeze(
            1
        )

    def target_units(self) -> tuple[Tensor, Tensor] | None:
        """Give each fold's shift and scale of the targets, on the CPU; None when targets are classes."""
        if self.target_shift is None or self.target_scale is None:
            return None
        return self.target_shift.cpu(), self.target_scale.cpu()

    def with_targets(self, targets: np.ndarray) -> Rows:
        """Give the same rows, sharing their tensors, with targets in the form of another loss."""
        return replace(self, targets=torch.tensor(targets, device=self.device))

    @property
    def device(self) -> torch.device:
        """Tell where the rows are."""
        return self.features.device


def place_rows(
    features: Float[np.ndarray, "rows features"],
    targets: np.ndarray,
    folds: Folds,
    preparations: dict[str, Preparation],
    target_scale: TargetScale | None,
    *,
    device: torch.device,
    dtype: torch.dtype,
    weights: Float[np.ndarray, "folds rows"] | None = None,
    sample_weights: Float[np.ndarray, " rows"] | None = None,
    score_weights: Float[np.ndarray, "*folds rows"] | None = None,
    target_start: Int64[np.ndarray, " folds"] | None = None,
) -> Rows:
    """Move rows and constants to the device, once."""

    def placed(array: np.ndarray) -> Tensor:
        return torch.tensor(array, device=device)

    parts = list(preparations.values())
    constants = {
        name: placed(np.concatenate([getattr(p, name) for p in parts]))
        for name in ("fill", "shift", "scale", "bound")
    }
    return Rows(
        dtype=dtype,
        features=_shared(features, device),
        targets=placed(targets),
        folds=folds,
        scalings=tuple(preparations),
        constants=Constants(**constants, bounded=any(np.isfinite(p.bound).any() for p in parts)),
        target_shift=None if target_scale is None else placed(target_scale.shift),
        target_scale=None if target_scale is None else placed(target_scale.scale),
        weights=None if weights is None else _placed_once(weights, device),
        weight_mean=None if weights is None else placed(_training_means(weights, folds)),
        sample_weights=None if sample_weights is None else placed(sample_weights),
        score_weights=None if score_weights is None else placed(score_weights),
        target_start=None if target_start is None else placed(target_start),
    )


def _shared(features: Float[np.ndarray, "rows features"], device: torch.device) -> Tensor:
    # on a processor a copy of the table would only take as much memory again
    writable = features.flags.writeable  # torch has no tensor that is not
    return torch.from_numpy(features).to(device) if writable else torch.tensor(features, device=device)


def _placed_once(weights: Float[np.ndarray, "folds rows"], device: torch.device) -> Tensor:
    # weights that are the same in all folds are one row of memory here, as they were in numpy
    if weights.strides[0] == 0:
        return torch.tensor(weights[0], device=device).expand(len(weights), -1)
    return torch.tensor(weights, device=device)


def _training_means(weights: Float[np.ndarray, "folds rows"], folds: Folds) -> Float[np.ndarray, " folds"]:
    return np.array([own[train].mean() for own, train in zip(weights, folds.train, strict=True)])


def padded_validation(
    folds: Folds, device: torch.device, weights: Float[Tensor, "*folds rows"] | None = None
) -> tuple[Int64[Tensor, "folds most"], Float[Tensor, "folds most"]]:
    """Lay the validation rows of unequal folds side by side, short ones repeating their first row; and their weights.

    A row that is validated c times (by repeated folds) has weight 1/c each time, so that a mean over the folds of a
    group counts every row once; places that only fill up have weight 0.
    `weights` say how much each row counts, in all folds or in each.
    """
    rows, groups = folds.validation_rows, folds.groups
    most = max(len(r) for r in rows)
    times = np.stack([np.maximum(folds.validation[groups == g].sum(axis=0), 1) for g in np.unique(groups)])
    index = np.stack([np.concatenate([r, np.full(most - len(r), r[0] if len(r) else 0)]) for r in rows])
    own = zip(rows, index, groups, strict=True)
    weight = np.stack([(np.arange(most) < len(r)) / times[group, i] for r, i, group in own])
    places, counted = torch.tensor(index, device=device), torch.tensor(weight, device=device)
    if weights is None:
        return places, counted
    return places, counted * (weights[places] if weights.ndim == 1 else weights.gather(1, places))
