"""What is done to a batch before it is learnt from: noise on inputs and labels, and mix-up.

All draws are functions of a member's seed and of a position, so they are the same alone, in any stack and after a
resume; members of one seed draw the same numbers and scale them by their own settings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int32, Int64
from scipy import special
from torch import Tensor

from foldwise.engine.random import key, normal, permutation, uniform


@dataclass(frozen=True)
class Batch:
    """Rows that members learn from; `weights` average to 1 over a fold's training rows (None: all 1).

    After mix-up, `other` says with which row of the batch each was mixed, and `share` how much is its own.
    """

    features: Float[Tensor, "members batch features"]
    targets: Tensor
    weights: Float[Tensor, "members batch"] | None
    share: Float[Tensor, "members 1"] | None = None
    other: Int64[Tensor, "members batch"] | None = None

    def loss(self, per_row: Callable[[Tensor], Tensor]) -> Float[Tensor, " members"]:
        """Average a loss over the rows, given the function from targets to losses per row."""
        own = _weighted(per_row(self.targets), self.weights)
        if self.share is None or self.other is None:
            return own.mean(-1)
        weights = None if self.weights is None else picked(self.weights, self.other)
        other = _weighted(per_row(picked(self.targets, self.other)), weights)
        return (self.share * own + (1 - self.share) * other).mean(-1)


def _weighted(losses: Tensor, weights: Tensor | None) -> Tensor:
    return losses if weights is None else losses * weights


def picked(
    values: Float[Tensor, "members batch *rest"], rows: Int64[Tensor, "members batch"]
) -> Float[Tensor, "members batch *rest"]:
    """Pick rows of each member's batch."""
    index = rows.view(*rows.shape, *([1] * (values.ndim - 2))).expand(values.shape)
    return values.gather(1, index)


# Noise on inputs


def noise_keys(seeds: Int64[Tensor, " seeds"], batches: Int64[Tensor, " seeds"]) -> Int32[Tensor, "seeds 2"]:
    """Give the keys of the noise on batches, by their number since the beginning of the training."""
    return key(seeds, "noise", batches)


def input_noise(
    keys: Int32[Tensor, "*axes 2"], rows: int, features: int
) -> Float[Tensor, "*axes rows features"]:
    """Draw standard normal noise for batches; float64."""
    return normal(keys, rows * features).unflatten(-1, (rows, features))


# Noise on labels


@dataclass(frozen=True)
class OtherLabels:
    """For each row of the table, what label noise puts in the place of its target; drawn once for each seed.

    A label is replaced where its `draw` is below the member's share. Numbers (no `draw`) are shifted by `values`.
    Several seeds lie one after another along the first axis.
    """

    draw: Tensor | None
    values: Tensor

    @classmethod
    def joined(cls, several: Sequence[OtherLabels]) -> OtherLabels:
        """Lay those of several seeds one after another."""
        draws = [one.draw for one in several if one.draw is not None]
        return cls(torch.cat(draws) if draws else None, torch.cat([one.values for one in several]))

    def instead(self, targets: Tensor, places: Tensor, amount: Tensor) -> Tensor:
        """Give targets `[*axes, *columns]` after noise; `places` are their rows, `amount` has the axes of targets."""
        values = self.values[places].to(targets)
        if self.draw is None:
            return targets + amount.to(targets) * values
        return torch.where(self.draw[places] < amount, values, targets)


def other_labels(seed: int, targets: Tensor, form: str, outputs: int) -> OtherLabels:
    """Draw the noise on all targets: another class, coins for labels, standard normal shifts for numbers.

    A class is drawn evenly from all classes, the right one among them (Zhang et al. 2017).
    """
    own = torch.tensor(seed, device=targets.device)
    rows = len(targets)
    columns = targets[0].numel() if targets.ndim > 1 else 1
    if form == "numbers":
        return OtherLabels(None, normal(key(own, "labels"), rows * columns).view(rows, columns))
    if form == "labels":
        draw, value = (uniform(key(own, "labels", n), rows * columns).view(rows, columns) for n in (0, 1))
        return OtherLabels(draw, value < 0.5)
    draw, value = (uniform(key(own, "labels", n), rows) for n in (0, 1))
    classes = (value * outputs).long()
    if targets.is_floating_point():
        return OtherLabels(draw.unsqueeze(1), F.one_hot(classes, outputs))
    return OtherLabels(draw, classes)


# Mix-up


def mix_partners(
    seeds: Int64[Tensor, "*axes"], batches: Int64[Tensor, "*axes"], rows: int
) -> Int64[Tensor, "*axes rows"]:
    """Draw with which row of a batch each is mixed; the same for all members of a seed."""
    return permutation(key(seeds, "mix", batches, 1), rows)


def mix_shares(
    seeds: Int64[Tensor, "*axes"], batches: Int64[Tensor, "*axes"], alpha: Float[Tensor, "*axes"]
) -> Float[Tensor, "*axes"]:
    """Draw how much of its own each row of a batch keeps: λ ~ Beta(α, α); 1 for α = 0 (Zhang et al. 2018)."""
    drawn = uniform(key(seeds, "mix", batches, 0), 1).squeeze(-1).cpu().numpy()
    own = alpha.double().cpu().numpy()
    usable = np.where(own > 0, own, 1.0)
    shares = np.where(own > 0, special.betaincinv(usable, usable, drawn), 1.0)
    return torch.tensor(shares, device=seeds.device)


def mixed(batch: Batch, share: Float[Tensor, "members 1"], other: Int64[Tensor, "members batch"]) -> Batch:
    """Mix the rows of each member's batch pairwise: x ← λx + (1−λ)x′."""
    share = share.to(batch.features)
    # a row that is all its own is its own partner: a loss of the other that is infinite would count, for 0·∞ is NaN
    other = torch.where(share == 1, torch.arange(other.shape[1], device=other.device), other)
    own = share.unsqueeze(-1)
    features = own * batch.features + (1 - own) * picked(batch.features, other)
    return replace(batch, features=features, share=share, other=other)
