"""A training loss that stays where a constant would have it.

Evidence: the epochs in a row in which the mean training loss was within 3 % of the loss of the best constant, though
the linear model shows that there is something to learn, and without passing through on the way down.

Why it hurts: in those epochs the network learns nothing of its inputs; some never leave.

How sure: likely, when training ends there or the linear model is better in the end; a hint when the network came away.

What to try: ReLU with Kaiming's initial weights; a rate ten times as high; normalization.

References: Saad & Solla 1995, *On-line learning in soft committee machines* (plateaus); Dauphin et al. 2014,
*Identifying and attacking the saddle point problem in high-dimensional non-convex optimization*.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any

import numpy as np

from foldwise.checks.finding import Finding, Remedy, larger
from foldwise.checks.progress import CHANCE, alike, is_baseline, p_better, that_change, worse_than_linear
from foldwise.checks.sight import Sight
from foldwise.checks.symptoms import UNSURE
from foldwise.errors import percent

EXPLAINS = ("underfitting", *UNSURE)
NEAR = 0.03  # of the constant's loss
LONG = 0.1  # of the epochs, and three of them


def find(sight: Sight) -> Finding | None:
    """Look for epochs in a row in which the network learned no more than a constant says."""
    curve, constant, linear = sight.curve, sight.others.get("constant"), sight.others.get("linear")
    if curve is None or constant is None or linear is None or is_baseline(sight) or not alike(sight):
        return None
    if not p_better(sight, constant, linear) < CHANCE or not constant.start > 0:
        return None
    near = np.abs(curve.training / constant.start - 1) < NEAR
    first, length = _longest(near)
    if length < max(3, LONG * len(near)):
        return None
    run = curve.training[first : first + length]
    if not run[0] - run[-1] < NEAR / 2 * constant.start:  # it only passes through
        return None
    stays = first + length == len(near)
    return Finding(
        "plateau",
        "likely" if stays or worse_than_linear(sight) else "hint",
        f"from epoch {first + 1} to {first + length} the training loss stays within {percent(NEAR)} of "
        f"{constant.start:.3g}, what a constant has; the linear model shows that more can be learned",
        trials=sight.about,
        step=(first + 1) * curve.steps,
        remedies=_remedies(sight),
    )


def _longest(marks: np.ndarray) -> tuple[int, int]:
    """Give where the longest run of marks begins, and its length."""
    runs, place = [(0, 0)], 0
    for mark, run in groupby(marks.tolist()):
        length = len(list(run))
        if mark:
            runs.append((place, length))
        place += length
    return max(runs, key=lambda own: own[1])


def _remedies(sight: Sight) -> tuple[Remedy, ...]:
    s = sight.settings
    assert s is not None
    found = [larger("learning_rate", s.learning_rate, 10)]
    if s.network in ("mlp", "residual"):
        usual: dict[str, Any] = {"activation": "relu", "initialization": "kaiming"}
        found.insert(0, Remedy("ReLU and Kaiming's initial weights", usual))
        if s.normalization == "none":
            found.append(Remedy("layer normalization", {"normalization": "layer"}))
    return that_change(s, found)
