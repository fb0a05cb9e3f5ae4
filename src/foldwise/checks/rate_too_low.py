"""A learning rate so low that training has hardly begun when it ends.

Evidence: how far the weights are from their start, over their size; the share of the fall of the training loss that
came in the second half of the epochs; and whether the loss ends above that of the linear model, which can do less.

Why it hurts: the epochs are spent before the network has learned what it could.

How sure: likely, when the weights have hardly moved and the loss still falls as evenly as at first, or when they have
moved little and the linear model fits the same rows better. A rate that only could be higher is no fault. In a loop of
the user's own it is the loss of one batch that is looked at, and the network must have begun with what a constant knows
and have most of that loss left, after a hundred steps; one that was trained before, and a warm-up that still goes on,
are not meant.

What to try: a higher rate; how much higher is estimated from how far weights move in good trainings.

References: Bengio 2012, *Practical recommendations for gradient-based training of deep architectures*, section 3.1.1;
Smith 2017, *Cyclical learning rates for training neural networks*.
"""

from __future__ import annotations

import math

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.loop import Loop
from foldwise.checks.progress import (
    HARDLY,
    LATE,
    faster,
    fell_late,
    fits_worse_than_linear,
    is_baseline,
    moved,
    slow,
    steps_of,
    worse_than_linear,
)
from foldwise.checks.sight import Sight
from foldwise.checks.symptoms import POOR, UNSURE
from foldwise.errors import percent

EXPLAINS = ("uneven-layers", *POOR, *UNSURE)
NOT_FAR = 0.25  # of its size: good trainings move that far, or fit at least as well as the linear model
FEWEST = 100  # steps of a loop of the user's own, which may be watched in part
RISES = 0.75  # of the last rate, half-way: a rate below it is still being warmed up at the end
USUAL = 0.3  # of its size is what the matrix that moves most moves in good trainings


def find(sight: Sight) -> Finding | None:
    """Look for weights that hardly moved, and a loss that says that they should have."""
    if sight.curve is None or sight.curve.diverged or is_baseline(sight) or sight.start is None:
        return None
    far, late = moved(sight), fell_late(sight)
    evenly = far < HARDLY and late > LATE
    still = evenly if sight.loop is None else slow(sight) and _long_enough(sight.loop)
    behind = far < NOT_FAR and fits_worse_than_linear(sight) and worse_than_linear(sight)
    if not still and not behind:
        return None
    half = "of the epochs" if sight.loop is None else "of the steps"
    how = (
        f"{percent(late)} of the fall of the training loss came in the second half {half}"
        if still
        else "the linear model fits the same rows better"
    )
    return Finding(
        "rate-too-low",
        "likely",
        f"after {steps_of(sight.looks[-1].step)} no weight matrix has moved by more than {100 * far:.2g} % of "
        "its size, "
        f"and {how}",
        trials=sight.about,
        remedies=_remedies(sight, far),
    )


def _long_enough(loop: Loop) -> bool:
    """Tell whether a loop went on for long enough to have learned, and its rate is not still warmed up."""
    rates = loop.rates
    return len(rates) >= FEWEST and not rates[len(rates) // 2] < RISES * rates[-1]


def _remedies(sight: Sight, far: float) -> tuple[Remedy, ...]:
    # the distance grows with the rate, or with its root where steps are as random as the batches
    wanted = min(3, max(1, round(math.log10(USUAL / max(far, 1e-6)))))
    powers = [wanted, *(p for p in (wanted + 1, wanted - 1) if 1 <= p <= 4)]
    return tuple(faster(sight, 10**p) for p in powers)
