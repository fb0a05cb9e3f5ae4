"""Layers that learn at very different speeds.

Evidence: how far each weight matrix moved between two looks, over its size: the largest over the smallest, in the
median over the looks of the training. Frozen layers and those that get no gradient are not counted.

Why it hurts: one rate cannot suit layers of which one moves a thousand times as fast as another.

How sure: a hint. Optimizers such as Adam even speeds out by themselves.

What to try: a rate for each block (`block.rate_factor`); Adam in the place of plain descent.

References: You, Gitman & Ginsburg 2017, *Large batch training of convolutional networks* (updates over weights);
Yang & Hu 2021, *Tensor programs IV: feature learning in infinite-width neural networks* (rates by layer).
"""

from __future__ import annotations

import math

import numpy as np

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.look import Look
from foldwise.checks.progress import is_baseline
from foldwise.checks.sight import Sight
from foldwise.errors import percent

EXPLAINS: tuple[str, ...] = ()
RATIO = 100.0  # of speeds; good trainings have up to 8


def find(sight: Sight) -> Finding | None:
    """Look for matrices that moved far less than others, in most of the training."""
    if is_baseline(sight) or len(sight.looks) < 3:
        return None
    ratios = [own for look in sight.looks[1:] if (own := _ratio(look)) is not None]
    if len(ratios) < 2 or not np.median(ratios) > RATIO:
        return None
    speeds = _speeds(sight.looks[1])
    slowest, fastest = min(speeds, key=lambda name: speeds[name]), max(speeds, key=lambda name: speeds[name])
    return Finding(
        "uneven-layers",
        "hint",
        f"the weights move {np.median(ratios):.0f} times as fast in some layers as in others: up to step "
        f"{sight.looks[1].step} {sight.called(fastest)} by {percent(speeds[fastest], 1)} of its size, "
        f"{sight.called(slowest)} by {speeds[slowest]:.1g}",
        trials=sight.about,
        where=(slowest, fastest),
        step=sight.looks[1].step,
        remedies=(Remedy("a rate for each block"),),
    )


def _ratio(look: Look) -> float | None:
    speeds = _speeds(look)
    return max(speeds.values()) / min(speeds.values()) if len(speeds) > 1 else None


def _speeds(look: Look) -> dict[str, float]:
    return {
        w.name: w.last
        for w in look.weights
        if len(w.shape) >= 2 and w.gradient_norm and math.isfinite(w.last) and w.last > 0
    }
