"""So few steps, often because one batch holds all rows, that training ends before it is done.

Evidence: how many steps a member took, how many of its training rows a batch holds, and whether training was not
finished: the loss still falls at the end, or the linear model fits better.

Why it hurts: a step goes about as far with 32 rows as with all of them; with all of them there is one step per epoch.

How sure: likely, when a batch holds most of the rows or there are fewer than 100 steps, and training was not finished.

What to try: smaller batches; ten times the epochs.

References: Keskar, Mudigere, Nocedal, Smelyanskiy & Tang 2017, *On large-batch training for deep learning*; Hoffer,
Hubara & Soudry 2017, *Train longer, generalize better* (it is the number of steps that counts).
"""

from __future__ import annotations

from foldwise.checks.finding import Finding, Remedy, larger
from foldwise.checks.progress import (
    LATE,
    fits_worse_than_linear,
    is_baseline,
    learned_late,
    steps_of,
    worse_than_linear,
)
from foldwise.checks.sight import Sight
from foldwise.checks.symptoms import POOR, UNSURE
from foldwise.errors import percent

EXPLAINS = ("rate-too-low", *POOR, *UNSURE)
FEW = 100  # steps; fewer than nearly every network needs
MOST_OF = 0.5  # of the training rows in one batch
EVEN = 0.15  # of the fall in the second half is more than trainings have that are done


def find(sight: Sight) -> Finding | None:
    """Look for a training of few steps that was not finished."""
    s, curve = sight.settings, sight.curve
    if s is None or curve is None or curve.diverged or is_baseline(sight) or sight.folds is None:
        return None
    rows = float(sight.folds.train.sum(1).mean())
    steps = curve.steps * len(curve.training)
    share = min(1.0, s.batch_size * s.accumulation / rows)
    if s.early_stopping and len(curve.training) < s.epochs:
        return None
    late = learned_late(curve)
    ends = curve.kept > 0.8 * len(curve.training)  # the best epoch is one of the last
    behind = fits_worse_than_linear(sight) and (ends or worse_than_linear(sight))
    unfinished = late > LATE or behind or (ends and late > EVEN)
    if not (share > MOST_OF or steps < FEW) or steps > 10 * FEW or not unfinished:
        return None
    if fits_worse_than_linear(sight):
        said = "the linear model fits the training rows better"
    else:
        said = f"{percent(late)} of the fall of the training loss came in the second half"
    return Finding(
        "few-steps",
        "likely" if behind or late > LATE else "hint",
        f"{steps_of(steps)} in all, each of {share * rows:.0f} of {rows:.0f} rows, and {said}",
        trials=sight.about,
        remedies=_remedies(sight, rows),
    )


def _remedies(sight: Sight, rows: float) -> tuple[Remedy, ...]:
    s = sight.settings
    assert s is not None
    small = max(4, min(32, round(rows / 16)))
    found = [larger("epochs", s.epochs, 10)]
    if small < s.batch_size * s.accumulation:
        found.insert(0, Remedy(f"batches of {small} rows", {"batch_size": small, "accumulation": 1}))
    found.append(larger("learning_rate", s.learning_rate, 10))
    return tuple(found)
