"""Batches of so few rows that each step follows chance.

Evidence: the rows that a step is made from, and how much the losses of the last epochs jump, over all that was learned.

Why it hurts: the gradient of one row points almost anywhere; the mean over n rows is √n times as exact. Steps must then
be small, so that they average out over time, and many small operations take longer than few large ones.

How sure: likely, when the losses jump or the linear model is better; else a hint: with a low rate single rows are
merely slow.

What to try: batches of 32 rows; or a tenth of the rate.

References: Masters & Luschi 2018, *Revisiting small batch training for deep neural networks* (32 rows or fewer);
McCandlish, Kaplan, Amodei et al. 2018, *An empirical model of large-batch training* (the noise of gradients).
"""

from __future__ import annotations

from foldwise.checks.finding import Finding, Remedy, smaller
from foldwise.checks.progress import is_baseline, jumps, worse_than_linear
from foldwise.checks.sight import Sight
from foldwise.checks.symptoms import FITS_TOO_WELL, POOR, UNSURE
from foldwise.errors import percent

EXPLAINS = ("rate-too-high", "exploding-gradients", "dead-units", "jitter", *POOR, *FITS_TOO_WELL, *UNSURE)
FEW = 4  # rows of a step or fewer
USUAL = 32
JUMPS = 0.03  # of all that was learned, from one epoch to the next; good trainings stay below


def find(sight: Sight) -> Finding | None:
    """Look for steps made of a few rows."""
    s = sight.settings
    if s is None or sight.curve is None or is_baseline(sight) or sight.folds is None:
        return None
    rows = s.batch_size * s.accumulation
    least = int(sight.folds.train.sum(1).min())
    if rows > FEW or least < 2 * USUAL:
        return None
    jump = jumps(sight.curve.validation, sight.curve)
    hurts = jump > JUMPS or worse_than_linear(sight) or sight.curve.diverged
    return Finding(
        "tiny-batches",
        "likely" if hurts else "hint",
        f"each step is made from {rows} row{'s' * (rows > 1)} of {least}"
        + (f"; the validation loss jumps by {percent(jump)} of all that was learned" if jump > JUMPS else ""),
        trials=sight.about,
        remedies=(
            Remedy("batches of 32 rows", {"batch_size": USUAL, "accumulation": 1}),
            smaller("learning_rate", s.learning_rate, 10),
        ),
    )
