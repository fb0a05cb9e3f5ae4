"""A schedule that takes the learning rate to nearly 0 while the loss is still falling.

Evidence: the first epoch that ends with less than a hundredth of the highest rate, how many epochs come after it, and
how fast the training loss was falling until then.

Why it hurts: the epochs that are left change nothing.

How sure: likely, when at least a quarter of the epochs are left and the last one at a working rate brought more than a
twentieth of all that was learned. In a loop of the user's own the second half of the time until then must have brought
more than a fifth. A cosine that ends at 0 is healthy: it is that low for a few epochs only. So is a rate that is
lowered when there is nothing more to gain, and a warm-up, which comes before the highest rate.

What to try: a constant rate; a cosine over all epochs.

References: Loshchilov & Hutter 2017, *SGDR: stochastic gradient descent with warm restarts*; Wu, Ren, Liao & Grosse
2018, *Understanding short-horizon bias in stochastic meta-optimization* (rates that fall too fast).
"""

from __future__ import annotations

import numpy as np

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.progress import fell_between
from foldwise.checks.sight import Curve, Sight
from foldwise.checks.symptoms import SLOW, UNSURE

EXPLAINS = (*SLOW, *UNSURE)
NEARLY_ZERO = 0.01  # of the highest rate
LEFT = 0.25  # of the epochs
FALLING = 0.05  # of all that was learned, in one epoch
HALF = 0.2  # the same of a loop's loss, in half of its time until then; when all is learned, mostly 0.02


def find(sight: Sight) -> Finding | None:
    """Look for a rate that was gone too soon."""
    if sight.curve is None or sight.curve.diverged:
        return None
    curve = sight.curve
    gone = _gone(curve)
    if gone is None:
        return None
    total = len(curve.rate)
    if sight.loop is None:
        share, enough = _last_gain(curve, gone), FALLING
        still = f"though that epoch still brought {share:.0%} of all that the training loss fell"
    else:
        share, enough = _half_gain(sight, curve, gone), HALF
        still = f"though the second half of the time until then still brought {share:.0%} of all that the loss fell"
    if total - gone < LEFT * total or not share > enough:
        return None
    name = "the schedule" if sight.settings is None else f"the schedule `{sight.settings.schedule}`"
    when = f"{curve.named(gone)} of {total if curve.epochs else curve.end(total)}"
    return Finding(
        "schedule-ends-early",
        "likely",
        f"{name} had taken the learning rate below a hundredth of its highest at the end of {when}, {still}",
        trials=sight.about,
        step=gone * curve.steps,
        remedies=_remedies(sight),
    )


def _gone(curve: Curve) -> int | None:
    """Count the epochs until the rate was gone for good; None: it never was."""
    rate = np.nan_to_num(curve.rate)
    if not len(rate) or not rate.max() > 0:
        return None
    alive = np.flatnonzero(rate >= NEARLY_ZERO * rate.max())
    last = int(alive[-1]) + 1  # epochs that ended at a working rate
    return None if last == len(rate) else last + 1


def _last_gain(curve: Curve, gone: int) -> float:
    """Give the share of the fall of the training loss that its last epoch at a working rate brought."""
    losses = np.array([curve.start, *curve.training])
    fell = losses[0] - np.nanmin(losses)
    # losses are means over an epoch, so that what an epoch brought shows in the next one too
    until = min(gone + 1, len(losses) - 1)
    since = max(0, gone - 1)
    return float((losses[since] - losses[until]) / fell / (until - since)) if fell > 0 else 0.0


def _half_gain(sight: Sight, curve: Curve, gone: int) -> float:
    """Give the share of the fall that the second half of a loop's time at a working rate brought.

    Measured on the batch that is looked at, and from all batches that were heard: the lesser of both.
    """
    of_batch = fell_between(sight, gone * curve.steps / 2, gone * curve.steps)
    early = int(0.375 * gone)
    middle = curve.training[early : max(early + 1, int(0.625 * gone))].mean()
    last = curve.training[int(0.75 * gone) : gone].mean()
    fell = curve.start - np.nanmin(curve.training)
    return min(of_batch, float((middle - last) / fell)) if fell > 0 else 0.0


def _remedies(sight: Sight) -> tuple[Remedy, ...]:
    if sight.settings is None:
        return (Remedy("a constant rate"), Remedy("a cosine over all epochs"))
    found = [Remedy("a constant rate", {"schedule": "constant"})]
    if sight.settings.schedule != "cosine":
        found.append(Remedy("a cosine over all epochs", {"schedule": "cosine"}))
    return tuple(found)
