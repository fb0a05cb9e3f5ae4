"""Probabilities that are too sure: of rows that get 95 %, fewer than 95 % are right.

Evidence: the mean probability of the classes that were chosen out of fold, beside the share of them that is right, and
the deviation that chance would give to that share if the probabilities were true (each row is a draw of its own).

Why it hurts: the choice of a class may be good all the same, but whatever weighs costs or risks by these probabilities
is misled.

How sure: likely, when they are too high by 15 points or more, beyond chance; a hint for less. Probabilities of new
rows are corrected afterwards where that helps; then less is not mentioned.

What to try: label smoothing; weight decay; a temperature, which is what the correction of new rows uses.

References: Guo, Pleiss, Sun & Weinberger 2017, *On calibration of modern neural networks*; Szegedy et al. 2016,
*Rethinking the Inception architecture* (label smoothing); Niculescu-Mizil & Caruana 2005, *Predicting good
probabilities with supervised learning*.
"""

from __future__ import annotations

import math

import numpy as np

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.progress import is_baseline
from foldwise.checks.sight import Sight
from foldwise.errors import percent

EXPLAINS: tuple[str, ...] = ()
POINTS = 0.15
SOME = 0.03
DEVIATIONS = 4.0


def find(sight: Sight) -> Finding | None:
    """Look for chosen classes that are right less often than they say."""
    own, table = sight.out_of_fold, sight.table
    if own is None or table is None or is_baseline(sight) or own.truth.ndim > 1:
        return None
    if table.task.kind not in ("binary", "multiclass") or sight.curve is None or sight.curve.diverged:
        return None
    said = own.said.astype(np.float64)
    if said.shape[1] == 1:
        said = np.concatenate([1 - said, said], axis=1)
    says, right = said.max(axis=1), said.argmax(axis=1) == own.truth.astype(np.int64)
    over = float(says.mean() - right.mean())
    chance = math.sqrt(max(float((says * (1 - says)).sum()), 1.0)) / len(says)
    if not (over > SOME and over > DEVIATIONS * chance):
        return None
    return Finding(
        "overconfident",
        "likely" if over > POINTS else "hint",
        f"out of fold, the classes chosen have a probability of {percent(says.mean(), 1)} on average, and "
        f"{percent(right.mean(), 1)} "
        f"of them are right; chance alone makes ± {percent(chance, 1)}",
        trials=sight.about,
        remedies=_remedies(sight),
        slight=sight.corrected,
    )


def _remedies(sight: Sight) -> tuple[Remedy, ...]:
    s, by_hand = sight.settings, Remedy("divide the logits by a temperature")
    if s is None:
        return (Remedy("label smoothing"), Remedy("weight decay"), by_hand)
    found = []
    if s.loss in ("cross_entropy", "binary_cross_entropy"):
        smoothing = max(0.1, s.label_smoothing)
        found.append(Remedy(f"label smoothing {smoothing:.3g}", {"label_smoothing": smoothing}))
    decay = {"weight_decay": max(0.1, s.weight_decay * 10)}
    found.append(
        Remedy(
            f"weight decay {decay['weight_decay']:.3g}",
            {**decay, **({"optimizer": "adamw"} if s.optimizer == "adam" else {})},
        )
    )
    return (*found, by_hand)
