"""Links that keep weights and gradients small: penalties, weight decay, clipping, limits."""

from __future__ import annotations

import torch
from torch import Tensor

from foldwise.engine.links import Direction, Link, Now, Remembered


def _freeze(direction: Direction, remembered: Remembered, now: Now) -> Direction:
    return direction if now.shares.trained is None else direction.mul_(now.shares.trained)


def _add_l2(direction: Direction, remembered: Remembered, now: Now) -> Direction:
    return direction if now.shares.l2 is None else direction.addcmul_(now.parameters, now.shares.l2)


def _add_l1(direction: Direction, remembered: Remembered, now: Now) -> Direction:
    return direction if now.shares.l1 is None else direction.addcmul_(now.parameters.sign(), now.shares.l1)


def _add_decay(direction: Direction, remembered: Remembered, now: Now) -> Direction:
    return direction if now.shares.decay is None else direction.addcmul_(now.parameters, now.shares.decay)


def _clip(direction: Direction, remembered: Remembered, now: Now) -> Direction:
    limit = now.settings["clip_norm"]
    norm = torch.linalg.vector_norm(direction, dim=1, keepdim=True)
    longer = (limit > 0) & (norm > limit)
    remembered["clipped"].add_(longer)
    factor = torch.where(limit > 0, (limit / (norm + 1e-6)).clamp_max(1), 1)
    return direction.mul_(factor)


def _limit(weights: Tensor, remembered: Remembered, now: Now) -> Tensor:
    for limit in now.shares.limits:
        squares = torch.where(limit.entries, weights.square(), 0).sum(1, keepdim=True)
        factor = torch.sqrt(limit.most / squares).clamp_max(1).nan_to_num(1.0)
        weights.mul_(torch.where(limit.entries, factor, 1))
    return weights


freeze = Link(_freeze)
"""d ← 0 in frozen blocks, so that they do not count in the norm either."""

add_l2 = Link(_add_l2)
"""d ← d + λw, the gradient of ½λ·Σw² in the loss (Hoerl & Kennard 1970)."""

add_l1 = Link(_add_l1)
"""d ← d + λ·sign(w), the gradient of λ·Σ|w| in the loss (Tibshirani 1996)."""

add_decay = Link(_add_decay)
"""d ← d + λw: weight decay. Before momentum it is an L2 penalty; after Adam it is decoupled (AdamW)."""

clip = Link(_clip, scalars={"clipped": 0.0})
"""d ← d·min(1, θ/(‖d‖ + 10⁻⁶)) with the norm over all of one member's entries (Pascanu et al. 2013); in the form of
`torch.nn.utils.clip_grad_norm_`. Counts the steps that it shortened."""

limit_weights = Link(_limit, stage="weights")
"""w ← w·min(1, √(θ/Σw²)): the nearest weights whose sum of squares is no more than θ."""
