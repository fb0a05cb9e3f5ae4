"""A network that learns its rows by heart: the validation loss rises while the training loss goes on falling.

Evidence: the lowest validation loss and that at the end, fold by fold; the training loss at both; the epoch kept.

Why it hurts: what is learned after the best epoch is true of these rows only.

How sure: likely, when the linear model is better although the network fits its own rows far better; a hint, when the
epoch that is kept, by another score, comes after the rise, and no correction of probabilities mends that. Where it
comes before the rise the score does not suffer, and nothing is said. A small gap is healthy.

What to try: dropout, weight decay, a narrower network; more rows.

References: Prechelt 1998, *Early stopping: but when?*; Srivastava et al. 2014, *Dropout*; Krogh & Hertz 1992, *A simple
weight decay can improve generalization*.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from foldwise.checks.finding import Finding, Remedy, smaller
from foldwise.checks.progress import is_baseline, worse_than_linear
from foldwise.checks.sight import Curve, Sight
from foldwise.checks.symptoms import UNSURE

EXPLAINS = UNSURE
CHANCE = 0.01  # that scores are so much worse than the linear model's: a gap is healthy, and then often not so small
RISES = 0.1  # of all that it fell, and in all folds but one


def find(sight: Sight) -> Finding | None:
    """Look for a validation loss that rises while that of training falls."""
    curve = sight.curve
    if curve is None or curve.diverged or is_baseline(sight) or not np.isfinite(curve.validation).all():
        return None
    if len(curve.validation) < 4:
        return None
    best = int(np.argmin(curve.validation))
    rise = curve.validation[-1] - curve.validation[best]
    fell = max(curve.start, curve.validation[0]) - curve.validation[best]
    falls = curve.training[-1] < curve.training[best]
    if not (falls and rise > RISES * fell > 0 and _in_folds(curve, best)):
        return None
    hurts = (
        worse_than_linear(sight, CHANCE) and curve.training[curve.kept - 1] < curve.validation[curve.kept - 1]
    )
    return Finding(
        "overfitting",
        "likely" if hurts else "hint",
        f"after epoch {best + 1} the validation loss rises from {curve.validation[best]:.3g} to "
        f"{curve.validation[-1]:.3g}, while that of training falls to {curve.training[-1]:.3g}; "
        f"epoch {curve.kept} is kept",
        trials=sight.about,
        step=(best + 1) * curve.steps,
        slight=sight.corrected
        or not curve.validation[curve.kept - 1] - curve.validation[best] > RISES * fell,
        remedies=_remedies(sight),
    )


def _in_folds(curve: Curve, best: int) -> bool:
    """Tell whether the loss rose in all folds but one, or in the only one."""
    rose = curve.by_fold[-1] > curve.by_fold[best]
    return int(rose.sum()) >= max(1, len(rose) - 1)


def _remedies(sight: Sight) -> tuple[Remedy, ...]:
    s = sight.settings
    if s is None:
        return (Remedy("dropout"), Remedy("weight decay"), Remedy("stop earlier"))
    found: list[Remedy] = []
    if s.hidden_layers or "dropout" in s.takes:
        dropout = max(0.3, math.sqrt(s.dropout))
        found.append(Remedy(f"dropout {dropout:.3g}", {"dropout": dropout}))
    decay: dict[str, Any] = {"weight_decay": max(0.1, s.weight_decay * 10)}
    if s.optimizer == "adam":
        decay["optimizer"] = "adamw"
    found.append(Remedy(f"weight decay {decay['weight_decay']:.3g}", decay))
    if s.hidden_layers:
        found.append(smaller("width", s.width, 2))
    return tuple(found)
