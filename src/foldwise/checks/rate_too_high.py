"""A learning rate at which steps overshoot: the loss rises above its start, and weights are thrown far off.

Evidence: the mean training loss of an epoch lies above what it was at the start, or training diverged; and the weights
moved further than their own size in the first epoch, or before the loss was no number.

Why it hurts: a step that is longer than the valley is wide lands higher up the other side. What is left after that
(units thrown off for good, weights much larger than they were drawn) learns worse, also when the loss comes down again.

How sure: sure where training diverged after weights moved that far; likely where the loss only rose. Good rates may
make the loss jump in the first epoch too, but do not throw weights that far.

What to try: a tenth and a hundredth of the rate; in plain gradient descent a clip norm, which bounds the step.

References: LeCun, Bottou, Orr & Müller 1998, *Efficient BackProp*; Smith 2017, *Cyclical learning rates for training
neural networks* (the loss over rising rates); Goodfellow, Bengio & Courville 2016, *Deep Learning*, section 11.4.1.
"""

from __future__ import annotations

import numpy as np

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.progress import percent_or_times, slower, steps_of, thrown
from foldwise.checks.sight import Curve, Sight
from foldwise.checks.symptoms import FITS_TOO_WELL, POOR, UNSTEADY, UNSURE

EXPLAINS = ("few-steps", "vanishing-gradients", "uneven-layers", *UNSTEADY, *POOR, *FITS_TOO_WELL, *UNSURE)
ABOVE = 1.0  # times the loss at the start; good rates that overshoot at first reach 1.5, so it is not enough alone
THROWN = 1.0  # sizes of its own that a matrix moved in the first epoch; good rates reach 0.4


def find(sight: Sight) -> Finding | None:
    """Look for a loss that rose far above its start, while weights were thrown off."""
    if sight.curve is None:
        return None
    over = [own for own in thrown(sight) if own[0] > THROWN]
    if not over:
        return None
    far, when = over[0]
    if sight.curve.diverged:
        return Finding(
            "rate-too-high",
            "sure",
            f"the weights moved {percent_or_times(far)} their own size in {steps_of(when)}, and then the loss was no "
            f"number{_at(sight)}",
            trials=sight.about,
            step=when,
            remedies=_remedies(sight),
        )
    rose = _rise(sight, sight.curve)
    if rose is None:
        return None
    epoch, times = rose
    return Finding(
        "rate-too-high",
        "likely",
        f"the training loss rose to {times:.3g} times its start in {sight.curve.named(epoch)}, and the weights moved "
        f"{percent_or_times(far)} their own size in {steps_of(when)}{_at(sight)}",
        trials=sight.about,
        step=when,
        remedies=_remedies(sight),
    )


def _rise(sight: Sight, curve: Curve) -> tuple[int, float] | None:
    """Give the first epoch whose mean training loss is far above the start, and how many times it; or None."""
    start = max(curve.start, sight.looks[0].loss) if sight.looks else curve.start
    known = np.where(np.isfinite(curve.training), curve.training, np.inf)
    if not np.isfinite(start) or start <= 0:  # a loss of the user's own, of which no ratios can be taken
        return None
    above = np.flatnonzero(known > ABOVE * start)
    if not len(above):
        return None
    epoch = int(above[0]) + 1
    return epoch, float(known[above[0]] / start)


def _at(sight: Sight) -> str:
    return "" if sight.settings is None else f"; the rate is {sight.settings.learning_rate:.3g}"


def _remedies(sight: Sight) -> tuple[Remedy, ...]:
    s = sight.settings
    if s is None:
        return (
            slower(sight, 10),
            slower(sight, 100),
            Remedy("clip the gradient's norm"),
        )
    found = [slower(sight, 100), slower(sight, 10)]
    if s.optimizer == "sgd" and not s.clip_norm:
        found.append(Remedy("clip norm 1", {"clip_norm": 1.0}))
    return tuple(found)
