"""A training that ended in numbers that are none: NaN or infinity.

Evidence: which member diverged; trained again and watched, the step and the first layer in which something was no
number.

Why it hurts: nothing that follows can be computed. Where gradients did not grow before, it is one operation that has no
value: the logarithm or the division of 0, the root of 0, whose slope is infinite, an exponential that is too large.

How sure: sure for the trial that is examined; other trials of a search that diverged are a hint, because a search may
try rates that are too high.

What to try: look at the layer named, and at the inputs; a tenth of the rate; full precision where half was used.

References: Goodfellow, Bengio & Courville 2016, *Deep Learning*, section 4.1 (overflow and underflow); Micikevicius et
al. 2018, *Mixed precision training*.
"""

from __future__ import annotations

import math

from foldwise.checks.exploding_gradients import remedies, where
from foldwise.checks.finding import Finding
from foldwise.checks.sight import Sight
from foldwise.checks.symptoms import POOR, UNSURE
from foldwise.errors import listed

EXPLAINS = ("few-steps", "uneven-layers", "jitter", *POOR, *UNSURE)


def find(sight: Sight) -> Finding | None:
    """Look for the examined trial, or others, among those that diverged."""
    if sight.curve is None or sight.loop is not None:
        return _in_a_loop(sight)
    examined = sight.curve.diverged
    others = tuple(number for number in sight.diverged if number not in sight.about)
    if examined:
        broke = sight.breakdown
        said = "a member diverged, and did not do so again when trained alone for some seconds"
        if broke is not None:
            said = f"fold {broke.fold} diverged {where(broke, sight)}"
        return Finding(
            "non-finite",
            "sure",
            said,
            trials=sight.about,
            where=(broke.where,) if broke is not None and broke.where else (),
            step=None if broke is None else broke.step,
            remedies=remedies(sight),
        )
    if not others:
        return None
    which = listed(tuple(map(str, others)))
    return Finding("non-finite", "hint", f"trials that diverged: {which}", trials=others)


def _in_a_loop(sight: Sight) -> Finding | None:
    """Look at what was measured of a network in a loop of the user's own."""
    before = None
    for look in sight.looks:
        broken = any(not w.finite for w in look.weights)
        if broken or not math.isfinite(look.loss):
            since = "at the start" if before is None else f"between step {before.step} and step {look.step}"
            what = "weights stopped being numbers" if broken else "the loss stopped being a number"
            first = look.first_not_finite
            return Finding(
                "non-finite",
                "sure",
                f"{what} {since}"
                + (f"; the first layer that gives none is {sight.called(first)}" if first else ""),
                where=(first,) if first else (),
                step=0 if before is None else before.step,
                remedies=remedies(sight),
            )
        before = look
    return None
