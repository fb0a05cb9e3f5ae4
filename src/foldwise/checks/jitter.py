"""Losses that jump from epoch to epoch instead of settling.

Evidence: the size of the jumps of the validation and the training loss in the second half of the epochs, over all that
training lowered them.

Why it hurts: the network ends wherever the last jump took it, and which epoch is best is a matter of luck.

How sure: likely, when the linear model is better as well; else a hint: the epoch that is kept may well be good.

What to try: a third of the rate; a cosine, which ends with small steps; batches four times as large.

References: Smith, Kindermans, Ying & Le 2018, *Don't decay the learning rate, increase the batch size*; Mandt, Hoffman
& Blei 2017, *Stochastic gradient descent as approximate Bayesian inference* (how far noise takes steps).
"""

from __future__ import annotations

import numpy as np

from foldwise.checks.finding import Finding, Remedy, larger, smaller
from foldwise.checks.progress import is_baseline, jumps, least, worse_than_linear
from foldwise.checks.sight import Curve, Sight
from foldwise.checks.symptoms import FITS_TOO_WELL, UNSURE
from foldwise.errors import percent

EXPLAINS = ("underfitting", *FITS_TOO_WELL, *UNSURE)
NOISE = 3.0  # standard errors of a point, where losses are of some batches only
JUMPS = 0.05  # of all that was learned; good trainings have 0.02 and less


def find(sight: Sight) -> Finding | None:
    """Look for jumps in the second half of the epochs."""
    if sight.curve is None or sight.curve.diverged or is_baseline(sight):
        return None
    of = {
        "training": jumps(sight.curve.training, sight.curve),
        "validation": jumps(sight.curve.validation, sight.curve),
    }
    name, size = max(of.items(), key=lambda own: own[1] if own[1] == own[1] else -1.0)
    if not size > JUMPS + _doubt(sight.curve):
        return None
    half = "of the epochs" if sight.curve.epochs else "of the steps"
    return Finding(
        "jitter",
        "likely" if worse_than_linear(sight) else "hint",
        f"in the second half {half} the {name} loss jumps by {percent(size)} of all that it fell",
        trials=sight.about,
        step=sight.looks[-1].step if sight.looks else None,
        remedies=_remedies(sight),
    )


def _doubt(curve: Curve) -> float:
    """Give how much points jump that are means of few batches; 0 where losses are those of all rows."""
    if not curve.noise:
        return 0.0
    return (
        NOISE
        * curve.noise
        / max(
            max(curve.start, float(np.nanmax(curve.training, initial=-np.inf))) - least(curve.training), 1e-30
        )
    )


def _remedies(sight: Sight) -> tuple[Remedy, ...]:
    s = sight.settings
    if s is None:
        return (Remedy("a smaller learning rate"), Remedy("larger batches"))
    found = [smaller("learning_rate", s.learning_rate, 3)]
    if s.schedule == "constant":
        found.append(Remedy("a cosine", {"schedule": "cosine"}))
    found.append(larger("batch_size", s.batch_size, 4))
    return tuple(found)
