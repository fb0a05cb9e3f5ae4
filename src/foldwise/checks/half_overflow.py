"""Steps in half precision that overflow and are skipped.

Evidence: the share of steps that were skipped because a gradient was beyond float16, from training itself.

Why it hurts: float16 ends at 65504. A loss scale that is halved after each overflow finds its level within a few steps;
where they go on, the network itself gives numbers that are too large, and learns nothing.

How sure: sure, when more than half of the steps of an epoch are skipped after the first 20 steps, or in a training that
diverged. A few at the start are how the loss scale finds its level.

What to try: bfloat16, which reaches as far as full precision; full precision; a tenth of the rate.

References: Micikevicius et al. 2018, *Mixed precision training*; Kalamkar et al. 2019, *A study of bfloat16 for deep
learning training*.
"""

from __future__ import annotations

import numpy as np

from foldwise.checks.finding import Finding, Remedy, smaller
from foldwise.checks.sight import Sight
from foldwise.checks.symptoms import SLOW, UNSURE
from foldwise.errors import percent

EXPLAINS = ("non-finite", *SLOW, *UNSURE)
MOST = 0.5  # of an epoch's steps
SETTLES = 20  # steps that a loss scale may take to find its level: it halves from 2**16, or from higher


def find(sight: Sight) -> Finding | None:
    """Look for epochs of which most steps were skipped, when the loss scale had had time to settle."""
    if sight.curve is None:
        return None
    skipped = np.nan_to_num(sight.curve.skipped)
    settled = np.arange(len(skipped)) * sight.curve.steps >= SETTLES
    settled |= sight.curve.diverged  # then no level is found any more
    bad = np.flatnonzero((skipped > MOST) & settled)
    if not len(bad):
        return None
    worst = int(bad[np.argmax(skipped[bad])])
    return Finding(
        "half-overflow",
        "sure",
        f"{percent(skipped[worst])} of the steps of epoch {worst + 1} overflowed and were skipped, and so were most in "
        f"{len(bad)} of {len(skipped)} epochs",
        trials=sight.about,
        step=int(bad[0]) * sight.curve.steps,
        remedies=_remedies(sight),
    )


def _remedies(sight: Sight) -> tuple[Remedy, ...]:
    s = sight.settings
    if s is None:
        return (Remedy("bfloat16"), Remedy("full precision"))
    return (
        Remedy("bfloat16", {"precision": "bfloat16"}),
        Remedy("full precision", {"precision": "full"}),
        smaller("learning_rate", s.learning_rate, 10),
    )
