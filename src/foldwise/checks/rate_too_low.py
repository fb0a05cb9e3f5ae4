"""A learning rate so low that training has hardly begun when it ends.

Evidence: how far the weights are from their start, over their size; the share of the fall of the training loss that
came in the second half of the epochs; and whether the loss ends above that of the linear model, which can do less.

Why it hurts: the epochs are spent before the network has learned what it could.

How sure: likely, when the weights have hardly moved and either the loss still falls as evenly as at first or the
linear model fits the same rows better. A rate that only could be higher is no fault.

What to try: a higher rate; how much higher is estimated from how far weights move in good trainings.

References: Bengio 2012, *Practical recommendations for gradient-based training of deep architectures*, section 3.1.1;
Smith 2017, *Cyclical learning rates for training neural networks*.
"""

from __future__ import annotations

import math

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.progress import (
    HARDLY,
    LATE,
    fits_worse_than_linear,
    is_baseline,
    learned_late,
    moved,
    steps_of,
    worse_than_linear,
)
from foldwise.checks.sight import Sight
from foldwise.checks.symptoms import POOR, UNSURE

EXPLAINS = ("uneven-layers", *POOR, *UNSURE)
USUAL = 0.3  # of its size is what the matrix that moves most moves in good trainings


def find(sight: Sight) -> Finding | None:
    """Look for weights that hardly moved, and a loss that says that they should have."""
    if sight.curve is None or sight.curve.diverged or is_baseline(sight) or sight.start is None:
        return None
    far, late = moved(sight), learned_late(sight.curve)
    if not far < HARDLY:
        return None
    still = late > LATE
    behind = fits_worse_than_linear(sight) and worse_than_linear(sight)
    if not still and not behind:
        return None
    how = (
        f"{late:.0%} of the fall of the training loss came in the second half of the epochs"
        if still
        else "the linear model fits the same rows better"
    )
    return Finding(
        "rate-too-low",
        "likely",
        f"after {steps_of(sight.looks[-1].step)} no weight matrix has moved by more than {far:.2%} of its size, "
        f"and {how}",
        trials=sight.about,
        remedies=_remedies(sight, far),
    )


def _remedies(sight: Sight, far: float) -> tuple[Remedy, ...]:
    # the distance grows with the rate, or with its root where steps are as random as the batches
    wanted = min(3, max(1, round(math.log10(USUAL / max(far, 1e-6)))))
    powers = [wanted, *(p for p in (wanted + 1, wanted - 1) if 1 <= p <= 4)]
    if sight.settings is None:
        return tuple(Remedy(f"learning rate × {10**p}") for p in powers)
    rate = sight.settings.learning_rate
    return tuple(Remedy(f"learning rate × {10**p}", {"learning_rate": rate * 10**p}) for p in powers)
